"""From which step on is a curve above chance, and stays there?"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import norm
from scipy.stats import t as student

from headspec.errors import InputError, check_choice
from headspec.results import tidy
from headspec.series.curve import Curve, read_curve
from headspec.series.noise import local_noise_sd
from headspec.series.sigmoid import SigmoidFit, sigmoid_of

Direction = Literal["rise", "fall"]
Status = Literal["emerged", "at_first_step", "never", "lost"]
_MIN_PLATEAU = 3  # points before emergence whose spread about chance is trusted as noise
_MIN_POINTS = 5


@dataclass(frozen=True)
class Emergence:
    """Where a curve leaves chance.

    Attributes:
        metric, model, layer, head: what was measured.
        status: `"emerged"` between two steps; `"at_first_step"`: above chance at every step, so
            it emerged at or before the first; `"never"`: not by the last step, it may come
            later; `"lost"`: above chance on the way, but not at the end (only where
            `sustained`).
        step: first step of the part above chance; None if never or lost.
        step_before: the step before it; emergence lies in (step_before, step]. None if unknown.
        value: the metric at `step`, else at the last step.
        p_value: of the claim. Known noise, sustained: the largest p of the points from `step` on
            (of the last point if never); else corrected for the number of steps looked at.
        chance, direction, sustained, alpha: what was asked.
        noise: `"standard errors"` or `"plateau"`, where the noise came from.
        sigmoid: a fitted sigmoid with midpoint and width; NaN unless the status is `"emerged"`.
        n, seed: number of steps, seed of the simulated null.
    """

    metric: str
    model: str | None
    layer: int | None
    head: int | None
    status: Status
    step: int | None
    step_before: int | None
    value: float
    p_value: float
    chance: float
    direction: Direction
    sustained: bool
    alpha: float
    noise: Literal["standard errors", "plateau"]
    sigmoid: SigmoidFit
    n: int
    seed: int

    def to_frame(self) -> pd.DataFrame:
        """One tidy row; `step` is the step of emergence (None if censored), `value` the metric."""
        row = {
            "model": self.model,
            "step": self.step,
            "layer": self.layer,
            "head": self.head,
            "metric": f"{self.metric}.emergence",
            "value": self.value,
            "null_mean": self.chance,
            "null_sd": np.nan,
            "p": self.p_value,
            "n": self.n,
            "seed": self.seed,
            "status": self.status,
            "step_before": self.step_before,
        }
        fitted = ("midpoint", "midpoint_low", "midpoint_high", "width")
        return tidy([row | {name: getattr(self.sigmoid, name) for name in fitted}])

    def summary(self) -> str:
        """One or two plain sentences."""
        side = "above" if self.direction == "rise" else "below"
        chance = f"chance ({self.chance:.4g})"
        stays = ", and stays so" if self.sustained else " for the first time"
        if self.status == "never":
            return (
                f"{self.metric}: not distinguishable from {chance} by the last step "
                f"(p = {self.p_value:.2g})."
            )
        if self.status == "lost":
            return f"{self.metric}: {side} {chance} on the way, but not at the last step."
        if self.status == "at_first_step":
            return f"{self.metric}: {side} {chance} at the first step already{stays}."
        text = (
            f"{self.metric}: {side} {chance} from step {self.step} on{stays} "
            f"(emerged after step {self.step_before}, p = {self.p_value:.2g})."
        )
        if np.isfinite(self.sigmoid.midpoint):
            fit = self.sigmoid
            text += (
                f" Sigmoid midpoint at step {fit.midpoint:.4g} "
                f"({fit.midpoint_low:.4g} to {fit.midpoint_high:.4g})."
            )
        return text


def emergence_step(
    frame: pd.DataFrame,
    metric: str,
    *,
    chance: float | int | Literal["first_step"],
    se: float | int | str | None = None,
    direction: Direction = "rise",
    sustained: bool = True,
    alpha: float = 0.05,
    n_null: int = 2000,
    seed: int = 0,
) -> Emergence:
    """The first step from which a curve stays above chance (below, for a loss that falls).

    With standard errors, a point is above chance if z = (value - chance) / se passes the normal
    quantile. Sustained emergence needs every point from there to the last to pass. A curve that
    never leaves chance does so with probability alpha at most, because its last point must pass;
    for the same reason the step found is too early with probability alpha at most. Without
    `sustained` the quantile is corrected for looking at n steps (Sidak).

    Without standard errors, the noise of a candidate step is the spread about chance of all points
    before it (three at least), and t takes the place of z; for the first three steps, where there
    is no plateau, the noise is local (`headspec.series.noise`). The smallest p over
    all candidates is compared with its simulated distribution on curves at chance, for normal,
    heavy-tailed and skewed noise, so that at most alpha of them are called emerged.

    Args:
        frame: tidy frame with `step`, `metric`, `value`, of one model, layer and head.
        metric: which metric.
        chance: value of the metric without the ability, known beforehand; or `"first_step"`: what
            the first checkpoint scores, whose standard error is added in quadrature. An
            untrained model is seldom at the level of guessing (`chance_level`).
        se: standard error of each value, a number or a column. A point with se 0 is above chance
            if its value is.
        direction: whether the ability raises the metric or lowers it.
        sustained: whether the curve must stay above chance to the last step.
        alpha: family-wise rate of false emergence.
        n_null: simulated curves for each kind of noise.
        seed: of the simulation.

    Returns:
        An `Emergence`, with the censored cases named.

    Raises:
        InputError: if the frame does not hold one finite curve of 5 steps or more, or chance is
            not finite.

    What it does not show: that the ability is absent before; a thresholded metric (accuracy)
    leaves chance later than a continuous one (log-probability). A curve whose plateau does not
    lie at `chance` is called early or never. Standard errors that are too small make it early.

    Example:
        >>> import pandas as pd
        >>> from headspec.series.emergence import emergence_step
        >>> accuracy = [0.49, 0.51, 0.50, 0.52, 0.48, 0.74, 0.91, 0.97]
        >>> frame = pd.DataFrame({"step": [0, 1, 2, 4, 8, 16, 32, 64], "value": accuracy})
        >>> found = emergence_step(frame.assign(metric="acc"), "acc", chance=0.5, se=0.02)
        >>> found.status, found.step_before, found.step
        ('emerged', 8, 16)
    """
    check_choice("direction", direction, get_args(Direction))
    first_step = chance == "first_step"
    known = first_step or (not isinstance(chance, str) and np.isfinite(chance))
    if not known or not 0 < alpha < 1 or n_null * alpha < 1 or (first_step and se is None):
        raise InputError(
            expected="a finite chance (or 'first_step', with standard errors), 0 < alpha < 1 and "
            "n_null x alpha from 1 up",
            got=f"chance {chance}, alpha {alpha}, n_null {n_null}",
            fix="Chance is the metric of guessing: 0.5 for two equal answers.",
        )
    curve = read_curve(frame, metric, noise_sd=se, min_points=_MIN_POINTS)
    level = float(curve.values[0] if isinstance(chance, str) else chance)
    if first_step and curve.noise_sd is not None:
        noise = np.hypot(curve.noise_sd, curve.noise_sd[0])
        curve = dataclasses.replace(curve, noise_sd=noise)
    sign = 1.0 if direction == "rise" else -1.0
    above = sign * (curve.values - level)
    if curve.noise_sd is not None:
        first, p, lost = _by_standard_errors(above, curve.noise_sd, sustained, alpha)
    else:
        first, p, lost = _by_plateau(curve, above, sustained, alpha, n_null, seed)
    status: Status = "lost" if lost else "never"
    if first is not None:
        status = "emerged" if first else "at_first_step"
    fit = SigmoidFit(*[np.nan] * 7, level=1 - alpha, n=len(above))
    if status == "emerged":
        fit = sigmoid_of(curve, level=1 - alpha)
    return Emergence(
        metric=metric,
        model=curve.model,
        layer=curve.layer,
        head=curve.head,
        status=status,
        step=None if first is None else int(curve.steps[first]),
        step_before=int(curve.steps[first - 1]) if first else None,
        value=float(curve.values[-1 if first is None else first]),
        p_value=p,
        chance=level,
        direction=direction,
        sustained=sustained,
        alpha=alpha,
        noise="plateau" if curve.noise_sd is None else "standard errors",
        sigmoid=fit,
        n=len(above),
        seed=seed,
    )


def _by_standard_errors(
    above: Float[np.ndarray, " step"], se: Float[np.ndarray, " step"], sustained: bool, alpha: float
) -> tuple[int | None, float, bool]:
    """Index of emergence or None, p of the claim, and whether it was lost again."""
    p = norm.sf(_ratio(above, se))
    n = len(p)
    once = 1 - (1 - p) ** n
    if not sustained:
        passed = np.flatnonzero(once <= alpha)
        return (int(passed[0]) if len(passed) else None), float(once.min()), False
    suffix = np.maximum.accumulate(p[::-1])[::-1]
    passed = np.flatnonzero(suffix <= alpha)
    if len(passed):
        return int(passed[0]), float(suffix[passed[0]]), False
    return None, float(p[-1]), bool(once.min() <= alpha)


def _ratio(above: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """above / noise; without noise, a value off chance is infinitely far off, one at it is not."""
    certain = np.where(above > 0, np.inf, np.where(above < 0, -np.inf, 0.0))
    return np.where(noise > 0, above / np.where(noise > 0, noise, 1.0), certain)


def _by_plateau(
    curve: Curve, above: np.ndarray, sustained: bool, alpha: float, n_null: int, seed: int
) -> tuple[int | None, float, bool]:
    positions = np.log1p(curve.steps)

    def claim(stays: bool) -> tuple[int | None, float]:
        candidates = _candidate_p(above[None], positions, stays)[0]
        null = _plateau_null(tuple(curve.steps.tolist()), stays, n_null, seed)
        reached = (null <= candidates.min() * (1 + 1e-9)).sum(axis=1).max()
        p = float((1 + reached) / (1 + n_null))
        if p > alpha:
            return None, p
        level = np.quantile(null, alpha, axis=1, method="lower").min()
        return int(np.flatnonzero(candidates <= max(level, candidates.min()))[0]), p

    first, p = claim(sustained)
    if first is None and sustained:
        return None, p, claim(False)[0] is not None
    return first, p, False


def _candidate_p(
    above: Float[np.ndarray, "curve step"], positions: Float[np.ndarray, " step"], sustained: bool
) -> Float[np.ndarray, "curve step"]:
    """p of each step as the step of emergence: of its own point, or of the worst from there on."""
    n = above.shape[1]
    local = local_noise_sd(above, positions)
    result = np.empty_like(above)
    for at in range(n):
        freedom = at if at >= _MIN_PLATEAU else max((n - 2) / 3, 1.0)
        noise = np.sqrt((above[:, :at] ** 2).mean(axis=1)) if at >= _MIN_PLATEAU else local
        tested = above[:, at:] if sustained else above[:, at : at + 1]
        least = tested.min(axis=1)
        result[:, at] = student.sf(_ratio(least, noise), freedom)
    return result


@lru_cache(maxsize=64)
def _plateau_null(
    steps: tuple[int, ...], sustained: bool, n_null: int, seed: int
) -> Float[np.ndarray, "noise draw"]:
    """Smallest candidate p of curves that never leave chance."""
    rng = np.random.default_rng(seed)
    shape, positions = (n_null, len(steps)), np.log1p(np.array(steps, dtype=float))
    draws = (
        rng.standard_normal(shape),
        rng.standard_t(3, size=shape),
        rng.exponential(size=shape) - 1,
        1 - rng.exponential(size=shape),
    )
    return np.stack([_candidate_p(d, positions, sustained).min(axis=1) for d in draws])
