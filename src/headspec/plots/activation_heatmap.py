"""Mean activations of units on classes, units sorted by the class they prefer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from headspec.errors import InputError
from headspec.plots.palette import diverging_axis
from headspec.plots.panels import Panels

_STOPS = ((0.0, "#f6f6f4"), (0.5, "#6aaed6"), (1.0, "#084594"))


def plot_activation_heatmap(
    activations: ArrayLike | Mapping[str, ArrayLike],
    labels: ArrayLike | None = None,
    *,
    sort_by: ArrayLike | str | None = None,
    class_names: Sequence[str] | None = None,
    title: str = "Activations by class",
) -> go.Figure:
    """What each unit (across) gives on each class (downwards); a panel a moment or layer.

    Units are sorted by their preferred class, then by how far it stands above the mean of their
    other classes. All panels share one scale: from 0 where nothing is negative, else about 0.

    What it does not show: selectivity. Sorting units by the numbers that are drawn makes a
    diagonal out of noise too; give `sort_by` the class means of other samples, and what remains
    of the diagonal is real. `class_selectivity` has the null.

    Args:
        activations: `class unit` means, or `sample unit` with `labels`; or name of the panel ->
            either of them.
        labels: class of each sample, for `sample unit`.
        sort_by: `class unit` to sort by (such as means over other samples), or the name of the
            panel whose order all take; None: each panel by its own numbers.
        class_names: of the rows; None: the labels, or 0, 1, ...
        title: of the figure.

    Returns:
        A figure with a heat map a panel; its `text` names the units in the order drawn.

    Raises:
        InputError: other shapes, units that differ from the order's, an unknown panel.

    Example:
        >>> import numpy as np
        >>> from headspec.plots import plot_activation_heatmap
        >>> figure = plot_activation_heatmap(np.array([[0.0, 2.0, 0.5], [1.0, 0.0, 0.5]]))
        >>> list(figure.data[0].text[0])
        ['1', '2', '0']
    """
    given = activations if isinstance(activations, Mapping) else {"": activations}
    means, names = {}, class_names
    for name, values in given.items():
        means[str(name)], found = _class_means(str(name), values, labels)
        names = names if names is not None else found
    if not means:
        raise InputError(expected="at least one panel", got="none", fix="Give name -> values.")
    orders = _orders(means, sort_by)
    rows = max(len(each) for each in means.values())
    names = [str(name) for name in names or range(rows)]
    if len(names) != rows:
        raise InputError(
            expected=f"one name for each of {rows} classes",
            got=f"{len(names)} names",
            fix="Give as many `class_names` as rows.",
        )
    panels = Panels(
        titles=[_title(name, each) for name, each in means.items()],
        columns=1 if len(means) < 3 else 2,
        height=max(120, 20 * rows),
        narrow_height=max(120, 18 * rows),
        gap=54,
        gap_share=0.06,
        legend_lines=0,
        narrow_legend_lines=0,
        footer=48,
        left=40 + 6 * max(len(name) for name in names),
        bar=True,
        share_y=True,
    )
    figure = panels.figure(
        title=title,
        x_title="units, sorted by preferred class",
        y_titles=["class"] * len(means),
        alt=_alt(means, names),
        note=_note(sort_by),
    )
    signed = min(float(each.min()) for each in means.values()) < 0
    for i, (name, each) in enumerate(means.items()):
        look = {"showgrid": False, "ticks": "", "showline": False}
        step = -(-rows // 12)
        figure.update_layout(
            {
                panels.axis("x", i): {**look, "showticklabels": False},
                panels.axis("y", i): {
                    **look,
                    "tickmode": "array",
                    "tickvals": list(range(0, rows, step)),
                    "ticktext": names[::step],
                    "range": [rows - 0.5, -0.5],
                },
            }
        )
        figure.add_trace(_cells(each, orders[name], name, names).update(panels.names(i)))
    top = max(float(np.abs(each).max()) for each in means.values()) or 1.0
    bar = diverging_axis(top, title="mean activation", below=panels.below())
    if not signed:
        stops = [list(stop) for stop in _STOPS]
        bar = {"colorscale": stops, "cmin": 0.0, "cmax": top, "colorbar": bar["colorbar"]}
    return figure.update_layout(coloraxis=bar)


def _class_means(
    name: str, values: ArrayLike, labels: ArrayLike | None
) -> tuple[np.ndarray, list[str] | None]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.size == 0 or not np.isfinite(array).all():
        raise InputError(
            expected="finite activations `class unit` or `sample unit`",
            got=f"shape {list(array.shape)} for {name!r}",
            fix="Average over positions first.",
        )
    if labels is None:
        return array, None
    classes = np.asarray(labels)
    if classes.shape != (len(array),):
        raise InputError(
            expected=f"one label for each of {len(array)} samples",
            got=f"labels of shape {list(classes.shape)}",
            fix="Leave `labels` out where the activations are class means already.",
        )
    found = np.unique(classes)
    return np.stack([array[classes == each].mean(0) for each in found]), found.astype(str).tolist()


def _orders(
    means: Mapping[str, np.ndarray], sort_by: ArrayLike | str | None
) -> dict[str, np.ndarray]:
    """The order of units in each panel."""
    if sort_by is None:
        return {name: _order(each) for name, each in means.items()}
    if isinstance(sort_by, str):
        if sort_by not in means:
            raise InputError(
                expected=f"a panel out of {', '.join(means)}",
                got=repr(sort_by),
                fix="Name the panel whose order all take.",
            )
        source = means[sort_by]
    else:
        source = np.asarray(sort_by, dtype=np.float64)
    for name, each in means.items():
        if source.ndim != 2 or source.shape[1] != each.shape[1]:
            raise InputError(
                expected=f"an order of the {each.shape[1]} units of {name or 'the figure'!r}",
                got=f"shape {list(source.shape)}",
                fix="Give `sort_by` as `class unit` of the same units, or leave it out.",
            )
    return dict.fromkeys(means, _order(source))


def _order(means: np.ndarray) -> np.ndarray:
    """Units by preferred class, the most preferring first."""
    best = means.argmax(0)
    top = means.max(0)
    others = (means.sum(0) - top) / max(len(means) - 1, 1)
    return np.lexsort((-(top - others), best))


def _cells(means: np.ndarray, order: np.ndarray, name: str, names: Sequence[str]) -> go.Heatmap:
    text = [[str(unit) for unit in order]] * len(means)
    return go.Heatmap(
        z=means[:, order].astype(np.float32),
        text=text,
        customdata=[[row] * len(order) for row in names],
        coloraxis="coloraxis",
        hovertemplate="class %{customdata}, unit %{text}<br>mean activation %{z:.3g}"
        f"<extra>{name}</extra>",
        name=name,
        meta="cells",
    )


def _title(name: str, means: np.ndarray) -> str:
    units = f"{means.shape[1]:,} units"
    return f"{name}: {units}" if name else units


def _note(sort_by: ArrayLike | str | None) -> str:
    if sort_by is None:
        return (
            "Units are sorted by the numbers that are drawn: noise would show a diagonal too. "
            "One scale for all panels."
        )
    whose = f"of {sort_by!r}" if isinstance(sort_by, str) else "of other samples"
    return f"All panels have the order {whose}. One scale for all panels."


def _alt(means: Mapping[str, np.ndarray], names: Sequence[str]) -> str:
    said = []
    for name, each in means.items():
        counts = np.bincount(each.argmax(0), minlength=len(names))
        silent = int((np.abs(each).max(0) == 0).sum())
        words = f"units that prefer each class: {', '.join(map(str, counts))}"
        said.append(f"{name}: {words}" if name else words)
        if silent:
            said[-1] += f", of which {silent} are silent"
    return f"Heat maps of mean activations, classes by units. {'; '.join(said)}."
