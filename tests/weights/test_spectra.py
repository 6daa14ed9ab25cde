"""Spectral statistics: closed forms, a naive oracle in float64, and every special case."""

import doctest
import re
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from random_heads import random_heads
from scipy.stats import entropy, linregress, ortho_group

from headspec import InputError, open_suite, results, spectral_stats
from headspec.weights import spectra
from headspec.weights.spectral_result import SCALARS, SpectralStats

ALL = (*SCALARS, "top_variance")


def naive(matrix, ks=(1, 10)):
    """The textbook, after an SVD in float64; a number a statistic."""
    s = np.linalg.svd(np.asarray(matrix, dtype=np.float64), compute_uv=False)
    half = s[: int(np.ceil(len(s) / 2))]
    return {
        "spectral_norm": s[0],
        "frobenius_norm": np.linalg.norm(matrix),
        "nuclear_norm": s.sum(),
        "stable_rank": np.linalg.norm(matrix) ** 2 / s[0] ** 2,
        "effective_rank": np.exp(entropy(s)),
        "participation_ratio": (s**2).sum() ** 2 / (s**4).sum(),
        "participation_ratio_sigma": s.sum() ** 2 / (s**2).sum(),
        "condition_number": s[0] / s[-1],
        "decay_rate": -linregress(np.log(np.arange(len(half)) + 1), np.log(half)).slope
        if len(half) > 1
        else np.nan,
        **{f"top_{k}_variance": (s[:k] ** 2).sum() / (s**2).sum() for k in ks},
    }


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(7, 7), (5, 30), (30, 5), (200, 150), (1, 4)])
def test_equals_the_textbook(shape):
    matrix = gaussian(*shape)
    found = spectral_stats(matrix)
    for name, right in naive(matrix.numpy()).items():
        np.testing.assert_allclose(found.named()[name], right, rtol=1e-9, err_msg=name)
    assert found.computed == ALL
    assert found.n_values == min(shape)


@pytest.mark.parametrize("r", [1, 3, 8])
def test_equal_values_have_all_ranks_r(r):
    matrix = torch.from_numpy(ortho_group.rvs(12, random_state=0))[:, :r] * 2.5
    found = spectral_stats(matrix)
    ranks = ("stable_rank", "effective_rank", "participation_ratio", "participation_ratio_sigma")
    for name in ranks:
        assert float(getattr(found, name)) == pytest.approx(r, rel=1e-12)
    assert found.spectral_norm == pytest.approx(2.5)
    assert found.frobenius_norm == pytest.approx(2.5 * r**0.5)
    assert found.nuclear_norm == pytest.approx(2.5 * r)
    assert found.condition_number == pytest.approx(1)
    assert found.top_variance == pytest.approx([1 / r, 1])
    if r > 2:
        assert found.decay_rate == pytest.approx(0, abs=1e-12)
    padded = torch.cat([matrix, torch.zeros(12, 2, dtype=torch.float64)], 1)  # rank-deficient
    deficient = spectral_stats(padded)
    for name in ranks:
        assert float(getattr(deficient, name)) == pytest.approx(r, rel=1e-9)
    assert deficient.condition_number == np.inf


def test_pitfall_two_participation_ratios():
    """By hand for values 2, 1: on sigma^2 (4+1)^2 / (16+1), on sigma (2+1)^2 / (4+1)."""
    found = spectral_stats(torch.diag(torch.tensor([2.0, 1.0])))
    assert found.participation_ratio == pytest.approx(25 / 17)
    assert found.participation_ratio_sigma == pytest.approx(9 / 5)
    assert found.participation_ratio != pytest.approx(float(found.participation_ratio_sigma))


def test_pitfall_the_fused_matrix_is_not_q_k_v():
    suite = open_suite("micro")
    split = suite.layer_matrices(6144, 2)
    (fused,) = suite.matrices(6144, "*layers.2.attention.query_key_value.weight").values()
    naive = float(spectral_stats(fused).effective_rank)
    ours = [float(spectral_stats(split[role]).effective_rank) for role in "qkv"]
    assert max(ours) < 0.97 * naive  # the fused one exceeds each, it is no mean of them
    heads = spectral_stats(suite.head_weights(6144, 2).W_Q)
    assert heads.effective_rank.shape == (12,)
    assert heads.effective_rank.max() <= suite.head_weights(6144, 2).d_head < min(ours)


