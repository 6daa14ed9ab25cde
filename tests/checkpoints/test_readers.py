"""Reading single tensors out of files, and what is said about files that are damaged."""

from __future__ import annotations

import json
import struct
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from headspec.checkpoints import readers
from headspec.errors import CheckpointError

TENSORS = {
    "a": torch.arange(6, dtype=torch.float16).reshape(2, 3),
    "b.bias": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "c": torch.tensor(True),
    "d": torch.zeros(0, 4),
    "e": torch.arange(3, dtype=torch.int64),
}


@pytest.fixture(params=["safetensors", "bin", "old_bin"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "safetensors":
        save_file(TENSORS, tmp_path / "model.safetensors")
        return tmp_path / "model.safetensors"
    new = request.param == "bin"
    target = tmp_path / "pytorch_model.bin"
    torch.save(OrderedDict(TENSORS), target, _use_new_zipfile_serialization=new)
    return target


def test_single_tensors(path: Path) -> None:
    assert readers.tensor_shapes(path) == {k: tuple(t.shape) for k, t in TENSORS.items()}
    found = readers.read_tensors(path, ["b.bias", "a"])
    assert list(found) == ["b.bias", "a"]
    for name, tensor in found.items():
        assert tensor.dtype == TENSORS[name].dtype
        assert torch.equal(tensor, TENSORS[name])
    everything = dict(readers.iterate_tensors(path))
    assert everything.keys() == TENSORS.keys()
    assert all(torch.equal(everything[name], TENSORS[name]) for name in TENSORS)
    with pytest.raises(CheckpointError, match="the tensors z in"):
        readers.read_tensors(path, ["a", "z"])


def test_what_is_read_is_not_the_file(path: Path) -> None:
    """Changing a tensor changes neither the file nor the next read."""
    readers.read_tensors(path, ["a"])["a"].fill_(9.0)
    assert torch.equal(readers.read_tensors(path, ["a"])["a"], TENSORS["a"])


@pytest.mark.parametrize("part", [0, 3, 50, 0.5, -1])
def test_truncated_files(path: Path, part: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data)) if part == 0.5 else int(part)])
    with pytest.raises(CheckpointError, match=r"truncated or damaged|no such file"):
        readers.read_tensors(path, list(TENSORS))
    path.unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        readers.read_tensors(path, ["a"])


def test_code_in_files_is_not_run(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "attacked",))

    torch.save({"a": Attack()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(
        CheckpointError, match=r"GLOBAL .*\. It is .* holds code, which headspec never runs"
    ):
        readers.read_tensors(tmp_path / "pytorch_model.bin", ["a"])
    assert not (tmp_path / "attacked").exists()


def header(entries: object) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


def test_headers_agree_with_safetensors(tmp_path: Path) -> None:
    data = save(TENSORS, metadata={"format": "pt"})
    parsed = readers.parse_header(data, origin="x")
    assert parsed.n_bytes == len(data)
    for name, spec in parsed.tensors.items():
        packed = readers.pack_tensor(name, spec, data[spec.start : spec.stop])
        tensor = readers.unpack_tensor(packed, origin="x")
        assert tensor.dtype == TENSORS[name].dtype
        assert torch.equal(tensor, TENSORS[name])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        struct.pack("<Q", 1),
        struct.pack("<Q", 2**40) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 4) + b"\xff\xfe\xfd\xfc",
        header({"a": {"dtype": "F32", "shape": [1]}}),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4]}}),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, -4]}}),
        header({
            "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        }),
    ],
)  # fmt: skip
def test_headers_that_are_not(data: bytes) -> None:
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        readers.parse_header(data, origin="x")


@settings(max_examples=200)
@given(st.binary(max_size=200), st.integers(0, 400))
def test_noise_never_becomes_a_header_by_accident(noise: bytes, position: int) -> None:
    """Flipped bytes give either a clear error or a header of the same tensors' layout."""
    data = bytearray(save(TENSORS))
    data[position : position + len(noise)] = noise
    try:
        parsed = readers.parse_header(bytes(data), origin="x")
    except CheckpointError:
        return
    assert all(0 < spec.start <= spec.stop <= parsed.n_bytes for spec in parsed.tensors.values())


def test_an_index_that_is_not() -> None:
    for text in ("", "[]", "{}", '{"weight_map": [1]}'):
        with pytest.raises(CheckpointError, match="an index that cannot be read"):
            readers.parse_index(text, origin="x")


def test_safetensors_where_there_is_a_choice() -> None:
    assert readers.weight_entry(["pytorch_model.bin", "model.safetensors"]) == "model.safetensors"
    assert readers.weight_entry(["config.json"]) is None
