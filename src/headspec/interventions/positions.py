"""Which columns of which rows an intervention changes, by name, number or mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from headspec.errors import InputError

PositionsLike: TypeAlias = int | str | Sequence[int] | Tensor | Mapping[str, Any] | None
"""None: all; a column or columns; `"each"`; a mask; a column for each row; named sets."""


@dataclass(frozen=True)
class PositionSets:
    """Sets of positions, each to be changed in one intervention.

    Attributes:
        labels: name of each set.
        where: mask of each set; None: every position. An empty mask changes nothing.
        by_position: whether the sets are an axis of the result.
    """

    labels: tuple[str, ...]
    where: tuple[Bool[Tensor, "batch pos"] | None, ...]
    by_position: bool


def resolve_positions(
    positions: Any,
    tokens: Int[Tensor, "batch pos"],
    *,
    allowed: Bool[Tensor, "batch pos"] | None = None,
) -> PositionSets:
    """The masks that `positions` asks for.

    Args:
        positions: `PositionsLike`. None: all. An int or ints: these columns in every row, negative
            ones counted from the end. `"each"`: column by column. A Bool tensor `batch pos`:
            itself. An Int tensor `batch`: one column in each row. A dict: one named set for each
            entry.
        tokens: the tokens of the base run.
        allowed: where a change can do anything (no padding, not before the runs of a pair first
            differ); what lies outside is left out of the masks, which is exact.

    Raises:
        InputError: columns that the tokens do not have, or something else altogether.
    """
    n_rows, n_pos = tokens.shape
    everywhere = torch.ones(n_rows, n_pos, dtype=torch.bool)
    useful = everywhere if allowed is None else allowed.cpu()
    if positions is None:
        return PositionSets(("all",), (None if useful.all() else useful,), by_position=False)
    if isinstance(positions, str) and positions == "each":
        columns = torch.arange(n_pos)
        masks = tuple((columns == column).expand(n_rows, -1) & useful for column in range(n_pos))
        return PositionSets(tuple(map(str, range(n_pos))), masks, by_position=True)
    if isinstance(positions, Mapping):
        masks = tuple(_mask(value, n_rows, n_pos) & useful for value in positions.values())
        return PositionSets(tuple(map(str, positions)), masks, by_position=True)
    mask = _mask(positions, n_rows, n_pos) & useful
    return PositionSets((_label(positions, n_pos),), (mask,), by_position=False)


def one_position_set(
    positions: Any,
    tokens: Int[Tensor, "batch pos"],
    *,
    allowed: Bool[Tensor, "batch pos"] | None = None,
    name: str = "positions",
) -> Bool[Tensor, "batch pos"]:
    """The mask that `positions` asks for, where one set of positions is wanted.

    Args:
        positions, tokens, allowed: as in `resolve_positions`.
        name: of the argument, for the error.

    Raises:
        InputError: several sets (`"each"`, a dict), or positions that do not exist.
    """
    found = resolve_positions(positions, tokens, allowed=allowed)
    if found.by_position:
        raise InputError(
            expected=f"{name}= as one set of positions: a column, columns, a mask, or None for all",
            got=f"{len(found.where)} sets ({', '.join(found.labels[:4])}, ...)",
            fix="Call once for each of them.",
        )
    where = found.where[0]
    return torch.ones(tokens.shape, dtype=torch.bool) if where is None else where


def _mask(positions: Any, n_rows: int, n_pos: int) -> Tensor:
    if isinstance(positions, Tensor) and positions.dtype == torch.bool:
        if tuple(positions.shape) != (n_rows, n_pos):
            raise _unusable(f"a mask of shape {list(positions.shape)}", n_rows, n_pos)
        return positions.cpu()
    mask = torch.zeros(n_rows, n_pos, dtype=torch.bool)
    if isinstance(positions, Tensor):
        if positions.shape != (n_rows,) or positions.is_floating_point():
            raise _unusable(f"a tensor of shape {list(positions.shape)}", n_rows, n_pos)
        mask[torch.arange(n_rows), _checked(positions.cpu(), n_rows, n_pos)] = True
        return mask
    columns = [positions] if isinstance(positions, int) else positions
    try:
        index = torch.tensor([int(column) for column in columns], dtype=torch.long)
    except (TypeError, ValueError):
        raise _unusable(repr(positions), n_rows, n_pos) from None
    mask[:, _checked(index, n_rows, n_pos)] = True
    return mask


def _checked(columns: Tensor, n_rows: int, n_pos: int) -> Tensor:
    if ((columns >= n_pos) | (columns < -n_pos)).any():
        raise _unusable(f"columns {columns.tolist()}", n_rows, n_pos)
    return columns.long()


def _label(positions: Any, n_pos: int) -> str:
    if isinstance(positions, Tensor):
        return "mask" if positions.dtype == torch.bool else "one a row"
    columns = [positions] if isinstance(positions, int) else list(positions)
    return ",".join(str(column % n_pos) for column in columns)


def _unusable(got: str, n_rows: int, n_pos: int) -> InputError:
    return InputError(
        expected=f"positions within {n_rows} rows of {n_pos} columns",
        got=got,
        fix="Give a column or a list of columns, 'each', a Bool tensor [batch pos], an Int tensor "
        "[batch] with one column a row, or a dict of names to these.",
    )
