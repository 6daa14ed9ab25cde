"""How well a model does a task: right or wrong, and by how much, on the same prompts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from headspec.errors import check_choice
from headspec.lens.hooks import run_logits
from headspec.lens.processing import origin_of
from headspec.results.capability_rows import capability_rows
from headspec.tasks.answer_metrics import AnswerAccuracy, AnswerScore
from headspec.tasks.prompts import Task
from headspec.tasks.scored_tokens import mean_and_error, without_rounding
from headspec.tasks.tokenised import TokenisedTask

Contrast = Literal["first_token", "whole"]
"""Where two answers are compared."""

_CHANCE = {"accuracy": 0.0, "preference": 0.5, "log_prob_difference": 0.0, "log_prob": np.nan}


@dataclass(frozen=True, eq=False)
class TaskScores:
    """Scores of every prompt of a task, and their means with standard errors over prompts.

    Attributes:
        task: its name.
        accuracy: 1 where every token of the correct answer is the most probable one, else 0.
        preference: 1 where the correct answer is more probable than the wrong one, 1/2 where they
            tie, else 0. Thresholded; the difference is its continuous partner.
        log_prob_difference: log p(correct) - log p(wrong), nats, at the token where the two part,
            or of whole answers (`contrast`), where less than float32 rounding is 0.
        log_prob: log p(correct), nats for the whole answer. The continuous partner of accuracy.
        contrast: as asked for.
        n_left_out: prompt pairs that the tokenizer breaks.
        model, step, processing: of the model.
    """

    task: str
    accuracy: Float[np.ndarray, " example"]
    preference: Float[np.ndarray, " example"]
    log_prob_difference: Float[np.ndarray, " example"]
    log_prob: Float[np.ndarray, " example"]
    contrast: Contrast
    n_left_out: int
    model: str
    step: int | None
    processing: str

    @property
    def n(self) -> int:
        """Distinct prompts."""
        return len(self.accuracy)

    def to_frame(self) -> pd.DataFrame:
        """Tidy rows `{task}.accuracy`, `.preference`, `.log_prob_difference`, `.log_prob`.

        With the columns of every capability frame: `task measure se shots chance` and further. Of
        a log-probability chance is unknown; of a difference it is 0.
        """
        rows = []
        for measure, chance in _CHANCE.items():
            value, se = mean_and_error(getattr(self, measure))
            rows.append({"measure": measure, "value": value, "se": se, "chance": chance})
        return capability_rows(
            [{"task": self.task, **row} for row in rows],
            model=self.model or None,
            step=self.step,
            n=self.n,
            shots=0,
            processing=self.processing,
        )

    def summary(self) -> str:
        """One or two plain sentences."""
        parts = {name: mean_and_error(getattr(self, name)) for name in _CHANCE}
        listed = ", ".join(
            f"{name.replace('_', ' ')} {value:.3g} ± {se:.2g}"
            for name, (value, se) in parts.items()
        )
        left = f"; {self.n_left_out} pairs left out" if self.n_left_out else ""
        return f"{self.task}: {listed} (means and standard errors over {self.n} prompts{left})."


@torch.no_grad()
def score_task(
    model: Any,
    task: Task | TokenisedTask,
    *,
    contrast: Contrast = "first_token",
    memory_budget: int = 2**28,
) -> TaskScores:
    """Score the clean prompts of a task by the log-probabilities of their answers.

    One forward pass a batch gives the thresholded and the continuous measures of the same
    prompts; an emergence that only the former shows may be the threshold's
    (`compare_emergence`).

    Args:
        model: a hooked model of either class; left as it is.
        task: a task, tokenised here with the model's tokenizer, or one tokenised before.
        contrast: where the two answers are compared: at the `"first_token"` where they part, or
            as a `"whole"`, which adds up all tokens and so prefers the shorter answer: asked for
            the bigger of 9.8 and 9.11, an untrained model of the embedded suite then "prefers"
            9.8 on every prompt. Accuracy and `log_prob` are always of the whole answer.
        memory_budget: bytes for the logits of a batch and their normalisation.

    Returns:
        `TaskScores`.

    Raises:
        InputError: another contrast, or the tokenizer breaks every pair of the task.

    What it does not show: standard errors are over the prompts of this task, drawn from a few
    templates: another wording is another task. A preference says nothing of third answers.

    Example:
        >>> model = hs.open_suite("micro").model(6144)                          # doctest: +SKIP
        >>> task = hs.build_task("decimal_comparison", n=100, wording="micro")  # doctest: +SKIP
        >>> print(hs.score_task(model, task).summary())                         # doctest: +SKIP
    """
    check_choice("contrast", contrast, get_args(Contrast))
    if isinstance(task, Task):
        task = task.tokenise(model.tokenizer, n_ctx=model.cfg.n_ctx)
    whole = contrast == "whole" or task.rows_per_example == 1
    difference = task.metric("log_prob_difference") if whole else _parting(task)
    metrics = [difference, task.metric("accuracy"), task.metric("loss")]
    per_row = 8 * model.cfg.d_vocab * task.clean.shape[1]
    size = max(1, memory_budget // (per_row * task.rows_per_example)) * task.rows_per_example
    masked = not bool(task.clean_mask.all())
    found: list[list[np.ndarray]] = []
    for start in range(0, len(task.clean), size):
        rows = slice(start, start + size)
        tokens = task.clean[rows].to(model.cfg.device)
        mask = task.clean_mask[rows].to(model.cfg.device) if masked else None
        logits = run_logits(model, tokens, attention_mask=mask)
        parts = [_of_rows(metric, rows) for metric in metrics]
        values = [metric(metric.read(tokens).take(logits)) for metric in parts]
        found.append([value.double().cpu().numpy() for value in values])
    differences, accuracy, loss = (np.concatenate(column) for column in zip(*found, strict=True))
    if whole:
        differences = without_rounding(differences, loss)
    origin = origin_of(model)
    return TaskScores(
        task=task.name,
        accuracy=accuracy,
        preference=(np.sign(differences) + 1) / 2,
        log_prob_difference=differences,
        log_prob=-loss,
        contrast=contrast,
        n_left_out=len(task.broken),
        model=origin.model,
        step=origin.step,
        processing=origin.processing,
    )


def _parting(task: TokenisedTask) -> AnswerScore:
    """The difference at the first token where the answers part, from the rows of whole answers."""
    pairs = zip(task.correct, task.wrong, task.n_common, strict=True)
    columns = torch.tensor([[[c[n], w[n]]] for c, w, n in pairs]).repeat_interleave(2, dim=0)
    weights = torch.tensor([[[1.0, -1.0]], [[0.0, 0.0]]]).repeat(task.n_examples, 1, 1)
    positions = torch.full((len(columns), 1), task.end)
    return AnswerScore(
        "log_prob_difference", "nats", positions, columns, weights, False, rows_per_example=2
    )


def _of_rows(metric: AnswerScore | AnswerAccuracy, rows: slice) -> AnswerScore | AnswerAccuracy:
    """The metric of a part of the rows."""
    if isinstance(metric, AnswerAccuracy):
        return dataclasses.replace(
            metric, positions=metric.positions[rows], targets=metric.targets[rows]
        )
    return dataclasses.replace(
        metric,
        positions=metric.positions[rows],
        columns=metric.columns[rows],
        weights=metric.weights[rows],
    )
