"""The study's third hypothesis on results whose answers are known, and on the embedded suite."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats as scipy_stats

import headspec as hs
from headspec.errors import InputError
from headspec.heads import Head
from headspec.interventions.specialisation import cluster_effects
from headspec.interventions.specialisation_result import ClusterEffects
from headspec.interventions.swap_result import ClusterSwap, WithinSwap
from headspec.stats import NullSummary, summarise_null
from headspec.studies.cluster_emergence import judge_hypotheses
from headspec.studies.cluster_layers import (
    clearest_layer,
    cluster_layers,
    compare_weights,
    project_clusters,
    tabulate_layers,
)
from headspec.studies.cluster_mechanism import describe_mechanism, judge_specialisation
from headspec.studies.cluster_swaps import describe_swaps, swap_on_tasks, tabulate_swaps
from headspec.studies.cluster_tasks import (
    ablate_on_tasks,
    build_families,
    measure_abilities,
    prompts_of,
    tokenise_families,
)

TASKS = ("addition", "patterns", "prose")
SIX = (tuple(Head(2, h) for h in range(6)), tuple(Head(2, h) for h in range(6, 12)))
ONE = ((Head(2, 0),), tuple(Head(2, h) for h in range(1, 12)))


def a_swap(kl, null=(1.0, 3.0), *, clusters=SIX, n_null=199, exact=False):
    """A swap of this mean, before draws evenly spread between two ends."""
    draws = np.linspace(*null, n_null)
    within = tuple(
        WithinSwap(heads=heads, n_pairs=1, draws=empty, between=empty)
        for heads in clusters
        for empty in [np.full(5 if len(heads) > 1 else 0, 0.2)]
    )
    return ClusterSwap(
        kl=np.full(30, float(kl)),
        pairing_kl=np.full(3, float(kl)),
        pairings=(((0, 6),),) * 3,
        null_draws=draws,
        null=summarise_null(float(kl), draws, exact=exact),
        exact=exact,
        within=within,
        clusters=clusters,
        how="qk",
        unequal="repeat",
        n_random=n_null,
        seed=0,
        n=30,
        layer=2,
    )


def some_effects(
    interaction=30.0, *, clusters=SIX, tasks=TASKS, exact=True, n_null=924, draws=False
):
    """Effects whose interaction stands before draws from 0 to 20; with draws of the tables."""
    kept = np.random.default_rng(0).standard_normal((n_null, 2, len(tasks))) if draws else None
    draws = np.linspace(0, 20, n_null - 2 * exact)
    draws = np.concatenate([draws, [interaction] * 2 * exact])
    shape = (2, len(tasks))
    z = np.zeros(shape)
    z[:, -1] = (3.0, -3.0)
    q = np.ones(shape)
    q[1, -1] = 0.01
    single = len(tasks) == 1
    return ClusterEffects(
        effects=z - 2,
        standardised=z,
        null_mean=np.full(shape, -2.0),
        null_sd=np.ones(shape),
        cell_p=q,
        cell_q=q,
        interaction=NullSummary.bare(float("nan"))
        if single
        else summarise_null(interaction, draws, exact=exact),
        interaction_draws=draws,
        exact=exact,
        base=np.full(len(tasks), 5.0),
        n=np.full(len(tasks), 30),
        clusters=clusters,
        tasks=tasks,
        metrics=("log_prob_difference",) * len(tasks),
        units=("nats",) * len(tasks),
        mode="mean",
        n_random=1000,
        seed=0,
        layer=2,
        standardised_draws=kept,
    )


def some_layers(q=0.002, **changes):
    row = {
        "layer": 2,
        "sizes": "6 + 6",
        "silhouette": 0.124,
        "study_word": "weak or none",
        "null_verdict": "clustered" if q <= 0.05 else "not distinguishable",
        "null_mean": 0.003,
        "q": q,
        "n_clusters": 2,
        "p_least": 1 / 2001,
    }
    return pd.DataFrame([row | changes])


def some_abilities(can=(True, True, True)):
    return pd.DataFrame({"task": TASKS, "can": can})


STRONG = {"addition": a_swap(2.0), "patterns": a_swap(7.0), "prose": a_swap(1.2)}
EVERY_SWAP_IS_STRONG = {name: a_swap(2.5) for name in TASKS}


def judge(layers=None, swaps=None, effects=None, abilities=None, **options):
    return judge_specialisation(
        some_layers() if layers is None else layers,
        tabulate_swaps(STRONG if swaps is None else swaps),
        some_effects() if effects is None else effects,
        some_abilities() if abilities is None else abilities,
        **options,
    )


# --- the verdict ----------------------------------------------------------------------------


def test_clusters_swap_and_interaction_together_support_it():
    found = judge()
    assert found.verdict == "supported"
    assert "on patterns changes the output by 7 nats (random sets 2, q = 0.015)" in found.evidence
    assert "Interaction of cluster and task: 30" in found.evidence


def test_strong_swaps_that_any_heads_would_give_do_not_support_it():
    """The study's word for all of these is strong: by its thresholds a causal effect."""
    table = tabulate_swaps(EVERY_SWAP_IS_STRONG)
    assert set(table["study_word"]) == {"strong"}
    found = judge(swaps=EVERY_SWAP_IS_STRONG)
    assert found.verdict == "not supported"
    assert "strong in the study's words, random sets 2" in found.evidence


