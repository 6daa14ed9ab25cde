"""Thresholded beside continuous: synthetic mirages, shared jumps, error rates, Pythia."""

import doctest

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom
from series_curves import EVALS, as_frame, doubling, logistic

import headspec as hs
from headspec import results
from headspec.errors import InputError
from headspec.series import emergence_comparison, rise_width
from headspec.series.emergence_comparison import compare_emergence

needs_evals = pytest.mark.skipif(not EVALS.is_dir(), reason="published evaluations not here")
N = 20


def pair(accuracy, graded, *, se=0.005, steps=None, **columns):
    """A frame of a thresholded metric `acc` and a continuous one, `graded`."""
    steps = doubling(len(accuracy)) if steps is None else steps
    curves = {"acc": accuracy, "graded": graded}
    return pd.concat(
        as_frame(steps, values, se=se, **columns).assign(metric=name)
        for name, values in curves.items()
    )


def compare(frame, **kwargs):
    kwargs = {"chance": 0.0, "n_draws": 300} | kwargs
    return compare_emergence(frame, thresholded="acc", continuous="graded", **kwargs)


@pytest.mark.parametrize("k", [1, 5])
def test_a_mirage_is_called_the_metrics(k):
    """Loss a token falls evenly; accuracy is the product over k tokens."""
    loss = np.linspace(8, 0.02, N)
    found = compare(pair(np.exp(-k * loss), loss))
    assert found.verdict == "metric"
    assert found.continuous.direction == "fall"
    assert (found.continuous.step or 0) < (found.thresholded.step or 0)
    assert found.ratio_high < 0.7
    assert found.done_before > (0.5 if k > 1 else 0.3)
    assert "at least in part, the metric's" in found.summary()


def test_sharper_with_more_tokens():
    loss = np.linspace(8, 0.02, N)
    ratios = [compare(pair(np.exp(-k * loss), loss)).width_ratio for k in (1, 3, 9)]
    assert ratios == sorted(ratios, reverse=True)


def test_widths_by_hand():
    """A straight line over 16 steps of ln 2 (and one from 0 to ln 2): 80 % of the way."""
    steps = 2 ** np.arange(17) - 1
    line = np.linspace(0, 1, 17)
    found = compare(pair(line, line, se=1e-6, steps=steps))
    assert found.width == pytest.approx(0.8 * 16 * np.log(2))
    assert found.width_ratio == pytest.approx(1)
    half = np.clip(2 * line - 1, 0, 1)
    found = compare(pair(half, line, se=1e-6, steps=steps))
    assert found.width_ratio == pytest.approx(0.5)
    assert found.thresholded.step_before == 2**8 - 1
    assert found.done_before == pytest.approx(0.5)


def test_a_jump_in_both_is_not_the_metrics():
    jump = logistic(N, 1.0)
    found = compare(pair(jump, 5 * jump - 3))
    assert found.verdict == "shared"
    assert "nothing here says" in found.summary()


def test_a_delay_alone():
    """The same shape, four checkpoints later: hidden by the threshold, not sharpened."""
    found = compare(pair(logistic(2 * N, 5.0)[6:26], logistic(2 * N, 5.0)[10:30]))
    assert found.verdict == "late_onset"
    assert found.lead == pytest.approx(4 * np.log(2), rel=0.2)
    assert 0.8 < found.width_ratio < 1.25


def test_what_never_emerges_is_undecided():
    rng = np.random.default_rng(0)
    found = compare(pair(0.001 * rng.standard_normal(N), logistic(N, 5.0)))
    assert found.verdict == "undecided"
    assert np.isnan([found.done_before, found.width_ratio, found.ratio_low]).all()
    assert "nothing can be said" in found.summary()


@pytest.mark.parametrize("width", [3.0, 8.0])
def test_false_verdicts_are_rare_where_both_are_the_same_curve(width):
    """Negative control: the same shape twice, each with its own noise."""
    rng, runs = np.random.default_rng(1), 60
    sharper = earlier = 0
    for _ in range(runs):
        noisy = logistic(N, width) + 0.02 * rng.standard_normal((2, N))
        found = compare(pair(noisy[0], noisy[1], se=0.02), n_draws=100, continuous_chance=0.0)
        sharper += found.verdict in ("metric", "sharper")
        earlier += found.verdict == "metric"
    assert sharper <= binom.ppf(0.999, runs, 0.05)
    assert earlier <= binom.ppf(0.999, runs, 0.05)


