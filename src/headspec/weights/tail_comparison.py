"""Does a lognormal or an exponential describe the tail better than the power law?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.special import erfc, erfcx
from torch import Tensor

from headspec.errors import InputError, check_choice
from headspec.results import tidy
from headspec.weights.batch_frames import batch_frame
from headspec.weights.power_law_result import PowerLawFit

Against = Literal["lognormal", "exponential"]
_SERIES = 12  # terms of the asymptotic series of the Mills ratio, used from _FAR on
_FAR = 25.0


@dataclass(frozen=True)
class TailComparison:
    """Power law against another law on the same tails, for each spectrum of a batch.

    Attributes:
        ratio: log-likelihood of the power law minus that of the other law, over all values of
            the tail; positive favours the power law. nan where there was no fit.
        normalised: the ratio over its standard deviation, standard normal when both laws are
            equally far from the truth.
        p_value: two-sided, that the ratio differs from zero by more than chance (Vuong).
        parameters: of the other law: rate of the exponential; mu and sigma of the lognormal's
            logarithm, -inf and inf where it only approaches the power law.
        n_tail: values compared.
        against: the other law.
    """

    ratio: Float[np.ndarray, "*batch"]
    normalised: Float[np.ndarray, "*batch"]
    p_value: Float[np.ndarray, "*batch"]
    parameters: Float[np.ndarray, "*batch parameter"]
    n_tail: Int[np.ndarray, "*batch"]
    against: str

    def to_frame(self, *, dims: Sequence[str] | None = None) -> pd.DataFrame:
        """One row a spectrum: the normalised ratio and its p; `ratio` is an extra column.

        Args:
            dims: names of the batch's dimensions, which become columns, such as
                `("layer", "head")`; None: `index`, or `index_0`, `index_1`, ... of several.
        """
        values = {f"power_law_vs_{self.against}": self.normalised}
        return tidy(batch_frame(values, dims, p=self.p_value, n=self.n_tail, ratio=self.ratio))

    def summary(self) -> str:
        """One plain sentence a verdict."""
        p, sign = self.p_value.reshape(-1), np.sign(self.ratio.reshape(-1))
        done = int((~np.isnan(p)).sum())
        won, lost = (int(((p < 0.05) & (sign == side)).sum()) for side in (1, -1))
        return (
            f"Of {done} tails, {won} favour the power law over the {self.against} and {lost} the "
            f"{self.against} (p < .05); {done - won - lost} do not tell them apart."
        )


def compare_tails(
    values: Float[Tensor, "*batch n"] | Float[np.ndarray, "*batch n"],
    fit: PowerLawFit,
    *,
    against: Against = "lognormal",
) -> TailComparison:
    """Likelihood ratio of a fitted power law and another law on the same tail.

    The other law is fitted to the values from `fit.xmin` on, cut off below it, by maximum
    likelihood: the exponential in closed form, the lognormal exactly through its two moments
    (log x above log xmin is a normal variable cut off at zero, one equation for one unknown). With
    d the difference of the log-likelihoods of each value, the normalised ratio is
    sum(d) / (sqrt(n) sd(d)) and p = erfc(|it| / sqrt 2) (Vuong 1989).

    The lognormal holds the power law as a limit (mu to -inf with sigma to inf). Where that limit
    is the best lognormal, the ratio is 0 and p is 1; it is never above 0. So "not distinguishable"
    is the best a power law can do against it. `powerlaw` stops its search on the way to the limit,
    where its densities underflow, and reports small ratios of either sign.

    Args:
        values: the same values the fit was made from.
        fit: from `fit_power_law`.
        against: `"lognormal"` or `"exponential"`.

    Returns:
        A `TailComparison`.

    Raises:
        InputError: values of another batch than the fit, or with other tails.

    What it does not show: that the better law is right, only that the other is worse; with few
    values in the tail nothing is told apart. xmin was chosen to suit the power law, which favours
    it.

    References:
        Clauset, Shalizi and Newman 2009, section 5 and appendix C.

    Example:
        >>> import numpy as np
        >>> from headspec.weights.power_law import fit_power_law
        >>> values = np.random.default_rng(0).exponential(size=2000)
        >>> found = compare_tails(values, fit_power_law(values, xmin=0.5), against="exponential")
        >>> bool(found.normalised < 0), bool(found.p_value < 0.01)
        (True, True)
    """
    check_choice("against", against, get_args(Against))
    if isinstance(values, Tensor):
        values = values.detach().to("cpu").double().numpy()
    values = np.asarray(values, dtype=np.float64)
    rows = values.reshape(-1, values.shape[-1])
    xmin, slope = fit.xmin.reshape(-1, 1), fit.alpha.reshape(-1, 1) - 1
    with np.errstate(invalid="ignore"):
        inside = rows >= xmin
    if (
        values.shape[:-1] != fit.alpha.shape
        or (inside.sum(1) != fit.n_tail.reshape(-1))[~np.isnan(xmin[:, 0])].any()
    ):
        raise InputError(
            expected=f"the values of the fit: batch {list(fit.alpha.shape)}, the same tails",
            got=f"values of shape {list(values.shape)}",
            fix="Pass what was passed to fit_power_law.",
        )
    n = np.where(np.isnan(slope[:, 0]), 0, inside.sum(1))[:, None].astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        over = np.where(inside, rows / xmin, 1.0)
        logs = np.log(over)  # of x / xmin: scale-free
        power = np.log(slope) - (slope + 1) * logs
        if against == "exponential":
            rate = n / (over - 1).sum(1, keepdims=True)
            other = np.log(rate) - rate * (over - 1)
            parameters = rate / xmin
        else:
            mu, sigma, other = _lognormal(logs, n, slope)
            parameters = np.concatenate([mu + np.log(xmin), sigma], axis=1)
        difference = np.where(inside, power - other, 0.0)
        ratio = np.where(n > 0, difference.sum(1, keepdims=True), np.nan)
        spread = (np.where(inside, difference - ratio / n, 0.0) ** 2).sum(1, keepdims=True)
        normalised = np.where(ratio == 0, 0.0, ratio / np.sqrt(spread))
        p_value = erfc(np.abs(normalised) / np.sqrt(2))
    batch = fit.alpha.shape
    return TailComparison(
        ratio=ratio.reshape(batch),
        normalised=normalised.reshape(batch),
        p_value=np.asarray(p_value).reshape(batch),
        parameters=parameters.reshape(*batch, -1),
        n_tail=fit.n_tail,
        against=against,
    )


def _lognormal(
    logs: Float[np.ndarray, "row n"], n: Float[np.ndarray, "row 1"], slope: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """mu, sigma and log-likelihoods (of x / xmin) of the best lognormal above 1.

    y = log(x / xmin) has density proportional to exp(-(y - mu)^2 / (2 sigma^2)) on y > 0. With
    h = -mu / sigma, E[y^2] / E[y]^2 depends on h alone and rises from 1 to 2, the exponential's
    (a power law of x): from there on the limit is the best.
    """
    mean = logs.sum(1, keepdims=True) / n
    wanted = (logs**2).sum(1, keepdims=True) / n / mean**2
    low, high = np.full_like(wanted, -18.0), np.full_like(wanted, 12.0)  # of arcsinh h
    for _ in range(70):
        middle = (low + high) / 2
        below = _moments(np.sinh(middle))[1] < wanted
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    h = np.sinh((low + high) / 2)
    first, _ = _moments(h)
    sigma, limit = mean / first, wanted >= _moments(np.sinh(12.0))[1]
    normaliser = np.log(np.sqrt(np.pi / 2) * sigma) + _log_erfcx(h / np.sqrt(2))
    other = -h * logs / sigma - (logs / sigma) ** 2 / 2 - normaliser - logs
    power = np.log(slope) - (slope + 1) * logs
    return (
        np.where(limit, -np.inf, -h * sigma),
        np.where(limit, np.inf, sigma),
        np.where(limit, power, other),
    )


def _moments(h: Any) -> tuple[Any, Any]:
    """E[y] / sigma and E[y^2] / E[y]^2 of a normal variable of mean -h sigma cut off at 0.

    Mills' ratio M gives 1/M - h and (1 - h (1/M - h)) / (1/M - h)^2; from h = 25 on its asymptotic
    series, where these differences would cancel.
    """
    h = np.asarray(h, dtype=float)
    near = np.minimum(h, _FAR)
    with np.errstate(over="ignore"):
        inverse = np.sqrt(2 / np.pi) / erfcx(near / np.sqrt(2))
    first, second = inverse - near, 1 - near * (inverse - near)
    far = np.maximum(h, _FAR)
    mills, one, two, term = np.zeros_like(far), np.zeros_like(far), np.zeros_like(far), 1 / far
    for k in range(_SERIES):
        mills += term
        one += term * (2 * k + 1) / far  # 1 - h M
        two -= term * 2 * k  # M - h (1 - h M)
        term = -term * (2 * k + 1) / far**2
    first = np.where(h > _FAR, one / mills, first)
    second = np.where(h > _FAR, two / mills, second)
    return first, second / first**2


def _log_erfcx(x: np.ndarray) -> np.ndarray:
    """log of exp(x^2) erfc(x), also where that overflows."""
    with np.errstate(over="ignore"):
        return np.where(x < -25, x**2 + np.log(2.0), np.log(erfcx(np.maximum(x, -25.0))))
