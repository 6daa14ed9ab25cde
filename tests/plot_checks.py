"""What every figure must have."""

import re

import plotly.graph_objects as go

from headspec.plots.palette import DARK, TEMPLATE

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}|rgba?\(.*\)")


def the(figure, role):
    """The traces of this role."""
    return [trace for trace in figure.data if trace.meta == role]


def colours_in(value):
    """Every colour named anywhere in a figure."""
    if isinstance(value, str):
        return {value} if _COLOUR.fullmatch(value) else set()
    if isinstance(value, dict):
        return set().union(*map(colours_in, value.values()), set())
    if isinstance(value, list | tuple):
        return set().union(*map(colours_in, value), set())
    return set()


def check_figure(figure, name):
    """Palette with dark counterparts, own template, words, and a layout for phones."""
    used = colours_in(figure.to_plotly_json()) - {"rgba(0,0,0,0)"}
    assert used, name
    assert used <= set(DARK), (name, used - set(DARK))
    assert figure.layout.template.layout.font == TEMPLATE.layout.font, name
    meta = figure.layout.meta["headspec"]
    assert meta["alt"].endswith("."), name
    assert meta["note"].endswith("."), name
    assert "nan" not in meta["alt"].split(), name
    assert figure.layout.title.text, name
    narrow = go.Figure(figure).update_layout(meta["narrow"])
    x_axes = [key for key in narrow.to_plotly_json()["layout"] if re.fullmatch(r"xaxis\d*", key)]
    assert {narrow.layout[key].domain for key in x_axes} == {(0, 1)}, name
