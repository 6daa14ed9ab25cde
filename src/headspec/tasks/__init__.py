"""Tasks: prompt pairs with right and wrong answers, as tokens, and the metrics that score them."""

from headspec.tasks.alignment import PositionMap, align_positions, invert_map, map_activations
from headspec.tasks.families import build_task
from headspec.tasks.pairs import PairIds, PromptPair, Span
from headspec.tasks.prompts import Task
from headspec.tasks.tokenised import TokenisedTask

__all__ = [
    "PairIds",
    "PositionMap",
    "PromptPair",
    "Span",
    "Task",
    "TokenisedTask",
    "align_positions",
    "build_task",
    "invert_map",
    "map_activations",
]
