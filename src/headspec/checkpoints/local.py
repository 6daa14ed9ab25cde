"""Checkpoints in a folder: one sub-folder a step."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from headspec.checkpoints import readers
from headspec.checkpoints.source import TOKENIZER_FILES, FileInfo, Source
from headspec.checkpoints.steps import find_steps
from headspec.errors import CheckpointError, InputError


class LocalSource(Source):
    """A folder with one sub-folder a step, as `save_pretrained` or the Trainer writes it.

    Config and tokenizer are taken from the step's folder, or from the folder above where all
    steps share them.

    Args:
        root: the folder.
        name: what to call the run; the folder's name if None.
        revision_format: how sub-folders are named; None: `step{N}` or `checkpoint-{N}`.
        tokenizer_folder: where the tokenizer lies; None: looked for in `root` and its steps.

    Raises:
        InputError: no sub-folder is a step.
    """

    def __init__(
        self,
        root: Path,
        *,
        name: str | None = None,
        revision_format: str | None = None,
        tokenizer_folder: Path | None = None,
    ) -> None:
        self.root = root.resolve()
        self.name = name if name is not None else self.root.name
        folders = sorted(path.name for path in self.root.iterdir() if path.is_dir())
        self.revisions = find_steps(folders, revision_format)
        self._tokenizer_folder = tokenizer_folder
        self._hashes: dict[tuple[str, int, int], str] = {}
        if not self.revisions:
            raise self._no_steps(folders, revision_format)

    def files(self, step: int) -> dict[str, FileInfo]:
        """The files of a step and their sizes."""
        folder = self._folder(step)
        try:
            return {
                path.name: FileInfo(path.stat().st_size)
                for path in sorted(folder.iterdir())
                if path.is_file()
            }
        except OSError as error:
            raise CheckpointError(
                expected=f"the folder {folder}",
                got=f"{type(error).__name__}: {error}",
                fix="It was there when the suite was opened: put it back, or open the suite anew.",
            ) from error

    def text(self, step: int, file: str) -> str:
        """A text file of the step, or of the folder above."""
        path = self._shared(step, file)
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(
                expected=f"a text file {self._folder(step) / file}",
                got=f"{type(error).__name__}: {error}",
                fix=f"Put it there, or into {self.root} if all steps share it.",
            ) from error

    def header(self, step: int, file: str) -> readers.Header:
        """The header of a safetensors file."""
        return readers.read_header(self._folder(step) / file)

    def local_path(self, step: int, file: str) -> Path | None:
        """Where the file lies, if it exists."""
        path = self._folder(step) / file
        return path if path.is_file() else None

    def fetch(self, step: int, file: str) -> Path:
        """Where the file lies."""
        return self._folder(step) / file

    def read_file(self, step: int, file: str, names: Iterable[str]) -> dict[str, Tensor]:
        """Single tensors of a file."""
        return readers.read_tensors(self._folder(step) / file, names)

    def file_hash(self, step: int, file: str) -> str:
        """SHA-256 of the file, computed once for each of its versions."""
        path = self._folder(step) / file
        try:
            stat = path.stat()
            key = (str(path), stat.st_size, stat.st_mtime_ns)
            if key not in self._hashes:
                with path.open("rb") as opened:
                    self._hashes[key] = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(
                expected=f"the file {path}",
                got=f"{type(error).__name__}: {error}",
                fix="Copy or download the checkpoint again.",
            ) from error
        return f"sha256:{self._hashes[key]}"

    def model_folder(self, step: int) -> Path:
        """The step's folder."""
        return self._folder(step)

    def config_folder(self, step: int) -> Path:
        """The folder of the config that `config` reads."""
        return self._shared(step, "config.json").parent

    def tokenizer_folder(self) -> Path:
        """The first of root, newest step ... oldest step that holds a tokenizer."""
        if self._tokenizer_folder is not None:
            return self._tokenizer_folder
        for folder in (self.root, *(self._folder(step) for step in reversed(self.steps))):
            if any((folder / file).is_file() for file in TOKENIZER_FILES):
                return folder
        raise CheckpointError(
            expected=f"a tokenizer in {self.root} or one of its steps",
            got=f"no {' or '.join(TOKENIZER_FILES)}",
            fix=f"Save it there: tokenizer.save_pretrained({str(self.root)!r}).",
        )

    def _folder(self, step: int) -> Path:
        return self.root / self.revisions[step]

    def _shared(self, step: int, file: str) -> Path:
        own, above = self._folder(step) / file, self.root / file
        return above if above.is_file() and not own.is_file() else own

    def _no_steps(self, folders: list[str], revision_format: str | None) -> InputError:
        single = readers.weight_entry(os.listdir(self.root)) is not None
        sibling = bool(find_steps([self.root.name], revision_format))
        if single and sibling:
            fix = f"This folder is one step; open the one above it: {str(self.root.parent)!r}."
        elif single:
            fix = "This folder is a single checkpoint; move its files into a sub-folder step0."
        else:
            fix = "Say how the sub-folders are named, for example revision_format='iter{step}'."
        return InputError(
            expected=f"sub-folders of {self.root} named "
            + (repr(revision_format) if revision_format else "step{N} or checkpoint-{N}"),
            got=", ".join(folders[:5]) or "no sub-folders",
            fix=fix,
        )
