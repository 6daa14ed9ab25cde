"""Drawing micro-languages against a plain loop over tokens.

    .venv/bin/python benchmarks/bench_micro_languages.py [--sequences 100000] [--vocabulary 4096]

The naive way draws token by token with `rng.choice` from the row of the token before. It does a
small piece and its time is extrapolated to as many tokens. Both draw from the same transitions and
agree in the frequencies of transitions between blocks. The first row counts everything from
the seed to the files on the disk: transitions, tables, sampling, writing.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from harness import compare, print_header

from headspec import LabelledTokens, MicroLanguages, open_token_data


def naive_sample(languages: MicroLanguages, n: int) -> LabelledTokens:
    """Sequences token by token, as a starter script would draw them."""
    rng = np.random.default_rng(1)
    labels = languages.segment_prior.draw(n, rng).astype(np.int64)
    tokens = np.empty_like(labels)
    count = languages.vocab_size - 3
    rows = languages.transitions
    for i in range(n):
        for pos in range(languages.seq_len):
            topic = labels[i, pos]
            p = rows[topic, tokens[i, pos - 1] - 3] if pos else languages.stationary[topic]
            p = p.astype(np.float64)
            tokens[i, pos] = 3 + rng.choice(count, p=p / p.sum())
    return LabelledTokens(tokens, labels)


def naive_loss(languages: MicroLanguages, tokens: np.ndarray) -> np.ndarray:
    """The ideal reader's loss, one sequence and position at a time."""
    prior = languages.segment_prior
    losses = np.empty(tokens.shape)
    for i, row in enumerate(tokens - 3):
        belief = prior.start()
        for pos in range(len(row)):
            if pos == 0:
                seen = languages.stationary[:, row[0]]
            else:
                belief = prior.advance(belief[None], pos)[0]
                seen = languages.transitions[:, row[pos - 1], row[pos]]
            belief = belief * seen
            losses[i, pos] = -np.log(belief.sum())
            belief = belief / belief.sum()
    return losses


def block_transitions(languages: MicroLanguages, sample: LabelledTokens) -> np.ndarray:
    """How often each topic goes to each block, from the tokens inside a sequence."""
    blocks = np.minimum((sample.tokens[:, 1:] - 3) // languages.block_size, languages.n_topics)
    pairs = sample.labels[:, 1:].astype(np.int64) * (languages.n_topics + 1) + blocks
    size = languages.n_topics * (languages.n_topics + 1)
    counts = np.bincount(pairs.ravel(), minlength=size).reshape(languages.n_topics, -1)
    return counts / counts.sum(axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, default=100_000)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--piece", type=int, default=8, help="sequences the naive way draws")
    chosen = parser.parse_args()
    sizes = {"vocab_size": chosen.vocabulary, "seq_len": 512}
    languages = MicroLanguages(**sizes)
    naive_sample(languages, 1)  # draws the transitions, which the naive way may share

    def write() -> LabelledTokens:
        with tempfile.TemporaryDirectory() as folder:
            fresh = MicroLanguages(**sizes)
            fresh.write(Path(folder) / "data", n_train=chosen.sequences, n_validation=1)
            data = open_token_data(Path(folder) / "data")
            few = slice(0, 2000)
            return LabelledTokens(np.array(data.tokens[few], int), np.array(data.labels[few], int))

    def agree(ours: LabelledTokens, peer: LabelledTokens) -> None:
        rates = [block_transitions(languages, sample) for sample in (ours, peer)]
        tolerance = 5 * np.sqrt(0.25 / (chosen.piece * 512 / languages.n_topics / 4))
        np.testing.assert_allclose(*rates, atol=tolerance)

    print_header()
    compare(
        f"{chosen.sequences:,} sequences of 512, vocabulary {chosen.vocabulary:,}, on the disk",
        write,
        lambda: naive_sample(languages, chosen.piece),
        agree=agree,
        memory=True,
        peer_scale=chosen.sequences / chosen.piece,
        note="against rng.choice token by token",
    )
    sample = languages.sample(256, seed=0)
    compare(
        "Loss of the ideal reader, 256 sequences of 512",
        lambda: languages.bayes_loss(sample.tokens),
        lambda: naive_loss(languages, sample.tokens[: chosen.piece]),
        agree=lambda a, b: np.testing.assert_allclose(a[: chosen.piece], b, rtol=1e-6),
        peer_scale=256 / chosen.piece,
        note="against one sequence at a time",
    )


if __name__ == "__main__":
    main()
