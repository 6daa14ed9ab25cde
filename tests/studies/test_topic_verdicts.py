"""Verdicts of the topic-ordering study follow their rules: planted effects, none, one seed."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control, ttest_1samp
from synthetic_topics import N_HEADS, N_LAYERS, made_up, references

from headspec.studies.topic_conditions import topic_conditions
from headspec.studies.topic_findings import conclude_topic_study, describe_topic_study
from headspec.studies.topic_outcomes import (
    design_effects,
    holm_adjusted,
    ordering_effects,
    run_outcomes,
)
from headspec.studies.topic_tables import (
    baseline_table,
    circuit_table,
    condition_table,
    correction_rows,
    probe_differences,
)
from headspec.studies.topic_verdicts import FAMILY, decide, judge_topic_study


def judged(**planted):
    frame = made_up(**planted)
    return judge_topic_study(frame, run_outcomes(frame))


def words(verdicts):
    return [each.verdict for each in verdicts]


def test_a_planted_trace_is_found():
    verdicts = judged(ordered={"topic_excess": 0.05, "within_topic_mass": 0.05})
    assert words(verdicts) == ["supported", "not supported", "not supported", "not supported"]
    assert "Within-topic attention +5.00 points" in verdicts[0].evidence


def test_no_effect_beyond_the_margins_is_a_negative_result():
    trace, _, probes, within = judged()
    assert trace.verdict == "not supported"
    assert probes.verdict == "not supported"
    assert within.verdict == "supported"
    assert "within 1 point of 0" in within.evidence


def test_noisy_seeds_decide_nothing():
    verdicts = judged(noise=0.2)
    assert words(verdicts)[0] == "not decided"
    assert words(verdicts)[3] == "not decided"


@pytest.mark.parametrize("size", [0.5, -0.5])
def test_one_seed_decides_nothing(size):
    """Pitfall 18: one seed an arm shows some sign, and its repeat had the opposite one."""
    verdicts = judged(seeds=1, ordered={"topic_excess": size, "accuracy": size / 10})
    assert words(verdicts) == ["not decided"] * 4
    assert "one seed: no interval" in verdicts[0].evidence


def test_signs_of_single_seeds_are_a_coin_toss():
    """Negative control to it: in noise half of all single seeds show the published sign."""
    rng = np.random.default_rng(0)
    cells = [vars(one) for one in topic_conditions() if one.position == "drope"]
    rows = [
        {**cell, "seed": seed, "metric": f"study {study}", "value": rng.standard_normal()}
        for study in range(400)
        for cell in cells
        for seed in range(3)
    ]
    found = ordering_effects(pd.DataFrame(rows), [f"study {study}" for study in range(400)])
    positive = [float(each.split(",")[0]) > 0 for each in found["each seed"]]
    assert 0.42 < np.mean(positive) < 0.58
    assert 0.02 < (found["p"] <= 0.05).mean() < 0.08


def test_finding_3_heads_become_alike():
    verdicts = judged(spread=0.2, spread_after=0.02)
    assert verdicts[1].verdict == "supported"
    assert "0.200 with RoPE, 0.020 after" in verdicts[1].evidence
    assert "gives 0.100 and 0.010" in verdicts[1].evidence
    assert judged(spread=0.02, spread_after=0.2)[1].verdict == "not supported"
    assert judged(spread=0.2, spread_after=0.12)[1].verdict == "not supported"  # less than half


def test_models_that_learnt_nothing_decide_nothing():
    frame, known = made_up(), references()
    outcomes = run_outcomes(frame)
    loss = outcomes.loc[outcomes["metric"] == "validation_loss", "value"].mean()
    assert words(judge_topic_study(frame, outcomes, known)) != ["not decided"] * 4
    known.loc[known["metric"] == "ln_vocab", "value"] = loss + 0.01
    verdicts = judge_topic_study(frame, outcomes, known)
    assert words(verdicts) == ["not decided"] * 4
    assert "too little to tell" in verdicts[0].evidence


def test_finding_4_needs_every_layer_and_attention():
    assert judged(ordered={"accuracy": 0.04})[2].verdict == "supported"
    assert judged(ordered={"accuracy": -0.04})[2].verdict == "not supported"
    frame = made_up(ordered={"accuracy": 0.04})
    odd = (frame["metric"] == "accuracy") & (frame["layer"] == 0).fillna(False)
    odd &= (frame["attention"] == "gqa") & (frame["ordering"] == "topic_ordered")
    frame.loc[odd, "value"] -= 0.06
    found = judge_topic_study(frame, run_outcomes(frame))[2]
    assert found.verdict == "not decided"
    assert "Higher in 7 of 8 layers" in found.evidence


def test_mha_alone_is_judged_too():
    frame = made_up(ordered={"topic_excess": 0.05})
    frame = frame.loc[frame["attention"] == "mha"]
    outcomes = run_outcomes(frame)
    assert judge_topic_study(frame, outcomes)[0].verdict == "supported"
    assert design_effects(outcomes).factors == ("ordering", "position")
    assert judge_topic_study(frame, outcomes)[2].hypothesis.endswith("at all layers, with MHA.")


def test_a_real_effect_on_probes_does_not_make_a_trace_in_the_heads_likelier():
    """Corrected by false discovery rate, 7.4 % of traces were "supported" where heads have none."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((2000, 3, 4))
    z[:, :, 3] += 1000  # probes
    p = ttest_1samp(z, 0, axis=1).pvalue
    held = np.mean([(holm_adjusted(row)[:3] <= 0.05).any() for row in p])
    assert 0.03 < held < 0.06
    naive = false_discovery_control(p, axis=1)
    assert (naive[:, :3] <= 0.05).any(axis=1).mean() > 0.06


