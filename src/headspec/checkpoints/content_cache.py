"""A disk cache of pieces of files, addressed by the content of the file they are cut from."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
import warnings
from pathlib import Path

_DIGEST = hashlib.sha256().digest_size
_STALE = 3600.0  # seconds after which a temporary file has been left behind by a killed process


class ContentCache:
    """Pieces of remote files on disk; what comes back is what went in, or nothing.

    Every piece is written under a temporary name and then renamed, so that a process that is
    killed leaves no half-written piece and several processes may share the folder. Each piece
    starts with the SHA-256 of the rest; one that does not match is deleted and counts as absent.

    Example:
        >>> import tempfile
        >>> cache = ContentCache(Path(tempfile.mkdtemp()))
        >>> cache.load("sha-of-a-file", "tensor") is None
        True
        >>> cache.store("sha-of-a-file", "tensor", b"bytes")
        >>> cache.load("sha-of-a-file", "tensor")
        b'bytes'

    Args:
        root: the folder; made on first use.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def load(self, content: str, piece: str) -> bytes | None:
        """The piece, or None if it is absent or damaged.

        Args:
            content: what identifies the file's content, such as its SHA-256.
            piece: which part of it.
        """
        path = self._path(content, piece)
        try:
            stored = path.read_bytes()
        except OSError:
            return None
        payload = stored[_DIGEST:]
        if hashlib.sha256(payload).digest() == stored[:_DIGEST]:
            return payload
        with contextlib.suppress(OSError):
            path.unlink()
        return None

    def store(self, content: str, piece: str, payload: bytes) -> None:
        """Keep a piece. A cache that cannot be written is a warning, not an error."""
        path = self._path(content, piece)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._sweep(path.parent)
            descriptor, temporary = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(hashlib.sha256(payload).digest())
                    file.write(payload)
                os.replace(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            warnings.warn(
                f"Cannot write the cache in {self.root} ({error}); going on without it. Choose "
                "another folder with cache_dir.",
                stacklevel=2,
            )

    def _path(self, content: str, piece: str) -> Path:
        key = hashlib.sha256(content.encode()).hexdigest()[:40]
        return self.root / key[:2] / key / hashlib.sha256(piece.encode()).hexdigest()[:40]

    @staticmethod
    def _sweep(folder: Path) -> None:
        """Remove what killed processes left behind in this folder."""
        for leftover in folder.glob(".tmp-*"):
            with contextlib.suppress(OSError):
                if time.time() - leftover.stat().st_mtime > _STALE:
                    leftover.unlink()
