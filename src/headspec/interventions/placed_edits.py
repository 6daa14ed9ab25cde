"""Edits of a stretch of columns, as edits of a longer text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from headspec.errors import InputError
from headspec.interventions.edits import Edit
from headspec.interventions.replay_checks import check_edit


def place_edit(edit: Edit, *, start: int, n: int, total: int, n_rows: int) -> Edit:
    """An edit whose values cover columns `start` to `start + n`, for a text of `total` columns.

    Other columns are left alone. Patterns are over keys from column 0 on; later keys get nothing.

    Args:
        edit: with values of `n` columns, or that broadcast over them; `where` of `n` columns.
        start: first column that it covers.
        n: how many.
        total: columns of the longer text.
        n_rows: rows of the text.
    """
    where = edit.where
    if where is None:
        where = torch.ones(n_rows, n, dtype=torch.bool, device=edit.values.device)
    where = F.pad(where, (start, total - start - n))
    return replace(edit, values=_padded(edit, start=start, n=n, total=total), where=where)


def check_placed_edit(edit: Edit, cfg: Any, *, column: int, n_rows: int) -> None:
    """Raise unless an edit of one column fits the model: layer, heads, values, `where`.

    Args:
        edit: with values of one column; patterns of one query over keys 0 to `column`.
        cfg: of the model.
        column: the absolute column that it edits.
        n_rows: rows of the text.

    Raises:
        InputError: for another layer, head or shape.
    """
    one = torch.zeros(n_rows, 1, dtype=torch.long)
    if edit.site == "pattern" and edit.values.ndim:
        n_keys = edit.values.shape[-1]
        if n_keys not in (1, column + 1):
            raise InputError(
                expected=f"a pattern over {column + 1} keys, from column 0 to the edited one",
                got=f"{n_keys} keys",
                fix="Give generated= a function, which knows how many columns there are.",
            )
        edit = replace(edit, values=edit.values[..., :1])
    check_edit(edit, cfg, one)


def covers(edit: Edit, *, start: int, n: int) -> tuple[int, ...]:
    """The absolute columns that the edit replaces in any row."""
    if edit.where is None:
        return tuple(range(start, start + n))
    return tuple(start + int(column) for column in edit.where.any(0).nonzero()[:, 0])


def _padded(edit: Edit, *, start: int, n: int, total: int) -> Tensor:
    values, after = edit.values, total - start - n
    if edit.site == "pattern":
        values = _at_least(values, (1, 1, n, start + n))
        return F.pad(values, (0, after, start, after))
    if edit.site in ("mlp_out", "resid_pre"):
        return F.pad(_at_least(values, (1, n, 1)), (0, 0, start, after))
    return F.pad(_at_least(values, (1, n, 1, 1)), (0, 0, 0, 0, start, after))


def _at_least(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    return values.expand(torch.broadcast_shapes(values.shape, shape))
