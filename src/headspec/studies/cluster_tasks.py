"""The study's four test families, and whether a model can do them at all."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from jaxtyping import Int
from scipy.stats import binomtest
from torch import Tensor

from headspec.errors import InputError
from headspec.interventions.ablation import ablate_heads
from headspec.interventions.effects import HeadEffects
from headspec.interventions.replay import Replay
from headspec.tasks.families import Family, Wording, build_task
from headspec.tasks.prompts import Task
from headspec.tasks.tokenised import TokenisedTask

MICRO_FAMILIES: dict[str, Family] = {
    "numerical comparison": "decimal_comparison",
    "basic arithmetic": "arithmetic",
    "language": "cloze",
    "pattern completion": "repeated_tokens",
}
"""The study's families as the embedded suite was trained on them."""

FAMILIES: dict[str, Family] = {
    "numerical comparison": "decimal_comparison",
    "basic arithmetic": "arithmetic",
    "language": "agreement",
    "pattern completion": "pattern_completion",
}
"""The study's families for any other model."""


def build_families(*, embedded: bool, n: int = 60, seed: int = 0) -> dict[str, Task]:
    """The study's four families of test prompts, each with clean and corrupt runs.

    The study had one or a few prompts of each, such as "9.8 or 9.11"; here `n` counts distinct
    pairs of prompts of each family.

    Args:
        embedded: in the formats that the embedded suite was trained on (`wording="micro"`).
        n: pairs in each family.
        seed: of the draws.

    Returns:
        Name of the family -> task.
    """
    families = MICRO_FAMILIES if embedded else FAMILIES
    wording: Wording = "micro" if embedded else "plain"
    return {
        name: build_task(family, n=n, wording=wording, seed=seed)
        for name, family in families.items()
    }


def tokenise_families(tasks: Mapping[str, Task], tokenizer: Any) -> dict[str, TokenisedTask]:
    """Each task as token ids of a model's tokenizer; pairs that it breaks are left out.

    A family of which no pair is left whole is left out with a warning that says why.

    Raises:
        InputError: when no family is left.
    """
    found: dict[str, TokenisedTask] = {}
    broken: dict[str, InputError] = {}
    for name, task in tasks.items():
        try:
            found[name] = task.tokenise(tokenizer)
        except InputError as error:
            broken[name] = error
    if not found:
        raise next(iter(broken.values()))
    for name, error in broken.items():
        warnings.warn(f"Without {name}: {error}", stacklevel=2)
    return found


def prompts_of(task: TokenisedTask) -> tuple[Int[Tensor, "row pos"], Int[Tensor, "row pos"] | None]:
    """Clean prompts up to the token before the answers part, one row an example, and their mask.

    A task whose answers have several tokens holds each prompt twice; a divergence of next-token
    distributions needs it once.
    """
    rows = slice(None, None, task.rows_per_example)
    tokens = task.clean[rows, : task.end + 1]
    mask = task.clean_mask[rows, : task.end + 1]
    return tokens, None if bool(mask.all()) else mask


@torch.no_grad()
def measure_abilities(
    model: Any, tasks: Mapping[str, TokenisedTask], *, alpha: float = 0.05
) -> pd.DataFrame:
    """Whether a model can do the tasks: a task it cannot do tells nothing of specialisation.

    Args:
        model: a hooked model.
        tasks: by name.
        alpha: error rate at which a preference counts as better than a coin.

    Returns:
        One row a task: `task`, `n` pairs, `preference` (share of pairs whose correct answer is
        more probable than the wrong one), `accuracy` (greedy decoding gives it),
        `log_prob_difference` (nats, mean), `p` (binomial, against a half) and `can`.
    """
    rows = []
    for name, task in tasks.items():
        replay = Replay(model, task.clean, attention_mask=_mask(task))
        found = {
            kind: replay.base(task.metric(kind))
            for kind in ("preference", "accuracy", "log_prob_difference")
        }
        right = int((found["preference"] > 0.5).sum())
        p = float(binomtest(right, task.n_examples, alternative="greater").pvalue)
        means = {kind: float(values.mean()) for kind, values in found.items()}
        rows.append({"task": name, "n": task.n_examples, **means, "p": p, "can": p <= alpha})
    return pd.DataFrame(rows)


def ablate_on_tasks(model: Any, tasks: Mapping[str, TokenisedTask]) -> dict[str, HeadEffects]:
    """Every head ablated alone, by its mean over the task's tokens, on every task.

    What it does not show: what a group does. Heads that stand in for each other are all pale here.

    Args:
        model: a hooked model.
        tasks: by name.

    Returns:
        Name of the task -> effects on the log-probability difference of the answers.
    """
    return {
        name: ablate_heads(
            model,
            task.clean,
            task.metric(),
            counted=task.is_token,
            attention_mask=_mask(task),
        )
        for name, task in tasks.items()
    }


def _mask(task: TokenisedTask) -> Tensor | None:
    return None if bool(task.clean_mask.all()) else task.clean_mask
