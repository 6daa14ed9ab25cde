"""Which interventions run together, in what order, and the word when they run slowly."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from jaxtyping import Int
from torch import Tensor

from headspec.interventions.edits import Intervention
from headspec.lens.logits import LogitRead

_SAID: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()
_CHECKED: WeakKeyDictionary[Any, set[int]] = WeakKeyDictionary()


class SlowReplayWarning(UserWarning):
    """The model does not fit the fast path: the same numbers, by whole forward passes."""


def say_once(model: Any, reason: str) -> None:
    """Warn that interventions on this model run as whole forward passes; once for each reason."""
    said = _SAID.setdefault(model, set())
    if reason not in said:
        said.add(reason)
        warnings.warn(
            f"interventions run as whole forward passes, which is slower: {reason}",
            SlowReplayWarning,
            stacklevel=4,
        )


def group_by_start(
    interventions: Sequence[Intervention], *, n_pos: int
) -> dict[tuple[int, int], list[int]]:
    """Indices of interventions by the first layer and the first column that they edit.

    Args:
        interventions: any; those that change nothing are left out.
        n_pos: columns of the tokens.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for index, edits in enumerate(interventions):
        if edits:
            layer = min(edit.layer for edit in edits)
            start = min(edit.first_position() for edit in edits)
            if start < n_pos:
                groups.setdefault((layer, start), []).append(index)
    return groups


def reading_order(interventions: Sequence[Intervention], *, n_pos: int) -> list[int]:
    """All indices, those that can run stacked next to each other."""
    groups = group_by_start(interventions, n_pos=n_pos)
    order = [index for members in groups.values() for index in members]
    placed = set(order)
    return order + [index for index in range(len(interventions)) if index not in placed]


def bytes_read(read: LogitRead, tokens: Int[Tensor, "batch pos"], *, d_vocab: int) -> int:
    """What the read logits of one intervention take, and the step from logits to a number."""
    rows, n_pos = tokens.shape
    n_read = n_pos if read.positions is None else read.positions.shape[1]
    n_columns = d_vocab if read.columns is None else read.columns.shape[2]
    return 2 * 4 * rows * n_read * n_columns


def checks_of(model: Any) -> set[int]:
    """For which weights (`weights_key`) the fast path was found to give the model's logits."""
    return _CHECKED.setdefault(model, set())


def weights_key(model: Any, *circumstances: Any) -> int:
    """A number that changes when a parameter of the model is replaced or written to."""
    weights = tuple((id(one), one._version) for one in model.parameters())
    return hash((weights, circumstances))
