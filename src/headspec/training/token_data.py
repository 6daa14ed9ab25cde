"""Token sequences with topic labels: in memory, and in a folder that every condition shares."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Integer

from headspec.errors import CheckpointError, InputError, check_choice

Split = Literal["train", "validation"]
SPLITS: tuple[str, ...] = get_args(Split)
MANIFEST = "data.json"
FORMAT = 1
_KEYS = ("n", "seq_len", "vocab_size", "n_topics", "settings", "facts")
_ROWS = 8192  # rows read at a time


@dataclass(frozen=True)
class LabelledTokens:
    """Sequences of tokens and the topic of every token.

    Attributes:
        tokens: `sequence pos`.
        labels: `sequence pos`, 0 to n_topics - 1.
    """

    tokens: Integer[np.ndarray, "sequence pos"]
    labels: Integer[np.ndarray, "sequence pos"]

    def __iter__(self) -> Iterator[np.ndarray]:
        """``tokens, labels = sample``."""
        return iter((self.tokens, self.labels))


@dataclass(frozen=True, eq=False)
class TokenData:
    """One split of a token-data folder, read from the disk as needed.

    Attributes:
        tokens: `sequence pos`, uint16 (uint32 above 65,536 tokens), memory-mapped.
        labels: `sequence pos`, uint8, memory-mapped: the topic of every token, 0 to n_topics - 1.
        vocab_size, n_topics, seq_len: as named.
        split: "train" or "validation".
        folder: where the data lie; None for arrays in memory.
        settings: what the data were made from; equal settings mean equal data.
        info: `settings` and further facts, such as `source` and, for micro-languages,
            `entropy_rate` in nats per token.

    Example:
        >>> import tempfile
        >>> from headspec.training.micro_languages import MicroLanguages
        >>> folder = Path(tempfile.mkdtemp()) / "data"
        >>> languages = MicroLanguages(n_topics=2, vocab_size=43, seq_len=16)
        >>> _ = languages.write(folder, n_train=8, n_validation=4)
        >>> open_token_data(folder, split="validation").tokens.shape
        (4, 16)
    """

    tokens: Integer[np.ndarray, "sequence pos"]
    labels: Integer[np.ndarray, "sequence pos"]
    vocab_size: int
    n_topics: int
    seq_len: int
    split: str = "train"
    folder: Path | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.tokens)

    @cached_property
    def topic_counts(self) -> Integer[np.ndarray, "sequence topic"]:
        """How many tokens of each topic every sequence has."""
        counts = np.empty((len(self), self.n_topics), np.int32)
        for first in range(0, len(self), _ROWS):
            rows = np.asarray(self.labels[first : first + _ROWS])
            for topic in range(self.n_topics):
                counts[first : first + _ROWS, topic] = np.count_nonzero(rows == topic, axis=1)
        return counts

    @cached_property
    def dominant_topics(self) -> Integer[np.ndarray, " sequence"]:
        """The topic that most tokens of a sequence have; of equal ones the lowest."""
        return self.topic_counts.argmax(axis=1)


def open_token_data(folder: str | Path, *, split: Split = "train") -> TokenData:
    """Open one split of a token-data folder without reading it.

    The folder holds ``data.json`` (sizes, settings, facts) and for each split
    ``{split}.tokens.npy`` and ``{split}.labels.npy``; `MicroLanguages.write`, `build_corpus` and
    `write_token_data` make it.

    Args:
        folder: where the data lie.
        split: "train" or "validation".

    Raises:
        InputError: when there are no data.
        CheckpointError: when files are missing, cut short or not of the sizes that ``data.json``
            names.
    """
    check_choice("split", split, SPLITS)
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(
            expected=f"a token-data folder with {MANIFEST}",
            got=f"{folder}, which has none",
            fix="Make it with MicroLanguages(...).write(folder, ...) or build_corpus(folder, ...).",
        )
    tokens, labels = (_open(folder / f"{split}.{kind}.npy") for kind in ("tokens", "labels"))
    wanted = (manifest["n"][split], manifest["seq_len"])
    if tokens.shape != wanted or labels.shape != wanted:
        raise CheckpointError(
            expected=f"{split} arrays of shape {wanted} in {folder}",
            got=f"tokens {tokens.shape} and labels {labels.shape}",
            fix="Delete the folder and make the data anew.",
        )
    return TokenData(
        tokens=tokens,
        labels=labels,
        vocab_size=manifest["vocab_size"],
        n_topics=manifest["n_topics"],
        seq_len=manifest["seq_len"],
        split=split,
        folder=folder,
        settings=manifest["settings"],
        info={**manifest["settings"], **manifest["facts"]},
    )


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What ``data.json`` says; None where there is none.

    Raises:
        CheckpointError: when it cannot be read or was not written by headspec.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(folder / MANIFEST, str(error)) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _unreadable(folder / MANIFEST, "another format")
    missing = [key for key in _KEYS if key not in manifest]
    if missing or any(split not in manifest["n"] for split in SPLITS):
        raise _unreadable(folder / MANIFEST, f"without {', '.join(missing or SPLITS)}")
    return manifest


def _open(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _unreadable(path, str(error)) from error


def _unreadable(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        expected=f"{path.name} as headspec writes it",
        got=f"{path}: {why}",
        fix="Delete the folder and make the data anew.",
    )
