"""Scores against scikit-learn and SciPy; intervals and baselines calibrated on null data."""

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats
from sklearn.metrics import balanced_accuracy_score, log_loss

from headspec.activations.probe_scores import GroupResamples, calibration_score, score_probe
from headspec.activations.probes import fit_probes


def random_predictions(n, n_classes, seed):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(n_classes), n), rng.integers(0, n_classes, n)


def test_values_are_scikit_learns():
    probabilities, codes = random_predictions(400, 4, 0)
    resamples = GroupResamples(np.arange(400) // 10, n_resamples=200, level=0.9, seed=0)
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    control = (codes, np.roll(codes, 1), shares)
    scores = score_probe(probabilities, codes, shares=shares, resamples=resamples, control=control)
    predicted = probabilities.argmax(1)
    accuracy = (predicted == codes).mean()
    assert scores["accuracy"].value == accuracy
    assert scores["balanced_accuracy"].value == pytest.approx(
        balanced_accuracy_score(codes, predicted)
    )
    assert scores["log_loss"].value == pytest.approx(log_loss(codes, probabilities))
    control_accuracy = (codes == np.roll(codes, 1)).mean()
    assert scores["control_accuracy"].value == control_accuracy
    assert scores["selectivity"].value == pytest.approx(accuracy - control_accuracy)
    assert scores["accuracy"].null_mean == (codes == 0).mean()
    assert scores["balanced_accuracy"].null_mean == 0.25
    assert scores["log_loss"].null_mean == pytest.approx(-np.log(shares[codes]).mean())
    for one in scores.values():
        assert np.isnan(one.low) or one.low <= one.value <= one.high


def test_calibration_error_by_hand():
    # confidences .6, .6, .9, .9 in two bins; one of two right, then both
    probabilities = np.array([[0.6, 0.4], [0.6, 0.4], [0.1, 0.9], [0.1, 0.9]])
    found = calibration_score(probabilities, np.array([0, 1, 1, 1]), n_bins=10)
    assert found.value == pytest.approx((abs(1 - 1.2) + abs(2 - 1.8)) / 4)
    variances = np.array([2 * 0.6 * 0.4, 2 * 0.9 * 0.1])
    assert found.null_mean == pytest.approx(np.sqrt(2 * variances / np.pi).sum() / 4)


def test_the_calibration_null_is_that_of_calibrated_predictions():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([1, 2, 3], 600)
    errors = []
    for _ in range(300):
        codes = (rng.random(600)[:, None] > probabilities.cumsum(1)).sum(1)
        errors.append(calibration_score(probabilities, codes).value)
    null = calibration_score(probabilities, codes)
    assert np.mean(errors) == pytest.approx(null.null_mean, rel=0.06)
    assert np.std(errors) == pytest.approx(null.null_sd, rel=0.15)
    assert null.null_mean > 0.02  # a calibrated probe does not reach 0


def test_the_interval_is_scipys_percentile_interval_at_the_corrected_level():
    rng = np.random.default_rng(0)
    groups, values = np.arange(30), rng.random(30)
    resamples = GroupResamples(groups, n_resamples=20_000, level=0.9, seed=0)
    found = resamples.interval(resamples.sums(values[:, None])[:, 0] / 30)
    t = scipy_stats.t.ppf(0.95, 29) * np.sqrt(30 / 29)
    peer = scipy_stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=1 - 2 * scipy_stats.norm.cdf(-t),
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    np.testing.assert_allclose(found, peer, atol=4e-3)


@pytest.mark.parametrize("n_groups", [8, 25])
def test_intervals_of_groups_cover_and_those_of_tokens_do_not(n_groups):
    """Predictions right or wrong by group, as labels constant over a sequence make them."""
    rng = np.random.default_rng(0)
    size, covered = 20, {"group": [], "token": []}
    for draw in range(400):
        skill = np.repeat(rng.beta(4, 4, n_groups), size)  # mean .5, tokens of a group alike
        correct = (rng.random(n_groups * size) < skill).astype(float)
        member = {"group": np.arange(n_groups * size) // size, "token": np.arange(len(correct))}
        for unit, groups in member.items():
            resamples = GroupResamples(groups, n_resamples=300, level=0.9, seed=draw)
            low, high = resamples.interval(resamples.sums(correct[:, None])[:, 0] / len(correct))
            covered[unit].append(low <= 0.5 <= high)
    assert 0.86 < np.mean(covered["group"]) < 0.94
    assert np.mean(covered["token"]) < 0.72


def test_on_activations_independent_of_labels_intervals_cover_chance():
    """Whole probes: two classes, constant in half of the groups; activations share a sequence."""
    covered, gaps = [], []
    for seed in range(120):
        generator = torch.Generator().manual_seed(seed)
        groups = torch.arange(60 * 8) // 8
        labels = torch.randint(2, (60,), generator=generator)[groups]
        mixed = torch.randint(2, (480,), generator=generator)
        labels = torch.where(groups % 2 == 0, labels, mixed)
        x = torch.randn(480, 6, generator=generator)
        x += torch.randn(60, 6, generator=generator)[groups]
        probes = fit_probes(
            x, labels, groups=groups, l2=(1e-2,), fractions=(0.4, 0.1, 0.5), level=0.9,
            n_bootstrap=300, seed=seed,
        )  # fmt: skip
        covered.append(probes.low["accuracy"] <= 0.5 <= probes.high["accuracy"])
        gaps.append(probes.selectivity)
    assert 0.83 < np.mean(covered) < 0.96  # binomial spread of 120 draws around .9
    assert abs(np.mean(gaps)) < 3 * np.std(gaps) / np.sqrt(len(gaps))
