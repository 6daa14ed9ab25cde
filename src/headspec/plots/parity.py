"""What the figures of even against odd heads share: two ways to count, and areas behind curves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.plots.steps import StepAxis


@dataclass(frozen=True)
class Scale:
    """One of the two ways to count: its metrics in the frame, and the words on its panel.

    Attributes:
        strength: metric of even minus odd.
        split: metric of the other splits, one row each.
        rate: pattern of the metrics of conditions, such as `"{}_success"`.
        title: of the panel.
        unit: on its axis.
    """

    strength: str
    split: str
    rate: str
    title: str
    unit: str


SCALES = (
    Scale("strength", "split_strength", "{}_success", "Success", "share of pairs"),
    Scale("graded_strength", "graded_split_strength", "graded_{}", "Graded", "nats"),
)


def as_large(row: pd.Series) -> str:
    """How many splits differ as much as even and odd: "12/462 as large"; empty if unknown."""
    if not {"p", "n_splits"} <= set(row.index) or not np.isfinite(row["p"] * row["n_splits"]):
        return ""
    return f"{row['p'] * row['n_splits']:.0f}/{row['n_splits']:.0f} as large"


def band(
    steps: np.ndarray,
    low: np.ndarray | None,
    high: np.ndarray | None,
    *,
    axis: StepAxis,
    colour: str,
    role: str,
) -> list[go.Scatter]:
    """A filled area between two curves, behind everything; nothing where there are none."""
    if low is None or high is None:
        return []
    x = np.array(axis.place(steps))
    area = go.Scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([low, high[::-1]]),
        fill="toself",
        fillcolor=colour,
        line={"width": 0, "color": colour},
        mode="lines",
        hoverinfo="skip",
        name=role,
        meta=role,
        showlegend=False,
    )
    return [area]
