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
MIN_FREEDOM = 4  # intervals beyond what is partialled out and lagged away
_CONSTANT = 1e-10  # of the largest size: rates that vary less are rounding


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


def rate_design(
    curves: AlignedCurves, axis: Axis, method: Method, partial: Sequence[Partial], degree: int
) -> Float[np.ndarray, "interval column"]:
    """What is partialled out, as orthonormal columns: a constant at least.

    `"log_step"`: a polynomial of log(1 + step) at the middle of each interval; `"loss"`: the
    rates of the loss (their ranks for `"spearman"`).
    """
    positions = axis_positions(curves.steps, "log_step")
    middle = (positions[1:] + positions[:-1]) / 2
    standard = 2 * (middle - middle[0]) / (middle[-1] - middle[0]) - 1
    highest = degree if "log_step" in partial else 0
    columns = np.polynomial.legendre.legvander(standard, highest)
    if "loss" in partial and curves.loss is not None:
        rates = measured_rates(curves.loss[None], curves.steps, axis, method)
        columns = np.column_stack([columns, rates[0] - rates.mean()])
    kept, sizes, _ = np.linalg.svd(
        columns / np.linalg.norm(columns, axis=0).clip(1e-300), full_matrices=False
    )
    return kept[:, sizes > 1e-8]


def measured_rates(
    values: Float[np.ndarray, "curve step"],
    steps: Int[np.ndarray, " step"],
    axis: Axis,
    method: Method,
) -> Float[np.ndarray, "curve interval"]:
    """Change over width of each interval; its rank among all intervals for `"spearman"`."""
    rates = np.diff(values, axis=1) / np.diff(axis_positions(steps, axis))
    flat = np.ptp(rates, axis=1) <= _CONSTANT * np.abs(values).max(axis=1)
    rates[flat] = 0.0  # rounding of a constant slope
    return np.asarray(rankdata(rates, axis=1), dtype=float) if method == "spearman" else rates


def without_design(
    rates: Float[np.ndarray, "*series interval"], design: Float[np.ndarray, "interval column"]
) -> Float[np.ndarray, "*series interval"]:
    """What is left of the rates beside the design; exact zeros where nothing is."""
    left = rates - (rates @ design) @ design.T
    size = np.linalg.norm(rates, axis=-1, keepdims=True)
    nothing = np.linalg.norm(left, axis=-1, keepdims=True) <= _CONSTANT * size
    return np.where(nothing, 0.0, left)


def measured_values(
    values: Float[np.ndarray, "curve step"], method: Method
) -> Float[np.ndarray, "curve step"]:
    """The values themselves; their ranks for `"spearman"`."""
    return np.asarray(rankdata(values, axis=1), dtype=float) if method == "spearman" else values


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
    """Rows with mean 0 and length 1, whose products are correlations; NaN if constant."""
    centred = rows - rows.mean(axis=-1, keepdims=True)
    length = np.linalg.norm(centred, axis=-1, keepdims=True)
    varies = length > _CONSTANT * np.abs(rows).max(axis=-1, keepdims=True, initial=0.0)
    return np.divide(centred, length, out=np.full_like(centred, np.nan), where=varies)
