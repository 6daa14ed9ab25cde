"""The example as a user runs it: one embedded size, capabilities alone, clear errors."""

from functools import partial
from pathlib import Path

import pytest
from example_runs import run_example

import headspec as hs

ROOT = Path(__file__).parents[2]
EVALS = ROOT.parent / "shared" / "data" / "pythia-evals"
run = partial(run_example, "weight_statistics")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    done = run("--suite", "micro-tiny", "--n-null", "500", "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_it_says_what_was_tried_and_what_is_left(finished):
    _, said = finished
    assert "micro-tiny: All 17 steps with weights and capabilities are used. 0.2 MB" in said
    assert "- Raw values: " in said
    assert "pass a textbook test after correction" in said
    assert "- Rates of change, averaged over layers and matrices: " in said
    assert "What these tests can see" in said
    assert "How clearly heads are clustered goes with capabilities" in said


def test_four_verdicts_and_a_page(finished):
    out, said = finished
    verdicts = ("SUPPORTED:", "NOT SUPPORTED:", "NOT DECIDED:")
    assert sum(line.startswith(verdicts) for line in said.splitlines()) == 4
    assert "One model was measured." in said
    assert said.strip().endswith(f"Report: {out / 'report.html'}")
    page = (out / "report.html").read_text()
    assert "Rates of change" in page
    assert "Every matrix of micro-tiny" in page
    assert str(ROOT) not in page


def test_tables_carry_their_provenance(finished):
    out, _ = finished
    links = hs.results.load(out / "links.parquet")
    assert {"raw_r", "raw_q", "q", "capability", "null_q95", "least_p"} <= set(links)
    curves = hs.results.load(out / "curves.parquet")
    assert "qk.silhouette_excess" in set(curves["metric"])
    origin = hs.results.load_provenance(out / "links.parquet")
    assert origin is not None
    assert origin.arguments["n_null"] == 500
    assert len(origin.arguments["hashes"]["micro-tiny"]) == 17


def test_a_rerun_measures_nothing_again(finished):
    out, _ = finished
    files = {path: path.stat().st_mtime_ns for path in (out / "steps").rglob("*.json")}
    assert len(files) == 34  # weights and clusters
    again = run("--suite", "micro-tiny", "--n-null", "200", "--out", str(out))
    assert again.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "steps").rglob("*.json")} == files


@pytest.mark.skipif(not EVALS.exists(), reason="Pythia's evaluations are not here")
def test_capabilities_of_pythia_alone(tmp_path):
    done = run("--evals", str(EVALS), "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (said,) = [line for line in done.stdout.splitlines() if line.startswith("- lambada openai.acc")]
    assert (
        "3000 to 13000 (pythia-70m), 1000 to 3000 (pythia-160m, pythia-410m, pythia-1.4b)" in said
    )
    declines = [
        line for line in done.stdout.splitlines() if "Late decline: lambada openai.acc" in line
    ]
    assert ["pythia-160m" in line or "pythia-70m" in line for line in declines] == [True, True]
    assert not (tmp_path / "links.parquet").exists()
    assert str(EVALS) not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--suite", "EleutherAI/pythia-70m"), "--evals"),
        (("--suite", "micro-huge"), "--evals"),
        (("--evals", "/no/such/folder"), "does not exist"),
    ],
)
def test_errors_are_sentences(arguments, message, tmp_path):
    done = run(*arguments, "--out", str(tmp_path))
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
