"""The conditions of the topic-ordering study: attention x order of the data x positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import get_args

import pandas as pd

from headspec.errors import check_choice
from headspec.results import tidy
from headspec.training.mini_qwen import Attention

FACTOR_LEVELS: dict[str, tuple[str, str]] = {
    "attention": ("mha", "gqa"),
    "ordering": ("shuffled", "topic_ordered"),
    "position": ("rope", "drope"),
}
"""Factors of the design and their levels, the one coded -1 first."""


@dataclass(frozen=True)
class TopicCondition:
    """A cell of the design.

    Attributes:
        attention: `"mha"` or `"gqa"`.
        ordering: `"shuffled"` or `"topic_ordered"`: of the training data.
        position: `"rope"`, or `"drope"`: the same model with its rotary embeddings removed after
            training and a short recalibration.

    Raises:
        InputError: another level.

    Example:
        >>> TopicCondition("gqa", "topic_ordered", "drope").name
        'gqa_topic_ordered_drope'
    """

    attention: str
    ordering: str
    position: str

    def __post_init__(self) -> None:
        for factor, levels in FACTOR_LEVELS.items():
            check_choice(factor, getattr(self, factor), levels)

    @property
    def name(self) -> str:
        """As the study names it."""
        return f"{self.run}_{self.position}"

    @property
    def run(self) -> str:
        """Name of the training, which both positions share."""
        return f"{self.attention}_{self.ordering}"

    def label_rows(self, frame: pd.DataFrame, *, seed: int) -> pd.DataFrame:
        """The rows as tidy ones of this condition: its name as `model`, its factors as columns.

        Args:
            frame: tidy rows; their own `model` and `seed` are overwritten.
            seed: of the training run.
        """
        rows = tidy(frame.drop(columns=["model", "seed"], errors="ignore"), model=self.name)
        rows["seed"] = pd.array([seed] * len(rows), dtype="Int64")
        labels = {"condition": self.name, **vars(self)}
        return rows.assign(**labels)


def topic_conditions(attentions: Sequence[str] = get_args(Attention)) -> tuple[TopicCondition, ...]:
    """The conditions in the study's order: four for each kind of attention.

    Args:
        attentions: `"mha"`, `"gqa"` or both.

    Example:
        >>> [each.name for each in topic_conditions(["mha"])][:3]
        ['mha_shuffled_rope', 'mha_shuffled_drope', 'mha_topic_ordered_rope']
    """
    cells = product(attentions, FACTOR_LEVELS["ordering"], FACTOR_LEVELS["position"])
    return tuple(TopicCondition(*cell) for cell in cells)


def varied_factors(frame: pd.DataFrame) -> tuple[str, ...]:
    """The factors that take both their levels in the rows, in the study's order."""
    return tuple(name for name in FACTOR_LEVELS if len(set(frame[name])) == 2)
