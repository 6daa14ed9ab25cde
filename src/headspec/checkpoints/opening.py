"""What a name or path given by the user stands for."""

from __future__ import annotations

import os
from pathlib import Path

from headspec.checkpoints.hub import HubSource
from headspec.checkpoints.local import LocalSource
from headspec.checkpoints.micro import SIZES, micro_path
from headspec.checkpoints.source import Source
from headspec.errors import InputError


def open_source(
    name_or_path: str | os.PathLike[str],
    *,
    revision_format: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    offline: bool = False,
) -> Source:
    """The place that a name stands for: an embedded suite, else a folder, else the Hub.

    Args and raises: see `headspec.open_suite`.
    """
    text = os.fspath(name_or_path)
    if text in SIZES:
        tokenizer = micro_path("") / "tokenizer"
        return LocalSource(micro_path(text), name=text, tokenizer_folder=tokenizer)
    folder = Path(text).expanduser()
    if folder.is_dir():
        return LocalSource(folder, revision_format=revision_format)
    if isinstance(name_or_path, os.PathLike) or folder.is_absolute() or text.startswith((".", "~")):
        raise InputError(
            expected="a folder with a sub-folder for each training step",
            got=f"{text!r}, which is not a folder",
            fix="Check the path.",
        )
    return HubSource(text, revision_format=revision_format, cache_dir=cache_dir, offline=offline)