@pytest.mark.parametrize("times", [1, 10])
def test_a_more_precise_metric_is_not_called_earlier(times):
    """One shape twice: the more precise one leaves chance sooner, which is no earlier rise."""
    rng, runs = np.random.default_rng(1), 60
    curve, steps_apart, earlier = logistic(N, 5.0), 0, 0
    for _ in range(runs):
        errors = {"acc": 0.02, "graded": 0.02 / times}
        noisy = [curve + se * rng.standard_normal(N) for se in errors.values()]
        frame = pair(*noisy)
        frame["se"] = [errors[name] for name in frame["metric"]]
        found = compare(frame, n_draws=100, continuous_chance=0.0)
        steps_apart += (found.continuous.step or 0) <= (found.thresholded.step_before or 0)
        earlier += found.verdict in ("metric", "late_onset")
    assert earlier <= binom.ppf(0.999, runs, 0.05)
    if times == 10:
        assert steps_apart > 0.8 * runs  # negative control: emergence alone would say so


def test_perplexity_in_nats():
    loss = np.linspace(8, 0.02, N)
    nats = compare(pair(np.exp(-5 * loss), loss, se=0.01))
    frame = pair(np.exp(-5 * loss), np.exp(loss))
    frame["se"] = np.where(frame["metric"] == "graded", 0.01 * frame["value"], 0.01)
    found = compare(frame, transform="log")
    assert found.width_ratio == pytest.approx(nats.width_ratio)
    assert found.verdict == nats.verdict == "metric"
    with pytest.raises(InputError, match="positive values of graded"):
        compare(pair(loss, -loss), transform="log")


def test_without_standard_errors_noise_is_estimated():
    rng = np.random.default_rng(2)
    loss = np.linspace(8, 0.02, N)
    noisy = pair(np.exp(-5 * loss), loss + 0.02 * rng.standard_normal(N)).drop(columns="se")
    assert compare(noisy, se=None).verdict == "metric"
    with pytest.raises(InputError, match="a column 'se'"):
        compare(noisy)


def test_errors():
    loss = np.linspace(8, 0.02, N)
    frame = pair(np.exp(-5 * loss), loss)
    with pytest.raises(InputError, match="at the same steps"):
        compare(frame.iloc[:-1])
    with pytest.raises(InputError, match="a metric of the frame"):
        compare(frame.assign(metric="other"))


def test_frame_and_files(tmp_path):
    loss = np.linspace(8, 0.02, N)
    found = compare(pair(np.exp(-5 * loss), loss, model="toy"))
    frame = found.to_frame()
    assert frame["metric"].tolist() == [
        "acc.emergence",
        "graded.emergence",
        "acc|graded.width_ratio",
        "acc|graded.lead",
        "acc|graded.done_before",
    ]
    assert set(frame["verdict"]) == {"metric"}
    assert set(frame["model"]) == {"toy"}
    assert frame["value"].tolist()[2:] == [
        found.width_ratio,
        found.lead,
        found.done_before,
    ]
    results.save(found, tmp_path / "a.json")
    assert results.load(tmp_path / "a.json") == found
    again = compare(pair(np.exp(-5 * loss), loss, model="toy"))
    assert again == found


@needs_evals
def test_lambada_accuracy_beside_log_perplexity():
    """Accuracy leaves 0 at step 1000, perplexity its initial value by 128; rises are alike."""
    frame = hs.load_pythia_evals(EVALS, tasks="lambada_openai")
    verdicts = {}
    for model, curves in frame.groupby("model"):
        found = compare_emergence(
            curves,
            thresholded="lambada_openai.acc",
            continuous="lambada_openai.ppl",
            chance=0,
            transform="log",
        )
        assert (found.thresholded.step_before, found.thresholded.step) == (512, 1000)
        assert found.continuous.step in (64, 128)
        assert 0.2 < found.done_before < 0.35
        assert 0.8 < found.width_ratio < 1.2
        verdicts[model] = found.verdict
    assert verdicts == {
        "pythia-70m": "metric",
        "pythia-160m": "late_onset",
        "pythia-410m": "late_onset",
        "pythia-1.4b": "late_onset",
    }


@pytest.mark.parametrize("module", [emergence_comparison, rise_width])
def test_docstrings(module):
    assert doctest.testmod(module).failed == 0
