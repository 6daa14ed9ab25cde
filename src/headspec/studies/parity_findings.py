"""The parity study's findings in plain sentences, beside what they look like without the null."""

from __future__ import annotations

import pandas as pd

from headspec.heads import Head
from headspec.series.transitions import Transition, find_transition
from headspec.studies.parity_emergence import (
    LEAST_EFFECT,
    ParityEmergence,
    Strength,
    parity_rows,
)

_PATTERNS: dict[Strength, str] = {"strength": "{}_success", "graded_strength": "graded_{}"}


def amount(value: float, metric: Strength, *, signed: bool = True) -> str:
    """A difference with its unit: percentage points of success, or nats."""
    sign = "+" if signed else ""
    if metric == "strength":
        return f"{100 * value:{sign}.0f} points"
    return f"{value:{sign}.2g} nats"


def describe_parity(found: ParityEmergence, frame: pd.DataFrame) -> str:
    """Sentences on the last step of a layer: even, odd, the other splits, and since when.

    Args:
        found: of `find_parity_emergence`.
        frame: the sweep.
    """
    pattern = _PATTERNS[found.metric]
    last = {
        name: parity_rows(frame, found.layer, pattern.format(name)).iloc[-1]
        for name in ("even", "odd", "base", "full")
    }
    noise = found.direction == "noise"
    doing = "corrupting" if noise else "restoring"
    rates = {name: _rate(row["value"], found.metric) for name, row in last.items()}
    sentence = f"Layer {found.layer}, last step: "
    if found.metric == "strength":
        sentence += f"{doing} even heads gives the clean answer in {rates['even']} of pairs, "
    else:
        sentence += f"{doing} even heads gives the clean answer log-odds of {rates['even']}, "
    sentence += (
        f"odd heads {rates['odd']}, all heads {rates['full']}, none {rates['base']}. "
        f"Even minus odd is {amount(found.value, found.metric)}; "
    )
    if found.strongest < LEAST_EFFECT:
        least = amount(LEAST_EFFECT, found.metric, signed=False)
        return sentence + f"no split of the heads reaches {least}: nothing to divide."
    sentence += f"{_percent(found.p)} of all splits into halves differ as much or more "
    sentence += f"(q = {found.q:.2g}): "
    if found.lasting_step is not None:
        sentence += f"{found.more} heads stand out from step {found.lasting_step} on."
    elif found.n_significant:
        many = f"{found.n_significant} of {found.n_steps} steps"
        sentence += f"they stand out at {many}, but not up to the last."
    else:
        sentence += f"nothing special, at this step or any of {found.n_steps}."
    return sentence + _one_head(found, frame, int(last["even"]["step"]), noise=noise)


def _rate(value: float, metric: Strength) -> str:
    return f"{value:.0%}" if metric == "strength" else f"{value:+.2g} nats"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share in (0, 1) or 0.1 <= share <= 0.99 else f"{share:.1%}"


def _one_head(found: ParityEmergence, frame: pd.DataFrame, step: int, *, noise: bool) -> str:
    """A sentence on the head that makes most of the difference, where one makes half or more."""
    pattern = _PATTERNS[found.metric]
    here = (frame["step"] == step) & (frame["layer"] == found.layer)
    heads = frame.loc[here & (frame["metric"] == pattern.format("head"))]
    sizes = heads["value"].abs().to_numpy(float)
    if not len(sizes) or sizes.max() < found.strongest / 2:
        return ""
    row = heads.iloc[int(sizes.argmax())]
    name, much = Head(found.layer, int(row["head"])), abs(row["value"])
    more = "more" if row["value"] > 0 else "less"
    does = "restore" if not noise else "leave, when corrupted,"
    return (
        f" One head makes most of any difference: halves with {name} {does} "
        f"{amount(much, found.metric, signed=False)} {more} than those without it."
    )


def read_without_null(
    frame: pd.DataFrame, *, layer: int, n_null: int = 2000, seed: int = 0
) -> tuple[str, Transition]:
    """What the study's own reading, even minus odd by itself, would say of a layer.

    Args:
        frame: the sweep.
        layer: which layer.
        n_null, seed: of `find_transition`.

    Returns:
        A sentence, and the window of largest change of the strength.
    """
    rows = parity_rows(frame, layer, "strength")
    change = find_transition(rows, "strength", n_null=n_null, seed=seed)
    last = rows.iloc[-1]
    more = "even" if last["value"] > 0 else "odd" if last["value"] < 0 else "neither even nor odd"
    kind = {"none": f"not clear, {change.reason}"}.get(change.kind, change.kind)
    return (
        f"Layer {layer} as the study reads it, without other splits: {more} heads ahead by "
        f"{amount(abs(last['value']), 'strength', signed=False)} at the last step, the largest "
        f"change ({amount(change.size, 'strength')}) at steps {change.step_before} to "
        f"{change.step_after}: {kind}."
    ), change