@given(
    a=st.floats(0.1, 2.5),
    rank=st.integers(3, 40),
)
def test_decay_of_a_power_law(a, rank):
    values = np.arange(1, rank + 1.0) ** -a
    values[-(rank // 2) :] *= 1e-9  # the lower half does not count
    assert spectral_stats(singular_values=values).decay_rate == pytest.approx(a)


@settings(max_examples=80, deadline=None)
@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=1, max_dims=3, max_side=6),
        elements=st.floats(0.015625, 1e6, width=32),
    ),
    st.floats(1e-100, 1e100),
)
def test_ranges_order_and_scale(values, scale):
    found = spectral_stats(singular_values=values, top_k=(1, 3))
    rank = values.shape[-1]
    slack = 1 + 1e-9
    sigma, squared = found.participation_ratio_sigma, found.participation_ratio
    for soft in (found.stable_rank, found.effective_rank, squared, sigma):
        assert (soft >= 1 / slack).all()
        assert (soft <= rank * slack).all()
    assert (squared <= sigma * slack).all()
    assert (sigma <= found.effective_rank * slack).all()  # Renyi entropies of order 2 and 1
    assert (found.stable_rank <= squared * slack).all()  # of order infinity and 2, on s^2
    assert (found.spectral_norm <= found.frobenius_norm * slack).all()
    assert (found.frobenius_norm <= found.nuclear_norm * slack).all()
    assert (found.top_variance[..., 0] <= found.top_variance[..., 1] * slack).all()
    assert (np.diff(found.singular_values, axis=-1) <= 0).all()
    scaled = spectral_stats(singular_values=values * scale)
    for name in SCALARS:
        factor = scale if name.endswith("norm") else 1.0
        left, right = getattr(scaled, name), getattr(found, name) * factor
        np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-9 if factor == 1 else 0)


def test_batches_equal_single_matrices():
    batch = gaussian(2, 3, 6, 4)
    found = spectral_stats(batch)
    assert found.top_variance.shape == (2, 3, 2)
    assert found.singular_values is not None
    assert found.singular_values.shape == (2, 3, 4)
    for index in np.ndindex(2, 3):
        one = spectral_stats(batch[index])
        for name in (*ALL, "singular_values"):
            np.testing.assert_array_equal(getattr(found, name)[index], getattr(one, name))


def test_lists_of_any_shapes():
    matrices = [gaussian(6, 4), gaussian(3, 3, seed=1), gaussian(2, 9, seed=2)]
    found = spectral_stats(matrices)
    assert found.n_values.tolist() == [4, 3, 2]
    assert found.singular_values is not None
    assert np.isnan(found.singular_values).sum(1).tolist() == [0, 1, 2]
    for i, matrix in enumerate(matrices):
        one = spectral_stats(matrix)
        for name in ALL:
            np.testing.assert_array_equal(getattr(found, name)[i], getattr(one, name))
    cheap = spectral_stats(matrices, stats=("frobenius_norm",))
    assert cheap.singular_values is None


@pytest.mark.parametrize("shape", [(6, 4), (3, 5, 9), (150, 160), (0, 4, 4)])
@pytest.mark.parametrize(
    "stats",
    [
        ("frobenius_norm",),
        ("participation_ratio",),
        ("frobenius_norm", "participation_ratio"),
        ("spectral_norm",),
        ("stable_rank", "participation_ratio", "spectral_norm", "frobenius_norm"),
        ("effective_rank", "top_variance"),
    ],
)
def test_asking_for_less_gives_the_same(stats, shape):
    if 0 in shape:
        with pytest.raises(InputError, match="empty"):
            spectral_stats(torch.zeros(shape), stats=stats)
        return
    matrix = gaussian(*shape).float()
    whole, part = spectral_stats(matrix), spectral_stats(matrix, stats=stats)
    assert set(part.computed) == set(stats)
    for name in ALL:
        if name in stats:
            np.testing.assert_allclose(getattr(part, name), getattr(whole, name), rtol=2e-10)
        else:
            assert np.isnan(getattr(part, name)).all()
            assert getattr(part, name).shape == getattr(whole, name).shape


