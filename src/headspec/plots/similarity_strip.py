"""How alike representations are across jumps, beside control stretches of the same length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.errors import InputError
from headspec.plots.jump_rows import (
    count,
    in_order,
    named,
    number,
    plain_rows,
    short_name,
    with_places,
)
from headspec.plots.null_rows import fit_names
from headspec.plots.palette import INK, MUTED, PAPER, VALUE
from headspec.plots.panels import Panels, legend_lines
from headspec.plots.row_panels import label_width, name_axis, name_rows

_FIX = "Give rows of `measure_moments` or `compare_representations` with `kind`."
_WORDS = {
    "cka": ("CKA", "1: alike but for rotation and scale"),
    "debiased_cka": ("CKA, debiased", "1: alike but for rotation and scale"),
    "cosine": ("Cosine", "1: the same direction"),
    "procrustes": ("Procrustes similarity", "1: alike but for rotation and scale"),
}
_JUMP, _CONTROL = "jump", "control"


def plot_similarity_across(
    frame: pd.DataFrame, *, metrics: Sequence[str] | None = None
) -> go.Figure:
    """Similarity of a layer before and after each jump, beside that across control steps.

    A row a layer, a panel a measure; where there are several models, a panel for each of both.
    Blue triangles above the row's middle are jumps, grey circles below it controls; an upright
    line is the median of each. Controls are drawn first.

    What it does not show: that a jump changes more than its controls (`plot_jump_effects` tests
    it); and windows early in training change more, jump or not, so controls have to match in
    phase and length.

    Args:
        frame: rows with `metric value kind` ("jump" or "control") and `layer_name` or `layer`;
            optional `model seed moment before after`.
        metrics: which, in this order; None: those of "cka", "debiased_cka", "procrustes", "cosine"
            (with or without `similarity_` before) that the frame has, else all.

    Returns:
        A figure with a panel a measure; traces `jump` and `control` hold similarities.

    Raises:
        InputError: missing columns, or neither jumps nor controls.

    Example:
        >>> import pandas as pd
        >>> from headspec.plots import plot_similarity_across
        >>> rows = pd.DataFrame({"kind": ["jump", "control"], "value": [0.8, 0.9], "layer": 0})
        >>> figure = plot_similarity_across(rows.assign(metric="cka"))
        >>> [trace.meta for trace in figure.data[:2]]
        ['control', 'median']
    """
    rows = plain_rows(frame, ("metric", "value", "kind"), fix=_FIX)
    rows = rows.loc[rows["kind"].isin([_JUMP, _CONTROL])]
    rows = with_places(rows).dropna(subset=["value"])
    bare = rows["metric"].astype(str).str.removeprefix("similarity_")
    rows = rows.assign(metric=bare)
    shown = _metrics(rows, metrics)
    rows = rows.loc[rows["metric"].isin(shown)]
    if rows.empty:
        raise InputError(
            expected='rows of kind "jump" or "control"', got="none with a value", fix=_FIX
        )
    models = list(dict.fromkeys(rows["model"]))
    layers = {model: in_order(rows.loc[rows["model"] == model]) for model in models}
    keys = [(model, metric) for model in models for metric in shown]
    every = [short_name(name) for names in layers.values() for name in names]
    heights = [34 * len(layers[model]) + 16 for model, _ in keys]
    entries = _legend(set(rows["kind"]))
    side_by_side = len(models) == 1
    panels = Panels(
        titles=[_title(model, metric, len(models)) for model, metric in keys],
        columns=min(2, len(shown)) if side_by_side else 1,
        height=max(heights),
        narrow_height=max(heights),
        shares=None if side_by_side else [height / max(heights) for height in heights],
        gap=72,
        gap_share=0.05,
        legend_lines=1,
        narrow_legend_lines=legend_lines([str(entry.name) for entry in entries], width=230),
        left=label_width(every),
    )
    n = {kind: int((rows["kind"] == kind).sum()) for kind in (_JUMP, _CONTROL)}
    figure = panels.figure(
        title="Similarity across jumps",
        x_title="",
        y_titles=[""] * len(keys),
        alt=_alt(rows, keys, layers),
        note=f"{count(n[_JUMP], 'value')} across jumps, {count(n[_CONTROL], 'value')} across "
        "controls; a line is their median.",
    )
    for i, (model, metric) in enumerate(keys):
        names = layers[model]
        name_rows(
            figure,
            panels,
            [short_name(name) for name in names],
            index=i,
            cuts=tuple(range(1, len(names))),
        )
        name_axis(figure, panels, _WORDS.get(metric, (metric, "similarity"))[1], index=i)
        figure.update_layout({panels.axis("x", i): {"nticks": 6}})
        part = rows.loc[(rows["model"] == model) & (rows["metric"] == metric)]
        for kind in (_CONTROL, _JUMP):
            for trace in _strip(part.loc[part["kind"] == kind], names, kind):
                figure.add_trace(trace.update(panels.names(i)))
    fit_names(figure)
    return figure.add_traces(entries)


def _metrics(rows: Any, metrics: Sequence[str] | None) -> list[str]:
    found = list(dict.fromkeys(rows["metric"]))
    if metrics is not None:
        return [str(name).removeprefix("similarity_") for name in metrics]
    return [name for name in _WORDS if name in found] or found


def _title(model: str, metric: str, n_models: int) -> str:
    words = _WORDS.get(metric, (metric.replace("_", " ").capitalize(), ""))[0]
    return f"{model} · {words}" if n_models > 1 else words


def _looks(kind: str) -> dict:
    if kind == _JUMP:
        return {"symbol": "triangle-up", "color": VALUE, "size": 8}
    return {"symbol": "circle", "color": PAPER, "size": 7, "line": {"color": MUTED, "width": 1.2}}


def _strip(part: Any, names: list[str], kind: str) -> list[go.Scatter]:
    """One kind's values and their medians, jumps above controls inside each row."""
    if part.empty:
        return []
    offset = -0.18 if kind == _JUMP else 0.18
    row = np.array([names.index(name) for name in part["layer_name"]], dtype=float)
    before, after = number(part, "before"), number(part, "after")
    text = [
        f"{kind} · {name}"
        + ("" if pd.isna(seed) else f" · seed {named(seed)}")
        + ("" if np.isnan(b) else f"<br>step {b:,.0f} to {a:,.0f}")
        for name, seed, b, a in zip(part["layer_name"], part["seed"], before, after, strict=True)
    ]
    medians = part.groupby("layer_name")["value"].median().reindex(names)
    points = go.Scatter(
        x=part["value"].to_numpy(float),
        y=row + offset,
        text=text,
        mode="markers",
        marker=_looks(kind) | {"opacity": 0.75},
        hovertemplate="%{text}<br>%{x:.4g}<extra></extra>",
        name=kind,
        meta=kind,
        showlegend=False,
    )
    colour = INK if kind == _JUMP else MUTED
    lines = go.Scatter(
        x=medians.to_numpy(float),
        y=np.arange(len(names)) + offset,
        text=[f"{kind}: median, {name}" for name in names],
        mode="markers",
        marker={
            "symbol": "line-ns-open",
            "size": 13,
            "color": colour,
            "line": {"width": 2.2, "color": colour},
        },
        hovertemplate="%{text}<br>%{x:.4g}<extra></extra>",
        name=f"{kind}: median",
        meta="median",
        showlegend=False,
    )
    return [points, lines]


