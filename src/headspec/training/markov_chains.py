"""The transition matrices of micro-languages: how they are drawn, and their exact statistics."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float, Float32
from scipy import special

from headspec.errors import InputError

Boost = Literal["own", "rotated"]
_ITERATIONS = 10_000


def draw_transitions(
    n_topics: int,
    n_tokens: int,
    *,
    concentration: float | int,
    dirichlet: float | int,
    boost: Boost,
    n_signatures: int,
    seed: int,
) -> Float32[np.ndarray, "topic from to"]:
    """Rows of every topic: Dirichlet, one block times `concentration`, normalised again.

    The block of topic k starts at k n with n = n_tokens // n_topics tokens; tokens left over
    belong to none.

    Args:
        n_topics: matrices.
        n_tokens: tokens of the chain, without the special ones.
        concentration: factor of the boosted block.
        dirichlet: parameter of the symmetric Dirichlet distribution.
        boost: "own": topic k boosts block k in every row. "rotated": in rows of block b it boosts
            block (b + k) mod n_topics.
        n_signatures: in topic k, as many tokens of the first half of block k each have one
            successor in its second half whose weight is multiplied by 10.
        seed: of the draw.

    Raises:
        InputError: when `dirichlet` or `concentration` is so extreme that a row leaves the range
            of float32.
    """
    transitions = np.empty((n_topics, n_tokens, n_tokens), np.float32)
    block = n_tokens // n_topics
    streams = np.random.SeedSequence(seed).spawn(n_topics)
    of_token = np.arange(n_tokens) // block % n_topics
    for topic, stream in enumerate(streams):
        rng = np.random.default_rng(stream)
        rows = transitions[topic]
        rng.standard_gamma(dirichlet, out=rows, dtype=np.float32)
        with np.errstate(invalid="ignore"):  # a row of zeros: found below
            rows /= rows.sum(axis=1, keepdims=True, dtype=np.float64)
        for from_block in range(n_topics):
            boosted = topic if boost == "own" else (from_block + topic) % n_topics
            members = of_token == from_block
            rows[members, boosted * block : (boosted + 1) * block] *= concentration
        if n_signatures:
            half = block // 2
            successors = topic * block + half + rng.permutation(block - half)[:n_signatures]
            rows[topic * block + np.arange(n_signatures), successors] *= 10
        with np.errstate(invalid="ignore"):
            rows /= rows.sum(axis=1, keepdims=True, dtype=np.float64)
        if not np.isfinite(rows).all():
            raise InputError(
                expected="rows of transitions that float32 can hold",
                got=f"dirichlet={dirichlet} and concentration={concentration}",
                fix="Choose less extreme values, such as dirichlet from .1 on.",
            )
    return transitions


def stationary_distribution(rows: Float[np.ndarray, "from to"]) -> Float[np.ndarray, " token"]:
    """The distribution that an irreducible chain keeps.

    By power iteration; chains that mix too slowly for it are solved as linear equations.

    Args:
        rows: transition probabilities, each row summing to one.

    Returns:
        pi with pi = pi @ rows to 1e-13, in float64.

    Raises:
        InputError: when none is found, since tokens cannot all reach one another.
    """
    rows = rows.astype(np.float64)
    rows /= rows.sum(axis=1, keepdims=True)
    current = np.full(len(rows), 1 / len(rows))
    for _ in range(_ITERATIONS):
        following = current @ rows
        following /= following.sum()
        if np.abs(following - current).sum() < 1e-14:
            return following
        current = following
    return _solved(rows)


def _solved(rows: Float[np.ndarray, "from to"]) -> Float[np.ndarray, " token"]:
    """pi (I - rows) = 0 with the last equation replaced by sum(pi) = 1."""
    equations = np.eye(len(rows)) - rows.T
    equations[-1] = 1
    try:
        found = np.linalg.solve(equations, np.eye(len(rows))[-1])
    except np.linalg.LinAlgError:
        found = np.full(len(rows), np.nan)
    if not (found >= -1e-12).all() or np.abs(found @ rows - found).sum() > 1e-9:
        raise InputError(
            expected="a chain with one stationary distribution",
            got="tokens that never lead to one another",
            fix="Raise dirichlet or lower concentration.",
        )
    return np.maximum(found, 0) / np.maximum(found, 0).sum()


def row_entropies(rows: Float[np.ndarray, "from to"]) -> Float[np.ndarray, " from"]:
    """Entropy in nats of each row of probabilities, in float64."""
    rows = rows.astype(np.float64)
    rows /= rows.sum(axis=1, keepdims=True)
    return special.entr(rows).sum(axis=1)


def expected_entropy_rate(
    *,
    vocab_size: int,
    n_topics: int,
    concentration: float | int,
    dirichlet: float | int = 0.5,
) -> float:
    """Entropy rate in nats per token that a micro-language has on average over its draw.

    With V' = vocab_size - 3 tokens, blocks of n = V' // n_topics, a the Dirichlet parameter and
    pi = c n / (c n + V' - n) the share of the boosted block,
    H = H2(pi) + pi [psi(a n + 1) - psi(a + 1)] + (1 - pi) [psi(a (V' - n) + 1) - psi(a + 1)].

    The last two terms are exact, since shares inside a block are Dirichlet whatever the block's
    mass. The first takes the mass at its mean and leaves out its fluctuation, which is of order
    1 / (a V'): 1e-4 nats for 4,096 tokens, .01 for 100. One language as drawn differs besides by
    chance; `MicroLanguages.entropy_rate` is exact for it.

    Args:
        vocab_size: with the three special tokens.
        n_topics: topics, hence blocks.
        concentration: factor c of the boosted block.
        dirichlet: parameter a.

    What it does not show: the loss that a model can reach. That needs the topic to be inferred,
    see `MicroLanguages.bayes_loss`.

    Example:
        >>> round(expected_entropy_rate(vocab_size=4096, n_topics=5, concentration=5.0), 4)
        7.2819
    """
    total = vocab_size - 3
    block = total // n_topics
    rest = total - block
    share = concentration * block / (concentration * block + rest)
    inside = special.digamma(dirichlet * block + 1) - special.digamma(dirichlet + 1)
    outside = special.digamma(dirichlet * rest + 1) - special.digamma(dirichlet + 1) if rest else 0
    which = special.entr(share) + special.entr(1 - share)
    return float(which + share * inside + (1 - share) * outside)
