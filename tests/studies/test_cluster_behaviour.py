"""Clusters against scores they have not seen: exact p by hand, calibration, a control."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from headspec.errors import InputError
from headspec.studies.cluster_behaviour import describe_behaviour, relate_clusters


def frames(labels, scores, step=10):
    heads = range(len(labels))
    clusters = pd.DataFrame(
        {"step": step, "layer": 2, "head": heads, "metric": "cluster", "value": labels}
    )
    values = {"step": step, "layer": 2, "head": heads, "metric": "induction", "value": scores}
    return clusters, pd.DataFrame(values)


def test_means_share_of_variance_and_exact_p_by_hand():
    labels, scores = [0, 0, 1, 1], [0.0, 1.0, 4.0, 5.0]
    row = relate_clusters(*frames(labels, scores)).iloc[0]
    assert (row["mean_0"], row["mean_1"]) == (0.5, 4.5)
    assert row["eta2"] == pytest.approx(16 / 17)  # total 17, between 4 * 2 ** 2
    extreme = 0
    for chosen in itertools.combinations(range(4), 2):
        a = [scores[i] for i in chosen]
        b = [scores[i] for i in range(4) if i not in chosen]
        extreme += 2 * (np.mean(a) - 2.5) ** 2 + 2 * (np.mean(b) - 2.5) ** 2 >= 16 - 1e-9
    assert row["p"] == pytest.approx(extreme / 6)


def test_a_cluster_of_one_head_is_a_cluster():
    scores = np.r_[np.random.default_rng(0).normal(size=11), 9.0]
    row = relate_clusters(*frames([0] * 11 + [1], scores)).iloc[0]
    assert row["p"] == pytest.approx(1 / 12, abs=0.015)  # the one of twelve that stands apart
    assert row["mean_1"] == 9.0


def test_shuffled_labels_reject_at_the_stated_rate():
    rng, rejected, trials = np.random.default_rng(0), 0, 300
    for _ in range(trials):
        labels = rng.permutation([0] * 5 + [1] * 7)
        rejected += relate_clusters(*frames(labels, rng.normal(size=12)))["p"].iloc[0] <= 0.05
    assert rejected <= binom.ppf(0.999, trials, 0.05)
    assert rejected >= binom.ppf(0.001, trials, 0.05)


def test_sentences_name_what_differs_and_say_when_nothing_does():
    labels = [0] * 6 + [1] * 6
    apart = relate_clusters(*frames(labels, np.r_[np.zeros(6), np.ones(6)] + np.arange(12) * 0.01))
    assert "Layer 2: its clusters differ in induction attention" in describe_behaviour(apart)[0]
    alike = relate_clusters(*frames(labels, np.tile([0.0, 1.0], 6)))
    assert describe_behaviour(alike)[0].startswith("In no layer do clusters differ clearly in ind")


def test_clusters_too_small_to_tell_are_named():
    table = relate_clusters(*frames([0, 0, 1, 1], [0.0, 0.1, 5.0, 5.1]))
    assert table["p_least"].iloc[0] == pytest.approx(2 / 6)
    assert table["p"].iloc[0] == pytest.approx(2 / 6)  # perfectly apart, and yet
    assert "too small to be compared" in describe_behaviour(table)[1]


def test_noise_of_dbscan_is_no_cluster():
    scores = [9.0, 9.0, 0.0, 0.1, 0.2, 5.0, 5.1, 5.2]
    table = relate_clusters(*frames([-1, -1, 0, 0, 0, 1, 1, 1], scores))
    assert table["mean_0"].iloc[0] == pytest.approx(0.1)
    assert table["eta2"].iloc[0] > 0.99


def test_key_value_heads_are_not_taken_for_query_heads():
    clusters, scores = frames([0, 0, 1, 1], [0.0, 1.0, 4.0, 5.0])
    with pytest.raises(InputError, match="same heads"):
        relate_clusters(clusters[clusters["head"] < 2], scores)


def test_scores_of_other_steps_are_refused():
    clusters, scores = frames([0, 0, 1, 1], [0.0, 1.0, 4.0, 5.0])
    with pytest.raises(InputError, match="steps of the sweep"):
        relate_clusters(clusters, scores.assign(step=9))
