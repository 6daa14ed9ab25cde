"""Jumps of arrays and frames: goldens, columns, resolution, files, errors."""

import doctest

import numpy as np
import pandas as pd
import pytest
from jump_curves import noisy_step, published

from headspec import results
from headspec.errors import InputError
from headspec.results import TIDY_COLUMNS
from headspec.series import jumps as module
from headspec.series.jumps import detect_jumps

COLUMNS = ["layer_name", "step_before", "magnitude", "direction", "phase", "speed", "score"]


def long_frame(curves: dict, steps=None, **columns) -> pd.DataFrame:
    frames = [
        pd.DataFrame(
            {
                "step": np.arange(len(values)) if steps is None else steps,
                "layer_name": name,
                "metric": "participation_ratio",
                "value": values,
                **columns,
            }
        )
        for name, values in curves.items()
    ]
    return pd.concat(frames, ignore_index=True)


def test_docstring_runs():
    assert doctest.testmod(module).failed == 0


def test_golden_step_without_noise():
    """Level 1 to 4 between updates 500 and 510 of 1,000."""
    steps = np.arange(0, 1000, 10)
    values = np.where(steps > 500, 4.0, 1.0) + 1e-3 * (-1.0) ** np.arange(100)
    jumps = detect_jumps(values, steps=steps, n_steps=1000)
    (row,) = jumps.to_frame().to_dict("records")
    assert (row["step_before"], row["step"], row["direction"]) == (500, 510, "increase")
    assert row["magnitude"] == pytest.approx(3.0, abs=2e-3)
    assert row["speed"] == pytest.approx(row["magnitude"] / 10)
    assert row["phase"] == 0.51
    assert row["p"] < 1e-3
    assert row["n"] == 100


def test_frame_has_the_columns_and_all_curves_are_kept():
    curves = {"a": noisy_step(), "b": noisy_step(seed=3, size=0.0), "c": np.full(200, 2.0)}
    jumps = detect_jumps(long_frame(curves, model="mlp", seed=4, layer=1))
    frame = jumps.to_frame()
    assert list(frame.columns[: len(TIDY_COLUMNS)]) == list(TIDY_COLUMNS)
    assert set(COLUMNS) <= set(frame.columns)
    assert frame["layer_name"].tolist() == ["a"]
    assert (frame["model"] == "mlp").all()
    assert (frame["seed"] == 4).all()
    known = jumps.curves.set_index("layer_name")
    assert known["n_jumps"].tolist() == [1, 0, 0]
    assert known["verdict"].tolist() == ["examined", "examined", "below resolution"]
    assert known.loc["b", "noise_sd"] == pytest.approx(1, abs=0.25)
    assert jumps.curves.loc[frame["curve"].iloc[0], "layer_name"] == "a"
    text = jumps.summary()
    assert "1 jumps by the rule 'calibrated' in 1 of 2 curves" in text
    assert "1 curves were refused" in text


def test_no_jumps_give_an_empty_frame_with_all_columns():
    jumps = detect_jumps(noisy_step(size=0.0))
    assert len(jumps) == 0
    assert set(COLUMNS) <= set(jumps.to_frame().columns)
    assert "0 jumps" in jumps.summary()


def test_array_of_curves_equals_the_curves_alone_and_the_frame():
    curves = np.stack([noisy_step(), -noisy_step(at=60, seed=1)])
    together = detect_jumps(curves).to_frame()
    assert together["curve"].tolist() == [0, 1]
    assert together["direction"].tolist() == ["increase", "decrease"]
    framed = detect_jumps(long_frame({"a": curves[0], "b": curves[1]})).to_frame()
    for i, curve in enumerate(curves):
        (alone,) = detect_jumps(curve).to_frame().to_dict("records")
        for frame in (together, framed):
            same = frame.iloc[i]
            for name in ("step", "magnitude", "p", "score"):
                assert same[name] == pytest.approx(alone[name])


def test_curves_over_different_steps_are_told_apart():
    first = long_frame({"a": noisy_step()}, model="cnn")
    second = long_frame({"a": noisy_step()}, steps=5 * np.arange(200), model="mlp")
    jumps = detect_jumps(pd.concat([first, second]).sample(frac=1, random_state=0))
    frame = jumps.to_frame().set_index("model")
    assert frame.loc["mlp", "step"] == 5 * frame.loc["cnn", "step"] == 600
    assert jumps.curves.loc[frame["curve"].tolist(), "model"].tolist() == list(frame.index)
    assert frame.loc["mlp", "phase"] == pytest.approx(600 / 995)


@pytest.mark.parametrize("method", ["calibrated", "study", "trailing_window", "changepoints"])
def test_every_rule_finds_a_clear_step(method):
    steps = detect_jumps(noisy_step(size=12.0), method=method).to_frame()["step"]
    assert 120 in steps.tolist()


def test_files_round_trip(tmp_path):
    jumps = detect_jumps(np.stack([noisy_step(), noisy_step(size=0.0)]), n_steps=300)
    for suffix in (".json", ".parquet"):
        path = tmp_path / f"jumps{suffix}"
        results.save(jumps, path)
        back = results.load(path)
        pd.testing.assert_frame_equal(back.to_frame(), jumps.to_frame())
        pd.testing.assert_frame_equal(back.curves, jumps.curves)
        assert back.summary() == jumps.summary()


# --- resolution ------------------------------------------------------------------------------


