"""Files of tensors: what they hold, and single tensors out of them without reading the rest."""

from __future__ import annotations

import json
import pickle
import re
import struct
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from headspec.errors import CheckpointError

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""The files a checkpoint may start from, the preferred first: safetensors where there is a
choice."""

MAX_HEADER = 100_000_000
"""Bytes; the limit that the safetensors format itself sets."""


@dataclass(frozen=True)
class TensorSpec:
    """Where one tensor lies in a safetensors file.

    Attributes:
        dtype: the format's name, such as `"F16"`.
        shape: its shape.
        start, stop: first and one-past-last byte, counted from the start of the file.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file.

    Attributes:
        tensors: name -> where it lies.
        n_bytes: length that the whole file must have.
    """

    tensors: Mapping[str, TensorSpec]
    n_bytes: int


def header_length(first: bytes, *, origin: str) -> int:
    """Length in bytes of prefix and header, from the first eight bytes of a safetensors file."""
    length = struct.unpack("<Q", first[:8])[0] if len(first) >= 8 else 0
    if not 2 <= length <= MAX_HEADER:
        raise _damaged(origin, f"a header length of {length} bytes")
    return 8 + length


def parse_header(data: bytes, *, origin: str) -> Header:
    """Read a safetensors header.

    Args:
        data: the file from its first byte to the end of the header, or further.
        origin: what to call the file in messages.

    Raises:
        CheckpointError: the bytes are not such a header, or its tensors overlap or leave gaps.
    """
    end = header_length(data, origin=origin)
    try:
        entries = json.loads(data[8:end].decode("utf-8"))
        entries.pop("__metadata__", None)
        specs = {
            name: TensorSpec(
                dtype=str(entry["dtype"]),
                shape=tuple(int(n) for n in entry["shape"]),
                start=end + int(entry["data_offsets"][0]),
                stop=end + int(entry["data_offsets"][1]),
            )
            for name, entry in entries.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _damaged(origin, f"a header that cannot be read ({error!r:.120})") from error
    position = end
    for name, spec in sorted(specs.items(), key=lambda item: (item[1].start, item[1].stop)):
        if spec.start != position or spec.stop < spec.start:
            raise _damaged(origin, f"offsets of tensor {name!r} that do not fit")
        position = spec.stop
    return Header(tensors=specs, n_bytes=position)


def pack_tensor(name: str, spec: TensorSpec, data: bytes) -> bytes:
    """One tensor as a safetensors file of its own."""
    entry = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [0, len(data)]}
    header = json.dumps({name: entry}).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data


def unpack_tensor(packed: bytes, *, origin: str) -> Tensor:
    """The tensor that `pack_tensor` packed."""
    with explained(origin):
        (tensor,) = safetensors.torch.load(packed).values()
    return tensor


def read_header(path: Path) -> Header:
    """The header of a safetensors file on disk (which may be shorter than the header says)."""
    with explained(str(path)), path.open("rb") as file:
        first = file.read(8)
        rest = file.read(header_length(first, origin=str(path)) - 8)
    return parse_header(first + rest, origin=str(path))


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """name -> shape of every tensor in a file, without reading safetensors' data."""
    if path.suffix == ".safetensors":
        return {name: spec.shape for name, spec in read_header(path).tensors.items()}
    return {name: tuple(tensor.shape) for name, tensor in _load_bin(path).items()}


def read_tensors(path: Path, names: Iterable[str]) -> dict[str, Tensor]:
    """Read single tensors of a file; the other tensors' data is not read.

    Args:
        path: a `.safetensors` file, or a PyTorch file, which is read with `weights_only=True`
            and memory-mapped.
        names: the tensors wanted.

    Returns:
        name -> tensor, as stored (dtype included), in memory of its own.

    Raises:
        CheckpointError: the file is missing, truncated, damaged, or lacks a tensor.
    """
    wanted = list(names)
    with explained(str(path)):
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                _require(wanted, file.keys(), path)
                return {name: file.get_tensor(name) for name in wanted}
    stored = _load_bin(path)
    _require(wanted, stored, path)
    return {name: stored[name].clone() for name in wanted}


def iterate_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a file, one at a time, so that memory holds one tensor and not the file."""
    with explained(str(path)):
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - the handle is not a mapping
                    yield name, file.get_tensor(name)
            return
    yield from _load_bin(path).items()


def weight_entry(files: Collection[str]) -> str | None:
    """Which of a checkpoint's files its weights start from; None if it has none."""
    return next((name for name in WEIGHT_FILES if name in files), None)


def parse_index(text: str, *, origin: str) -> dict[str, str]:
    """tensor -> file, from a `*.index.json` of a sharded checkpoint."""
    try:
        weight_map = json.loads(text)["weight_map"]
        return {str(name): str(file) for name, file in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(origin, f"an index that cannot be read ({error!r:.120})") from error


def _load_bin(path: Path) -> dict[str, Tensor]:
    with explained(str(path)), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # storages of old files, inside torch
        try:
            stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:  # files older than PyTorch 1.6 cannot be memory-mapped
            if "mmap" not in str(error):
                raise
            stored = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(stored, Mapping):
        raise _damaged(str(path), f"a {type(stored).__name__} instead of named tensors")
    return {name: value for name, value in stored.items() if isinstance(value, Tensor)}


@contextmanager
def explained(origin: str) -> Iterator[None]:
    """Whatever readers raise about a file, as a CheckpointError that names it."""
    try:
        yield
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(
            expected=f"the file {origin}",
            got="no such file",
            fix="Copy or download the checkpoint again; suite.verify() lists what else is missing.",
        ) from error
    except pickle.UnpicklingError as error:  # cut short, a name may read as another one
        reason = re.search(r"Unsupported \w+: [\w .]+", str(error))
        raise CheckpointError(
            expected=f"a file of plain tensors at {origin}",
            got=reason[0] if reason else f"{error!s:.200}",
            fix="It is truncated or damaged, or holds code, which headspec never runs: copy or "
            "download it again, or convert it to safetensors.",
        ) from error
    except Exception as error:  # damaged files make torch.load raise almost anything
        raise _damaged(origin, f"{type(error).__name__}: {error!s:.200}") from error


def _require(wanted: Iterable[str], stored: Collection[str], path: Path) -> None:
    missing = [name for name in wanted if name not in set(stored)]
    if missing:
        raise CheckpointError(
            expected=f"the tensors {', '.join(missing)} in {path}",
            got=f"{len(stored)} other tensors",
            fix="The index of this checkpoint and its files do not belong together: copy or "
            "download it again.",
        )


def _damaged(origin: str, got: str) -> CheckpointError:
    return CheckpointError(
        expected=f"a complete file of tensors at {origin}",
        got=got,
        fix="The file is truncated or damaged: copy or download it again; suite.verify() checks "
        "every step.",
    )
