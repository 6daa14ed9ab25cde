"""Sums over sequences and their errors: equal to plain means, calibrated on attention by chance."""

import numpy as np
import scipy.stats
import torch
from topic_labels import random_pattern, segment_labels

import headspec as hs
from headspec.activations.attention_blocks import AttendedQueries, read_pattern
from headspec.activations.attention_estimates import jackknife, mean_of
from headspec.activations.attention_totals import AttentionTotals

N_POS = 64


def totals_of(pattern, labels, *, counted=None, n_exchanged=0, seed=0, size=None):
    """Totals of one layer of given patterns, a few sequences at a time."""
    n = len(pattern)
    counted = torch.ones(pattern.shape[::3], dtype=torch.bool) if counted is None else counted
    totals = AttentionTotals(
        counted,
        labels,
        n_layers=1,
        n_heads=pattern.shape[1],
        n_exchanged=n_exchanged,
        causal=True,
        seed=seed,
    )
    for start in range(0, n, size or n):
        rows = slice(start, start + (size or n))
        totals.add(0, rows, read_pattern(pattern[rows], topics=totals.columns(rows)))
    return totals


def test_means_are_those_of_the_pattern_functions():
    labels = segment_labels(7, n_pos=N_POS, seed=1)
    labels[:, :3] = -1
    pattern = random_pattern(7, 2, N_POS, N_POS)
    for size in (7, 2):
        totals = totals_of(pattern, labels, n_exchanged=2, size=size)
        found = totals.estimates(0.95)
        within = hs.within_topic_mass(pattern, labels).transpose(1, 2)[labels >= 0].mean(0)
        for name, expected in {
            "entropy": hs.attention_entropy(pattern).mean((0, 2)),
            "distance": hs.attention_distance(pattern).mean((0, 2)),
            "sink_mass": hs.sink_mass(pattern).mean((0, 2)),
            "within_topic_mass": within,
            "topic_ratio": hs.topic_ratio(pattern, labels),
            "topic_specialisation": hs.topic_specialisation(pattern, labels),
        }.items():
            np.testing.assert_allclose(found[name].value[0], expected, atol=1e-9, err_msg=name)
        by_query = totals.query_means()["within_topic_mass"][0]
        expected = hs.within_topic_mass(pattern, labels)[..., 3:].mean(0)
        np.testing.assert_allclose(by_query[:, 3:], expected)
        assert np.isnan(by_query[:, :3]).all()
        by_topic = totals.topic_means()
        chosen = hs.attention_entropy(pattern).transpose(1, 2)[labels == 1].mean(0)
        np.testing.assert_allclose(by_topic["entropy"][0, :, 1], chosen)


def test_exchanges_read_each_sequence_with_every_others_labels_once():
    labels = segment_labels(5, n_pos=N_POS, seed=1)
    pattern = random_pattern(5, 2, N_POS, N_POS)
    totals = totals_of(pattern, labels, n_exchanged=99)
    draws = totals.exchanged()["within_topic_mass"]
    assert len(draws) == 4  # as many as there are others
    seen = torch.stack(totals.donors)
    for i in range(5):
        assert set(seen[:, i].tolist()) == set(range(5)) - {i}
    expected = np.stack(
        [hs.within_topic_mass(pattern, labels[donors]).mean((0, 2)) for donors in totals.donors]
    )
    np.testing.assert_allclose(draws[:, 0], expected, atol=1e-9)
    found = totals.estimates(0.95)
    np.testing.assert_allclose(
        found["topic_excess"].value, found["within_topic_mass"].value - draws.mean(0), atol=1e-9
    )
    ratio = hs.topic_ratio(pattern, labels[totals.donors[2]])
    np.testing.assert_allclose(totals.exchanged()["topic_ratio"][2, 0], ratio, atol=1e-9)


def test_one_sequence_has_no_error_and_no_exchange():
    labels = segment_labels(1, n_pos=N_POS, seed=1)
    totals = totals_of(random_pattern(1, 2, N_POS, N_POS), labels, n_exchanged=3)
    found = totals.estimates(0.95)
    assert "topic_excess" not in found
    assert totals.exchanged() == {}
    assert np.isnan(found["entropy"].se).all()
    assert np.isfinite(found["topic_ratio"].value).all()


def test_jackknife_of_a_mean_is_the_standard_error():
    rng = np.random.default_rng(0)
    parts = {"x": rng.normal(size=(9, 2, 3)), "queries": np.ones((9, 1, 1))}
    found = jackknife(mean_of("x"), parts, level=0.9)
    np.testing.assert_allclose(found.se, scipy.stats.sem(parts["x"], axis=0))
    expected = scipy.stats.t.interval(0.9, 8, parts["x"].mean(0), found.se)
    np.testing.assert_allclose([found.low, found.high], expected)


