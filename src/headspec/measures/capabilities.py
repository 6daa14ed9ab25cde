"""What a checkpoint can do, measured by tasks, texts and minimal pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from headspec.checkpoints.suite import Checkpoint
from headspec.errors import InputError
from headspec.tasks.minimal_pairs import MinimalPairs
from headspec.tasks.pair_scores import score_minimal_pairs
from headspec.tasks.prompts import Task
from headspec.tasks.task_scores import Contrast, score_task
from headspec.tasks.text_losses import Texts, perplexity


@dataclass(frozen=True)
class CapabilityMeasure:
    """Capabilities of a checkpoint, thresholded and continuous, with standard errors.

    Attributes:
        tasks: scored by `score_task`.
        texts: name -> texts or rows of token ids, scored by `perplexity`.
        minimal_pairs: scored by `score_minimal_pairs`.
        contrast: of `score_task`.
        window, stride: of `perplexity`.
        memory_budget: of all.

    Called with a checkpoint it gives a tidy frame with the columns of every capability frame:
    `metric` = `"{task}.{measure}"`, `task`, `measure`, `se`, `shots`, `chance` and further. A sweep
    of it is a capability table as `load_pythia_evals` reads one.

    Example:
        >>> import headspec as hs
        >>> task = hs.build_task("decimal_comparison", n=20, wording="micro")
        >>> measure = hs.CapabilityMeasure(tasks=(task,))
        >>> frame = hs.sweep(hs.open_suite("micro"), measure, progress=False)   # doctest: +SKIP
    """

    tasks: tuple[Task, ...] = ()
    texts: Mapping[str, Texts] = field(default_factory=dict)
    minimal_pairs: tuple[MinimalPairs, ...] = ()
    contrast: Contrast = "first_token"
    window: int | None = None
    stride: int | None = None
    memory_budget: int = 2**28

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        names += [*self.texts, *(pairs.name for pairs in self.minimal_pairs)]
        if not names or len(set(names)) < len(names):
            raise InputError(
                expected="tasks, texts or minimal pairs, each with a name of its own",
                got=f"{names}",
                fix="Tasks of one family with other wordings need names: Task(name, pairs).",
            )

    def __call__(self, checkpoint: Checkpoint) -> pd.DataFrame:
        model, budget = checkpoint.model(), self.memory_budget
        parts = [
            score_task(model, task, contrast=self.contrast, memory_budget=budget)
            for task in self.tasks
        ]
        parts += [
            perplexity(
                model,
                texts,
                name=name,
                window=self.window,
                stride=self.stride,
                memory_budget=budget,
            )
            for name, texts in self.texts.items()
        ]
        parts += [
            score_minimal_pairs(model, pairs, memory_budget=budget) for pairs in self.minimal_pairs
        ]
        frames = [part.to_frame() for part in parts]
        return pd.concat(frames, ignore_index=True).assign(
            model=checkpoint.suite.name, step=checkpoint.step
        )
