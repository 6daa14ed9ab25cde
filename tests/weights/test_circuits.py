"""QK and OV circuits against the float64 SVD of their products, by hand, and in pitfalls."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_heads import random_heads

import headspec as hs
from headspec import HeadWeights, Rotary, results
from headspec.errors import InputError
from headspec.weights import low_rank_svd
from headspec.weights.circuit_result import CircuitSVD

SVD = {"qk": hs.qk_svd, "ov": hs.ov_svd}
SPECTRUM = {"qk": hs.qk_spectrum, "ov": hs.ov_spectrum}


def product(w: HeadWeights, circuit: str) -> torch.Tensor:
    """The d_model x d_model products in float64, the plain way."""
    w = w.to(torch.float64).expand_kv()
    return w.W_Q @ w.W_K.mT if circuit == "qk" else w.W_V @ w.W_O


def rebuilt(found: CircuitSVD) -> torch.Tensor:
    return (found.U * found.S[..., None, :]) @ found.Vh


def assert_orthonormal(found: CircuitSVD, atol: float = 1e-5) -> None:
    same = torch.eye(found.S.shape[-1], dtype=found.S.dtype).expand(*found.S.shape, -1)
    torch.testing.assert_close(found.U.mT @ found.U, same, atol=atol, rtol=0)
    torch.testing.assert_close(found.Vh @ found.Vh.mT, same, atol=atol, rtol=0)


def cursed_factor(condition: float, *, seed: int, heads: int = 3, d_model=64, d_head=12):
    """Heads whose singular values fall from 1 to 1/condition."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(heads, d_model + d_head, d_head, generator=generator, dtype=torch.float64)
    Q = torch.linalg.qr(drawn[:, :d_model]).Q
    turn = torch.linalg.qr(drawn[:, d_model:]).Q
    values = torch.logspace(0, -np.log10(condition), d_head, dtype=torch.float64)
    return (Q * values @ turn).float()


def test_by_hand():
    W_Q = torch.tensor([[[2.0, 0], [0, 1], [0, 0]]])
    W_K = torch.tensor([[[0.0, 3], [0, 0], [4, 0]]])  # W_QK = 2 * 4 e0 e2^T + 1 * 3 e1 e0^T
    found = hs.qk_svd(HeadWeights(W_Q=W_Q, W_K=W_K, W_V=W_K, W_O=W_Q.mT))
    assert found.S[0].tolist() == pytest.approx([8.0, 3.0])
    U, Vh = torch.zeros(1, 3, 2), torch.zeros(1, 2, 3)
    U[0, 0, 0], Vh[0, 0, 2] = 1, 1  # cos(1) > 0: e0 as it is
    U[0, 1, 1], Vh[0, 1, 0] = -1, -1  # cos(2) < 0: e1 is turned round, and its partner with it
    torch.testing.assert_close(found.U, U)
    torch.testing.assert_close(found.Vh, Vh)
    ov = hs.ov_svd(HeadWeights(W_Q=W_Q, W_K=W_K, W_V=W_K, W_O=W_Q.mT))
    torch.testing.assert_close(rebuilt(ov)[0], torch.tensor([[0.0, 3, 0], [0, 0, 0], [8, 0, 0]]))


