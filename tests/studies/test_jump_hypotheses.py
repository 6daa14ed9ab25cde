"""The verdicts on jumps follow their rules: planted effects, none, no jumps, few seeds."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import permutation_test
from synthetic_moments import moment_rows

import headspec as hs
from headspec.series.jump_result import Jumps
from headspec.studies.jump_hypotheses import FAMILIES, RULES, judge_jump_hypotheses, late_gain
from headspec.studies.jump_hypotheses_counts import compare_rates, early_share, jump_rates

FAST = {"n_null": 499, "n_resamples": 300}
MODELS = ("transformer", "cnn", "mlp")
ALL = {name: 2.0 * way for family in FAMILIES.values() for name, way in family.items()}
EARLY = (0.02, 0.04, 0.06, 0.08, 0.7, 0.9)


def made_jumps(model, seed, phases, *, verdict="examined", n_steps=1000):
    """Jumps of four curves of 200 points, at these phases, one layer after the other."""
    layers = [f"layer.{i % 4}" for i in range(len(phases))]
    table = hs.results.tidy(
        {
            "step": [round(phase * n_steps) for phase in phases],
            "layer": [i % 4 for i in range(len(phases))],
            "value": [0.5] * len(phases),
            "layer_name": layers,
            "step_before": [round(phase * n_steps) - 5 for phase in phases],
            "magnitude": [0.5] * len(phases),
            "direction": ["increase"] * len(phases),
            "phase": list(phases),
            "speed": [0.1] * len(phases),
            "score": [9.0] * len(phases),
        },
        model=model,
        seed=seed,
        metric="stable_rank",
    ).astype({"phase": float})
    names = [f"layer.{i}" for i in range(4)]
    curves = pd.DataFrame(
        {
            "model": model,
            "seed": seed,
            "layer": range(4),
            "layer_name": names,
            "metric": "stable_rank",
            "n": 200,
            "n_jumps": [layers.count(name) for name in names],
            "verdict": verdict,
        }
    )
    return Jumps(table, curves, "calibrated", 1.0)


def all_jumps(*, n_seeds=3, **phases):
    return [made_jumps(m, s, phases.get(m, EARLY)) for m in MODELS for s in range(n_seeds)]


def landmarks(gain, n_seeds=3):
    return pd.DataFrame(
        [
            {
                "model": model,
                "seed": seed,
                "moment": 900 + i,
                "kind": "landmark",
                "place": "during",
                "metric": "accuracy",
                "phase": phase,
                "before": np.nan,
                "during": phase * 1000,
                "after": np.nan,
                "value": 0.5 + gain * i,
            }
            for model in MODELS
            for seed in range(n_seeds)
            for i, phase in enumerate((0.5, 1.0))
        ]
    )


def measured(effects=None, *, gain=0.1, n_seeds=3, **options):
    effects = ALL if effects is None else effects
    rows = moment_rows(effects, models=MODELS, n_seeds=n_seeds, phases=EARLY, **options)
    return pd.concat([rows, landmarks(gain, n_seeds)], ignore_index=True)


def judged(rows, jumps):
    return judge_jump_hypotheses(rows, jumps, **FAST)


def words(found):
    return [each.verdict for each in found.verdicts]


MANY_CNN = {"cnn": tuple(np.linspace(0.01, 0.09, 20)), "mlp": (0.03, 0.05)}


def test_planted_effects_support_all_four():
    found = judged(measured(), all_jumps(**MANY_CNN))
    assert words(found) == ["supported"] * 4
    frame = found.to_frame()
    assert set(frame["hypothesis"]) == {1, 2, 3, 4}
    assert {"early_share", "jumps_per_1000_points", "late_jumps"} < set(frame["metric"])
    heads = found.verdicts[0].evidence
    assert "24 jumps" not in heads
    assert "18 jumps in 2400 measured points of the transformer" in heads
    assert "18 jumps, 3 seeds): there" in heads
    assert "CNN 25.00, MLP 2.50 jumps per 1,000 points" in found.verdicts[1].evidence
    assert found.summary().startswith("supported: Jumps of transformers")


def test_no_effect_is_not_supported():
    found = judged(measured(dict.fromkeys(ALL, 0.0)), all_jumps())
    assert words(found)[0] == "not supported"
    assert words(found)[3] == "not supported"
    assert "supported" not in words(found)


@pytest.mark.parametrize("wrong", ["normalised_entropy", "head_divergence"])
def test_heads_must_focus_and_diverge(wrong):
    """One of the two in the other direction: not supported."""
    found = judged(measured(ALL | {wrong: -ALL[wrong]}), all_jumps())
    assert words(found)[0] == "not supported"


def test_no_jumps_anywhere_is_judged_by_the_rule():
    rows = landmarks(0.1)
    found = judged(rows, all_jumps(transformer=(), cnn=(), mlp=()))
    assert words(found) == ["not decided", "not supported", "not supported", "not supported"]
    heads, filters, early, late = (each.evidence for each in found.verdicts)
    assert "0 jumps in 2400 measured points" in heads
    assert "Nothing was measured at jumps" in heads
    assert "difference +0.00 [+0.00 to +0.00]" in filters
    assert "No jumps were detected: none is early." in early
    assert "learnt late is learnt without a jump" in late


def test_controls_without_jumps_are_nothing_to_compare_with():
    rows = measured()
    rows = rows.loc[rows["kind"] != "jump"].assign(matched=np.nan)
    found = judged(rows, all_jumps(transformer=(), cnn=(), mlp=()))
    assert words(found) == ["not decided", "not supported", "not supported", "not supported"]
    assert "no jump to compare" in found.verdicts[0].evidence


def test_nothing_learnt_late_decides_nothing_about_late_jumps():
    found = judged(landmarks(0.0), all_jumps(transformer=(), cnn=(), mlp=()))
    assert words(found)[3] == "not decided"
    assert "Nothing was acquired late" in found.verdicts[3].evidence


def test_curves_below_their_resolution_decide_nothing():
    """Pitfall 20: a series of rounding errors is no series without jumps."""
    jumps = [made_jumps(m, s, (), verdict="below resolution") for m in MODELS for s in range(3)]
    found = judged(landmarks(0.1), jumps)
    assert words(found) == ["not decided"] * 4


def test_two_seeds_decide_nothing():
    found = judged(measured(n_seeds=2), all_jumps(n_seeds=2, **MANY_CNN))
    assert words(found) == ["not decided"] * 4
    assert found.verdicts[0].evidence.startswith("2 seeds decide nothing")


def test_a_missing_architecture_is_not_decided():
    rows = measured()
    only = [one for one in all_jumps() if one.curves["model"].iloc[0] == "mlp"]
    found = judged(rows.loc[rows["model"] == "mlp"], only)
    assert words(found)[:2] == ["not decided"] * 2
    assert "No curve of a transformer was examined" in found.verdicts[0].evidence
    assert "no runs of both" in found.verdicts[1].evidence


def test_false_support_is_rare_where_labels_mean_nothing():
    supported = []
    for draw in range(12):
        rng = np.random.default_rng(draw)
        jumps = [
            made_jumps(m, s, np.sort(rng.uniform(0.01, 1, rng.poisson(3))))
            for m in MODELS
            for s in range(3)
        ]
        found = judged(measured(dict.fromkeys(ALL, 0.0), seed=draw), jumps)
        supported.append([verdict == "supported" for verdict in words(found)])
    assert np.mean(supported, axis=0).max() <= 0.09  # at most one of 12; nominal 5 %


def test_rates_are_compared_as_scipy_does():
    rng = np.random.default_rng(0)
    jumps = [made_jumps(m, s, rng.uniform(0.1, 1, n)) for m, counts in
             (("cnn", (9, 4, 6)), ("mlp", (3, 5, 2))) for s, n in enumerate(counts)]  # fmt: skip
    found = compare_rates(jump_rates(jumps))
    each = {"cnn": np.array([9, 4, 6]) / 0.8, "mlp": np.array([3, 5, 2]) / 0.8}
    oracle = permutation_test(
        (each["cnn"], each["mlp"]),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        alternative="greater",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert found["value"] == pytest.approx(oracle.statistic)
    assert found["p"] == pytest.approx(oracle.pvalue)
    assert found["least_p"] == 1 / 20
    assert found["low"] < found["value"] < found["high"]


def test_early_jumps_that_come_together_are_one_event():
    """A binomial test of 12 jumps of one cascade says p = 1e-12; there is one event a run."""
    cascade = [made_jumps("mlp", s, [0.05] * 12) for s in range(3)]
    found = early_share(cascade)
    assert found["value"] == 1
    assert found["null_mean"] == pytest.approx(0.1, abs=0.01)
    assert found["p"] == pytest.approx(0.001, abs=0.001)  # .1 ** 3
    assert early_share(cascade[:1])["p"] == pytest.approx(0.1, abs=0.01)


def test_early_includes_the_boundary():
    """Pitfall 21: a phase of exactly .1 is early, and phase 0 does not fall out."""
    assert early_share([made_jumps("mlp", 0, [0.005, 0.1, 0.5])])["value"] == pytest.approx(2 / 3)


def test_late_gain():
    assert late_gain(landmarks(0.07)) == pytest.approx(0.07)
    assert np.isnan(late_gain(pd.DataFrame()))
    assert np.isnan(late_gain(landmarks(0.07).query("phase < 1")))


def test_findings_are_saved_and_loaded(tmp_path):
    found = judged(measured(), all_jumps())
    for name in ("findings.json", "findings.parquet"):
        again = hs.results.load(hs.results.save(found, tmp_path / name))
        assert again.verdicts == found.verdicts
        pd.testing.assert_frame_equal(again.to_frame(), found.to_frame())


def test_the_rules_name_their_numbers():
    assert "1/8" in RULES
    assert "10%" in RULES or "10 %" in RULES
