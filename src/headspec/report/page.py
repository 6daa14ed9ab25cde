"""The page: HTML from a template, with plotly.js and every figure inside."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from headspec.errors import InputError
from headspec.plots.palette import DARK
from headspec.report.content import HypothesisVerdict, ReportFigure, ReportSection, ReportTable
from headspec.report.numbers import flat_rows, table_cells
from headspec.results.files import write_atomically
from headspec.results.provenance import Provenance

_MARKS = {"supported": "✓", "not supported": "✗", "not decided": "?"}


def write_report(
    path: str | Path,
    *,
    title: str,
    lead: str,
    findings: Sequence[str],
    sections: Sequence[ReportSection],
    hypotheses: Sequence[HypothesisVerdict] = (),
    tables: Sequence[ReportTable] = (),
    provenance: Provenance | Mapping[str, Any] | None = None,
    language: str = "en",
) -> Path:
    """Write one HTML file that holds everything it shows and loads nothing.

    Findings come first, in sentences; then hypotheses with their verdicts, the sections, and
    where it all comes from. The page follows the reader's light or dark setting, reflows on a
    phone, can be read by keyboard and screen reader, and works from a disk without a network
    (a content security policy in the page forbids any request). The file appears whole or not
    at all.

    The page shows what it is given; it does not check that the sentences follow from the numbers.

    Args:
        path: the file; missing folders are made.
        title: heading of the page.
        lead: what was asked and on what, in a sentence or two.
        findings: plain sentences, the most important first.
        sections: text, figures and tables, in reading order.
        hypotheses: claims with their verdicts, shown below the findings.
        tables: shown with the findings, such as one row a layer.
        provenance: `Provenance.collect(...)` or any mapping; folded at the end.
        language: language of the texts, for screen readers.

    Returns:
        The path written.

    Raises:
        InputError: without findings, or for a figure without a text alternative.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_report(folder / "report.html", title="Clusters", lead="Do they emerge?",
        ...              findings=["No layer differs from its null."], sections=[]).name
        'report.html'
    """
    path = Path(path)
    if not findings:
        raise InputError(
            expected="at least one finding",
            got="none",
            fix='Say so in a sentence when nothing was found: "Not distinguishable from the null."',
        )
    numbering = {"figure": 0, "table": 0}
    top = [_table(table, numbering) for table in tables]
    html = _template().render(
        language=language,
        title=title,
        lead=_paragraphs(lead),
        findings=list(findings),
        hypotheses=[(each, _MARKS[each.verdict]) for each in hypotheses],
        tables=top,
        sections=[_section(section, i, numbering) for i, section in enumerate(sections)],
        provenance=[] if provenance is None else flat_rows(_mapping(provenance)),
        style=Markup(_asset("page.css")),
        script=Markup(_asset("page.js")),
        plotly=Markup(get_plotlyjs() if numbering["figure"] else ""),
        dark=_json(DARK),
    )
    write_atomically(path, html.encode("utf-8"))
    return path


def _section(section: ReportSection, index: int, numbering: dict[str, int]) -> dict[str, Any]:
    slug = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-")
    return {
        "id": f"s{index + 1}-{slug}" if slug else f"s{index + 1}",
        "title": section.title,
        "text": _paragraphs(section.text),
        "figures": [_figure(figure, numbering) for figure in section.figures],
        "tables": [_table(table, numbering) for table in section.tables],
        "folded": section.folded,
    }


def _figure(shown: ReportFigure, numbering: dict[str, int]) -> dict[str, Any]:
    """A figure ready for the page: its title moved into HTML, where it can wrap."""
    numbering["figure"] += 1
    figure = json.loads(str(shown.figure.to_json()))
    layout = figure["layout"]
    ours = (layout.get("meta") or {}).get("headspec", {}) if _is_ours(layout) else {}
    title = shown.title or _plain((layout.get("title") or {}).get("text") or "")
    alt = shown.alt or ours.get("alt")
    if not alt:
        raise InputError(
            expected="a text alternative for every figure",
            got=f"none for figure {numbering['figure']} ({title or 'untitled'})",
            fix="Give `ReportFigure(figure, alt=...)`: what the figure shows, in a sentence.",
        )
    narrow = ours.get("narrow", {})
    layout.pop("title", None)
    for part in (layout, narrow):
        if "margin" in part and ours:
            part["margin"]["t"] -= ours["title_height"]
            part["height"] -= ours["title_height"]
    layout.update(dragmode=False, autosize=True)
    layout.pop("width", None)
    return {
        "number": numbering["figure"],
        "title": title,
        "caption": _paragraphs(ours.get("note", "") if shown.caption is None else shown.caption),
        "alt": alt,
        "height": layout.get("height", 450),
        "narrow_height": narrow.get("height", layout.get("height", 450)),
        "json": _json({"data": figure["data"], "layout": layout, "narrow": narrow}),
    }


def _is_ours(layout: dict[str, Any]) -> bool:
    return isinstance(layout.get("meta"), dict) and "headspec" in layout["meta"]


def _table(table: ReportTable, numbering: dict[str, int]) -> dict[str, Any]:
    numbering["table"] += 1
    return {
        "number": numbering["table"],
        "title": table.title,
        "caption": _paragraphs(table.caption),
        **table_cells(table.frame, table.formats),
    }


def _mapping(provenance: Provenance | Mapping[str, Any]) -> Mapping[str, Any]:
    if is_dataclass(provenance) and not isinstance(provenance, type):
        return asdict(provenance)
    return provenance  # type: ignore[return-value]


def _paragraphs(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]


def _plain(text: str) -> str:
    """A plotly title without its markup."""
    return re.sub(r"<[^>]+>", " ", text).strip()


def _json(value: Any) -> Markup:
    """JSON that cannot end the script element that holds it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _asset(name: str) -> str:
    return resources.files("headspec.report").joinpath("assets", name).read_text("utf-8")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_asset("page.html"))
