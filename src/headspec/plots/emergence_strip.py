"""When each capability emerges, as bars over the steps: a strip above other panels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from headspec.errors import InputError
from headspec.plots.palette import INK, category
from headspec.plots.panels import Panels
from headspec.plots.steps import StepAxis, short_number
from headspec.plots.window import shade_span
from headspec.plots.wording import capability_name

_NEEDED = ("metric", "status", "step", "step_before")
_CENSORED = {"never": "not by the last step", "lost": "lost by the last step"}


@dataclass(frozen=True)
class EmergenceMarks:
    """Capabilities with the windows in which they emerge.

    Attributes:
        names: capabilities, the earliest first, those that never emerge last.
        windows: (step before, step) of each; (None, step) if above chance from the first step,
            (None, None) if it did not emerge.
        status: of each, as `emergence_step` names it.
        midpoints: of fitted sigmoids; nan where there is none.
    """

    names: list[str] = field(default_factory=list)
    windows: list[tuple[int | None, int | None]] = field(default_factory=list)
    status: list[str] = field(default_factory=list)
    midpoints: list[float] = field(default_factory=list)

    @property
    def steps(self) -> list[int]:
        """Every step named."""
        return [step for window in self.windows for step in window if step is not None]

    @property
    def said(self) -> list[str]:
        """Each capability in words."""
        return [
            f"{capability_name(name)}: {_words(window, status)}"
            for name, window, status in zip(self.names, self.windows, self.status, strict=True)
        ]


def emergence_rows(frame: pd.DataFrame | None) -> EmergenceMarks:
    """Windows out of rows of `Emergence.to_frame()`, sorted by step.

    Rows with the status `"not asked"` (no chance is known) are left out.

    Raises:
        InputError: for missing columns, or several rows of one capability.
    """
    if frame is None or frame.empty:
        return EmergenceMarks()
    missing = [name for name in _NEEDED if name not in frame.columns]
    if missing:
        raise InputError(
            expected=f"rows of `Emergence.to_frame()` with {', '.join(_NEEDED)}",
            got=f"no column {', '.join(missing)}",
            fix="Join the frames of `emergence_step(...)`, one a capability.",
        )
    rows = frame.loc[[status != "not asked" for status in frame["status"]]]
    names = [str(name).removesuffix(".emergence") for name in rows["metric"]]
    if len(set(names)) < len(names):
        raise InputError(
            expected="one row of each capability",
            got=f"several of {next(name for name in names if names.count(name) > 1)!r}",
            fix="Filter the rows to one model.",
        )
    ends = [
        (_step(before), _step(step))
        for before, step in zip(rows["step_before"], rows["step"], strict=True)
    ]
    last = [math.inf if step is None else float(step) for _, step in ends]
    order = sorted(range(len(names)), key=last.__getitem__)
    middle = rows["midpoint"].to_numpy(float) if "midpoint" in rows.columns else None
    return EmergenceMarks(
        names=[names[i] for i in order],
        windows=[ends[i] for i in order],
        status=[str(rows["status"].iloc[i]) for i in order],
        midpoints=[math.nan if middle is None else float(middle[i]) for i in order],
    )


def _step(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)


def _words(window: tuple[int | None, int | None], status: str) -> str:
    before, step = window
    if step is None:
        return _CENSORED.get(status, status)
    if before is None:
        return f"from step {short_number(step)} on"
    rises = ", rises most" if status == "rises_most" else ""
    return f"{short_number(before)} to {short_number(step)}{rises}"


def shade_windows(
    figure: go.Figure, panels: Panels, index: int, *, axis: StepAxis, marks: EmergenceMarks
) -> None:
    """Shade every window in one panel, below grid and data; where two overlap it is darker."""
    for before, step in marks.windows:
        if before is not None and step is not None:
            x0, x1 = axis.place([before, step])
            shade_span(figure, panels, index, ends=(x0, x1), name="emergence")


def strip_axis(marks: EmergenceMarks) -> dict:
    """One row a capability, the first on top; names stand above the bars."""
    return {
        "range": [len(marks.names) - 0.5, -0.85],
        "tickmode": "array",
        "tickvals": list(range(len(marks.names))),
        "showticklabels": False,
        "ticks": "",
        "title": {"text": ""},
    }


def strip_traces(
    marks: EmergenceMarks, *, axis: StepAxis, indices: Mapping[str, int]
) -> list[go.Scatter]:
    """A bar a capability in the colour of its curve; names at the left."""
    low = axis.place([axis.steps[0]])[0]
    traces = [
        go.Scatter(
            x=[low] * len(marks.names),
            y=[row - 0.4 for row in range(len(marks.names))],
            mode="text",
            text=marks.said,
            textposition="middle right",
            textfont={"size": 11, "color": INK},
            hoverinfo="skip",
            meta="emergence label",
            showlegend=False,
        )
    ]
    rows = zip(marks.names, marks.windows, marks.status, marks.midpoints, strict=True)
    for row, (name, (before, step), status, midpoint) in enumerate(rows):
        colour, _, _ = category(indices[name])
        known = [] if step is None else [low, *axis.place([step])]
        if known and before is not None:
            known[0] = axis.place([before])[0]
        fitted = f"<br>sigmoid midpoint {midpoint:.4g}" if math.isfinite(midpoint) else ""
        traces.append(
            go.Scatter(
                x=known,
                y=[row] * len(known),
                customdata=[before, step],
                mode="lines",
                line={"color": colour, "width": 8},
                hovertemplate=f"{capability_name(name)}<br>{_words((before, step), status)}"
                f"{fitted}<extra></extra>",
                name=capability_name(name),
                legendgroup=name,
                meta="emergence",
                showlegend=False,
            )
        )
    return traces
