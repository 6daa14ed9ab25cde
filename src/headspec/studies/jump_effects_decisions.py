"""From p-values and intervals of effects to decisions: there, absent or open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from headspec.stats import false_discovery_rate
from headspec.studies.topic_outcomes import holm_adjusted

Decision = Literal["there", "absent", "open", "no moments"]
_AGREEING = 0.75
LEAST_SEEDS = 3
"""Below so many seeds there is no interval, and nothing is decided."""


def correct_effects(found: list[dict[str, Any]], *, holm: bool) -> None:
    """Add q, and take away the interval where there are too few seeds for one."""
    p = np.array([each["p"] for each in found], dtype=float)
    q = holm_adjusted(p) if holm else false_discovery_rate(p)
    for each, adjusted in zip(found, q, strict=True):
        each["q"] = float(adjusted)
        if each["n_seeds"] < LEAST_SEEDS:
            names = [f"{which}{end}" for which in ("", "unadjusted_") for end in ("low", "high")]
            each |= dict.fromkeys(names, np.nan)


def decide_effect(effect: Mapping[str, Any], *, alpha: float) -> Decision:
    """Whether an effect is there, absent or open, by the rule in `jump_effects`.

    Args:
        effect: a row of `jump_effects`.
        alpha: level for `q`.
    """
    if effect["n"] == 0:
        return "no moments"
    if effect["n_seeds"] < LEAST_SEEDS:
        return "open"
    sides = {1: (1,), -1: (-1,), 0: (1, -1)}[effect["expected"]]
    nearest = max(effect["low"], -effect["high"])  # above 0: the interval leaves it out
    if effect["q"] <= alpha:
        agree = effect["n_agree"] >= _AGREEING * effect["n_seeds"]
        return "there" if agree and nearest > 0 else "open"
    ends = [
        effect[f"{which}high"] if side > 0 else -effect[f"{which}low"]
        for which in ("", "unadjusted_")
        for side in sides
    ]
    return "absent" if max(ends) < effect["unit"] else "open"
