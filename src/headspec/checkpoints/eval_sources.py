"""Where evaluation results lie: a file, a folder, a list, an archive, or a URL of one of them."""

from __future__ import annotations

import fnmatch
import os
import re
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

from huggingface_hub.utils import get_session, hf_raise_for_status

from headspec.checkpoints.hub_client import is_offline, patiently
from headspec.errors import HubUnreachableError, InputError

EvalSource: TypeAlias = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
"""A file, folder, archive or URL, or several."""

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError)
_GITHUB = re.compile(
    r"https://github\.com/([^/]+)/([^/]+?)(?:\.git)?(?:/(tree|blob)/([^/]+)/(.+))?/?"
)


def read_sources(source: EvalSource, *, pattern: str = "*.json") -> Iterator[tuple[str, bytes]]:
    """Name and content of every result file, in order of names.

    Args:
        source: a JSON file; a folder, searched at any depth; a `.zip` or `.tar.gz` archive, read
            without unpacking it; an `http(s)` URL of a JSON file or an archive, or of a
            repository, folder or file on github.com; or a list of these.
        pattern: which file names count in folders and archives.

    Raises:
        InputError: nothing there, or no file of that name in it.
        HubUnreachableError: the URL cannot be read.
    """
    if not isinstance(source, (str, os.PathLike)):
        listed = list(source) if isinstance(source, Iterable) else []
        if not listed or isinstance(source, bytes):
            got = "an empty list" if isinstance(source, Iterable) else repr(source)
            raise InputError(expected="evaluation files", got=got, fix="Name some.")
        for one in listed:
            yield from read_sources(one, pattern=pattern)
        return
    text = os.fspath(source)
    if text.startswith(("http://", "https://")):
        yield from _download(text, pattern)
        return
    path = Path(text).expanduser()
    if path.is_dir():
        found = sorted(p for p in path.rglob("*.json") if _counts(p.as_posix(), pattern))
        yield from _some(((p.as_posix(), p.read_bytes()) for p in found), found, text, pattern)
    elif path.name.lower().endswith(_ARCHIVES) and path.is_file():
        yield from _archive(path, path.as_posix(), pattern, "")
    elif path.is_file():
        yield path.as_posix(), path.read_bytes()
    else:
        raise InputError(
            expected="a file, folder, archive or URL with evaluation results",
            got=f"{text!r}, which does not exist",
            fix="Check the path.",
        )


def resolve_github(url: str) -> tuple[str, str]:
    """What to download for a URL, and the folder or file inside it that is meant ("" for all).

    Example:
        >>> resolve_github("https://github.com/EleutherAI/pythia/tree/main/evals/pythia-v1")
        ('https://codeload.github.com/EleutherAI/pythia/zip/main', 'evals/pythia-v1')
    """
    parts = _GITHUB.fullmatch(url)
    if parts is None:
        return url, ""
    owner, repository, kind, branch, inside = parts.groups()
    if kind == "blob":
        return f"https://raw.githubusercontent.com/{owner}/{repository}/{branch}/{inside}", ""
    return (
        f"https://codeload.github.com/{owner}/{repository}/zip/{branch or 'HEAD'}",
        (inside or "").strip("/"),
    )


def _counts(name: str, pattern: str) -> bool:
    path = PurePosixPath(name)
    hidden = path.name.startswith(".") or "__MACOSX" in path.parts
    return not hidden and fnmatch.fnmatchcase(path.name, pattern)


def _some(
    files: Iterable[tuple[str, bytes]], found: list, where: str, pattern: str
) -> Iterator[tuple[str, bytes]]:
    if not found:
        raise InputError(
            expected=f"files named {pattern} in {where}",
            got="none",
            fix="Point at the folder that holds the results, at any level above the files.",
        )
    yield from files


def _archive(path: Path, label: str, pattern: str, inside: str) -> Iterator[tuple[str, bytes]]:
    """Members of an archive; names start with the archive's own."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as opened:
                names = [n for n in sorted(opened.namelist()) if _wanted(n, pattern, inside)]
                files = ((f"{label}/{name}", opened.read(name)) for name in names)
                yield from _some(files, names, label, pattern)
            return
        with tarfile.open(path) as opened:
            read = {
                member.name: opened.extractfile(member).read()  # pyright: ignore[reportOptionalMemberAccess]
                for member in opened
                if member.isfile() and _wanted(member.name, pattern, inside)
            }
        files = ((f"{label}/{name}", read[name]) for name in sorted(read))
        yield from _some(files, list(read), label, pattern)
    except _BROKEN as error:
        raise InputError(
            expected="a .zip or .tar.gz archive",
            got=f"{label}: {error}",
            fix="Download it again; it may be truncated.",
        ) from error


def _wanted(name: str, pattern: str, inside: str) -> bool:
    """Whether a member is meant; archives of repositories put everything into one folder."""
    if not name.endswith(".json") or not _counts(name, pattern):
        return False
    below = name.partition("/")[2]
    return not inside or below == inside or below.startswith(f"{inside}/")


def _download(url: str, pattern: str) -> Iterator[tuple[str, bytes]]:
    if is_offline(False):
        raise HubUnreachableError(
            expected="a connection", got=f"HF_HUB_OFFLINE=1 and {url}", fix="Use a local copy."
        )
    address, inside = resolve_github(url)
    name = unquote(urlsplit(address).path).strip("/") or "results.json"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "download"
        patiently(lambda: _fetch(address, path), what=address)
        if zipfile.is_zipfile(path) or name.lower().endswith(_ARCHIVES):
            yield from _archive(path, name, pattern, inside)
        else:
            yield name, path.read_bytes()


def _fetch(url: str, path: Path) -> None:
    with get_session().stream("GET", url, follow_redirects=True, timeout=60) as response:
        if response.status_code >= 400:
            response.read()
        hf_raise_for_status(response)
        with path.open("wb") as file:
            for chunk in response.iter_bytes():
                file.write(chunk)
