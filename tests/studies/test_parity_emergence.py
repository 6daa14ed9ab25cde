"""The parity study's questions on sweeps whose truth is planted."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from synthetic_parity import STEPS, drifting, parity_frame, planted, strength_frame

from headspec.errors import InputError
from headspec.studies.parity_emergence import (
    add_parity_q_values,
    find_parity_emergence,
    in_phase,
    tabulate_emergence,
)
from headspec.studies.parity_findings import describe_parity, read_without_null
from headspec.studies.parity_hypotheses import judge_parity_hypotheses

NOTHING = [0.0] * len(STEPS)
EARLY = [0.0, 0.0, 2.5] + [2.5] * (len(STEPS) - 3)  # from 3 % of training on
LATE = [0.0] * 9 + [2.5] * 3  # from 60 %


def emergence(strengths, *, metric="graded_strength", seed=0, **more):
    frame = parity_frame(planted(strengths, seed=seed), splits=False)
    return find_parity_emergence(frame, layer=2, metric=metric, **more), frame


def test_q_values_are_of_each_metric_apart():
    frame = parity_frame(planted(LATE), splits=False).drop(columns="q")
    ours = add_parity_q_values(frame)
    for metric in ("strength", "graded_strength"):
        rows = ours[ours["metric"] == metric]
        ranked = rows.sort_values(by="p", ascending=False)
        by_hand = np.minimum.accumulate(
            ranked["p"].to_numpy() * len(ranked) / np.arange(len(ranked), 0, -1)
        )
        assert ranked["q"].to_numpy() == pytest.approx(by_hand)
    assert ours.loc[ours["metric"] == "even_success", "q"].isna().all()


def test_a_frame_without_parity_is_refused():
    frame = parity_frame(planted(LATE), splits=False)
    with pytest.raises(InputError, match="ParityMeasure"):
        add_parity_q_values(frame[frame["metric"] == "even_success"])


@pytest.mark.parametrize("metric", ["strength", "graded_strength"])
def test_planted_emergence_is_found_at_its_step(metric):
    found, _ = emergence(LATE, metric=metric)
    assert (found.before_step, found.first_step, found.lasting_step) == (450, 600, 600)
    assert found.more == "even"
    assert found.gone_step is None
    early, _ = emergence(EARLY, metric=metric)
    assert (early.before_step, early.lasting_step) == (10, 30)
    odd, _ = emergence([-each for each in LATE], metric=metric)
    assert (odd.more, odd.lasting_step) == ("odd", 600)
    assert odd.value < 0


def test_what_is_there_from_the_start_has_no_step_before():
    found, _ = emergence([2.5] * len(STEPS))
    assert (found.before_step, found.first_step, found.lasting_step) == (None, 0, 0)


def test_a_specialisation_that_goes_does_not_last():
    found, _ = emergence([0, 0, 2.5, 2.5, 2.5, 0, 0, 0, 0, 0, 0, 0])
    assert found.first_step == 30
    assert found.lasting_step is None
    assert found.gone_step is not None


def test_a_change_of_sign_starts_anew():
    found, _ = emergence([2.5] * 6 + [-2.5] * 6)
    assert (found.first_step, found.lasting_step, found.more) == (0, 250, "odd")
    assert found.gone_step == 160  # still the other kind


def test_one_clear_step_at_the_end_does_not_last():
    found, _ = emergence([0.0] * 11 + [3.0])
    assert found.first_step in (None, 1000)
    assert found.lasting_step is None


def test_shares_are_of_training_not_of_the_sweep():
    found, _ = emergence(LATE, final_step=10_000)
    assert found.share(found.lasting_step) == pytest.approx(0.06)
    assert in_phase(0.06, "early")
    assert not in_phase(0.06, "middle")


def test_parts_of_training_meet_without_overlap():
    shares = np.linspace(0, 1, 101)
    held = [[in_phase(share, name) for name in ("early", "middle", "late")] for share in shares]
    assert (np.sum(held, axis=1) == 1).all()


def test_parts_where_heads_restore_nothing_were_not_seen():
    effects = planted(NOTHING)
    silent = {step: 0 * each if step < 500 else each for step, each in effects.items()}
    found = find_parity_emergence(parity_frame(silent), layer=2, metric="graded_strength")
    assert found.seen == ("late",)
    whole = find_parity_emergence(parity_frame(effects), layer=2, metric="graded_strength")
    assert whole.seen == ("early", "middle", "late")


def test_exchangeable_heads_are_special_at_the_stated_rate():
    """Heads drift for all of training, so that neighbouring steps repeat each other."""
    n = 600
    frames = [strength_frame(drifting(seed)) for seed in range(n)]
    found = [find_parity_emergence(each, layer=2, metric="graded_strength") for each in frames]
    any_step = sum(one.first_step is not None for one in found)
    assert any_step <= 42  # 30 at 5 %: more than 42 comes up once in 80
    assert sum(one.lasting_step is not None for one in found) <= any_step
    # negative control: without a correction for the steps looked at, far more are "found"
    naive = sum((each["p"] <= 0.05).any() for each in frames)
    assert naive > 60


def test_a_large_difference_is_nothing_special_where_two_heads_do_everything():
    """The study's reading, even minus odd without its null, calls this specialised."""
    two_even = np.where(np.isin(np.arange(12), (0, 2)), 2.0, 0.0)
    effects = dict.fromkeys(STEPS, two_even)
    frame = parity_frame(effects, splits=False)
    found = find_parity_emergence(frame, layer=2)
    assert found.value > 0.7
    assert found.p > 0.4  # 210 of 462 splits have both on one side
    assert found.first_step is None


