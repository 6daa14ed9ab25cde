"""`head_scores`: does a head look at the previous token, at copies, after them, at the first?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from headspec.activations.repeats import repeated_tokens
from headspec.activations.target_positions import (
    CONTENT_KINDS,
    HEAD_KINDS,
    HeadKind,
    attention_on,
    count_queries,
    head_targets,
    uniform_attention,
)
from headspec.errors import InputError, check_choice
from headspec.lens.head_score_result import HeadScores
from headspec.lens.hooks import check_hooked
from headspec.lens.layer_patterns import TakePattern, pattern_runner
from headspec.lens.processing import origin_of
from headspec.lens.token_ids import check_vocabulary, whole_numbers

_Job: TypeAlias = tuple[HeadKind, Tensor]
_PATTERNS = 2**24  # probabilities of one layer held at a time


def head_scores(
    model: Any,
    *,
    kinds: Sequence[HeadKind] = HEAD_KINDS,
    tokens: Integer[Tensor, "batch pos"] | Integer[np.ndarray, "batch pos"] | None = None,
    ignore: Sequence[int] = (),
    n_sequences: int = 32,
    period: int = 50,
    symbols: Sequence[int] | Integer[np.ndarray, " symbol"] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> HeadScores:
    """How much of its attention every head puts where heads of known kinds look.

    For query q and the keys T(q) of a kind (`head_targets`), the score is the mean over all queries
    that have such keys of sum_{k in T(q)} p(q, k). By default on **repeated random tokens**: the
    beginning-of-text token, `period` distinct tokens, and the same again, where nothing but
    their order can tell a head where to look. With `tokens`, on **text**: positions are found
    from which tokens come again.

    Beside each score stands what uniform attention over all tokens so far gives, and for induction
    and duplicate tokens a control: attention to the same positions where they mean nothing. On
    repeated tokens the second half is then another sequence's; on text the positions are another
    sequence's. A head that looks a fixed way back scores as high there.

    Sequences are run layer by layer and in batches: one layer's patterns are held at a time,
    however deep the model.

    Args:
        model: a HookedTransformer or TransformerBridge, left as it is.
        kinds: which.
        tokens: token ids to measure on, one row a sequence; None: repeated random tokens.
        ignore: ids that count neither as queries nor as earlier positions, such as padding (on the
            right).
        n_sequences, period: how many random sequences, and tokens before they repeat.
        symbols: ids that random tokens are drawn from; None: the vocabulary of the model's
            tokenizer without its special tokens.
        batch_size: sequences in one pass; None: as many as 64 MB of patterns hold.
        seed: of the random tokens.

    Returns:
        `HeadScores`. Half-precision models are read in float32 from queries and keys on.

    Raises:
        InputError: a model that is not hooked or not causal, sequences longer than its context,
            too few symbols, or a kind of which the tokens have no position.

    **What it does not show.** A high induction score on random tokens says where a head looks, not
    that it copies (`copying_scores`) or that the model needs it (`ablate_heads`). On text, common
    tokens come again everywhere, so that scores mix kinds: compare with the control.

    References:
        Olsson et al. 2022, "In-context learning and induction heads"; transformer-lens's
        `detect_head`, which is this times the share of queries that have a position of the kind.

    Example:
        >>> import headspec as hs
        >>> model = hs.open_suite("micro-tiny").model(6144)
        >>> scores = head_scores(model, n_sequences=4, period=20)
        >>> scores.of_kind("induction").shape == (model.cfg.n_layers, model.cfg.n_heads)
        True
    """
    check_hooked(model)
    kinds = _checked_kinds(kinds)
    counts = {"n_sequences": n_sequences, "batch_size": 1 if batch_size is None else batch_size}
    if odd := [f"{name}={value}" for name, value in counts.items() if value < 1]:
        raise InputError(
            expected="n_sequences and batch_size of at least 1",
            got=", ".join(odd),
            fix="Leave them out for 32 sequences, as many at a time as fit.",
        )
    drawn = tokens is None
    if drawn:
        ids = draw_tokens(model, symbols, n=n_sequences, period=period, seed=seed)
    else:
        ids = whole_numbers(tokens)
    _check_length(ids, model, drawn=drawn)
    check_vocabulary(ids, model)
    device = next(model.parameters()).device
    run = pattern_runner(model, ids[:1].to(device))
    size = batch_size or max(1, _PATTERNS // (model.cfg.n_heads * ids.shape[1] ** 2))
    measure = partial(_measure, run, ignore=ignore, size=size, device=device)
    content: tuple[HeadKind, ...] = ()
    if len(ids) > 1:
        content = tuple(kind for kind in kinds if kind in CONTENT_KINDS)
    elsewhere = ids.roll(-1, 0)
    jobs: dict[str, _Job] = {kind: (kind, ids) for kind in kinds}
    if drawn:
        found = measure(ids, jobs)
        other = torch.cat([ids[:, :-period], elsewhere[:, -period:]], 1)
        again: dict[str, _Job] = {kind: (kind, ids) for kind in content}
        control = measure(other, again) if content else {}
    else:
        controls: dict[str, _Job] = {f"{kind} elsewhere": (kind, elsewhere) for kind in content}
        found = measure(ids, jobs | controls)
        control = {kind: found[f"{kind} elsewhere"] for kind in content}
    if empty := [kind for kind in kinds if not found[kind].counts.sum()]:
        raise InputError(
            expected=f"tokens that have positions of {', '.join(empty)}",
            got=f"{list(ids.shape)} tokens of which none comes twice in a row",
            fix="Give longer text, or leave `tokens` out for repeated random tokens.",
        )
    nothing = np.full(found[kinds[0]].means.shape[:2], np.nan)
    origin = origin_of(model)
    return HeadScores(
        kinds=kinds,
        scores=np.stack([found[kind].score() for kind in kinds]),
        se=np.stack([found[kind].se() for kind in kinds]),
        uniform=np.array([found[kind].uniform_score() for kind in kinds]),
        control=np.stack([control[kind].score() if kind in control else nothing for kind in kinds]),
        n_queries=tuple(int(found[kind].counts.sum()) for kind in kinds),
        n=len(ids),
        n_pos=ids.shape[1],
        data="repeated random tokens" if drawn else "given tokens",
        seed=seed,
        model=origin.model,
        step=origin.step,
        processing=origin.processing,
    )


@dataclass(frozen=True)
class _Attended:
    """Attention to the positions of one kind, sequence by sequence.

    Attributes:
        means: mean over the queries of a sequence that have a position.
        uniform: the same for uniform attention.
        counts: these queries.
    """

    means: Float[np.ndarray, "layer head sequence"]
    uniform: Float[np.ndarray, " sequence"]
    counts: Integer[np.ndarray, " sequence"]

    def score(self) -> Float[np.ndarray, "layer head"]:
        """Mean over all queries of all sequences."""
        return np.where(self.counts, self.means, 0) @ self.counts / self.counts.sum()

    def uniform_score(self) -> float:
        """The same for uniform attention."""
        return float(np.where(self.counts, self.uniform, 0) @ self.counts / self.counts.sum())

    def se(self) -> Float[np.ndarray, "layer head"]:
        """Standard error over sequences, of a ratio of sums."""
        n = len(self.counts)
        if n < 2:
            return np.full(self.means.shape[:2], np.nan)
        off = np.where(self.counts, self.means - self.score()[..., None], 0) * self.counts
        return np.sqrt((off**2).sum(-1) * n / (n - 1)) / self.counts.sum()


def _measure(
    run: Callable[[Tensor, TakePattern], None],
    ids: Tensor,
    jobs: Mapping[str, _Job],
    *,
    ignore: Sequence[int],
    size: int,
    device: torch.device,
) -> dict[str, _Attended]:
    """Attention on `ids` to the positions that each job asks for, batch by batch.

    What is kept is one number a job, layer, head and sequence.

    Args:
        run: of `pattern_runner`.
        ids: tokens to run.
        jobs: name -> a kind, and the tokens whose positions of that kind are looked at.
        ignore, size, device: as in `head_scores`.
    """
    parts: dict[str, list[_Attended]] = {name: [] for name in jobs}
    for start in range(0, len(ids), size):
        rows = slice(start, start + size)
        by_layer: dict[str, list[np.ndarray]] = {name: [] for name in jobs}
        targets = {
            name: head_targets(given[rows].to(device), kind, ignore=ignore)
            for name, (kind, given) in jobs.items()
        }

        def take(
            layer: int,
            pattern: Tensor,
            kept: dict[str, list[np.ndarray]] = by_layer,
            targets: dict[str, Tensor] = targets,
        ) -> None:
            for name, at in targets.items():
                kept[name].append(attention_on(pattern, at).T.cpu().numpy())

        run(ids[rows].to(device), take)
        for name, at in targets.items():
            uniform, counts = uniform_attention(at), count_queries(at)
            means = np.stack(by_layer[name])
            parts[name].append(_Attended(means, uniform.cpu().numpy(), counts.cpu().numpy()))
    return {
        name: _Attended(
            np.concatenate([part.means for part in each], -1),
            np.concatenate([part.uniform for part in each]),
            np.concatenate([part.counts for part in each]),
        )
        for name, each in parts.items()
    }


def draw_tokens(
    model: Any, symbols: Any, *, n: int, period: int, seed: int
) -> Integer[Tensor, "batch pos"]:
    """The beginning-of-text token, random tokens, and these again."""
    tokenizer = model.tokenizer
    bos = None if tokenizer is None else tokenizer.bos_token_id
    if symbols is None:
        known = model.cfg.d_vocab  # may be padded beyond the tokenizer, with ids never trained
        if tokenizer is not None:
            known = min(known, len(tokenizer))
        special = () if tokenizer is None else tokenizer.all_special_ids
        symbols = np.setdiff1d(np.arange(known), np.array(special, dtype=int))
    drawn = repeated_tokens(
        np.asarray(symbols),
        n,
        period=period,
        length=2 * period + (bos is not None),
        bos=bos,
        seed=seed,
    )
    return torch.as_tensor(drawn).long()


def _checked_kinds(kinds: Sequence[HeadKind]) -> tuple[HeadKind, ...]:
    for kind in kinds:
        check_choice("kinds", kind, HEAD_KINDS)
    if not kinds or len(set(kinds)) < len(kinds):
        raise InputError(
            expected="different kinds, at least one",
            got=f"{list(kinds)}",
            fix=f"Name some of {', '.join(HEAD_KINDS)}.",
        )
    return tuple(kinds)


def _check_length(ids: Tensor, model: Any, *, drawn: bool) -> None:
    longest = model.cfg.n_ctx
    if ids.ndim != 2 or ids.shape[1] < 2 or ids.shape[1] > longest or not len(ids):
        raise InputError(
            expected=f"rows of 2 to {longest} tokens, the model's context",
            got=f"shape {list(ids.shape)}",
            fix=f"Take period={(longest - 1) // 2} or less." if drawn else "Cut the rows.",
        )
