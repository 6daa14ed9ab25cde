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
    assert layers.loc[1, "training_share"] == pytest.approx(0.01)
    assert layers.loc[2, "first_step"] == 0
    assert np.isnan(layers.loc[2, "lasting_step"])
    assert layers.loc[3, "lasting_step"] == 0


def test_without_clusters_neither_early_nor_late_is_supported():
    _, _, _, verdicts = judged({0: NULL, 1: NULL})
    assert [one.verdict for one in verdicts] == ["not supported", "not supported", "not decided"]
    assert "0 of 2 layers" in verdicts[0].evidence


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
    assert "clustered from step 10 on" in first
    assert "not distinguishable from the null" in second
    assert "One cluster is a single head" in second


def test_the_studys_words_stand_beside_the_nulls():
    frame = add_q_values(sweep_frame({0: NULL}, {0: [0.6] * len(STEPS)}))
    row = compare_verdicts(frame).iloc[0]
    assert row["study_silhouette"] == "strong"
    assert row["study_separation"] == "well separated"
    assert row["null_verdict"] == "not distinguishable"
