"""Types of jumps: when, how large and how fast, a colour and a symbol a type."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.errors import InputError
from headspec.plots.jump_rows import UNIT, Rows, count, named, number, plain_rows, with_places
from headspec.plots.palette import MUTED, NULL_BAND, NULL_MEAN, category
from headspec.plots.panels import Panels, legend_lines
from headspec.plots.window import swatch

_FIX = "Give `classify_jumps(...)` or its frame."
_MOST = 8


def plot_jump_types(types: Rows) -> go.Figure:
    """Every jump by phase and size, and by speed and size, in the colour of its type.

    Size and speed are on log scales. With a `JumpTypes` that chose its number of types, a third
    panel has the silhouette of each number in front of what the best of them reaches in points
    with a single hump (grey: mean ± 2 sd); types are evidence only where one lies above.

    What it does not show: that types are distinct kinds. K-means cuts any cloud into as many
    parts as it is asked for, with straight borders.

    Args:
        types: `JumpTypes`, or rows with `type phase magnitude`; optional `speed model layer_name
            step`.

    Returns:
        A figure whose `jump` traces hold the jumps, one a panel and type.

    Raises:
        InputError: missing columns, no rows, or more than eight types.

    Example:
        >>> import pandas as pd
        >>> from headspec.plots import plot_jump_types
        >>> rows = pd.DataFrame({"type": [1, 2], "phase": [0.01, 0.6], "magnitude": [1.0, 0.1]})
        >>> [trace.name for trace in plot_jump_types(rows).data if trace.meta == "jump"]
        ['type 1', 'type 2']
    """
    rows = with_places(plain_rows(types, ("type", "phase", "magnitude"), fix=_FIX))
    kinds = sorted(rows["type"].dropna().unique().tolist())
    if len(kinds) > _MOST:
        raise InputError(
            expected=f"at most {_MOST} types", got=f"{len(kinds)}", fix="Ask for fewer types."
        )
    has_speed = bool((number(rows, "speed") > 0).any())
    scores = None if isinstance(types, pd.DataFrame) else getattr(types, "silhouettes", None)
    tested = scores is not None and len(scores) > 0
    views = [("phase", "phase (share of training)", "By time")]
    views += [("speed", f"speed ({UNIT} per update)", "By speed")] * has_speed
    titles = [title for *_, title in views] + ["Silhouette of each number of types"] * tested
    entries = _legend(rows, kinds, tested=tested)
    said = [str(entry.name) for entry in entries]
    panels = Panels(
        titles=titles,
        columns=len(titles),
        height=340,
        narrow_height=270,
        gap=74,
        gap_share=0.08,
        legend_lines=legend_lines(said, width=900),
        narrow_legend_lines=legend_lines(said, width=320),
    )
    figure = panels.figure(
        title="Types of jumps",
        x_title="",
        y_titles=[f"magnitude ({UNIT})"] * len(views) + ["mean silhouette"] * tested,
        alt=_alt(rows, kinds, types),
        note=_note(types, tested=tested),
    )
    narrow = figure.layout["meta"]["headspec"]["narrow"]
    for i, (column, x_title, _) in enumerate(views):
        key = panels.axis("x", i)
        x = {"range": [-0.02, 1.02], "nticks": 6} if column == "phase" else _log(rows, column)
        figure.update_layout({key: {**x, "title": {"text": x_title}}})
        narrow[key]["title"] = {"text": x_title}
        figure.update_layout({panels.axis("y", i): _log(rows, "magnitude")})
        for j, kind in enumerate(kinds):
            trace = _points(rows.loc[rows["type"] == kind], column, kind, j)
            figure.add_trace(trace.update(panels.names(i)))
    if tested:
        i = len(views)
        key = panels.axis("x", i)
        figure.update_layout({key: {"title": {"text": "number of types"}, "dtick": 1}})
        narrow[key]["title"] = {"text": "number of types"}
        traces = _silhouettes(types, pd.DataFrame(scores), len(kinds))
        figure.add_traces([trace.update(panels.names(i)) for trace in traces])
    return figure.add_traces(entries)


def _of(types: Rows, name: str) -> float:
    """A number of a `JumpTypes`; nan for a frame, which has none."""
    return np.nan if isinstance(types, pd.DataFrame) else float(getattr(types, name, np.nan))


def _log(rows: Any, column: str) -> dict:
    """A log axis with ticks at powers of ten."""
    values = number(rows, column)
    values = np.log10(values[values > 0])
    low, high = (values.min(), values.max()) if values.size else (0.0, 1.0)
    pad = 0.05 * max(high - low, 0.5)
    look = {"type": "log", "range": [float(low - pad), float(high + pad)]}
    if high - low < 1:
        return look | {"nticks": 5}
    powers = range(int(np.ceil(low - pad)), int(high + pad) + 1)
    powers = powers[:: -(-len(powers) // 6) or 1]
    marks = {"tickvals": [10.0**k for k in powers], "ticktext": [f"{10.0**k:g}" for k in powers]}
    return look | {"tickmode": "array", **marks}


def _points(part: Any, column: str, kind: float | int, index: int) -> go.Scatter:
    colour, symbol, _ = category(index)
    held = [number(part, name) for name in ("step", "phase", "magnitude", "speed")]
    text = [
        " · ".join(word for word in (model, name) if word)
        for model, name in zip(part["model"], part["layer_name"], strict=True)
    ]
    return go.Scatter(
        x=number(part, column),
        y=number(part, "magnitude"),
        customdata=np.stack(held, axis=-1),
        text=text,
        mode="markers",
        marker={
            "color": colour,
            "symbol": symbol,
            "size": 7 if len(part) < 300 else 5,
            "opacity": 0.75,
        },
        hovertemplate=f"type {named(kind)} · %{{text}}<br>step %{{customdata[0]:,.0f}} (phase "
        f"%{{customdata[1]:.1%}})<br>%{{customdata[2]:.3g}} {UNIT}, %{{customdata[3]:.3g}} per "
        "update<extra></extra>",
        name=f"type {named(kind)}",
        meta="jump",
        showlegend=False,
    )


def _silhouettes(types: Rows, scores: Any, n_types: int) -> list[go.Scatter]:
    """Silhouettes by number of types, the null of their largest behind, the choice larger."""
    n, value = number(scores, "n_types"), number(scores, "silhouette")
    mean, sd = _of(types, "null_mean"), _of(types, "null_sd")
    ends = [n.min() - 0.4, n.max() + 0.4]
    traces = []
    if np.isfinite(mean):
        traces = [
            go.Scatter(
                x=[ends[0], ends[1], ends[1], ends[0]],
                y=[mean - 2 * sd, mean - 2 * sd, mean + 2 * sd, mean + 2 * sd],
                mode="lines",
                fill="toself",
                fillcolor=NULL_BAND,
                line={"width": 0, "color": NULL_BAND},
                hoverinfo="skip",
                name="one hump",
                meta="null band",
                showlegend=False,
            ),
            go.Scatter(
                x=ends,
                y=[mean, mean],
                mode="lines",
                line={"color": NULL_MEAN, "width": 1.5, "dash": "dash"},
                hovertemplate="best of points with one hump: %{y:.3f}<extra></extra>",
                name="one hump: mean",
                meta="null mean",
                showlegend=False,
            ),
        ]
    traces.append(
        go.Scatter(
            x=n,
            y=value,
            mode="lines+markers",
            line={"color": MUTED, "width": 1.5},
            marker={"color": MUTED, "size": [11 if each == n_types else 6 for each in n]},
            hovertemplate="%{x} types: silhouette %{y:.3f}<extra></extra>",
            name="silhouette",
            meta="silhouette",
            showlegend=False,
        )
    )
    return traces


def _legend(rows: Any, kinds: list[Any], *, tested: bool) -> list[go.Scatter]:
    entries = []
    for i, kind in enumerate(kinds):
        colour, symbol, _ = category(i)
        n = int((rows["type"] == kind).sum())
        marker = {"color": colour, "symbol": symbol, "size": 8}
        entries.append({"marker": marker, "name": f"type {named(kind)} ({n:,})"})
    if tested:
        entries.append({"marker": swatch(NULL_BAND), "name": "best of points with one hump"})
    return [go.Scatter(x=[None], y=[None], mode="markers", meta="legend", **e) for e in entries]


def _note(types: Rows, *, tested: bool) -> str:
    p = _of(types, "p")
    words = "Magnitude and speed on log scales."
    if tested and np.isfinite(p):
        words += f" Best silhouette against points with one hump: p = {p:.2g}."
    stable = _of(types, "stability")
    if np.isfinite(stable):
        words += f" Stability over bootstrap samples (adjusted Rand): {stable:.2f}."
    return words


def _alt(rows: Any, kinds: list[Any], types: Rows) -> str:
    said = []
    for kind in kinds:
        own = rows.loc[rows["type"] == kind]
        said.append(
            f"type {named(kind)}, {count(len(own), 'jump')} at phases {own['phase'].min():.2f} to "
            f"{own['phase'].max():.2f}, median magnitude {own['magnitude'].median():.2g}"
        )
    p = _of(types, "p")
    end = f"; number of types against one hump, p = {p:.2g}" if np.isfinite(p) else ""
    return f"Scatter of jumps by phase, magnitude and speed: {'; '.join(said)}{end}."
