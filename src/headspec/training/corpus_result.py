"""A corpus as a result: what it holds and what its figures are."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from headspec.results import load, tidy
from headspec.training.corpus_topics import CorpusTopics
from headspec.training.token_data import TokenData, open_token_data

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

RESULT = "corpus.json"
TOKENIZER = "tokenizer"


@dataclass(frozen=True)
class Corpus:
    """A corpus in a token-data folder, and how it came about.

    Attributes:
        folder: token data (`open_token_data`), ``tokenizer/`` and ``corpus.json``.
        n_documents: with at least one passage that was kept.
        n_passages, n_repeated: passages kept, and dropped as repetitions.
        n_validation_documents: documents that the train split does not see.
        embedding: name of the sentence transformer, or "tfidf".
        topics: topics of the passages and their quality.
        vocab_size: of the tokenizer; token 0 ends every passage.
        seq_len: tokens a sequence.
        n_train, n_validation: sequences.
        tokens_per_word: of the validation split.
        unigram_loss: nats per token of the validation split under the token frequencies of the
            train split: what a model reaches that knows no context.
        overlap: share of the validation passages' runs of eight words that occur in train
            passages: what memory could give away.
        seed: of split, embedding, clustering and order.
    """

    folder: str
    n_documents: int
    n_passages: int
    n_repeated: int
    n_validation_documents: int
    embedding: str
    topics: CorpusTopics
    vocab_size: int
    seq_len: int
    n_train: int
    n_validation: int
    tokens_per_word: float
    unigram_loss: float
    overlap: float
    seed: int

    @property
    def train(self) -> TokenData:
        """The train split."""
        return open_token_data(self.folder)

    @property
    def validation(self) -> TokenData:
        """The validation split: other documents."""
        return open_token_data(self.folder, split="validation")

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer, a fresh one."""
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast.from_pretrained(Path(self.folder) / TOKENIZER)

    def to_frame(self) -> pd.DataFrame:
        """Tidy rows: those of the topics, then the counts and figures of the corpus."""
        names = (
            "n_documents", "n_passages", "n_repeated", "n_validation_documents", "vocab_size",
            "seq_len", "n_train", "n_validation", "tokens_per_word", "unigram_loss", "overlap",
        )  # fmt: skip
        rows = [{"metric": name, "value": float(getattr(self, name))} for name in names]
        own = tidy(rows, n=self.n_passages, seed=self.seed)
        frame = pd.concat([self.topics.to_frame(), own], ignore_index=True)
        return tidy(frame, embedding=self.embedding)

    def summary(self) -> str:
        """What the corpus holds, in plain sentences."""
        return (
            f"{self.n_documents:,} documents, {self.n_passages:,} passages ({self.n_repeated:,} "
            f"repetitions dropped), embedded by {self.embedding}. {self.n_train:,} sequences of "
            f"{self.seq_len} tokens for training and {self.n_validation:,} for validation from "
            f"{self.n_validation_documents:,} other documents; vocabulary {self.vocab_size:,}, "
            f"{self.tokens_per_word:.2f} tokens a word. Without context a model reaches "
            f"{self.unigram_loss:.3f} nats; {self.overlap:.1%} of the validation text's runs of "
            f"eight words occur in training.\n{self.topics.summary()}"
        )


def open_corpus(folder: str | Path) -> Corpus:
    """Open what `build_corpus` wrote, without its documents.

    Raises:
        InputError: when the folder holds no corpus.
    """
    return dataclasses.replace(load(Path(folder) / RESULT), folder=str(folder))
