"""Links between weights and capabilities: a planted one is found, independent curves give none."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr

from headspec.results import tidy
from headspec.series.correlation import correlate_rates
from headspec.studies.weight_capabilities import Tracked, emergence_table
from headspec.studies.weight_controls import link_controls
from headspec.studies.weight_curves import CLUSTER_METRIC
from headspec.studies.weight_findings import conclude_links, describe_links, shorten
from headspec.studies.weight_links import link_weights, with_raw_tests
from headspec.studies.weight_turns import turns_near_emergence
from headspec.studies.weight_verdicts import judge_links

STEPS = np.unique(np.geomspace(1, 40_000, 48).round().astype(int))
MODELS = ("small", "medium", "large")
MATRICES = ("q", "o", "mlp_in")
STATISTICS = ("spectral_norm", "stable_rank", "alpha")
TRACKED = (Tracked("task.acc", "task.acc", 0.0), Tracked("other.acc", "other.acc", 0.0))


def rising(rng):
    """A curve that only rises, at a rate that comes and goes."""
    noise = rng.standard_normal(len(STEPS) + 8)
    rate = np.exp(np.convolve(noise, np.ones(3) / 3**0.5, "valid")[: len(STEPS) - 1])
    return np.r_[0.0, np.cumsum(rate * np.diff(np.log1p(STEPS)))] / 50


def made_up(*, planted, seed=0):
    """Curves of three models; planted: stable ranks fall, everywhere, as task.acc rises."""
    rng = np.random.default_rng(seed)
    weights, abilities = [], []
    for model in MODELS:
        goals = {name: rising(rng) for name in ("task.acc", "other.acc")}
        for name, values in goals.items():
            columns = {"step": STEPS, "value": values, "metric": name, "se": 0.003}
            abilities.append(pd.DataFrame(columns).assign(model=model, chance=0.0))
        for layer in (0, 1):
            for matrix in MATRICES:
                for statistic in STATISTICS:
                    values = rising(rng)
                    if planted and statistic == "stable_rank":
                        values = 30 - 40 * goals["task.acc"] + 0.2 * values
                    columns = {"step": STEPS, "value": values, "metric": f"{matrix}.{statistic}"}
                    where = {"model": model, "layer": layer, "matrix": matrix}
                    weights.append(pd.DataFrame(columns).assign(statistic=statistic, **where))
            matrix, statistic = CLUSTER_METRIC.split(".")
            columns = {"step": STEPS, "value": rising(rng), "metric": CLUSTER_METRIC}
            where = {"model": model, "layer": layer, "matrix": matrix, "statistic": statistic}
            weights.append(pd.DataFrame(columns).assign(**where))
    return tidy(pd.concat(weights, ignore_index=True)), tidy(
        pd.concat(abilities, ignore_index=True), n=1000
    )


def linked(*, planted, models=MODELS, seed=0, **options):
    curves, abilities = made_up(planted=planted, seed=seed)
    curves = curves.loc[curves["model"].isin(models)]
    abilities = abilities.loc[abilities["model"].isin(models)]
    emergence = emergence_table(abilities, TRACKED)
    return link_weights(curves, abilities, emergence, n_null=2000, n_pooled=1000, **options)


@pytest.fixture(scope="module")
def planted():
    return linked(planted=True)


@pytest.fixture(scope="module")
def independent():
    return linked(planted=False)


def test_a_planted_link_is_found_in_every_model_and_over_them(planted):
    passed = planted.overall[planted.overall["q"] <= 0.05]
    assert set(passed["metric"] + " " + passed["capability"]) == {"all.stable_rank task.acc"}
    assert len(passed) == 3
    assert (passed["value"] < -0.8).all()
    pooled = planted.pooled_overall[planted.pooled_overall["q"] <= 0.05]
    assert pooled[["metric", "capability"]].to_numpy().tolist() == [["all.stable_rank", "task.acc"]]


def test_its_verdicts(planted):
    moves, sizes, _, clusters = judge_links(planted)
    assert moves.verdict == "supported"
    assert moves.evidence.startswith("1 of 8 links pass")
    assert sizes.verdict == "supported"
    assert sizes.evidence.startswith("1 of 8 pairs pass in each of 3 sizes with one sign")
    assert clusters.verdict != "supported"


def test_curves_that_only_rise_are_correlated_raw_and_give_no_link(independent):
    """Pitfall 27: nearly every raw correlation passes, none of the rates does."""
    assert (independent.links["raw_q"] <= 0.05).mean() > 0.95
    assert (independent.links["raw_r"].abs()).median() > 0.9
    for family in (independent.overall, independent.links, independent.by_layer):
        assert (family["q"] <= 0.05).sum() == 0
    assert (independent.pooled_overall["q"] <= 0.05).sum() == 0


def test_no_link_is_a_negative_result_only_if_one_could_have_been_seen(independent):
    moves, sizes, turns, clusters = judge_links(independent)
    assert independent.control["seen"].mean() > 0.5
    assert [moves.verdict, sizes.verdict, clusters.verdict] == ["not supported"] * 3
    assert turns.verdict in ("not supported", "not decided")
    blind = independent.control.assign(seen=False)
    unseen = judge_links(type(independent)(**{**vars(independent), "control": blind}))
    assert [unseen[i].verdict for i in (0, 1, 3)] == ["not decided"] * 3
    half = independent.control.assign(seen=independent.control["metric"] == "perfect_link")
    missed = judge_links(type(independent)(**{**vars(independent), "control": half}))
    assert [missed[i].verdict for i in (0, 1, 3)] == ["not decided"] * 3
    assert "seen for 0 of 2 capabilities, a perfect one for 2." in missed[0].evidence
    assert "would be missed more often than seen" in missed[3].evidence
    assert "not even a perfect link could be seen" in unseen[3].evidence


def test_a_pair_that_one_size_lacks_or_turns_round_does_not_hold_in_all_sizes(planted):
    stable = (planted.overall["metric"] == "all.stable_rank") & (planted.overall["q"] <= 0.05)
    small = stable & (planted.overall["model"] == "small")
    lacking = planted.overall.assign(value=planted.overall["value"].mask(small))
    turned = planted.overall.assign(value=planted.overall["value"].where(~small, 0.9))
    pooled = planted.pooled_overall.assign(n_models=2)
    for changed in (lacking, turned):
        tables = vars(planted) | {"overall": changed, "pooled_overall": pooled}
        assert judge_links(type(planted)(**tables))[1].verdict == "not supported"


def test_the_answer_says_what_was_found_or_could_have_been(planted, independent):
    assert conclude_links(planted).startswith("1 of 8 pairs of a weight statistic and a capability")
    none = conclude_links(independent)
    assert none.startswith("No statistic of the weights was found")
    assert "For 2 of 2 capabilities" in none
    blind = independent.control.assign(seen=False)
    unseen = conclude_links(type(independent)(**{**vars(independent), "control": blind}))
    assert "nothing is decided" in unseen
    half = independent.control.assign(seen=independent.control["metric"] == "perfect_link")
    missed = conclude_links(type(independent)(**{**vars(independent), "control": half}))
    assert missed.endswith("for none one whose rates correlate 0.9 with the capability's. "
                           "That is too few to decide.")  # fmt: skip


def test_a_close_link_is_one_of_point_nine_in_every_model():
    _, abilities = made_up(planted=False)
    found = correlate_rates(abilities, abilities, n_null=20)
    control = link_controls(abilities, found.to_frame(), None, n_null=200, n_pooled=100, n_draws=3)
    kinds = control.set_index("metric")["value"]
    assert kinds["close_link"].to_numpy(float) == pytest.approx(0.9, abs=1e-9)
    assert kinds["perfect_link"].to_numpy(float) == pytest.approx(1, abs=1e-9)
    assert len(control) == 2 * 3 * 2
    shares = control.loc[control["metric"] == "close_link", "share_seen"].to_numpy(float)
    assert np.isin(np.round(3 * shares, 9), range(4)).all()
    assert (control["seen"] == (control["share_seen"] >= 0.5)).all()


def test_a_family_that_is_large_hides_what_a_small_one_shows(independent):
    """Nothing is seen where the smallest p fails the correction for all that was tried."""
    _, abilities = made_up(planted=False)
    many = pd.concat([independent.overall] * 40)
    control = link_controls(abilities, many, None, n_null=2000, n_pooled=100, n_draws=2)
    assert not control["seen"].any()


def test_tables_of_a_page_are_short_and_name_the_capability_first(planted):
    shown = shorten(planted.links, most=5)
    assert list(shown)[:4] == ["model", "capability", "metric", "value"]
    assert len(shown) == 5
    assert shown["q"].is_monotonic_increasing
    assert not {"seed", "head", "lag"} & set(shown)
    assert len(shorten(planted.control)) == len(planted.control)


def test_what_a_page_leaves_out_of_the_emergence_table():
    _, abilities = made_up(planted=True)
    table = emergence_table(abilities, TRACKED)
    shown = shorten(table)
    assert {"midpoint_low", "midpoint_high", "width"} <= set(table) - set(shown)
    assert {"step_before", "step", "midpoint", "rise_after"} <= set(shown)


def test_sentences_count_everything_that_was_tried(planted, independent):
    said = describe_links(independent)
    assert said[0].startswith("Raw values: ")
    assert "of 60 correlations" in said[0]
    assert "averaged over layers and matrices: 0 of 24 pass" in said[1]
    assert any("Over all sizes" in line and "0 of 8 pairs" in line for line in said)
    assert any("clustered goes with capabilities in 0 of 6 tests" in line for line in said)
    found = describe_links(planted)
    assert "3 of 24 pass" in found[1]
    assert "Strongest: all.stable_rank with task.acc (r = -" in found[1]
    assert "in every size" in " ".join(found)


def test_one_model_alone():
    found = linked(planted=True, models=("large",))
    assert found.pooled is None
    assert "pooled" not in found.frames()
    verdicts = judge_links(found)
    assert verdicts[0].verdict == "supported"
    assert verdicts[1].verdict == "not decided"
    assert describe_links(found)


def test_what_goes_with_the_loss_is_taken_out():
    """The statistic follows other.acc, which is called the loss here: nothing is left beyond."""
    curves, abilities = made_up(planted=True)
    follows = abilities["metric"] == "task.acc"
    doubled = abilities.loc[follows].assign(metric="twin.acc")
    doubled["value"] = doubled["value"] + 1e-3 * np.sin(doubled["step"])
    abilities = pd.concat([abilities, doubled], ignore_index=True)
    emergence = emergence_table(abilities, TRACKED)
    found = link_weights(curves, abilities, emergence, loss="task.acc", n_null=2000, n_pooled=500)
    with_it = found.overall.query("capability == 'twin.acc' and metric == 'all.stable_rank'")
    without = found.beyond_loss.query("capability == 'twin.acc' and metric == 'all.stable_rank'")
    assert (with_it["q"] <= 0.05).all()
    assert (without["q"] > 0.05).all()
    assert "task.acc" not in set(found.beyond_loss["capability"])


def test_the_textbook_p_is_that_of_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 12))
    expected = pearsonr(x, y)
    frame = pd.DataFrame({"raw_r": [expected.statistic, 1.0], "n": [11, 11]})
    found = with_raw_tests(frame)
    assert found["raw_p"].iloc[0] == pytest.approx(expected.pvalue)
    assert found["raw_p"].iloc[1] == 0


def test_turns_at_the_emergence_are_counted():
    steps = np.array([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384])
    x = np.log1p(steps)
    rows = []
    for i, width in enumerate((0.3, 0.4, 0.5, 0.6)):
        values = 1 / (1 + np.exp(-(x - np.log(257)) / width))
        columns = {"step": steps, "value": values, "metric": f"q.s{i}", "statistic": f"s{i}"}
        rows.append(pd.DataFrame(columns).assign(model="m", layer=0, matrix="q"))
    curves = tidy(pd.concat(rows, ignore_index=True))
    emergence = tidy(
        [{"model": "m", "step": 256, "metric": "a.emergence", "value": 1.0}],
    ).assign(status="emerged", capability="a", step_before=128)
    found = turns_near_emergence(curves, emergence).set_index("turn")
    assert found.loc["fastest", "value"] == 1
    assert found.loc["fastest", "null_mean"] < 0.2
    assert turns_near_emergence(curves, emergence.assign(status="never")).empty
