"""A thresholded metric beside a continuous one of the same ability: whose is the emergence?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.errors import InputError
from headspec.plots.capabilities import curve_trace
from headspec.plots.emergence_strip import EmergenceMarks, emergence_rows, shade_windows
from headspec.plots.frames import metric_rows, usable, whose
from headspec.plots.palette import MUTED, NULL_MEAN, TRANSITION
from headspec.plots.panels import Panels
from headspec.plots.steps import StepAxis
from headspec.plots.window import swatch
from headspec.plots.wording import capability_name, capability_unit

_NEEDED = (
    "metric",
    "value",
    "step",
    "step_before",
    "status",
    "null_mean",
    "low",
    "high",
    "verdict",
)
_CHANCE = {"color": NULL_MEAN, "width": 1, "dash": "dot"}
_BEFORE = {"color": MUTED, "width": 1.5, "dash": "dash"}
_VERDICTS = {
    "metric": "the abruptness may be at least partly the metric's",
    "late_onset": "the threshold delays what is seen",
    "sharper": "part of the abruptness is the metric's",
    "shared": "nothing says that the abruptness is the metric's",
    "undecided": "one of the two does not emerge",
}


@dataclass(frozen=True)
class _Pair:
    """One comparison: both metrics, what was found, and its words."""

    names: tuple[str, str]
    rows: tuple[dict, dict]
    marks: EmergenceMarks
    done: float
    done_low: float
    done_high: float
    verdict: str

    @property
    def before(self) -> int | None:
        """The last step before the thresholded metric emerged."""
        return self.marks.windows[self.marks.names.index(self.names[0])][0]


def plot_emergence_comparison(frame: pd.DataFrame, comparison: pd.DataFrame) -> go.Figure:
    """Thresholded and continuous metrics of abilities side by side, with when each emerges.

    One row an ability. Left: the thresholded metric; right: the continuous one. Shaded: the window
    in which that metric emerges. The dashed line, the same in both, is the last step before the
    thresholded metric emerged, with the share of the continuous metric's change that was done by
    then. Bars are standard errors; perplexities have a log axis.

    What it does not show: that the ability is gradual; the continuous metric also improves by what
    is no part of the ability.

    Args:
        frame: curves of both metrics: `step`, `metric`, `value`; optional `se`.
        comparison: rows of `EmergenceComparison.to_frame()`, of one comparison or several.

    Returns:
        A figure of two panels an ability.

    Raises:
        InputError: for missing columns, or curves that the frame lacks.
    """
    pairs = _pairs(comparison)
    rows = usable(frame, ("step", "metric", "value"))
    curves = {name: metric_rows(rows, name) for pair in pairs for name in pair.names}
    axis = StepAxis([step for each in curves.values() for step in each["step"]])
    places = [(pair, side) for pair in pairs for side in (0, 1)]
    panels = Panels(
        titles=[_named(pair.names[side]) for pair, side in places],
        columns=2,
        height=220,
        narrow_height=190,
        gap=66,
        legend_lines=1,
        narrow_legend_lines=3,
    )
    figure = panels.figure(
        title=f"Thresholded and continuous metrics{whose(rows)}",
        x_title=axis.title,
        y_titles=[capability_unit(n := pair.names[side], curves[n]) for pair, side in places],
        alt=_alt(pairs),
        note=" ".join(
            f"{_named(pair.names[0])} and {capability_name(pair.names[1])}: "
            f"{_VERDICTS.get(pair.verdict, pair.verdict)}."
            for pair in pairs
        )
        + " Bars: one standard error.",
    )
    for i, (pair, side) in enumerate(places):
        name = pair.names[side]
        own = emergence_rows(comparison.loc[comparison["metric"] == f"{name}.emergence"])
        shade_windows(figure, panels, i, axis=axis, marks=own)
        powers = {"type": "log", "dtick": 2, "exponentformat": "power"}
        look = powers if name.endswith(("ppl", "perplexity")) else {"nticks": 5}
        figure.update_layout({panels.axis("x", i): axis.layout(), panels.axis("y", i): look})
        level = _level(pair.rows[side], curves[name])
        if np.isfinite(level):
            figure.add_trace(_chance(axis, level).update(panels.names(i)))
        _before(figure, panels, i, axis=axis, pair=pair)
        if side == 1 and np.isfinite(pair.done):
            _say_done(figure, panels, i, axis=axis, pair=pair, rows=curves[name])
        trace = curve_trace(curves[name], axis, name, side)
        figure.add_trace(trace.update(panels.names(i)).update(showlegend=False))
    entries: list[dict] = [
        {"mode": "markers", "marker": swatch(TRANSITION), "name": "the metric emerges"},
        {
            "mode": "lines",
            "line": {"color": NULL_MEAN, "width": 1, "dash": "dot"},
            "name": "chance",
        },
        {
            "mode": "lines",
            "line": {"color": MUTED, "width": 1.5, "dash": "dash"},
            "name": "last step before the thresholded one emerges",
        },
    ]
    figure.add_traces([go.Scatter(x=[None], y=[None], meta="legend", **each) for each in entries])
    return figure.update_layout(legend={"itemclick": False, "itemdoubleclick": False})


def _pairs(comparison: pd.DataFrame) -> list[_Pair]:
    missing = [name for name in _NEEDED if name not in comparison.columns]
    found = [] if missing else [n for n in comparison["metric"] if str(n).endswith(".done_before")]
    if missing or not found:
        raise InputError(
            expected=f"rows of `EmergenceComparison.to_frame()` with {', '.join(_NEEDED)}",
            got=f"no column {', '.join(missing)}" if missing else "no comparison",
            fix="Give the frame of `compare_emergence(...)`.",
        )
    pairs = []
    for key in found:
        thresholded, continuous = str(key).removesuffix(".done_before").split("|")
        names = (thresholded, continuous)
        parts = [_only(comparison, f"{name}.emergence") for name in names]
        done = _only(comparison, str(key))
        pairs.append(
            _Pair(
                names=names,
                rows=(parts[0], parts[1]),
                marks=emergence_rows(pd.DataFrame(parts)),
                done=float(done["value"]),
                done_low=float(done["low"]),
                done_high=float(done["high"]),
                verdict=str(done["verdict"]),
            )
        )
    return pairs


def _only(comparison: pd.DataFrame, metric: str) -> dict:
    rows = comparison.loc[comparison["metric"] == metric]
    if len(rows) != 1:
        raise InputError(
            expected=f"one row {metric!r}",
            got=f"{len(rows)}",
            fix="Give comparisons of one model, each once.",
        )
    return rows.to_dict("records")[0]


def _named(name: str) -> str:
    words = capability_name(name)
    return words[:1].upper() + words[1:]


def _level(row: dict, rows: pd.DataFrame) -> float:
    """Chance in the scale of the curve, which may be the exponential of what was compared.

    A row of `Emergence` holds the metric at its step (at the last one, if it did not emerge).
    """
    values = rows["value"].to_numpy(float)
    steps = rows["step"].tolist()
    at = steps.index(row["step"]) if row["step"] in steps else -1
    chance, given = float(row["null_mean"]), float(row["value"])
    if np.isclose(given, values[at]):
        return chance
    return float(np.exp(chance)) if np.isclose(np.exp(given), values[at]) else np.nan


def _chance(axis: StepAxis, level: float) -> go.Scatter:
    return go.Scatter(
        x=axis.place([axis.steps[0], axis.steps[-1]]),
        y=[level, level],
        mode="lines",
        line=_CHANCE,
        hoverinfo="skip",
        name="chance",
        meta="chance",
        showlegend=False,
    )


def _before(figure: go.Figure, panels: Panels, index: int, *, axis: StepAxis, pair: _Pair) -> None:
    """The last step before the thresholded metric emerged, as a dashed line."""
    before = pair.before
    if before is None:
        return
    names = panels.names(index)
    x = axis.place([before])[0]
    figure.add_shape(
        type="line",
        xref=names["xaxis"],
        yref=f"{names['yaxis']} domain",
        x0=x,
        x1=x,
        y0=0,
        y1=1,
        line=_BEFORE,
        name="before",
    )


def _say_done(
    figure: go.Figure,
    panels: Panels,
    index: int,
    *,
    axis: StepAxis,
    pair: _Pair,
    rows: pd.DataFrame,
) -> None:
    """How much of the change was done by then, beside the line where the curve leaves room."""
    names = panels.names(index)
    values = rows["value"].to_numpy(float)
    x = float(np.log10(axis.place([pair.before])[0]))
    on_right, falls = x > np.mean(axis.range), values[-1] < values[0]
    figure.add_annotation(
        text=f"{pair.done:.0%} done",
        xref=names["xaxis"],
        yref=f"{names['yaxis']} domain",
        x=x,
        xanchor="right" if on_right else "left",
        y=0.06 if falls == on_right else 0.94,
        yanchor="bottom" if falls == on_right else "top",
        xshift=-4 if on_right else 4,
        showarrow=False,
        font={"size": 11, "color": MUTED},
    )


def _alt(pairs: list[_Pair]) -> str:
    said = []
    for pair in pairs:
        words = f"{'; '.join(pair.marks.said)}"
        if np.isfinite(pair.done):
            words += (
                f"; before the first emerged, {pair.done:.0%} of the change of "
                f"{capability_name(pair.names[1])} was done ({pair.done_low:.0%} to "
                f"{pair.done_high:.0%})"
            )
        said.append(words)
    return f"Curves of thresholded and continuous metrics over training. {'. '.join(said)}."
