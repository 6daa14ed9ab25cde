"""The batched solver against scikit-learn's optimum, closed forms and its own optimality."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from sklearn.linear_model import LogisticRegression

from headspec.activations import probe_solver
from headspec.activations.probe_solver import Eigenbasis, eigenbasis, solve_logistic


def features(kind, n, d, n_classes, seed=0):
    """Standardised features: independent, or as in language models badly conditioned."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(n_classes, (n,), generator=generator)
    x = torch.randn(n, d, generator=generator)
    means = 0.3 * torch.randn(n_classes, d, generator=generator)
    if kind == "ill":
        scales = torch.logspace(0, -3, d)
        mix = torch.linalg.qr(torch.randn(d, d, generator=generator))[0]
        x, means = (x * scales) @ mix, (means * scales) @ mix
    x = x + means[labels]
    return ((x - x.mean(0)) / x.std(0, correction=0)).contiguous(), labels


def objective(x, labels, weights, biases, l2):
    logits = x.double() @ torch.as_tensor(weights).double() + torch.as_tensor(biases).double()
    loss = torch.nn.functional.cross_entropy(logits, labels)
    return float(loss + 0.5 * l2 * torch.as_tensor(weights).double().square().sum())


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("kind", ["isotropic", "ill"])
def test_the_optimum_is_scikit_learns(kind, n_classes):
    n, grid = 1500, (1e-4, 1e-2, 1.0)
    x, labels = features(kind, n, 40, n_classes)
    weights, biases = solve_logistic(x, labels[None], grid, n_classes=n_classes)
    fine, _ = solve_logistic(x, labels[None], grid, n_classes=n_classes, tolerance=1e-8)
    for at, l2 in enumerate(grid):
        C = (2 if n_classes == 2 else 1) / (l2 * n)
        peer = LogisticRegression(C=C, tol=1e-8, max_iter=20_000)
        peer.fit(x.double().numpy(), labels.numpy())
        W, b = peer.coef_.T, peer.intercept_
        if n_classes == 2:  # its one vector is the difference of our two
            W, b = np.hstack([-W / 2, W / 2]), np.array([-b[0] / 2, b[0] / 2])
        ours = objective(x, labels, weights[0, at], biases[0, at], l2)
        best = objective(x, labels, W, b, l2)
        assert abs(ours - best) < 1e-5  # ours stops at 1e-6
        if l2 >= 1e-2:
            np.testing.assert_allclose(fine[0, at].numpy(), W, atol=4e-3)


def test_at_its_default_tolerance_scikit_learn_stops_short_on_ill_conditioned_features():
    x, labels = features("ill", 2000, 120, 5)
    l2 = 1e-5
    weights, biases = solve_logistic(x, labels[None], [l2], n_classes=5)
    peer = LogisticRegression(C=1 / (l2 * len(x)), max_iter=100).set_params(tol=1e-4)
    with pytest.warns(Warning, match="failed to converge"):
        peer.fit(x.numpy(), labels.numpy())
    ours = objective(x, labels, weights[0, 0], biases[0, 0], l2)
    assert objective(x, labels, peer.coef_.T, peer.intercept_, l2) > ours + 1e-3


def test_without_the_whitening_the_same_passes_do_not_reach_the_optimum():
    x, labels = features("ill", 2000, 120, 5)
    plain = Eigenbasis(torch.eye(120), torch.ones(120))
    found = []
    for basis in (eigenbasis(x, exact=False), plain):
        W, b = solve_logistic(x, labels[None], [1e-5], n_classes=5, basis=basis, max_iterations=30)
        found.append(objective(x, labels, W[0, 0], b[0, 0], 1e-5))
    assert found[1] > found[0] + 1e-2


def test_two_points_have_the_closed_form():
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    l2 = 0.05
    weights, biases = solve_logistic(x, torch.tensor([[1, 0]]), [l2], n_classes=2, tolerance=1e-14)
    # mean loss ln(1 + exp(-2w)) + l2 w^2 with weights (-w, w)
    w = brentq(lambda w: l2 * w - 1 / (1 + np.exp(2 * w)), 0, 50)
    np.testing.assert_allclose(weights[0, 0].numpy(), [[-w, w]], atol=1e-6)
    np.testing.assert_allclose(biases.numpy(), 0, atol=1e-7)


