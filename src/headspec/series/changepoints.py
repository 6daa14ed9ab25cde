"""Several changes in one curve: segmentation by `ruptures`, with a penalty set by the noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headspec.errors import InputError, check_choice
from headspec.results import tidy
from headspec.series.curve import Axis, Curve, DType, read_curve
from headspec.series.noise import local_noise_sd

Segments = Literal["level", "trend"]

# Penalty of one changepoint in units of the noise variance, by (segments, is the noise known):
# the smallest that keeps normal noise of 8 to 150 steps whole 19 times in 20, from
# tools/calibrate_transitions.py, which also measures it on heavier tails.
_PENALTY = {
    ("level", False): 14.5,
    ("level", True): 10.5,
    ("trend", False): 19.5,
    ("trend", True): 13.5,
}
_MIN_SIZE = {"level": 2, "trend": 3}


@dataclass(frozen=True)
class Changepoints:
    """Where a curve is cut into segments.

    Attributes:
        metric, model, layer, head: what was measured.
        steps_before, steps_after: the two checkpoints around each cut, `cut`; empty if none.
        sizes: jump of the fitted segments at each cut, `cut`, in the unit of the metric.
        segments: `"level"` (each segment is a constant) or `"trend"` (a straight line on `axis`).
        penalty: gain in squared error that a cut had to bring, in squared units of the metric.
        noise_sd: the noise the penalty was made from.
        axis, n: the axis and the number of steps.
    """

    metric: str
    model: str | None
    layer: int | None
    head: int | None
    steps_before: Int[np.ndarray, " cut"]
    steps_after: Int[np.ndarray, " cut"]
    sizes: Float[np.ndarray, " cut"]
    segments: Segments
    penalty: float
    noise_sd: float
    axis: Axis
    n: int

    def to_frame(self) -> pd.DataFrame:
        """One tidy row a cut: `step` is the step after it, `value` the size of the jump."""
        return tidy(
            {
                "step": self.steps_after,
                "value": self.sizes,
                "step_before": self.steps_before,
                "segments": self.segments,
                "penalty": self.penalty,
                "noise_sd": self.noise_sd,
            },
            model=self.model,
            layer=self.layer,
            head=self.head,
            metric=f"{self.metric}.changepoint",
            n=self.n,
        )


def changepoints(
    frame: pd.DataFrame,
    metric: str,
    *,
    segments: Segments = "level",
    axis: Axis = "log_step",
    noise_sd: float | int | None = None,
    penalty: float | int | None = None,
    dtype: DType = "float32",
) -> Changepoints:
    """Cut a curve into segments by PELT as `ruptures` has it, with the cost `l2` or `linear`.

    Minimises squared error + penalty x cuts, exactly as `ruptures` does, with segments of two
    (level) or three (trend) checkpoints at least. On normal noise (level), and on straight drift
    with normal noise (trend), fewer than 5 % of curves are cut at all; heavier tails give more,
    see `docs/calibration.md`.

    Args:
        frame: tidy frame with `step`, `metric`, `value`, of one model, layer and head.
        metric: which metric.
        segments: constants, or straight lines on `axis`. Constants cut steady drift to stairs.
        axis: where straight lines are straight, and along which noise is estimated.
        noise_sd: known noise of a value; else the deviation of points from the line through
            their neighbours, see `headspec.series.noise`.
        penalty: gain in squared error that a cut must bring, in noise variances; calibrated if
            None.
        dtype: what the values were computed in; smaller variation is not cut. Noise is taken to
            be at least that, and at least 1.5e-8 of the range times the root of the number of
            points: squared errors are rounded to that.

    Returns:
        `Changepoints`, possibly none.

    Raises:
        InputError: as `find_transition`, and if there are too few steps for two segments.

    What it does not show: no p-value; use `find_transition` for the claim that a change is
    sudden. Bends of smooth curves are cut too.

    References:
        Killick, Fearnhead, Eckley, JASA 107 (2012); Truong, Oudre, Vayatis, Signal Processing
        167 (2020).

    Example:
        >>> import pandas as pd
        >>> from headspec.series.changepoints import changepoints
        >>> values = [0.0, 0.1, 0.0, 0.1, 0.0, 5.1, 5.0, 5.1, 5.0, 5.1, 2.0, 2.1, 2.0]
        >>> steps = range(0, 13_000, 1_000)
        >>> frame = pd.DataFrame({"step": steps, "metric": "score", "value": values})
        >>> changepoints(frame, "score", axis="step").steps_after.tolist()
        [5000, 10000]
    """
    check_choice("segments", segments, get_args(Segments))
    check_choice("axis", axis, get_args(Axis))
    check_choice("dtype", dtype, get_args(DType))
    size = _MIN_SIZE[segments]
    curve = read_curve(frame, metric, min_points=max(2 * size, 5))
    if noise_sd is not None and not noise_sd > 0:
        raise InputError(
            expected="noise_sd above zero", got=f"{noise_sd}", fix="Leave it out to estimate it."
        )
    span = float(np.ptp(curve.values))
    rounding = span * float(np.sqrt(len(curve.steps) * np.finfo(float).eps))  # of squares
    floor = max(curve.resolution(dtype), rounding, np.finfo(float).tiny)
    positions = curve.axis(axis)
    noise = max(noise_sd or float(local_noise_sd(curve.values[None], positions)[0]), floor)
    per_cut = penalty if penalty is not None else _PENALTY[segments, noise_sd is not None]
    cuts: list[int] = []
    if span > floor:
        signal = _signal(curve, positions, segments) / noise  # squared gains near 1
        found = _search(segments).fit(signal).predict(pen=float(per_cut)) or []
        cuts = [int(cut) for cut in found[:-1]]  # the last is the end of the curve
    return Changepoints(
        metric=metric,
        model=curve.model,
        layer=curve.layer,
        head=curve.head,
        steps_before=curve.steps[np.array(cuts, dtype=int) - 1],
        steps_after=curve.steps[np.array(cuts, dtype=int)],
        sizes=_jumps(curve, positions, cuts, degree=0 if segments == "level" else 1),
        segments=segments,
        penalty=float(per_cut * noise**2),
        noise_sd=noise,
        axis=axis,
        n=len(curve.steps),
    )


def _search(segments: Segments):
    from ruptures import KernelCPD, Pelt  # slow to import

    size = _MIN_SIZE[segments]
    if segments == "level":  # the l2 cost, in C
        return KernelCPD(kernel="linear", min_size=size, jump=1)
    return Pelt(model="linear", min_size=size, jump=1)


def _signal(
    curve: Curve, positions: Float[np.ndarray, " step"], segments: Segments
) -> Float[np.ndarray, "step column"]:
    centred = curve.values - curve.values.mean()
    if segments == "level":
        return centred[:, None]
    standard = (positions - positions.mean()) / positions.std()
    return np.stack([centred, np.ones_like(standard), standard], axis=1)


def _jumps(
    curve: Curve, positions: Float[np.ndarray, " step"], cuts: list[int], *, degree: int
) -> Float[np.ndarray, " cut"]:
    """Right fit minus left fit, halfway between the two points around each cut."""
    edges, jumps = [0, *cuts, len(positions)], []
    for start, cut, end in zip(edges, edges[1:], edges[2:], strict=False):
        middle = (positions[cut - 1] + positions[cut]) / 2
        sides = (slice(start, cut), slice(cut, end))
        left, right = (np.polyfit(positions[s] - middle, curve.values[s], degree) for s in sides)
        jumps.append(float(right[-1] - left[-1]))
    return np.array(jumps, dtype=float)
