"""Capability frames from evaluation files: what is in them, what is wrong, published figures."""

import json
import math
import warnings
from pathlib import Path

import pytest
from eval_files import STEPS, write, write_suite

import headspec as hs
from headspec.checkpoints.chance_levels import CHANCE, chance_level
from headspec.checkpoints.evals import EvalFilesWarning, load_pythia_evals
from headspec.errors import InputError
from headspec.results import capability_rows

EVALS = Path(__file__).resolve().parents[3] / "shared" / "data" / "pythia-evals"
needs_evals = pytest.mark.skipif(not EVALS.is_dir(), reason="published evaluations not here")


@pytest.fixture
def folder(tmp_path):
    return write_suite(tmp_path)


def test_one_tidy_frame(folder):
    frame = load_pythia_evals(folder, metrics="acc")
    assert list(frame.columns[:11]) == list(hs.results.TIDY_COLUMNS)
    assert list(frame.columns[11:]) == list(capability_rows.CAPABILITY_COLUMNS)
    assert set(frame["model"]) == {"pythia-70m", "pythia-160m-deduped"}
    assert len(frame) == 2 * (4 + 4 + 1)
    row = frame.query("model == 'pythia-70m' and shots == 5 and task == 'piqa'").iloc[0]
    assert (row["metric"], row["measure"], row["step"]) == ("piqa.acc", "acc", 1000)
    assert (row["value"], row["se"], row["chance"], row["version"]) == (0.6, 0.01, 0.5, "0")
    assert row["file"].endswith("pythia-70m/five-shot/70m-5shot_step1000.json")
    curve = frame.query("model == 'pythia-70m' and shots == 0 and metric == 'sciq.acc'")
    assert curve["step"].tolist() == list(STEPS)
    assert curve["chance"].tolist() == [0.25] * 4


def test_chosen_by_model_task_metric_and_shots(folder):
    assert len(load_pythia_evals(folder)) == 9 * 4
    assert len(load_pythia_evals(folder, models="*-deduped")) == 4 * 4
    assert len(load_pythia_evals(folder, tasks=("pi*",), shots=0)) == 8 * 2
    assert len(load_pythia_evals(folder, metrics="sciq.acc_norm", shots=(5,))) == 1
    with pytest.raises(InputError, match="Did you mean one of \\['piqa'"):
        load_pythia_evals(folder, tasks="pika")
    with pytest.raises(InputError, match="none of these models"):
        load_pythia_evals(folder, models="pythia-12b")


def test_every_fault_is_named_at_once(folder):
    (folder / "pythia-70m/zero-shot/70m_step2.json").write_text('{"results": {"piqa": {"ac')
    (folder / "pythia-70m/zero-shot/70m_step4.json").write_text('{"loss": 1}')
    write(folder, "70m", 8, name="70m_step16.json")  # says step 8 inside
    write(folder, "160m", 32, folder="pythia-70m/zero-shot", name="70m_step32.json")
    write(folder, "70m", 64, shots=5, folder="pythia-70m/zero-shot")
    write(folder, "70m", 512, folder="pythia-70m/again", acc=0.9)
    write(folder, "70m", 128, version=1)
    write(folder, "70m", 256, limit=100)
    write(folder, "70m", 3000, acc=float("nan"))
    write(folder, "70m", 4000, acc=1.5)
    with pytest.raises(InputError) as error:
        load_pythia_evals(folder, shots=0)
    text = str(error.value)
    for words in (
        "step 2: not JSON, perhaps truncated",
        'step 4: no "results"',
        "step 16 by the file name, 8 by model_args",
        "model 70m by the file name, 70m by its folder, 160m by model_args",
        "shots 5 by the file name, 0 by its folder, 5 by num_fewshot",
        "duplicate: pythia-70m step 512: 4 measures (0-shot) in 2 files, with different numbers",
        "mixed version: pythia-70m: piqa, sciq with versions 0, 1",
        "mixed limit: pythia-70m: piqa, sciq with limits 100, None",
        "piqa.acc is nan",
        "piqa.acc is 1.5, no share",
    ):
        assert words in text
    assert "70m_step128.json" in text
    with pytest.warns(EvalFilesWarning) as told:
        frame = load_pythia_evals(folder, models="pythia-70m", shots=0, on_error="warn")
    assert "faulty ones were left out" in str(told[0].message)
    assert "not JSON" in str(told[0].message)
    assert sorted(set(frame["step"])) == [0, 1, 1000]  # 512 stands twice: neither is taken
    assert not frame.duplicated(["model", "step", "shots", "metric"]).any()


