"""When capabilities emerge and decline: made-up curves, the embedded suite, published figures."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import headspec as hs
from headspec.checkpoints.evals import load_pythia_evals
from headspec.errors import InputError
from headspec.results import tidy
from headspec.studies.capability_words import describe_capabilities
from headspec.studies.weight_capabilities import (
    EMBEDDED,
    PYTHIA,
    Tracked,
    by_size,
    capability_curves,
    emergence_table,
    emergence_windows,
    of_models,
)

STEPS = (0, 1, 4, 16, 64, 256, 1024)
EVALS = Path(__file__).parents[2].parent / "shared" / "data" / "pythia-evals"
with_evals = pytest.mark.skipif(not EVALS.exists(), reason="Pythia's evaluations are not here")


def frame(values, *, metric="acc", model="m", se=0.01, **columns):
    rows = {"step": STEPS, "value": values, "se": se}
    return tidy(pd.DataFrame(rows), model=model, metric=metric, n=100, **columns)


RISES = frame([0.5, 0.5, 0.49, 0.5, 0.75, 0.9, 0.9])
FALLS = frame([0.5, 0.5, 0.5, 0.7, 0.9, 0.8, 0.75], model="late")


def test_losses_and_perplexities_are_turned_so_that_more_is_better():
    given = pd.concat([frame(np.full(7, 4.0), metric="ppl", se=0.4), frame(np.full(7, 3.0))])
    tracked = (Tracked("log_prob", "ppl", turn="minus_log"), Tracked("gain", "acc", turn="minus"))
    curves = capability_curves(given, tracked).set_index("metric")
    assert curves.loc["log_prob", "value"].to_numpy(float) == pytest.approx(-np.log(4))
    assert curves.loc["log_prob", "se"].to_numpy(float) == pytest.approx(0.1)  # of the log
    assert set(curves.loc["gain", "value"]) == {-3.0}
    assert curves["chance"].isna().to_numpy().all()


def test_chance_comes_from_the_frame_unless_it_is_given():
    told = RISES.assign(chance=0.25)
    assert capability_curves(told, (Tracked("a", "acc"),))["chance"].unique() == [0.25]
    assert capability_curves(told, (Tracked("a", "acc", 0.5),))["chance"].unique() == [0.5]


def test_emergence_largest_rise_and_decline():
    tracked = (Tracked("acc", "acc", 0.5),)
    curves = capability_curves(pd.concat([RISES, FALLS]), tracked)
    table = emergence_table(curves, tracked).set_index("model")
    assert table.loc["m", ["step_before", "step"]].tolist() == [16, 64]
    assert table.loc["m", ["rise_before", "rise_after"]].tolist() == [16, 64]
    assert table.loc["m", "p_decline"] > 0.05
    late = table.loc["late"]
    assert (late["peak"], late["peak_step"], late["last"]) == (0.9, 64, 0.75)
    assert late["p_decline"] < 0.001
    said = describe_capabilities(table.reset_index())
    assert "acc: leaves chance between steps 16 and 64 (m), 4 and 16 (late)" in said[0]
    assert [line for line in said if "decline" in line] == [said[1]]
    assert "acc of late falls from 0.900 at step 64 to 0.750 at the last step" in said[1]


def test_noise_is_no_decline():
    """A best step always lies above the last one; its p counts the steps that could be best."""
    rng = np.random.default_rng(0)
    tracked = (Tracked("acc", "acc"),)
    found = []
    for _ in range(100):
        noisy = frame(0.8 + 0.01 * rng.standard_normal(7))
        found.append(emergence_table(capability_curves(noisy, tracked), tracked)["p_decline"][0])
    assert np.mean(np.array(found) <= 0.05) <= 0.1


def test_the_continuous_curve_of_the_same_ability_stands_beside():
    tracked = (Tracked("acc", "acc", 0.5, continuous="lp"), Tracked("lp", "lp"))
    early = frame([-9, -8, -3, -2.5, -2, -1.5, -1], metric="lp")
    table = emergence_table(capability_curves(pd.concat([RISES, early]), tracked), tracked)
    assert table[["continuous_before", "continuous_after"]].iloc[0].tolist() == [1, 4]
    assert table["status"].tolist() == ["emerged", "not asked"]
    assert "log-probability" not in describe_capabilities(table)[0]
    assert "the continuous measure rises most from step 1 to 4" in describe_capabilities(table)[0]
    assert table["comparison"].tolist()[0] in ("metric", "late_onset")


def test_the_embedded_suite():
    sizes = pd.concat([hs.capability_curve(name) for name in ("micro", "micro-tiny")])
    table = emergence_table(capability_curves(sizes, EMBEDDED), EMBEDDED)
    table = table.set_index(["model", "capability"])
    assert table.loc[("micro", "decimal_accuracy"), "step"] == 256
    assert table.loc[("micro", "induction_gain"), ["rise_before", "rise_after"]].tolist() == [
        1024,
        1280,
    ]
    assert table.loc[("micro", "prose_log_prob"), "status"] == "not asked"
    # chance is left as soon as it can be seen: .004 nats long before there is any induction
    assert table.loc[("micro-tiny", "induction_gain"), "step"] == 16
    columns = ["step_before", "step", "status"]
    windows = emergence_windows(table)[columns].apply(tuple, axis=1)
    assert windows[("micro", "decimal_accuracy")][1:] == (256, "emerged")
    assert windows[("micro", "induction_gain")] == (1024, 1280, "rises_most")
    assert windows[("micro-tiny", "induction_gain")][0] >= 1024
    assert windows[("micro", "prose_log_prob")][2] == "rises_most"


def test_models_come_in_the_order_of_their_sizes():
    names = ["pythia-1.4b", "pythia-160m", "pythia-70m-deduped", "micro", "pythia-12b"]
    expected = ["micro", "pythia-70m-deduped", "pythia-160m", "pythia-1.4b", "pythia-12b"]
    assert by_size(names) == expected


def test_a_continuous_measure_that_never_leaves_chance_has_no_window():
    tracked = (Tracked("acc", "acc", 0.0, graded=True),)
    for values, kept in (([0.0] * 6 + [0.01], 0), ([0, 0, 0.1, 0.1, 0.1, 0.8, 0.9], 1)):
        table = emergence_table(capability_curves(frame(values), tracked), tracked)
        assert len(emergence_windows(table)) == kept
    assert emergence_windows(table)["step"].tolist() == [256]
    assert emergence_windows(table.drop(columns="graded"))["step"].tolist() == [4]


@pytest.fixture(scope="module")
def pythia():
    names = [f"EleutherAI/pythia-{size}" for size in ("70m", "160m", "410m", "1.4b")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # steps 0 and 1 are the same
        evals = load_pythia_evals(EVALS)
    return emergence_table(capability_curves(of_models(evals, names), PYTHIA), PYTHIA)


@with_evals
def test_lambada_of_pythia_rises_most_from_1000_to_3000(pythia):
    rows = pythia.query("capability == 'lambada_openai.acc'").set_index("model")
    rises = {name: tuple(row) for name, row in rows[["rise_before", "rise_after"]].iterrows()}
    assert rises == {
        "EleutherAI/pythia-70m": (3000, 13000),
        "EleutherAI/pythia-160m": (1000, 3000),
        "EleutherAI/pythia-410m": (1000, 3000),
        "EleutherAI/pythia-1.4b": (1000, 3000),
    }
    assert set(rows["step"]) == {1000}


@with_evals
def test_late_declines_of_small_pythias_are_reported_and_those_of_large_ones_not_made_up(pythia):
    said = [line for line in describe_capabilities(pythia) if line.startswith("Late decline")]
    lambada = [line for line in said if "lambada openai.acc" in line]
    assert len(lambada) == 2
    assert "pythia-70m falls from 0.253 at step 53000 to 0.185" in lambada[0]
    assert "pythia-160m falls from 0.399 at step 63000 to 0.328" in lambada[1]
    assert not any("1.4b" in line or "410m" in line for line in said)


def test_models_are_found_by_the_last_part_of_their_name():
    given = pd.concat([RISES, FALLS])
    assert set(of_models(given, ["hub/late"])["model"]) == {"hub/late"}
    with pytest.raises(InputError, match="none of absent"):
        of_models(given, ["hub/absent"])
    with pytest.raises(InputError, match="some of the metrics"):
        capability_curves(given, PYTHIA)
