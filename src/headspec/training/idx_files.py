"""MNIST's IDX files: arrays of unsigned bytes, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from headspec.errors import CheckpointError

_UBYTE = 0x08


def read_idx(path: str | os.PathLike[str]) -> UInt8[np.ndarray, ...]:
    """Read an IDX file of unsigned bytes, as MNIST and its like are distributed.

    The format: two zero bytes, the type (08: unsigned byte), the number of axes, the length of
    each axis as a big-endian 32-bit number, then the values, last axis fastest.

    Args:
        path: the file; gzipped where its name ends in `.gz`.

    Returns:
        The array, of shape `n` for labels and `n height width` for images.

    Raises:
        CheckpointError: no IDX file, another type, or fewer or more values than it says.

    References:
        LeCun, Cortes and Burges, The MNIST database of handwritten digits.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/labels"
        >>> _ = Path(path).write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 0, 4]))
        >>> read_idx(path).tolist()
        [5, 0, 4]
    """
    path = Path(path)
    content = _content(path)
    if len(content) < 4 or content[:2] != b"\0\0":
        raise _damaged(path, "two zero bytes, a type and a number of axes", content[:4].hex(" "))
    kind, n_axes = content[2], content[3]
    if kind != _UBYTE:
        raise _damaged(path, "values of type 08 (unsigned byte)", f"type {kind:02x}")
    start = 4 + 4 * n_axes
    if n_axes < 1 or len(content) < start:
        raise _damaged(path, f"the lengths of {n_axes} axes", f"{len(content)} bytes in all")
    shape = struct.unpack(f">{n_axes}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise _damaged(
            path,
            f"{math.prod(shape):,} values, as its shape {list(shape)} says",
            f"{len(content) - start:,}",
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _content(path: Path) -> bytes:
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                return file.read()
        return path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:  # gzip raises any of them
        raise _damaged(path, "a readable file", f"{type(error).__name__}: {error}") from error


def _damaged(path: Path, expected: str, got: str) -> CheckpointError:
    return CheckpointError(
        expected=f"{expected} in the IDX file {path}", got=got, fix="Get the file again."
    )
