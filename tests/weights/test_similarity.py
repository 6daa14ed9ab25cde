"""Distances between heads: by hand, gauge invariance, near copies, memory."""

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_heads import random_heads

from headspec import HeadWeights, cluster_heads, head_similarity, results
from headspec.errors import InputError
from headspec.weights import similarity as module
from headspec.weights.features import FEATURES, coordinates, head_factors
from headspec.weights.similarity import paired_distances


def formed(weights: HeadWeights, feature: str) -> np.ndarray:
    """The vectors the plain way, in float64."""
    w = weights.to(torch.float64)
    if len(feature) == 1:
        return getattr(w, f"W_{feature.upper()}").flatten(1).numpy()
    w = w.expand_kv()
    product = w.W_Q @ w.W_K.mT if feature == "qk" else w.W_V @ w.W_O
    return product.flatten(1).numpy()


def plain_distances(rows: np.ndarray) -> np.ndarray:
    return np.linalg.norm(rows[:, None] - rows[None], axis=-1)


def test_two_heads_by_hand():
    W = torch.eye(4).reshape(2, 2, 4).mT.contiguous()  # heads read dims {0,1} and {2,3}
    found = head_similarity(HeadWeights(W_Q=W, W_K=W, W_V=W, W_O=W.mT), feature="qk")
    np.testing.assert_allclose(found.gram, [[2, 0], [0, 2]])
    np.testing.assert_allclose(found.distances, [[0, 2], [2, 0]])
    assert found.n_features == 16
    assert found.gram.dtype == np.float64


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("kv", [6, 2])
def test_equal_to_formed_vectors(feature, kv):
    weights = random_heads(6, kv=kv)
    rows = formed(weights, feature)
    found = head_similarity(weights, feature=feature)
    assert len(found.heads) == (kv if feature in ("k", "v") else 6)
    np.testing.assert_allclose(found.gram, rows @ rows.T, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found.distances, plain_distances(rows), rtol=1e-6)
    np.testing.assert_allclose(found.norms, np.linalg.norm(rows, axis=1), rtol=1e-6)
    unit = head_similarity(weights, feature=feature, unit_norm=True)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(unit.distances, plain_distances(rows), rtol=1e-6)


@pytest.mark.parametrize("feature", FEATURES)
def test_blocks_of_any_width_give_the_same(feature, monkeypatch):
    weights = random_heads(5, dtype=torch.float64)
    whole = head_similarity(weights, feature=feature)
    monkeypatch.setattr(module, "_BLOCK", 17)
    np.testing.assert_allclose(head_similarity(weights, feature=feature).gram, whole.gram)
    rows = coordinates(head_factors(weights, feature))
    assert np.allclose(np.sort(rows, 1), np.sort(formed(weights, feature), 1))


