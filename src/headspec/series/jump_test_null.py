"""How often curves without jumps reach a score, by tables that `tools/calibrate_jumps.py` makes.

For each length the table holds the score that is exceeded at a rate, per 1,000 points, on the worst
of the kinds of curves in `headspec.series.jump_battery_curves.NULL_CURVES`. Between lengths it is
interpolated along the logarithm; above the highest score, log rate is continued as a straight line
in log score.
"""

from __future__ import annotations

import numpy as np

from headspec.errors import InputError
from headspec.series.jump_test_table import LENGTHS, RATES, SCORES

_TAIL = 1.0  # per 1,000 points: from this rate to the smallest, the slope of the tail


def score_threshold(false_positives: float, n_points: int) -> float:
    """The score that curves without jumps exceed at most so often per 1,000 points.

    Args:
        false_positives: within `RATES`.
        n_points: of the curve; shorter and longer ones than in the table are read at its ends.

    Raises:
        InputError: for a rate outside of the table.

    Example:
        >>> from headspec.series.jump_test_null import score_threshold
        >>> score_threshold(0.5, 400) > score_threshold(2.0, 400) > 3
        True
    """
    if not RATES[0] <= false_positives <= RATES[-1]:
        raise InputError(
            expected=f"false_positives per 1,000 points from {RATES[0]:g} to {RATES[-1]:g}",
            got=f"{false_positives}",
            fix="1 is usual.",
        )
    return float(np.interp(np.log(false_positives), np.log(RATES), _scores(n_points)))


def curve_p_value(score: float, n_points: int) -> float:
    """The chance that a curve of so many points without jumps holds such a score.

    p = 1 - exp(-rate x points / 1000): detections of a curve without jumps are rare and far
    apart, so their number is taken to be Poisson.
    """
    scores, logs = _scores(n_points), np.log(RATES)
    if score > scores[0]:
        slope = (logs[0] - np.log(_TAIL)) / np.log(scores[0] / score_threshold(_TAIL, n_points))
        rate = np.exp(logs[0] + slope * np.log(score / scores[0]))
    else:
        rate = np.exp(np.interp(-score, -scores, logs))
    return float(-np.expm1(-rate * n_points / 1000))


def _scores(n_points: int) -> np.ndarray:
    """The row of the table for curves of so many points, highest score first."""
    along = np.log(LENGTHS)
    columns = np.asarray(SCORES).T
    return np.array([np.interp(np.log(n_points), along, column) for column in columns])
