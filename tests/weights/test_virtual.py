"""Virtual weights: the products themselves, from factors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_circuits import induction_layers
from random_heads import random_heads

from headspec import Head, Rotary, composition_scores, virtual_weights
from headspec.errors import InputError
from headspec.results import load, save
from headspec.weights.rotary_angles import rotate


def two_layers(n: int = 4, kv: int | None = None, d_head: int = 3, seed: int = 0, **more):
    return [
        random_heads(n, 12, d_head, kv=kv, seed=seed + i, layer=i, dtype=torch.float64, **more)
        for i in range(2)
    ]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.sampled_from([None, 2, 1]), st.sampled_from([1, 3, 14]))
def test_equal_to_the_products(seed, kv, d_head):
    layers = two_layers(kv=kv, d_head=d_head, seed=seed)
    up, down = (w.expand_kv() for w in layers)
    written = up.W_V[1] @ up.W_O[1]
    score = down.W_Q[2] @ down.W_K[2].mT
    for kind, read in (("q", score), ("k", score.mT), ("v", down.W_V[2] @ down.W_O[2])):
        found = virtual_weights(layers, [("L0H1", "L1H2")], kind=kind)  # pyright: ignore
        torch.testing.assert_close(found.matrices[0], written @ read)
        expected = torch.linalg.svdvals(written @ read)[: found.singular_values.shape[1]]
        torch.testing.assert_close(found.singular_values[0], expected, atol=1e-9, rtol=1e-6)


def test_norm_is_the_composition_score():
    layers = two_layers()
    scores = composition_scores(layers[0], layers[1], kind="k").scores
    pairs = [(Head(0, i), Head(1, j)) for i in range(4) for j in range(4)]
    norms = virtual_weights(layers, pairs, kind="k").singular_values.norm(dim=1).view(4, 4)
    up = torch.linalg.matrix_norm(layers[0].W_V @ layers[0].W_O)
    down = torch.linalg.matrix_norm(layers[1].W_Q @ layers[1].W_K.mT)
    np.testing.assert_allclose(scores, norms / up[:, None] / down[None], rtol=1e-6)


def test_offset_of_rotary_heads():
    rotary = Rotary(dim=2)
    layers = two_layers(rotary=rotary)
    up, down = layers
    found = virtual_weights(layers, [("L0H0", "L1H0")], kind="q", offset=4)
    turned = rotate(down.W_Q[0], 4, rotary) @ down.W_K[0].mT
    torch.testing.assert_close(found.matrices[0], up.W_V[0] @ up.W_O[0] @ turned)


def test_a_planted_circuit_passes_tokens_on():
    """An equal token before scores 1 with the query's token, others 0: eight values of 1."""
    found = virtual_weights(induction_layers(), [("L0H2", "L1H5")], kind="k")
    torch.testing.assert_close(
        found.singular_values, torch.ones(1, 8, dtype=torch.float64), atol=1e-5, rtol=0
    )


def test_result_round_trips_and_speaks(tmp_path):
    found = virtual_weights(two_layers(), [("L0H1", "1.2")], kind="v")
    save(found, tmp_path / "virtual.json")
    again = load(tmp_path / "virtual.json")
    assert torch.equal(again.left, found.left)
    assert again.pairs == found.pairs == ((Head(0, 1), Head(1, 2)),)
    frame = found.to_frame()
    assert frame["rank"].tolist() == [1, 2, 3]
    assert frame["value"].tolist() == pytest.approx(found.singular_values[0].tolist())
    assert "L0H1 -> L1H2" in found.summary()


def test_messages():
    layers = two_layers()
    with pytest.raises(InputError, match="L2H0"):
        virtual_weights(layers, [("L0H0", "L2H0")], kind="k")
    with pytest.raises(InputError, match="L1H4"):
        virtual_weights(layers, [("L0H0", "L1H4")], kind="k")
    with pytest.raises(InputError, match="upstream layer before"):
        virtual_weights(layers, [("L1H0", "L0H0")], kind="k")
    with pytest.raises(InputError, match="once each"):  # the last would be taken, unsaid
        virtual_weights([*layers, layers[0]], [("L0H0", "L1H0")], kind="k")
    with pytest.raises(InputError, match="at least one pair"):
        virtual_weights(layers, [], kind="k")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_same_on_the_gpu():
    layers = two_layers()
    found = virtual_weights([w.to(device="cuda") for w in layers], [("L0H1", "L1H2")], kind="v")
    assert found.left.is_cuda
    expected = virtual_weights(layers, [("L0H1", "L1H2")], kind="v")
    torch.testing.assert_close(found.matrices.cpu(), expected.matrices)
