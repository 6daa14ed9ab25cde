"""A byte-level BPE tokenizer, as GPT-2's, trained on a few lines."""

from __future__ import annotations

from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

LINES = [
    "Which is bigger: 9.8 or 9.11?\nAnswer: 9.8",
    "Q: Which is bigger: 9.8 or 9.11?\nA: 9.8",
    "Which is smaller: 9.8 or 9.11?\nAnswer: 9.11",
    "The capital of France is Paris",
    "The capital of Italy is Rome",
] * 20


@cache
def bpe_tokenizer() -> PreTrainedTokenizerFast:
    """Words of `LINES` are one token each; others fall apart into letters."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=["<e>"], show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<e>", eos_token="<e>", model_max_length=64
    )