def test_a_minimal_swap_beyond_its_null_counts():
    """By the study's thresholds this effect would be minimal."""
    small = {name: a_swap(0.002, (0.0005, 0.0015)) for name in TASKS} | {
        "patterns": a_swap(0.09, (0.001, 0.05))
    }
    assert set(tabulate_swaps(small)["study_word"]) == {"minimal"}
    assert judge(swaps=small).verdict == "supported"


def test_without_an_interaction_it_is_not_supported():
    found = judge(effects=some_effects(interaction=10.0))
    assert found.verdict == "not supported"
    assert "permuted labels" in found.evidence


def test_clusters_that_are_none_cannot_be_specialised():
    assert judge(layers=some_layers(q=0.3)).verdict == "not supported"


def test_q_over_all_layers_decides_not_only_the_one_shown():
    both = pd.concat([some_layers(q=0.2, layer=1), some_layers(q=0.04)])
    assert judge(layers=both).verdict == "supported"
    both = pd.concat([some_layers(q=0.04, layer=1), some_layers(q=0.2)])
    assert judge(layers=both).verdict == "not supported"


def test_one_head_against_eleven_cannot_be_decided():
    """Twelve swaps and twelve labellings exist: no p below 1/12."""
    swaps = {n: a_swap(9.0, clusters=ONE, n_null=12, exact=True) for n in TASKS}
    effects = some_effects(clusters=ONE, n_null=12)
    found = judge(swaps=swaps, effects=effects)
    assert found.verdict == "not decided"
    assert "none could stand out" in found.evidence
    assert "allow no p below 0.083" in found.evidence


def test_too_few_draws_cannot_decide():
    few = {name: a_swap(9.0, n_null=9) for name in TASKS}
    assert judge(swaps=few).verdict == "not decided"


def test_a_part_that_fails_with_power_decides_even_where_another_has_none():
    few = {name: a_swap(2.0, n_null=9) for name in TASKS}
    assert judge(swaps=few, effects=some_effects(interaction=1.0)).verdict == "not supported"


@pytest.mark.parametrize("can", [(False, False, False), (True, False, False)])
def test_a_model_that_cannot_do_the_tasks_decides_nothing(can):
    found = judge(abilities=some_abilities(can))
    assert found.verdict == "not decided"
    assert "The model cannot do: " in found.evidence
    assert found.evidence.split("cannot do: ")[1].startswith("patterns" if can[0] else "addition")


