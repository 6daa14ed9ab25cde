"""headspec's rule for jumps: a change of level that curves without jumps hardly ever show.

A point is a jump if it stands out from the changes around it (`jump_test_contrasts`) by more than
curves without jumps do at a stated rate (`jump_test_null`), if the change takes five measurements
at most (`jump_test_rise`), and if it is larger than the resolution of the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from headspec.series.jump_rules import Found
from headspec.series.jump_test_contrasts import contrast_scores, widths_of, without_outliers
from headspec.series.jump_test_null import curve_p_value, score_threshold
from headspec.series.jump_test_rise import fit_rise
from headspec.series.noise import local_noise_sd

MIN_POINTS = 30
_MOST_WHOLE = 2.0**53  # float64 holds every whole number up to here
_OFF_GRID = 0.01  # steps of a grid that its multiples may be off by
_ROUNDING = 1 / np.sqrt(12)  # standard deviation of rounding to units


@dataclass(frozen=True)
class JumpTest:
    """What the calibrated rule says of several curves.

    Attributes:
        found: jumps of each curve.
        noise_sd: of one value, from how far points lie off the line of their neighbours, `curve`.
        threshold: what a score has to reach.
    """

    found: list[list[Found]]
    noise_sd: Float[np.ndarray, " curve"]
    threshold: float


def calibrated_jumps(
    values: Float[np.ndarray, "curve step"],
    resolution: Float[np.ndarray, " curve"],
    *,
    false_positives: float,
) -> JumpTest:
    """Sudden lasting changes of level, at a stated rate of false ones.

    Args:
        values: curves of `MIN_POINTS` points or more, at steps taken to be evenly spaced.
        resolution: changes up to this are none. Where the values lie on a coarser grid (counts)
            or few different ones occur, the step between neighbours takes its place.
        false_positives: per 1,000 points of curves without jumps, 0.1 to 10.
    """
    n_points = values.shape[1]
    threshold = score_threshold(false_positives, n_points)
    found = [
        [jump._replace(p=curve_p_value(jump.score, n_points)) for jump in jumps]
        for jumps in sudden_changes(values, resolution, threshold=threshold)
    ]
    noise = local_noise_sd(values, np.arange(n_points, dtype=float))
    return JumpTest(found, noise, threshold)


def sudden_changes(
    values: Float[np.ndarray, "curve step"],
    resolution: Float[np.ndarray, " curve"],
    *,
    threshold: float,
) -> list[list[Found]]:
    """Changes of level of each curve whose score reaches a threshold, without p-values.

    Args:
        values, resolution: as in `calibrated_jumps`.
        threshold: of the score.
    """
    n_points = values.shape[1]
    sums = n_points * np.finfo(float).eps * np.abs(values).max(axis=1)  # rounding of running sums
    quanta = [_quantum(*each) for each in zip(values, sums, strict=True)]
    limits = np.maximum(np.maximum(resolution, sums), quanta)
    level = without_outliers(values)
    scores = contrast_scores(level, limits * _ROUNDING)
    found: list[list[Found]] = []
    for curve in range(len(values)):
        peaks = score_peaks(scores[curve], widths_of(n_points), threshold)
        edges = [0, *(peak.at for peak in peaks), n_points]
        found.append([])
        for i, (at, width, score) in enumerate(peaks):
            inside = (edges[i], edges[i + 2])
            rise = fit_rise(level[curve], at, width=width, inside=inside)
            if rise.sudden and abs(rise.size) > limits[curve]:
                found[curve].append(Found(rise.before, rise.after, rise.size, score))
    return [_apart(jumps) for jumps in found]


def _apart(jumps: list[Found]) -> list[Found]:
    """Of jumps that were placed at the same change, the one with the highest score."""
    kept: list[Found] = []
    for jump in sorted(jumps, key=lambda one: -one.score):
        if all(jump.after <= other.before or other.after <= jump.before for other in kept):
            kept.append(jump)
    return sorted(kept)


class Peak(NamedTuple):
    """A point that scores high: where, by which width, and how high."""

    at: int
    width: int
    score: float


def score_peaks(
    scores: Float[np.ndarray, "width step"], widths: tuple[int, ...], threshold: float
) -> list[Peak]:
    """The highest score, then the highest of those without the same change, and so on.

    A change of level is in every contrast whose points lie on both sides of it, so a peak takes
    with it all scores that are nearer to it than their own width.

    Args:
        scores: of one curve.
        widths: of the rows.
        threshold: lower scores are left.

    Returns:
        Peaks in order of their points.
    """
    left, peaks = scores.copy(), []
    while left.max() >= threshold:
        row, at = (int(i) for i in np.unravel_index(left.argmax(), left.shape))
        peaks.append(Peak(at, widths[row], float(left[row, at])))
        for own, width in zip(left, widths, strict=True):
            own[max(at - width + 1, 0) : at + width] = -np.inf
    return sorted(peaks)


def _quantum(values: np.ndarray, rounding: float) -> float:
    """What rounded values move in: the step of a grid that holds them all; 0 where there is none.

    Of whole numbers the greatest common divisor; of others the smallest difference between two
    that differ by more than `rounding`, if all are multiples of it or few values occur.
    """
    different = np.unique(values)
    if (different == np.round(different)).all() and np.abs(different).max() < _MOST_WHOLE:
        return float(np.gcd.reduce(different.astype(np.int64)))
    gaps = np.diff(different)
    gaps = gaps[gaps > rounding]
    if not gaps.size:
        return 0.0
    multiples = gaps / gaps.min()
    on_grid = np.abs(multiples - np.round(multiples)).max() < _OFF_GRID
    return float(gaps.min()) if on_grid or 4 * (len(gaps) + 1) <= len(values) else 0.0
