"""Similarities by hand, against SciPy and double loops over Gram matrices, and their nulls."""

import doctest

import jaxtyping
import numpy as np
import pytest
import scipy.linalg
import scipy.spatial
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import headspec as hs
from headspec import results
from headspec.activations import representations

KINDS = ("cka", "debiased_cka", "procrustes", "cosine")
BLIND = KINDS[:3]  # to rotations and scales


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def similarity(x, y, kind):
    return hs.representation_similarity(x, y, kind=kind, n_null=0).value


def rotation(width, seed):
    return torch.from_numpy(scipy.stats.ortho_group.rvs(width, random_state=seed))


def cka_of_grams(x, y):
    """As Kornblith et al. write it: HSIC of centred Gram matrices of samples."""
    n = len(x)
    centring = np.eye(n) - 1 / n
    k, m = (centring @ (z @ z.T) @ centring for z in (x.numpy(), y.numpy()))
    return (k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum())


def debiased_cka_of_grams(x, y):
    """As Song et al. write it: U-statistics of Gram matrices without their diagonals."""

    def hsic(k, m):
        n = len(k)
        one = np.ones(n)
        total = (k * m).sum() + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        return (total - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))

    k, m = (z.numpy() @ z.numpy().T for z in (x, y))
    for gram in (k, m):
        np.fill_diagonal(gram, 0)
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def test_by_hand():
    """X along one axis, Y along two: cross-covariance (2, 0), own 2 and diag(2, 2)."""
    x = torch.tensor([[1.0], [0.0], [-1.0], [0.0]])
    y = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    assert similarity(x, y, "cka") == pytest.approx(4 / (2 * 8**0.5))
    assert similarity(x, y, "procrustes") == pytest.approx(1 / 2**0.5)  # 2 / (sqrt 2 * 2)
    assert similarity(x + 5, y - 3, "cka") == pytest.approx(4 / (2 * 8**0.5))
    found = hs.representation_similarity(y, torch.ones(4, 2), kind="cosine", n_null=0)
    assert found.value == pytest.approx(0)
    assert found.distance == pytest.approx(1)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(5, 14),
    widths=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_against_gram_matrices_and_scipy(seed, n, widths):
    """Also with more features than samples."""
    x, y = gaussian(n, widths[0], seed=seed) + 2, gaussian(n, widths[1], seed=seed + 1)
    assert similarity(x, y, "cka") == pytest.approx(cka_of_grams(x, y), rel=1e-9)
    assert similarity(x, x, "debiased_cka") == pytest.approx(1, rel=1e-9)
    if min(widths) > 1:
        right = debiased_cka_of_grams(x, y)
        assert similarity(x, y, "debiased_cka") == pytest.approx(right, rel=1e-6, abs=1e-9)
    wide = max(widths)
    padded = [torch.nn.functional.pad(z, (0, wide - z.shape[1])) for z in (x, y)]
    disparity = scipy.spatial.procrustes(*(z.numpy() for z in padded))[2]
    value = similarity(x, y, "procrustes")
    assert 1 - value**2 == pytest.approx(disparity, abs=1e-9)


def test_procrustes_is_the_distance_after_scipys_best_rotation():
    x, y = gaussian(30, 6), gaussian(30, 6, seed=1)
    found = hs.representation_similarity(x, y, kind="procrustes", n_null=0)
    x, y = (((z := one - one.mean(0)) / z.norm()).numpy() for one in (x, y))
    turn = scipy.linalg.orthogonal_procrustes(x, y)[0]
    assert found.distance == pytest.approx(np.square(x @ turn - y).sum())


def test_cosine_is_torchs():
    x, y = gaussian(30, 6), gaussian(30, 6, seed=1)
    right = float(torch.nn.functional.cosine_similarity(x, y).mean())
    assert similarity(x, y, "cosine") == pytest.approx(right)
    x[0] = 0  # a sample without direction is left out
    right = float(torch.nn.functional.cosine_similarity(x[1:], y[1:]).mean())
    assert similarity(x, y, "cosine") == pytest.approx(right)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.001, 1000), shift=st.floats(-5, 5))
