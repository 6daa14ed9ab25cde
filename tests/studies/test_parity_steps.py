"""Eleven published steps, three of which do not exist."""

import pytest

from headspec.checkpoints.micro import STEPS
from headspec.studies.parity_steps import (
    PUBLISHED_STEPS,
    choose_study_steps,
    match_published_steps,
)

PYTHIA = (0, *(2**i for i in range(10)), *range(1000, 144_000, 1000))


def test_on_pythia_the_last_three_fall_together_on_its_last_step():
    matched = match_published_steps(PYTHIA)
    assert matched["matched_by"].eq("step").all()
    assert matched["step"].tolist() == [*PUBLISHED_STEPS[:8], *[143_000] * 3]
    assert matched["exact"].sum() == 8
    steps, words = choose_study_steps(PYTHIA)
    assert steps == (*PUBLISHED_STEPS[:8], 143_000)
    assert "256000 → 143000, 512000 → 143000, 1000000 → 143000" in words
    assert "9 different steps are left of eleven" in words


def test_a_suite_that_has_all_is_used_as_published():
    steps, words = choose_study_steps((0, *PUBLISHED_STEPS))
    assert steps == PUBLISHED_STEPS
    assert "All eleven" in words


def test_a_short_suite_is_used_whole_and_matched_by_share():
    steps, words = choose_study_steps(STEPS)
    assert steps == STEPS
    assert "ends at step 6144" in words
    matched = match_published_steps(STEPS)
    assert matched["matched_by"].eq("share").all()
    assert matched["published_share"].iloc[-2:].tolist() == [0.512, 1.0]
    assert matched["step"].iloc[-2:].tolist() == [3072, 6144]
    assert matched["share"].iloc[-2] == pytest.approx(0.5)
    assert not matched["exact"].any()