def test_one_head_that_does_everything_is_named():
    """Even heads restore all, odd ones nothing: and so do the halves of every other split."""
    one = np.where(np.arange(12) == 4, 6.0, 0.0)
    frame = parity_frame(dict.fromkeys(STEPS, one), splits=False)
    found = find_parity_emergence(frame, layer=2)
    assert found.value > 0.9
    assert (found.p, found.first_step) == (1, None)
    said = describe_parity(found, frame)
    assert "even heads gives the clean answer in 92% of pairs, odd heads 0%" in said
    assert "100% of all splits into halves differ as much or more" in said
    assert "One head makes most of any difference: halves with L2H4 restore 92 points more" in said
    naive, _ = read_without_null(frame, layer=2, n_null=100)
    assert "even heads ahead by 92 points at the last step" in naive


def test_noising_is_not_called_restoring():
    """The sweep corrupts the clean run: what is ahead there is what is left."""
    one = np.where(np.arange(12) == 4, 6.0, 0.0)
    frame = parity_frame(dict.fromkeys(STEPS, one), splits=False)
    frame.loc[frame["direction"].notna(), "direction"] = "noise"
    found = find_parity_emergence(frame, layer=2)
    said = describe_parity(found, frame)
    assert "estor" not in said
    assert "corrupting even heads gives the clean answer in 92% of pairs" in said
    assert "halves with L2H4 leave, when corrupted, 92 points more" in said
    lasting, frame = emergence(LATE)
    noised = dataclasses.replace(lasting, direction="noise")
    evidence = [one.evidence for one in judge_parity_hypotheses(noised, frame, n_null=100)[:3]]
    assert "Even heads of layer 2 leave, when corrupted, more than odd ones" in evidence[2]


def test_several_rows_of_a_step_are_refused():
    frame = parity_frame(planted(LATE), splits=False)
    with pytest.raises(InputError, match="one row of strength of layer 2 a step"):
        find_parity_emergence(pd.concat([frame, frame]), layer=2)
    with pytest.raises(InputError, match=r"layers \[2\]"):
        find_parity_emergence(frame, layer=3)


def test_tables_and_sentences_say_it():
    found, frame = emergence(LATE)
    table = tabulate_emergence([found, dataclasses.replace(found, lasting_step=None)])
    assert table["lasting_share"].tolist() == [0.6, pytest.approx(np.nan, nan_ok=True)]
    assert table["seen"][0] == "early, middle, late"
    said = describe_parity(found, frame)
    assert "even heads stand out from step 600 on" in said
    nothing, flat = emergence(NOTHING)
    said = describe_parity(nothing, flat)
    assert "nothing special, at this step or any of 12" in said
    assert "One head" not in said
    gone, curve = emergence([0, 0, 2.5, 2.5, 2.5, 0, 0, 0, 0, 0, 0, 0])
    assert "3 of 12 steps, but not up to the last" in describe_parity(gone, curve)
