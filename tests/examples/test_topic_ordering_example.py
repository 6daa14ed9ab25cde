"""The example as a user runs it: two seeds, one kind of attention, a few steps; then again."""

from functools import partial
from pathlib import Path

import pytest
from example_runs import run_example

import headspec as hs

ROOT = Path(__file__).parents[2]
FLAGS = ("--steps", "3", "--batch-size", "4", "--sequences", "12")
FLAGS += ("--attention", "mha", "--seeds", "0,1", "--jobs", "2")
run = partial(run_example, "topic_ordering")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    done = run(*FLAGS, "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out / "debug", done.stdout


def test_four_verdicts_a_table_and_a_page(finished):
    folder, said = finished
    verdicts = ("SUPPORTED:", "NOT SUPPORTED:", "NOT DECIDED:")
    assert sum(line.startswith(verdicts) for line in said.splitlines()) == 4
    assert "4 conditions (ordering x position), 2 seeds, 8 models." in said
    assert "mha_topic_ordered_drope" in said
    assert "- Published way, no mask: " in said
    assert said.strip().endswith(f"Report: {folder / 'report.html'}")
    page = (folder / "report.html").read_text()
    assert "As published, as corrected" in page
    assert str(ROOT) not in page
    assert str(folder) not in page


def test_tables_carry_their_provenance(finished):
    folder, _ = finished
    rows = hs.results.load(folder / "measurements.parquet")
    assert {"condition", "attention", "ordering", "position", "window_baseline"} <= set(rows)
    assert len(hs.results.load(folder / "effects.parquet")) == 6 * 3
    origin = hs.results.load_provenance(folder / "outcomes.parquet")
    assert origin is not None
    assert origin.arguments["scale"]["steps"] == 3
    assert origin.seeds == (0, 1)


def test_a_rerun_trains_and_measures_nothing_again(finished):
    folder, said = finished
    kept = [*folder.rglob("*.safetensors"), *(folder / "measured").glob("*.parquet")]
    times = {path: path.stat().st_mtime_ns for path in kept}
    assert len(times) == 2 * 4 * 2 + 8
    again = run(*FLAGS, "--out", str(folder.parent))
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == times
    assert again.stdout == said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--scale", "huge"), "scale out of 'debug'"),
        (("--seeds", "0,0"), "different seeds"),
        (("--attention", "mqa"), "attention out of 'mha'"),
    ],
)
def test_errors_are_sentences(arguments, message, tmp_path):
    done = run(*arguments, "--out", str(tmp_path))
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
