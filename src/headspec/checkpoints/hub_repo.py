"""One model repository on the Hub, by commit: its revisions, its files, and parts of them."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers

from headspec.checkpoints.content_cache import ContentCache
from headspec.checkpoints.hub_client import (
    OFFLINE_FIX,
    explained,
    is_offline,
    patiently,
    read_range,
)
from headspec.checkpoints.source import FileInfo
from headspec.errors import CheckpointError, HubUnreachableError, InputError


class HubRepo:
    """Read access to a model repository, through the caches.

    Commits never change, so what is cached of one stays right. Lists and parts of files are kept
    in a cache of headspec's own, parts under the hash of the file they are cut from; whole files
    lie in huggingface_hub's cache.

    Args:
        name: `owner/name`.
        cache_dir: huggingface_hub's cache and ours; None: the usual places.
        offline: never ask the network (as `HF_HUB_OFFLINE=1` does).
    """

    def __init__(
        self,
        name: str,
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        offline: bool = False,
    ) -> None:
        self.name = name
        self.offline = offline
        self.endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        self.cache_dir = Path(cache_dir if cache_dir is not None else constants.HF_HUB_CACHE)
        ours = constants.HF_ASSETS_CACHE if cache_dir is None else cache_dir
        self.pieces = ContentCache(Path(ours) / "headspec")

    def refs(self) -> dict[str, str]:
        """branch or tag -> commit, as listed now; the last list where the Hub is out of reach.

        Raises:
            InputError: the name cannot be a model's.
            HubUnreachableError: there is no such model, or neither Hub nor cache has the list.
        """
        what = f"the list of revisions of {self.name} (which is no folder here, so a Hub model)"
        if is_offline(self.offline):
            refs = self._cached_refs()
            if refs:
                return refs
            raise HubUnreachableError(expected=what, got="no cached list, offline", fix=OFFLINE_FIX)
        try:
            listed = patiently(lambda: self._api().list_repo_refs(self.name), what=what)
        except HFValidationError as error:
            raise InputError(
                expected="a folder that exists, a model on the Hub (owner/name), or 'micro'",
                got=f"{self.name!r}",
                fix="Check the path or the name.",
            ) from error
        except HubUnreachableError as error:
            refs = self._cached_refs()
            if not refs or _is_refusal(error.__cause__):
                raise
            warnings.warn(
                f"Asking for {what}: {error.got}. Using the {len(refs)} revisions that an "
                "earlier run listed.",
                stacklevel=2,
            )
            return refs
        refs = {ref.name: ref.target_commit for ref in (*listed.branches, *listed.tags)}
        self.pieces.store(f"refs of {self.name}", "refs", json.dumps(refs).encode())
        return refs

    def files(self, commit: str) -> dict[str, FileInfo]:
        """The top-level files of a commit, with sizes and hashes from the Hub's metadata."""
        key = f"files of {self.name} {commit}"
        stored = self.pieces.load(key, "files")
        if stored is not None:
            return {name: FileInfo(*info) for name, info in json.loads(stored).items()}
        what = f"the list of files of {self.name} at {commit[:8]}"
        if is_offline(self.offline):
            files = self._snapshot_files(commit)
            if files:
                return files
            raise HubUnreachableError(expected=what, got="no cached list, offline", fix=OFFLINE_FIX)
        tree = patiently(
            lambda: list(self._api().list_repo_tree(self.name, revision=commit)), what=what
        )
        files = {
            entry.path: FileInfo(
                entry.size, f"sha256:{entry.lfs.sha256}" if entry.lfs else f"git:{entry.blob_id}"
            )
            for entry in tree
            if isinstance(entry, RepoFile)
        }
        listing = {name: (info.size, info.content) for name, info in files.items()}
        self.pieces.store(key, "files", json.dumps(listing).encode())
        return files

    def info(self, commit: str, file: str) -> FileInfo:
        """Size and hash of a file.

        Raises:
            CheckpointError: the commit has no such file.
        """
        files = self.files(commit)
        if file not in files:
            raise CheckpointError(
                expected=f"a file {file} of {self.name} at {commit[:8]}",
                got=", ".join(sorted(files)) or "no files",
                fix="suite.verify() lists what every step holds.",
            )
        return files[file]

    def cached(self, commit: str, file: str) -> Path | None:
        """Where huggingface_hub's cache holds the whole file, if it does."""
        path = try_to_load_from_cache(self.name, file, cache_dir=self.cache_dir, revision=commit)
        return Path(path) if isinstance(path, str) else None

    def fetch(self, commit: str, file: str) -> Path:
        """The whole file in huggingface_hub's cache, downloaded and checked if need be.

        huggingface_hub checks the length of what it downloads; this checks the hash as well, and
        removes what does not match.
        """
        path = self.cached(commit, file)
        if path is not None:
            return path
        info = self.info(commit, file)
        what = f"{self.name} {file} at {commit[:8]}"
        self._need_network(what)
        for _ in range(2):
            with explained(what):
                path = Path(
                    hf_hub_download(
                        self.name,
                        file,
                        revision=commit,
                        cache_dir=self.cache_dir,
                        endpoint=self.endpoint,
                        library_name="headspec",
                    )
                )
            if info.content is None or content_of(path, info.content) == info.content:
                return path
            blob = path.resolve()
            path.unlink(missing_ok=True)
            blob.unlink(missing_ok=True)
        raise CheckpointError(
            expected=f"{what} with the hash {info.content}, as the Hub lists it",
            got="other content, twice",
            fix="Nothing was kept. Try again later, or without a proxy in between.",
        )

    def whole(self, commit: str, file: str) -> bytes:
        """A small file, checked against the hash that the Hub lists.

        Unlike `fetch` it is kept by its hash, so that 154 steps with one config read it once.
        """
        path = self.cached(commit, file)
        if path is not None:
            return path.read_bytes()
        info = self.info(commit, file)
        key = info.content or f"{self.name} {commit} {file}"
        stored = self.pieces.load(key, "whole")
        if stored is None:
            stored = self.read(
                commit,
                file,
                (0, info.size),
                check=lambda data: info.content in (None, hash_of(data, str(info.content))),
            )
            self.pieces.store(key, "whole", stored)
        return stored

    def read(
        self,
        commit: str,
        file: str,
        span: tuple[int, int],
        *,
        check: Callable[[bytes], bool] | None = None,
    ) -> bytes:
        """A part of a file, from the network (see `read_range`)."""
        self._need_network(f"{self.name} {file} at {commit[:8]}")
        return read_range(
            hf_hub_url(self.name, file, revision=commit, endpoint=self.endpoint),
            span,
            size=self.info(commit, file).size,
            headers=build_hf_headers(library_name="headspec"),
            check=check,
        )

    def _cached_refs(self) -> dict[str, str]:
        folder = self._storage() / "refs"
        refs = {
            path.relative_to(folder).as_posix(): path.read_text().strip()
            for path in folder.rglob("*")
            if path.is_file()
        }
        stored = self.pieces.load(f"refs of {self.name}", "refs")
        return refs | (json.loads(stored) if stored is not None else {})

    def _snapshot_files(self, commit: str) -> dict[str, FileInfo]:
        """What huggingface_hub's cache holds of a commit; its blobs are named by their hash."""
        folder = self._storage() / "snapshots" / commit
        kinds = {40: "git", 64: "sha256"}
        files: dict[str, FileInfo] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            blob = path.resolve().name
            content = f"{kinds[len(blob)]}:{blob}" if len(blob) in kinds else None
            files[path.name] = FileInfo(path.stat().st_size, content)
        return files

    def _need_network(self, what: str) -> None:
        if is_offline(self.offline):
            raise HubUnreachableError(expected=what, got="nothing cached, offline", fix=OFFLINE_FIX)

    def _api(self) -> HfApi:
        return HfApi(endpoint=self.endpoint, library_name="headspec")

    def _storage(self) -> Path:
        return self.cache_dir / repo_folder_name(repo_id=self.name, repo_type="model")


def hash_of(data: bytes, like: str) -> str:
    """`"sha256:..."` or `"git:..."` of bytes, in the same kind as `like`."""
    if like.startswith("sha256:"):
        return f"sha256:{hashlib.sha256(data).hexdigest()}"
    blob = b"blob %d\0" % len(data) + data
    return f"git:{hashlib.sha1(blob, usedforsecurity=False).hexdigest()}"


def content_of(path: Path, like: str) -> str:
    """The same of a file, without holding all of it."""
    with path.open("rb") as file:
        if like.startswith("sha256:"):
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        return hash_of(file.read(), like)


def _is_refusal(cause: BaseException | None) -> bool:
    """Whether the Hub answered and said no, rather than not at all."""
    if not isinstance(cause, HfHubHTTPError):
        return False
    return cause.response.status_code < 500 and cause.response.status_code != 429
