"""Dimensionality: closed forms, an SVD in float64, ndtracker, and every special case."""

import doctest
import itertools

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ndt.core import estimators as ndtracker
from scipy.stats import entropy, ortho_group

from headspec import DimensionalityStats, InputError, dimensionality_stats, results, spectral_stats
from headspec.activations import dimensionality
from headspec.activations.dimensionality_result import METRICS

SMOOTH = [name for name in METRICS if name != "components_90"]


def gaussian(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def naive(matrix, *, centred):
    """The textbook, after an SVD in float64."""
    x = np.asarray(matrix.double())
    s = np.linalg.svd(x - x.mean(0) if centred else x, compute_uv=False)
    energy = np.cumsum(s**2) / (s**2).sum()
    return {
        "stable_rank": (s**2).sum() / s[0] ** 2,
        "participation_ratio": (s**2).sum() ** 2 / (s**4).sum(),
        "participation_ratio_sigma": s.sum() ** 2 / (s**2).sum(),
        "effective_rank": np.exp(entropy(s)),
        "components_90": np.searchsorted(energy, 0.9) + 1,
        "nuclear_ratio": s.sum() / s[0],
    }


def assert_naive(stats, matrix, *, centred, rtol=1e-9):
    for name, right in naive(matrix, centred=centred).items():
        np.testing.assert_allclose(stats.named()[name], right, rtol=rtol, err_msg=name)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("shape", [(50, 20), (20, 50), (30, 30), (700, 90), (2, 5)])
def test_equals_the_textbook(shape, centred, dtype):
    matrix = (gaussian(*shape) + 1).to(dtype)
    stats = dimensionality_stats(matrix, centred=centred)
    assert_naive(stats, matrix, centred=centred)
    assert (stats.centred, stats.dtype) == (centred, str(dtype).removeprefix("torch."))
    assert (stats.n_samples, stats.n_features) == shape


def test_by_hand():
    stats = dimensionality_stats(torch.tensor([[3.0, 0.0], [0.0, 4.0]]), centred=False)
    found = {name: float(value) for name, value in stats.named().items()}
    right = {  # s = 4, 3
        "stable_rank": 25 / 16,
        "participation_ratio": 625 / 337,
        "participation_ratio_sigma": 49 / 25,
        "effective_rank": np.exp(-4 / 7 * np.log(4 / 7) - 3 / 7 * np.log(3 / 7)),
        "components_90": 2,
        "nuclear_ratio": 7 / 4,
    }
    assert found == pytest.approx(right, rel=1e-14)


@pytest.mark.parametrize("r", [1, 3, 10])
@pytest.mark.parametrize("rotated", [True, False])
def test_equal_values_have_all_dimensions_r(r, rotated):
    left, right = (torch.from_numpy(ortho_group.rvs(20, random_state=i)) for i in range(2))
    matrix = 2.5 * left[:, :r] @ right[:, :r].T if rotated else torch.eye(20)[:, :r].double()
    stats = dimensionality_stats(matrix, centred=False)
    for name in SMOOTH:
        assert stats.named()[name] == pytest.approx(r, rel=1e-10), name
    assert stats.components_90 == np.ceil(0.9 * r)


def test_ndtracker_gives_the_same():
    matrix = gaussian(60, 25) * torch.arange(1, 26).double() ** -0.7
    stats = dimensionality_stats(matrix, centred=False)
    rank, sigma, ninety, ratio = ndtracker.compute_all_metrics(matrix)
    assert stats.stable_rank == pytest.approx(rank, rel=1e-9)
    assert stats.participation_ratio_sigma == pytest.approx(sigma, rel=1e-8)  # its eps is 1e-10
    assert stats.components_90 == ninety
    assert stats.nuclear_ratio == pytest.approx(ratio, rel=1e-9)


def test_both_participation_ratios_are_named():
    """Pitfall 24: that of the covariance and ndtracker's are two numbers."""
    matrix = gaussian(200, 25) * torch.arange(1, 26).double() ** -0.7
    stats = dimensionality_stats(matrix)
    covariance = np.linalg.eigvalsh(np.cov(matrix.numpy().T))
    usual = covariance.sum() ** 2 / (covariance**2).sum()
    other = ndtracker.participation_ratio(matrix - matrix.mean(0))
    assert stats.participation_ratio == pytest.approx(usual, rel=1e-10)
    assert stats.participation_ratio_sigma == pytest.approx(other, rel=1e-8)
    assert other > 1.3 * usual  # what confusing them would cost


@settings(deadline=None, max_examples=25)
@given(
    st.integers(2, 12),
    st.integers(2, 12),
    st.floats(1e-6, 1e6),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_scale_and_rotation_change_nothing(samples, features, scale, centred, seed):
    matrix = gaussian(samples, features, seed=seed)
    turned = scale * matrix @ torch.linalg.qr(gaussian(features, features, seed=seed + 1))[0]
    before = dimensionality_stats(matrix, centred=centred)
    after = dimensionality_stats(turned, centred=centred)
    for name in SMOOTH:
        assert after.named()[name] == pytest.approx(before.named()[name], rel=1e-7), name
        assert 1 - 1e-12 <= before.named()[name] <= min(samples, features) * (1 + 1e-12)
    ordered = [getattr(before, name) for name in METRICS[:4]]
    assert all(low <= high * (1 + 1e-12) for low, high in itertools.pairwise(ordered))


def test_batches_equal_one_by_one():
    batch = gaussian(2, 3, 40, 12, dtype=torch.float32)
    stats = dimensionality_stats(batch)
    assert stats.stable_rank.shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        alone = dimensionality_stats(batch[i, j])
        for name in METRICS:
            assert stats.named()[name][i, j] == pytest.approx(float(alone.named()[name]), rel=1e-12)
            close = pytest.approx(float(alone.resolution[name]), rel=1e-6)
            assert stats.resolution[name][i, j] == close


def test_many_matrices_go_through_in_chunks(monkeypatch):
    from headspec.activations import dimensionality_sums, dimensionality_values

    batch = gaussian(7, 60, 12)
    whole = dimensionality_stats(batch)
    monkeypatch.setattr(dimensionality_values, "_CHUNK", 300)
    monkeypatch.setattr(dimensionality_sums, "_BLOCK", 200)
    chunked = dimensionality_stats(batch)
    wide = dimensionality_stats(batch.mT)
    for name in METRICS:
        np.testing.assert_allclose(chunked.named()[name], whole.named()[name], rtol=1e-12)
    for i in range(7):
        assert wide.effective_rank[i] == pytest.approx(
            naive(batch[i].T, centred=True)["effective_rank"], rel=1e-9
        )


def test_layers_of_different_shapes_by_name():
    layers = {
        "fc": gaussian(30, 8),
        "out": gaussian(30, 4, seed=1),
        "last": gaussian(30, 8, seed=2),
    }
    stats = dimensionality_stats(layers)
    for i, matrix in enumerate(layers.values()):
        assert stats.effective_rank[i] == pytest.approx(
            naive(matrix, centred=True)["effective_rank"], rel=1e-9
        )
    frame = stats.to_frame(model="mlp", step=5, seed=1)
    assert frame.columns[-3:].tolist() == ["layer_name", "resolution", "centred"]
    first = frame[frame["metric"] == "stable_rank"]
    assert first["layer_name"].tolist() == ["fc", "out", "last"]
    assert first["layer"].tolist() == [0, 1, 2]
    assert set(frame["step"]) == {5}
    assert len(frame) == 3 * len(METRICS)
    unnamed = dimensionality_stats(list(layers.values()))
    np.testing.assert_array_equal(unnamed.stable_rank, stats.stable_rank)
    assert "3 matrices of 30 samples and 4 to 8 (median 8) features" in stats.summary()


def test_dead_and_constant_features_count_nothing():
    live = gaussian(100, 6)
    constant = torch.full((100, 1), 0.1, dtype=torch.float64)
    padded = torch.cat([live, torch.zeros(100, 3).double(), constant], dim=1)
    before, after = dimensionality_stats(live), dimensionality_stats(padded)
    for name in METRICS:
        assert after.named()[name] == pytest.approx(float(before.named()[name]), rel=1e-12)
        assert after.resolution[name] == pytest.approx(float(before.resolution[name]), rel=0.05)


@pytest.mark.parametrize("tall", [True, False])
def test_rank_deficient_matrices_get_an_svd(tall):
    """A float64 Gram matrix alone is 1e-6 off here: the small values are those of its rounding."""
    matrix = gaussian(200, 5) @ gaussian(5, 80, seed=1)
    matrix = matrix if tall else matrix.T
    stats = dimensionality_stats(matrix, centred=False)
    assert_naive(stats, matrix, centred=False, rtol=1e-9)
    squares = torch.linalg.eigvalsh(matrix.mT @ matrix).clamp(min=0).sqrt().numpy()
    assert np.exp(entropy(squares)) / stats.effective_rank - 1 > 1e-7  # negative control


def test_a_large_mean_costs_no_digits():
    matrix = gaussian(500, 10) + 1e6
    assert_naive(dimensionality_stats(matrix), matrix, centred=True, rtol=1e-8)


@pytest.mark.parametrize("power", [-1000, -560, -90, 90, 560])
def test_extreme_scales(power):
    matrix = gaussian(30, 8) if abs(power) > 100 else gaussian(30, 8).float()
    before, after = dimensionality_stats(matrix), dimensionality_stats(matrix * 2.0**power)
    for name in SMOOTH:
        assert after.named()[name] == pytest.approx(float(before.named()[name]), rel=1e-12)
        assert after.resolution[name] == pytest.approx(float(before.resolution[name]), rel=1e-4)


@pytest.mark.parametrize(
    ("matrix", "centred", "defined"),
    [
        (torch.zeros(5, 3), True, False),
        (torch.zeros(5, 3), False, False),
        (torch.full((5, 3), 0.1), True, False),
        (torch.full((7, 64), 0.1, dtype=torch.float64), True, False),  # its mean is not .1
        (
            torch.rand(64, generator=torch.Generator().manual_seed(0))
            .double()
            .sqrt()
            .expand(9, 64),
            True,
            False,
        ),
        (torch.full((5, 3), 0.1), False, True),
        (torch.ones(1, 4), True, False),
        (torch.ones(1, 4), False, True),
        (torch.ones(4, 1), False, True),
    ],
)
def test_degenerate_matrices(matrix, centred, defined):
    stats = dimensionality_stats(matrix, centred=centred)
    for name, value in stats.named().items():
        assert float(value) == pytest.approx(1.0 if defined else np.nan, nan_ok=True), name
        assert np.isnan(stats.resolution[name]) == (not defined)


def test_one_dead_matrix_leaves_the_others():
    stats = dimensionality_stats(torch.stack([gaussian(30, 5), torch.zeros(30, 5).double()]))
    assert stats.stable_rank[0] == dimensionality_stats(gaussian(30, 5)).stable_rank
    assert np.isnan(stats.stable_rank[1])


def test_weights_agree_with_spectral_stats():
    weight = gaussian(40, 30, dtype=torch.float32)
    stats, spectral = dimensionality_stats(weight, centred=False), spectral_stats(weight)
    for name in set(SMOOTH) - {"nuclear_ratio"}:
        assert stats.named()[name] == pytest.approx(float(spectral.named()[name]), rel=1e-12)


def test_only_some_measures():
    stats = dimensionality_stats(gaussian(30, 5), metrics=("nuclear_ratio", "stable_rank"))
    assert stats.metrics == ("stable_rank", "nuclear_ratio")
    assert np.isnan(stats.effective_rank)
    assert set(stats.resolution) == set(stats.named()) == set(stats.metrics)
    assert len(stats.to_frame()) == 2


@pytest.mark.parametrize("suffix", [".json", ".parquet"])
def test_results_come_back(tmp_path, suffix):
    stats = dimensionality_stats({"a": gaussian(30, 5), "b": gaussian(30, 6)})
    back = results.load(results.save(stats, tmp_path / f"stats{suffix}"))
    assert isinstance(back, DimensionalityStats)
    assert back.layer_names == ("a", "b")
    np.testing.assert_array_equal(back.effective_rank, stats.effective_rank)
    np.testing.assert_array_equal(back.resolution["stable_rank"], stats.resolution["stable_rank"])


def test_input_and_grad_mode_are_left_alone():
    matrix = gaussian(30, 5).requires_grad_()
    dimensionality_stats(matrix)
    assert torch.equal(matrix, gaussian(30, 5))
    assert torch.is_grad_enabled()


def test_messages_name_what_is_wrong():
    bad = gaussian(2, 5, 3)
    bad[1, 2, 1] = torch.nan
    with pytest.raises(InputError, match=r"1 of 15 NaN or infinite in matrix \[1\] of the batch"):
        dimensionality_stats(bad)
    with pytest.raises(InputError, match="NaN or infinite in 'fc'"):
        dimensionality_stats({"in": gaussian(5, 3), "fc": gaussian(5, 3) / 0})
    with pytest.raises(InputError, match="at least one matrix"):
        dimensionality_stats({})
    with pytest.raises(InputError, match=r"shape \[2, 5, 3\] in 'fc'"):
        dimensionality_stats({"fc": gaussian(2, 5, 3)})
    with pytest.raises(InputError, match="without empty dimensions"):
        dimensionality_stats(gaussian(0, 3))
    with pytest.raises(InputError, match="int64"):
        dimensionality_stats([torch.ones(3, 3, dtype=torch.int64)])
    with pytest.raises((InputError, jaxtyping.TypeCheckError), match="stable_rank"):
        dimensionality_stats(gaussian(5, 3), metrics=("rank",))  # pyright: ignore
    with pytest.raises(InputError, match="positive number of roundings"):
        dimensionality_stats(gaussian(5, 3), roundings=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("shape", [(3, 200, 30), (3, 30, 200)])
def test_a_gpu_gives_the_same(shape):
    batch = gaussian(*shape, dtype=torch.float32)
    here, there = dimensionality_stats(batch), dimensionality_stats(batch.cuda())
    for name in METRICS:
        np.testing.assert_allclose(there.named()[name], here.named()[name], rtol=1e-10)
        np.testing.assert_allclose(there.resolution[name], here.resolution[name], rtol=1e-4)


def test_examples_run():
    assert doctest.testmod(dimensionality).failed == 0
