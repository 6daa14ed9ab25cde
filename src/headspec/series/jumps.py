"""Jumps of curves over training, by a calibrated rule or by those that others use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headspec.errors import InputError, check_choice
from headspec.results import tidy
from headspec.series.curve import DType
from headspec.series.jump_result import Jumps, Method, Verdict
from headspec.series.jump_rules import (
    Found,
    changepoint_jumps,
    study_jumps,
    trailing_window_jumps,
)
from headspec.series.jump_test import MIN_POINTS as _CALIBRATED_POINTS
from headspec.series.jump_test import calibrated_jumps
from headspec.series.jumps_reading import JumpCurves, read_jump_curves

MIN_POINTS: dict[Method, int] = {
    "calibrated": _CALIBRATED_POINTS,
    "study": 3,
    "trailing_window": 21,
    "changepoints": 5,
}


def detect_jumps(
    series: pd.DataFrame | Float[np.ndarray, "*curve point"],
    *,
    method: Method = "calibrated",
    steps: Int[np.ndarray, " point"] | Sequence[int] | None = None,
    n_steps: int | None = None,
    resolution: float | int | Float[np.ndarray, " curve"] | DType | None = None,
    false_positives: float | int = 1.0,
) -> Jumps:
    """Find sudden, lasting changes of level.

    Args:
        series: a tidy frame (`step`, `metric`, `value`; one curve for each `model`, `seed`,
            `layer`, `layer_name`, `head` and `metric` found in it), or an array, `point` or
            `curve point`.
        method: `"calibrated"`, headspec's own, see `headspec.series.jump_test`;
            `"study"`, z-score of the first differences above 2; `"trailing_window"`, ndtracker's;
            `"changepoints"`, PELT between constant levels. `docs/jump_detection.md` has their
            error rates side by side.
        steps: training steps of an array's points; 0, 1, 2, ... if None.
        n_steps: length of the training, for `phase`; the last step of each curve if None.
        resolution: change below which nothing is meant, in the unit of the metric: a number, one
            number a curve of an array, or the dtype in which the values were computed (then four
            of its rounding errors at the curve's largest value). None: the largest in
            the frame's column `resolution` for each curve, else the values' dtype but never finer
            than float32, which is what networks are measured in.
        false_positives: accepted by the calibrated rule, per 1,000 points of curves without
            jumps, 0.1 to 10.

    Returns:
        `Jumps`.

    Raises:
        InputError: for bad input, and for a single curve whose whole variation is below its
            resolution. Among several, such a curve has the verdict `"below resolution"` and no
            jumps.

    What it does not show: jumps within 8 points of either end, or close to each other; a large
    fast change at the start of training is drift to the calibrated rule, and noise that swells in
    bursts brings more false positives than stated. The other rules call a
    share of all points whatever the curve does. A metric can jump where the network changes
    smoothly.

    References: `docs/jump_detection.md` for the calibrated rule; ndtracker's `JumpDetector`;
    Killick, Fearnhead, Eckley, JASA 107 (2012), for changepoints.

    Example:
        >>> import numpy as np
        >>> from headspec.series.jumps import detect_jumps
        >>> noise = np.random.default_rng(0).standard_normal(200)
        >>> jumps = detect_jumps(noise + 6 * (np.arange(200) >= 120))
        >>> jumps.to_frame()[["step", "direction"]].to_dict("records")
        [{'step': 120, 'direction': 'increase'}]
    """
    check_choice("method", method, get_args(Method))
    groups = read_jump_curves(series, steps, resolution)
    rows: list[pd.DataFrame] = []
    curves: list[pd.DataFrame] = []
    n_before = 0
    for group in groups:
        examined = _examine(group, method, float(false_positives))
        jumps = _jump_rows(group, examined[0], n_steps)
        rows.append(jumps.assign(curve=jumps["curve"] + n_before))
        curves.append(_curve_rows(group, examined, n_steps))
        n_before += len(group.values)
    every = pd.concat(curves, ignore_index=True)
    if len(every) == 1 and every["verdict"].iloc[0] == "below resolution":
        row = every.iloc[0]
        raise InputError(
            expected=f"a curve that varies by more than its resolution, {row['resolution']:.3g}",
            got=f"values within {row['range']:.3g} of each other",
            fix="Such changes are rounding. Measure in a finer dtype, or state resolution=....",
        )
    kept = [frame for frame in rows if len(frame)] or rows[:1]
    return Jumps(
        table=pd.concat(kept, ignore_index=True),
        curves=every.drop(columns="range"),
        method=method,
        false_positives=float(false_positives) if method == "calibrated" else None,
    )


def _examine(
    group: JumpCurves, method: Method, false_positives: float
) -> tuple[list[list[Found]], list[Verdict], np.ndarray, np.ndarray]:
    """Jumps, verdict, noise and threshold of each curve."""
    n = len(group.values)
    found: list[list[Found]] = [[] for _ in range(n)]
    noise, threshold = np.full(n, np.nan), np.full(n, np.nan)
    if len(group.steps) < MIN_POINTS[method]:
        return found, ["too short"] * n, noise, threshold
    fine = np.ptp(group.values, axis=1) > group.resolution
    verdicts: list[Verdict] = ["examined" if x else "below resolution" for x in fine.tolist()]
    values = group.values[fine]
    if not len(values):
        return found, verdicts, noise, threshold
    if method == "calibrated":
        test = calibrated_jumps(values, group.resolution[fine], false_positives=false_positives)
        hits, noise[fine], threshold[fine] = test.found, test.noise_sd, test.threshold
    elif method == "study":
        hits = study_jumps(values)
    elif method == "trailing_window":
        hits = trailing_window_jumps(values)
    else:
        hits = changepoint_jumps(values, group.steps)
    for curve, jumps in zip(np.flatnonzero(fine).tolist(), hits, strict=True):
        found[curve] = jumps
    return found, verdicts, noise, threshold


def _jump_rows(group: JumpCurves, found: list[list[Found]], n_steps: int | None) -> pd.DataFrame:
    curve = np.array([i for i, jumps in enumerate(found) for _ in jumps], dtype=int)
    flat = [jump for jumps in found for jump in jumps]
    before, after = (
        group.steps[np.array([getattr(jump, name) for jump in flat], dtype=int)]
        for name in ("before", "after")
    )
    change, score, p = (
        np.array([getattr(jump, name) for jump in flat], dtype=float)
        for name in ("change", "score", "p")
    )
    labels = group.labels.iloc[curve].reset_index(drop=True)
    length = _length(group, n_steps)
    layer_name = labels.pop("layer_name")
    table = labels.assign(
        step=after,
        value=change,
        p=p,
        n=len(group.steps),
        layer_name=layer_name,
        step_before=before,
        magnitude=np.abs(change),
        direction=np.where(change >= 0, "increase", "decrease"),
        phase=after / length,
        speed=np.abs(change) / (after - before),
        score=score,
        curve=curve,
    )
    return tidy(table)


def _length(group: JumpCurves, n_steps: int | None) -> int:
    last = int(group.steps[-1])
    if n_steps is not None and n_steps < last:
        raise InputError(
            expected=f"n_steps of at least the last measured step, {last}",
            got=f"{n_steps}",
            fix="Pass the number of updates of the whole training.",
        )
    return max(last if n_steps is None else n_steps, 1)


def _curve_rows(group: JumpCurves, examined, n_steps: int | None) -> pd.DataFrame:
    found, verdicts, noise, threshold = examined
    return group.labels.assign(
        n=len(group.steps),
        n_steps=_length(group, n_steps),
        noise_sd=noise,
        resolution=group.resolution,
        range=np.ptp(group.values, axis=1),
        threshold=threshold,
        n_jumps=[len(jumps) for jumps in found],
        verdict=verdicts,
    )
