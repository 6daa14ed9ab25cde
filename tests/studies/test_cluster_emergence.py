"""The study's questions on frames whose answers are known."""

import numpy as np
import pandas as pd
import pytest

from headspec.errors import InputError
from headspec.series.transition_tables import find_transitions
from headspec.studies.cluster_emergence import (
    add_q_values,
    compare_verdicts,
    describe_findings,
    emergence_by_layer,
    judge_hypotheses,
)

STEPS = (0, 1, 10, 100, 200, 400, 600, 700, 800, 900, 950, 1000)


def sweep_frame(p_by_layer, silhouettes=None):
    """A sweep with the given p-values, one list over STEPS a layer."""
    rows = []
    for layer, ps in p_by_layer.items():
        values = (silhouettes or {}).get(layer, [0.1] * len(STEPS))
        for step, p, value in zip(STEPS, ps, values, strict=True):
            base = {"model": "m", "step": step, "layer": layer, "n": 12, "seed": 0}
            null = {"null_mean": 0.05, "null_sd": 0.01, "p": p}
            rows.append(base | null | {"metric": "silhouette", "value": value})
            rows.append(base | {"metric": "smallest_cluster", "value": 1.0, "p": np.nan})
            rows.append(base | {"metric": "separation_ratio", "value": 3000.0, "p": np.nan})
    return pd.DataFrame(rows)


def judged(p_by_layer, silhouettes=None):
    frame = add_q_values(sweep_frame(p_by_layer, silhouettes))
    layers = emergence_by_layer(frame)
    transitions = find_transitions(frame, "silhouette", n_null=200)
    return frame, layers, transitions, judge_hypotheses(layers, transitions)


NULL = [0.5] * len(STEPS)
EARLY = [0.5, 0.5] + [0.0005] * (len(STEPS) - 2)
LATE = [0.5] * 7 + [0.0005] * (len(STEPS) - 7)


def test_q_values_are_benjamini_and_hochbergs_by_hand():
    frame = sweep_frame({0: NULL})
    ours = add_q_values(frame.assign(p=np.where(frame["step"] == 0, 0.001, 0.5)))
    tested = ours[ours["metric"] == "silhouette"]
    assert tested["q"].iloc[0] == pytest.approx(0.001 * len(STEPS))  # rank 1 of 12
    assert tested["q"].iloc[1:].to_numpy() == pytest.approx(0.5)
    assert ours.loc[ours["metric"] != "silhouette", "q"].isna().all()


def test_a_frame_without_a_null_is_refused():
    frame = sweep_frame({0: NULL}).assign(p=np.nan)
    with pytest.raises(InputError, match=r"p-values.*with a null"):
        add_q_values(frame)


def test_emergence_lasts_to_the_end_or_is_none():
    gone_again = [0.0005] * 8 + [0.5] * (len(STEPS) - 8)
    _, layers, _, _ = judged({0: NULL, 1: EARLY, 2: gone_again, 3: [0.0005] * len(STEPS)})
    layers = layers.set_index("layer")
    assert np.isnan(layers.loc[0, "first_step"])
    assert np.isnan(layers.loc[0, "lasting_step"])
    assert layers.loc[1, "lasting_step"] == 10
    assert layers.loc[1, "lasting_share"] == pytest.approx(0.01)
    assert layers.loc[2, "first_step"] == 0
    assert np.isnan(layers.loc[2, "lasting_step"])
    assert layers.loc[3, "lasting_step"] == 0


def test_without_clusters_neither_early_nor_late_is_supported():
    _, _, _, verdicts = judged({0: NULL, 1: NULL})
    assert [one.verdict for one in verdicts] == ["not supported", "not supported", "not decided"]
    assert "0 of 2 layers" in verdicts[0].evidence


def test_a_single_clear_step_at_the_end_does_not_last():
    _, layers, _, _ = judged({0: [0.5] * (len(STEPS) - 1) + [0.0005]})
    assert layers.loc[0, "first_step"] == STEPS[-1]
    assert np.isnan(layers.loc[0, "lasting_step"])


