"""What the figures of effects show, and how they say it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headspec.errors import InputError
from headspec.interventions.effects import HeadEffects

_MODES = {
    "denoise": "patched in from the clean run",
    "noise": "patched in from the corrupt run",
    "zero": "set to zero",
    "mean": "set to their mean",
    "resample": "taken from other prompts",
}


@dataclass(frozen=True)
class EffectNumbers:
    """Effects of rows with the ends of their intervals, and the words that go with them.

    Attributes:
        values, low, high: one number a row; nan where there is no interval.
        level: nominal coverage of the intervals.
        unit: short, for hovering.
        axis: what an axis or colour bar shows, with its unit.
        title: of the figure.
        note: what was done, on how many examples.
    """

    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    level: float
    unit: str
    axis: str
    title: str
    note: str


def effect_numbers(
    effects: HeadEffects, *, normalized: bool, title: str | None = None
) -> EffectNumbers:
    """Effects in the metric's unit, or as shares of the gap between two runs.

    Raises:
        InputError: normalised, without a pair of prompts or a clear gap between its runs.
    """
    metric = effects.metric.replace("log_prob_", "log-probability_").replace("_", " ")
    if normalized and not effects.gap_is_clear:
        raise InputError(
            expected="effects on pairs of prompts whose runs differ clearly in the metric",
            got="no pair of prompts" if effects.target is None else "a gap that may be 0",
            fix="Leave normalized=False: effects in the metric's own unit.",
        )
    found = effects.normalized_intervals if normalized else effects.intervals
    unit = "of the gap" if normalized else effects.unit
    of = f"{metric}, share of the gap" if normalized else metric
    step = "" if effects.step is None else f", step {effects.step}"
    whose = f" · {effects.model}{step}" if effects.model else ""
    return EffectNumbers(
        values=found.means,
        low=found.low,
        high=found.high,
        level=found.level,
        unit=unit,
        axis=f"change of {of} ({'no unit' if normalized or not unit else unit})",
        title=f"{title or f'Effect on {metric}'}{whose}",
        note=f"{effects.site} {_MODES.get(effects.mode, f'({effects.mode})')}; mean over "
        f"{effects.n} distinct examples; {metric} of the base run {effects.base.mean():.3g}"
        f"{f' {effects.unit}' if effects.unit else ''}.",
    )


def said_of(effects: HeadEffects, numbers: EffectNumbers, *, most: int = 3) -> str:
    """The largest effects in words, for those who do not see the figure."""
    names = effects.row_names()
    order = np.argsort(-np.abs(np.nan_to_num(numbers.values)), kind="stable")[:most]
    largest = [f"{names[row]} {numbers.values[row]:+.3g}" for row in order]
    clear = int(((numbers.low > 0) | (numbers.high < 0)).sum())
    return (
        f"{numbers.axis.capitalize()}, {len(names)} interventions. Largest: {', '.join(largest)}. "
        f"{clear} intervals exclude 0."
    )
