"""How far each point of a curve stands out as a change of level, in units of the changes around it.

The contrast of width w at t is the mean of w points from t on, less the mean of w points before t.
Three things may be large without a jump, and each is taken off:

- *noise, correlated or not*: the contrast is divided by the size of the contrasts of the same
  width around it (at a distance of w and more; their 70 % quantile, over that of a normal). White
  noise, autoregression and a random walk each bring their own scale, and nothing is assumed of
  their correlation. Noise whose size changes over training is first brought to one size by a
  straight line through the logarithm of the first differences.
- *drift*: of two contrasts side by side, one before and one after, the larger of the same sign is
  subtracted. Straight drift, and drift that only slows down or only speeds up, gives nothing: a
  jump is faster than what comes before it and faster than what comes after.
- *single outliers*: points further from the running median of seven than 5.8 times what is usual
  nearby (3.2 standard deviations of normal noise) are drawn in to that.

Widths are 4, 6, 10, 15 and 22 points (up to a sixth of the curve).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy.ndimage import median_filter

WIDTHS = (4, 6, 10, 15, 22)
_PER_CURVE = 6  # a width is used on curves of at least so many times its length
_N_AROUND = 30  # contrasts that a contrast is compared with
_QUANTILE, _NORMAL_QUANTILE = 0.7, 1.0364333894937898  # of |z|: P(|z| < 1.0364) = .7
_MEDIAN_POINTS, _USUAL_POINTS = 7, 51
_OUTLIER = 5.8  # times the usual distance from the running median: 3.2 sd of normal noise
_TINY = float(np.finfo(float).tiny)


def widths_of(n_points: int) -> tuple[int, ...]:
    """The widths used on curves of so many points."""
    return tuple(width for width in WIDTHS if width * _PER_CURVE <= n_points)


def without_outliers(values: Float[np.ndarray, "curve step"]) -> Float[np.ndarray, "curve step"]:
    """The curves with single points far off their neighbours drawn in; levels and drift stay."""
    middle = median_filter(values, size=(1, _MEDIAN_POINTS), mode="nearest")
    off = values - middle
    usual = median_filter(np.abs(off), size=(1, _USUAL_POINTS), mode="reflect")
    return middle + np.clip(off, -_OUTLIER * usual, _OUTLIER * usual)


def contrast_scores(
    values: Float[np.ndarray, "curve step"], floor: Float[np.ndarray, " curve"]
) -> Float[np.ndarray, "curve width step"]:
    """The score of a change of level between each point and the one before it, for each width.

    Args:
        values: curves of 30 points or more, without outliers.
        floor: smallest scale of a contrast, in the unit of the values.

    Returns:
        The scores, for each of `widths_of` the points: 0 or less where a contrast is not above
        what lies beside it, -inf within two widths of either end.
    """
    n_points = values.shape[1]
    size = _noise_trend(values, floor)
    sums = np.cumsum(np.pad(values, ((0, 0), (1, 0))), axis=1)
    widths = widths_of(n_points)
    scores = np.full((len(values), len(widths), n_points), -np.inf)
    for i, width in enumerate(widths):
        means = (sums[:, width:] - sums[:, :-width]) / width
        contrasts = means[:, width:] - means[:, :-width]
        contrasts = contrasts / size[:, width : n_points - width + 1]
        at, around = _around(n_points, width)
        here = contrasts[:, at - width]
        sign = np.sign(here)
        beside = np.maximum(contrasts[:, at - 2 * width] * sign, contrasts[:, at] * sign)
        scale = np.maximum(_scale(contrasts, around), floor[:, None] / size[:, at])
        scores[:, i, at] = (np.abs(here) - np.maximum(beside, 0)) / np.maximum(scale, _TINY)
    return scores


def _noise_trend(values: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Relative size of the noise at each point: exp of a line through log |difference|."""
    differences = np.abs(np.diff(values, axis=1))
    least = np.maximum(floor, 1e-3 * np.median(differences, axis=1))[:, None]
    logs = np.log(np.maximum(differences, np.maximum(least, _TINY)))
    along = np.linspace(-1, 1, differences.shape[1])
    slope = (logs @ along) / (along @ along)
    return np.exp(slope[:, None] * np.linspace(-1, 1, values.shape[1] + 1))[:, :-1]


def _scale(contrasts: np.ndarray, around: np.ndarray) -> np.ndarray:
    """The usual size of the contrasts around, for every position, `curve position`."""
    kth = int(_QUANTILE * (around.shape[1] - 1))
    sizes = np.abs(contrasts)
    scale = [np.partition(row[around], kth, axis=1)[:, kth] for row in sizes]
    return np.stack(scale) / _NORMAL_QUANTILE


@lru_cache(maxsize=256)
def _around(n_points: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Points that can hold a jump, and for each the contrasts that it is compared with.

    A quarter of the width apart, from a distance of one width on, the nearest that lie inside
    the curve; near an end more of them are on the other side.
    """
    at = np.arange(2 * width, n_points - 2 * width + 1)
    apart = max(width // 4, 1)
    steps = np.arange(-(-width // apart), n_points // apart + 1) * apart
    offsets = np.stack([steps, -steps], axis=1).ravel()
    others = at[:, None] + offsets
    inside = (others >= width) & (others <= n_points - width)
    n_around = min(_N_AROUND, int(inside.sum(axis=1).min()))
    nearest = np.argsort(~inside, axis=1, kind="stable")[:, :n_around]
    return at, np.take_along_axis(others, nearest, axis=1) - width
