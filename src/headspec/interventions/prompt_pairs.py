"""Prompts as tokens, and pairs of runs whose columns correspond."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from headspec.errors import InputError
from headspec.lens.logits import Metric

Prompts: TypeAlias = Tensor | str | Sequence[str]
"""Token ids `batch pos`, or text for the model's tokenizer."""

Tokens: TypeAlias = tuple[Tensor, Tensor | None]
"""Token ids and their attention mask (None: no padding)."""


@dataclass(frozen=True)
class PromptRuns:
    """The run that is changed, the run that activations come from, and how columns correspond.

    Attributes:
        base, source: tokens of the two runs.
        base_mask, source_mask: 1 for tokens, 0 for padding; None: no padding.
        position_map: for each column of the base run the column of the source; -1: none. None:
            the same column.
        allowed: columns of the base run where a replaced activation can differ.
        causal: whether no position can see those after it.
    """

    base: Int[Tensor, "batch pos"]
    source: Int[Tensor, "batch source_pos"]
    base_mask: Int[Tensor, "batch pos"] | None
    source_mask: Int[Tensor, "batch source_pos"] | None
    position_map: Int[Tensor, "batch pos"] | None
    allowed: Bool[Tensor, "batch pos"]
    causal: bool = True

    def groups(self, metric: Metric) -> Int[Tensor, " batch"]:
        """Which rows hold the same two prompts, as far as a metric reads; see `row_groups`."""
        last = last_read(metric, self.base) if self.causal else None
        parts = [tokens_up_to((self.base, self.base_mask), last)]
        if last is not None and self.position_map is not None:
            columns = torch.arange(self.base.shape[1])
            lent = self.position_map.where(columns <= last[:, None], -1)
            last = torch.maximum(last, lent.amax(1))
        parts.append(tokens_up_to((self.source, self.source_mask), last))
        return torch.cat(parts, 1).unique(dim=0, return_inverse=True)[1]

    def aligned(self, activation: Tensor) -> Tensor:
        """Activations of the source (positions on axis 1) at the columns of the base run."""
        if self.position_map is None:
            return activation
        index = self.position_map.clamp_min(0).to(activation.device)
        rows = torch.arange(len(index), device=activation.device)[:, None]
        return activation[rows, index]


def row_groups(model: Any, metric: Metric, run: Tokens) -> Int[Tensor, " batch"]:
    """Which rows hold the same prompt, as far as a metric reads.

    What stands right of the last column that is read changes nothing under causal attention: the
    rows prompt + correct answer and prompt + wrong answer are one example to a metric that reads
    the end of the prompt.

    Args:
        model: the hooked model.
        metric: what reads. One that reads all columns tells rows apart by any token.
        run: the rows.
    """
    causal = getattr(model.cfg, "attention_dir", "causal") == "causal"
    read = tokens_up_to(run, last_read(metric, run[0]) if causal else None)
    return read.unique(dim=0, return_inverse=True)[1]


def last_read(metric: Metric, tokens: Int[Tensor, "batch pos"]) -> Int[Tensor, " batch"] | None:
    """The last column that a metric reads in each row; None: it reads all."""
    positions = metric.read(tokens.cpu()).positions
    return None if positions is None else positions.cpu().long().amax(1)


def tokens_up_to(run: Tokens, last: Int[Tensor, " batch"] | None) -> Int[Tensor, "batch pos"]:
    """Token ids on the CPU, -1 in padding and right of a column of each row."""
    ids, mask = run[0].cpu().long(), run[1]
    seen = torch.ones(ids.shape, dtype=torch.bool) if mask is None else mask.cpu().bool()
    if last is not None:
        seen = seen & (torch.arange(ids.shape[1]) <= last[:, None])
    return ids.where(seen, -1)


def as_tokens(model: Any, prompts: Prompts, attention_mask: Tensor | None) -> Tokens:
    """Token ids and attention mask; text is padded on the left.

    Raises:
        InputError: text with a mask, or a mask of another shape.
    """
    if isinstance(prompts, Tensor):
        if prompts.ndim != 2 or prompts.is_floating_point():
            raise InputError(
                expected="token ids of shape batch pos",
                got=f"{prompts.dtype} of shape {list(prompts.shape)}",
                fix="Add a batch axis, or give text.",
            )
        if attention_mask is not None and attention_mask.shape != prompts.shape:
            raise InputError(
                expected=f"an attention mask of the tokens' shape {list(prompts.shape)}",
                got=f"shape {list(attention_mask.shape)}",
                fix="1 for tokens, 0 for padding.",
            )
        return prompts, attention_mask
    if attention_mask is not None:
        raise InputError(
            expected="tokens with attention_mask=, or text without", got="both", fix="Drop one."
        )
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    rows = [model.to_tokens(text)[0].cpu() for text in texts]
    width = max(len(row) for row in rows)
    tokens = torch.full((len(rows), width), _pad_token(model))
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for line, row in enumerate(rows):
        tokens[line, width - len(row) :] = row
        mask[line, width - len(row) :] = 1
    return tokens, None if bool(mask.all()) else mask


