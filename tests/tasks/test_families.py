"""Families: distinct, seeded, minimal twins, right answers."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headspec.checkpoints.micro import held_out_tokens, micro_tokenizer
from headspec.checkpoints.micro_tasks import compare, is_held_out
from headspec.errors import InputError
from headspec.tasks.families import _FAMILIES, Family, build_task
from headspec.tasks.templates import compose

EVERY = [(family, wording) for family, (wordings, _) in _FAMILIES.items() for wording in wordings]


@pytest.mark.parametrize(("family", "wording"), EVERY)
def test_hundreds_of_distinct_pairs_from_a_seed(family, wording):
    n = 60 if (family, wording) == ("cloze", "micro") else 300
    task = build_task(family, n=n, wording=wording, seed=5)
    assert task == build_task(family, n=n, wording=wording, seed=5)
    assert task != build_task(family, n=n, wording=wording, seed=6)
    assert (task.name, task.n, task.seed) == (family, n, 5)
    assert len({(pair.clean, pair.corrupt) for pair in task.pairs}) == n
    n_clean = 100 if (family, wording) == ("cloze", "plain") else n
    assert len({pair.clean for pair in task.pairs}) >= n_clean
    for pair in task.pairs:
        assert pair.clean != pair.corrupt
        assert pair.correct != pair.wrong
        assert not pair.clean.endswith(" ") or wording == "micro"
    with pytest.raises(InputError, match=r"n from 1 to \d+"):
        build_task(family, n=0, wording=wording)
    with pytest.raises(InputError, match=r"n from 1 to \d+"):
        build_task(family, n=10**6, wording=wording)


@pytest.mark.parametrize("family", [family for family, wording in EVERY if wording == "micro"])
def test_micro_prompts_are_whole_for_the_suite(family):
    task = build_task(family, n=50, wording="micro").tokenise(micro_tokenizer())
    assert task.n_examples == 50
    assert (task.clean == 0).any(1).all()
    differs = (task.clean != task.corrupt).sum(1)
    assert differs.min() >= 1
    limit = {"cloze": 1, "repeated_tokens": 1, "arithmetic": 1, "pattern_completion": 2}
    assert differs.max() <= limit.get(family, 2)


def test_the_first_comparison_is_the_one_of_the_study():
    decimal, version = (build_task(f, n=1).pairs[0] for f in get_args(Family)[:2])
    assert decimal.clean == "Which is bigger: 9.8 or 9.11?\nAnswer:"
    assert (decimal.correct, decimal.wrong) == (" 9.8", " 9.11")
    assert (version.correct, version.wrong) == (" 9.11", " 9.8")
    qa = build_task("decimal_comparison", n=1, wording="qa").pairs[0]
    assert qa.clean == "Q: Which is bigger: 9.8 or 9.11?\nA:"
    both = build_task("decimal_comparison", n=1, wording="two_formats").pairs[0]
    assert (both.clean, both.corrupt) == (decimal.clean, qa.clean)
    assert both.shared == ("Which is bigger: 9.8 or 9.11?",)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_answers_of_number_questions_are_right(seed):
    for wording in ("plain", "micro"):
        for kind in ("decimal", "version"):
            task = build_task(f"{kind}_comparison", n=20, wording=wording, seed=seed)
            for pair in task.pairs:
                numbers = [pair.clean[slice(*span.clean)] for span in pair.spans[1:]]
                assert pair.correct.strip() == compare(kind, *numbers)
                assert {pair.correct.strip(), pair.wrong.strip()} == set(numbers)
                if wording == "micro":
                    assert is_held_out(" ".join(sorted(numbers)))
                    other = "version" if kind == "decimal" else "decimal"
                    assert pair.wrong.strip() == compare(other, *numbers)
        for pair in build_task("arithmetic", n=20, wording=wording, seed=seed).pairs:
            for prompt, answer in ((pair.clean, pair.correct), (pair.corrupt, pair.wrong)):
                a, b = prompt.removesuffix("=").split("+")
                assert int(a) + int(b) == int(answer)
                assert wording == "plain" or is_held_out(" ".join(sorted((a, b))))
            assert len(pair.correct) == len(pair.wrong)


def test_a_whole_word_model_completes_patterns_by_looking_back():
    """The answer is what followed the end's last earlier occurrence; in both runs."""
    for wording in ("plain", "micro"):
        for family in ("pattern_completion", "repeated_tokens"):
            for pair in build_task(family, n=60, wording=wording).pairs:
                for prompt, answer in ((pair.clean, pair.correct), (pair.corrupt, pair.wrong)):
                    words = prompt.split()
                    before = max(i for i, word in enumerate(words[:-1]) if word == words[-1])
                    assert words[before + 1] == answer.strip()