def test_without_an_eigensolver(monkeypatch):
    """Frobenius norm and participation ratio compute no eigenvalue; a norm alone not all."""
    matrix = gaussian(150, 150)
    right = spectral_stats(matrix)

    def fails(*args, **kwargs):
        raise AssertionError("an eigensolver was called")

    monkeypatch.setattr(torch.linalg, "eigvalsh", fails)
    monkeypatch.setattr(torch.linalg, "svdvals", fails)
    with pytest.raises(AssertionError, match="eigensolver"):
        spectral_stats(matrix)
    assert spectral_stats(matrix, stats=("spectral_norm",)).spectral_norm == pytest.approx(
        right.spectral_norm, rel=1e-10
    )
    monkeypatch.setattr("headspec.weights.singular_values.eigsh", fails)
    found = spectral_stats(matrix, stats=("frobenius_norm", "participation_ratio"))
    assert found.participation_ratio == pytest.approx(right.participation_ratio, rel=1e-12)


@pytest.mark.parametrize("stats", [None, ("spectral_norm", "participation_ratio", "stable_rank")])
def test_zeros_have_norms_and_nothing_else(stats):
    batch = torch.stack([torch.zeros(3, 4), torch.ones(3, 4)])
    found = spectral_stats(batch, stats=stats)
    for name in found.computed:
        first = getattr(found, name)[0]
        assert (first == 0).all() if name.endswith("norm") else np.isnan(first).all(), name
    assert found.stable_rank[1] == pytest.approx(1)
    by_values = spectral_stats(singular_values=np.zeros((1, 3)))
    assert by_values.spectral_norm[0] == 0
    assert np.isnan(by_values.effective_rank[0])


@pytest.mark.parametrize("condition", [1e2, 1e6, 1e10])
def test_ill_conditioned(condition):
    basis = torch.from_numpy(ortho_group.rvs(20, random_state=0))
    values = torch.logspace(0, -np.log10(condition), 20, dtype=torch.float64)
    matrix = basis * values @ basis.T
    found = spectral_stats(matrix)
    assert float(found.condition_number) == pytest.approx(condition, rel=1e-5)
    for name, right in naive(matrix.numpy()).items():
        rtol = 1e-5 if name == "condition_number" else 1e-9
        np.testing.assert_allclose(found.named()[name], right, rtol=rtol, err_msg=name)


def test_numerically_singular_matrices_have_an_infinite_condition_number():
    """Rounding leaves 1e-17 in the place of 0, which is no condition number of 1e17."""
    thin = gaussian(30, 5)
    deficient = thin @ gaussian(5, 20, seed=1)
    assert 0 < torch.linalg.svdvals(deficient)[-1] < 1e-12
    assert spectral_stats(deficient).condition_number == np.inf
    values = np.array([1.0, 1e-15])  # resolved by 2 x 2, not by 2 x 4000
    assert spectral_stats(singular_values=values).condition_number == pytest.approx(1e15)
    assert spectral_stats(torch.eye(2, 4000), singular_values=values).condition_number == np.inf


def test_float16_scale_does_not_matter():
    """Squares of 1e-4 vanish in float16; ours are the statistics of the same numbers in float64."""
    matrix = (1e-4 * gaussian(20, 10)).half()
    found, right = spectral_stats(matrix), naive(matrix.double().numpy())
    assert found.frobenius_norm == pytest.approx(right["frobenius_norm"], rel=1e-12)
    assert float((matrix**2).sum().sqrt()) != pytest.approx(right["frobenius_norm"], rel=0.05)
    huge = spectral_stats(1e200 * gaussian(4, 4))
    assert np.isfinite(huge.spectral_norm)
    assert huge.participation_ratio == pytest.approx(
        float(spectral_stats(gaussian(4, 4)).participation_ratio)
    )


