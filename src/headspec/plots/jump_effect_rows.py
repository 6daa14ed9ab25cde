"""What changes across jumps more than across control steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.plots.conditions import quantity_words
from headspec.plots.jump_rows import number, one_row_each, plain_rows, short_name, with_places
from headspec.plots.null_rows import RowPart, RowWords, draw_rows, null_ends, said_rows

_FIX = "Give the frame of `jump_effects(...)`, one row for each group and metric."
_UNITS = {
    "entropy": ("Attention entropy", "nats"),
    "normalised_entropy": ("Attention entropy over its ceiling", "share"),
    "entropy_range": ("Range of entropies over heads", "nats"),
    "entropy_variance": ("Variance of entropies over heads", "nats²"),
    "validation_loss": ("Validation loss", "nats per image"),
    "largest_class_gain": ("Largest gain of a class", "share right"),
    "inactive_share": ("Units that are off", "share"),
    "treves_rolls": ("Treves-Rolls sparsity", "no unit"),
    "procrustes": ("Procrustes similarity", "no unit"),
    "attention_entropy": ("Attention entropy", "nats"),
    "head_divergence": ("Divergence of heads", "nats"),
    "cka": ("CKA", "no unit"),
    "debiased_cka": ("CKA, debiased", "no unit"),
    "class_accuracy": ("Accuracy of a class", "share right"),
    "accuracy": ("Accuracy", "share right"),
    "loss": ("Loss", "nats"),
    "sparsity": ("Sparsity of activations", "share"),
    "class_selectivity": ("Class selectivity", "share"),
    "gabor_r2": ("Gabor fit", "R²"),
    "filter_similarity": ("Similarity of filters", "cosine"),
    "filter_orthogonality": ("Orthogonality of filters", "share"),
    "weight_change": ("Change of weights", "share of norm"),
}


def effect_words(metric: str) -> tuple[str, str]:
    """Title and unit of what is measured at jumps."""
    if metric in _UNITS:
        return _UNITS[metric]
    title, unit = quantity_words(metric)
    return title, "unit of the metric" if unit == "value" else unit


def plot_jump_effects(
    frame: pd.DataFrame,
    *,
    by: str | Sequence[str] = "model",
    metrics: Sequence[str] | None = None,
) -> go.Figure:
    """Change across jumps less change across matched controls, a panel a quantity.

    Grey, behind: what exchanging jumps and controls gives (`null_mean` and two `null_sd`). A
    point is filled where its interval excludes 0; p and q are in the hover text. Where a row has
    no interval (fewer than three seeds) it is hollow.

    What it does not show: cause; that jump and controls match in anything but phase; and, of
    quantities computed from the same activations as the dimensionality, more than that two
    measures of one network move together.

    Args:
        frame: rows with `metric value`; optional `low high null_mean null_sd p q n` and the
            columns of `by`.
        by: column that names the rows, or several.
        metrics: which, in this order; None: all.

    Returns:
        A figure with a panel a metric; `value` traces hold the effects.

    Raises:
        InputError: missing columns or no rows.

    Example:
        >>> import pandas as pd
        >>> from headspec.plots import plot_jump_effects
        >>> rows = pd.DataFrame({"model": ["cnn", "mlp"], "value": [0.2, 0.0], "metric": "entropy"})
        >>> figure = plot_jump_effects(rows.assign(low=[0.1, -0.1], high=[0.3, 0.1]))
        >>> figure.layout.xaxis.title.text
        'jumps less controls (nats)'
    """
    columns = [by] if isinstance(by, str) else list(by)
    rows = plain_rows(frame, ("metric", "value", *columns), fix=_FIX)
    rows = with_places(rows)
    rows["row"] = [
        " · ".join(short_name(str(each)) for each in row if each is not None and each == each)
        or "all"
        for row in rows[columns].astype(object).itertuples(index=False)
    ]
    names = list(dict.fromkeys(rows["row"]))
    shown = list(dict.fromkeys(rows["metric"].astype(str))) if metrics is None else list(metrics)
    parts = []
    for metric in shown:
        own = rows.loc[rows["metric"] == metric]
        own = one_row_each(own, "row", names, fix="Name all columns that tell rows apart in `by`.")
        clear = (number(own, "low") > 0) | (number(own, "high") < 0)
        parts.append(RowPart(rows=own, labels=names, clear=clear))
    words = RowWords(
        title="Jumps less controls",
        note=_note(rows),
        alt="Points with intervals of changes across jumps less changes across controls. "
        + "; ".join(
            f"{effect_words(m)[0]}: {said_rows(p)}" for m, p in zip(shown, parts, strict=True)
        )
        + ".",
        x_titles=[f"jumps less controls ({effect_words(metric)[1]})" for metric in shown],
        panel_titles=[effect_words(metric)[0] for metric in shown],
        filled="interval excludes 0",
        hollow="interval holds 0, or none",
        null="jumps and controls exchanged: ± 2 sd",
    )
    return draw_rows(parts, words)


def _note(rows: Any) -> str:
    words = "Whiskers: the intervals of the frame, over seeds and moments."
    if not np.isfinite(number(rows, "low")).any():
        words = "Too few seeds: effects have no intervals."
    if np.isfinite(null_ends(rows)[0]).any():
        words += " Grey: jumps and controls exchanged."
    return words + " Panels have axes of their own."
