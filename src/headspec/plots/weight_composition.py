"""Which heads read what other heads write: composition above its null."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.errors import InputError
from headspec.plots.frames import whose
from headspec.plots.palette import BLANK, INK, PAPER, diverging_axis
from headspec.plots.panels import Panels
from headspec.plots.weight_wording import composition_title
from headspec.plots.window import swatch

_NEEDED = ("metric", "layer", "head", "layer_2", "head_2", "value", "null_mean", "null_sd", "p")
_COLUMNS = ("excess", "value", "null_mean", "null_sd", "p", "q")


def plot_composition(
    frame: pd.DataFrame, *, kinds: Sequence[str] | None = None, alpha: float = 0.05
) -> go.Figure:
    """Composition scores less the mean of their null: heads that write by heads that read.

    One panel a kind of composition, all on one scale centred on 0. A dot marks `q` at most `alpha`
    (`p` where the frame has no `q`). Grey pairs have no score: the one that would write comes
    after the one that would read.

    What it does not show: that the pair composes on any input. A score is of weights alone; layer
    norm, attention patterns and what else is written into the same directions decide.

    Args:
        frame: rows of `CompositionScores.to_frame()`, of one model and step, several kinds in one
            frame or a single one.
        kinds: metrics to show, in this order, such as `("q_composition", "k_composition")`.
        alpha: level up to which a pair gets its dot.

    Returns:
        A figure with a heat map a kind; `customdata` holds score, null mean, null sd, p and q.

    Raises:
        InputError: for missing columns, unknown kinds, or several rows of one pair.
    """
    rows, which = _checked(frame)
    found = list(dict.fromkeys(str(name) for name in rows["metric"]))
    names = found if kinds is None else list(kinds)
    if unknown := [name for name in names if name not in found]:
        raise InputError(
            expected=f"kinds out of {found}", got=f"{unknown}", fix="Name kinds of the frame."
        )
    writers, readers = _heads(rows, "layer", "head"), _heads(rows, "layer_2", "head_2")
    cells = {name: _cells(rows.loc[rows["metric"] == name], writers, readers) for name in names}
    share = min(1.0, max(0.4, len(writers) / len(readers)))
    panels = Panels(
        titles=[composition_title(name) for name in names],
        columns=min(3, len(names)),
        height=round((300 if len(names) > 1 else 420) * share),
        narrow_height=round(290 * share),
        gap_share=0.1,
        legend_lines=1,
        narrow_legend_lines=1,
        footer=64,
        bar=True,
        share_y=True,
        left=56,
    )
    step = rows["step"].dropna().unique()
    figure = panels.figure(
        title=f"Composition of heads above its null{whose(rows)}"
        + (f", step {int(step[0])}" if len(step) == 1 else ""),
        x_title="head that reads",
        y_titles=["head that writes"] * len(names),
        alt=_alt(cells, writers, readers, alpha=alpha, which=which),
        note="One cell is one pair of heads: the score less the mean of its null. A dot marks "
        f"{which} at most {alpha:g}. Grey: pairs in which the head that writes comes too late.",
    )
    every = np.concatenate([each[..., 0].ravel() for each in cells.values()])
    limit = float(np.nanmax(np.abs(every), initial=0.0)) or 1.0
    size = min(6.0, max(2.5, 160 / max(len(readers), len(writers))))
    for i, name in enumerate(names):
        data = cells[name]
        figure.add_trace(_heatmap(data, writers, readers, which=which).update(panels.names(i)))
        row, column = np.nonzero(data[..., 5] <= alpha)
        dots = {"color": INK, "size": size, "line": {"color": PAPER, "width": 0.8}}
        figure.add_trace(
            go.Scatter(
                x=column.tolist(),
                y=row.tolist(),
                mode="markers",
                marker=dots,
                hoverinfo="skip",
                meta="significant",
                showlegend=False,
            ).update(panels.names(i))
        )
        for kind, heads in (("x", readers), ("y", writers)):
            figure.update_layout({panels.axis(kind, i): _axis(heads, down=kind == "y")})
            _part(figure, panels, i, heads, kind=kind)
    entries = [({"color": INK, "size": 7}, f"{which} ≤ {alpha:g}"), (swatch(BLANK), "no pair")]
    for marker, words in entries:
        figure.add_scatter(
            x=[None], y=[None], mode="markers", marker=marker, name=words, meta="legend"
        )
    return figure.update_layout(
        plot_bgcolor=BLANK,
        coloraxis=diverging_axis(
            limit, title="score above the mean of its null (no unit)", below=panels.below()
        ),
        legend={"itemclick": False, "itemdoubleclick": False},
    )


def _checked(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    missing = [name for name in _NEEDED if name not in frame.columns]
    if missing or frame.empty:
        raise InputError(
            expected=f"rows of `CompositionScores.to_frame()` with {', '.join(_NEEDED)}",
            got="an empty frame" if frame.empty else f"no column {', '.join(missing)}",
            fix="Give the frame of `composition_scores(...)`.",
        )
    pair = ["metric", "layer", "head", "layer_2", "head_2"]
    doubled = frame.loc[frame.duplicated(subset=pair)]
    if len(doubled):
        raise InputError(
            expected="one row of each pair of heads and kind",
            got=f"several of {doubled.iloc[0][pair].tolist()}",
            fix="Filter the frame to one model and step.",
        )
    which = "q" if "q" in frame.columns else "p"
    rows = frame.assign(
        q=frame[which], excess=frame["value"].astype(float) - frame["null_mean"].astype(float)
    )
    return (rows if "step" in rows.columns else rows.assign(step=np.nan)), which


def _heads(rows: pd.DataFrame, layer: str, head: str) -> list[tuple[int, int]]:
    return sorted({(int(a), int(b)) for a, b in zip(rows[layer], rows[head], strict=True)})


def _cells(
    rows: pd.DataFrame, writers: list[tuple[int, int]], readers: list[tuple[int, int]]
) -> np.ndarray:
    """Numbers of every pair; nan where the frame has none."""
    cells = np.full((len(writers), len(readers), len(_COLUMNS)), np.nan)
    down = {head: i for i, head in enumerate(writers)}
    across = {head: i for i, head in enumerate(readers)}
    ends = ("layer", "head", "layer_2", "head_2")
    at = rows[[*ends]].to_numpy(int)
    numbers = rows[[*_COLUMNS]].to_numpy(float)
    for (a, b, c, d), values in zip(at.tolist(), numbers, strict=True):
        cells[down[a, b], across[c, d]] = values
    return cells


def _heatmap(
    cells: np.ndarray,
    writers: list[tuple[int, int]],
    readers: list[tuple[int, int]],
    *,
    which: str,
) -> go.Heatmap:
    names = [[f"{_name(one)} → {_name(other)}" for other in readers] for one in writers]
    return go.Heatmap(
        z=cells[..., 0],
        x=list(range(len(readers))),
        y=list(range(len(writers))),
        text=names,
        customdata=cells[..., 1:],
        coloraxis="coloraxis",
        hoverongaps=False,
        hovertemplate="%{text}<br>score %{customdata[0]:.3f}, null %{customdata[1]:.3f} ± "
        f"%{{customdata[2]:.3f}}<br>p = %{{customdata[3]:.2g}}, {which} = %{{customdata[4]:.2g}}"
        "<extra></extra>",
        name="excess",
        meta="cells",
    )


def _name(head: tuple[int, int]) -> str:
    return f"L{head[0]}H{head[1]}"


def _axis(heads: list[tuple[int, int]], *, down: bool) -> dict:
    """Heads by name where they are few, else one label a layer."""
    n = len(heads)
    look = {
        "tickmode": "array",
        "ticks": "",
        "showgrid": False,
        "showline": False,
        "tickangle": 0,
        "tickfont": {"size": 10},
        "range": [n - 0.5, -0.5] if down else [-0.5, n - 0.5],
    }
    if n <= 8:
        return look | {"tickvals": list(range(n)), "ticktext": [_name(head) for head in heads]}
    layers = sorted({layer for layer, _ in heads})
    shown = layers[:: -(-len(layers) // 8)]
    at = [np.mean([i for i, head in enumerate(heads) if head[0] == layer]) for layer in shown]
    return look | {"tickvals": [float(x) for x in at], "ticktext": [f"L{x}" for x in shown]}


def _part(
    figure: go.Figure, panels: Panels, index: int, heads: list[tuple[int, int]], *, kind: str
) -> None:
    """Lines between layers."""
    names = panels.names(index)
    other = "y" if kind == "x" else "x"
    for i in range(1, len(heads)):
        if heads[i][0] != heads[i - 1][0]:
            figure.add_shape(
                {f"{kind}0": i - 0.5, f"{kind}1": i - 0.5, f"{other}0": 0, f"{other}1": 1},
                type="line",
                **{
                    f"{kind}ref": names[f"{kind}axis"],
                    f"{other}ref": f"{names[f'{other}axis']} domain",
                },
                line={"color": PAPER, "width": 2},
                name="layers",
            )


def _alt(
    cells: dict[str, np.ndarray],
    writers: list[tuple[int, int]],
    readers: list[tuple[int, int]],
    *,
    alpha: float,
    which: str,
) -> str:
    said = []
    for name, data in cells.items():
        excess = np.nan_to_num(data[..., 0], nan=-np.inf)
        one, other = np.unravel_index(int(excess.argmax()), excess.shape)
        count, of = int((data[..., 5] <= alpha).sum()), int(np.isfinite(data[..., 0]).sum())
        said.append(
            f"{composition_title(name)}: {count} of {of} pairs with {which} at most {alpha:g}, "
            f"the largest {_name(writers[one])} to {_name(readers[other])} "
            f"({excess[one, other]:+.3f})"
        )
    return f"Heat maps of composition of heads above its null. {'. '.join(said)}."