@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(12, 200),
    d=st.integers(1, 40),
    n_classes=st.integers(2, 5),
    l2=st.sampled_from([1e-4, 1e-2, 1.0]),
    seed=st.integers(0, 1000),
)
def test_the_gradient_vanishes_and_weights_sum_to_zero(n, d, n_classes, l2, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    labels = torch.cat(  # every class occurs
        [torch.arange(n_classes), torch.randint(n_classes, (n - n_classes,), generator=generator)]
    )
    W, b = solve_logistic(x, labels[None], [l2], n_classes=n_classes, tolerance=1e-13)
    p = (x @ W[0, 0] + b[0, 0]).softmax(-1) - torch.nn.functional.one_hot(labels, n_classes)
    gradient = x.T @ p / n + l2 * W[0, 0]
    assert gradient.abs().max() < 1e-5
    assert p.mean(0).abs().max() < 1e-5
    assert W.sum(-1).abs().max() < 1e-9
    assert b.sum(-1).abs().max() < 1e-9


def test_problems_solved_together_are_those_solved_alone(monkeypatch):
    x, labels = features("ill", 800, 30, 3)
    other = labels[torch.randperm(800, generator=torch.Generator().manual_seed(1))]
    sets, grid = torch.stack([labels, other]), (1e-4, 1e-1)
    W, b = solve_logistic(x, sets, grid, n_classes=3)
    monkeypatch.setattr("headspec.activations.probe_solver._NUMBERS", 800 * 3)  # one at a time
    W_alone, b_alone = solve_logistic(x, sets, grid, n_classes=3)
    for s, target in enumerate(sets):
        for at, l2 in enumerate(grid):
            together = objective(x, target, W[s, at], b[s, at], l2)
            assert together == pytest.approx(
                objective(x, target, W_alone[s, at], b_alone[s, at], l2), abs=1e-5
            )


def test_separable_classes_and_more_features_than_samples_stay_finite():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 200, generator=generator)
    x[:, 3] = 2.0  # constant
    labels = torch.arange(60) % 3
    W, b = solve_logistic(x, labels[None], [1e-6, 1e-3], n_classes=3)
    assert W.isfinite().all()
    assert (x @ W[0, 0] + b[0, 0]).argmax(-1).equal(labels)


def test_a_class_that_does_not_occur_is_never_predicted():
    x, labels = features("isotropic", 300, 5, 2)
    W, b = solve_logistic(x, labels[None], [1e-3], n_classes=3)
    assert W.isfinite().all()
    assert b.isfinite().all()
    assert int((x @ W[0, 0] + b[0, 0]).argmax(-1).max()) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is at hand")
def test_the_same_on_a_gpu():
    x, labels = features("ill", 1000, 50, 4)
    here = solve_logistic(x, labels[None], [1e-3], n_classes=4)
    there = solve_logistic(x.cuda(), labels[None].cuda(), [1e-3], n_classes=4)
    assert there[0].is_cuda
    a, b = (objective(x, labels, W[0, 0].cpu(), c[0, 0].cpu(), 1e-3) for W, c in (here, there))
    assert a == pytest.approx(b, abs=1e-5)


def test_heavy_tails_are_solved_by_weighing_samples_anew(monkeypatch):
    """A head that rarely attends: nearly constant, and far out now and then."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (3000,), generator=generator)
    means = torch.randn(4, 10, generator=generator)
    rare = torch.rand(3000, 1, generator=generator) < 0.03
    x = means[labels] * (0.01 + 3 * rare) + 0.02 * torch.randn(3000, 10, generator=generator)
    x = (x - x.mean(0)) / x.std(0)
    passes = []
    gradient = probe_solver._Problems.gradient

    def counted(problems, *arguments):
        passes.append(1)
        return gradient(problems, *arguments)

    monkeypatch.setattr(probe_solver._Problems, "gradient", counted)
    found = []
    for reweigh in (True, False):
        if not reweigh:
            monkeypatch.setattr(probe_solver._Problems, "reweighted", lambda self, _: self)
        W, b = solve_logistic(x, labels[None], [1e-6], n_classes=4, max_iterations=1000)
        found.append((len(passes), objective(x, labels, W[0, 0], b[0, 0], 1e-6)))
        passes.clear()
    peer = LogisticRegression(C=1 / (1e-6 * 3000), tol=1e-9, max_iter=50_000)
    peer.fit(x.double().numpy(), labels.numpy())
    best = objective(x, labels, peer.coef_.T, peer.intercept_, 1e-6)
    assert found[0][1] < best + 1e-5
    assert found[0][0] < 0.6 * found[1][0]