def _legend(kinds: set) -> list[go.Scatter]:
    words = {_JUMP: "across a jump", _CONTROL: "across a control"}
    entries = [
        {"mode": "markers", "marker": _looks(kind), "name": words[kind]}
        for kind in (_JUMP, _CONTROL)
        if kind in kinds
    ]
    mark = {"symbol": "line-ns-open", "size": 12, "color": INK, "line": {"width": 2, "color": INK}}
    entries.append({"mode": "markers", "marker": mark, "name": "median"})
    return [go.Scatter(x=[None], y=[None], meta="legend", **entry) for entry in entries]


def _alt(rows: Any, keys: list[tuple[str, str]], layers: dict[str, list[str]]) -> str:
    said = []
    for model, metric in keys:
        part = rows.loc[(rows["model"] == model) & (rows["metric"] == metric)]
        for name in layers[model]:
            own = part.loc[part["layer_name"] == name]
            each = [
                f"{kind} {own.loc[own['kind'] == kind, 'value'].median():.3g}"
                for kind in (_JUMP, _CONTROL)
                if (own["kind"] == kind).any()
            ]
            if each:
                where = " ".join(word for word in (model, name) if word)
                said.append(f"{metric} of {where}: {', '.join(each)}")
    return f"Strips of similarities across jumps and controls, medians by layer. {'; '.join(said)}."
