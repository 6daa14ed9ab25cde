"""The example as a user runs it: two seeds, few updates, one architecture; then again."""

from functools import partial
from pathlib import Path

import pytest
from example_runs import run_example

import headspec as hs

ROOT = Path(__file__).parents[2]
FLAGS = ("--steps", "80", "--batch-size", "4", "--models", "mlp", "--n-jumps", "1")
FLAGS += ("--seeds", "0,1", "--jobs", "2", "--measure-every", "2")
run = partial(run_example, "dimensionality_jumps")


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
    assert "2 of 2 trainings done" in said
    assert said.strip().endswith(f"Report: {folder / 'report.html'}")
    page = (folder / "report.html").read_text()
    assert "Published claims" in page
    assert str(ROOT) not in page
    assert str(folder) not in page


def test_tables_carry_their_provenance(finished):
    folder, _ = finished
    rows = hs.results.load(folder / "measurements.parquet")
    assert {"moment", "kind", "place", "metric", "value"} <= set(rows)
    origin = hs.results.load_provenance(folder / "curves.parquet")
    assert origin is not None
    assert origin.arguments["scale"]["steps"] == 80
    assert len(list((folder / "plans").glob("*.json"))) == 2


def test_a_rerun_trains_and_measures_nothing_again(finished):
    folder, _ = finished
    kept = [*folder.rglob("*.safetensors"), *(folder / "measured").glob("*.parquet")]
    times = {path: path.stat().st_mtime_ns for path in kept}
    again = run(*FLAGS, "--out", str(folder.parent))
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == times


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--scale", "huge"), "scale out of 'debug'"),
        (("--seeds", "0,0"), "different seeds"),
        (("--models", "rnn"), "models out of"),
        (("--published", "nowhere"), "all_jumps_detailed.csv"),
    ],
)
def test_errors_are_sentences(arguments, message, tmp_path):
    done = run(*arguments, "--out", str(tmp_path))
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
