"""The training mixture of the embedded suite: batch `step` is a pure function of (seed, step)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from micro_corpus import Document, digest, is_held_out, read_documents, versions
from micro_tokenizer import train_tokenizer
from transformers import PreTrainedTokenizerFast

from headspec.checkpoints import micro_tasks

END_ID = 0
"""The tokenizer's only special token comes first."""

KINDS = ("prose", "topics", "decimal", "version", "addition", "repeats")


@dataclass(frozen=True)
class Mixture:
    """Shares of a batch's rows; periods of the repeats and the part of them over all tokens."""

    prose: float = 0.32
    topics: float = 0.10
    decimal: float = 0.08
    version: float = 0.08
    addition: float = 0.05
    repeats: float = 0.37
    shortest: int = 8
    longest: int = 60
    wide: float = 0.2

    def shares(self) -> np.ndarray:
        """Shares in the order of `KINDS`, summing to one."""
        values = np.array([asdict(self)[kind] for kind in KINDS])
        return values / values.sum()


@dataclass
class Pools:
    """Everything encoded once: prose by document, task examples, repeat symbols."""

    tokenizer: PreTrainedTokenizerFast
    prose: np.ndarray
    starts: np.ndarray
    topic_of: np.ndarray
    topics: list[str]
    held_out: np.ndarray
    examples: dict[str, list[np.ndarray]]
    symbols: np.ndarray
    record: dict

    @property
    def end(self) -> int:
        """Id of the token that begins every row and separates documents."""
        return END_ID


def build_pools(*, seed: int = 0, conflict: float = 0.5, n_pairs: int = 60_000) -> Pools:
    """Read the corpus, train the tokenizer, encode."""
    documents = read_documents()
    kept = [d for d in documents if not is_held_out(d)]
    tokenizer = train_tokenizer(kept)
    train = _encode(tokenizer, [d.text for d in kept])
    lengths = np.array([len(ids) + 1 for ids in train])
    end = END_ID
    prose = np.concatenate([np.append(np.array(ids, dtype=np.int64), end) for ids in train])
    topics = sorted({d.topic for d in kept})
    held = _encode(tokenizer, [d.text for d in documents if is_held_out(d)])
    held_out = np.concatenate([np.append(np.array(ids, dtype=np.uint16), end) for ids in held])
    examples = {
        kind: micro_tasks.sample_comparisons(
            kind, n_pairs, split="train", conflict=conflict, seed=seed
        )
        for kind in ("decimal", "version")
    }
    examples["addition"] = micro_tasks.sample_additions(n_pairs, split="train", seed=seed)
    encoded = {
        kind: [np.array(ids) for ids in _encode(tokenizer, [e.prompt + e.answer for e in found])]
        for kind, found in examples.items()
    }
    return Pools(
        tokenizer=tokenizer,
        prose=prose,
        starts=np.concatenate([[0], np.cumsum(lengths)[:-1]]),
        topic_of=np.array([topics.index(d.topic) for d in kept]),
        topics=topics,
        held_out=held_out.astype(np.uint16),
        examples=encoded,
        symbols=micro_tasks.repeat_symbols(tokenizer),
        record=_record(documents, lengths),
    )


def _record(documents: list[Document], lengths: np.ndarray) -> dict:
    return {
        "versions": versions(),
        "corpus_sha256": digest(documents),
        "documents": len(documents),
        "characters": sum(len(d.text) for d in documents),
        "train_tokens": int(lengths.sum()),
    }


def _encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    return [e.ids for e in tokenizer.backend_tokenizer.encode_batch(texts)]


def batch(pools: Pools, mixture: Mixture, *, step: int, rows: int, length: int, seed: int):
    """Token ids ``rows length`` of one training step, and the kind of every row."""
    rng = np.random.default_rng([seed, step])
    kinds = rng.choice(len(KINDS), size=rows, p=mixture.shares())
    tokens = np.empty((rows, length), dtype=np.int64)
    for row, kind in enumerate(kinds):
        tokens[row] = _row(pools, mixture, KINDS[kind], length=length, rng=rng)
    return tokens, kinds


def _row(pools: Pools, mixture: Mixture, kind: str, *, length: int, rng) -> np.ndarray:
    if kind == "prose":
        start = int(rng.integers(len(pools.prose) - length))
        body = pools.prose[start : start + length - 1]
    elif kind == "topics":
        body = _topic_row(pools, length=length - 1, rng=rng)
    elif kind == "repeats":
        period = int(rng.integers(mixture.shortest, mixture.longest + 1))
        wide = rng.random() < mixture.wide
        symbols = np.arange(1, len(pools.tokenizer)) if wide else pools.symbols
        body = np.tile(rng.permutation(symbols)[:period], -(-length // period))
    else:
        found, parts, filled = pools.examples[kind], [], 0
        while filled < length:
            parts.append(found[int(rng.integers(len(found)))])
            filled += len(parts[-1])
        body = np.concatenate(parts)
    return np.concatenate([[pools.end], body])[:length]


def _topic_row(pools: Pools, *, length: int, rng) -> np.ndarray:
    chosen = rng.choice(len(pools.topics), size=2, replace=False)
    passages = []
    for topic in chosen:
        document = int(rng.choice(np.flatnonzero(pools.topic_of == topic)))
        start = min(int(pools.starts[document]), len(pools.prose) - length)
        passages.append(pools.prose[start : start + length])
    seed = int(rng.integers(2**31))
    return micro_tasks.interleave_topics(passages, length=length, seed=seed)[0]


def cached_pools(path: Path, **options) -> Pools:
    """`build_pools`, kept in a pickle of this machine between runs."""
    import pickle

    if path.exists():
        return pickle.loads(path.read_bytes())
    pools = build_pools(**options)
    path.write_bytes(pickle.dumps(pools))
    return pools
