"""The example as a user runs it: results, report, plain sentences, clear errors."""

from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from example_runs import run_example

import headspec as hs

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "cluster_mechanism.py"
TABLES = ("layers", "abilities", "comparison", "effects", "swaps", "outputs")

pytestmark = pytest.mark.models
run = partial(run_example, "cluster_mechanism")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    done = run("--layer", "2", "--n-random", "19", "--n-prompts", "5", "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_it_ends_with_the_path_of_a_report(finished):
    out, said = finished
    assert said.strip().endswith(str(out / "report.html"))
    page = (out / "report.html").read_text()
    for words in ("What the clusters matter for", "Swapping the clusters", "Swapping outputs"):
        assert words in page


def test_it_says_what_it_found_and_judges_the_hypothesis(finished):
    _, said = finished
    assert "Cluster 2 (heads 1 2 4 6 9 11 of layer 2), ablated" in said
    assert "which the study calls strong; random sets of these sizes give" in said
    verdicts = ("SUPPORTED:", "NOT SUPPORTED:", "NOT DECIDED:")
    assert sum(line.startswith(verdicts) for line in said.splitlines()) == 1
    # Nineteen random sets cannot single out one of four tasks: said, not hidden.
    assert "none could stand out" in said


def test_results_carry_their_provenance(finished):
    out, _ = finished
    for name in TABLES:
        frame = hs.results.load(out / f"{name}.parquet")
        pd.testing.assert_frame_equal(frame, hs.results.load(out / f"{name}.json"))
        origin = hs.results.load_provenance(out / f"{name}.json")
        assert origin is not None
        assert (origin.suite, set(origin.hashes)) == ("micro", {6144})
    assert set(hs.results.load(out / "swaps.json")["how"]) == {"qk"}
    assert set(hs.results.load(out / "outputs.json")["how"]) == {"outputs"}


def test_figures_are_files(finished):
    out, _ = finished
    names = {path.stem for path in (out / "figures").glob("*.html")}
    assert {"effects", "swaps", "outputs", "pca", "tsne", "heads_pattern"} <= names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--step", "5"), "nearest"),
        (("--layer", "9"), "layers 0 to 3"),
        (("--how", "nonsense"), "outputs"),
        (("--suite", "EleutherAI/pythia-160m", "--layer", "6"), "network"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(tmp_path, arguments, message):
    done = run(*arguments, "--out", str(tmp_path), HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) < 15


def test_it_is_thin():
    assert len(SCRIPT.read_text().splitlines()) < 150
