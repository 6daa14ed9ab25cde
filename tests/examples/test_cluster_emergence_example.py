"""The example as a user runs it: results, report, plain sentences, clear errors."""

import json
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from example_runs import run_example

import headspec as hs

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "cluster_emergence.py"
run = partial(run_example, "cluster_emergence")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    done = run(
        "--layer", "2", "--steps", "0,512,1024,1536,2048,6144", "--n-null", "199", "--out", str(out)
    )
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_it_ends_with_the_path_of_a_report(finished):
    out, said = finished
    assert said.strip().endswith(str(out / "report.html"))
    page = (out / "report.html").read_text()
    assert "Layer 2" in page
    assert "not decided" in page


def test_it_says_what_it_found_and_judges_three_hypotheses(finished):
    _, said = finished
    assert "Layer 2: silhouette" in said
    assert "its clusters differ in induction attention" in said
    verdicts = ("SUPPORTED:", "NOT SUPPORTED:", "NOT DECIDED:")
    assert sum(line.startswith(verdicts) for line in said.splitlines()) == 3


def test_results_carry_their_provenance(finished):
    out, _ = finished
    frame = hs.results.load(out / "directions.parquet")
    pd.testing.assert_frame_equal(frame, hs.results.load(out / "directions.json"))
    origin = hs.results.load_provenance(out / "directions.json")
    assert origin is not None
    assert origin.suite == "micro"
    assert set(origin.hashes) == {0, 512, 1024, 1536, 2048, 6144}
    assert {"torch", "headspec"} <= set(origin.versions)
    assert origin.seeds == (0,)
    assert origin.processing == "none"
    json.loads((out / "directions.json").read_text())


def test_a_rerun_measures_nothing_again(finished):
    out, _ = finished
    files = {path: path.stat().st_mtime_ns for path in (out / "steps").rglob("*.json")}
    assert len(files) == 12  # six steps, directions and as given
    again = run(
        "--layer", "2", "--steps", "0,512,1024,1536,2048,6144", "--n-null", "199", "--out", str(out)
    )
    assert again.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "steps").rglob("*.json")} == files


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", "0,5,6144"), "nearest to 5"),
        (("--steps", "0,6144"), "three steps or more"),
        (("--steps", "all"), "three steps or more"),
        (("--layer", "9"), "layers 0 to 3"),
        (("--feature", "nonsense"), "qk"),
        (("--suite", "EleutherAI/pythia-160m", "--layer", "6"), "network"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(tmp_path, arguments, message):
    done = run(*arguments, "--out", str(tmp_path), HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) < 15


def test_a_cluster_of_one_head_ends_in_a_report_too(tmp_path):
    done = run(
        *("--suite", "micro-small", "--feature", "ov", "--layer", "1", "--n-null", "99"),
        *("--steps", "0,1024,6144", "--out", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").exists()


def test_it_is_thin():
    assert len(SCRIPT.read_text().splitlines()) < 150
