"""A byte-level BPE tokenizer of the corpus, and passages packed into sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from headspec.training.token_data import LabelledTokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END = "<|endoftext|>"


def train_tokenizer(passages: Sequence[str], *, vocab_size: int) -> PreTrainedTokenizerFast:
    """Train byte-level BPE; token 0 is the end of a text, and every text can be encoded.

    Args:
        passages: to learn merges from.
        vocab_size: at most this many entries; a small corpus may give fewer.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(passages, trainer, length=len(passages))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END)


def pack_passages(
    passages: Sequence[str],
    topics: Int[np.ndarray, " passage"],
    tokenizer: PreTrainedTokenizerFast,
    *,
    seq_len: int,
    seed: int,
) -> LabelledTokens:
    """Passages in random order, each ended by token 0, cut into sequences of equal length.

    Args:
        passages: texts.
        topics: of each; all its tokens have that label, and so has the end token after it.
        tokenizer: see `train_tokenizer`.
        seq_len: tokens a sequence; what is left at the end is dropped.
        seed: of the order.

    Returns:
        Tokens and labels; no rows when the passages do not fill one.
    """
    order = np.random.default_rng(seed).permutation(len(passages))
    in_order: list[Any] = [passages[i] for i in order]
    encoded: list[list[int]] = tokenizer(in_order, add_special_tokens=False)["input_ids"]
    lengths = [len(ids) + 1 for ids in encoded]
    tokens = np.zeros(sum(lengths), np.int64)
    start = 0
    for ids in encoded:
        tokens[start : start + len(ids)] = ids
        start += len(ids) + 1
    labels = np.repeat(topics[order], lengths).astype(np.int64)
    rows = len(tokens) // seq_len
    shape = (rows, seq_len)
    return LabelledTokens(
        tokens[: rows * seq_len].reshape(shape), labels[: rows * seq_len].reshape(shape)
    )