def test_published_stable_rank_is_refused_and_the_naive_rule_is_not_stopped():
    """Pitfall 20: 45 jumps of the CNN's stable rank, the largest of them rounding."""
    frame = published("cnn")
    stable = frame[frame["metric"] == "stable_rank"]
    refused = detect_jumps(stable)
    assert set(refused.curves["verdict"]) == {"below resolution"}
    assert len(refused) == 0
    naive = detect_jumps(stable, method="study", resolution=0)
    assert len(naive) == 45
    assert naive.to_frame()["magnitude"].max() < 1e-11
    one = stable[stable["layer"] == 0]
    with pytest.raises(InputError, match=r"resolution, 4\.77e-07; got values within 5\.23e-14"):
        detect_jumps(one)


@pytest.mark.parametrize("model", ["cnn", "mlp", "transformer"])
def test_all_published_stable_ranks_are_refused(model):
    frame = published(model)
    curves = detect_jumps(frame).curves
    stable = curves["metric"] == "stable_rank"
    assert stable.sum() == {"cnn": 5, "mlp": 5, "transformer": 14}[model]
    assert (curves.loc[stable, "verdict"] == "below resolution").all()
    ratio = curves["metric"] == "participation_ratio"
    assert (curves.loc[ratio, "verdict"] == "examined").all()


def test_other_metrics_of_the_published_runs_get_an_answer():
    """As many calls as curves without jumps give; the study's rule calls what it always calls."""
    runs = pd.concat([published(model) for model in ("cnn", "mlp", "transformer")])
    runs = runs[runs["metric"] != "stable_rank"]
    jumps = detect_jumps(runs, n_steps=2000)
    examined = jumps.curves[jumps.curves["verdict"] == "examined"]
    points = examined["n"].sum()
    assert (len(examined), points) == (65, 26_000)
    assert 10 <= len(jumps) <= 26
    assert len(detect_jumps(runs, n_steps=2000, false_positives=0.1)) <= 2
    naive = detect_jumps(runs, method="study", n_steps=2000)
    assert len(naive) == 1108
    assert 1000 * len(naive) / points == pytest.approx(45.5, abs=5)  # 4.55 % of normal noise


def test_resolution_of_the_frame_of_the_dtype_and_stated():
    tiny = 1 + 1e-9 * noisy_step()
    with pytest.raises(InputError, match="rounding"):
        detect_jumps(tiny)  # float64 numbers of networks are taken to be float32
    assert len(detect_jumps(tiny, resolution="float64")) == 1
    assert len(detect_jumps(tiny, resolution=1e-12)) == 1
    frame = long_frame({"a": tiny, "b": tiny}, resolution=1e-12)
    frame.loc[frame["layer_name"] == "b", "resolution"] = 1e-6
    jumps = detect_jumps(frame)
    assert jumps.curves["verdict"].tolist() == ["examined", "below resolution"]
    assert jumps.curves["resolution"].tolist() == [1e-12, 1e-6]
    both = detect_jumps(np.stack([tiny, tiny]), resolution=np.array([1e-12, 1e-6]))
    assert both.curves["verdict"].tolist() == ["examined", "below resolution"]


def test_a_curve_without_a_stated_resolution_leaves_those_of_others():
    """As where a measure with none, such as an intrinsic dimension, joins the frame."""
    tiny = 1 + 1e-9 * noisy_step()
    frame = long_frame({"a": tiny, "b": noisy_step(), "c": tiny}, resolution=1e-12)
    frame.loc[frame["layer_name"] == "b", "resolution"] = np.nan
    frame.loc[(frame["layer_name"] == "c") & (frame["step"] > 0), "resolution"] = None
    curves = detect_jumps(frame).curves
    assert curves["verdict"].tolist() == ["examined"] * 3
    limit = detect_jumps(noisy_step()).curves["resolution"][0]
    assert curves["resolution"].tolist() == [1e-12, limit, 1e-12]
    with pytest.raises(InputError, match="resolutions from 0 up"):
        detect_jumps(frame.assign(resolution=-1.0))


def test_a_jump_below_the_resolution_is_none():
    curve = noisy_step(size=20.0)
    assert len(detect_jumps(curve, resolution=10.0)) == 1
    assert len(detect_jumps(curve, resolution=22.0)) == 0


def test_counts_that_move_by_one_do_not_jump():
    """Rounding makes steps of smooth drift: 3 3 3 4 4 4 is no jump, 3 3 3 8 8 8 is."""
    at = np.arange(200)
    assert len(detect_jumps(np.round(3 + at / 60.0))) == 0
    assert len(detect_jumps(np.where(at < 90, 3.0, 8.0) + (at % 17 == 0))) == 1


# --- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("series", "options", "words"),
    [
        (noisy_step(), {"false_positives": 0}, "false_positives"),
        (noisy_step(), {"steps": range(199)}, "200 increasing whole steps"),
        (noisy_step(), {"steps": np.zeros(200, dtype=int)}, "increasing"),
        (noisy_step(), {"n_steps": 100}, "n_steps of at least the last measured step, 199"),
        (noisy_step(), {"resolution": -1.0}, "resolutions from 0 up"),
        (np.r_[noisy_step(), np.nan], {}, "nan at point 200"),
        (np.zeros((2, 3, 40)), {}, "shape"),
        (long_frame({"a": noisy_step()}), {"steps": np.arange(200)}, "steps="),
    ],
)
def test_errors_say_what_to_do(series, options, words):
    with pytest.raises(InputError, match=words):
        detect_jumps(series, **options)


def test_short_curves_are_named():
    jumps = detect_jumps(np.stack([noisy_step(20, at=10)] * 2))
    assert jumps.curves["verdict"].tolist() == ["too short"] * 2
    assert "2 curves are too short" in jumps.summary()
