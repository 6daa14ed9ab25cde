"""The page that `make demo` ends with: all studies, the last verdict of each hypothesis."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import headspec as hs

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def all_studies(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, "all_studies", raising=False)
    import all_studies

    return all_studies


def study(name, verdicts, asked):
    def main(*, suite, seed, out):
        asked.append((name, suite, seed, out.name))
        return {
            "title": name,
            "lead": f"What {name} asks.",
            "findings": [f"{name} finds {i}." for i in range(5)],
            "hypotheses": [hs.HypothesisVerdict(*each, "why") for each in verdicts.items()],
            "sections": [hs.ReportSection(f"part {i}", text=f"{name} {i}") for i in range(2)],
            "provenance": hs.Provenance.collect(hs.open_suite(suite), seeds=seed),
        }

    return SimpleNamespace(main=main, __name__=name)


def test_one_page_of_all_studies(all_studies, monkeypatch, tmp_path, capsys):
    asked = []
    studies = {
        "First": study("first", {"H1": "not decided", "H2": "supported"}, asked),
        "Second": study("second", {"H1": "not supported"}, asked),
    }
    monkeypatch.setattr(all_studies, "STUDIES", studies)
    all_studies.main(suite="micro-tiny", seed=3, out=tmp_path)
    assert asked == [("first", "micro-tiny", 3, "first"), ("second", "micro-tiny", 3, "second")]
    said = capsys.readouterr().out.strip().splitlines()
    assert said[-1] == f"Report: {tmp_path / 'report.html'}"
    page = (tmp_path / "report.html").read_text()
    assert "first finds 2." in page
    assert "first finds 3." not in page
    assert page.count("badge not-supported") == page.count("badge supported") == 1
    assert "badge not-decided" not in page
    assert page.count("<details>") == 3  # the second section of each study, and provenance
    assert "First: part 0" in page


def test_the_demo_runs_all_studies(all_studies):
    names = {module.__name__ for module in all_studies.STUDIES.values()}
    assert names == {path.stem for path in EXAMPLES.glob("*.py")} - {"all_studies"}
    makefile = (EXAMPLES.parent / "Makefile").read_text()
    assert "examples/all_studies.py" in makefile
    assert "demo: studies" in makefile
