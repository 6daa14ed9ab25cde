"""Prompt pairs as token ids, pair by pair, and what a tokenizer breaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import pandas as pd

from headspec.errors import InputError, check_choice
from headspec.tasks.alignment import Offsets, PositionMap, align_offsets, last_token
from headspec.tasks.pairs import PromptPair

Alignment = Literal["equal_length", "explicit"]
"""How columns of clean and corrupt correspond: the same ones, or by a position map."""

Ids = tuple[int, ...]


@dataclass(frozen=True)
class EncodedPair:
    """One pair as token ids, a beginning-of-text token included where there is one.

    Attributes:
        clean, corrupt: the prompts.
        correct, wrong: the answers as they continue the prompt.
        n_common: tokens that both answers begin with.
        clean_spans, corrupt_spans: last token of each named part.
        position_map: corresponding tokens, a beginning-of-text token included.
        reason: why the tokenizer breaks the pair; "" if it does not.
    """

    clean: Ids
    corrupt: Ids
    correct: Ids = ()
    wrong: Ids = ()
    n_common: int = 0
    clean_spans: dict[str, int] = field(default_factory=dict)
    corrupt_spans: dict[str, int] = field(default_factory=dict)
    position_map: PositionMap | None = None
    reason: str = ""


def prepends_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer by itself starts a text with its beginning-of-text token.

    transformer-lens makes every tokenizer do so; `wrap_model` notes what it did before.
    """
    if tokenizer.bos_token_id is None:
        return False
    noted = getattr(tokenizer, "prepended_bos", None)
    return tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id] if noted is None else noted


def encode_pairs(
    pairs: Sequence[PromptPair],
    tokenizer: Any,
    *,
    alignment: Alignment = "equal_length",
    prepend_bos: bool | None = None,
    n_ctx: int | None = None,
) -> list[EncodedPair]:
    """Every pair as token ids, with the reason where the tokenizer breaks it.

    Args:
        pairs: what to encode.
        tokenizer: a tokenizer of transformers.
        alignment, prepend_bos, n_ctx: as in `Task.tokenise`.

    Raises:
        InputError: a choice that does not exist, or a tokenizer without a beginning-of-text token
            that is to be prepended.
    """
    check_choice("alignment", alignment, get_args(Alignment))
    if tokenizer is None:
        raise InputError(
            expected="a tokenizer",
            got="None (a model that only takes token ids has none)",
            fix="Tokenise the task yourself: task.tokenise(tokenizer).",
        )
    bos = prepends_bos(tokenizer) if prepend_bos is None else prepend_bos
    if bos and tokenizer.bos_token_id is None:
        raise InputError(
            expected="a tokenizer with a beginning-of-text token",
            got="prepend_bos=True and none",
            fix="prepend_bos=False.",
        )
    start = (tokenizer.bos_token_id,) if bos else ()
    limit = n_ctx or min(getattr(tokenizer, "model_max_length", 10**9), 10**9)
    return [
        _checked(_encode(pair, tokenizer, start, alignment=alignment), tokenizer, limit=limit)
        for pair in pairs
    ]


def check_pairs(pairs: Sequence[PromptPair], tokenizer: Any, **options: Any) -> pd.DataFrame:
    """`Task.check` without the texts: `broken reason` and the tokens, one row a pair."""
    rows = [
        {
            "broken": bool(one.reason),
            "reason": one.reason,
            **{
                f"{name}_tokens": shown(getattr(one, name), tokenizer)
                for name in ("clean", "corrupt", "correct", "wrong")
            },
        }
        for one in encode_pairs(pairs, tokenizer, **options)
    ]
    return pd.DataFrame(rows)


def shown(ids: Sequence[int], tokenizer: Any) -> str:
    """Tokens as readable text: `|The| cat|`."""
    return "|" + "".join(f"{tokenizer.decode([token])}|" for token in ids)


def _encode(pair: PromptPair, tokenizer: Any, start: Ids, *, alignment: Alignment) -> EncodedPair:
    if pair.ids is not None:
        clean, corrupt = pair.ids.clean, pair.ids.corrupt
        answers = [(pair.ids.correct, pair.ids.wrong)] * 2
        offsets: Sequence[Offsets] = [
            [(i, i + 1) for i in range(len(ids))] for ids in (clean, corrupt)
        ]
    else:
        prompts = [pair.clean, pair.corrupt]
        ids, offsets = _tokens(tokenizer, prompts)
        clean, corrupt = ids
        whole, _ = _tokens(tokenizer, [p + a for p in prompts for a in (pair.correct, pair.wrong)])
        for prompt, parts in ((clean, whole[:2]), (corrupt, whole[2:])):
            for part in parts:
                if part[: len(prompt)] != prompt or len(part) == len(prompt):
                    text = f"{shown(prompt, tokenizer)} and {shown(part, tokenizer)}"
                    return EncodedPair(
                        start + clean, start + corrupt, reason=f"answer merges with prompt: {text}"
                    )
        answers = [
            tuple(part[len(prompt) :] for part in parts)
            for prompt, parts in ((clean, whole[:2]), (corrupt, whole[2:]))
        ]
    correct, wrong = answers[0]
    reason = (
        "" if answers[0] == answers[1] else "answers are cut differently after clean and corrupt"
    )
    position_map, unaligned = _position_map(
        pair, (clean, corrupt), offsets, tokenizer, alignment=alignment
    )
    spans = [
        {
            span.name: len(start) + token
            for span in pair.spans
            if (token := last_token(getattr(span, side), offset)) >= 0
        }
        for side, offset in zip(("clean", "corrupt"), offsets, strict=True)
    ]
    return EncodedPair(
        start + clean,
        start + corrupt,
        correct,
        wrong,
        n_common=_n_common(correct, wrong),
        clean_spans=spans[0],
        corrupt_spans=spans[1],
        position_map=_shift(position_map, len(start)),
        reason=reason or unaligned,
    )


