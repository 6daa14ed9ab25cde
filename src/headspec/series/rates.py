"""Rates of change of statistics beside those of capabilities, what both follow taken out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import rankdata

from headspec.errors import InputError
from headspec.series.curve import Axis, axis_positions
from headspec.series.curve_table import CurveTable, common_steps, read_curves

Method = Literal["pearson", "spearman"]
Partial = Literal["log_step", "loss"]
Weights = Literal["width", "equal"]
MIN_FREEDOM = 4  # intervals beyond what is partialled out and lagged away
_CONSTANT = 1e-10  # of the largest size: what varies less is rounding


@dataclass(frozen=True)
class AlignedCurves:
    """Statistics, capabilities and the loss of one model at the same steps.

    Attributes:
        model: which, or None.
        statistics, capabilities: at the same steps.
        loss: values of the loss there, or None.
    """

    model: str | None
    statistics: CurveTable
    capabilities: CurveTable
    loss: Float[np.ndarray, " step"] | None

    @property
    def steps(self) -> Int[np.ndarray, " step"]:
        """The training steps of all of them."""
        return self.statistics.steps


def align_curves(
    stats: pd.DataFrame,
    capability: pd.DataFrame,
    *,
    loss: pd.DataFrame | None = None,
    steps: Sequence[int] | None = None,
    by: Sequence[str] = (),
) -> Iterator[AlignedCurves]:
    """Each model's statistics and capabilities at the steps they share, or at `steps`.

    Curves that were measured at other steps than the rest make an item of their own. Curves of
    capabilities without a model go with every model.

    Args:
        stats, capability, loss: tidy frames; the loss holds one curve a model.
        steps: a grid to interpolate to, linearly on log(1 + step).
        by: columns that tell statistics apart besides model, layer, head and metric.

    Raises:
        InputError: where a model has no capability or no loss, or steps are not shared.
    """
    goals = _by_model(read_curves(capability))
    losses = None if loss is None else _by_model(read_curves(loss))
    for model, tables in _by_model(read_curves(stats, by=by)).items():
        companions = _of_model(goals, model, "a capability")
        beside = [] if losses is None else _of_model(losses, model, "a loss")
        if sum(len(table.labels) for table in beside) > 1:
            raise InputError(
                expected="one curve of the loss a model",
                got=f"several: {[list(table.labels['metric']) for table in beside]}",
                fix="Select one: frame[frame['metric'] == ...].",
            )
        for table in tables:
            for goal in companions:
                every = [table, goal, *beside]
                grid = common_steps(every) if steps is None else np.array(sorted(set(steps)))
                if len(grid) < 3:
                    raise InputError(
                        expected=f"three steps or more that both have (model {model})",
                        got=f"{grid.tolist()} of {table.steps.tolist()} and {goal.steps.tolist()}",
                        fix="Measure both at the same steps, or interpolate: steps=[...].",
                    )
                here, there, *its_loss = (
                    each.at(grid, interpolate=steps is not None) for each in every
                )
                values = its_loss[0].values[0] if its_loss else None
                yield AlignedCurves(model, here, there, values)


def _by_model(tables: list[CurveTable]) -> dict[str | None, list[CurveTable]]:
    found: dict[str | None, list[CurveTable]] = {}
    for table in tables:
        models = table.labels["model"].astype(object).where(table.labels["model"].notna(), None)
        for model in dict.fromkeys(models):
            rows = np.array([each == model for each in models])
            labels = table.labels.loc[rows].reset_index(drop=True)
            part = CurveTable(labels, table.steps, table.values[rows])
            found.setdefault(None if model is None else str(model), []).append(part)
    return found


def _of_model(
    tables: dict[str | None, list[CurveTable]], model: str | None, what: str
) -> list[CurveTable]:
    if model is None and len(tables) == 1:
        return next(iter(tables.values()))
    chosen = [*tables.get(model, []), *(tables.get(None, []) if model is not None else [])]
    if not chosen:
        raise InputError(
            expected=f"{what} of model {model!r}",
            got=f"only of {list(tables)}",
            fix="Give both frames the same names in the column model, or leave it out of one.",
        )
    return chosen


@dataclass(frozen=True)
class MeasuredRates:
    """Rates of one model as they are correlated: scaled so that plain sums of products do it.

    Attributes:
        statistics, capabilities: change over width, times the root of the weight of the interval.
        design: what is partialled out, times the same: a constant first, then the polynomial of
            log(1 + step), then the rate of the loss.
        spread_widths: the widths that surrogates follow in size; ones if all count alike.
    """

    statistics: Float[np.ndarray, "curve interval"]
    capabilities: Float[np.ndarray, "capability interval"]
    design: Float[np.ndarray, "interval column"]
    spread_widths: Float[np.ndarray, " interval"]


def measure_rates(
    curves: AlignedCurves, axis: Axis, weights: Weights, partial: Sequence[Partial], degree: int
) -> MeasuredRates:
    """Rates between neighbouring steps, weighted, and what is to be partialled out of them.

    With `"width"` an interval weighs as much as it is wide, so that r is that of the two rates as
    functions of the axis, however finely it was sampled; with `"equal"` each weighs the same.
    """
    widths = np.diff(axis_positions(curves.steps, axis))
    roots = np.sqrt(widths) if weights == "width" else np.ones_like(widths)
    positions = axis_positions(curves.steps, "log_step")
    middle = (positions[1:] + positions[:-1]) / 2
    standard = 2 * (middle - middle[0]) / (middle[-1] - middle[0]) - 1
    highest = degree if "log_step" in partial else 0
    columns = np.polynomial.legendre.legvander(standard, highest)
    if "loss" in partial and curves.loss is not None:
        columns = np.column_stack([columns, _rates(curves.loss[None], widths)[0]])
    return MeasuredRates(
        _rates(curves.statistics.values, widths) * roots,
        _rates(curves.capabilities.values, widths) * roots,
        columns * roots[:, None],
        widths if weights == "width" else np.ones_like(widths),
    )


def _rates(values: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Change over width; one number where a curve's slope is constant but for rounding."""
    changes = np.diff(values, axis=1)
    slope = changes.sum(axis=1, keepdims=True) / widths.sum()
    bend = np.abs(changes - slope * widths).max(axis=1)
    flat = bend <= _CONSTANT * np.abs(values).max(axis=1)
    return np.where(flat[:, None], slope, changes / widths)


