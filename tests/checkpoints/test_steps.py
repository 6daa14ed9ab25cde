"""Names of revisions as training steps, and what is said about steps that do not exist."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_files import PYTHIA_STEPS

from headspec.checkpoints.steps import check_steps, compile_format, find_steps, nearest_steps
from headspec.errors import InputError, StepNotFoundError


def test_usual_names() -> None:
    names = ["main", "step0", "step143000", "checkpoint-20", "step7-tokens4B", "steps9", "step-1"]
    assert find_steps(names) == {
        0: "step0",
        7: "step7-tokens4B",
        20: "checkpoint-20",
        143000: "step143000",
    }


def test_named_fields() -> None:
    names = ["stage1-step150-tokens1B", "stage1-step2000-tokens9B", "stage2-ingredient1-step50"]
    found = find_steps(names, "stage1-step{step}-tokens{tokens}B")
    assert found == {150: names[0], 2000: names[1]}
    assert find_steps(names, "stage2-{kind}-step{step}") == {50: names[2]}


def test_literal_parts_are_not_patterns() -> None:
    assert compile_format("v1.0+{step}").fullmatch("v1.0+12") is not None
    assert compile_format("v1.0+{step}").fullmatch("v1x00012") is None


def test_leading_zeros_are_the_same_step() -> None:
    assert find_steps(["iter_0002000"], "iter_{step}") == {2000: "iter_0002000"}


@given(st.lists(st.integers(0, 10**7), unique=True))
def test_every_step_comes_back(steps: list[int]) -> None:
    assert list(find_steps(f"step{step}" for step in steps)) == sorted(steps)


@pytest.mark.parametrize("text", ["step", "{tokens}", "{step}{step}", "{step", "{}-{step}", "{0}"])
def test_formats_without_one_step(text: str) -> None:
    with pytest.raises(InputError, match=r"one field \{step\}"):
        find_steps(["step1"], text)


def test_two_names_of_one_step() -> None:
    with pytest.raises(InputError, match=r"both step 5.*'step\{step\}-tokens9B'"):
        find_steps(["step5", "step5-tokens9B"])
    same = {"step5": "commit", "checkpoint-5": "commit"}
    assert find_steps(same, same=same) == {5: "step5"}
    with pytest.raises(InputError):  # without the check one of two different weights would win
        find_steps(same, same={**same, "step5": "another"})


def test_pythia_has_no_step256000() -> None:
    """One study asks for steps 256000, 512000 and 1000000; Pythia stops at 143000."""
    assert len(PYTHIA_STEPS) == 154
    with pytest.raises(StepNotFoundError) as caught:
        check_steps([1000, 256000, 512000, 1000000], PYTHIA_STEPS, name="EleutherAI/pythia-160m")
    text = str(caught.value)
    assert "154 from 0 to 143000" in text
    assert "steps 256000, 512000, 1000000" in text
    assert "nearest to 256000: 141000, 142000, 143000" in text
    assert "1000," not in text.split("got steps")[1].split(".")[0].replace("1000000", "")


def test_nearest_steps() -> None:
    assert nearest_steps(700, PYTHIA_STEPS) == (256, 512, 1000)
    assert nearest_steps(3, (0, 1, 2, 4), n=2) == (2, 4)
    assert nearest_steps(9, (0,)) == (0,)


def test_requested_steps_come_sorted_and_once() -> None:
    assert check_steps([512, 0, 512], PYTHIA_STEPS, name="x") == (0, 512)