def test_tasks_that_the_model_cannot_do_have_no_say():
    """First the one swap beyond its null is on such a task, then all of the interaction."""
    abilities = some_abilities((True, False, True))
    assert judge(effects=some_effects(draws=True)).verdict == "supported"
    found = judge(effects=some_effects(draws=True), abilities=abilities)
    assert found.verdict == "not supported"
    assert "The model cannot do: patterns" in found.evidence
    assert "on patterns" not in found.evidence  # its swap is not named as evidence
    clear = {"addition": a_swap(7.0), "patterns": a_swap(1.2), "prose": a_swap(7.0)}
    found = judge(swaps=clear, effects=some_effects(draws=True), abilities=abilities)
    assert "q = 0.005)" in found.evidence  # over two tasks, of which both are clear
    assert "Interaction of cluster and task: 9," in found.evidence  # four cells of 1.5 squared
    assert found.verdict == "supported"
    abilities = some_abilities((True, True, False))  # prose, where all of the interaction is
    found = judge(effects=some_effects(draws=True), abilities=abilities)
    assert found.verdict == "not supported"
    assert "Interaction of cluster and task: 0," in found.evidence
    with pytest.raises(InputError, match="kept draws"):
        judge(abilities=abilities)


def test_tasks_that_no_head_changes_decide_nothing():
    """An interaction over one task that heads change and one that they do not is none."""
    effects = replace(some_effects(draws=True), left_out=("addition",))
    found = judge(effects=effects, abilities=some_abilities((True, True, False)))
    assert found.verdict == "not decided"
    assert "hardly matter" in found.evidence


def test_a_single_task_decides_nothing():
    one = some_effects(tasks=("patterns",))
    found = judge(swaps={"patterns": a_swap(7.0)}, effects=one)
    assert found.verdict == "not decided"
    assert "single task" in found.evidence


def test_alpha_is_the_readers():
    assert judge(alpha=0.001).verdict != "supported"


