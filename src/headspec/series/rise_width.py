"""When a rise begins, how long it takes, and how much of it is done at a step."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.optimize import isotonic_regression


def rise_of(
    above: Float[np.ndarray, " step"], x: Float[np.ndarray, " step"], before: float
) -> tuple[float, float, float]:
    """Width and begin of a rise, and how much is done at a point, on the curve made monotone.

    Args:
        above: the curve less its level at the beginning, with what is better upwards.
        x: positions of the steps, such as log(1 + step).
        before: a position.

    Returns:
        From 10 % to 90 % of the change, in units of x, with straight lines between the points of
        the isotonic regression; where the 10 % are reached; and the share done at `before`. NaN
        where nothing rises.

    Example:
        >>> line = np.array([0.0, 1.0, 2.0, 4.0])
        >>> [round(value, 3) for value in rise_of(line, line, 1.0)]
        [3.2, 0.4, 0.25]
    """
    fitted = np.maximum(isotonic_regression(above).x, 0.0)
    if fitted[-1] <= 0:
        return np.nan, np.nan, np.nan
    share = fitted / fitted[-1]
    ends = [_crossing(share, x, level) for level in (0.1, 0.9)]
    return float(ends[1] - ends[0]), float(ends[0]), float(np.interp(before, x, share))


def _crossing(share: np.ndarray, x: np.ndarray, level: float) -> float:
    at = int(np.argmax(share >= level))
    if at == 0:
        return float(x[0])
    part = (level - share[at - 1]) / (share[at] - share[at - 1])
    return float(x[at - 1] + part * (x[at] - x[at - 1]))
