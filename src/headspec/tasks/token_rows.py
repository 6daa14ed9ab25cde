"""Encoded pairs as rows of token ids whose prompts end in one column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from headspec.tasks.encoding import EncodedPair


def pad_token(tokenizer: Any) -> int:
    """The token that fills rows: padding, end or beginning of text, or 0."""
    for name in ("pad_token_id", "eos_token_id", "bos_token_id"):
        if (token := getattr(tokenizer, name, None)) is not None:
            return token
    return 0


def lay_out(good: Sequence[EncodedPair], *, single: bool, pad: int) -> dict[str, Any]:
    """Rows of token ids, masks, named columns and the position map, as `TokenisedTask` has them."""
    end = max(one.n_common + max(len(one.clean), len(one.corrupt)) for one in good) - 1
    rows = [
        (one, () if single else answer[one.n_common : -1])
        for one in good
        for answer in ((one.correct,) if single else (one.correct, one.wrong))
    ]
    width = end + 1 + max(len(rest) for _, rest in rows)
    shape = (len(rows), width)
    found: dict[str, Any] = {"end": end}
    for side in ("clean", "corrupt"):
        tokens, mask = torch.full(shape, pad), torch.ones(shape, dtype=torch.long)
        columns: dict[str, list[int]] = {name: [] for name in good[0].clean_spans}
        is_token = torch.zeros(shape, dtype=torch.bool)
        for row, (one, rest) in enumerate(rows):
            prompt = getattr(one, side) + one.correct[: one.n_common]
            start = end + 1 - len(prompt)
            tokens[row, start : end + 1 + len(rest)] = torch.tensor(prompt + rest)
            mask[row, :start] = 0
            is_token[row, start : end + 1 + len(rest)] = True
            for name in columns:
                token = getattr(one, f"{side}_spans").get(name, -1)
                columns[name].append(start + token if token >= 0 else -1)
        whole = {name: torch.tensor(c) for name, c in columns.items() if min(c) >= 0}
        found |= {side: tokens, f"{side}_mask": mask}
        found["positions" if side == "clean" else "corrupt_positions"] = {
            **whole,
            "end": torch.full((len(rows),), end),
        }
        if side == "clean":
            found["is_token"] = is_token
    found["position_map"] = _position_map(rows, shape, end)
    return found


def _position_map(
    rows: Sequence[tuple[EncodedPair, tuple[int, ...]]], shape: tuple[int, int], end: int
) -> Int[Tensor, "row pos"]:
    """Prompt tokens as each pair says; tokens of the answers stand in the same columns."""
    found = torch.full(shape, -1)
    for row, (one, rest) in enumerate(rows):
        assert one.position_map is not None
        answer = torch.arange(end + 1 - one.n_common, end + 1 + len(rest))
        found[row, answer] = answer
        clean_start, corrupt_start = (
            end + 1 - one.n_common - len(prompt) for prompt in (one.clean, one.corrupt)
        )
        for clean, corrupt in one.position_map.pairs:
            found[row, corrupt_start + corrupt] = clean_start + clean
    return found
