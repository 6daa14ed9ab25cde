"""The page: whole, offline, escaped, readable; images through kaleido; the page in Chromium."""

import base64
import itertools
import json
import re
import struct
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from headless_chromium import Chromium, find_chromium
from synthetic_sweep import STEPS, TRANSITION, capability_frame, sweep_frame

from headspec import plots
from headspec.errors import HeadspecError, InputError
from headspec.report import (
    HypothesisVerdict,
    ReportFigure,
    ReportSection,
    ReportTable,
    save_figures,
    write_report,
)
from headspec.report.numbers import flat_rows, number_text, table_cells
from headspec.results.provenance import Provenance

NASTY = '<script>alert("1 & 2")</script>'


def sections(frame):
    return [
        ReportSection(
            "When clusters emerge",
            "First paragraph.\n\nSecond paragraph.",
            [
                ReportFigure(plots.plot_emergence_map(frame)),
                ReportFigure(plots.plot_metric_timeline(frame, layer=3, transition=TRANSITION)),
            ],
        ),
        ReportSection(
            "Which heads",
            figures=[
                ReportFigure(plots.plot_head_projection(frame, layer=3)),
                ReportFigure(plots.plot_similarity_heatmaps(frame, layer=3)),
            ],
        ),
        ReportSection(
            "What the model can do",
            figures=[ReportFigure(plots.plot_capability_curves(capability_frame()))],
            tables=[ReportTable(capability_frame().tail(5), "At the last step")],
        ),
        ReportSection(
            "Another layer",
            figures=[ReportFigure(plots.plot_metric_timeline(frame, layer=2))],
            folded=True,
        ),
    ]


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    frame = sweep_frame()
    last = frame[(frame["step"] == 4000) & (frame["metric"] == "silhouette")]
    return write_report(
        tmp_path_factory.mktemp("report") / "report.html",
        title="When do attention heads form clusters?",
        lead="Eighteen checkpoints, four layers.",
        findings=["Layer 3 differs from its null from step 150 on.", "Layer 0 does not."],
        hypotheses=[
            HypothesisVerdict("Early bias.", "not supported", "No layer at step 0."),
            HypothesisVerdict("Late optimisation.", "supported", "Sudden, p = 0.004."),
            HypothesisVerdict("Task-specific.", "not decided", "Weights only."),
        ],
        tables=[ReportTable(last[["layer", "value", "null_mean", "p", "q"]], "Last step")],
        sections=sections(frame),
        provenance=Provenance.collect(steps=STEPS, seeds=0, processing="none"),
    )


def small_page(path, **changes):
    figure = go.Figure(go.Scatter(x=[1, 2], y=[1, 2], name=NASTY))
    content = {
        "title": "Title",
        "lead": "Lead.",
        "findings": ["A finding."],
        "sections": [
            ReportSection("Section", figures=[ReportFigure(figure, title="F", alt="A line.")])
        ],
    }
    return write_report(path, **{**content, **changes}).read_text("utf-8")