def test_what_verdicts_rest_on_is_corrected_for_four_outcomes():
    found = ordering_effects(run_outcomes(made_up(noise=0.05)), FAMILY)
    p, q = (found[name].to_numpy(float) for name in ("p", "q"))
    assert q.min() == pytest.approx(min(1, 4 * p.min()))
    np.testing.assert_allclose(q, holm_adjusted(p))
    alike = holm_adjusted(np.array([np.nan, 0.02, 0.03]))
    np.testing.assert_allclose(alike, [np.nan, 0.04, 0.04])


def test_a_trace_is_shown_beside_what_it_was_with_rope():
    evidence = judged(ordered={"topic_excess": 0.05})[0].evidence
    assert "after DroPE. Within-topic" in evidence
    assert "Before it, with RoPE. Within-topic" in evidence


@pytest.mark.parametrize(
    ("low", "high", "q", "expected"),
    [
        (-0.009, 0.009, 0.5, "absent"),
        (0.001, 0.009, 0.001, "absent"),
        (0.001, 0.02, 0.01, "there"),
        (-0.03, 0.02, 0.4, "open"),
        (0.002, 0.02, 0.06, "open"),
        (float("nan"), float("nan"), float("nan"), "open"),
    ],
)
def test_the_rule(low, high, q, expected):
    assert decide({"low": low, "high": high, "q": q}, "topic_excess") == expected


def test_outcomes_are_averages_of_a_run():
    frame = made_up(seeds=1)
    outcomes = run_outcomes(frame)
    one = frame.loc[(frame["condition"] == "gqa_shuffled_drope")]
    values = one.loc[one["metric"] == "within_topic_mass", "value"].to_numpy(float)
    assert len(values) == N_LAYERS * N_HEADS
    found = outcomes.loc[outcomes["condition"] == "gqa_shuffled_drope"].set_index("metric")["value"]
    assert found["within_topic_mass"] == pytest.approx(values.mean())
    assert found["head_spread"] == pytest.approx(values.std(ddof=1))
    assert found["log_topic_ratio"] == pytest.approx(np.log(2))
    accuracy = one.loc[one["metric"] == "accuracy"].set_index("layer")["value"].astype(float)
    assert found["probe_accuracy"] == accuracy[2]
    assert found["probe_accuracy_mean"] == pytest.approx(accuracy[accuracy.index >= 0].mean())