@pytest.mark.parametrize("circuit", ["qk", "ov"])
@pytest.mark.parametrize("kv", [12, 3, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_to_the_svd_of_the_product(circuit, kv, dtype):
    w = random_heads(12, 40, 6, kv=kv, dtype=dtype)
    found = SVD[circuit](w)
    close = {"rtol": 1e-6, "atol": 0} if dtype == torch.float32 else {"rtol": 1e-13, "atol": 1e-13}
    expected = product(w, circuit)
    torch.testing.assert_close(found.S.double(), torch.linalg.svdvals(expected)[:, :6], **close)
    assert found.U.shape == (12, 40, 6)
    assert found.Vh.shape == (12, 6, 40)
    assert found.S.dtype == found.U.dtype == found.Vh.dtype == found.norm.dtype == dtype
    torch.testing.assert_close(rebuilt(found), expected.to(dtype))
    assert_orthonormal(found, 1e-6 if dtype == torch.float32 else 1e-13)
    torch.testing.assert_close(found.norm, torch.linalg.matrix_norm(expected).to(dtype))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 3),
    group=st.integers(1, 3),
    d_model=st.integers(1, 9),
    d_head=st.integers(1, 9),
    dependent=st.integers(0, 9),
    scale=st.sampled_from([1e-12, 1.0, 1e12]),
    biases=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_shape_and_rank(n, group, d_model, d_head, dependent, scale, biases, seed):
    """Also heads wider than the stream, rank-deficient ones, zeros, tiny and huge ones."""
    w = random_heads(n * group, d_model, d_head, kv=n, seed=seed)
    w.W_Q.mul_(scale)
    w.W_V[..., dependent:] = w.W_V[..., :1]
    w.W_K[0] = 0
    for circuit in ("qk", "ov"):
        found, values = SVD[circuit](w, biases=biases), SPECTRUM[circuit](w, biases=biases)
        one = int(biases)
        d_out = d_model + one * (circuit == "qk")
        rank = min(d_head, d_model + one, d_out)
        assert found.S.shape == values.S.shape == (n * group, rank)
        whole = torch.zeros(n * group, d_model + one, d_out)
        whole[:, :d_model, :d_model] = product(w, circuit).float()
        size = torch.linalg.matrix_norm(whole)[:, None] + 1e-20
        expected = torch.linalg.svdvals(whole.double())[:, :rank]
        assert ((found.S - expected).abs() <= 2e-6 * size).all()
        assert ((values.S - expected).abs() <= 2e-6 * size).all()
        assert ((rebuilt(found) - whole).abs() <= 3e-6 * size[..., None]).all()
        assert (found.S.diff(dim=-1) <= 0).all()
        assert_orthonormal(found)


@pytest.mark.parametrize("condition", [1e3, 1e4, 1e7])
def test_small_values_are_right_where_float32_grams_are_not(condition):
    """Pitfall 35: a float32 Cholesky factor loses the tail; float64 ones and QR do not."""
    A, B = cursed_factor(condition, seed=0), cursed_factor(condition, seed=1)
    true = torch.linalg.svdvals(A.double() @ B.double().mT)[:, :12]
    floor = 1e-15 * true[:, :1]  # what float64 can say of the product itself
    w = HeadWeights(W_Q=A, W_K=B, W_V=A, W_O=B.mT)

    def worst(values: torch.Tensor) -> float:
        return float(((values.double() - true).abs() / (true + 1e3 * floor))[true > floor].max())

    for found in (hs.qk_spectrum(w).S, hs.qk_svd(w).S, hs.ov_spectrum(w).S, hs.ov_svd(w).S):
        assert worst(found) < 1e-6 if condition < 1e7 else worst(found) < 0.01
    assert_orthonormal(hs.qk_svd(w))
    (one, failed_one), (two, failed_two) = (
        torch.linalg.cholesky_ex(X.mT @ X) for X in (A, B)
    )  # in float32
    if not (failed_one.any() or failed_two.any()):
        assert worst(torch.linalg.svdvals(one.mT @ two)) > 1e-3
    by_squares = torch.linalg.eigvalsh(one.mT @ (B.mT @ B) @ one).flip(-1).clamp(min=0).sqrt()
    assert worst(by_squares) > 0.1


def test_both_ways_agree_and_each_is_taken():
    good, bad = random_heads(3, 64, 12), cursed_factor(1e6, seed=3)
    w = HeadWeights(
        W_Q=torch.cat([good.W_Q, bad]),
        W_K=torch.cat([good.W_K, bad]),
        W_V=torch.cat([good.W_V, bad]),
        W_O=torch.cat([good.W_O, bad.mT]),
    )
    _, frame, _ = low_rank_svd._thin_qr(w.W_Q, "reduced")
    by_cholesky = (frame == w.W_Q.double()).flatten(1).all(1)
    assert by_cholesky.tolist() == [True] * 3 + [False] * 3
    found, exact = hs.qk_svd(w), hs.qk_svd(w, dtype=torch.float64)
    torch.testing.assert_close(found.S, exact.S.float(), rtol=1e-6, atol=1e-12)
    kept = exact.S > 1e-3  # vectors of close or tiny values are free to mix
    overlap = (found.U.double() * exact.U).sum(-2)[kept]
    torch.testing.assert_close(overlap, torch.ones_like(overlap), rtol=0, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 100))
def test_gauge(seed):
    """Pitfall 3: W_Q A, W_K A^-T is the same head; the SVD of W_Q is another, that of QK is not."""
    w = random_heads(4, 20, 5, seed=seed, dtype=torch.float64)
    A = random_heads(4, 5, 5, seed=seed + 1, dtype=torch.float64).W_Q + 4 * torch.eye(5)
    other = HeadWeights(W_Q=w.W_Q @ A, W_K=w.W_K @ torch.linalg.inv(A).mT, W_V=w.W_V, W_O=w.W_O)
    one, two = hs.qk_svd(w), hs.qk_svd(other)
    torch.testing.assert_close(one.S, two.S)
    torch.testing.assert_close(one.U, two.U, rtol=0, atol=1e-6)
    torch.testing.assert_close(one.Vh, two.Vh, rtol=0, atol=1e-6)
    plain, moved = torch.linalg.svdvals(w.W_Q), torch.linalg.svdvals(other.W_Q)
    assert ((plain - moved).abs() / plain).max() > 0.5


