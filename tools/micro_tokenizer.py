"""The embedded suite's tokenizer: byte-level BPE of 512 entries with every digit on its own."""

from __future__ import annotations

from micro_corpus import Document
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from headspec.checkpoints import micro_tasks

END = "<|endoftext|>"


def train_tokenizer(documents: list[Document], *, size: int = 512) -> PreTrainedTokenizerFast:
    """BPE on prose and enough questions for each of their words to become one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=[chr(c) for c in range(33, 127)] + ["Ġ", "Ċ"],
        show_progress=False,
    )
    prose = [d.text for d in documents]
    questions = [
        e.prompt
        for kind in ("decimal", "version")
        for e in micro_tasks.sample_comparisons(kind, 20_000, split="train", seed=0)
    ]
    tokenizer.train_from_iterator(prose + questions, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, model_max_length=128
    )
