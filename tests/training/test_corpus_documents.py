"""Documents from files, data sets and installed packages; their text."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headspec.errors import InputError
from headspec.training import corpus_documents
from headspec.training.corpus_documents import (
    dataset_documents,
    installed_documents,
    installed_versions,
    read_documents,
)
from headspec.training.corpus_text import cut_passages, keep_new, plain_text, prose_paragraphs


def test_html_is_what_a_reader_sees():
    page = (
        "<html><head><title>T</title><style>p {}</style></head><body><nav>Home</nav>"
        "<h1>Cats &amp; dogs</h1><p>Two\nlines <b>bold</b>.</p><script>x()</script><p>End.</body>"
    )
    assert plain_text(page, ".html") == "Cats & dogs\n\nTwo lines bold.\n\nEnd."


def test_markdown_without_marks_and_code():
    text = "# Title\n\nSome *words* and [a link](http://x.y).\n\n```python\ncode()\n```\n\n- item\n"
    assert plain_text(text, ".md") == "Title\n\nSome words and a link.\n\nitem"


def test_restructured_text_without_directives():
    text = (
        "Title\n=====\n\nUse :func:`this` ``now``.\n\n.. note::\n   Hidden.\n\n"
        ".. code-block:: python\n\n   code()\n\nShown.\n"
    )
    assert plain_text(text, ".rst") == "Title\n\nUse this now.\n\nShown."


def test_plain_files_stay_as_they_are():
    assert plain_text("One\ntwo.\n\n\nThree *four*.", ".txt") == "One two.\n\nThree *four*."


def test_folders_are_read_in_order_and_other_files_passed_over(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.md").write_text("Second.")
    (tmp_path / "a.txt").write_text("First.")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "c.jsonl").write_text('{"body": "Third."}\n\n{"body": "Fourth."}\n')
    found = read_documents(tmp_path, field="body")
    assert [(one.name, one.text, one.source) for one in found] == [
        ("a.txt", "First.", "a"),
        ("b/two.md", "Second.", "b"),
        ("c.jsonl:0", "Third.", "c"),
        ("c.jsonl:2", "Fourth.", "c"),
    ]
    assert len(read_documents([tmp_path / "a.txt", tmp_path / "b"])) == 2
    with pytest.raises(InputError, match=r"text under 'text' in c.jsonl:0; got body"):
        read_documents(tmp_path)


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="which is not there"):
        read_documents(tmp_path / "missing")
    with pytest.raises(InputError, match=r"files ending in .txt"):
        read_documents(tmp_path)
    (tmp_path / "x.jsonl").write_text("{")
    with pytest.raises(InputError, match="JSON in line 1"):
        read_documents(tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="needs datasets")
@pytest.mark.filterwarnings("ignore")
def test_data_sets_through_their_library_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [json.dumps({"body": f"Text {number}."}) for number in range(5)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    import pandas as pd

    pd.DataFrame({"body": ["One.", "Two."]}).to_parquet(tmp_path / "rows.parquet")
    found = dataset_documents("json", data_files=str(tmp_path / "rows.jsonl"), field="body", n=3)
    assert [one.text for one in found] == ["Text 0.", "Text 1.", "Text 2."]
    assert [one.name for one in found] == ["json:0", "json:1", "json:2"]
    found = dataset_documents("parquet", data_files=str(tmp_path / "rows.parquet"), field="body")
    assert [one.text for one in found] == ["One.", "Two."]
    with pytest.raises(InputError, match="Pass field="):
        dataset_documents("parquet", data_files=str(tmp_path / "rows.parquet"))


def test_data_sets_without_their_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"headspec\[corpus\]"):
        dataset_documents("anything")


def test_docstrings_of_installed_packages(monkeypatch, tmp_path):
    """A package of ours stands for the standard library, to be quick."""
    package = tmp_path / "thing"
    (package / "part").mkdir(parents=True)
    (package / "tests").mkdir()
    long = "This function counts the number of small birds in the garden, one after the other."
    (package / "__init__.py").write_text(f'"""{long}\n\n>>> code = example(of, use)\n"""\n')
    (package / "part" / "deep.py").write_text(
        "if True:\n    class A:\n        def f(self):\n"
        f'            """{long[:-1]}, in a class.\n            """\n'
    )
    (package / "tests" / "test_x.py").write_text(f'"""{long} Hidden."""\n')
    (package / "broken.py").write_text("def (\n")
    monkeypatch.setattr(
        corpus_documents.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path / "none")}
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = installed_documents(["thing", "not_installed_at_all"])
    assert [(one.name, one.source) for one in found] == [
        ("thing/__init__.py", "thing"),
        ("thing/part/deep.py", "thing.part"),
    ]
    assert found[0].text == long
    assert found[1].text.endswith("in a class.")
    assert "thing" not in sys.modules  # nothing is imported


def test_versions_are_known_without_reading():
    versions = installed_versions(["numpy", "sklearn", "not_installed_at_all"])
    assert set(versions) == {"python", "numpy", "sklearn"}


def test_only_prose_is_kept():
    kept = list(
        prose_paragraphs(
            [
                "This sentence is long enough to be kept, since it speaks of :class:`things`.\n\n"
                "Parameters\n----------\nx : int\n\n>>> run(the, code, that, is, long, enough)\n\n"
                "too short."
            ]
        )
    )
    assert kept == ["This sentence is long enough to be kept, since it speaks of things."]


def test_passages_are_whole_sentences():
    text = "One two three. Four five six seven.\n\nEight nine. Ten."
    assert cut_passages(text, words=5, least=1) == [
        "One two three.",
        "Four five six seven.",
        "Eight nine. Ten.",
    ]
    assert cut_passages(text, words=9, least=1) == [
        "One two three. Four five six seven.\nEight nine.",
        "Ten.",
    ]
    assert cut_passages(text, words=9, least=2) == [
        "One two three. Four five six seven.\nEight nine."
    ]
    assert cut_passages("", words=5, least=1) == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=4), min_size=1, max_size=4),
    st.integers(1, 30),
)
def test_no_word_is_lost_or_doubled(paragraphs, words):
    counter = iter(range(10_000))
    text = "\n\n".join(
        " ".join(" ".join(f"w{next(counter)}" for _ in range(length)) + "." for length in sentences)
        for sentences in paragraphs
    )
    passages = cut_passages(text, words=words, least=1)
    assert " ".join(passages).split() == text.split()
    longest = max(length for sentences in paragraphs for length in sentences)
    assert all(len(passage.split()) <= max(words, longest) for passage in passages)


def test_copies_and_near_copies_are_dropped():
    first = "the quick brown fox jumps over the lazy dog and runs into the deep green forest today"
    changed = first.replace("today", "tomorrow")
    other = "a slow red hen walks under the busy cat and sits upon the shallow blue river all night"
    assert keep_new([first, first.upper(), changed, other, "short", "short", "brief"]) == [
        0,
        3,
        4,
        6,
    ]
