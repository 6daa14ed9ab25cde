"""Tasks of one's own: from lists and files, and what counts as one trial."""

from __future__ import annotations

import doctest
import importlib

import pytest

import headspec as hs
from headspec.errors import InputError
from headspec.tasks.pairs import PairIds, PromptPair
from headspec.tasks.prompts import Task

SUMS = [("2+2=", "2+3=", "4", "5"), ("1+2=", "1+3=", "3", "4")]


def test_tuples_mappings_and_pairs_give_the_same_task():
    names = ("clean", "corrupt", "correct", "wrong")
    dicts = [dict(zip(names, row, strict=True)) for row in SUMS]
    objects = [PromptPair(*row) for row in SUMS]
    tasks = [Task.from_pairs(rows, name="sums") for rows in (SUMS, dicts, objects)]
    assert tasks[0] == tasks[1] == tasks[2]
    frame = tasks[0].to_frame()
    assert list(frame.columns) == ["task", "pair", *names]
    assert frame["correct"].tolist() == ["4", "3"]
    assert Task.from_pairs(frame.to_dict("records"), name="sums") == tasks[0]


def test_fifteen_greedy_trials_of_one_prompt_are_one_trial():
    trials = [("Which is bigger: 9.8 or 9.11?", "Q: Which?", " 9.8", " 9.11")] * 15
    with pytest.raises(InputError, match=r"repeated trials of one prompt are one trial.*pair 1 "):
        Task.from_pairs(trials)
    once = Task.from_pairs(trials, duplicates="drop")
    assert (once.n, once.n_dropped) == (1, 14)
    with pytest.raises(InputError, match="pairs 0 and 1 both"):
        Task("trials", (PromptPair(*trials[0]),) * 2)  # not by the back door either


def test_a_csv_file_keeps_spaces_newlines_and_commas(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(
        'id,clean,corrupt,correct,wrong\n1,"Is it a, or b?","Is it b, or a?"," a\n", b\n'
        "2,x,y, c, d\n",
        encoding="utf-8-sig",
    )
    task = hs.Task.from_csv(path)
    assert (task.name, task.n) == ("mine", 2)
    assert task.pairs[0] == PromptPair("Is it a, or b?", "Is it b, or a?", " a\n", " b")
    assert task.pairs[1].correct == " c"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clean,corrupt,correct\na,b,c\n", "no wrong"),
        ("", "an empty file"),
        ("clean,corrupt,correct,wrong\na,b,c,d\ne,f,,h\n", "no correct in line 3"),
        ("clean,corrupt,correct,wrong\na,b,c,d\ne,f,g\n", "no wrong in line 3"),
        ("clean,corrupt,correct,wrong\na,b,c,d\ne,f,g,h\na,b,x,y\n", "line 4 repeats line 2"),
        ("clean,corrupt,correct,wrong\n", "at least one pair"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_line(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        Task.from_csv(path)


def test_a_missing_file_and_unusable_rows_are_errors(tmp_path):
    with pytest.raises(InputError, match="a CSV file"):
        Task.from_csv(tmp_path / "none.csv")
    with pytest.raises(InputError, match="no clean or corrupt or correct or wrong in pair 0"):
        Task.from_pairs(["abcd"])
    with pytest.raises(InputError, match="nothing for wrong"):
        PromptPair("a", "b", "c")


def test_a_pair_of_token_ids_shows_them_where_it_has_no_text():
    pair = PromptPair(ids=PairIds((5, 6), (7, 6), (8,), (9,)))
    assert (pair.clean, pair.corrupt, pair.correct, pair.wrong) == (
        "<5> <6>",
        "<7> <6>",
        "<8>",
        "<9>",
    )


@pytest.mark.parametrize("name", ["prompts", "alignment", "families", "templates"])
def test_examples_in_docstrings(name):
    module = importlib.import_module(f"headspec.tasks.{name}")
    found = doctest.testmod(module)
    assert found.failed == 0
    assert found.attempted > 0
