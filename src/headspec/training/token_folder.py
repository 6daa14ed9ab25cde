"""Writing token data: whole or not at all, once, and shared by everyone who asks for the same."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from headspec.errors import InputError
from headspec.training.token_data import (
    FORMAT,
    MANIFEST,
    LabelledTokens,
    TokenData,
    open_token_data,
    read_manifest,
)

Chunks = tuple[int, Callable[[], Iterable[LabelledTokens]]]
"""How many sequences there are, and a function that gives them piece by piece."""

_STALE = 24 * 3600.0  # seconds after which a temporary folder was left behind by a killed process


def write_token_data(
    folder: str | Path,
    *,
    train: LabelledTokens | Chunks,
    validation: LabelledTokens | Chunks,
    vocab_size: int,
    n_topics: int,
    seq_len: int | None = None,
    settings: Mapping[str, Any] | None = None,
    facts: Callable[[], Mapping[str, Any]] | None = None,
    beside: Callable[[Path], None] | None = None,
) -> TokenData:
    """Write both splits to a token-data folder, or find that the same data lie there.

    Everything is written to a temporary folder beside the target, flushed and renamed at the
    end: an interrupted run leaves nothing that looks whole. Two processes may write the same
    data at once; both end with the folder of the one that finished first.

    Args:
        folder: made, or an empty one, or one that holds the same data.
        train, validation: arrays, or the number of sequences and a function that yields them.
        vocab_size: every token is below.
        n_topics: every label is below; at most 255.
        seq_len: tokens a sequence; needed where no arrays are given.
        settings: what determines the data (JSON values); None: a hash of the arrays.
        facts: called once the data are written; what it returns is kept in `TokenData.info`.
        beside: called with the temporary folder, to put further files beside the data.

    Returns:
        The train split.

    Raises:
        InputError: for tokens or labels out of range, rows of another length, or a folder that
            holds something else; the message names the settings that differ.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "data"
        >>> rows = LabelledTokens(np.array([[3, 4], [4, 3]]), np.array([[0, 0], [1, 1]]))
        >>> data = write_token_data(folder, train=rows, validation=rows, vocab_size=5, n_topics=2)
        >>> data.tokens.tolist(), data.dominant_topics.tolist()
        ([[3, 4], [4, 3]], [0, 1])
    """
    folder = Path(folder)
    splits = {"train": train, "validation": validation}
    if seq_len is None:
        seq_len = _length_of(splits)
    counts = {
        name: len(rows.tokens) if isinstance(rows, LabelledTokens) else rows[0]
        for name, rows in splits.items()
    }
    if min(counts.values()) < 1:
        raise _misfit("at least one sequence in each split", str(counts))
    described = {"format": FORMAT, "n": counts, "seq_len": seq_len}
    described |= {"vocab_size": vocab_size, "n_topics": n_topics}
    described["settings"] = dict(settings) if settings is not None else _hashes(splits)
    described = json.loads(json.dumps(described))
    sizes = {name: described[name] for name in ("vocab_size", "n_topics", "seq_len")}
    sizes |= {f"n_{name}": count for name, count in counts.items()}
    if holds_same(folder, described["settings"], **sizes):
        return open_token_data(folder)
    with _renamed_when_whole(folder) as temporary:
        for name, rows in splits.items():
            chunks = [rows] if isinstance(rows, LabelledTokens) else rows[1]()
            _write_split(temporary, name, chunks, described)
        if beside is not None:
            beside(temporary)
        described["facts"] = dict(facts()) if facts is not None else {}
        with (temporary / MANIFEST).open("w", encoding="utf-8") as file:
            json.dump(described, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
    holds_same(folder, described["settings"], **sizes)  # another process may have come first
    return open_token_data(folder)


def holds_same(folder: Path, settings: Mapping[str, Any], **sizes: int) -> bool:
    """Whether a folder holds data of these settings; False for none or an empty one.

    Args:
        folder: of token data.
        settings: what determined them.
        **sizes: `vocab_size`, `n_topics`, `seq_len`, `n_train`, `n_validation`, as far as known.

    Raises:
        InputError: when it holds anything else.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise InputError(
                expected="a new or empty folder, or one with token data",
                got=f"{folder}, which holds other files",
                fix="Choose another folder.",
            )
        return False
    counts = {f"n_{name}": count for name, count in manifest["n"].items()}
    of_folder = {**manifest, **counts}
    there = {name: of_folder[name] for name in sizes} | manifest["settings"]
    wanted = {**sizes, **settings}
    differing = [
        f"{name} is {there.get(name)!r} and not {wanted.get(name)!r}"
        for name in sorted({*there, *wanted})
        if there.get(name) != wanted.get(name)
    ]
    if differing:
        raise InputError(
            expected=f"data of the settings asked for in {folder}",
            got="; ".join(differing[:5]),
            fix="Choose another folder, or delete this one to make it anew.",
        )
    return True