def test_of_two_versions_in_as_many_files_neither_is_taken(folder):
    for step in (0, 1):
        write(folder, "70m", step, version=1, acc=0.3 + step / 10)
    with pytest.raises(InputError, match="versions 0, 1; the files named are all of them"):
        load_pythia_evals(folder, shots=0)
    with pytest.warns(EvalFilesWarning, match="no one is in most files"):
        frame = load_pythia_evals(folder, shots=0, on_error="warn")
    assert set(frame["model"]) == {"pythia-160m-deduped"}
    write(folder, "70m", 2, version=1, acc=0.9)
    with pytest.warns(EvalFilesWarning, match="the files named are the fewer"):
        frame = load_pythia_evals(folder, models="pythia-70m", shots=0, on_error="warn")
    assert sorted(set(frame["step"])) == [0, 1, 2]


def test_tasks_nobody_asked_for_are_not_judged(folder):
    path = write(folder, "70m", 0)
    data = json.loads(path.read_text())
    data["results"] |= {"sciq": {"acc": math.nan}, "odd": 3}
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"sciq.acc is nan; odd: no measures"):
        load_pythia_evals(folder)
    frame = load_pythia_evals(folder, tasks="piqa", models="pythia-70m", shots=0)
    assert sorted(set(frame["step"])) == list(STEPS)


def test_the_naive_way_takes_a_file_at_its_name(folder):
    """Negative control: nothing but the contradiction tells that these are step 8's numbers."""
    write(folder, "70m", 8, name="70m_step16.json", acc=0.7)
    path = folder / "pythia-70m/zero-shot/70m_step16.json"
    naive = json.loads(path.read_text())["results"]["piqa"]["acc"]
    assert naive == 0.7
    with pytest.raises(InputError, match="8 by model_args"):
        load_pythia_evals(path)


def test_missing_steps_and_tasks_are_named_and_not_filled_in(folder):
    (folder / "pythia-70m/zero-shot/70m_step512.json").unlink()
    write(folder, "70m", 1, tasks=("piqa",), acc=0.4)
    with pytest.warns(EvalFilesWarning) as told:
        frame = load_pythia_evals(folder)
    text = str(told[0].message)
    assert "pythia-70m step 512: no 0-shot results at steps 512, which other models have" in text
    assert "pythia-70m step 1: no sciq (0-shot) at steps 1" in text
    curve = frame.query("model == 'pythia-70m' and shots == 0 and metric == 'sciq.acc'")
    assert curve["step"].tolist() == [0, 1000]


def test_steps_with_the_same_numbers_are_flagged(folder):
    write(folder, "70m", 1, acc=0.25)  # as at step 0, as in Pythia: expected
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame = load_pythia_evals(folder / "pythia-70m" / "zero-shot")
    same = frame[frame["identical_to"].notna()]
    assert set(same["step"]) == {1}
    assert set(same["identical_to"]) == {0}
    write(folder, "70m", 1000, acc=0.45)  # as at step 512: a wrong branch, perhaps
    with pytest.warns(EvalFilesWarning, match="step 1000: all 4 numbers are those of step 512"):
        load_pythia_evals(folder / "pythia-70m" / "zero-shot")


def test_same_numbers_are_seen_among_files_of_other_shots(folder):
    """Steps 0 and 1 agree zero-shot and five-shot; in order of steps the files alternate."""
    for step in (0, 1, 512):
        write(folder, "70m", step, shots=5, acc=0.7 if step < 512 else 0.8)
    write(folder, "70m", 1, acc=0.25)
    frame = load_pythia_evals(folder / "pythia-70m", shots=(0, 5))
    same = frame[frame["identical_to"].notna()]
    assert set(zip(same["shots"], same["step"], same["identical_to"], strict=True)) == {
        (0, 1, 0),
        (5, 1, 0),
    }