def test_indirect_objects_are_named_once_and_subjects_twice():
    pairs = build_task("indirect_object", n=40).pairs
    for i, pair in enumerate(pairs):
        io, s = pair.correct.strip(), pair.wrong.strip()
        assert (pair.clean.count(io), pair.clean.count(s)) == (1, 2)
        assert (pair.corrupt.count(io), pair.corrupt.count(s)) == (2, 1)
        assert (pair.clean.index(io) < pair.clean.index(s)) == (i % 2 == 0)  # ABBA, BABA
    for pair in build_task("indirect_object", n=40, wording="abc").pairs:
        assert pair.correct.strip() not in pair.corrupt
        assert pair.wrong.strip() not in pair.corrupt


def test_agreement_follows_the_subject_not_the_attractor():
    plural = {" are", " were", " have"}
    for pair in build_task("agreement", n=100).pairs:
        spans = {span.name: pair.clean[slice(*span.clean)] for span in pair.spans}
        assert spans["subject"].endswith("s") == (pair.correct in plural)
        assert pair.clean.split()[1] == spans["subject"]
    with_attractor = [p for p in build_task("agreement", n=100).pairs if len(p.spans) == 2]
    assert len(with_attractor) == 80
    opposed = [
        pair.clean.split()[-1].endswith("s") != (pair.correct in plural) for pair in with_attractor
    ]
    assert 20 < sum(opposed) < 60


def test_prose_is_held_out_text_with_its_true_next_token():
    rows = [tuple(row) for row in held_out_tokens().tolist()]
    for pair in build_task("cloze", n=20, wording="micro").pairs:
        assert pair.ids is not None
        passage = (*pair.ids.clean, *pair.ids.correct)
        assert any(
            passage == row[i : i + len(passage)]
            for row in rows
            for i in range(len(row) - len(passage) + 1)
        )
        assert pair.ids.clean[:-1] == pair.ids.corrupt[:-1]


def test_choices_that_a_family_does_not_have():
    with pytest.raises(InputError, match="wording of agreement out of 'plain'; got 'micro'"):
        build_task("agreement", wording="micro")


def test_named_parts_are_where_they_are_said_to_be():
    text, spans = compose(["a ", ("one", "bc"), "d", ("two", "e")])
    assert text == "a bcde"
    assert {name: text[slice(*span)] for name, span in spans.items()} == {"one": "bc", "two": "e"}


def test_both_formats_of_the_study_tokenise_with_their_map():
    task = build_task("decimal_comparison", n=20, wording="two_formats")
    found = task.tokenise(micro_tokenizer(), alignment="explicit", on_broken="raise")
    assert (found.position_map[:, found.end] == found.end).all()
    for row in range(len(found.clean)):
        columns = found.position_map[row]
        shared = (columns >= 0) & (
            torch.arange(len(columns)) < found.end - found.n_common[row // 2]
        )
        one, other = found.clean[row, columns[shared]], found.corrupt[row, shared]
        assert (one != other).sum() <= 1  # "Which" and " Which"
    with pytest.raises(InputError, match=r"unequal length: clean \d+ tokens \|Which\|"):
        task.tokenise(micro_tokenizer())