class Elements(HTMLParser):
    """Every element with its attributes, and the text outside scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text, self._raw = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._raw = tag if tag in ("script", "style") else None

    def handle_endtag(self, tag):
        self._raw = None

    def handle_data(self, data):
        if self._raw is None:
            self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.found if name == tag]


# --- what the file holds --------------------------------------------------------------------


def test_nothing_is_loaded_from_anywhere(page_path):
    page = Elements(page_path.read_text("utf-8"))
    for tag, attrs in page.found:
        for name in ("src", "href", "srcset", "poster", "data", "action"):
            if name in attrs:
                assert re.match(r"#|data:", attrs[name]), (tag, attrs)
    assert not page.all("iframe")
    assert not page.all("object")
    style = re.search(r"<style>(.*?)</style>", page_path.read_text("utf-8"), re.S)[1]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(m for m in page.all("meta") if "content-security" in str(m).lower())
    assert "default-src 'none'" in policy["content"]


def test_plotly_is_there_once_and_only_where_needed(page_path, tmp_path):
    text = page_path.read_text("utf-8")
    assert text.count("plotly.js v") == 1
    assert "plotly.js v" not in small_page(tmp_path / "r.html", sections=[])


def test_findings_come_first_and_headings_are_in_order(page_path):
    page = Elements(page_path.read_text("utf-8"))
    levels = [int(tag[1]) for tag, _ in page.found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    text = "".join(page.text)
    places = [text.index(words) for words in ("Layer 3 differs", "Early bias", "First paragraph")]
    assert places == sorted(places)
    assert page.all("html")[0]["lang"] == "en"


def test_figures_and_tables_can_be_read_without_seeing(page_path):
    page = Elements(page_path.read_text("utf-8"))
    drawings = [attrs for tag, attrs in page.found if attrs.get("role") == "img"]
    assert len(drawings) == 6
    assert all(len(each["aria-label"]) > 40 and each["tabindex"] == "0" for each in drawings)
    assert all(attrs.get("scope") in ("col", "row") for attrs in page.all("th"))
    regions = [attrs for tag, attrs in page.found if attrs.get("role") == "region"]
    assert all(each["tabindex"] == "0" for each in regions)
    ids = {attrs["id"] for _, attrs in page.found if "id" in attrs}
    for _, attrs in page.found:
        for name in ("aria-labelledby", "data-for"):
            assert attrs.get(name) is None or attrs[name] in ids
        if attrs.get("href", "").startswith("#"):
            assert attrs["href"][1:] in ids


def test_verdicts_are_words_not_colours_alone(page_path):
    text = re.sub(r"\s+", " ", "".join(Elements(page_path.read_text("utf-8")).text))
    for words in ("✗ not supported Early", "✓ supported Late", "? not decided Task"):
        assert words in text


def test_provenance_is_folded_and_complete(page_path):
    text = page_path.read_text("utf-8")
    folded = text[text.index('id="provenance"') :]
    assert folded.index("<details>") < folded.index("<table")
    assert "versions, plotly" in text or "versions, numpy" in text
    assert '<th scope="row">processing</th><td>none</td>' in text


def test_figure_numbers_survive_the_way_into_the_page(page_path):
    specs = re.findall(r'<script type="application/json" class="spec".*?>\s*(\{.*?\})\s*</script>',
                       page_path.read_text("utf-8"), re.S)  # fmt: skip
    assert len(specs) == 6
    spec = json.loads(specs[0])
    frame = sweep_frame()
    rows = frame[(frame["metric"] == "silhouette") & (frame["layer"] == 3)].sort_values("step")
    excess = (rows["value"] - rows["null_mean"]) / rows["null_sd"]
    drawn = go.Figure(spec["data"][0]).data[0].z
    if isinstance(drawn, dict):
        flat = np.frombuffer(base64.b64decode(drawn["bdata"]), drawn["dtype"])
        drawn = flat.reshape([int(n) for n in drawn["shape"].split(",")])
    np.testing.assert_allclose(drawn[3], excess)
    assert "title" not in spec["layout"]  # it stands in the HTML, where it wraps
    assert "height" in spec["narrow"]


@pytest.mark.parametrize(
    "changes",
    [
        {"title": NASTY},
        {"lead": NASTY},
        {"findings": [NASTY]},
        {"hypotheses": [HypothesisVerdict(NASTY, "supported", NASTY)]},
        {"tables": [ReportTable(pd.DataFrame({NASTY: [NASTY]}), NASTY, NASTY)]},
        {"sections": [ReportSection(NASTY, NASTY)]},
        {
            "sections": [
                ReportSection("s", figures=[ReportFigure(go.Figure(), NASTY, NASTY, alt=NASTY)])
            ]
        },
        {"provenance": {NASTY: {NASTY: NASTY}}},
        {},  # a trace called like that
    ],
)
def test_texts_stay_texts(tmp_path, changes):
    text = small_page(tmp_path / "r.html", **changes)
    assert NASTY not in text
    plain = small_page(tmp_path / "plain.html", sections=[])
    own = len(Elements(plain).all("script"))
    figures = sum(len(s.figures) for s in changes.get("sections", [])) or (not changes)
    if "sections" in changes:
        assert len(Elements(text).all("script")) == own + figures
    if changes:
        assert "<script>alert(" in "".join(Elements(text).text) + str(Elements(text).found)


def test_an_unfinished_page_leaves_the_old_one(tmp_path):
    path = tmp_path / "r.html"
    before = small_page(path)
    with pytest.raises(InputError, match="text alternative for every figure"):
        small_page(path, sections=[ReportSection("s", figures=[ReportFigure(go.Figure())])])
    assert path.read_text("utf-8") == before
    assert [file.name for file in tmp_path.iterdir()] == ["r.html"]


def test_a_failed_write_leaves_the_old_page(tmp_path, monkeypatch):
    path = tmp_path / "r.html"
    before = small_page(path)

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        small_page(path, title="Other")
    assert path.read_text("utf-8") == before
    assert [file.name for file in tmp_path.iterdir()] == ["r.html"]


def test_same_content_same_bytes(tmp_path):
    assert small_page(tmp_path / "a.html") == small_page(tmp_path / "b.html")


def test_findings_are_required_and_verdicts_are_checked(tmp_path):
    with pytest.raises(InputError, match="at least one finding"):
        small_page(tmp_path / "r.html", findings=[])
    with pytest.raises(Exception, match="maybe"):
        HypothesisVerdict("h", "maybe", "e")


def test_the_figure_given_is_not_changed(tmp_path):
    figure = plots.plot_capability_curves(capability_frame())
    before = figure.to_json()
    small_page(tmp_path / "r.html", sections=[ReportSection("s", figures=[ReportFigure(figure)])])
    assert figure.to_json() == before


# --- numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.5"),
        (0.123456, "0.123"),
        (-0.5, "−0.5"),
        (11275.0, "11 275"),
        (12345.67, "12 346"),
        (3.2e-8, "3.2×10⁻⁸"),
        (-3.2e-8, "−3.2×10⁻⁸"),
        (1.5e9, "1 500 000 000"),
        (np.int64(7), "7"),
        (np.float32(0.25), "0.25"),
        (np.nan, "–"),
        (pd.NA, "–"),
        (None, "–"),
        (np.inf, "∞"),
        (True, "yes"),
        (np.False_, "no"),
        ("a-b", "a-b"),
    ],
)
def test_numbers_as_text(value, text):
    assert number_text(value) == text


def test_p_values_and_formats():
    assert number_text(0.0004, column="p") == "<0.001"
    assert number_text(0.0432, column="q") == "0.043"
    assert number_text(0.5, spec=".3f") == "0.500"


def test_a_column_has_one_number_of_decimals():
    frame = pd.DataFrame({"a": [0.0475, 0.108, 0.519], "b": [0.07, 0.07, 0.02], "c": [1, 2, 30]})
    rows = table_cells(frame, {})["rows"]
    assert [row[0] for row in rows] == ["0.048", "0.108", "0.519"]
    assert [row[1] for row in rows] == ["0.07", "0.07", "0.02"]
    assert [row[2] for row in rows] == ["1", "2", "30"]
    wide = pd.DataFrame({"a": [1e-6, 0.5, np.nan]})
    assert [row[0] for row in table_cells(wide, {})["rows"]] == ["1×10⁻⁶", "0.5", "–"]


def test_nested_provenance_becomes_rows():
    rows = flat_rows({"suite": "micro", "steps": (0, 8), "versions": {"numpy": "2"}, "x": None})
    assert rows == [
        ("suite", "micro"),
        ("steps", "0, 8"),
        ("versions, numpy", "2"),
        ("x", "–"),
    ]


# --- figures as files -----------------------------------------------------------------------


def small_figures():
    return {
        "curves": plots.plot_capability_curves(capability_frame()),
        "plain": go.Figure(go.Bar(x=[1, 2], y=[3, 4])),
    }


def test_html_figures_share_one_plotly(tmp_path):
    paths = save_figures(small_figures(), tmp_path / "figures", formats=["html"])
    assert [path.name for path in paths] == ["curves.html", "plain.html"]
    names = sorted(file.name for file in (tmp_path / "figures").iterdir())
    assert names == ["curves.html", "plain.html", "plotly.min.js"]
    sources = [a["src"] for a in Elements(paths[0].read_text("utf-8")).all("script") if "src" in a]
    assert sources == ["plotly.min.js"]


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden"])
def test_names_that_are_no_file_names_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="file names"):
        save_figures({name: go.Figure()}, tmp_path, formats=["html"])


def test_without_kaleido_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(HeadspecError, match=r"headspec\[png\].*Chromium"):
        save_figures(small_figures(), tmp_path, formats=["png"])
    assert list(tmp_path.iterdir()) == []


def test_without_chromium_the_error_says_what_to_install(tmp_path, monkeypatch):
    pytest.importorskip("kaleido")
    monkeypatch.setattr("choreographer.browsers.chromium.Chromium.find_browser", lambda **_: None)
    with pytest.raises(HeadspecError, match=r"Chrome or Chromium.*apt install chromium"):
        save_figures(small_figures(), tmp_path, formats=["png"])
    assert list(tmp_path.iterdir()) == []


needs_chromium = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium on the PATH (Debian: apt install chromium)"
)


@pytest.mark.browser
@needs_chromium
def test_png_figures_have_their_size(tmp_path):
    pytest.importorskip("kaleido", reason="kaleido is not installed (headspec[png])")
    figures = small_figures()
    paths = save_figures(figures, tmp_path, formats=["png"])
    content = paths[0].read_bytes()
    assert content.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", content[16:24])
    assert (width, height) == (1920, 2 * figures["curves"].layout.height)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["curves.png", "plain.png"]


# --- the page in a browser ------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    with Chromium(find_chromium()) as chromium:
        yield chromium


DRAWN = """[...document.querySelectorAll('.canvas')].filter((x) => x.checkVisibility()).map((x) =>
  x.querySelectorAll('svg.main-svg').length > 0
  && x.querySelectorAll('.plot path').length > 0
  && x.querySelector('svg.main-svg').getBoundingClientRect().height > 150)"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# Nothing inside a drawing may lie outside it: long axis titles and legends are cut silently.
