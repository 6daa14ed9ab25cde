"""Files and folders that are there whole or not at all, also after a crash."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

_SUFFIX = ".partial"


def write_file(path: Path, write: Callable[[Path], None]) -> None:
    """Write beside `path`, flush to the disk, rename.

    Args:
        path: where the file shall lie; an old one is replaced.
        write: given the temporary path, writes the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}{_SUFFIX}")
    write(partial)
    _to_disk(partial)
    os.replace(partial, path)
    _to_disk(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write_file(path, lambda partial: _write_utf8(partial, text))


def _write_utf8(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Write a folder beside `path`, flush it to the disk, rename; an old folder is replaced.

    Args:
        path: where the folder shall lie.
        write: given the temporary folder, which exists and is empty, fills it.
    """
    partial = path.with_name(f".{path.name}{_SUFFIX}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write(partial)
    for file in partial.iterdir():
        _to_disk(file)
    _to_disk(partial)
    if path.exists():
        remove_folder(path)
    os.replace(partial, path)
    _to_disk(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder so that it is never seen half empty: renamed first."""
    doomed = path.with_name(f".{path.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(path, doomed)
    shutil.rmtree(doomed)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left unfinished in a folder."""
    for path in folder.glob(".*"):
        if path.name.endswith((_SUFFIX, ".removed")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _to_disk(path: Path) -> None:
    """fsync; where the file system or platform offers none for folders, go on without."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
