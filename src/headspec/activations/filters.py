"""How far convolution filters point in different directions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from headspec.errors import InputError
from headspec.results import tidy
from headspec.stats import NullSummary, summarise_null

_METRICS = ("mean_abs_cosine", "departure")


@dataclass(frozen=True, kw_only=True)
class FilterOrthogonality:
    """How near filters are to orthogonal, beside random filters of the same shape.

    G holds the cosines between filters (`filter_similarity`), N filters of d values each.

    Attributes:
        mean_abs_cosine: mean |G_ij| over pairs: 0 for orthogonal filters.
        departure: |G - I| (Frobenius): 0 for orthogonal filters.
        least_departure: no N filters of d values have less: 0 up to N = d, above it
            sqrt(N^2 / d - N) (Welch).
        null: metric -> the number beside that of Gaussian filters, p for both tails; where the
            number is below `null[...].mean`, filters are more orthogonal than random ones.
        n_filters, n_values: N (without filters of zeros) and d.
        n_zero: filters of zeros, left out.
        n_null, seed: sets of random filters and their seed.
    """

    mean_abs_cosine: float
    departure: float
    least_departure: float
    null: dict[str, NullSummary]
    n_filters: int
    n_values: int
    n_zero: int
    n_null: int
    seed: int

    def to_frame(self) -> pd.DataFrame:
        """Two rows, `filter_mean_abs_cosine` and `filter_departure`; `n` filters."""
        rows = [
            {
                "metric": f"filter_{name}",
                "value": getattr(self, name),
                "null_mean": self.null[name].mean,
                "null_sd": self.null[name].sd,
                "p": self.null[name].p_value,
                "least": least,
            }
            for name, least in zip(_METRICS, (0.0, self.least_departure), strict=True)
        ]
        return tidy(rows, n=self.n_filters, seed=self.seed if self.n_null else None)

    def summary(self) -> str:
        """The numbers in words."""
        parts = []
        for name in _METRICS:
            null = self.null[name]
            beside = f" (random: {null.mean:.3f}, p {null.p_value:.3g})" if self.n_null else ""
            parts.append(f"{name.replace('_', ' ')} {getattr(self, name):.3f}{beside}")
        words = f"{self.n_filters} filters of {self.n_values} values: {', '.join(parts)}."
        if self.n_filters > self.n_values:
            words += (
                " More filters than values cannot be orthogonal: the departure is at least "
                f"{self.least_departure:.3f}."
            )
        return words + (f" {self.n_zero} filter(s) of zeros left out." if self.n_zero else "")


def filter_similarity(
    filters: Float[Tensor, "filter ..."], *, signed: bool = True
) -> Float[Tensor, "filter filter"]:
    """Cosines between filters read as vectors: <w_i, w_j> / (|w_i| |w_j|).

    Args:
        filters: such as `conv.weight`, `filter channel height width`; any floating dtype,
            computed in float64.
        signed: False for |cos|: a filter and its negative are then the same.

    Returns:
        float64, on the filters' device; rows and columns of nan for a filter of zeros.

    What it does not show: a filter moved by one pixel may be orthogonal to itself.

    Raises:
        InputError: no filter, or entries that are not finite.

    Example:
        >>> import torch
        >>> cosines = filter_similarity(torch.tensor([[[1.0, 0.0]], [[-1.0, 1.0]]]))
        >>> cosines.round(decimals=3).tolist()
        [[1.0, -0.707], [-0.707, 1.0]]
    """
    with torch.no_grad():
        units = _unit_filters(filters)
        cosines = (units @ units.mT).clamp(-1, 1)
        own = cosines.diagonal()
        own[~own.isnan()] = 1.0
        return cosines if signed else cosines.abs()


def filter_orthogonality(
    filters: Float[Tensor, "filter ..."], *, n_null: int = 199, seed: int = 0
) -> FilterOrthogonality:
    """How near filters are to orthogonal, beside Gaussian filters of the same shape.

    Random directions in d dimensions are nearly orthogonal already: their mean |cos| is
    Gamma(d/2) / (sqrt(pi) Gamma((d+1)/2)), about sqrt(2 / (pi d)), which is .16 for 5 x 5 and
    .26 for 3 x 3 filters, and |G - I|^2 is N (N - 1) / d on average. Filters as they are
    initialised are such: hold what training did against the null, not against 0.

    Args:
        filters: such as `conv.weight`; any floating dtype and device. Filters of zeros are left
            out.
        n_null: sets of random filters; 0: none.
        seed: of the null, which is kept for each shape.

    Returns:
        A `FilterOrthogonality`, whose p-values are two-sided.

    What it does not show: that filters detect different things (see `filter_similarity`), or how
    well: a filter of noise is as orthogonal as any.

    Raises:
        InputError: fewer than two filters that are not zeros, or entries that are not finite.

    References:
        Welch 1974, IEEE Trans. Inf. Theory 20:397 (the bound). Bansal et al. 2018,
        arXiv:1810.09102 (the departure, as a regulariser).

    Example:
        >>> import torch
        >>> found = filter_orthogonality(torch.eye(4).reshape(4, 2, 2))
        >>> found.mean_abs_cosine, found.departure, found.null["departure"].p_value
        (0.0, 0.0, 0.01)
    """
    if n_null < 0:
        raise InputError(expected="n_null of 0 or more", got=f"{n_null}", fix="199, say.")
    with torch.no_grad():
        units = _unit_filters(filters)
        units = units[~units.isnan().any(1)]
    n_filters, n_values = units.shape
    if n_filters < 2:
        raise InputError(
            expected="at least two filters that are not all 0",
            got=f"{n_filters} of {filters.shape[0]}",
            fix="A pair is needed for a cosine.",
        )
    found = _departures(units.cpu().numpy()[None])[:, 0]
    null = {name: NullSummary.bare(value) for name, value in zip(_METRICS, found, strict=True)}
    if n_null:
        draws = _random_departures(n_filters, n_values, n_null, seed)
        null = {
            name: summarise_null(value, values, alternative="two-sided")
            for name, value, values in zip(_METRICS, found, draws, strict=True)
        }
    return FilterOrthogonality(
        mean_abs_cosine=float(found[0]),
        departure=float(found[1]),
        least_departure=math.sqrt(max(0.0, n_filters**2 / n_values - n_filters)),
        null=null,
        n_filters=n_filters,
        n_values=n_values,
        n_zero=filters.shape[0] - n_filters,
        n_null=n_null,
        seed=seed,
    )


def check_filters(filters: Tensor) -> Float[Tensor, "filter ..."]:
    """Filters in float64 on their device.

    Raises:
        InputError: no tensor or filter, whole numbers, or entries that are not finite.
    """
    is_tensor = isinstance(filters, Tensor)
    if not is_tensor or not filters.is_floating_point() or filters.ndim < 2 or 0 in filters.shape:
        shape = f"{filters.dtype} of shape {list(filters.shape)}" if is_tensor else ""
        raise InputError(
            expected="a floating tensor `filter *shape`",
            got=shape or type(filters).__name__,
            fix="Pass `conv.weight`: filter channel height width (torch.from_numpy of an array).",
        )
    found = filters.detach().double()
    bad = int((~torch.isfinite(found)).sum())
    if bad:
        raise InputError(
            expected="finite filters",
            got=f"{bad} of {found.numel()} entries NaN or infinite",
            fix="Did training diverge?",
        )
    return found


def _unit_filters(filters: Tensor) -> Tensor:
    """`filter value` of unit norm, float64; nan for a filter of zeros."""
    rows = check_filters(filters).flatten(1)
    peak = rows.abs().amax(1, keepdim=True)
    rows = rows / torch.where(peak > 0, peak, torch.nan)
    return rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)


def _departures(units: np.ndarray) -> np.ndarray:
    """Mean |cos| over pairs and |G - I| of sets of unit filters, `2 set`."""
    cosines = units @ units.swapaxes(-1, -2)
    n = cosines.shape[-1]
    cosines[..., np.arange(n), np.arange(n)] = 0
    mean = np.abs(cosines).sum((-2, -1)) / (n * (n - 1))
    return np.stack([mean, np.sqrt(np.square(cosines).sum((-2, -1)))])


@lru_cache(maxsize=32)
def _random_departures(n_filters: int, n_values: int, n_null: int, seed: int) -> np.ndarray:
    """`_departures` of sets of Gaussian filters."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(n_null):
        draw = rng.standard_normal((n_filters, n_values))
        found.append(_departures((draw / np.linalg.norm(draw, axis=1, keepdims=True))[None]))
    return np.concatenate(found, axis=1)