def test_nan_is_refused_and_named():
    heads = random_heads(4)
    heads.W_Q[2, 0, 0] = float("nan")
    with pytest.raises(InputError, match=r"in matrix \[2\] of the batch"):
        spectral_stats(heads.W_Q)
    with pytest.raises(InputError, match=r"in matrix \[2\] of the batch"):
        spectral_stats(heads.W_Q, stats=("frobenius_norm",))
    with pytest.raises(InputError, match=r"NaN or infinite, in matrix 1\."):
        spectral_stats([heads.W_Q[0], heads.W_Q[2]])
    with pytest.raises(InputError, match="finite singular values of at least 0"):
        spectral_stats(singular_values=np.array([1.0, np.nan]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spectral_stats(), "a matrix, a sequence of matrices, or singular_values="),
        (lambda: spectral_stats([]), "a matrix, a sequence"),
        (lambda: spectral_stats([torch.ones(3)]), r"two dimensions.*\[3\] at place 0"),
        (lambda: spectral_stats(np.ones((3, 3))), r"ndarray at place 0.*torch.from_numpy"),
        (lambda: spectral_stats({"q": torch.ones(2, 2)}), r"str at place 0.*a dict's values"),
        (lambda: spectral_stats(torch.ones(3)), r"\[... rows cols\].*of shape \[3\]"),
        (
            lambda: spectral_stats(torch.ones(4, 3), singular_values=np.ones(2)),
            r"all singular values of the matrix \[4, 3\]; got shape \[2\]",
        ),
        (lambda: spectral_stats(torch.ones(2, 2), stats=("rank",)), "stats out of 'spectral_norm'"),
        (lambda: spectral_stats(torch.ones(2, 2), stats="rank"), "a tuple of statistics"),
        (lambda: spectral_stats(torch.ones(2, 2), stats=()), "a tuple of statistics"),
        (lambda: spectral_stats(torch.ones(2, 2), top_k=(0,)), "top_k of at least 1"),
        (lambda: spectral_stats(torch.ones(2, 2), top_k=0), "top_k of at least 1"),
        (lambda: spectral_stats(torch.ones(2, 2), n_null=1), "n_null of at least 2"),
        (lambda: spectral_stats(singular_values=np.ones(2), n_null=9), "singular values alone"),
        (lambda: spectral_stats(singular_values=-np.ones(3)), "take the root first"),
        (lambda: spectral_stats(gaussian(3, 2, 2)).to_frame(dims=("a", "b")), "1 names of batch"),
    ],
)
def test_misuse(call, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # let wrong words through
    with pytest.raises(InputError, match=message):
        call()


def test_frames():
    heads = spectral_stats(random_heads(4).W_Q).to_frame(dims=("head",))
    assert len(heads) == 4 * 11
    assert heads["n"].unique().tolist() == [4]
    assert set(heads["metric"]) >= {"stable_rank", "top_1_variance", "top_10_variance"}
    at = heads[(heads["metric"] == "stable_rank") & (heads["head"] == 2)]
    right = spectral_stats(random_heads(4).W_Q[2]).stable_rank
    assert at["value"].item() == pytest.approx(float(right))
    stack = spectral_stats(gaussian(2, 3, 4, 4), stats=("nuclear_norm",))
    assert len(stack.to_frame(dims=("layer", "head"))) == 6
    assert {"index_0", "index_1"} <= set(stack.to_frame())
    assert len(spectral_stats(gaussian(4, 4)).to_frame()) == 11
    assert spectral_stats(gaussian(2, 4, 4)).to_frame()["index"].nunique() == 2


@pytest.mark.parametrize("shape", [(30, 30), (12, 50)])
def test_random_matrices_lie_inside_their_null(shape):
    """Calibration: of Gaussian matrices of any scale, each statistic is a draw of the null."""
    batch = 3.7 * gaussian(200, *shape)
    found = spectral_stats(batch, n_null=200)
    assert set(found.null_mean) == set(found.named()) - {"frobenius_norm", "condition_number"}
    for name in found.null_mean:
        z = (found.named()[name] - found.null_mean[name]) / found.null_sd[name]
        assert abs(z.mean()) < 4 * (2 / 200) ** 0.5, name
        assert 0.8 < z.std() < 1.25, name


def test_the_null_is_not_flat_and_tells_structure():
    """A square random matrix is far from full rank by every soft rank; a low-rank one is not it."""
    low = gaussian(60, 4) @ gaussian(4, 60, seed=1) + 0.1 * gaussian(60, 60, seed=2)
    found = spectral_stats(low, n_null=20, stats=("effective_rank", "participation_ratio"))
    assert "frobenius_norm" in found.computed
    assert found.null_mean["effective_rank"] < 50
    for name in ("effective_rank", "participation_ratio"):
        assert found.named()[name] < found.null_mean[name] - 20 * found.null_sd[name]
    assert " (random: " in found.summary()
    frame = found.to_frame().set_index("metric")
    assert frame.loc["effective_rank", "null_mean"] == found.null_mean["effective_rank"]
    assert np.isnan(frame.loc["frobenius_norm", "null_mean"])
    assert frame["n_null"].tolist() == [20] * 3
    shapes = [gaussian(6, 4), gaussian(9, 9)]
    several = spectral_stats(shapes, n_null=9, seed=3)
    for i, matrix in enumerate(shapes):
        one = spectral_stats(
            matrix, n_null=9, seed=3, singular_values=several.singular_values[i, : 4 + 5 * i]
        )
        for name, mean in one.null_mean.items():
            assert several.null_mean[name][i] == pytest.approx(float(mean))


def test_summaries():
    one = spectral_stats(torch.diag(torch.tensor([2.0, 2.0])), stats=("stable_rank",))
    assert one.summary() == "One matrix of 2 singular values: stable rank 2."
    many = spectral_stats([torch.eye(3), torch.eye(2), torch.eye(2)], stats=("stable_rank",))
    expected = "3 matrices of 2 to 3 singular values: stable rank 2 to 3 (median 2)."
    assert many.summary() == expected
    assert "not defined" in spectral_stats(torch.zeros(2, 2)).summary()


def test_saved_and_loaded(tmp_path):
    for matrix in (gaussian(2, 4, 3), torch.eye(2)):
        found = spectral_stats(matrix, n_null=5 * (matrix.ndim - 2))
        again = results.load(results.save(found, tmp_path / f"{matrix.ndim}.json"))
        assert isinstance(again, SpectralStats)
        for name in (*ALL, "n_values", "singular_values"):
            np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
        assert (again.top_k, again.computed) == (found.top_k, found.computed)
        assert again.null_sd.keys() == found.null_sd.keys()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("stats", [None, ("spectral_norm", "participation_ratio")])
def test_the_same_on_the_gpu(stats):
    matrix = gaussian(2, 150, 160)
    ours, right = (spectral_stats(m, stats=stats) for m in (matrix.cuda(), matrix))
    for name in ours.computed:
        np.testing.assert_allclose(getattr(ours, name), getattr(right, name), rtol=1e-9)


def test_the_table_of_the_page():
    """docs/spectra.md: Q of layer 2 of the embedded suite over training."""
    page = (Path(__file__).parents[2] / "docs" / "spectra.md").read_text()
    rows = re.findall(r"^\| ([\d,]+) \| (.*) \|$", page, re.M)
    assert len(rows) == 5
    for step, cells in rows:
        matrix = open_suite("micro").layer_matrices(int(step.replace(",", "")), 2)["q"]
        s = spectral_stats(matrix)
        soft = (s.stable_rank, s.effective_rank, s.participation_ratio)
        shown = [f"{x:.1f}" for x in soft]
        shown += [f"{x:.3f}".lstrip("0") for x in (s.top_variance[0],)]
        shown += [f"{s.decay_rate:.2f}".lstrip("0")]
        assert cells.split(" | ") == shown


def test_examples_run():
    assert doctest.testmod(spectra).failed == 0


def test_one_k_is_a_list_of_one():
    one = spectral_stats(gaussian(5, 4), top_k=3)
    assert one.top_k == (3,)
    assert one.top_variance.tolist() == spectral_stats(gaussian(5, 4), top_k=(3,)).top_variance
