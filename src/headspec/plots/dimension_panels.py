"""Which rows of a dimensionality frame go to which panel, and which jumps to which curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd

from headspec.errors import InputError
from headspec.plots.jump_rows import Rows, count, in_order, plain_rows, short_name, with_places
from headspec.plots.jump_steps import check_directions

By = Literal["layer", "model"]


def chosen_layers(rows: Any, layers: Sequence[str] | None) -> Any:
    """The rows of these layers.

    Raises:
        InputError: for layers that are not there, or none.
    """
    if layers is None:
        return rows
    have = in_order(rows)
    if missing := [name for name in layers if name not in have] or not len(layers):
        raise InputError(
            expected=f"layers out of {', '.join(have)}", got=f"{missing}", fix="Name these."
        )
    return rows.loc[rows["layer_name"].isin(list(layers))]


def panel_groups(rows: Any, *, by: By) -> list[tuple[str, Any]]:
    """Title and rows of each panel."""
    found = []
    for model, part in rows.groupby("model", sort=False):
        whose_panel = f"{model} · " if len(set(rows["model"])) > 1 else ""
        if by == "model":
            layers = count(part["layer_name"].nunique(), "layer")
            found.append((f"{model or 'model'}: {layers}", part))
            continue
        for name in in_order(part):
            found.append((whose_panel + short_name(name), part.loc[part["layer_name"] == name]))
    return found


def jumps_of(jumps: Rows | None, metric: str, rows: Any) -> Any:
    """Jumps of this metric in these layers."""
    if jumps is None:
        return with_places(pd.DataFrame({"step": [], "direction": []}))
    fix = "Give `detect_jumps(...)` of the same frame."
    found = plain_rows(jumps, ("step", "direction"), fix=fix, may_be_empty=True)
    if "metric" in found.columns:
        found = found.loc[found["metric"].astype(str) == metric]
    found = with_places(found)
    check_directions(found["direction"] if len(found) else [])
    return found.loc[found["layer_name"].isin(rows["layer_name"])]
