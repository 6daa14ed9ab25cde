"""Even against odd heads at a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from headspec.checkpoints.checkpoint import Checkpoint
from headspec.errors import InputError
from headspec.heads import layer_heads
from headspec.interventions.parity import Direction, parity_test
from headspec.interventions.parity_result import ParityTest
from headspec.interventions.patching import patch_heads
from headspec.results import tidy
from headspec.tasks.families import Family, Wording, build_task
from headspec.tasks.tokenised import Answers, TokenisedTask


@dataclass(frozen=True)
class ParityMeasure:
    """Even against odd heads of some layers, and against every other split, on one task.

    Attributes:
        layers: which layers; None: the middle one, `n_layers // 2` (the study's layer 6 of 12).
        task, wording, n_pairs, seed: as in `build_task`: family, prompt format, number of prompt
            pairs, seed of their draw (and of sampled splits and intervals over pairs).
        answers: of `Task.tokenise`: answers are compared at the first token where they part, which
            takes one row a pair, or as a `"whole"`, which takes two and favours short answers.
        splits, success, direction, memory_budget: of `parity_test` (`success` is its `metric`).

    Called with a checkpoint it gives a tidy frame: the rows of `ParityTest.to_frame` for each
    layer, where `strength` and `graded_strength` also have `strongest`, the largest difference of
    any split; `half_success` and `graded_half`, the mean over every set of half the heads with
    quantiles `null_q05`, `null_q95` and ends `null_low`, `null_high`; `head_success` and
    `graded_head` of each head, the mean over halves that hold it minus that over the others (one
    head that does everything makes every split a difference); and, one row a split,
    `split_strength` and `graded_split_strength`, signed for the half in `heads`.

    Example:
        >>> import headspec as hs
        >>> measure = hs.ParityMeasure(layers=(2,), wording="micro", n_pairs=20)
        >>> frame = measure(hs.open_suite("micro").checkpoint(6144))      # doctest: +SKIP
    """

    layers: tuple[int, ...] | None = None
    task: Family = "decimal_comparison"
    wording: Wording = "plain"
    n_pairs: int = 100
    seed: int = 0
    splits: Literal["exact"] | int = "exact"
    answers: Answers = "first_token"
    success: Literal["preference", "accuracy"] = "preference"
    direction: Direction = "denoise"
    memory_budget: int = 2**29

    def __post_init__(self) -> None:
        if self.layers is not None and not (
            isinstance(self.layers, tuple) and len(set(self.layers)) == len(self.layers) > 0
        ):
            raise InputError(
                expected="layers as a tuple of different numbers, or None for the middle one",
                got=f"layers={self.layers!r}",
                fix="For one layer: layers=(6,).",
            )

    def __call__(self, checkpoint: Checkpoint) -> pd.DataFrame:
        model = checkpoint.model()
        task = self._tokenised(model)
        layers = (checkpoint.n_layers // 2,) if self.layers is None else self.layers
        parts = []
        for layer in layers:
            found = parity_test(
                model,
                task,
                layer=layer,
                splits=self.splits,
                metric=self.success,
                direction=self.direction,
                seed=self.seed,
                memory_budget=self.memory_budget,
            )
            parts += [make(found) for make in (with_strongest, half_rows, head_rows, split_rows)]
        return pd.concat(parts, ignore_index=True)

    def effective_layer(self, checkpoint: Checkpoint) -> int:
        """The layer whose heads, restored all together, restore most of the clean answer.

        Measured in nats. The study chose a layer "known effective for the final model": asked of
        the last step, this names one.
        """
        model = checkpoint.model()
        task = self._tokenised(model)
        effects = patch_heads(
            model,
            task.clean,
            task.corrupt,
            task.metric(),
            heads=[
                layer_heads(layer, n_heads=checkpoint.n_heads)
                for layer in range(checkpoint.n_layers)
            ],
            attention_mask=task.attention_mask,
            memory_budget=self.memory_budget,
        )
        return int(np.argmax(effects.effect))

    def _tokenised(self, model: Any) -> TokenisedTask:
        task = build_task(self.task, n=self.n_pairs, wording=self.wording, seed=self.seed)
        return task.tokenise(model.tokenizer, answers=self.answers)


def with_strongest(found: ParityTest) -> pd.DataFrame:
    """The frame of a parity test, with the largest difference of any split beside the strength."""
    frame = found.to_frame()
    strongest = pd.Series(np.nan, index=frame.index)
    strongest[frame["metric"] == "strength"] = np.abs(found.null).max()
    strongest[frame["metric"] == "graded_strength"] = np.abs(found.graded_null).max()
    return frame.assign(strongest=strongest)


def half_rows(found: ParityTest) -> pd.DataFrame:
    """What restoring any half of the heads gives: the mean over all sets, and its spread."""
    rows = []
    for name, one in (("half_success", found.success), ("graded_half", found.graded)):
        low, q05, q95, high = np.quantile(one.set_means, [0, 0.05, 0.95, 1])
        spread = {"null_low": low, "null_q05": q05, "null_q95": q95, "null_high": high}
        rows.append({"metric": name, "value": one.set_means.mean(), "unit": one.unit} | spread)
    return _tidy(rows, found)


def head_rows(found: ParityTest) -> pd.DataFrame:
    """What each head adds: the mean over sets that hold it minus the mean over the others."""
    holds = (found.sets[:, :, None] == np.arange(found.n_heads)).any(axis=1)
    parts = [
        pd.DataFrame(
            {
                "metric": name,
                "head": np.arange(found.n_heads),
                "value": (holds.T @ one.null) / holds.sum(axis=0),
                "unit": one.unit,
            }
        )
        for name, one in (("head_success", found.success), ("graded_head", found.graded))
    ]
    return _tidy(pd.concat(parts, ignore_index=True), found)


def split_rows(found: ParityTest) -> pd.DataFrame:
    """The strength of every split, once, even against odd first."""
    n = len(found.sets) // 2
    heads = [" ".join(map(str, half)) for half in found.sets[:n].tolist()]
    parts = [
        pd.DataFrame({"metric": name, "value": null[:n], "heads": heads})
        for name, null in (
            ("split_strength", found.null),
            ("graded_split_strength", found.graded_null),
        )
    ]
    return _tidy(pd.concat(parts, ignore_index=True), found)


def _tidy(rows: pd.DataFrame | list[dict], found: ParityTest) -> pd.DataFrame:
    return tidy(
        rows,
        model=found.model,
        step=found.step,
        layer=found.layer,
        n=found.n,
        seed=found.seed,
        task=found.task,
    )