def test_what_changes_nothing(seed, scale, shift):
    x, y = gaussian(12, 4, seed=seed), gaussian(12, 4, seed=seed + 1)
    order = np.random.default_rng(seed).permutation(12)
    for kind in KINDS:
        plain = similarity(x, y, kind)
        assert similarity(y, x, kind) == pytest.approx(plain, rel=1e-9)
        assert similarity(x[order], y[order], kind) == pytest.approx(plain, rel=1e-9)
        assert similarity(scale * x, y, kind) == pytest.approx(plain, rel=1e-9)
        assert similarity(x, x, kind) == pytest.approx(1, rel=1e-9)
        assert plain <= 1 + 1e-12
    for kind in BLIND:
        turned = similarity(x @ rotation(4, seed % 1000) + shift, y, kind)
        assert turned == pytest.approx(similarity(x, y, kind), rel=1e-6, abs=1e-9)
    both = rotation(4, seed % 1000)
    assert similarity(x @ both, y @ both, "cosine") == pytest.approx(similarity(x, y, "cosine"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("power", [-1060, -600, 600, 1010])
def test_squares_neither_overflow_nor_vanish(kind, power):
    """2^600 squared is infinite: cosine and Procrustes said 0, CKA nothing."""
    x, y = gaussian(20, 3) + 1, gaussian(20, 3, seed=1)
    assert similarity(x * 2.0**power, y, kind) == pytest.approx(similarity(x, y, kind), rel=1e-3)


def test_what_does_change_something():
    """Negative controls: stretching for all, rotations and a common mean for the cosine."""
    x = gaussian(50, 6)
    stretched = x * torch.tensor([1.0, 1, 1, 1, 1, 20])
    for kind in BLIND:
        assert similarity(x, stretched, kind) < 0.9
    assert abs(similarity(x, x @ rotation(6, 3), "cosine")) < 0.7
    assert similarity(gaussian(50, 6, seed=8) + 30, x + 30, "cosine") > 0.99
    null = hs.representation_similarity(gaussian(50, 6, seed=8) + 30, x + 30, kind="cosine").null
    assert null.mean > 0.99
    assert null.p_value > 0.01


def test_the_mean_of_the_null_of_cka_is_exact():
    """sqrt(P_X P_Y) / (n - 1), P the participation ratio (Kazi-Aoual et al.)."""
    x, y = gaussian(40, 8) * torch.arange(1, 9), gaussian(40, 60, seed=1)
    found = hs.representation_similarity(x, y, n_null=2000)
    ratios = []
    for one in (x, y):
        values = np.linalg.eigvalsh(np.cov(one.numpy().T))
        ratios.append(values.sum() ** 2 / np.square(values).sum())
    right = np.sqrt(np.prod(ratios)) / 39
    assert found.null.mean == pytest.approx(right, abs=5 * found.null.sd / 2000**0.5)
    debiased = hs.representation_similarity(x, y, kind="debiased_cka", n_null=2000).null
    assert debiased.mean == pytest.approx(0, abs=5 * debiased.sd / 2000**0.5)


def test_few_samples_make_everything_alike_but_for_the_debiased():
    x, y = gaussian(20, 400), gaussian(20, 400, seed=1)
    found = {kind: hs.representation_similarity(x, y, kind=kind) for kind in KINDS}
    assert found["cka"].value > 0.9
    assert found["procrustes"].value > 0.9
    assert abs(found["debiased_cka"].value) < 0.3
    assert all(one.null.p_value > 0.01 for one in found.values())


@pytest.mark.parametrize("kind", KINDS)
def test_p_values_are_calibrated(kind):
    p = [
        hs.representation_similarity(
            gaussian(12, 3, seed=2 * seed).exp(), gaussian(12, 3, seed=2 * seed + 1).exp(),
            kind=kind, n_null=39, seed=seed,
        ).null.p_value
        for seed in range(200)
    ]  # fmt: skip
    for level in (0.1, 0.5):
        assert np.mean(np.array(p) <= level) == pytest.approx(level, abs=4 * (level / 200) ** 0.5)
    related = gaussian(30, 5)
    other = related @ rotation(5, 0) if kind in BLIND else related
    found = hs.representation_similarity(related, other + 0.5 * gaussian(30, 5, seed=9), kind=kind)
    assert found.null.p_value == pytest.approx(1 / 200)


def test_shuffles_in_parts_give_the_same(monkeypatch):
    x, y = gaussian(20, 5), gaussian(20, 7, seed=1)
    whole = hs.representation_similarity(x, y, n_null=30).null
    monkeypatch.setattr("headspec.activations.representations._CHUNK", 300)
    assert hs.representation_similarity(x, y, n_null=30).null.mean == pytest.approx(whole.mean)


@pytest.mark.parametrize("kind", KINDS)
def test_representations_that_do_not_vary(kind):
    flat = torch.zeros(10, 4) if kind == "cosine" else torch.full((10, 4), 0.1)
    for pair in ((flat, gaussian(10, 4)), (gaussian(10, 4), flat)):
        found = hs.representation_similarity(*pair, kind=kind, n_null=9)
        assert np.isnan(found.value)
        assert found.null.p_value == 1
        assert "nan" in found.summary()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_lower_precision_is_computed_in_float64(dtype):
    x, y = gaussian(20, 5).to(dtype), gaussian(20, 5, seed=1)
    for kind in KINDS:
        assert similarity(x, y, kind) == similarity(x.double(), y, kind)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: similarity(x, x[1:], "cka"), r"\[6, 3\] and \[5, 3\]"),
        (lambda x: similarity(x, x[:, 1:], "cosine"), "same width for the cosine"),
        (lambda x: similarity(x[:3], x[:3], "debiased_cka"), "at least 4 sample"),
        (lambda x: similarity(x, x / 0, "cka"), "finite second"),
        (lambda x: similarity(x, x, "cca"), "kind out of 'cka'"),
        (lambda x: hs.representation_similarity(x, x, n_null=-1), "n_null of 0 or more"),
    ],
)
def test_misuse(call, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(hs.InputError, match=message):
        call(torch.arange(18.0).reshape(6, 3) + torch.eye(6, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_frames_and_files(kind, tmp_path):
    found = hs.representation_similarity(gaussian(20, 5), gaussian(20, 5, seed=1), kind=kind)
    frame = found.to_frame()
    assert frame["metric"].tolist() == [f"similarity_{kind}", f"distance_{kind}"]
    assert frame["null_mean"].iloc[0] == found.null.mean
    assert set(frame["n"]) == {20}
    again = results.load(results.save(found, tmp_path / "similarity.json"))
    assert again == found
    assert again.to_frame().equals(frame)
    bare = hs.representation_similarity(gaussian(20, 5), gaussian(20, 5), kind=kind, n_null=0)
    assert bare.to_frame()["p"].isna().all()
    assert "shuffled" not in bare.summary()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_on_a_gpu():
    x, y = gaussian(20, 5), gaussian(20, 5, seed=1)
    for kind in KINDS:
        found = hs.representation_similarity(x.cuda(), y.cuda(), kind=kind, n_null=19)
        right = hs.representation_similarity(x, y, kind=kind, n_null=19)
        assert found.value == pytest.approx(right.value, rel=1e-9)
        assert found.null.mean == pytest.approx(right.null.mean, rel=1e-9, abs=1e-12)


def test_examples_run():
    assert doctest.testmod(representations).failed == 0
