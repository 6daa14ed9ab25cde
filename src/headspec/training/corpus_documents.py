"""Documents from files, from data sets, and from the documentation of installed packages."""

from __future__ import annotations

import ast
import importlib.util
import json
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from headspec.errors import InputError
from headspec.training.corpus_text import plain_text, prose_paragraphs

SUFFIXES = (".txt", ".md", ".rst", ".html", ".htm", ".jsonl")
"""Files that `read_documents` reads; it passes over others."""

DOCUMENTED = ("numpy", "pandas", "scipy", "sklearn", "torch", "networkx", "sympy")
"""Packages whose docstrings `installed_documents` reads where they are installed."""

_BODIES = ("body", "orelse", "handlers", "finalbody")
_DOCUMENTED_NODES = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_NODES_WITH_BODIES = (*_DOCUMENTED_NODES, ast.If, ast.Try, ast.ExceptHandler, ast.With)
_PASSED_OVER = {"tests", "test", "testing", "_vendor", "site-packages", "idlelib", "turtledemo"}


@dataclass(frozen=True)
class Document:
    """A text that stays whole when data are split: an article, a file, a module's docstrings.

    Attributes:
        name: unlike that of any other document.
        text: paragraphs with blank lines between them.
        source: where it comes from, in one or two words; topics are compared with it.
    """

    name: str
    text: str
    source: str = ""


def read_documents(
    paths: str | Path | Sequence[str | Path], *, field: str = "text"
) -> list[Document]:
    """Read files, or all readable files in folders, in sorted order.

    Markup is removed: tags, scripts and styles of HTML; code blocks and marks of Markdown and
    reStructuredText. A line of a ``.jsonl`` file is a document. The source of a document is the
    first folder below the one given, or the file's name.

    Args:
        paths: files or folders; `SUFFIXES` are read.
        field: key of the text in ``.jsonl`` files.

    Raises:
        InputError: when there is nothing to read, or a line has no such field.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "a.html").write_text("<p>Two <b>words</b></p><script>x()</script>")
        >>> read_documents(folder)
        [Document(name='a.html', text='Two words', source='a')]
    """
    listed = [paths] if isinstance(paths, str | Path) else list(paths)
    documents = []
    for place in map(Path, listed):
        if not place.exists():
            raise InputError(
                expected="a file or a folder",
                got=f"{place}, which is not there",
                fix="Check the path.",
            )
        files = sorted(place.rglob("*")) if place.is_dir() else [place]
        for path in files:
            if path.is_file() and path.suffix.lower() in SUFFIXES:
                below = path.relative_to(place) if place.is_dir() else Path(path.name)
                documents += _read_file(path, below, field=field)
    if not documents:
        raise InputError(
            expected=f"files ending in {', '.join(SUFFIXES)}",
            got=f"none in {', '.join(map(str, listed))}",
            fix="Choose another folder, or pass documents of your own.",
        )
    return documents


def _read_file(path: Path, below: Path, *, field: str) -> Iterator[Document]:
    source = below.parts[0] if len(below.parts) > 1 else below.stem
    content = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix.lower() != ".jsonl":
        yield Document(below.as_posix(), plain_text(content, path.suffix.lower()), source)
        return
    for number, line in enumerate(content.splitlines()):
        if line.strip():
            yield _from_row(
                _parsed(line, path, number), f"{below.as_posix()}:{number}", source, field
            )


def _parsed(line: str, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise InputError(
            expected=f"JSON in line {number + 1} of {path}", got=str(error), fix="Repair the file."
        ) from error


def _from_row(row: Any, name: str, source: str, field: str) -> Document:
    if not isinstance(row, dict) or not isinstance(row.get(field), str):
        keys = ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
        raise InputError(expected=f"text under {field!r} in {name}", got=keys, fix="Pass field=.")
    return Document(name, row[field], source)


def dataset_documents(
    name: str,
    *,
    n: int | None = None,
    field: str = "text",
    split: str = "train",
    **options: Any,
) -> list[Document]:
    """Documents of a Hugging Face data set, streamed: only the rows asked for are read.

    Args:
        name: of the data set on the Hub, such as ``"wikimedia/wikipedia"``; or ``"json"``,
            ``"parquet"`` with ``data_files=``, which needs no network.
        n: how many rows from the beginning; None: all.
        field: column of the text.
        split: of the data set.
        **options: of `datasets.load_dataset`, such as the configuration ``name=`` as
            ``config=``, `data_files`, `revision`.

    Raises:
        InputError: without the package `datasets`, or without that column.
    """
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            expected="the package datasets", got="none", fix='pip install "headspec[corpus]".'
        ) from error
    config = options.pop("config", None)
    rows: Any = datasets.load_dataset(name, config, split=split, streaming=True, **options)
    documents = []
    for number, row in enumerate(rows if n is None else rows.take(n)):
        documents.append(_from_row(row, f"{name}:{number}", name, field))
    return documents


def installed_documents(packages: Sequence[str] = DOCUMENTED) -> list[Document]:
    """Prose in the docstrings of the standard library and of installed packages, offline.

    About 7 MB of English on a plain install. A module is a document; its source is the package or,
    for large packages, the sub-package. Nothing is imported. The text depends on the
    installed versions only, see `installed_versions`.

    Args:
        packages: names to import; those that are not installed are passed over.

    What it is not: a sample of English. It speaks of software throughout.
    """
    roots = {"python": Path(sysconfig.get_paths()["stdlib"])}
    for package in packages:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            roots[package] = Path(next(iter(spec.submodule_search_locations)))
    documents = []
    for package, root in sorted(roots.items()):
        for path in sorted(root.rglob("*.py"), key=lambda p: p.relative_to(root).as_posix()):
            parts = path.relative_to(root).parts
            if _PASSED_OVER.intersection(parts):
                continue
            text = "\n\n".join(prose_paragraphs(_docstrings(path)))
            if text:
                below = f".{parts[0]}" if package != "python" and len(parts) > 1 else ""
                documents.append(Document("/".join((package, *parts)), text, package + below))
    return documents


def installed_versions(packages: Sequence[str] = DOCUMENTED) -> dict[str, str]:
    """Versions of what `installed_documents` reads."""
    import platform

    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version("scikit-learn" if package == "sklearn" else package)
        except PackageNotFoundError:
            continue
    return found


def _docstrings(path: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other people's escape sequences
        try:
            tree = ast.parse(path.read_text(encoding="utf-8", errors="ignore"))
        except (SyntaxError, ValueError):
            return
    nodes: list[ast.AST] = [tree]
    while nodes:  # bodies only: `ast.walk` would visit every expression
        node = nodes.pop()
        if isinstance(node, _DOCUMENTED_NODES) and (text := ast.get_docstring(node)):
            yield text
        nested = (child for name in _BODIES for child in getattr(node, name, ()))
        nodes += reversed([child for child in nested if isinstance(child, _NODES_WITH_BODIES)])