def _length_of(splits: Mapping[str, LabelledTokens | Chunks]) -> int:
    for rows in splits.values():
        if isinstance(rows, LabelledTokens):
            return int(rows.tokens.shape[1])
    raise InputError(expected="seq_len", got="chunks only", fix="Pass seq_len=.")


def _hashes(splits: Mapping[str, LabelledTokens | Chunks]) -> dict[str, str]:
    """SHA-256 of each array given, which stands for the settings it was made with."""
    hashes = {"source": "arrays"}
    for name, rows in splits.items():
        if not isinstance(rows, LabelledTokens):
            raise InputError(
                expected="settings of data given in chunks", got="none", fix="Pass settings=."
            )
        for kind, array in (("tokens", rows.tokens), ("labels", rows.labels)):
            whole = np.ascontiguousarray(array, dtype=np.int64)
            hashes[f"{name}_{kind}_sha256"] = hashlib.sha256(whole.tobytes()).hexdigest()
    return hashes


def _write_split(
    folder: Path, name: str, chunks: Iterable[LabelledTokens], described: Mapping[str, Any]
) -> None:
    shape = (described["n"][name], described["seq_len"])
    dtypes: dict[str, type] = {
        "tokens": np.uint16 if described["vocab_size"] <= 1 << 16 else np.uint32
    }
    dtypes["labels"] = np.uint8
    limits = {"tokens": described["vocab_size"], "labels": min(described["n_topics"], 255)}
    arrays = {
        kind: np.lib.format.open_memmap(
            folder / f"{name}.{kind}.npy", mode="w+", dtype=dtype, shape=shape
        )
        for kind, dtype in dtypes.items()
    }
    first = 0
    for rows in chunks:
        last = first + len(rows.tokens)
        for kind, array in arrays.items():
            values = getattr(rows, kind)
            if values.shape[1:] != shape[1:] or last > shape[0]:
                raise _misfit(f"{shape[0]} rows of {shape[1]} {kind}", f"{values.shape}")
            if values.size and (values.min() < 0 or values.max() >= limits[kind]):
                raise _misfit(
                    f"{kind} from 0 to {limits[kind] - 1}", f"{values.min()} to {values.max()}"
                )
            array[first:last] = values
        first = last
    if first != shape[0]:
        raise _misfit(f"{shape[0]} rows in {name}", f"{first}")
    for array in arrays.values():
        array.flush()


def _misfit(expected: str, got: str) -> InputError:
    return InputError(expected=expected, got=got, fix="Make the arrays fit what is said of them.")


@contextmanager
def _renamed_when_whole(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its name once the block has ended well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{folder.name}.part-"
    for left in folder.parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE:
                shutil.rmtree(left)
    temporary = folder.parent / f"{prefix}{uuid.uuid4().hex}"
    temporary.mkdir()
    try:
        yield temporary
        with contextlib.suppress(OSError):  # not empty: another process was first
            os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
