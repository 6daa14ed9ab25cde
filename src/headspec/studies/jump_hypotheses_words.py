"""The numbers behind the verdicts on jumps, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_NAMES = {
    "normalised_entropy": "attention entropy (share of its maximum)",
    "head_divergence": "divergence of heads (nats)",
    "filter_orthogonality": "orthogonality of filters",
    "gabor_r2": "R^2 of Gabor fits",
    "validation_loss": "validation loss (nats)",
    "accuracy": "accuracy",
    "largest_class_gain": "gain of the class that gains most",
}


def effect_words(effect: Mapping[str, Any]) -> str:
    """An effect with its interval, null, q and what it rests on.

    Args:
        effect: a row of `jump_effects`.
    """
    name: str = _NAMES.get(effect["metric"], str(effect["metric"]))
    name = name[:1].upper() + name[1:]
    n = int(effect["n"])
    if not n:
        left = int(effect.get("n_left_out", 0))
        why = f"none of {left} jumps has a control" if left else "no jump"
        return f"{name}: {why} to compare."
    low, high = (effect.get(end, np.nan) for end in ("low", "high"))
    interval = "no interval" if np.isnan(low) else f"{low:+.3g} to {high:+.3g}"
    return (
        f"{name} {effect['value']:+.3g} [{interval}] at jumps beyond controls "
        f"(labels exchanged: sd {effect['null_sd']:.2g}; q = {effect['q']:.2g}; "
        f"{_count(n, 'jump')}, {_count(int(effect['n_seeds']), 'seed')}): {effect['decision']}."
    )


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}"


def join_effects(effects: Sequence[Mapping[str, Any]]) -> str:
    """Effects one after the other, or that there was nothing to compare."""
    if not effects:
        return "Nothing was measured at jumps of it."
    return " ".join(effect_words(each) for each in effects)


def count_words(rates: Any, model: str) -> str:
    """How many jumps an architecture has in how many points."""
    rows = rates.loc[rates["model"] == model]
    if not len(rows):
        return f"No curve of a {model} was examined."
    n, points = int(rows["n_jumps"].sum()), int(rows["n"].sum())
    return f"{n} jumps in {points} measured points of the {model}."


def rate_words(found: Mapping[str, Any]) -> str:
    """The comparison of two architectures' rates."""
    if np.isnan(found["value"]):
        return "There are no runs of both a CNN and an MLP to compare."
    return (
        f"CNN {found['more']:.2f}, MLP {found['fewer']:.2f} jumps per 1,000 points: difference "
        f"{found['value']:+.2f} [{found['low']:+.2f} to {found['high']:+.2f}], runs exchanged: sd "
        f"{found['null_sd']:.2f}, p = {found['p']:.2g} (at least {found['least_p']:.2g} "
        f"with {found['n']} runs)."
    )


def share_words(found: Mapping[str, Any], early: float) -> str:
    """The share of early jumps beside chance."""
    if not found["n"]:
        return "No jumps were detected: none is early."
    return (
        f"{found['value']:.0%} [{found['low']:.0%} to {found['high']:.0%}] of the jumps lie in the "
        f"first {early:.0%} of training (mean of {found['n_runs']} runs, {found['n']} jumps); "
        f"moved along training {found['null_mean']:.0%} (sd {found['null_sd']:.0%}), "
        f"p = {found['p']:.2g}."
    )
