"""What a suite needs from the place where its checkpoints lie."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from headspec.checkpoints import readers
from headspec.errors import CheckpointError

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
)
"""Any of these in a folder means that a tokenizer lies there."""


@dataclass(frozen=True)
class FileInfo:
    """One file of a checkpoint.

    Attributes:
        size: bytes.
        content: what identifies its content: `"sha256:..."`, or `"git:..."` for small files of
            the Hub; None where it is not known without reading the file.
    """

    size: int
    content: str | None = None


class Source(ABC):
    """Checkpoints of one training run, by step.

    Attributes:
        name: of the run, for frames and figures.
        revisions: step -> name of the branch, tag or folder, ascending.
    """

    name: str
    revisions: Mapping[int, str]

    @property
    def steps(self) -> tuple[int, ...]:
        """The training steps, ascending."""
        return tuple(self.revisions)

    @abstractmethod
    def files(self, step: int) -> dict[str, FileInfo]:
        """The files of a step, by name."""

    @abstractmethod
    def text(self, step: int, file: str) -> str:
        """A small text file of a step."""

    @abstractmethod
    def header(self, step: int, file: str) -> readers.Header:
        """The header of one of a step's safetensors files."""

    @abstractmethod
    def local_path(self, step: int, file: str) -> Path | None:
        """Where the whole file lies on this machine; None if it does not."""

    @abstractmethod
    def fetch(self, step: int, file: str) -> Path:
        """The whole file on this machine, downloaded if need be."""

    @abstractmethod
    def read_file(self, step: int, file: str, names: Iterable[str]) -> dict[str, Tensor]:
        """Single tensors of one of a step's files."""

    @abstractmethod
    def file_hash(self, step: int, file: str) -> str:
        """What identifies a file's content, computed where it is not known."""

    @abstractmethod
    def model_folder(self, step: int) -> Path:
        """A folder with all of the step's weights."""

    @abstractmethod
    def config_folder(self, step: int) -> Path:
        """A folder with the step's config.json."""

    @abstractmethod
    def tokenizer_folder(self) -> Path:
        """A folder with the run's tokenizer."""

    def config(self, step: int) -> dict[str, Any]:
        """The step's config.json as a dict."""
        text = self.text(step, "config.json")
        try:
            config = json.loads(text)
        except ValueError as error:
            config = error
        if isinstance(config, dict):
            return config
        raise CheckpointError(
            expected=f"config.json of {self.name} step {step} as a JSON object",
            got=f"{config!r:.120}",
            fix="Write it again with config.save_pretrained(folder).",
        )

    def weight_map(self, step: int) -> dict[str, str]:
        """tensor -> file that holds it."""
        entry = self.weight_entry(step)
        if entry.endswith(".index.json"):
            return readers.parse_index(self.text(step, entry), origin=self.label(step, entry))
        if entry.endswith(".safetensors"):
            return dict.fromkeys(self.header(step, entry).tensors, entry)
        return dict.fromkeys(readers.tensor_shapes(self.fetch(step, entry)), entry)

    def weight_entry(self, step: int) -> str:
        """The file that the step's weights start from.

        Raises:
            CheckpointError: the step has no weights.
        """
        files = self.files(step)
        entry = readers.weight_entry(files)
        if entry is None:
            raise CheckpointError(
                expected=f"one of {', '.join(readers.WEIGHT_FILES)} in {self.label(step)}",
                got=", ".join(sorted(files)) or "no files",
                fix="Save the step again with save_pretrained, or leave it out (steps=...).",
            )
        return entry

    def weight_files(self, step: int) -> tuple[str, ...]:
        """The files that hold the step's tensors (indexes not among them), by name.

        Files that the index names and that do not exist are among them.
        """
        entry = self.weight_entry(step)
        if entry.endswith(".index.json"):
            return tuple(sorted(set(self.weight_map(step).values())))
        return (entry,)

    def shapes(self, step: int, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """name -> shape of the named tensors."""
        shapes: dict[str, tuple[int, ...]] = {}
        for file, wanted in self._by_file(step, names).items():
            if file.endswith(".safetensors"):
                known = {n: spec.shape for n, spec in self.header(step, file).tensors.items()}
            else:
                known = readers.tensor_shapes(self.fetch(step, file))
            shapes.update({name: known[name] for name in wanted if name in known})
        return shapes

    def read(self, step: int, names: Iterable[str]) -> dict[str, Tensor]:
        """The named tensors, as stored."""
        found: dict[str, Tensor] = {}
        for file, wanted in self._by_file(step, names).items():
            found.update(self.read_file(step, file, wanted))
        return found

    def fingerprint(self, step: int) -> str:
        """What identifies the content of the step's weights; equal means identical weights."""
        hashes = [self.file_hash(step, file) for file in self.weight_files(step)]
        return "+".join(hashes)

    def label(self, step: int, file: str = "") -> str:
        """How to call a step, or one of its files, in messages."""
        return f"{self.name} {self.revisions[step]}" + (f"/{file}" if file else "")

    def _by_file(self, step: int, names: Iterable[str]) -> dict[str, list[str]]:
        where = self.weight_map(step)
        groups: dict[str, list[str]] = {}
        for name in names:
            if name not in where:
                raise CheckpointError(
                    expected=f"a tensor {name!r} in {self.label(step)}",
                    got=f"{len(where)} others, such as {', '.join(sorted(where)[:3])}",
                    fix="suite.tensor_names(step) lists them all.",
                )
            groups.setdefault(where[name], []).append(name)
        return groups
