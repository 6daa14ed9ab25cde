"""How many measurements a change of level takes: a local fit of ramps of different length."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

LONGEST = 5  # intervals that a jump may take; a longer rise is a gradual change
_GRADUAL = 10.0  # gain in residual variances by which a longer ramp must fit better
_LONGER = 4.0  # and by which a jump over more intervals must beat one over fewer


class Rise(NamedTuple):
    """The ramp that fits a change of level best.

    Attributes:
        before, after: indices of the last point of the old level and the first of the new.
        size: signed height.
        sudden: False where ramps over more than `LONGEST` intervals fit clearly better.
    """

    before: int
    after: int
    size: float
    sudden: bool


def fit_rise(values: Float[np.ndarray, " step"], at: int, *, width: int, inside) -> Rise:
    """Fit level, slope and one ramp to the points around a change.

    The window reaches two widths to either side. Ramps of 1 to 5 intervals compete with longer
    ones, up to three widths; the sum of squares that each takes off what a straight line leaves
    is compared in units of the residual variance of the best.

    Args:
        values: a curve, without outliers.
        at: index of the first point after the change, as far as known.
        width: of the contrast that found it.
        inside: (start, end) of the points that may be used, so that other jumps stay out.
    """
    start = max(at - 2 * width, min(inside[0], at - 3))
    end = min(at + 2 * width, max(inside[1], at + 3))
    middle = at - start
    ramps, heights, lengths, befores = _ramps(end - start, middle, width)
    y = values[start:end] - values[start:end].mean()
    line = np.linspace(-1, 1, len(y))
    y = y - line * (y @ line) / (line @ line)
    fits = ramps @ y
    gains = fits**2
    short = lengths <= LONGEST
    freedom = max(len(y) - 3, 1)
    variance = max((y @ y - gains.max()) / freedom, np.finfo(float).tiny)
    best = gains[short].max()
    enough = np.array([gains[lengths == d].max(initial=-1.0) for d in range(1, LONGEST + 1)])
    length = 1 + int(np.argmax(enough >= best - _LONGER * variance))
    chosen = int(np.where(lengths == length, gains, -1.0).argmax())
    before = start + int(befores[chosen])
    longer = gains[~short].max() if (~short).any() else 0.0
    return Rise(
        before=before,
        after=before + length,
        size=float(fits[chosen] / heights[chosen]),
        sudden=bool(longer - best <= _GRADUAL * variance),
    )


@lru_cache(maxsize=512)
def _ramps(n_points: int, middle: int, width: int) -> tuple[np.ndarray, ...]:
    """Ramps of unit length beyond a straight line, their norms, their intervals and starts.

    Their centres lie within one width (at most 5 points) of the change.
    """
    reach = min(width, 5)
    lengths, befores = [], []
    for length in (*range(1, LONGEST + 1), *range(LONGEST + 1, 3 * width + 1, max(width // 4, 1))):
        for centre in range(2 * (middle - reach) - 1, 2 * (middle + reach)):  # in half intervals
            before = centre - length
            if before % 2 == 0 and before >= 2 and before // 2 + length <= n_points - 2:
                lengths.append(length)
                befores.append(before // 2)
    points = np.arange(n_points)
    length, before = np.array(lengths), np.array(befores)
    ramps = np.clip((points - before[:, None]) / length[:, None], 0, 1)
    ramps = ramps - ramps.mean(axis=1, keepdims=True)
    line = np.linspace(-1, 1, n_points)
    ramps = ramps - np.outer(ramps @ line, line) / (line @ line)
    norms = np.linalg.norm(ramps, axis=1)
    return ramps / norms[:, None], norms, length, before
