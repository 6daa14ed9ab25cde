"""Steps that have both weights and capabilities, and what reading them costs."""

import pytest

import headspec as hs
from headspec.errors import InputError
from headspec.studies.weight_steps import (
    PUBLISHED_STEPS,
    choose_common_steps,
    matrix_bytes,
    suite_names,
)

PYTHIA = (0, *(2**k for k in range(10)), *range(1000, 143_001, 1000))
EVALUATED = (0, *(2**k for k in range(10)), 1000, 3000, *range(13_000, 143_001, 10_000))


def test_twenty_steps_where_all_exist():
    steps, words = choose_common_steps(PYTHIA, PYTHIA)
    assert steps == PUBLISHED_STEPS
    assert len(steps) == 20
    assert words.startswith("20 of the study's 20 steps are in both: 20")


def test_the_nearest_common_step_stands_for_one_that_was_not_evaluated():
    """13 of 20 were; without stand-ins nothing would lie between 1000 and 143000."""
    steps, words = choose_common_steps(PYTHIA, EVALUATED)
    assert steps[11:] == (1000, 3000, 13_000, 33_000, 63_000, 133_000, 143_000)
    assert "13 of the study's 20" in words
    assert "2000 → 3000, 4000 → 3000, 8000 → 13000" in words
    assert "18 different steps" in words


def test_short_suites_are_used_whole():
    suite = hs.open_suite("micro-tiny")
    steps, words = choose_common_steps(suite.steps, suite.steps)
    assert steps == suite.steps
    assert words.startswith("All 17 steps")


def test_without_steps_in_common_there_is_nothing_to_compare():
    with pytest.raises(InputError, match="5 steps or more with both"):
        choose_common_steps((0, 1), (2, 4))


def test_bytes_are_those_of_all_matrices():
    suite = hs.open_suite("micro-tiny")
    names = [n for n in suite.tensor_names(0) if n.endswith("weight") and "norm" not in n]
    tensors = suite.source.read(0, names)
    expected = sum(t.numel() * t.element_size() for t in tensors.values() if t.ndim == 2)
    assert matrix_bytes(suite, 0) == expected


def test_names_of_suites():
    assert suite_names("micro") == ("micro", "micro-small", "micro-tiny")
    assert suite_names("micro-tiny, micro-small") == ("micro-tiny", "micro-small")
    assert suite_names("EleutherAI/pythia-70m,160m,1.4b,410m-deduped") == (
        "EleutherAI/pythia-70m",
        "EleutherAI/pythia-160m",
        "EleutherAI/pythia-1.4b",
        "EleutherAI/pythia-410m-deduped",
    )
    assert suite_names("EleutherAI/pythia-70m,/runs/mine") == (
        "EleutherAI/pythia-70m",
        "/runs/mine",
    )
    assert suite_names("") == ()