@pytest.mark.parametrize("gain_shape", ["d_head", "head d_head"])
def test_grouped_heads_with_qk_norm(gain_shape):
    """Pitfall 19: per query head, in residual space, with the gains; not W_Q^T W_K per group."""
    w = random_heads(6, 30, 4, kv=2, seed=1)
    generator = torch.Generator().manual_seed(2)
    shapes = ((4,), (4,)) if gain_shape == "d_head" else ((6, 4), (2, 4))
    q_norm, k_norm = (1 + torch.rand(*shape, generator=generator) for shape in shapes)
    w = random_heads(6, 30, 4, kv=2, seed=1, q_norm=q_norm, k_norm=k_norm)
    found = hs.qk_svd(w)
    for head in range(6):
        g_q = q_norm if q_norm.ndim == 1 else q_norm[head]
        g_k = k_norm if k_norm.ndim == 1 else k_norm[head // 3]
        whole = (w.W_Q[head] * g_q) @ (w.W_K[head // 3] * g_k).mT
        torch.testing.assert_close(rebuilt(found)[head], whole)
    naive = torch.linalg.svdvals(w.W_Q[::3].mT @ w.W_K)  # d_head x d_head, first of each group
    assert ((naive - found.S[::3]).abs() / found.S[::3]).max() > 0.5
    no_gain = torch.linalg.svdvals(product(w, "qk"))[:, :4]
    assert ((no_gain - found.S).abs() / found.S).max() > 0.5
    assert "QK-norm" in found.summary()
    assert "QK-norm" not in hs.ov_svd(w).summary()


def test_biases_are_one_more_row():
    w = random_heads(4, 10, 3, kv=2, b_Q=torch.ones(4, 3), b_V=torch.full((2, 3), 2.0))
    x = torch.randn(5, 10, generator=torch.Generator().manual_seed(0))
    one = torch.cat([x, torch.ones(5, 1)], 1)
    scores = one @ rebuilt(hs.qk_svd(w, biases=True)) @ one.mT
    grown = w.expand_kv()
    torch.testing.assert_close(scores, (x @ grown.W_Q + 1) @ (x @ grown.W_K).mT)
    written = one @ rebuilt(hs.ov_svd(w, biases=True))
    torch.testing.assert_close(written, (x @ grown.W_V + 2) @ grown.W_O)
    assert hs.ov_svd(w, biases=True).Vh.shape == (4, 3, 10)
    assert "biases are left out" in hs.qk_svd(w).summary()
    assert "biases are left out" not in hs.qk_svd(w, biases=True).summary()


def test_layers_and_steps_are_stacked():
    layers = [random_heads(3, 12, 4, seed=i, layer=i, step=8, model="m") for i in range(2)]
    for circuit in ("qk", "ov"):
        found, values = SVD[circuit](layers), SPECTRUM[circuit](layers)
        assert found.U.shape == (2, 3, 12, 4)
        for i, layer in enumerate(layers):
            one = SVD[circuit](layer)
            for name in ("U", "S", "Vh", "norm"):
                assert torch.equal(getattr(found, name)[i], getattr(one, name))
        torch.testing.assert_close(values.S, found.S, rtol=1e-6, atol=0)
    assert SVD["qk"](layers[:1]).S.shape == (1, 3, 4)
    steps = [random_heads(3, 12, 4, seed=i, layer=1, step=i) for i in range(2)]
    frame = hs.qk_spectrum(steps).to_frame()
    assert frame.groupby("step")["layer"].unique().map(list).to_dict() == {0: [1], 1: [1]}
    assert hs.qk_spectrum(steps).step is None


@pytest.mark.parametrize("k", [1, 3])
def test_truncation_keeps_the_largest(k):
    w = random_heads(3, 20, 5)
    whole, kept = hs.qk_svd(w), hs.qk_svd(w, k=k)
    torch.testing.assert_close(kept.U, whole.U[..., :k])
    torch.testing.assert_close(kept.Vh, whole.Vh[:, :k])
    assert torch.equal(kept.S, whole.S[:, :k])
    assert torch.equal(kept.norm, whole.norm)
    shares = whole.variance_shares
    np.testing.assert_allclose(shares.sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(kept.variance_shares, shares[:, :k])


def test_signs_are_fixed_and_can_be_matched():
    w = random_heads(4, 16, 3, dtype=torch.float64)
    found = hs.qk_svd(w)
    fixed = torch.arange(1, 17, dtype=torch.float64).cos()
    assert (fixed @ found.U >= 0).all()
    other = HeadWeights(W_Q=w.W_Q.flip(-1), W_K=w.W_K.flip(-1), W_V=w.W_V, W_O=w.W_O)
    torch.testing.assert_close(hs.qk_svd(other).U, found.U)  # LAPACK alone may turn them
    turned = hs.qk_svd(HeadWeights(W_Q=-w.W_Q, W_K=w.W_K, W_V=w.W_V, W_O=w.W_O))
    torch.testing.assert_close(turned.U, found.U)
    torch.testing.assert_close(turned.Vh, -found.Vh)
    flipped = replace(found, U=-found.U, Vh=-found.Vh)
    matched = flipped.signs_like(found)
    assert torch.equal(matched.U, found.U)
    assert torch.equal(matched.Vh, found.Vh)
    with pytest.raises(InputError, match="vectors of the same heads"):
        found.signs_like(hs.qk_svd(w, k=1))


def test_signs_are_matched_on_both_sides():
    """A left vector that has turned by more than a right angle, a right one that has not."""
    w = random_heads(1, 8, 1, dtype=torch.float64)
    before = hs.qk_svd(w)
    across = torch.zeros_like(before.U)
    across[0, :2, 0] = torch.stack([before.U[0, 1, 0], -before.U[0, 0, 0]])
    turned = -0.2 * before.U + across / across.norm()
    after = replace(before, U=turned / turned.norm())
    assert (after.U * before.U).sum() < 0
    assert torch.equal(after.signs_like(before).Vh, before.Vh)


def test_signs_flip_less_often_than_by_the_largest_entry():
    """Between checkpoints, of vectors that stayed (overlap above .9)."""
    suite = hs.open_suite("micro-small")
    flips = np.zeros(2)
    total = 0
    for layer in range(2):
        steps = [suite.head_weights(step, layer) for step in suite.steps]
        found = hs.qk_svd(steps, dtype=torch.float64)
        overlap = (found.U[1:] * found.U[:-1]).sum(-2)
        stayed = overlap.abs() > 0.9
        largest = found.U.gather(-2, found.U.abs().argmax(-2, keepdim=True)).squeeze(-2).sign()
        by_largest = overlap * largest[1:] * largest[:-1]
        flips += [int((o[stayed] < 0).sum()) for o in (overlap, by_largest)]
        total += int(stayed.sum())
        matched = found.signs_like(found)
        assert torch.equal(matched.U, found.U)
    assert total > 200
    assert flips[0] < 0.75 * flips[1]
    assert flips[0] / total < 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_as_float32(dtype):
    w = random_heads(3, 16, 4, dtype=dtype)
    found, single = hs.qk_svd(w), hs.qk_svd(w.to(torch.float32))
    assert found.S.dtype == torch.float32
    assert torch.equal(found.S, single.S)
    assert hs.ov_spectrum(w, dtype=torch.float64).S.dtype == torch.float64


def test_frame_summary_and_files(tmp_path):
    w = random_heads(3, 12, 4, model="m", step=8, layer=2, processing="fold_ln")
    found = hs.qk_svd(w, k=2)
    frame = found.to_frame()
    assert frame.columns[:11].tolist() == list(results.TIDY_COLUMNS)
    assert len(frame) == 6
    row = frame[(frame["head"] == 1) & (frame["rank"] == 2)].iloc[0]
    assert (row["metric"], row["step"], row["layer"]) == ("qk.singular_value", 8, 2)
    assert row["value"] == float(found.S[1, 1])
    assert row["variance_share"] == found.variance_shares[1, 1]
    assert (row["form"], row["offset"], row["processing"]) == ("offset 0", 0, "fold_ln")
    assert hs.ov_spectrum(w).to_frame()["offset"].isna().all()
    assert "QK circuits of m at step 8" in found.summary()
    assert "processing fold_ln" in found.summary()
    for suffix in ("json", "parquet"):
        for result in (found, hs.ov_spectrum(w)):
            path = tmp_path / f"{result.circuit}.{suffix}"
            results.save(result, path)
            back = results.load(path)
            assert type(back) is type(result)
            assert torch.equal(back.S, result.S)
            assert (back.layers, back.steps, back.notes) == (
                result.layers,
                result.steps,
                result.notes,
            )


def test_nothing_of_the_callers_changes():
    w = random_heads(2, 8, 3)
    w.W_Q.requires_grad_()
    before = {name: getattr(w, name).detach().clone() for name in ("W_Q", "W_K", "W_V", "W_O")}
    found = hs.qk_svd(w)
    assert not found.U.requires_grad
    assert torch.is_grad_enabled()
    for name, value in before.items():
        assert torch.equal(getattr(w, name), value)


def test_what_the_model_does_beside_is_noted():
    w = random_heads(2, 8, 3, qkv_clip=8.0)
    assert "clips queries, keys and values at 8" in hs.ov_svd(w).summary()


def test_errors():
    w = random_heads(3, 12, 4, layer=5)
    for k in (0, 5):
        with pytest.raises(InputError, match="k from 1 to 4"):
            hs.qk_svd(w, k=k)
    with pytest.raises(InputError, match="at least one layer"):
        hs.ov_svd([])
    with pytest.raises(InputError, match="same heads and widths"):
        hs.qk_spectrum([w, random_heads(4, 12, 4)])
    bad = random_heads(3, 12, 4, kv=1, layer=5)
    bad.W_K[0, 2, 1] = torch.inf
    with pytest.raises(InputError, match=r"key-value heads \[0\] of layer 5"):
        hs.qk_spectrum(bad)
    bad.W_O[1, 2, 1] = torch.nan
    with pytest.raises(InputError, match=r"OV circuits; got NaN or infinity in heads \[1\]"):
        hs.ov_svd(bad)
    scaled = random_heads(3, 12, 4, rotary=Rotary(4, scaling="yarn"))
    hs.qk_svd(scaled)
    with pytest.raises(InputError, match="give frequencies="):
        hs.qk_svd(scaled, offset=1)


def test_products_beyond_float32_are_an_error():
    w = random_heads(2, 8, 3)
    w.W_Q.mul_(1e30)
    w.W_K.mul_(1e30)
    for function in (hs.qk_svd, hs.qk_spectrum):
        with pytest.raises(InputError, match=r"got a norm of .*dtype=torch.float64"):
            function(w)
        found = function(w, dtype=torch.float64)
        assert torch.isfinite(found.S).all()
        np.testing.assert_allclose(found.variance_shares.sum(-1), 1)
    w.W_Q.mul_(1e-60)
    w.W_K.mul_(1e-60)
    assert (hs.qk_svd(w).S == 0).all()  # a dead head is no error
    with pytest.raises(InputError, match="dtype out of"):
        hs.qk_svd(w, dtype=torch.float16)


@pytest.mark.parametrize("how", ["offset", "gains"])
def test_accuracy_with_gains_and_turns(how):
    """They are applied in float32: 1e-7 of the largest value, not of each."""
    A, B = cursed_factor(1e4, seed=0), cursed_factor(1e4, seed=1)
    gains = 1 + torch.rand(12, generator=torch.Generator().manual_seed(0))
    w = HeadWeights(W_Q=A, W_K=B, W_V=A, W_O=B.mT, rotary=Rotary(12))
    w, offset = (w, 3) if how == "offset" else (replace(w, q_norm=gains, k_norm=gains), 0)
    found, exact = (hs.qk_svd(w, offset=offset, dtype=d).S.double() for d in (None, torch.float64))
    assert ((found - exact).abs() <= 1e-7 * exact[:, :1]).all()
    assert ((found - exact).abs() / exact).max() > 1e-6


def test_zeros_have_zero_values():
    w = random_heads(2, 8, 3)
    w.W_V.zero_()
    found = hs.ov_svd(w)
    assert (found.S == 0).all()
    assert (found.variance_shares == 0).all()
    assert_orthonormal(found)
    assert "Largest: 0" in found.summary()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_same_on_the_gpu():
    w = random_heads(6, 32, 8, kv=2, rotary=Rotary(4))
    for function in (hs.qk_svd, hs.ov_svd):
        here, there = function(w), function(w.to(device="cuda"))
        assert there.U.device.type == "cuda"
        torch.testing.assert_close(there.S.cpu(), here.S, rtol=1e-6, atol=0)
        torch.testing.assert_close(there.U.cpu(), here.U, rtol=0, atol=1e-4)
        assert there.to_frame().shape == here.to_frame().shape
    for offset in (1, range(8), None):
        there = hs.qk_spectrum(w.to(device="cuda"), offset=offset).S.cpu()
        torch.testing.assert_close(there, hs.qk_spectrum(w, offset=offset).S, rtol=1e-5, atol=1e-6)
