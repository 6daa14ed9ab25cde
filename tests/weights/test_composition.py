"""Composition scores: by hand, against the products themselves, their null, and real circuits."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_circuits import induction_layers
from random_heads import random_heads, rejection_bounds

import headspec as hs
from headspec import HeadWeights, Rotary, composition_scores
from headspec.errors import InputError
from headspec.results import load, save
from headspec.weights.rotary_angles import rotate

Kind = Literal["q", "k", "v"]


def two_layers(n: int = 4, d_model: int = 24, d_head: int = 4, seed: int = 0, **more):
    return [
        random_heads(n, d_model, d_head, seed=seed + layer, layer=layer, **more)
        for layer in range(2)
    ]


def products(weights: HeadWeights, kind: str) -> torch.Tensor:
    """The `d_model d_model` matrices that composition_scores never forms."""
    grown = weights.to(torch.float64).expand_kv()
    if kind == "v":
        return grown.W_V @ grown.W_O
    qk = grown.W_Q @ grown.W_K.mT
    return qk if kind == "q" else qk.mT


def naive(upstream: HeadWeights, downstream: HeadWeights, kind: str) -> np.ndarray:
    first, second = products(upstream, "v"), products(downstream, kind)
    norm = torch.linalg.matrix_norm
    both = norm(first[:, None] @ second[None])
    return (both / norm(first)[:, None] / norm(second)[None, :]).numpy()


def one_head(V, out, Q, K, layer) -> HeadWeights:
    read = [torch.tensor(column, dtype=torch.float64)[None, :, None] for column in (V, Q, K)]
    write = torch.tensor(out, dtype=torch.float64)[None, None, :]
    return HeadWeights(W_Q=read[1], W_K=read[2], W_V=read[0], W_O=write, layer=layer)


def test_by_hand():
    """What is written along (0, 1, 0): all of K reads it, 3/5 of Q, nothing of V."""
    first = one_head(V=[5, 0, 0], out=[0, 2, 0], Q=[1, 0, 0], K=[1, 0, 0], layer=0)
    second = one_head(V=[0, 0, 7], out=[1, 1, 1], Q=[0, 3, 4], K=[0, 9, 0], layer=1)
    expectations: tuple[tuple[Kind, float], ...] = (("k", 1.0), ("q", 0.6), ("v", 0.0))
    for kind, expected in expectations:
        found = composition_scores(first, second, kind=kind)
        assert found.scores.item() == pytest.approx(expected, abs=1e-6)
        # single directions of R^3: E cos^2 = 1/3
        assert found.null_mean.item() ** 2 + found.null_sd.item() ** 2 == pytest.approx(1 / 3)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 99),
    st.sampled_from(["q", "k", "v"]),
    st.sampled_from([(4, 4), (4, 2), (6, 1)]),
    st.sampled_from([(12, 3), (5, 5), (4, 6)]),
)
def test_equal_to_the_products(seed, kind, heads, widths):
    first, second = two_layers(heads[0], *widths, seed=seed, kv=heads[1])
    found = composition_scores(first, second, kind=kind)
    np.testing.assert_allclose(found.scores, naive(first, second, kind), rtol=2e-6)


@pytest.mark.parametrize("kind", ["q", "k", "v"])
def test_gauge_scale_and_rotation_of_the_stream_change_nothing(kind):
    first, second = two_layers(dtype=torch.float64)
    plain = composition_scores(first, second, kind=kind)
    A = torch.eye(4, dtype=torch.float64) + 0.3 * torch.ones(4, 4, dtype=torch.float64)
    Q = torch.linalg.qr(torch.randn(24, 24, dtype=torch.float64)).Q

    def changed(w: HeadWeights) -> HeadWeights:
        inverse = torch.linalg.inv(A)
        return replace(
            w,
            W_Q=7 * Q.mT @ w.W_Q @ A,
            W_K=Q.mT @ w.W_K @ inverse.mT,
            W_V=Q.mT @ w.W_V @ A,
            W_O=inverse @ w.W_O @ Q * 1e-20,
        )

    other = composition_scores(changed(first), changed(second), kind=kind)
    np.testing.assert_allclose(other.scores, plain.scores, rtol=1e-5)
    np.testing.assert_allclose(other.null_sd, plain.null_sd, rtol=1e-6)
    np.testing.assert_allclose(other.p_values, plain.p_values, rtol=1e-3)
    # negative control: turning one side alone is another circuit
    other = composition_scores(changed(first), second, kind=kind)
    assert not np.allclose(other.scores, plain.scores, rtol=1e-2)


def test_order_of_layers():
    layers = [*two_layers(n=2), random_heads(2, 24, 4, layer=2)]
    found = composition_scores(layers, layers, kind="k")
    assert found.scores.shape == (6, 6)
    defined = ~np.isnan(found.scores)
    up, down = np.arange(6)[:, None] // 2, np.arange(6)[None] // 2
    np.testing.assert_array_equal(defined, up < down)
    np.testing.assert_array_equal(~np.isnan(found.q_values), up < down)
    frame = found.to_frame()
    assert len(frame) == 12
    assert (frame["layer"].to_numpy() < frame["layer_2"].to_numpy()).all()
    with pytest.raises(InputError, match="upstream layer before"):
        composition_scores(layers[1], layers[0], kind="k")


def test_grouped_heads_share_keys_and_values():
    first, second = two_layers(n=4, kv=2)
    scores = composition_scores(first, second, kind="k").scores
    np.testing.assert_allclose(scores, naive(first, second, "k"), rtol=1e-6)
    assert not np.allclose(scores[:, 0], scores[:, 1])  # W_Q is each head's own
    alike = replace(second, W_Q=second.W_Q[::2].repeat_interleave(2, 0))
    scores = composition_scores(first, alike, kind="k").scores
    np.testing.assert_allclose(scores[:, 0], scores[:, 1], rtol=1e-6)


def test_gains_of_qk_norm_are_in():
    first, second = two_layers()
    gain = torch.tensor([10.0, 1, 1, 0.1])
    normed = replace(second, q_norm=gain, k_norm=torch.ones(4))
    scaled = replace(second, W_Q=second.W_Q * gain)
    found, expected = (composition_scores(first, w, kind="k").scores for w in (normed, scaled))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert not np.allclose(found, composition_scores(first, second, kind="k").scores)


def test_rotary_offsets():
    rotary = Rotary(dim=4, base=50.0)
    first, second = two_layers(rotary=rotary)
    turned = replace(second, W_Q=rotate(second.W_Q, 3, rotary))
    kinds: tuple[Kind, ...] = ("q", "k")
    for kind in kinds:
        found = composition_scores(first, second, kind=kind, offset=3).scores
        np.testing.assert_allclose(found, naive(first, turned, kind), rtol=1e-5)
        assert not np.allclose(found, naive(first, second, kind), rtol=1e-3)


def test_half_precision_and_zeros():
    first, second = two_layers(dtype=torch.bfloat16)
    found = composition_scores(first, second, kind="q")
    np.testing.assert_allclose(found.scores, naive(first, second, "q"), rtol=1e-5)
    first.W_O[2] = 0
    found = composition_scores(first, second, kind="q")
    assert np.isnan(found.scores[2]).all()
    assert np.isnan(found.p_values[2]).all()
    assert not np.isnan(found.scores[[0, 1, 3]]).any()


def test_the_null_holds_its_level():
    """Unrelated heads whose singular values fall off: 5 % and 1 % of the pairs are rejected."""
    decay = torch.tensor([1.0, 0.4, 0.2, 0.1])
    first, second = two_layers(n=60, d_model=32)
    first = replace(first, W_O=first.W_O * decay[:, None] * 3)
    second = replace(second, W_K=second.W_K * decay)
    found = composition_scores(first, second, kind="k")
    for level in (0.05, 0.01):
        low, high = rejection_bounds(found.scores.size, level)
        assert 0.85 * low <= (found.p_values <= level).sum() <= 1.25 * high
    assert found.scores.mean() == pytest.approx(found.null_mean.mean(), rel=0.02)
    assert (found.q_values < 0.05).sum() <= 2
    # pitfall: the usual Gaussian baseline rejects them, since a few large values vary more
    usual = composition_scores(first, second, kind="k", null="gaussian")
    assert (usual.p_values <= 0.01).mean() > 0.03


def test_the_gaussian_null_holds_its_level_for_gaussian_heads():
    first, second = two_layers(n=60, d_model=32)
    found = composition_scores(first, second, kind="v", null="gaussian", seed=3)
    low, high = rejection_bounds(found.scores.size, 0.05)
    assert 0.8 * low <= (found.p_values <= 0.05).sum() <= 1.25 * high
    again = composition_scores(first, second, kind="v", null="gaussian", seed=3)
    np.testing.assert_array_equal(found.p_values, again.p_values)


def test_a_planted_induction_circuit_is_found():
    layers = induction_layers()
    found = composition_scores(layers[0], layers[1], kind="k")
    assert np.unravel_index(found.scores.argmax(), found.scores.shape) == (2, 5)
    assert found.q_values[2, 5] < 1e-6
    assert (found.q_values < 0.05).sum() == 1
    others: tuple[Kind, ...] = ("q", "v")
    for kind in others:  # it is K-composition and nothing else
        assert (composition_scores(layers[0], layers[1], kind=kind).q_values < 0.05).sum() == 0


def test_the_embedded_suite_composes_its_previous_token_head_with_its_induction_heads():
    suite = hs.open_suite("micro")
    scores = hs.head_score_curve("micro").query("step == 6144 and layer == 2")
    induction = scores.query("metric == 'induction' and value > .3")["head"].tolist()
    first, second = (suite.head_weights(6144, layer) for layer in (1, 2))
    found = composition_scores(first, second, kind="k")
    assert sorted(np.argsort(-found.scores[5])[: len(induction)]) == sorted(induction)
    assert (found.q_values[5, induction] < 1e-6).all()
    others = np.setdiff1d(np.arange(12), induction)
    assert (found.excess[5, others] < 0).all()
    start = [suite.head_weights(0, layer) for layer in (1, 2)]
    assert (composition_scores(*start, kind="k").q_values < 0.05).sum() == 0


def test_result_round_trips_and_speaks(tmp_path):
    layers = induction_layers()
    found = composition_scores(layers, layers, kind="k")
    save(found, tmp_path / "found.json")
    again = load(tmp_path / "found.json")
    np.testing.assert_array_equal(again.scores, found.scores)
    assert again.upstream == found.upstream
    frame = found.to_frame()
    assert list(frame.columns[:6]) == ["model", "step", "layer", "head", "metric", "value"]
    assert set(frame["metric"]) == {"k_composition"}
    np.testing.assert_allclose(frame["excess"], frame["value"] - frame["null_mean"])
    assert "L0H2 -> L1H5" in found.summary()
    assert "1 of 64 pairs" in found.summary()


def test_messages():
    first, second = two_layers()
    with pytest.raises(InputError, match=r"HeadWeights\(layer=\.\.\.\)"):
        composition_scores(first, replace(second, layer=0), kind="k")
    with pytest.raises(InputError, match="d_model 24 and 16"):
        composition_scores(first, random_heads(4, 16, 4, layer=1), kind="k")
    for mixed in ([first, replace(first, step=8)], [first, replace(second, step=8)]):
        with pytest.raises(InputError, match=r"one checkpoint, once each; got layers .*None, 8"):
            composition_scores(mixed, replace(second, layer=2), kind="k")
    for other in ({"step": 8}, {"model": "another"}):
        with pytest.raises(InputError, match="heads of one checkpoint; got step"):
            composition_scores(first, replace(second, **other), kind="k")
    broken = replace(second, W_K=second.W_K.clone())
    broken.W_K[1, 0, 0] = torch.nan
    with pytest.raises(InputError, match=r"heads \[1\] of layer 1"):
        composition_scores(first, broken, kind="k")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_same_on_the_gpu():
    first, second = two_layers()
    there = [w.to(device="cuda") for w in (first, second)]
    here = composition_scores(first, second, kind="k")
    found = composition_scores(*there, kind="k")
    np.testing.assert_allclose(found.scores, here.scores, rtol=1e-4)
    np.testing.assert_allclose(found.null_sd, here.null_sd, rtol=1e-6)
