"""MNIST's IDX files: read exactly, and refused with words where they are damaged."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from headspec import CheckpointError, read_idx


def idx_bytes(array):
    """The format, written from its description."""
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


@given(arrays(np.uint8, array_shapes(max_dims=4, max_side=5), elements=st.integers(0, 255)))
def test_what_is_written_comes_back(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(idx_bytes(array))
    assert np.array_equal(read_idx(path), array)
    packed = path.with_suffix(".gz")
    packed.write_bytes(gzip.compress(idx_bytes(array)))
    assert np.array_equal(read_idx(packed), array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG....", "two zero bytes, a type and a number of axes"),
        (b"", "two zero bytes"),
        (bytes([0, 0, 13, 1, 0, 0, 0, 1, 0, 0, 0, 0]), r"values of type 08 .* got type 0d"),
        (bytes([0, 0, 8, 3, 0, 0, 0, 2]), "the lengths of 3 axes"),
        (idx_bytes(np.zeros((4, 3, 3)))[:-1], r"36 values, as its shape \[4, 3, 3\] says.* got 35"),
        (idx_bytes(np.zeros(4)) + b"\0", r"4 values.* got 5"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path, content, message):
    (tmp_path / "labels").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        read_idx(tmp_path / "labels")
    assert str(tmp_path / "labels") in str(error.value)


def test_a_gzip_file_cut_short_or_no_gzip_at_all(tmp_path):
    whole = gzip.compress(idx_bytes(np.arange(200).reshape(2, 10, 10)))
    for content in (whole[: len(whole) // 2], b"not gzip", idx_bytes(np.zeros(3))):
        (tmp_path / "images.gz").write_bytes(content)
        with pytest.raises(CheckpointError, match="a readable file"):
            read_idx(tmp_path / "images.gz")


def test_a_gzip_file_with_any_byte_changed_is_damaged(tmp_path):
    whole = gzip.compress(idx_bytes(np.arange(200).reshape(2, 10, 10)))
    for place in range(10, len(whole)):
        changed = bytes([*whole[:place], whole[place] ^ 0xFF, *whole[place + 1 :]])
        (tmp_path / "images.gz").write_bytes(changed)
        with pytest.raises(CheckpointError, match="in the IDX file"):
            read_idx(tmp_path / "images.gz")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match="a readable file"):
        read_idx(tmp_path / "nothing")


def test_taking_a_plain_dump_for_images_would_shift_every_pixel(tmp_path):
    """Negative control: the header, read as pixels, moves all of them by 16 places."""
    images = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4)
    (tmp_path / "images").write_bytes(idx_bytes(images))
    naive = np.frombuffer((tmp_path / "images").read_bytes(), np.uint8)[:32].reshape(2, 4, 4)
    assert not np.array_equal(naive, images)
    assert np.array_equal(read_idx(tmp_path / "images"), images)
