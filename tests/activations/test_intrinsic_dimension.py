"""Two nearest neighbours: manifolds of known dimension, scikit-learn, and coverage."""

import doctest

import jaxtyping
import numpy as np
import pytest
import torch
from scipy.spatial import KDTree
from sklearn.datasets import make_swiss_roll
from sklearn.neighbors import NearestNeighbors

from headspec import InputError, results, two_nn_dimension
from headspec.activations import intrinsic_dimension


def gaussian(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def sphere(n, d):
    points = gaussian(n, d + 1)
    return points / points.norm(dim=1, keepdim=True)


def torus(n, d, seed=0):
    """Uniform without edges: d circles."""
    angles = 2 * np.pi * np.random.default_rng(seed).random((n, d))
    return torch.from_numpy(np.concatenate([np.cos(angles), np.sin(angles)], axis=1))


MANIFOLDS = {
    "line": (gaussian(1500, 1) @ gaussian(1, 20, seed=1), 1),
    "plane": (gaussian(1500, 2) @ gaussian(2, 20, seed=1), 2),
    "gaussian": (gaussian(1500, 4), 4),
    "sphere": (sphere(1500, 2), 2),
    "swiss roll": (torch.from_numpy(make_swiss_roll(1500, random_state=0)[0]), 2),
    "torus": (torus(1500, 3), 3),
}


@pytest.mark.parametrize("estimator", ["mle", "fit"])
@pytest.mark.parametrize("name", MANIFOLDS)
def test_manifolds_of_known_dimension(name, estimator):
    points, dimension = MANIFOLDS[name]
    found = two_nn_dimension(points, estimator=estimator)
    assert found.dimension == pytest.approx(dimension, rel=0.1)
    assert found.low < found.dimension < found.high
    assert found.low < dimension * 1.02
    assert found.high > dimension * 0.98
    assert (found.n, found.n_duplicates, found.estimator) == (1500, 0, estimator)


def test_it_is_no_linear_dimension():
    circle = torus(500, 1)
    linear = np.linalg.matrix_rank(circle.numpy())
    assert linear == 2
    assert two_nn_dimension(circle).dimension == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("n_features", [3, 60])
def test_scikit_learn_finds_the_same_neighbours(n_features, monkeypatch):
    points = gaussian(400, n_features) + 50
    monkeypatch.setattr(intrinsic_dimension, "_BLOCK", 400 * 90)
    found = intrinsic_dimension._two_distances(points)
    right, _ = NearestNeighbors(n_neighbors=3).fit(points.numpy()).kneighbors(points.numpy())
    np.testing.assert_allclose(found, right[:, 1:], rtol=1e-10)


def test_close_neighbours_far_from_the_mean_keep_their_distance():
    """|x|^2 + |y|^2 - 2 x.y alone would cancel: here it is all rounding."""
    base = 1e5 * gaussian(100, 5)
    points = torch.cat([base, base + 1e-6 * gaussian(100, 5, seed=1)])
    near = intrinsic_dimension._two_distances(points)[:, 0]
    tree = KDTree(points.numpy()).query(points.numpy(), k=2)[0][:, 1]
    np.testing.assert_allclose(near, tree, rtol=1e-12)
    gram = points.square().sum(1)[:, None] + points.square().sum(1) - 2 * points @ points.T
    gram.fill_diagonal_(torch.inf)
    naive = gram.amin(1).clamp(min=0).sqrt().numpy()
    assert np.abs(naive / tree - 1).max() > 0.5  # negative control


def test_estimates_by_hand():
    ratios = np.log(np.array([1.1, 1.2, 1.5, 2.0, 4.0]))
    dimension, *_ = intrinsic_dimension._estimate(ratios, "mle", 0.0, 0.95)
    assert dimension == pytest.approx(4 / ratios.sum())
    dimension, *_ = intrinsic_dimension._estimate(ratios, "mle", 0.4, 0.95)
    assert dimension == pytest.approx(2 / (ratios[:3].sum() + 2 * ratios[2]))
    dimension, *_ = intrinsic_dimension._estimate(ratios, "fit", 0.2, 0.95)
    y = -np.log(1 - np.array([1, 2, 3, 4]) / 5)
    slope = np.linalg.lstsq(y[:, None], ratios[:4], rcond=None)[0][0]
    assert dimension == pytest.approx(1 / slope)


@pytest.mark.parametrize("estimator", ["mle", "fit"])
@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_the_interval_covers(estimator, dimension, monkeypatch):
    """Uniform points without edges; without the widening for shared distances it does not."""

    def coverage():
        rng, hits = np.random.default_rng(0), []
        for _ in range(200):
            points = rng.random((300, dimension))
            near = KDTree(points, boxsize=1).query(points, k=3)[0]
            ratios = np.sort(np.log(near[:, 2] / near[:, 1]))
            _, low, high = intrinsic_dimension._estimate(ratios, estimator, 0.1, 0.95)
            hits.append(low <= dimension <= high)
        return np.mean(hits)

    assert coverage() >= 0.92  # .95 less two standard errors of 200
    monkeypatch.setattr(intrinsic_dimension, "_SHARED", 1.0)
    assert coverage() < 0.93


def test_duplicates_are_counted_once():
    points = gaussian(300, 3)
    before = two_nn_dimension(points)
    after = two_nn_dimension(torch.cat([points, points[:40]]))
    assert after.n_duplicates == 40
    assert after.dimension == pytest.approx(before.dimension, rel=1e-12)
    assert "40 duplicates left out" in after.summary()


def test_scale_shift_and_rotation_change_nothing():
    points = gaussian(200, 4)
    turn = torch.linalg.qr(gaussian(4, 4, seed=1))[0]
    before, after = two_nn_dimension(points), two_nn_dimension(3 * points @ turn + 7)
    assert after.dimension == pytest.approx(before.dimension, rel=1e-9)
    assert after.scale == pytest.approx(3 * before.scale, rel=1e-9)


def test_noise_counts_at_the_scale_of_neighbours():
    """The number is one of a scale: more samples come to see the noise."""
    places = torch.from_numpy(np.random.default_rng(0).random((4000, 1)))
    noisy = places + 1e-3 * gaussian(4000, 5)
    few, many = two_nn_dimension(noisy[::40]), two_nn_dimension(noisy)
    assert few.scale > 5 * many.scale
    assert few.dimension < 2
    assert many.dimension > 4


def test_frames_and_files(tmp_path):
    found = two_nn_dimension(gaussian(100, 2), level=0.9)
    frame = found.to_frame(model="mlp", step=5, layer=2)
    assert frame.loc[0, ["model", "step", "layer", "metric", "n"]].tolist() == [
        "mlp",
        5,
        2,
        "two_nn",
        100,
    ]
    assert frame.loc[0, "value"] == found.dimension
    assert results.load(results.save(found, tmp_path / "found.json")) == found
    assert "90% interval" in found.summary()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_points(dtype):
    found = two_nn_dimension(gaussian(500, 3).to(dtype))
    right = two_nn_dimension(gaussian(500, 3).to(dtype).double())
    assert found == right


@pytest.mark.parametrize("power", [-1030, -600, 600, 1010])
def test_squares_of_distances_neither_overflow_nor_vanish(power):
    points = gaussian(50, 3)
    before, after = two_nn_dimension(points), two_nn_dimension(points * 2.0**power)
    assert after.dimension == pytest.approx(before.dimension, rel=1e-6)
    assert after.scale == pytest.approx(before.scale * 2.0**power, rel=1e-6)


def test_messages_say_what_is_wrong(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InputError, match="2 distinct points out of 6"):
        two_nn_dimension(torch.eye(2).repeat(3, 1))
    grid = torch.arange(6.0)
    with pytest.raises(InputError, match="lattice"):
        two_nn_dimension(torch.cartesian_prod(grid, grid))
    points = gaussian(10, 3)
    points[2, 1] = torch.inf
    with pytest.raises(InputError, match="1 of 30 entries NaN or infinite"):
        two_nn_dimension(points)
    with pytest.raises(InputError, match=r"points \[sample feature\]; got shape \[10, 4, 3\]"):
        two_nn_dimension(gaussian(10, 4, 3))
    with pytest.raises(InputError, match=r"discard from 0 to 0\.5"):
        two_nn_dimension(gaussian(10, 3), discard=0.9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same():
    points = gaussian(500, 6)
    here, there = two_nn_dimension(points), two_nn_dimension(points.cuda())
    assert there.dimension == pytest.approx(here.dimension, rel=1e-10)


def test_examples_run():
    assert doctest.testmod(intrinsic_dimension).failed == 0
