"""Training steps and jumps on panels: a linear or logarithmic axis, triangles by direction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import plotly.graph_objects as go

from headspec.errors import InputError, check_choice
from headspec.plots.palette import INK, OKABE_ITO
from headspec.plots.steps import StepAxis

StepScale = Literal["linear", "log"]

DIRECTIONS = {
    "increase": ("triangle-up", OKABE_ITO[1]),
    "decrease": ("triangle-down", OKABE_ITO[0]),
}
"""Direction of a jump to its symbol and colour."""


class LinearSteps:
    """A linear axis over steps, with what `StepAxis` offers.

    Args:
        steps: every step of the figure, at least one.

    Raises:
        InputError: without steps.
    """

    title = "training step (updates)"

    def __init__(self, steps: Iterable[Any]) -> None:
        self.steps = sorted({float(step) for step in steps})
        if not self.steps:
            raise InputError(
                expected="training steps", got="none", fix="Give a frame with a `step` column."
            )
        low, high = self.steps[0], self.steps[-1]
        pad = 0.02 * (high - low) or 1.0
        self.range = (low - pad, high + pad)

    def place(self, steps: Iterable[Any]) -> list[float]:
        """Where steps stand on the axis: at themselves."""
        return [float(step) for step in steps]

    def layout(self) -> dict:
        """The axis as a plotly layout part."""
        return {"range": list(self.range), "nticks": 6, "tickformat": "~s"}


def step_axis(steps: Iterable[Any], scale: StepScale) -> StepAxis | LinearSteps:
    """The axis of steps on the scale of one's choice."""
    check_choice("scale", scale, get_args(StepScale))
    return StepAxis([int(step) for step in steps]) if scale == "log" else LinearSteps(steps)


def jump_marker(direction: str, *, size: float | int | Sequence[Any] = 9, colour: str = "") -> dict:
    """The mark of a jump: a triangle that points where the curve went."""
    symbol, own = DIRECTIONS[direction]
    return {
        "symbol": symbol,
        "size": size if isinstance(size, int | float) else list(size),
        "color": colour or own,
        "line": {"color": INK, "width": 0.6},
    }


def marks_above(
    jumps: Any, axis: StepAxis | LinearSteps, *, at: float | int, words: Sequence[str]
) -> list[go.Scatter]:
    """Jumps in a row above the curves of a panel, a trace a direction.

    Args:
        jumps: rows with `step` and `direction`.
        axis: of the steps.
        at: height of the row on the y axis.
        words: what is said of each jump beside its direction and step.
    """
    return [
        go.Scatter(
            x=axis.place(part["step"]),
            y=np.full(len(part), at),
            customdata=part["step"].to_numpy(float),
            text=part["words"].tolist(),
            mode="markers",
            marker=jump_marker(str(direction), size=8),
            hovertemplate=f"jump: {direction}%{{text}}<br>step %{{customdata:,.0f}}<extra></extra>",
            name=f"jump: {direction}",
            meta="jump",
            showlegend=False,
        )
        for direction, part in jumps.assign(words=list(words)).groupby("direction", sort=False)
    ]


def direction_entries(directions: Iterable[str], *, colour: str = "") -> list[go.Scatter]:
    """Legend entries of the directions that a figure has."""
    found = set(directions)
    return [
        go.Scatter(
            x=[None],
            y=[None],
            mode="markers",
            marker=jump_marker(direction, colour=colour),
            name=f"jump: {direction}",
            meta="legend",
        )
        for direction in DIRECTIONS
        if direction in found
    ]


def check_directions(directions: Iterable[Any]) -> None:
    """Raise for a direction that has no symbol.

    Raises:
        InputError: for anything but "increase" and "decrease".
    """
    odd = sorted({str(each) for each in directions} - set(DIRECTIONS))
    if odd:
        raise InputError(
            expected='directions "increase" and "decrease"',
            got=f"{odd}",
            fix="Give the frame of `detect_jumps(...)`.",
        )


def areas(
    values: np.ndarray, largest: float | int, *, least: float | int = 5, most: float | int = 20
) -> np.ndarray:
    """Sizes in pixels whose areas grow with the values."""
    share = np.clip(np.nan_to_num(values) / (largest or 1.0), 0, 1)
    return np.sqrt(least**2 + share * (most**2 - least**2))
