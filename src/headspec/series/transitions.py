"""The largest change of a curve between two checkpoints: how large, and sudden or gradual."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import pandas as pd

from headspec.errors import InputError, check_choice
from headspec.results import tidy
from headspec.series.curve import Axis, Curve, DType, read_curve
from headspec.series.step_test import MIN_POINTS, Drift, StepTests, run_step_tests

Kind = Literal["sudden", "gradual", "none"]


@dataclass(frozen=True)
class Transition:
    """The window of largest change of one curve, and whether it is more than drift and noise.

    Attributes:
        metric, model, layer, head: what was measured.
        step_before, step_after: neighbouring steps with the largest absolute change between them.
        size: signed change over that window, in the unit of the metric.
        share: absolute size over the sum of all absolute changes, 0 to 1.
        rate: size over the width of the window on `axis`.
        threshold, exceeds_threshold: the rule of the first study, |size| > threshold. It knows
            neither noise nor the spacing of the checkpoints; it is reported, not used.
        kind: `"sudden"`, `"gradual"` or `"none"`.
        reason: why, in a few words.
        p_value: chance of so clear a sustained jump from drift and noise alone; NaN if untested.
        p_change: chance of so clear a change of any shape from noise alone; NaN if untested.
        jump_before, jump_after: window where one sustained jump explains the curve best. On a
            noisy curve it can differ from the window of largest change, which one outlier moves.
        jump_size, jump_share: fitted height of that jump, and its share of the fitted range.
        null_mean, null_sd: of the largest absolute change on fitted drift with noise.
        axis, drift, alpha, n, seed: how it was tested, and the number of steps.
    """

    metric: str
    model: str | None
    layer: int | None
    head: int | None
    step_before: int
    step_after: int
    size: float
    share: float
    rate: float
    threshold: float
    exceeds_threshold: bool
    kind: Kind
    reason: str
    p_value: float
    p_change: float
    jump_before: int | None
    jump_after: int | None
    jump_size: float
    jump_share: float
    null_mean: float
    null_sd: float
    axis: Axis
    drift: Drift
    alpha: float
    n: int
    seed: int

    def to_frame(self) -> pd.DataFrame:
        """One tidy row; `step` is the step after the change, `value` its size, `p` of a jump."""
        row = {
            "model": self.model,
            "step": self.step_after,
            "layer": self.layer,
            "head": self.head,
            "metric": f"{self.metric}.transition",
            "value": self.size,
            "null_mean": self.null_mean,
            "null_sd": self.null_sd,
            "p": self.p_value,
            "n": self.n,
            "seed": self.seed,
        }
        names = (
            "step_before step_after share rate threshold exceeds_threshold kind reason p_change "
            "jump_before jump_after jump_size jump_share axis"
        )
        return tidy([row | {name: getattr(self, name) for name in names.split()}])

    def summary(self) -> str:
        """Plain sentences: the window, the study's rule, and the verdict of the test."""
        rule = "more" if self.exceeds_threshold else "not more"
        first = (
            f"{self.metric}: largest change {self.size:+.4g} between steps {self.step_before} and "
            f"{self.step_after} ({self.share:.0%} of all variation), {rule} than the study's "
            f"{self.threshold:g}."
        )
        if self.kind == "none":
            return f"{first} No transition: {self.reason}."
        where = ""
        if (self.jump_before, self.jump_after) != (self.step_before, self.step_after):
            where = f", best placed between {self.jump_before} and {self.jump_after}"
        if self.kind == "sudden":
            return f"{first} Sudden: {self.reason} (p = {self.p_value:.2g}{where})."
        return f"{first} Gradual: {self.reason} (p of any change = {self.p_change:.2g})."


