"""Write results to files that give them back exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from headspec.errors import CheckpointError, InputError
from headspec.results.files import FORMATS, FileFormat, write_atomically
from headspec.results.provenance import Provenance


def save(result: Any, path: str | Path, *, provenance: Provenance | None = None) -> Path:
    """Write a tidy frame or a headspec result to a file that `load` gives back exactly.

    The file appears whole or not at all: it is written beside its place, flushed to the disk and
    moved there.

    Args:
        result: a pandas frame, or a frozen dataclass of headspec whose fields hold numbers, text,
            arrays, tensors, containers, None or further such dataclasses.
        path: a file ending in `.json` or `.parquet`; missing folders are made.
        provenance: where the result comes from, see `Provenance.collect`.

    Returns:
        The path written.

    Raises:
        InputError: for another suffix, or for values that the file could not hold exactly.
    """
    path = Path(path)
    if not isinstance(result, pd.DataFrame) and (
        isinstance(result, type) or not is_dataclass(result)
    ):
        raise InputError(
            expected="a pandas frame or a result of headspec (a frozen dataclass)",
            got=f"an object of type {type(result).__name__}",
            fix="Turn it into a frame first, for instance with `results.tidy(...)`.",
        )
    write_atomically(path, _format_of(path).dumps(result, provenance))
    return path


def load(path: str | Path) -> Any:
    """Read what `save` wrote: the same frame, or an equal object of the same class.

    Raises:
        InputError: when there is no such file, or its suffix is not `.json` or `.parquet`.
        CheckpointError: when the file is damaged or was not written by `save`.
    """
    return _read(Path(path), _format_of(Path(path)).loads)


def load_provenance(path: str | Path) -> Provenance | None:
    """Read where the result in a file comes from; None if it was saved without provenance.

    Raises:
        InputError: when there is no such file, or its suffix is not `.json` or `.parquet`.
        CheckpointError: when the file is damaged or was not written by `save`.
    """
    return _read(Path(path), _format_of(Path(path)).loads_provenance)


def _format_of(path: Path) -> FileFormat:
    if path.suffix not in FORMATS:
        raise InputError(
            expected="a file name ending in .json or .parquet",
            got=f"{path.name!r}",
            fix=f"Call it {path.name + '.json'!r}, for instance.",
        )
    return FORMATS[path.suffix]


def _read(path: Path, reader: Callable[[bytes], Any]) -> Any:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            expected="a results file",
            got=f"{path}, which cannot be read ({error.strerror})",
            fix="Check the path; `results.save` returns the one it wrote.",
        ) from error
    try:
        return reader(content)
    except CheckpointError as error:
        raise CheckpointError(
            expected=error.expected, got=f"in {path}: {error.got}", fix=error.fix
        ) from error
    except Exception as error:  # whatever a damaged file makes the parsers do
        raise CheckpointError(
            expected="a whole file that `results.save` wrote",
            got=f"{path}, which is damaged or something else ({type(error).__name__}: {error})",
            fix="Delete it and compute the result again.",
        ) from error
