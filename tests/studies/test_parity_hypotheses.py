"""H1 to H9 on sweeps whose truth is planted."""

import numpy as np
import pandas as pd
import pytest
from synthetic_parity import STEPS, drifting, planted, strength_frame

from headspec.studies.parity_emergence import add_parity_q_values, find_parity_emergence
from headspec.studies.parity_hypotheses import judge_parity_hypotheses

YES, NO, UNSURE = "supported", "not supported", "not decided"
LONG = tuple(range(0, 1001, 25))


def judged(effects, *, capabilities=None, final_step=None):
    frame = add_parity_q_values(strength_frame(effects))
    found = find_parity_emergence(frame, layer=2, metric="graded_strength", final_step=final_step)
    return judge_parity_hypotheses(found, frame, capabilities=capabilities, n_null=400)


def verdicts(*args, **kwargs):
    return [one.verdict for one in judged(*args, **kwargs)]


JUMP_EARLY = [0.0, 0.0] + [2.5] * 10
JUMP_MIDDLE = [0.0] * 5 + [2.5] * 7
JUMP_LATE = [0.0] * 9 + [2.5] * 3
RAMP = [0.0, 0.3, 0.6, 0.9, 1.2, 1.5, 1.8, 2.1, 2.4, 2.7, 3.0, 3.3]


@pytest.mark.parametrize(
    ("strengths", "timing"),
    [
        (JUMP_EARLY, [YES, NO, NO]),
        (JUMP_MIDDLE, [NO, YES, NO]),
        ([0.0] * 10 + [2.5] * 2, [NO, NO, YES]),
        ([2.5] * 12, [YES, NO, NO]),
    ],
)
def test_timing_is_told(strengths, timing):
    assert verdicts(planted(strengths))[:3] == timing


def test_timing_at_a_boundary_is_not_forced():
    found = judged(planted(JUMP_LATE))  # between 45 % and 60 %
    assert [one.verdict for one in found[:3]] == [NO, UNSURE, UNSURE]
    words = "from step 600 on (60.0% of training), not yet at step 450 (45.0%)"
    assert words in found[2].evidence


def test_timing_knows_where_training_ended():
    assert verdicts(planted(JUMP_LATE), final_step=20_000)[:3] == [YES, NO, NO]


def test_what_is_there_before_training_is_said():
    one = judged(planted([2.5] * 12))[0]
    assert "before any training" in one.evidence


@pytest.mark.parametrize(
    ("strengths", "manner"),
    [
        (JUMP_MIDDLE, [NO, YES, NO]),
        (RAMP, [YES, NO, NO]),
        ([0, 0, 2.5, 2.5, 0, 0, 0, 0, 2.5, 2.5, 2.5, 2.5], [NO, UNSURE, YES]),
    ],
)
def test_manner_is_told(strengths, manner):
    assert verdicts(planted(strengths, spread=0.02))[3:6] == manner


def test_odd_heads_count_alike():
    assert verdicts(planted([-each for each in JUMP_MIDDLE], spread=0.02)) == verdicts(
        planted(JUMP_MIDDLE, spread=0.02)
    )


def test_a_jump_elsewhere_is_no_sudden_emergence():
    """Present from the start, and suddenly twice as strong: it did not emerge there."""
    found = verdicts(planted([2.5] * 6 + [6.0] * 6, spread=0.02))
    assert found[0] == YES
    assert found[4] == NO


def test_without_specialisation_nothing_is_supported():
    found = judged(planted([0.0] * 12, spread=0.15))
    assert [one.verdict for one in found] == [NO] * 6 + [UNSURE] * 3
    assert "At none of 12 steps" in found[0].evidence


def test_where_no_heads_restore_anything_timing_is_not_decided():
    silent = {step: 0 * each if step < 500 else each for step, each in planted([0.0] * 12).items()}
    found = judged(silent)
    assert [one.verdict for one in found[:3]] == [UNSURE, UNSURE, NO]
    assert "no split reaches 0.1 nats: none" in found[0].evidence


def test_too_few_splits_decide_nothing():
    """Four heads have three splits: no p below a third, however perfect parity is."""
    frame = strength_frame(planted([0.0] * 12, spread=0.15))
    frame = frame.assign(n_splits=3, p=frame["p"].clip(lower=1 / 3))
    found = find_parity_emergence(
        add_parity_q_values(frame), layer=2, metric="graded_strength", final_step=1000
    )
    assert found.testable == ()
    verdicts = judge_parity_hypotheses(found, add_parity_q_values(frame), n_null=100)
    assert {one.verdict for one in verdicts} == {UNSURE}
    assert "it takes 80 significant steps" in verdicts[0].evidence