def find_transition(
    frame: pd.DataFrame,
    metric: str,
    *,
    threshold: float | int = 0.2,
    axis: Axis = "log_step",
    noise_sd: float | int | str | None = None,
    drift: Drift = "both",
    min_share: float = 0.5,
    alpha: float = 0.05,
    dtype: DType = "float32",
    n_null: int = 2000,
    seed: int = 0,
) -> Transition:
    """Find the largest change of a curve between consecutive steps and say what it is.

    *Sudden* means: one sustained jump between two neighbouring checkpoints, at least two of them
    on either side, is clearer than drift and noise give (p <= alpha), explains the curve better
    than every ramp over three intervals or more, and holds at least `min_share` of the change.
    *Gradual* means: there is a change (p_change <= alpha), not so. Both p-values are simulated for
    these very steps, see `headspec.series.step_test`; the rates of error and the power are in
    `docs/calibration.md`.

    Args:
        frame: tidy frame with `step`, `metric`, `value`, of one model, layer and head.
        metric: which metric.
        threshold: the first study calls a change of the silhouette above 0.2 sudden.
        axis: on which gradual change is even; also of `rate`. Log means log(1 + step).
        noise_sd: known standard error of each value, a number or a column; estimated from the
            curve if None. Zeros are raised to the smallest positive one.
        drift: smooth drift to allow for before a jump counts: along step and log step at once,
            or along `axis` only, which finds smaller jumps but calls drift along the other axis
            sudden too often.
        min_share: part of the fitted change that one window must hold to be called sudden.
        alpha: rate of false "sudden", and of false "gradual", to accept.
        dtype: what the values were computed in; variation below its resolution is no change.
        n_null: simulated curves for each kind of noise.
        seed: of the simulation.

    Returns:
        A `Transition`. Curves of 3 to 5 points, constant curves and curves below the resolution
        get kind `"none"` with the reason and p = NaN.

    Raises:
        InputError: if columns are missing, steps repeat, values are not finite, or there are
            fewer than 3 points.

    What it does not show: noise is taken to be independent from checkpoint to checkpoint; a jump
    next to the first or last checkpoint cannot be told from an outlier; and a sudden change of a
    metric can be a smooth change of the model seen through a threshold. Two jumps of similar
    height hide each other: see `changepoints`.

    Example:
        >>> import pandas as pd
        >>> from headspec.series.transitions import find_transition
        >>> values = [0.11, 0.1, 0.12, 0.11, 0.1, 0.61, 0.6, 0.62, 0.6, 0.61]
        >>> steps = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256]
        >>> frame = pd.DataFrame({"step": steps, "metric": "silhouette", "value": values})
        >>> found = find_transition(frame, "silhouette")
        >>> found.kind, found.step_before, found.step_after
        ('sudden', 8, 16)
    """
    check_choice("axis", axis, get_args(Axis))
    check_choice("drift", drift, get_args(Drift))
    check_choice("dtype", dtype, get_args(DType))
    _check(alpha=alpha, min_share=min_share, n_null=n_null, threshold=threshold)
    curve = _with_positive_noise(read_curve(frame, metric, noise_sd=noise_sd))
    found = _largest_change(curve, threshold, axis=axis, drift=drift, alpha=alpha, seed=seed)
    floor = curve.resolution(dtype)
    if np.ptp(curve.values) == 0:
        return replace(found, reason="the curve is constant")
    if np.ptp(curve.values) <= floor:
        return replace(found, reason=f"all variation is below the resolution of {dtype}")
    if found.n < MIN_POINTS:
        return replace(found, reason=f"{found.n} steps are too few to test, {MIN_POINTS} needed")
    test = run_step_tests(
        curve.values[None],
        curve.steps,
        noise_sd=curve.noise_sd,
        axis=axis,
        drift=drift,
        n_null=n_null,
        seed=seed,
        floor=floor,
    )
    p_jump, p_change, share = (float(x[0]) for x in (test.p_jump, test.p_change, test.share))
    kind, reason = transition_verdict(p_jump, p_change, share, alpha, min_share)
    null_mean, null_sd = _null_of_largest_change(test, n_null, seed)
    before = int(test.before[0])
    return replace(
        found,
        kind=kind,
        reason=reason,
        p_value=p_jump,
        p_change=p_change,
        jump_before=int(curve.steps[before]),
        jump_after=int(curve.steps[before + 1]),
        jump_size=float(test.size[0]),
        jump_share=share,
        null_mean=null_mean,
        null_sd=null_sd,
    )


def transition_verdict(
    p_jump: float, p_change: float, share: float, alpha: float, min_share: float
) -> tuple[Kind, str]:
    """Kind and reason from the two p-values and the share of the change that the jump holds."""
    if p_jump <= alpha and share >= min_share:
        return "sudden", f"one sustained jump holds {share:.0%} of the fitted change"
    if p_change > alpha:
        return "none", "not distinguishable from noise"
    if p_jump <= alpha:
        return "gradual", f"the clearest jump holds only {share:.0%} of the fitted change"
    return "gradual", "it changes, but no jump is clearer than smooth change and noise"


def _with_positive_noise(curve: Curve) -> Curve:
    if curve.noise_sd is None or (curve.noise_sd > 0).all():
        return curve
    positive = curve.noise_sd[curve.noise_sd > 0]
    if not len(positive):
        raise InputError(
            expected="noise_sd above zero at one step at least",
            got="zeros only",
            fix="Leave noise_sd out, so that the noise is estimated from the curve.",
        )
    return replace(curve, noise_sd=np.maximum(curve.noise_sd, positive.min()))


def _largest_change(
    curve: Curve, threshold: float, *, axis: Axis, drift: Drift, alpha: float, seed: int
) -> Transition:
    """The window and the study's rule; everything of the test still empty."""
    changes = np.diff(curve.values)
    at = int(np.abs(changes).argmax())
    total, size = float(np.abs(changes).sum()), float(changes[at])
    return Transition(
        metric=curve.metric,
        model=curve.model,
        layer=curve.layer,
        head=curve.head,
        step_before=int(curve.steps[at]),
        step_after=int(curve.steps[at + 1]),
        size=size,
        share=abs(size) / total if total > 0 else 0.0,
        rate=size / float(np.diff(curve.axis(axis))[at]),
        threshold=threshold,
        exceeds_threshold=abs(size) > threshold,
        kind="none",
        reason="",
        p_value=np.nan,
        p_change=np.nan,
        jump_before=None,
        jump_after=None,
        jump_size=np.nan,
        jump_share=np.nan,
        null_mean=np.nan,
        null_sd=np.nan,
        axis=axis,
        drift=drift,
        alpha=alpha,
        n=len(curve.steps),
        seed=seed,
    )


def _null_of_largest_change(test: StepTests, n_null: int, seed: int) -> tuple[float, float]:
    drift, sd = test.drift[0], float(test.noise_sd[0])
    noise = np.random.default_rng(seed).standard_normal((len(drift), n_null)) * sd
    largest = np.abs(np.diff(drift[:, None] + noise, axis=0)).max(axis=0)
    return float(largest.mean()), float(largest.std())


def _check(*, alpha: float, min_share: float, n_null: int, threshold: float | int) -> None:
    right = {
        "alpha": (alpha, 0 < alpha < 1, "above 0 and below 1"),
        "min_share": (min_share, 0 <= min_share <= 1, "from 0 to 1"),
        "n_null": (n_null, n_null * alpha >= 1, "of at least 1 / alpha"),
        "threshold": (threshold, threshold >= 0, "from 0 up"),
    }
    for name, (value, ok, wanted) in right.items():
        if not ok:
            raise InputError(
                expected=f"{name} {wanted}", got=f"{value}", fix=f"Pass another {name}=..."
            )
