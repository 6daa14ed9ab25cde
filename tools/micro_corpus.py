"""English prose for the embedded suite: docstrings of the standard library and of packages.

The text depends only on the installed versions (`versions()` records them): modules are read in
sorted order, paragraphs are kept when they look like prose, duplicates are dropped, and nothing of
the machine (paths, names, dates) enters. Each paragraph group keeps its topic, the package or
sub-package it came from, which the topic segments of the training mixture need.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("networkx", "numpy", "pandas", "scipy", "scikit-learn", "sympy", "torch")
"""Distributions read beside the standard library; all are under BSD-style licences."""

_FOLDERS = {"scikit-learn": "sklearn"}
_SKIPPED = {
    "tests",
    "test",
    "testing",
    "_vendor",
    "site-packages",
    "idlelib",
    "lib2to3",
    "turtledemo",
}
_TOPICS_BELOW = {"scipy", "sympy", "sklearn", "torch"}
_PROSE = re.compile(r"[A-Z][a-z]+[ ,]")
_BAD = re.compile(r">>>|/usr|/home|site-packages|https?:|::|\\|\||[{}<>=~^_`*#@-]{3,}|\.\. ")


@dataclass(frozen=True)
class Document:
    """Prose of one module: its paragraphs joined by newlines, and the topic it belongs to."""

    topic: str
    name: str
    text: str


def versions() -> dict[str, str]:
    """Versions of everything the text is taken from."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _docstrings(source: str) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield inspect.cleandoc(text)


def _paragraphs(text: str) -> Iterator[str]:
    for block in re.split(r"\n\s*\n", text):
        flat = re.sub(r"\s+", " ", block).strip().replace("``", "").replace("`", "")
        flat = re.sub(r":(?:class|func|meth|mod|attr|obj|ref|math|term|exc|py):", "", flat)
        letters = sum(c.isalpha() or c == " " for c in flat)
        if (
            60 <= len(flat) <= 1200
            and flat.isascii()
            and letters / len(flat) > 0.88
            and flat[-1] in ".:?"
            and _PROSE.match(flat)
            and not _BAD.search(flat)
        ):
            yield flat


def _roots() -> dict[str, Path]:
    paths = sysconfig.get_paths()
    found = {"python": Path(paths["stdlib"])}
    for name in PACKAGES:
        folder = _FOLDERS.get(name, name)
        found[folder] = Path(paths["purelib"]) / folder
    return found


def read_documents() -> list[Document]:
    """Every kept paragraph, grouped by module, sorted by topic and module name."""
    seen: set[str] = set()
    documents = []
    for package, root in sorted(_roots().items()):
        for path in sorted(root.rglob("*.py"), key=lambda p: p.relative_to(root).as_posix()):
            parts = path.relative_to(root).parts
            if _SKIPPED.intersection(parts):
                continue
            kept = []
            for text in _docstrings(path.read_text(encoding="utf-8", errors="ignore")):
                for paragraph in _paragraphs(text):
                    if paragraph not in seen:
                        seen.add(paragraph)
                        kept.append(paragraph)
            if kept:
                below = package in _TOPICS_BELOW and len(parts) > 1
                topic = f"{package}.{next(iter(parts))}" if below else package
                documents.append(Document(topic, "/".join((package, *parts)), "\n".join(kept)))
    return documents


def digest(documents: list[Document]) -> str:
    """SHA-256 over topics and texts, in order."""
    total = hashlib.sha256()
    for document in documents:
        total.update(f"{document.topic}\0{document.text}\0".encode())
    return total.hexdigest()


def is_held_out(document: Document, *, percent: int = 4) -> bool:
    """Whether a module's prose is kept for evaluation: by hash of its name, whole modules."""
    return int(hashlib.sha256(document.name.encode()).hexdigest(), 16) % 100 < percent
