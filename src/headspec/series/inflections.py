"""Where curves turn: the interval of fastest change, of acceleration, of deceleration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float

from headspec.errors import InputError, check_choice
from headspec.results import tidy
from headspec.series.curve import Axis, axis_positions
from headspec.series.curve_table import read_curves

Turn = Literal["fastest", "acceleration", "deceleration"]


def inflection_steps(
    frame: pd.DataFrame,
    metric: str | Sequence[str] | None = None,
    *,
    turn: Turn = "fastest",
    span: float | int | None = None,
    axis: Axis = "log_step",
    by: Sequence[str] = (),
) -> pd.DataFrame:
    """The step where each curve of a frame changes fastest, or where its change sets in or ends.

    The rate of an interval is the slope over the checkpoints at least `span` apart around it. Per
    unit of log step the noise of neighbouring checkpoints late in training, 10,000 of 100,000
    steps apart, would else look like the fastest change of all.

    *Fastest*: the interval of the largest absolute rate (the inflection of a sigmoid).
    *Acceleration*, *deceleration*: the step where the rate, counted in the direction of the
    fastest change, grows or falls most per unit of the axis.

    Args:
        frame: tidy frame; a curve is what has one `model`, `layer`, `head`, `metric` (and `by`).
        metric: which metrics; all by default.
        turn: what is looked for.
        span: least width that a slope is taken over, on the axis; a doubling of training (ln 2)
            for log step and nothing beyond the interval for step by default.
        axis: of the slope.
        by: columns that tell curves apart besides model, layer, head and metric.

    Returns:
        Tidy rows, one a curve: `step` (for an interval the checkpoint nearest to its middle on
        the axis), `value` the rate, `turn`, `step_before` and `step_after`. `step` is missing for
        a constant curve.

    Raises:
        InputError: fewer than four steps, or not finite curves.

    What it does not show: that the turn is more than noise; every curve has a fastest change. See
    `find_transition` for that.

    Example:
        >>> import pandas as pd
        >>> from headspec.series.inflections import inflection_steps
        >>> values = [0.0, 0.1, 0.2, 1.0, 1.1, 1.2]
        >>> frame = pd.DataFrame({"step": [0, 1, 3, 7, 15, 31], "metric": "a", "value": values})
        >>> found = inflection_steps(frame)
        >>> found[["step_before", "step_after"]].to_dict("records")
        [{'step_before': 3, 'step_after': 7}]
    """
    check_choice("turn", turn, get_args(Turn))
    check_choice("axis", axis, get_args(Axis))
    span = float(span if span is not None else np.log(2) if axis == "log_step" else 0.0)
    if metric is not None:
        names = [metric] if isinstance(metric, str) else list(metric)
        frame = frame.loc[frame["metric"].isin(names)]
    tables = []
    for curves in read_curves(frame, by=by):
        steps = curves.steps
        if len(steps) < 4:
            raise InputError(
                expected="four steps or more", got=f"{steps.tolist()}", fix="Measure more."
            )
        x = axis_positions(steps, axis)
        rates = _slopes(curves.values, x, span)
        at = np.abs(rates).argmax(axis=1)
        rows = np.arange(len(at))
        value, before, after = rates[rows, at], steps[at], steps[at + 1]
        middle = (x[at] + x[at + 1]) / 2
        near = np.where(middle - x[at] < x[at + 1] - middle - 1e-12, before, after)
        if turn != "fastest":
            middles = (x[1:] + x[:-1]) / 2
            towards = np.sign(value)[:, None] * (1 if turn == "acceleration" else -1)
            bend = (np.diff(rates, axis=1) / np.diff(middles) * towards).argmax(axis=1)
            near = steps[bend + 1]
            value, before, after = rates[rows, bend + 1], steps[bend], steps[bend + 2]
        flat = np.ptp(curves.values, axis=1) == 0
        found = {"step": pd.array(near, dtype="Int64"), "value": value}
        table = curves.labels.assign(**found, step_before=before, step_after=after, turn=turn)
        table.loc[flat, "step"] = pd.NA
        tables.append(table)
    return tidy(pd.concat(tables, ignore_index=True))


def _slopes(
    values: Float[np.ndarray, "curve step"], x: Float[np.ndarray, " step"], span: float
) -> Float[np.ndarray, "curve interval"]:
    middle, slack = (x[1:] + x[:-1]) / 2, 1e-9 * (x[-1] - x[0])
    low = np.searchsorted(x, np.minimum(x[:-1], middle - span / 2) + slack, side="right") - 1
    high = np.searchsorted(x, np.maximum(x[1:], middle + span / 2) - slack)
    low, high = np.maximum(low, 0), np.minimum(high, len(x) - 1)
    return (values[:, high] - values[:, low]) / (x[high] - x[low])
