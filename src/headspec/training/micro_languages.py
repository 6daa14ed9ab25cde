"""Micro-languages: Markov chains over one vocabulary that take turns inside a sequence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Float32, Integer
from torch import Tensor

from headspec.errors import check_choice
from headspec.training.alias_tables import AliasTables, build_alias_tables
from headspec.training.bayes_filter import read_sequences
from headspec.training.markov_chains import (
    Boost,
    draw_transitions,
    expected_entropy_rate,
    row_entropies,
    stationary_distribution,
)
from headspec.training.micro_sequences import check_draw, check_sizes, draw_sequences
from headspec.training.token_data import LabelledTokens, TokenData
from headspec.training.token_folder import write_token_data
from headspec.training.topic_segments import SegmentPrior

SPECIAL_TOKENS = 3
"""Tokens 0, 1 and 2 (padding, beginning, end) are reserved; sequences never hold them."""

Evidence = Literal["bigrams", "unigrams"]
_SPLITS = {"sample": 10, "train": 11, "validation": 12}  # 0 and 1 are orders of a TokenStream


@dataclass(frozen=True, kw_only=True)
class MicroLanguages:
    """Topics that differ in which token follows which, with the right answer to every question.

    Topic k is a Markov chain over V' = vocab_size - 3 tokens. Its rows are Dirichlet(`dirichlet`)
    with one block of n = V' // n_topics tokens multiplied by `concentration` and normalised again.
    A sequence holds `min_segments` to `max_segments` segments (see `SegmentPrior`); neighbours
    differ in topic, and the first token of a segment follows the last one of the segment before
    by the new topic's row. The first token of all is drawn from its topic's stationary
    distribution. Every token has a label; the special tokens 0 to 2 are never drawn.

    With `boost="own"`, the definition of the study, topic k boosts block k whatever came before:
    topics then differ in how often tokens occur, and with five topics and concentration 5 single
    tokens give most of the topic away (docs/micro_languages.md has the figures; compare
    `topic_posterior` by evidence). With `boost="rotated"` rows of block b boost block
    (b + k) mod n_topics: the entropy rate is the same and tokens are used equally by all topics
    but for the draw, so that transitions alone tell topics apart.

    Args:
        n_topics: chains.
        vocab_size: with the three special tokens.
        concentration: factor of the boosted block; 1 boosts nothing.
        seq_len: tokens a sequence.
        min_segments, max_segments: segments a sequence, both included.
        dirichlet: parameter of the rows.
        boost: "own" or "rotated".
        n_signatures: bigrams a topic that are multiplied by 10 besides. The study has
            min(50, n // 2), which moves the entropy rate in the fourth digit only (its factor .3
            on the whole row cancels when rows are normalised); 0, the default, keeps the closed
            form exact and topics free of marker bigrams.
        seed: of the transitions; sequences have seeds of their own.

    Raises:
        InputError: for sizes that leave a block or a choice of topics empty.

    Example:
        >>> languages = MicroLanguages(n_topics=3, vocab_size=64, seq_len=32, seed=1)
        >>> sample = languages.sample(4, seed=0)
        >>> sample.tokens.shape, sample.labels.shape
        ((4, 32), (4, 32))
        >>> bool(abs(languages.entropy_rate() - languages.expected_entropy_rate()) < 0.1)
        True
    """

    n_topics: int = 5
    vocab_size: int = 4096
    concentration: float | int = 5.0
    seq_len: int = 512
    min_segments: int = 2
    max_segments: int = 5
    dirichlet: float | int = 0.5
    boost: Boost = "own"
    n_signatures: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("boost", self.boost, get_args(Boost))
        check_sizes(self, SPECIAL_TOKENS)

    @property
    def block_size(self) -> int:
        """Tokens n in the block of one topic: (vocab_size - 3) // n_topics."""
        return (self.vocab_size - SPECIAL_TOKENS) // self.n_topics

    @property
    def segment_prior(self) -> SegmentPrior:
        """How labels are drawn."""
        return SegmentPrior(self.n_topics, self.seq_len, self.min_segments, self.max_segments)

    @cached_property
    def transitions(self) -> Float32[np.ndarray, "topic from to"]:
        """Probability of each next token; index 0 is token 3, the first one that is not special.

        335 MB for the default sizes, drawn on first use.
        """
        rows = draw_transitions(
            self.n_topics,
            self.vocab_size - SPECIAL_TOKENS,
            concentration=self.concentration,
            dirichlet=self.dirichlet,
            boost=self.boost,
            n_signatures=self.n_signatures,
            seed=self.seed,
        )
        rows.flags.writeable = False
        return rows

    @cached_property
    def stationary(self) -> Float[np.ndarray, "topic token"]:
        """How often each topic uses each token in the long run; index 0 is token 3."""
        return np.stack([stationary_distribution(rows) for rows in self.transitions])

    @cached_property
    def _tables(self) -> AliasTables:
        """For sampling: one row for each topic and token."""
        rows = self.transitions.reshape(-1, self.transitions.shape[2])
        return build_alias_tables(rows)

    def entropy_rate(self) -> float:
        """Entropy rate in nats per token of the chains as drawn, mean over topics.

        For one topic sum_i pi_i H(row i), with pi its stationary distribution: what is left to
        learn for a reader who is told the topic. A reader who is not pays `bayes_loss`.
        """
        return float(self.topic_entropy_rates.mean())

    @cached_property
    def topic_entropy_rates(self) -> Float[np.ndarray, " topic"]:
        """`entropy_rate` of each topic."""
        pairs = zip(self.stationary, self.transitions, strict=True)
        return np.array([used @ row_entropies(rows) for used, rows in pairs])

    def expected_entropy_rate(self) -> float:
        """The closed form of `entropy_rate` on average over seeds, without signature bigrams."""
        return expected_entropy_rate(
            vocab_size=self.vocab_size,
            n_topics=self.n_topics,
            concentration=self.concentration,
            dirichlet=self.dirichlet,
        )

    def sample(self, n: int, *, seed: int) -> LabelledTokens:
        """Draw sequences.

        Another seed gives other sequences of the same languages; nothing else changes.

        Args:
            n: how many.
            seed: of the sequences; the transitions have their own.

        Returns:
            Tokens (3 to vocab_size - 1) and the topic of each, int64, `sequence pos`.

        Raises:
            InputError: for n below one or a negative seed.
        """
        check_draw(n, seed)
        parts = list(self._draw(n, seed=seed, split="sample"))
        tokens = np.concatenate([part.tokens for part in parts])
        labels = np.concatenate([part.labels for part in parts])
        return LabelledTokens(tokens.astype(np.int64), labels.astype(np.int64))

    def write(
        self, folder: str | Path, *, n_train: int, n_validation: int, seed: int = 0
    ) -> TokenData:
        """Write both splits to a token-data folder; return at once if they lie there already.

        Splits share the transitions and have sequences of their own. The folder appears whole or
        not at all, and the same settings give the same bytes.

        Args:
            folder: see `open_token_data`.
            n_train, n_validation: sequences.
            seed: of the sequences.

        Returns:
            The train split.

        Raises:
            InputError: when the folder holds data of other settings, or for a negative seed.
        """
        check_draw(min(n_train, n_validation), seed)
        settings = {
            "source": "micro_languages",
            **asdict(self),
            "sequences_seed": seed,
        }
        return write_token_data(
            folder,
            train=(n_train, lambda: self._draw(n_train, seed=seed, split="train")),
            validation=(
                n_validation,
                lambda: self._draw(n_validation, seed=seed, split="validation"),
            ),
            vocab_size=self.vocab_size,
            n_topics=self.n_topics,
            seq_len=self.seq_len,
            settings=settings,
            facts=lambda: {
                "entropy_rate": self.entropy_rate(),
                "expected_entropy_rate": self.expected_entropy_rate(),
            },
        )

    def bayes_loss(
        self,
        tokens: Integer[np.ndarray, "sequence pos"] | Integer[Tensor, "sequence pos"],
        *,
        evidence: Evidence = "bigrams",
    ) -> Float[np.ndarray, "sequence pos"]:
        """The smallest expected loss that any reader of these sequences can have, token by token.

        -ln p(token | tokens before) in nats, where p sums over all topics and all ways of cutting
        the sequence with their prior probabilities: an exact forward recursion, no sampling.
        A language model has no loss for the first token: compare its loss with
        ``bayes_loss(tokens)[:, 1:].mean()``.

        Args:
            tokens: sequences of these languages, `seq_len` long or cut off at the end.
            evidence: "unigrams" reads with the topics' stationary distributions and ignores
                the order of tokens: what a reader of single tokens reaches.

        Returns:
            Loss of each token; its mean over many sequences lies above `entropy_rate` by the
            price of not being told the topics.

        Raises:
            InputError: for special tokens, tokens outside the vocabulary or rows too long.

        What it does not show: which of the possible readers a model is.

        Example:
            >>> languages = MicroLanguages(n_topics=2, vocab_size=43, seq_len=32, concentration=50)
            >>> loss = languages.bayes_loss(languages.sample(50, seed=0).tokens)
            >>> bool(languages.entropy_rate() < loss[:, 1:].mean() < np.log(40))
            True
        """
        return self._read(tokens, evidence)[0]

    def topic_posterior(
        self,
        tokens: Integer[np.ndarray, "sequence pos"] | Integer[Tensor, "sequence pos"],
        *,
        evidence: Evidence = "bigrams",
    ) -> Float32[np.ndarray, "sequence pos topic"]:
        """What an ideal reader believes about each token's topic, having read up to it.

        The accuracy of its largest entry is the ceiling for any probe of a causal model.

        Args:
            tokens: as in `bayes_loss`.
            evidence: "unigrams" shows how much of the topic single tokens give away.

        Returns:
            p(topic of the token | tokens up to and including it).

        Raises:
            InputError: as in `bayes_loss`.
        """
        return self._read(tokens, evidence)[1]

    def _read(
        self, tokens: np.ndarray | Tensor, evidence: Evidence
    ) -> tuple[Float[np.ndarray, "sequence pos"], Float32[np.ndarray, "sequence pos topic"]]:
        check_choice("evidence", evidence, get_args(Evidence))
        return read_sequences(
            np.asarray(tokens).astype(np.int64) - SPECIAL_TOKENS,
            prior=self.segment_prior,
            first=self.stationary,
            following=self.transitions if evidence == "bigrams" else None,
            special_tokens=SPECIAL_TOKENS,
        )

    def _draw(self, n: int, *, seed: int, split: str) -> Iterator[LabelledTokens]:
        """Sequences in pieces; each split has random streams of its own."""
        return draw_sequences(
            n,
            prior=self.segment_prior,
            first=build_alias_tables(self.stationary),
            following=self._tables,
            special_tokens=SPECIAL_TOKENS,
            seeds=(seed, _SPLITS[split]),
        )