def test_under_the_null_it_is_supported_less_often_than_alpha():
    """Swaps and interactions drawn from their own nulls; clusters granted."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(100):
        swaps = {name: a_swap(rng.uniform(1, 3)) for name in TASKS}
        found.append(judge(swaps=swaps, effects=some_effects(rng.uniform(0, 20))).verdict)
    assert found.count("supported") <= 2  # both tests at .05: 1 of 400


# --- tables and sentences -------------------------------------------------------------------


def test_the_studys_word_stands_next_to_the_nulls_verdict():
    table = tabulate_swaps(STRONG | {"tiny": a_swap(0.01)}).set_index("task")
    assert table["study_word"].to_dict() == {
        "addition": "strong",
        "patterns": "strong",
        "prose": "strong",
        "tiny": "minimal",
    }
    assert table["null_verdict"].to_dict() == {
        "addition": "not distinguishable",
        "patterns": "more than random sets",
        "prose": "not distinguishable",
        "tiny": "less than random sets",
    }
    assert table.loc["patterns", "p"] == pytest.approx(1 / 200)
    assert table.loc["patterns", "q"] == pytest.approx(4 / 200)
    assert table.loc["addition", "null_same_word"] == pytest.approx(198 / 199)  # one is 1 nat


def test_q_is_adjusted_over_tasks():
    """p = .03 in one of four tasks is what chance gives: a table of p alone would call it."""
    table = tabulate_swaps({"a": a_swap(2.96)} | {n: a_swap(2.0) for n in "bcd"}).set_index("task")
    assert table.loc["a", "p"] < 0.05 < table.loc["a", "q"]
    assert table.loc["a", "null_verdict"] == "not distinguishable"


def test_a_cluster_of_one_head_has_no_inside_in_table_and_words():
    table = tabulate_swaps({"a": a_swap(2.0, clusters=ONE, n_null=12, exact=True)})
    assert np.isnan(table.loc[0, "within_a"])
    assert table.loc[0, "within_b"] == pytest.approx(0.2)
    assert table.loc[0, "p_least"] == pytest.approx(1 / 12)
    assert "Inside" not in describe_swaps(table)[0]


def test_sentences_name_what_stands_out_and_what_does_not():
    said = describe_mechanism(tabulate_swaps(STRONG), some_effects())
    assert said[0].startswith("Cluster 1 (heads 0 1 2 3 4 5 of layer 2), ablated: on no task")
    assert "prose −5 nats, below random groups (−2, q = 0.01); on 2 other tasks no" in said[1]
    assert len(said) == 5
    assert "Inside the clusters: 0.2 and 0.2 nats" in said[2]


# --- layers ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def suite():
    return hs.open_suite("micro")


@pytest.fixture(scope="module")
def clusterings(suite):
    return cluster_layers(suite, step=6144, n_null=199)


def test_layers_are_clustered_as_in_the_first_half_of_the_study(suite, clusterings):
    frame = hs.ClusterMeasure(unit_norm=True, n_null=199, positions=False)(suite.checkpoint(6144))
    rows = frame[frame["metric"] == "silhouette"].set_index("layer")
    for layer, one in clusterings.items():
        assert one.silhouette == pytest.approx(rows.loc[layer, "value"])
        assert one.p_value == pytest.approx(rows.loc[layer, "p"])


def test_the_clearest_layer_stands_highest_above_its_null(clusterings):
    table = tabulate_layers(clusterings).set_index("layer")
    assert clearest_layer(clusterings) == (table["silhouette"] - table["null_mean"]).idxmax() == 2
    assert table.loc[2, "smaller"] == "1, 2, 4, 6, 9, 11"
    np.testing.assert_allclose(table["q"], hs.false_discovery_rate(table["p"].to_numpy()))
    assert table.loc[1, "null_verdict"] == "not distinguishable"


def test_without_a_null_no_layer_is_the_clearest(suite):
    bare = {2: hs.cluster_heads(suite.head_weights(6144, 2), null=None)}
    with pytest.raises(InputError, match="two clusters and a null"):
        clearest_layer(bare)


def test_weights_are_compared_by_heads_beside_the_tests_over_weights(suite, clusterings):
    weights, labels = suite.head_weights(6144, 2), clusterings[2].labels
    table = compare_weights(weights, labels, found_by="qk").set_index("weights")
    assert table["independent"].to_dict() == {"q": False, "k": False, "v": True, "o": True}
    values = weights.W_V.double().flatten(1).numpy()
    one, other = values[labels == 0].ravel(), values[labels == 1].ravel()
    ks = scipy_stats.ks_2samp(one, other, method="asymp")
    assert table.loc["v", "ks_distance"] == pytest.approx(ks.statistic, abs=1e-9)
    assert table.loc["v", "ks_p_over_weights"] == pytest.approx(ks.pvalue, rel=1e-6)
    assert table.loc["v", "ks_p_over_weights"] < 1e-9 < 2 / 924 <= table["ks_distance_p"].min()


def test_points_and_clusters_of_heads_make_a_projection(suite, clusterings):
    frame = project_clusters(suite.head_weights(6144, 2), clusterings[2])
    for method in ("pca", "tsne"):
        assert hs.plot_head_projection(frame, layer=2, method=method).data


# --- the embedded suite ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(suite):
    return suite.model(6144)


@pytest.fixture(scope="module")
def tasks(model):
    return tokenise_families(build_families(embedded=True, n=10, seed=1), model.tokenizer)


needs_model = pytest.mark.models


@needs_model
def test_families_are_the_studys_four(tasks):
    names = ["numerical comparison", "basic arithmetic", "language", "pattern completion"]
    assert list(tasks) == names == list(build_families(embedded=False, n=3))
    assert all(task.n_examples == 10 for task in tasks.values())


@needs_model
def test_a_family_that_the_tokenizer_breaks_is_left_out_and_named(model):
    plain = build_families(embedded=False, n=4)
    broken = {"numerical comparison": plain["numerical comparison"]}
    whole = {"language": hs.Task.from_pairs([("the cat", "the dog", " a", " b")])}
    with pytest.warns(UserWarning, match="Without numerical comparison: .*unequal length"):
        found = tokenise_families(broken | whole, model.tokenizer)
    assert list(found) == ["language"]
    with pytest.raises(InputError, match="unequal length"):
        tokenise_families(broken, model.tokenizer)


@needs_model
def test_prompts_end_where_answers_part_and_stand_once(tasks):
    for task in tasks.values():
        tokens, mask = prompts_of(task)
        assert len(tokens) == task.n_examples
        assert tokens.shape[1] == task.end + 1
        assert (mask is None) == bool(task.clean_mask.all())


@needs_model
def test_swaps_of_a_task_are_those_of_its_prompts(model, tasks, clusterings):
    name = "basic arithmetic"
    tokens, mask = prompts_of(tasks[name])
    options = {"how": "qk", "n_random": 9, "n_pairings": 2, "seed": 3}
    ours = swap_on_tasks(model, clusterings[2], {name: tasks[name]}, **options)[name]
    theirs = hs.swap_clusters(model, clusterings[2], tokens, attention_mask=mask, **options)
    np.testing.assert_allclose(ours.kl, theirs.kl)
    assert ours.n == tasks[name].n_examples


@needs_model
def test_a_trained_model_can_do_the_tasks_and_an_untrained_one_cannot(suite, model, tasks):
    able = measure_abilities(model, tasks).set_index("task")
    assert able["can"].sum() >= 3  # ten cloze pairs are few
    task = tasks["pattern completion"]
    with torch.no_grad():
        last = model(task.clean, attention_mask=task.clean_mask)[:, task.end].log_softmax(-1)
    c, w = (torch.tensor([answer[0] for answer in a]) for a in (task.correct, task.wrong))
    by_hand = last.gather(1, c[:, None]) - last.gather(1, w[:, None])
    assert able.loc["pattern completion", "log_prob_difference"] == pytest.approx(
        float(by_hand.mean()), rel=1e-4
    )
    unable = measure_abilities(suite.model(0), tasks)
    assert unable["can"].sum() < 2


@needs_model
def test_heads_ablated_alone_are_all_heads_of_the_model(model, tasks):
    name = "pattern completion"
    effects = ablate_on_tasks(model, {name: tasks[name]})[name]
    assert effects.effect.shape == (4, 12)
    assert np.isfinite(effects.effect).all()


def study(model, clusters, tasks, layers):
    swaps = tabulate_swaps(swap_on_tasks(model, clusters, tasks, n_random=79, n_pairings=2))
    effects = cluster_effects(model, clusters, tasks, n_random=99)
    return judge_specialisation(layers, swaps, effects, measure_abilities(model, tasks))


@needs_model
def test_layer_two_is_specialised_and_even_against_odd_heads_are_not(model, tasks, clusterings):
    """The induction heads of the embedded suite, and a split that means nothing there."""
    some = {name: tasks[name] for name in ("basic arithmetic", "pattern completion")}
    layers = tabulate_layers(clusterings)
    assert study(model, clusterings[2], some, layers).verdict == "supported"
    parity = [[Head(2, h) for h in range(start, 12, 2)] for start in (0, 1)]
    assert study(model, parity, some, layers).verdict == "not supported"


def test_it_closes_the_open_verdict_of_the_first_half():
    layers = pd.DataFrame(
        {"layer": [2], "first_step": 1, "lasting_step": 1, "first_share": 0.5, "lasting_share": 0.5}
    )
    changes = pd.DataFrame(
        {"layer": [2], "kind": "gradual", "jump_size": 0.0, "jump_after": 1, "jump_before": 0}
    )
    assert judge_hypotheses(layers, changes)[2].verdict == "not decided"
    found = judge()
    closed = judge_hypotheses(layers, changes, specialisation=found)
    assert closed[2] is found
    assert closed[2].hypothesis == judge_hypotheses(layers, changes)[2].hypothesis
