"""Plain text: markup removed, cut into passages, repetitions dropped."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from html.parser import HTMLParser

_BLOCKS = {
    "p", "div", "br", "li", "ul", "ol", "table", "tr", "section", "article", "blockquote", "pre",
    "h1", "h2", "h3", "h4", "h5", "h6", "header", "footer", "main", "dt", "dd",
}  # fmt: skip
_HIDDEN = {"script", "style", "head", "nav", "noscript", "template"}
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_NOT_PROSE = re.compile(r">>>|https?:|::|\\|\||[{}<>=~^_`*#@-]{3,}|\.\. ")
_ROLE = re.compile(r":(?:class|func|meth|mod|attr|obj|ref|math|term|exc|py|doc|data):")
_DIRECTIVE = re.compile(r"^\.\. [^\n]*(\n[ \t]+\S[^\n]*|\n(?=\n*[ \t]+\S))*", re.MULTILINE)
_SHINGLE = 8  # words that make a repetition


def plain_text(content: str, suffix: str) -> str:
    """Text of a file without its markup; paragraphs stay apart by blank lines.

    Args:
        content: of the file.
        suffix: ".html", ".htm", ".md", ".rst"; anything else is text as it is.
    """
    if suffix in (".html", ".htm"):
        parser = _TextOfHtml()
        parser.feed(content)
        parser.close()
        content = "".join(parser.parts)
    elif suffix == ".md":
        content = re.sub(r"^(```|~~~).*?^\1[^\n]*$", "", content, flags=re.DOTALL | re.MULTILINE)
        content = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", content)
        content = re.sub(r"^#{1,6}[ \t]+(.*)$", r"\n\1\n", content, flags=re.MULTILINE)
        content = re.sub(r"^[ \t]*(?:>|[-*+])[ \t]+", "", content, flags=re.MULTILINE)
        content = re.sub(r"[*_`]{1,3}(\S.*?\S|\S)[*_`]{1,3}", r"\1", content)
    elif suffix == ".rst":
        content = re.sub(
            r"^\.\. [^\n]*(\n[ \t]+\S[^\n]*|\n(?=\n[ \t]+\S))*", "", content, flags=re.MULTILINE
        )
        content = re.sub(r"^([=\-~^\"'#*+])\1{2,}\s*$", "", content, flags=re.MULTILINE)
        content = _ROLE.sub("", content).replace("`", "").replace("::\n", ":\n")
    blocks = (" ".join(block.split()) for block in re.split(r"\n[ \t]*\n", content))
    return "\n\n".join(block for block in blocks if block)


class _TextOfHtml(HTMLParser):
    """Collects what a reader of the page would see."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in _HIDDEN:
            self._hidden.append(tag)
        elif tag in _BLOCKS:
            self.parts.append("\n\n")

    def handle_endtag(self, tag: str) -> None:
        if self._hidden and tag == self._hidden[-1]:
            self._hidden.pop()
        elif tag in _BLOCKS:
            self.parts.append("\n\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data.replace("\n", " "))


def prose_paragraphs(texts: Iterable[str]) -> Iterator[str]:
    """Paragraphs of docstrings that read like sentences; code, tables and lists are left out."""
    for text in texts:
        for block in re.split(r"\n\s*\n", text):
            flat = _ROLE.sub("", " ".join(block.split()).replace("`", ""))
            letters = sum(character.isalpha() or character == " " for character in flat)
            if (
                60 <= len(flat) <= 2000
                and letters > 0.85 * len(flat)
                and flat[0].isupper()
                and flat[-1] in ".:?!"
                and not _NOT_PROSE.search(flat)
            ):
                yield flat


def cut_passages(text: str, *, words: int, least: int) -> list[str]:
    """Cut a document into passages of whole sentences.

    Args:
        text: paragraphs with blank lines between.
        words: at most this many in a passage, but for a sentence that is longer.
        least: passages of fewer words are dropped.
    """
    passages: list[list[str]] = [[]]
    count = 0
    for paragraph in text.split("\n\n"):
        for number, sentence in enumerate(_SENTENCE.split(paragraph.strip())):
            length = len(sentence.split())
            if count and count + length > words:
                passages.append([])
                count = 0
            if length:
                passages[-1].append(
                    ("\n" if number == 0 and count else " " if count else "") + sentence
                )
                count += length
    joined = ("".join(passage) for passage in passages)
    return [passage for passage in joined if len(passage.split()) >= least]


def shingles(passage: str) -> set[int]:
    """Hashes of the runs of eight words of a passage, in lower case; shorter ones count whole."""
    words = re.findall(r"\w+", passage.lower())
    runs = [words[i : i + _SHINGLE] for i in range(max(1, len(words) - _SHINGLE + 1))]
    return {
        int.from_bytes(hashlib.blake2b(" ".join(run).encode(), digest_size=8).digest(), "big")
        for run in runs
    }


def keep_new(passages: Sequence[str], *, most_repeated: float = 0.5) -> list[int]:
    """Which passages are new: those with at most half of their runs of eight words seen before.

    Copies are dropped, and so are passages that differ from earlier ones in a few words, as
    documentation often has them.

    Args:
        passages: in order; of two copies the first is kept.
        most_repeated: share of runs that may have come before.

    Returns:
        Their positions.
    """
    seen: set[int] = set()
    kept = []
    for position, passage in enumerate(passages):
        runs = shingles(passage)
        if len(runs & seen) <= most_repeated * len(runs):
            kept.append(position)
            seen |= runs
    return kept