def _tokens(tokenizer: Any, texts: list[str]) -> tuple[list[Ids], Sequence[Offsets]]:
    fast = bool(getattr(tokenizer, "is_fast", False))
    extra = {"return_offsets_mapping": True} if fast else {}
    rows = tokenizer(texts, add_special_tokens=False, verbose=False, **extra)
    offsets = rows["offset_mapping"] if fast else [[] for _ in texts]
    return [tuple(ids) for ids in rows["input_ids"]], offsets


def _n_common(one: Ids, other: Ids) -> int:
    n = 0
    while n < min(len(one), len(other)) and one[n] == other[n]:
        n += 1
    return n


def _position_map(
    pair: PromptPair,
    prompts: tuple[Ids, Ids],
    offsets: Sequence[Offsets],
    tokenizer: Any,
    *,
    alignment: Alignment,
) -> tuple[PositionMap | None, str]:
    """Corresponding tokens, or why there are none."""
    n_clean, n_corrupt = map(len, prompts)
    given = pair.position_map
    if alignment == "explicit" and given is not None:
        if (given.n_clean, given.n_corrupt) == (n_clean, n_corrupt):
            return given, ""
        made_for = f"{given.n_clean} and {given.n_corrupt}"
        return None, f"position map for {made_for} tokens: {_both(prompts, tokenizer)}"
    same_column = PositionMap.identity(n_clean) if n_clean == n_corrupt else None
    if alignment == "explicit" and pair.shared and pair.ids is None and offsets[0]:
        try:
            found = align_offsets(
                pair.clean, pair.corrupt, (offsets[0], offsets[1]), shared=pair.shared
            )
        except InputError as error:
            return None, f"no position map: {error}"
        # as many tokens by accident, the shared ones elsewhere: columns do not correspond
        agrees = same_column is not None and set(found.pairs) <= set(same_column.pairs)
        return same_column if agrees else found, ""
    if same_column is not None:
        return same_column, ""
    wanted = "no position map" if alignment == "explicit" else "unequal length"
    return None, f"{wanted}: {_both(prompts, tokenizer)}"


def _both(prompts: tuple[Ids, Ids], tokenizer: Any) -> str:
    clean, corrupt = (f"{len(ids)} tokens {shown(ids, tokenizer)}" for ids in prompts)
    return f"clean {clean}, corrupt {corrupt}"


def _shift(found: PositionMap | None, by: int) -> PositionMap | None:
    if found is None or not by:
        return found
    moved = tuple((a + by, b + by) for a, b in found.pairs)
    return PositionMap(((0, 0), *moved), found.n_clean + by, found.n_corrupt + by)


def _checked(one: EncodedPair, tokenizer: Any, *, limit: int) -> EncodedPair:
    """The pair, with a reason if its answers cannot be compared or it is too long."""
    reason = one.reason
    longest = max(len(one.clean), len(one.corrupt)) + max(len(one.correct), len(one.wrong))
    if not reason and not (one.clean and one.corrupt):
        reason = "a prompt has no token"
    elif not reason and one.clean == one.corrupt:
        reason = f"clean equals corrupt: {shown(one.clean, tokenizer)}"
    elif not reason and one.correct == one.wrong:
        reason = f"correct and wrong answer are the same: {shown(one.correct, tokenizer)}"
    elif not reason and one.n_common == min(len(one.correct), len(one.wrong)):
        both = f"{shown(one.correct, tokenizer)} and {shown(one.wrong, tokenizer)}"
        reason = f"one answer is the beginning of the other (end both with a newline): {both}"
    elif not reason and longest - 1 > limit:
        reason = f"{longest - 1} tokens where the context holds {limit}"
    return one if reason == one.reason else _with_reason(one, reason)


def _with_reason(one: EncodedPair, reason: str) -> EncodedPair:
    return EncodedPair(**{**vars(one), "reason": reason})