def test_phase_is_told_from_the_end_of_training_not_of_the_sweep():
    frame = add_q_values(sweep_frame({0: LATE}))
    assert emergence_by_layer(frame).loc[0, "lasting_share"] == pytest.approx(0.7)
    long = emergence_by_layer(frame, final_step=100_000)
    assert long.loc[0, "lasting_share"] == pytest.approx(0.007)


def test_untested_and_falling_changes_support_nothing():
    rising = list(np.linspace(0.1, 0.2, len(STEPS)))
    few = add_q_values(sweep_frame({0: [0.0005] * len(STEPS)}, {0: rising}))
    few = few[few["step"].isin(STEPS[:4])]
    layers = emergence_by_layer(few)
    transitions = find_transitions(few, "silhouette", n_null=200)
    assert judge_hypotheses(layers, transitions)[0].verdict == "not decided"
    assert "before training" in judge_hypotheses(layers, transitions)[0].evidence
    assert "too few to test" in describe_findings(layers, transitions)[0]
    noise = np.random.default_rng(0).normal(0, 0.004, len(STEPS))
    fall = list(np.where(np.arange(len(STEPS)) < 7, 0.6, 0.1) + noise)
    _, _, falling, verdicts = judged({0: LATE, 1: LATE}, {0: fall, 1: fall})
    assert set(falling["kind"]) == {"sudden"}
    assert verdicts[1].verdict == "not decided"


def test_one_layer_of_three_is_no_majority():
    noise = np.random.default_rng(0).normal(0, 0.004, len(STEPS))
    jump = list(np.where(np.arange(len(STEPS)) < 7, 0.05, 0.6) + noise)
    _, _, _, verdicts = judged({0: LATE, 1: NULL, 2: NULL}, {0: jump})
    assert verdicts[1].verdict == "not decided"


def test_two_features_in_one_frame_are_refused():
    frame = add_q_values(sweep_frame({0: NULL}))
    with pytest.raises(InputError, match="one silhouette a layer and step"):
        emergence_by_layer(pd.concat([frame, frame]))


def test_too_few_draws_for_so_many_tests_are_named():
    with pytest.warns(UserWarning, match="n_null = 240"):
        add_q_values(sweep_frame({0: NULL}).assign(n_null=99))


def test_early_and_gradual_supports_early_bias_only():
    gradual = list(0.1 + 0.02 * np.arange(len(STEPS)) + 0.004 * np.sin(np.arange(len(STEPS)) * 5))
    _, _, _, verdicts = judged({0: EARLY, 1: EARLY}, {0: gradual, 1: gradual})
    assert [one.verdict for one in verdicts] == ["supported", "not supported", "not decided"]


def test_late_and_sudden_supports_late_optimisation_only():
    noise = np.random.default_rng(0).normal(0, 0.004, len(STEPS))
    jump = list(np.where(np.arange(len(STEPS)) < 7, 0.05, 0.6) + noise)
    _, _, transitions, verdicts = judged({0: LATE, 1: LATE}, {0: jump, 1: jump})
    assert set(transitions["kind"]) == {"sudden"}
    assert [one.verdict for one in verdicts] == ["not supported", "supported", "not decided"]
    # negative control: the same late clusters without the jump do not support it
    _, _, _, flat = judged({0: LATE, 1: LATE})
    assert flat[1].verdict == "not decided"


def test_findings_say_null_and_single_heads():
    higher = [0.2] * len(STEPS)
    _, layers, transitions, _ = judged({0: NULL, 1: EARLY}, {1: higher})
    first, second = describe_findings(layers, transitions)
    assert first.startswith("Layer 1")  # the highest above its null comes first
    assert "clearer than the null from step 10 on" in first
    assert "not distinguishable from the null" in second
    assert "One cluster is a single head" in second


def test_the_studys_words_stand_beside_the_nulls():
    frame = add_q_values(sweep_frame({0: NULL}, {0: [0.6] * len(STEPS)}))
    row = compare_verdicts(frame).iloc[0]
    assert row["study_silhouette"] == "strong"
    assert row["study_separation"] == "well separated"
    assert row["null_verdict"] == "not distinguishable"