def orthonormal(design: Float[np.ndarray, "interval column"]) -> Float[np.ndarray, "interval rank"]:
    """A basis of what the columns of a design span."""
    length = np.linalg.norm(design, axis=0).clip(np.finfo(float).tiny)
    basis, sizes, _ = np.linalg.svd(design / length, full_matrices=False)
    return basis[:, sizes > 1e-8]


def without_design(
    rates: Float[np.ndarray, "*series interval"], design: Float[np.ndarray, "interval column"]
) -> Float[np.ndarray, "*series interval"]:
    """What least squares on the design leaves of the rates; exact zeros where that is rounding."""
    basis = orthonormal(design)
    left = rates - (rates @ basis) @ basis.T
    size = np.linalg.norm(rates, axis=-1, keepdims=True)
    nothing = np.linalg.norm(left, axis=-1, keepdims=True) <= _CONSTANT * size
    return np.where(nothing, 0.0, left)


def ranked(left: Float[np.ndarray, "*series interval"]) -> Float[np.ndarray, "*series interval"]:
    """Ranks of what is left, those that differ by rounding alike."""
    size = np.abs(left).max(axis=-1, keepdims=True).clip(np.finfo(float).tiny)
    return np.asarray(rankdata(np.round(left / size, 10), axis=-1), dtype=float)


def correlations(
    left: Float[np.ndarray, "*row interval"], right: Float[np.ndarray, "*other interval"]
) -> Float[np.ndarray, ...]:
    """Products of rows of length 1; NaN where one of them is zero."""
    return unit(left) @ unit(right).T


def lagged(
    statistic: Float[np.ndarray, "*curve interval"],
    capability: Float[np.ndarray, "*draw interval"],
    lag: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The parts of both that go together when the statistic leads by `lag` intervals."""
    n = statistic.shape[-1]
    here = statistic[..., max(0, -lag) : n - max(0, lag)]
    return here, capability[..., max(0, lag) : n - max(0, -lag)]


def unit(rows: Float[np.ndarray, "*row interval"]) -> Float[np.ndarray, "*row interval"]:
    """Rows of length 1; NaN where a row is zero."""
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.divide(rows, length, out=np.full_like(rows, np.nan), where=length > 0)
