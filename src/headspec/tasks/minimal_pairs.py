"""Minimal pairs: an acceptable sentence and one that differs in what makes it unacceptable."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from headspec.errors import InputError
from headspec.tasks.distinct import Duplicates, keep_distinct

_TEXTS = ("sentence_good", "sentence_bad")


@dataclass(frozen=True)
class MinimalPair:
    """Two sentences.

    Attributes:
        good, bad: the acceptable one and the other.
        uid: the paradigm, such as `"anaphor_gender_agreement"`.
        field, term: the wider kind, such as `"morphology"` and `"anaphor_agreement"`.
    """

    good: str
    bad: str
    uid: str = ""
    field: str = ""
    term: str = ""


@dataclass(frozen=True)
class MinimalPairs:
    """Distinct minimal pairs.

    Attributes:
        name: for tables and figures.
        pairs: at least one.
        n_dropped: repeats that were left out.
    """

    name: str
    pairs: tuple[MinimalPair, ...]
    n_dropped: int = 0

    def __post_init__(self) -> None:
        if not self.pairs:
            raise InputError(expected="at least one pair", got="none", fix="Add pairs.")

    @property
    def n(self) -> int:
        """How many pairs."""
        return len(self.pairs)

    @staticmethod
    def from_pairs(
        pairs: Iterable[MinimalPair | Mapping[str, Any] | Sequence[str]],
        *,
        name: str = "minimal_pairs",
        duplicates: Duplicates = "raise",
    ) -> MinimalPairs:
        """Pairs of your own: `MinimalPair`s, BLiMP's mappings, or (good, bad).

        Raises:
            InputError: a missing or empty sentence, two that are the same, or a repeated pair.

        Example:
            >>> MinimalPairs.from_pairs([("The cats sleep.", "The cats sleeps.")]).n
            1
        """
        named = ((f"pair {i}", pair) for i, pair in enumerate(pairs))
        return _collect(named, name=name, duplicates=duplicates)

    def to_frame(self) -> pd.DataFrame:
        """One row a pair: `uid field term good bad`."""
        rows = [
            {k: getattr(p, k) for k in ("uid", "field", "term", "good", "bad")} for p in self.pairs
        ]
        return pd.DataFrame(rows)


def load_minimal_pairs(
    path: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    name: str | None = None,
    duplicates: Duplicates = "raise",
) -> MinimalPairs:
    """Read minimal pairs in BLiMP's format: one JSON object a line.

    Keys `sentence_good` and `sentence_bad` are needed; `UID`, `field` and `linguistics_term` are
    kept; others are ignored.

    Args:
        path: a `.jsonl` file, a folder of them, or a list of files.
        name: of the folder or file, unless given; of BLiMP's, `"blimp"` for `blimp/data`, and
            `"blimp_{file}"` for a file of it, as lm-eval calls them.
        duplicates: what to do with a pair that stands twice, within or across files: `"raise"`, or
            `"drop"`, counted in `n_dropped`. A pair scored twice is one observation.

    Raises:
        InputError: no such file, no JSON, a missing sentence, or a repeat, by file and line.

    References:
        Warstadt et al., "BLiMP: the benchmark of linguistic minimal pairs for English", 2020.

    Example:
        >>> pairs = load_minimal_pairs("blimp/data")                     # doctest: +SKIP
        >>> pairs.n                                                      # doctest: +SKIP
        67000
    """
    listed = [path] if isinstance(path, str | os.PathLike) else list(path)
    files: list[Path] = []
    for one in map(Path, listed):
        files += sorted(one.glob("*.jsonl")) if one.is_dir() else [one]
    if not files or not all(file.is_file() for file in files):
        gone = next((str(file) for file in files if not file.is_file()), f"none in {listed}")
        raise InputError(
            expected="files of minimal pairs (.jsonl)", got=gone, fix="Check the path."
        )
    rows = (row for file in files for row in _lines(file))
    return _collect(rows, name=name or _name(Path(listed[0]), len(listed)), duplicates=duplicates)


def _name(first: Path, count: int) -> str:
    parts = [part.lower() for part in first.resolve().parts]
    of_blimp = not {"blimp", "blimp-master", "blimp-main"}.isdisjoint(parts)
    if first.is_dir() or count > 1:
        return "blimp" if of_blimp else first.stem
    return f"blimp_{first.stem}" if of_blimp else first.stem


def _lines(file: Path) -> Iterable[tuple[str, Any]]:
    # By bytes: a text's own `splitlines` also cuts at U+2028, which JSON leaves as it is.
    for number, line in enumerate(file.read_bytes().split(b"\n"), 1):
        if line.strip():
            where = f"{file.name}, line {number}"
            try:
                yield where, json.loads(line.decode("utf-8-sig"))
            except ValueError as error:
                raise InputError(
                    expected="one JSON object a line",
                    got=f"{where}: {error}",
                    fix="The file may be truncated; download it again.",
                ) from error


def _collect(rows: Iterable[tuple[str, Any]], *, name: str, duplicates: Duplicates) -> MinimalPairs:
    pairs, n_dropped = keep_distinct(
        ((where, _as_pair(row, where)) for where, row in rows),
        lambda pair: (pair.good, pair.bad),
        duplicates=duplicates,
        expected="distinct pairs",
    )
    return MinimalPairs(name, pairs, n_dropped)


def _as_pair(row: Any, where: str) -> MinimalPair:
    if isinstance(row, MinimalPair):
        pair = row
    elif isinstance(row, Mapping):
        good, bad = (row.get(key) for key in _TEXTS)
        further = (str(row.get(key) or "") for key in ("UID", "field", "linguistics_term"))
        pair = MinimalPair(good or "", bad or "", *further)
    elif isinstance(row, Sequence) and not isinstance(row, str) and len(row) == 2:
        pair = MinimalPair(*row)
    else:
        pair = MinimalPair("", "")
    texts = (pair.good, pair.bad)
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise InputError(
            expected="sentence_good and sentence_bad",
            got=f"{where}: {row!r}",
            fix="Both must be texts that are not empty.",
        )
    if pair.good == pair.bad:
        raise InputError(
            expected="two sentences that differ", got=f"{where}: {pair.good!r}", fix="Leave it out."
        )
    return pair