def pair_runs(
    model: Any,
    base: Tokens,
    source: Tokens,
    *,
    position_map: Tensor | None,
    names: tuple[str, str] = ("base", "source"),
) -> PromptRuns:
    """Two runs whose columns correspond: the same ones, or by an explicit map.

    Args:
        model: the hooked model.
        base, source: tokens of the two runs.
        position_map: for each column of the base run that of the source, -1 for none.
        names: of the two, for messages.

    Raises:
        InputError: prompts of unequal length without a map; the message shows both tokenisations.
    """
    (base_tokens, base_mask), (source_tokens, source_mask) = base, source
    if len(base_tokens) != len(source_tokens):
        raise InputError(
            expected="as many clean as corrupt prompts",
            got=f"{len(base_tokens)} and {len(source_tokens)}",
            fix="Row by row, the two are one pair.",
        )
    useful = torch.ones(base_tokens.shape, dtype=torch.bool)
    if base_mask is not None:
        useful &= base_mask.cpu().bool()
    causal = getattr(model.cfg, "attention_dir", "causal") == "causal"
    if position_map is None:
        _check_lengths(model, base, source, names)
        differs = (base_tokens.cpu() != source_tokens.cpu()) & useful
        if causal:
            useful &= differs.int().cummax(1).values.bool()
    else:
        position_map = _checked_map(position_map, base_tokens, source_tokens)
        useful &= position_map >= 0
        if source_mask is not None:
            useful &= source_mask.cpu().bool().gather(1, position_map.clamp_min(0))
    return PromptRuns(
        base=base_tokens,
        source=source_tokens,
        base_mask=base_mask,
        source_mask=source_mask,
        position_map=position_map,
        allowed=useful,
        causal=causal,
    )


def _check_lengths(model: Any, base: Tokens, source: Tokens, names: tuple[str, str]) -> None:
    """Row by row as many tokens, in the same columns."""
    for row in range(len(base[0])):
        one, other = (_unpadded(tokens, mask, row) for tokens, mask in (base, source))
        if len(one) != len(other) or base[0].shape != source[0].shape:
            shown = " and ".join(
                f"{name} {len(ids)} tokens {_shown(model, ids)}"
                for name, ids in zip(names, (one, other), strict=True)
            )
            raise InputError(
                expected="clean and corrupt prompts of as many tokens each, column for column",
                got=f"{shown} in row {row}",
                fix="Column by column, other words would be patched in. Change a prompt, or give "
                "position_map=: for each column of the corrupt run the clean one, -1 for none.",
            )


def _unpadded(tokens: Tensor, mask: Tensor | None, row: int) -> list[int]:
    ids = tokens[row].cpu()
    return (ids if mask is None else ids[mask[row].cpu().bool()]).tolist()


def _shown(model: Any, ids: list[int]) -> str:
    if model.tokenizer is None:
        return str(ids)
    return str([model.tokenizer.decode([one]) for one in ids])


def _checked_map(position_map: Tensor, base: Tensor, source: Tensor) -> Tensor:
    fits = tuple(position_map.shape) in (tuple(base.shape), (base.shape[1],))
    found = position_map.cpu().long().expand(base.shape) if fits else None
    if found is None or ((found < -1) | (found >= source.shape[1])).any():
        raise InputError(
            expected=f"position_map of shape {list(base.shape)} (or [{base.shape[1]}]) with "
            f"columns of the other run, 0 to {source.shape[1] - 1}, or -1",
            got=f"shape {list(position_map.shape)}, {int(position_map.min())} to "
            f"{int(position_map.max())}",
            fix="For each column of the corrupt run, name the clean column that corresponds to it.",
        )
    return found


def _pad_token(model: Any) -> int:
    for name in ("pad_token_id", "eos_token_id", "bos_token_id"):
        if (token := getattr(model.tokenizer, name, None)) is not None:
            return token
    return 0
