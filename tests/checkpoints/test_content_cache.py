"""What the cache gives back is what was put in, or nothing."""

import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headspec.checkpoints.content_cache import ContentCache


def only_file(root: Path) -> Path:
    (path,) = [path for path in root.rglob("*") if path.is_file()]
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.text(), st.text(), st.binary())
def test_round_trip(tmp_path: Path, content: str, piece: str, payload: bytes) -> None:
    cache = ContentCache(tmp_path)
    cache.store(content, piece, payload)
    assert cache.load(content, piece) == payload
    assert cache.load(content, piece + "x") is None


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_damaged_pieces_count_as_absent(tmp_path: Path, damage: str) -> None:
    cache = ContentCache(tmp_path)
    cache.store("file", "tensor", b"numbers" * 100)
    path = only_file(tmp_path)
    stored = path.read_bytes()
    broken = {"truncate": stored[:-1], "flip": stored[:-1] + b"!", "empty": b""}
    path.write_bytes(broken[damage])
    assert broken[damage] != stored
    assert cache.load("file", "tensor") is None
    assert not path.exists()
    cache.store("file", "tensor", b"again")
    assert cache.load("file", "tensor") == b"again"


def test_a_kill_while_writing_leaves_nothing_to_read(tmp_path: Path) -> None:
    """The process dies after half of the bytes are on disk, before the rename."""
    code = f"""
import os, pathlib
from headspec.checkpoints import content_cache
os.replace = lambda *paths: os._exit(9)
content_cache.ContentCache(pathlib.Path({str(tmp_path)!r})).store("file", "tensor", b"x" * 10000)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    leftover = only_file(tmp_path)
    assert leftover.name.startswith(".tmp-")
    cache = ContentCache(tmp_path)
    assert cache.load("file", "tensor") is None
    cache.store("file", "tensor", b"whole")
    assert cache.load("file", "tensor") == b"whole"
    assert leftover.exists()  # perhaps another process is still writing it
    os.utime(leftover, (time.time() - 7200,) * 2)
    cache.store("file", "tensor", b"whole")
    assert not leftover.exists()


def write_and_read(root: Path, payload: bytes) -> int:
    cache, wrong = ContentCache(root), 0
    for _ in range(50):
        cache.store("file", "tensor", payload)
        found = cache.load("file", "tensor")
        wrong += found is None or len(set(found)) != 1 or len(found) not in (200_000, 300_000)
    return wrong


def test_several_processes_share_a_cache(tmp_path: Path) -> None:
    """Writers of different content at the same place: readers see one or the other, never both."""
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        payloads = [b"a" * 200_000, b"b" * 300_000, b"c" * 200_000]
        assert list(pool.map(write_and_read, [tmp_path] * 3, payloads)) == [0, 0, 0]


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.warns(UserWarning, match="cache_dir"):
        ContentCache(blocked).store("file", "tensor", b"bytes")
    assert ContentCache(blocked).load("file", "tensor") is None