@given(st.integers(0, 2**31), st.sampled_from(["qk", "ov"]))
@settings(max_examples=20, deadline=None)
def test_products_do_not_depend_on_the_gauge(seed, feature):
    weights = random_heads(4, seed=seed, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(4, 4, 4, generator=generator, dtype=torch.float64) + 3 * torch.eye(4)
    turned = HeadWeights(
        W_Q=weights.W_Q @ A,
        W_K=weights.W_K @ torch.linalg.inv(A).mT,
        W_V=weights.W_V @ A,
        W_O=torch.linalg.inv(A) @ weights.W_O,
    )
    before = head_similarity(weights, feature=feature)
    after = head_similarity(turned, feature=feature)
    np.testing.assert_allclose(after.distances, before.distances, rtol=1e-7)
    raw = head_similarity(turned, feature="q").distances  # negative control: raw weights do
    assert not np.allclose(raw, head_similarity(weights, feature="q").distances, rtol=1e-2)


def copies(noise: float, *, dtype=torch.float32, gauge: bool = False) -> tuple[HeadWeights, float]:
    """Two heads of QK norm about 22 that differ by `noise`, and their true distance."""
    base = random_heads(1, 64, 16, dtype=torch.float64)
    scale = (22 / float(torch.linalg.matrix_norm(base.W_Q[0] @ base.W_K[0].mT))) ** 0.5
    Q, K = base.W_Q * scale, base.W_K * scale
    step = torch.randn(Q.shape, generator=torch.Generator().manual_seed(9), dtype=Q.dtype)
    Q2, K2 = Q + noise * step, K
    if gauge:
        A = torch.linalg.qr(torch.randn(16, 16, dtype=Q.dtype, generator=None))[0]
        Q2, K2 = Q2 @ A, K2 @ A
    W_Q, W_K = torch.cat([Q, Q2]).to(dtype), torch.cat([K, K2]).to(dtype)
    heads = HeadWeights(W_Q=W_Q, W_K=W_K, W_V=W_K, W_O=W_Q.mT)
    rows = formed(heads, "qk")
    return heads, float(np.linalg.norm(rows[0] - rows[1]))


@pytest.mark.parametrize("noise", [1e-7, 1e-6, 1e-5, 2e-5])
def test_near_copies_keep_their_distance(noise):
    """A float32 Gram gives 0 or garbage for distances of 7e-6 to 1.5e-3 at norm 22."""
    heads, true = copies(noise)
    found = head_similarity(heads, feature="qk")
    assert found.norms[0] == pytest.approx(22, rel=1e-3)
    assert 0 < true < 5e-3
    assert found.distances[0, 1] == pytest.approx(true, rel=0.02)
    rows = formed(heads, "qk").astype(np.float32)
    gram = rows @ rows.T
    naive = np.sqrt(max(gram[0, 0] + gram[1, 1] - 2 * gram[0, 1], 0))
    assert abs(naive - true) > 0.5 * true  # the naive way gets it wrong


def test_near_copies_in_another_basis_and_in_double_precision():
    torch.manual_seed(0)
    heads, true = copies(1e-9, dtype=torch.float64, gauge=True)
    assert 1e-9 < true < 1e-6
    found = head_similarity(heads, feature="qk").distances[0, 1]
    assert found == pytest.approx(true, rel=0.02)
    unit = head_similarity(heads, feature="qk", unit_norm=True)
    rows = formed(heads, "qk")
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert unit.distances[0, 1] == pytest.approx(np.linalg.norm(rows[0] - rows[1]), rel=0.02)


def test_many_near_copies():
    base = random_heads(1, 32, 4)
    noise = 1e-4 * random_heads(30, 32, 4, seed=1).W_Q
    heads = HeadWeights(
        W_Q=base.W_Q + noise,
        W_K=base.W_K.expand(30, -1, -1),
        W_V=base.W_V.expand(30, -1, -1),
        W_O=base.W_O.expand(30, -1, -1),
    )
    for feature in ("q", "qk"):
        found = head_similarity(heads, feature=feature)
        true = plain_distances(formed(heads, feature))
        np.testing.assert_allclose(found.distances, true, rtol=1e-3)
    assert not head_similarity(heads, feature="v").distances.any()


def test_qk_norm_gains_are_folded():
    gain = torch.linspace(0.5, 2, 4)
    per_head = torch.rand(6, 4, generator=torch.Generator().manual_seed(0)) + 0.5
    plain = random_heads(6)
    shared = random_heads(6, q_norm=gain, k_norm=gain)
    np.testing.assert_allclose(
        head_similarity(shared, feature="qk").gram,
        head_similarity(random_heads(6, W_Q=plain.W_Q * gain**2), feature="qk").gram,
        rtol=1e-4,
        atol=1e-3,
    )
    own = random_heads(6, q_norm=per_head)
    np.testing.assert_allclose(
        head_similarity(own, feature="qk").gram,
        head_similarity(random_heads(6, W_Q=plain.W_Q * per_head[:, None]), feature="qk").gram,
        rtol=1e-5,
    )
    assert (
        head_similarity(shared, feature="q").gram == head_similarity(plain, feature="q").gram
    ).all()


def test_several_layers_and_their_frame():
    layers = [random_heads(3, seed=i, layer=i, model="m", step=8, kv=3) for i in range(2)]
    found = head_similarity(layers, feature="qk")
    rows = np.concatenate([formed(layer, "qk") for layer in layers])
    np.testing.assert_allclose(found.distances, plain_distances(rows), rtol=1e-6)
    assert found.layers == (0, 0, 0, 1, 1, 1)
    assert found.heads == (0, 1, 2, 0, 1, 2)
    assert (found.layer, found.step, found.model) == (None, 8, "m")
    frame = found.to_frame()
    assert list(frame.columns[:11]) == list(results.TIDY_COLUMNS)
    pair = frame.query("metric == 'distance' and layer == 0 and layer_2 == 1 and head == 2")
    np.testing.assert_allclose(pair.sort_values("head_2")["value"], found.distances[2, 3:])
    cosines = frame.query("metric == 'similarity'")["value"]
    assert cosines.abs().max() < 1


def test_groups_under_grouped_query_attention():
    found = head_similarity(random_heads(6, kv=2), feature="qk")
    assert found.groups == (0, 0, 0, 1, 1, 1)
    assert head_similarity(random_heads(6, kv=2), feature="q").groups == tuple(range(6))


def test_half_precision_weights_are_used_as_float32():
    weights = random_heads(4, dtype=torch.bfloat16)
    rows = formed(weights, "ov")
    found = head_similarity(weights, feature="ov")
    np.testing.assert_allclose(found.distances, plain_distances(rows), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gains_are_multiplied_as_float32(dtype):
    """Pitfall: a product rounded to half precision first is off by the rounding, or infinite."""
    gain = torch.tensor([1.003, 0.7, 1.9, 60.0]).to(dtype)
    weights = random_heads(4, dtype=dtype, q_norm=gain, k_norm=gain)
    weights.W_Q[0, 0, 3] = 3000.0  # times 60 is beyond float16
    single = random_heads(
        4,
        W_Q=weights.W_Q.float(),
        W_K=weights.W_K.float(),
        q_norm=gain.float(),
        k_norm=gain.float(),
    )
    found = head_similarity(weights, feature="qk")
    assert (found.gram == head_similarity(single, feature="qk").gram).all()
    rounded = random_heads(4, W_Q=weights.W_Q * gain, W_K=weights.W_K * gain)
    if dtype == torch.bfloat16:  # negative control
        naive = head_similarity(rounded, feature="qk").gram
        assert not np.allclose(naive, found.gram, rtol=1e-3)


@pytest.mark.parametrize("scale", [1e10, 1e-15])
@pytest.mark.parametrize("feature", ["q", "qk"])
def test_weights_of_any_size(scale, feature):
    """Squares beyond float32 are taken in float64 instead of becoming infinite or 0."""
    weights = random_heads(5)
    scaled = random_heads(5, W_Q=weights.W_Q * scale, W_K=weights.W_K * scale)
    power = 2 if feature == "qk" else 1
    plain, found = (head_similarity(one, feature=feature) for one in (weights, scaled))
    np.testing.assert_allclose(found.distances / scale**power, plain.distances, rtol=1e-5)
    for null in ("norm_matched", "permuted"):
        p_values = [
            cluster_heads(one, feature=feature, null=null, n_null=19).p_value
            for one in (weights, scaled)
        ]
        assert p_values[0] == p_values[1]


def test_zero_and_identical_heads():
    weights = random_heads(3)
    W_Q = weights.W_Q.clone()
    W_Q[0] = 0
    W_Q[1] = W_Q[2]
    found = head_similarity(random_heads(3, W_Q=W_Q), feature="q")
    assert found.distances[1, 2] == 0
    assert found.distances[0, 1] == pytest.approx(found.norms[1])
    assert (found.cosines[0] == 0).all()
    with pytest.raises(InputError, match="rows \\[0\\]"):
        head_similarity(random_heads(3, W_Q=W_Q), feature="q", unit_norm=True)


def test_paired_distances_by_hand():
    one, other = random_heads(3, seed=0), random_heads(3, seed=1)
    for feature in ("o", "qk"):
        found = paired_distances(head_factors(one, feature), head_factors(other, feature))
        true = np.linalg.norm(formed(one, feature) - formed(other, feature), axis=1)
        np.testing.assert_allclose(found, true, rtol=1e-6)


def test_errors_name_what_is_wrong(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # let wrong words through
    bad = random_heads(3)
    bad.W_Q[1, 0, 0] = float("nan")
    with pytest.raises(InputError, match=r"NaN or infinity in heads \[1\] of layer 0"):
        head_similarity(bad, feature="qk")
    head_similarity(bad, feature="v")
    with pytest.raises(InputError, match="same d_model"):
        head_similarity([random_heads(3), random_heads(3, 16)], feature="q")
    with pytest.raises(InputError, match="one of 'q'"):
        head_factors(random_heads(3), "w")  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", ["json", "parquet"])
def test_saved_and_loaded(tmp_path, suffix):
    found = head_similarity(random_heads(3), feature="qk")
    loaded = results.load(results.save(found, tmp_path / f"x.{suffix}"))
    assert (loaded.distances == found.distances).all()
    assert loaded.groups == found.groups