def test_versions_that_differ_between_models_and_unknown_tasks_are_named(folder):
    for step in STEPS:
        write(folder, "160m-deduped", step, version=1, acc=step / 2000)
    with pytest.warns(EvalFilesWarning) as told:
        frame = load_pythia_evals(folder, tasks=("piqa", "peeqa"), shots=0)
    text = str(told[0].message)
    assert "piqa with versions 0 of pythia-70m; 1 of pythia-160m-deduped" in text
    assert "no task 'peeqa' anywhere" in text
    assert set(frame["task"]) == {"piqa"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"results": {"piqa": {"ppl": 1' + 400 * "0" + "}}}", "piqa.ppl is 1000"),
        (100_000 * "[", "not JSON"),
        ('{"results": {"piqa": {"acc": true}}}', "piqa.acc is True"),
    ],
)
def test_odd_numbers_and_nesting_are_faults_of_their_file(folder, text, said):
    path = write(folder, "70m", 0)
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        load_pythia_evals(folder)


def test_chance_levels():
    assert chance_level("arc_challenge", "acc_norm") == 0.25
    assert chance_level("hendrycksTest-virology") == 0.25
    assert chance_level("blimp_anaphor_number_agreement") == 0.5
    assert chance_level("lambada_openai") == 0
    assert math.isnan(chance_level("lambada_openai", "ppl"))
    assert math.isnan(chance_level("unheard_of"))
    assert chance_level("mmlu_abstract_algebra") == 0.25
    assert math.isnan(chance_level("mmlu_pro_law"))  # ten choices, not MMLU's four
    fifths, halves = ("mathqa", "commonsense_qa"), ("wsc273", "boolq", "copa", "piqa", "winogrande")
    quarters = ("hellaswag", "race", "sciq", "arc_easy", "openbookqa", "logiqa", "swag")
    for tasks, chance in ((fifths, 0.2), (halves, 0.5), (quarters, 0.25), (("anli_r1",), 1 / 3)):
        assert [chance_level(task) for task in tasks] == [chance] * len(tasks)
    with pytest.raises(TypeError):
        CHANCE["piqa"] = 0.1  # pyright: ignore[reportIndexIssue]


def test_results_are_saved_and_loaded(folder, tmp_path):
    frame = load_pythia_evals(folder)
    for name in ("f.json", "f.parquet"):
        hs.results.save(frame, tmp_path / name)
        assert hs.results.load(tmp_path / name).equals(frame)


@needs_evals
def test_published_lambada_accuracies():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is missing, odd or left out
        frame = load_pythia_evals(EVALS, tasks="lambada_openai", metrics="acc")
    table = frame.pivot(index="model", columns="step", values="value").round(3)
    steps = [512, 1000, 3000, 13000, 63000, 143000]
    assert {model: table.loc[model, steps].tolist() for model in table.index} == {
        "pythia-70m": [0, 0.050, 0.121, 0.210, 0.233, 0.185],
        "pythia-160m": [0, 0.065, 0.228, 0.300, 0.399, 0.328],
        "pythia-410m": [0, 0.038, 0.263, 0.416, 0.483, 0.516],
        "pythia-1.4b": [0, 0.067, 0.324, 0.470, 0.584, 0.616],
    }
    for model, curve in frame.groupby("model"):
        found = hs.find_transition(curve, "lambada_openai.acc", noise_sd="se", n_null=200)
        expected = (3000, 13000) if model == "pythia-70m" else (1000, 3000)
        assert (found.step_before, found.step_after) == expected


@needs_evals
def test_pythia_steps_0_and_1_have_identical_evaluations():
    frame = load_pythia_evals(EVALS)
    assert len(frame) == 4 * 27 * 172
    assert frame["chance"].isna().groupby(frame["measure"]).mean().to_dict() == {
        "acc": 0,
        "acc_norm": 0,
        "likelihood_difference": 1,
        "pct_stereotype": 0,
        "ppl": 1,
    }
    same = frame[frame["identical_to"].notna()]
    assert same.groupby("model")["step"].unique().map(list).to_dict() == {
        f"pythia-{size}": [1] for size in ("70m", "160m", "410m", "1.4b")
    }


@needs_evals
def test_an_untrained_model_is_not_at_chance():
    frame = load_pythia_evals(EVALS, models="pythia-70m", metrics="acc")
    first = frame[frame["step"] == 0].set_index("task")
    z = (first["value"] - first["chance"]) / first["se"]
    assert first.loc["arc_easy", "value"] == pytest.approx(0.272, abs=5e-4)
    assert z["arc_easy"] > 2
    assert z["sciq"] < -4
    curves = load_pythia_evals(EVALS, models="pythia-410m", tasks="piqa", metrics="acc")
    naive = hs.emergence_step(curves, "piqa.acc", chance=0.5, se="se")
    found = hs.emergence_step(curves, "piqa.acc", chance="first_step", se="se")
    assert (naive.status, found.status, found.step) == ("at_first_step", "emerged", 3000)
