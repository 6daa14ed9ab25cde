"""Where heads look, over training."""

import pytest

import headspec as hs

pytestmark = pytest.mark.models


def test_a_sweep_finds_when_the_heads_form():
    symbols = tuple(int(s) for s in hs.repeat_symbols(hs.open_suite("micro").tokenizer))
    measure = hs.HeadScoreMeasure(
        kinds=("induction", "previous_token"), n_sequences=4, period=48, symbols=symbols
    )
    frames = [measure(hs.open_suite("micro").checkpoint(step)) for step in (512, 6144)]
    for frame, step in zip(frames, (512, 6144), strict=True):
        assert set(frame["model"]) == {"micro"}
        assert set(frame["step"]) == {step}
    early, late = (frame.groupby("metric")["value"].max() for frame in frames)
    assert early["induction"] < 0.3 < 0.9 < late["induction"]
    shipped = hs.head_score_curve("micro").query("step == 6144 and metric == 'induction'")
    assert late["induction"] == pytest.approx(shipped["value"].max(), abs=0.02)


def test_it_can_be_swept_and_cached(tmp_path):
    measure = hs.HeadScoreMeasure(n_sequences=2, period=10)
    suite = hs.open_suite("micro-tiny")
    with pytest.warns(hs.UnverifiedSuiteWarning):
        frame = hs.sweep(suite, measure, steps=[0, 64], progress=False)
    assert len(frame) == 2 * 4 * suite.checkpoint(0).n_layers * suite.checkpoint(0).n_heads