CUT = """[...document.querySelectorAll('.canvas')].flatMap((x) => {
  const box = x.getBoundingClientRect();
  return [...x.querySelectorAll('text')].filter((t) => {
    const b = t.getBoundingClientRect();
    return b.width && (b.left < box.left - 2 || b.right > box.right + 2);
  }).map((t) => t.textContent);
})"""


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_page_draws_everything_quietly_and_fits(browser, page_path, width, dark):
    page = browser.open(page_path, width=width, dark=dark)
    assert page.errors == []
    assert page.requests == []
    assert browser.evaluate(DRAWN) == [True] * 5
    assert browser.evaluate(OVERFLOW) <= 0
    assert browser.evaluate(CUT) == []
    look = browser.evaluate("document.querySelector('.canvas').dataset.drawn")
    assert look == f"{'narrow' if width == 390 else 'wide'} {str(dark).lower()}"
    paper = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    fill = browser.evaluate("document.querySelector('.main-svg').style.background")
    assert paper == fill == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")


@pytest.mark.browser
@needs_chromium
def test_panels_stack_on_a_phone(browser, page_path):
    count = """new Set([...document.querySelectorAll('#figure-2 .xaxislayer-above')]
      .map((x) => Math.round(x.getBoundingClientRect().left))).size"""
    browser.open(page_path, width=1280)
    assert browser.evaluate(count) == 2
    browser.look(width=390)
    browser.evaluate("new Promise((done) => setTimeout(done, 300))")
    browser.settle()
    assert browser.evaluate(count) == 1
    assert browser.evaluate(OVERFLOW) <= 0