def by_chance(labels, rng, *, n_heads=1, strength=0.0):
    """Attention that differs between sequences, in reach and in detail, and knows no topics."""
    n, n_pos = labels.shape
    at = torch.arange(n_pos)
    behind = at[:, None] - at
    reach = torch.from_numpy(rng.integers(2, 40, (n, n_heads, 1, 1)))
    weights = torch.from_numpy(rng.gamma(0.3, size=(n, n_heads, n_pos, n_pos)))
    weights = weights * (behind >= 0) * (behind < reach) + 1e-9 * torch.eye(n_pos)
    weights = weights * (1 + strength * (labels[:, None, :, None] == labels[:, None, None]))
    return weights / weights.sum(-1, keepdim=True)


def test_the_excess_and_its_p_are_calibrated_and_the_window_is_not_topics():
    """Local heads have a within-topic mass far above uniform, and an excess of nothing."""
    rng = np.random.default_rng(0)
    covered, p_values, standard, apart = [], [], [], 0
    for repeat in range(20):
        labels = segment_labels(20, n_pos=N_POS, seed=repeat)
        pattern = by_chance(labels, rng, n_heads=10)
        totals = totals_of(pattern, labels, n_exchanged=19, seed=repeat)
        found = totals.estimates(0.95)
        excess = found["topic_excess"]
        covered += ((excess.low <= 0) & (excess.high >= 0))[0].tolist()
        standard += (excess.value / excess.se)[0].tolist()
        draws = totals.exchanged()["within_topic_mass"]
        p_values += ((1 + (draws >= found["within_topic_mass"].value).sum(0)) / 20)[0].tolist()
        baseline = hs.attention_baselines(labels).uniform["within_topic_mass"]
        apart += int((found["within_topic_mass"].low > baseline).sum())
    assert apart > 160  # of 200: "within-topic attention", by position alone
    assert 0.89 <= np.mean(covered) <= 0.99
    assert 0.8 < np.std(standard) < 1.15
    assert np.mean(np.array(p_values) <= 0.05) <= 0.1
    assert scipy.stats.kstest(p_values, "uniform").statistic < 0.17


def test_a_preference_for_topics_is_found():
    rng = np.random.default_rng(0)
    labels = segment_labels(20, n_pos=N_POS, seed=5)
    totals = totals_of(by_chance(labels, rng, strength=8.0), labels, n_exchanged=19)
    excess = totals.estimates(0.95)["topic_excess"]
    assert excess.low[0, 0] > 0.02
    draws = totals.exchanged()["within_topic_mass"]
    assert (draws < totals.estimates(0.95)["within_topic_mass"].value).all()


def test_intervals_of_within_mass_and_ratio_cover_the_truth():
    rng = np.random.default_rng(3)

    def figures(labels):
        totals = totals_of(by_chance(labels, rng), labels)
        return totals.estimates(0.95)

    many = figures(segment_labels(1500, n_pos=N_POS, seed=10**6))
    hits = {"within_topic_mass": 0, "topic_ratio": 0}
    for repeat in range(150):
        found = figures(segment_labels(24, n_pos=N_POS, seed=repeat))
        for name in hits:
            truth = many[name].value[0, 0]
            hits[name] += bool(found[name].low[0, 0] <= truth <= found[name].high[0, 0])
    assert 0.88 <= hits["within_topic_mass"] / 150 <= 0.99
    assert 0.88 <= hits["topic_ratio"] / 150 <= 0.99


def test_padding_is_left_out_whatever_stands_there():
    labels = segment_labels(3, n_pos=N_POS, seed=1)
    counted = torch.arange(N_POS)[None] < torch.tensor([64, 40, 20])[:, None]
    pattern = random_pattern(3, 2, N_POS, N_POS)
    expected = totals_of(pattern, labels, counted=counted, n_exchanged=2).estimates(0.95)
    junk = pattern.clone()
    junk[1, :, 40:] = torch.eye(N_POS, dtype=junk.dtype)[40:]
    found = totals_of(junk, labels, counted=counted, n_exchanged=2).estimates(0.95)
    for name in expected:
        np.testing.assert_allclose(found[name].value, expected[name].value, err_msg=name)
        np.testing.assert_allclose(found[name].se, expected[name].se, err_msg=name)
    lengths = [64, 40, 20]
    alone = sum(hs.attention_entropy(pattern)[i, :, :n].sum(-1) for i, n in enumerate(lengths))
    np.testing.assert_allclose(expected["entropy"].value[0], alone / 124)


def test_figures_without_topics():
    totals = totals_of(random_pattern(4, 2, 8, 8), None, n_exchanged=3)
    assert totals.columns(slice(0, 4)) is None
    assert list(totals.estimates(0.95)) == ["entropy", "distance", "sink_mass"]
    assert totals.topic_means() == {}
    assert isinstance(read_pattern(random_pattern(1, 2, 8, 8)), AttendedQueries)
