"""Checkpoints on the Hugging Face Hub: one branch or tag a step; only the tensors asked for."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path

from torch import Tensor

from headspec.checkpoints import readers
from headspec.checkpoints.hub_client import OFFLINE_FIX, RangeIgnoredError
from headspec.checkpoints.hub_repo import HubRepo, content_of
from headspec.checkpoints.source import TOKENIZER_FILES, FileInfo, Source
from headspec.checkpoints.steps import find_steps
from headspec.errors import CheckpointError, InputError

FIRST_READ = 1 << 15
"""Bytes of a safetensors file read to get at its header, which is shorter in most models."""

LARGEST_GAP = 1 << 15
"""Bytes between two wanted tensors that are read and dropped rather than asked around."""

_TOKENIZER_PATTERNS = ("tokenizer*", "vocab*", "merges.txt", "*tokens*.json", "*.model", "chat_*")


class HubSource(Source):
    """A model on the Hub whose branches or tags are training steps.

    The commits of all steps are looked up once, so that every later read, also in another
    process, sees the same files.

    Args:
        repo: `owner/name`.
        revision_format: how revisions are named; None: the usual names.
        cache_dir: huggingface_hub's cache and ours; None: the usual places.
        offline: never ask the network.

    Raises:
        InputError: not a model's name, or none of its revisions is a step.
        HubUnreachableError: the list of revisions can be had neither from the Hub nor the cache.
    """

    def __init__(
        self,
        repo: str,
        *,
        revision_format: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        offline: bool = False,
    ) -> None:
        self.name = repo
        self.repo = HubRepo(repo, cache_dir=cache_dir, offline=offline)
        refs = self.repo.refs()
        self.revisions = find_steps(refs, revision_format, same=refs)
        self.commits = {step: refs[name] for step, name in self.revisions.items()}
        self._main = refs.get("main")
        if not self.revisions:
            raise InputError(
                expected=f"branches or tags of {repo} named "
                + (repr(revision_format) if revision_format else "like 'step1000'"),
                got=", ".join(sorted(refs)[:6]) or "no branches",
                fix="Say how its steps are named, for example "
                "revision_format='stage1-step{step}-tokens{tokens}B'. A model without revisions "
                "for its training steps is not a suite.",
            )

    def files(self, step: int) -> dict[str, FileInfo]:
        """The files of a step with sizes and hashes, from the Hub's metadata."""
        return self.repo.files(self.commits[step])

    def text(self, step: int, file: str) -> str:
        """A small text file."""
        data = self.repo.whole(self.commits[step], file)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(
                expected=f"text in {self.label(step, file)}",
                got=str(error),
                fix="The file in this repository is damaged: tell its owner.",
            ) from error

    def header(self, step: int, file: str) -> readers.Header:
        """The header of a safetensors file, by ranged reads."""
        commit, origin = self.commits[step], self.label(step, file)
        path = self.repo.cached(commit, file)
        if path is not None:
            return readers.read_header(path)
        content = self._content(step, file)
        stored = self.repo.pieces.load(content, "header")
        if stored is None:
            stored = self._read_header(step, file, origin)
            header = readers.parse_header(stored, origin=origin)
            self.repo.pieces.store(content, "header", stored)
            return header
        return readers.parse_header(stored, origin=origin)

    def local_path(self, step: int, file: str) -> Path | None:
        """Where huggingface_hub's cache holds the whole file, if it does."""
        return self.repo.cached(self.commits[step], file)

    def fetch(self, step: int, file: str) -> Path:
        """The whole file in huggingface_hub's cache, checked against the listed hash."""
        return self.repo.fetch(self.commits[step], file)

    def read_file(self, step: int, file: str, names: Iterable[str]) -> dict[str, Tensor]:
        """Single tensors: ranged reads of safetensors; other formats are downloaded whole."""
        wanted = list(names)
        path = self.local_path(step, file)
        if path is None and not file.endswith(".safetensors"):
            path = self.fetch(step, file)
        if path is not None:
            return readers.read_tensors(path, wanted)
        try:
            return self._read_tensors(step, file, wanted)
        except RangeIgnoredError:
            return readers.read_tensors(self._fetch_unasked(step, file), wanted)

    def file_hash(self, step: int, file: str) -> str:
        """What the Hub lists as the file's hash."""
        content = self.repo.info(self.commits[step], file).content
        return content or content_of(self.fetch(step, file), "sha256:")

    def model_folder(self, step: int) -> Path:
        """Download config and weights of a step."""
        needed = {self.weight_entry(step), *self.weight_files(step)}
        for file in sorted(needed | ({"generation_config.json"} & set(self.files(step)))):
            self.fetch(step, file)
        return self.config_folder(step)

    def config_folder(self, step: int) -> Path:
        """Download the config of a step."""
        return self.fetch(step, "config.json").parent

    def tokenizer_folder(self) -> Path:
        """Download the tokenizer of the newest step, or of the main branch."""
        for commit in dict.fromkeys((self.commits[self.steps[-1]], self._main)):
            files = self.repo.files(commit) if commit is not None else {}
            if commit is not None and any(file in files for file in TOKENIZER_FILES):
                wanted = [f for f in files if any(fnmatch(f, p) for p in _TOKENIZER_PATTERNS)]
                if "config.json" in files:
                    wanted.append("config.json")
                folders = [self.repo.fetch(commit, file).parent for file in wanted]
                return folders[0]
        raise CheckpointError(
            expected=f"a tokenizer in {self.label(self.steps[-1])} or on its main branch",
            got=f"no {' or '.join(TOKENIZER_FILES)}",
            fix="Load the tokenizer that the model's page names with AutoTokenizer. " + OFFLINE_FIX,
        )

    def _content(self, step: int, file: str) -> str:
        """What identifies the content of a file in the cache."""
        commit = self.commits[step]
        return self.repo.info(commit, file).content or f"{self.name} {commit} {file}"

    def _read_header(self, step: int, file: str, origin: str) -> bytes:
        commit = self.commits[step]
        size = self.repo.info(commit, file).size

        def plausible(data: bytes) -> bool:
            try:
                end = readers.header_length(data, origin=origin)
                if end <= len(data):
                    readers.parse_header(data, origin=origin)
            except CheckpointError:
                return False
            return True

        try:
            first = self.repo.read(commit, file, (0, min(FIRST_READ, size)), check=plausible)
            end = readers.header_length(first, origin=origin)
            if len(first) < min(end, size):
                rest = self.repo.read(
                    commit,
                    file,
                    (len(first), min(end, size)),
                    check=lambda data: plausible(first + data),
                )
                first += rest
        except RangeIgnoredError:
            with self._fetch_unasked(step, file).open("rb") as whole:
                first = whole.read(8)
                first += whole.read(readers.header_length(first, origin=origin) - 8)
                end = len(first)
        return first[:end]

    def _fetch_unasked(self, step: int, file: str) -> Path:
        warnings.warn(
            f"{self.repo.endpoint} ignores ranged requests: downloading all of "
            f"{self.label(step, file)} ({self.files(step)[file].size:,} bytes).",
            stacklevel=2,
        )
        return self.fetch(step, file)

    def _read_tensors(self, step: int, file: str, names: Sequence[str]) -> dict[str, Tensor]:
        commit, content, origin = self.commits[step], self._content(step, file), self.label(step)
        cached = {name: self.repo.pieces.load(content, f"tensor {name}") for name in names}
        packed = {name: data for name, data in cached.items() if data is not None}
        missing = [name for name in names if name not in packed]
        if missing:
            header, size = self.header(step, file), self.repo.info(commit, file).size
            specs = {name: header.tensors[name] for name in missing if name in header.tensors}
            cut = [name for name in missing if name not in specs or specs[name].stop > size]
            if cut:
                raise CheckpointError(
                    expected=f"the tensors {', '.join(cut)} in {self.label(step, file)}",
                    got=f"a file of {size:,} bytes that should have {header.n_bytes:,}, with "
                    f"{len(header.tensors)} tensors",
                    fix="The file on the Hub is incomplete: leave this step out, and tell the "
                    "model's owner.",
                )
            for start, stop, group in spans(specs):
                data = self.repo.read(commit, file, (start, stop))
                for name in group:
                    spec = specs[name]
                    part = data[spec.start - start : spec.stop - start]
                    packed[name] = readers.pack_tensor(name, spec, part)
                    self.repo.pieces.store(content, f"tensor {name}", packed[name])
        return {name: readers.unpack_tensor(packed[name], origin=origin) for name in names}


def spans(specs: dict[str, readers.TensorSpec]) -> list[tuple[int, int, list[str]]]:
    """Few ranges of bytes that cover the tensors: start, stop, and the names of those inside."""
    found: list[tuple[int, int, list[str]]] = []
    for name, spec in sorted(specs.items(), key=lambda item: item[1].start):
        if found and spec.start - found[-1][1] <= LARGEST_GAP:
            start, stop, group = found[-1]
            found[-1] = (start, max(stop, spec.stop), [*group, name])
        else:
            found.append((spec.start, spec.stop, [name]))
    return found