@pytest.mark.browser
@needs_chromium
def test_folded_sections_draw_when_opened_and_keys_reach_them(browser, page_path):
    page = browser.open(page_path, width=1280)
    for kind in ("keyDown", "keyUp"):
        browser.send("Input.dispatchKeyEvent", {"type": kind, "key": "Tab", "code": "Tab",
                                                "windowsVirtualKeyCode": 9})  # fmt: skip
    assert browser.evaluate("document.activeElement.className") == "skip"
    browser.evaluate("document.querySelectorAll('details').forEach((x) => { x.open = true; })")
    browser.evaluate("new Promise((done) => setTimeout(done, 300))")
    browser.settle()
    assert browser.evaluate(DRAWN) == [True] * 6
    assert browser.evaluate(OVERFLOW) <= 0
    assert page.errors == []


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize(
    ("content", "field", "words"),
    [
        ("<script>console.error('broken')</script>", "errors", "broken"),
        ("<script>nothing.here()</script>", "errors", "ReferenceError"),
        ("<img src='http://127.0.0.1:9/x.png'>", "requests", "127.0.0.1"),
    ],
)
def test_the_checker_sees_broken_pages(browser, tmp_path, content, field, words):
    """Negative control: the same checks fail on pages with an error or a request."""
    path = tmp_path / "bad.html"
    path.write_text(f"<!doctype html><title>bad</title>{content}")
    page = browser.open(path)
    assert any(words in said for said in getattr(page, field))


@pytest.mark.browser
@needs_chromium
def test_the_checker_sees_overflow_and_missing_drawings(browser, tmp_path):
    path = tmp_path / "wide.html"
    path.write_text(
        "<!doctype html><title>wide</title><meta name=viewport content='width=device-width'>"
        "<div style='width:2000px'>x</div>"
        "<div class='canvas' data-drawn='1'>empty</div>"
    )
    browser.open(path, width=390)
    assert browser.evaluate(OVERFLOW) > 0
    assert browser.evaluate(DRAWN) == [False]