def test_many_tests_leave_the_late_part_undecided():
    """Of 8 heads p is at least 1/35: two late steps alone never pass the correction for 12."""
    frame = strength_frame(planted([0.0] * 12, spread=0.15)).assign(n_splits=35)
    found = find_parity_emergence(frame, layer=2, metric="graded_strength")
    assert found.n_needed == 7
    assert found.testable == ("early", "middle")
    late = judge_parity_hypotheses(found, frame, n_null=100)[2]
    assert late.verdict == UNSURE


def test_what_appears_and_goes_is_not_decided_where_it_appeared():
    found = verdicts(planted([0, 0, 0, 0, 0, 2.5, 2.5, 2.5, 0, 0, 0, 0]))
    assert found[:3] == [NO, UNSURE, NO]
    assert found[3:6] == [UNSURE] * 3


def test_exchangeable_heads_support_hypotheses_at_the_stated_rate():
    """Of 200 sweeps of heads that are alike, at most a few say anything about emergence."""
    said = [YES in verdicts(drifting(seed)) for seed in range(200)]
    assert sum(said) <= 16  # 10 at 5 %


# --- what it goes with ----------------------------------------------------------------------


def curves(loss, accuracy, *, steps=LONG):
    rows = [(step, "prose_loss", value) for step, value in zip(steps, loss, strict=True)]
    rows += [(step, "sum_accuracy", value) for step, value in zip(steps, accuracy, strict=True)]
    return pd.DataFrame(rows, columns=["step", "metric", "value"])


def long_sweep(at_step, *, seed=0):
    rng = np.random.default_rng(seed)
    even = np.where(np.arange(12) % 2 == 0, 1.0, -1.0)
    rise = 3 / (1 + np.exp(-(np.array(LONG) - at_step) / 15))
    return {
        step: 0.25 + even * each / 12 + 0.02 * rng.normal(size=12)
        for step, each in zip(LONG, rise, strict=True)
    }


def fall(at_step, seed):
    noise = 0.01 * np.random.default_rng(seed).normal(size=len(LONG))
    return 4 - 1 / (1 + np.exp(-(np.array(LONG) - at_step) / 15)) + noise


def test_a_loss_that_falls_at_the_same_time_is_seen_and_one_that_does_not_is_not():
    company = curves(fall(500, 1), -fall(200, 2))
    found = judged(long_sweep(500), capabilities=company)
    assert [one.verdict for one in found[6:]] == [YES, NO, NO]
    assert "prose loss: r = 0." in found[6].evidence
    other = judged(long_sweep(500), capabilities=curves(fall(200, 1), -fall(800, 2)))
    assert [one.verdict for one in other[6:]] == [NO, NO, UNSURE]
    assert "no independence" in other[8].evidence


def test_few_steps_cannot_decide_what_it_goes_with():
    steps = np.array(STEPS)
    loss = 4 - 1 / (1 + np.exp(-(steps - 205) / 10))
    found = judged(planted(JUMP_MIDDLE), capabilities=curves(loss, 4 - loss, steps=STEPS))
    assert [one.verdict for one in found[6:]] == [UNSURE] * 3
    assert "So few intervals allow no p below 0.091" in found[6].evidence


def test_more_curves_than_the_intervals_can_test_leave_it_undecided():
    """Of 40 intervals p is at least .025, which no curve out of three brings below q = .05."""
    company = curves(fall(500, 1), -fall(200, 2))
    extra = company[company["metric"] == "sum_accuracy"].assign(metric="copy_accuracy")
    extra["value"] = -fall(800, 3)
    found = judged(long_sweep(500), capabilities=pd.concat([company, extra]))
    assert [one.verdict for one in found[6:]] == [UNSURE] * 3  # with two curves: supported
    assert "no p below 0.025, too large beside 3 curves" in found[6].evidence


def test_without_a_loss_curve_it_is_not_decided():
    found = judged(planted(JUMP_MIDDLE))
    assert [one.verdict for one in found[6:]] == [UNSURE] * 3
    assert "no such curve" in found[6].evidence
