"""The parity example as a user runs it: results, report, plain sentences, clear errors."""

import json
from functools import partial
from pathlib import Path

import pytest
from example_runs import run_example

import headspec as hs

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "parity_emergence.py"
STEPS = "0,256,512,1024,2048,6144"
run = partial(run_example, "parity_emergence")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    flags = ("--layer", "3", "--steps", STEPS, "--n-pairs", "8", "--workers", "1")
    done = run(*flags, "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_it_ends_with_the_path_of_a_report(finished):
    out, said = finished
    assert said.strip().endswith(str(out / "report.html"))
    page = (out / "report.html").read_text()
    assert "Even against odd heads over training" in page
    assert "not supported" in page
    names = ("emergence_timeline", "individual_success_rates", "emergence_analysis")
    assert all((out / "figures" / f"{name}.html").exists() for name in names)


def test_it_judges_nine_hypotheses_and_supports_none(finished):
    _, said = finished
    verdicts = ("SUPPORTED:", "NOT SUPPORTED:", "NOT DECIDED:")
    judged = [line for line in said.splitlines() if line.startswith(verdicts)]
    assert [line.split(": ")[1][:2] for line in judged] == [f"H{i}" for i in range(1, 10)]
    assert not any(line.startswith("SUPPORTED") for line in judged)


def test_what_looks_like_perfect_specialisation_is_one_head(finished):
    """Without the other splits, odd heads restore every answer and even heads none."""
    _, said = finished
    assert "without other splits: odd heads ahead by 100 points at the last step" in said
    assert "100% of all splits into halves differ as much or more" in said
    assert "halves with L3H3 restore 100 points more" in said


def test_results_carry_their_provenance_step_by_step_and_in_all(finished):
    out, _ = finished
    frame = hs.results.load(out / "parity.json")
    assert set(frame["step"]) == {int(step) for step in STEPS.split(",")}
    assert len(list((out / "steps").rglob("*.json"))) == 6
    splits = hs.results.load(out / "splits.json")
    assert len(splits) == 6 * 2 * 462
    origin = hs.results.load_provenance(out / "parity.json")
    assert origin is not None
    assert origin.suite == "micro"
    assert origin.processing == "none"
    matched = hs.results.load(out / "published_steps.json")
    assert matched["step"].iloc[-1] == 6144
    verdicts = hs.results.load(out / "verdicts.json")
    assert list(verdicts) == ["hypothesis", "strength", "graded_strength"]
    json.loads((out / "emergence.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", "0,5,6144"), "nearest to 5"),
        (("--steps", "0,6144"), "three steps or more"),
        (("--layer", "9"), "layers 0 to 3"),
        (("--task", "nonsense"), "decimal_comparison"),
        (("--suite", "EleutherAI/pythia-160m", "--layer", "6"), "network"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(tmp_path, arguments, message):
    done = run(*arguments, "--out", str(tmp_path), HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) < 25


def test_it_is_thin():
    assert len(SCRIPT.read_text().splitlines()) < 150