def test_the_design_finds_the_factor_that_was_planted():
    found = design_effects(run_outcomes(made_up(dropped={"entropy": 0.5}))).to_frame()
    passed = found.loc[found["q"] <= 0.05]
    assert {"position"} == set(passed.loc[passed["metric"] == "entropy", "effect"])
    effect = passed.loc[passed["metric"] == "entropy", "value"].to_numpy(float)
    assert effect == pytest.approx([0.5], abs=0.01)


def test_the_tables():
    frame = made_up()
    outcomes = run_outcomes(frame)
    table = condition_table(outcomes)
    assert len(table) == 8
    assert table["condition"].iloc[0] == "mha_shuffled_rope"
    assert table["Within topic"].iloc[0].startswith("70.0% ± 0.")
    assert (
        condition_table(run_outcomes(made_up(seeds=1)))["Entropy, nats"]
        .iloc[0]
        .endswith("(one seed)")
    )
    known = baseline_table(frame, references()).set_index("without training")
    assert known.loc["uniform causal attention", "Within topic"] == "60.0%"
    assert known.loc["ideal reader (Bayes)", "Validation loss"] == "2.6000"
    assert known.loc["ideal reader (Bayes)", "Probe, middle layer"] == "98.0%"
    assert circuit_table(frame, outcomes)["QK clusters, p < .05"].tolist() == ["0 of 12"] * 8
    assert len(probe_differences(frame)) == 2 * N_LAYERS


def test_published_beside_corrected():
    frame = made_up()
    rows = correction_rows(frame, run_outcomes(frame))
    assert len(rows) == 8 * 3 * 2
    entropy = rows.loc[(rows["metric"] == "entropy") & (rows["condition"] == "mha_shuffled_rope")]
    entropy = entropy.set_index("way")
    assert entropy.loc["published", "value"] > entropy.loc["published", "ceiling"] == 4.0
    assert entropy.loc["corrected", "value"] < 4.0
    assert rows.loc[rows["way"] == "corrected", "null_mean"].notna().all()


def test_the_sentences():
    frame = made_up(ordered={"topic_excess": 0.05}, dropped={"entropy": 0.5})
    outcomes = run_outcomes(frame)
    verdicts = judge_topic_study(frame, outcomes)
    lead = conclude_topic_study(verdicts, outcomes)
    assert lead.startswith("Topic-ordered training leaves a trace")
    assert "8 conditions (attention x ordering x position), 3 seeds, 24 models." in lead
    said = describe_topic_study(frame, outcomes, references(), design_effects(outcomes))
    assert any("entropy 3.00 to 3.50 nats" in line for line in said)
    assert any("288 of 288 heads have an entropy above 4.00 nats" in line for line in said)
    assert any("sequence and +5.0% with RoPE" in line for line in said)
    text = references().loc[lambda rows: rows["metric"].isin(("ln_vocab", "largest_topic"))]
    for line in describe_topic_study(frame, outcomes, text, design_effects(outcomes)):
        assert "nan" not in line


def test_a_lead_for_each_verdict():
    frame = made_up(noise=0.2)
    outcomes = run_outcomes(frame)
    assert "is not decided" in conclude_topic_study(judge_topic_study(frame, outcomes), outcomes)
    frame = made_up(seeds=1)
    outcomes = run_outcomes(frame)
    lead = conclude_topic_study(judge_topic_study(frame, outcomes), outcomes)
    assert "one seed: nothing can be decided by it" in lead
    assert pd.isna(design_effects(outcomes).to_frame()["q"]).all()
