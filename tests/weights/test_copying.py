"""Copying scores: known heads, the vocabulary's own matrix, and two nulls by brute force."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_circuits import induction_layers
from random_heads import random_heads, rejection_bounds

import headspec as hs
from headspec import HeadWeights, copying_scores
from headspec.errors import InputError
from headspec.results import load, save
from headspec.weights.copying_null import null_scores, positivity, vocabulary_of


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ov_head(matrix: torch.Tensor) -> HeadWeights:
    """One head with W_V W_O = matrix."""
    one = torch.eye(len(matrix), dtype=torch.float64)[None]
    return HeadWeights(W_Q=one, W_K=one, W_V=one, W_O=matrix.double()[None])


def test_by_hand():
    one = torch.eye(3)
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # eigenvalues i, -i, 1
    for matrix, expected in ((one, 1.0), (-one, -1.0), (turn, 1 / 3), (torch.zeros(3, 3), np.nan)):
        for vocabulary in ((one, one), (None, None)):
            found = copying_scores(ov_head(matrix), *vocabulary, n_null=0)
            assert found.scores.item() == pytest.approx(expected, nan_ok=True)
            assert np.isnan(found.p_values).all()
    # unembedding token i + 1 where i is read: eigenvalues are the third roots of 1, their sum 0
    shifted = copying_scores(ov_head(one), one, one.roll(1, 0), n_null=0)
    assert shifted.scores.item() == pytest.approx(0, abs=1e-6)
    assert shifted.eigenvalues.shape == (1, 3)
    assert "without a null" in shifted.summary()
    assert "nan" not in shifted.summary()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.sampled_from([4, 2, 1]), st.sampled_from([2, 5]))
def test_equal_to_eigenvalues_of_the_vocabularys_matrix(seed, kv, d_head):
    heads = random_heads(4, 6, d_head, kv=kv, seed=seed)
    embed, unembed = draw(30, 6, seed=seed), draw(6, 30, seed=seed + 1)
    found = copying_scores(heads, embed, unembed, n_null=0)
    grown = heads.to(torch.float64).expand_kv()
    for head in range(4):
        whole = torch.linalg.eigvals(embed @ grown.W_V[head] @ grown.W_O[head] @ unembed)
        expected = float(whole.real.sum() / whole.abs().sum())
        assert found.scores[head] == pytest.approx(expected, abs=1e-5)


def test_gauge_changes_nothing():
    heads = random_heads(3, 8, 3, dtype=torch.float64)
    A = draw(3, 3, seed=5)
    turned = replace(heads, W_V=heads.W_V @ A, W_O=torch.linalg.inv(A) @ heads.W_O)
    tables = draw(20, 8, seed=1), draw(8, 20, seed=2)
    np.testing.assert_allclose(
        copying_scores(turned, *tables, n_null=0).scores,
        copying_scores(heads, *tables, n_null=0).scores,
    )


def test_the_vocabularys_null_is_that_of_permuted_tokens():
    """Mean and spread over random pairings, with a common part in both embeddings."""
    heads = random_heads(2, 10, 3, dtype=torch.float64)
    embed = draw(400, 10, seed=1) + 0.3 * draw(10, seed=3)
    unembed = draw(10, 400, seed=2) + 0.3 * draw(10, 1, seed=4)
    rng = np.random.default_rng(0)
    drawn = null_scores(heads.W_O, heads.W_V, vocabulary_of(embed, unembed), 2000, rng)
    permuted = np.empty((2, 2000))
    for i in range(2000):
        core = heads.W_O @ (unembed[:, torch.from_numpy(rng.permutation(400))] @ embed) @ heads.W_V
        permuted[:, i] = positivity(torch.linalg.eigvals(core).numpy())
    spread = permuted.std(1)
    assert (np.abs(drawn.mean(1) - permuted.mean(1)) < 4 * spread * np.sqrt(2 / 2000)).all()
    np.testing.assert_allclose(drawn.std(1), spread, rtol=0.08)
    assert np.abs(permuted.mean(1)).max() > 0.05  # the common part alone scores


@pytest.mark.parametrize("width", [12, 5])
def test_the_null_without_vocabulary_is_that_of_random_rotations(width):
    heads = random_heads(1, width, 3, dtype=torch.float64)
    rng = np.random.default_rng(0)
    drawn = null_scores(heads.W_O, heads.W_V, None, 3000, rng)[0]
    Q, R = torch.linalg.qr(torch.from_numpy(rng.standard_normal((3000, width, width))))
    Q = Q * R.diagonal(dim1=1, dim2=2).sign()[:, None]
    rotated = positivity(torch.linalg.eigvals(heads.W_O[0] @ Q @ heads.W_V[0]).numpy())
    assert drawn.mean() == pytest.approx(rotated.mean(), abs=5 * rotated.std() / np.sqrt(3000))
    assert drawn.std() == pytest.approx(rotated.std(), rel=0.06)


def test_random_heads_are_rejected_at_the_level():
    heads = random_heads(200, 16, 3)
    tables = draw(300, 16, seed=1), draw(16, 300, seed=2)
    for vocabulary in (tables, (None, None)):
        p = copying_scores(heads, *vocabulary, n_null=99, seed=1).p_values
        low, high = rejection_bounds(200, 0.05)
        assert low <= (p <= 0.05).sum() <= high


def test_a_common_direction_is_no_copying():
    """Pitfall: writing the same for every token scores 1 where embeddings share a direction."""
    shared = torch.zeros(8, dtype=torch.float64)
    shared[0] = 1
    embed, unembed = draw(200, 8, seed=1) + 9 * shared, draw(8, 200, seed=2) + 9 * shared[:, None]
    head = ov_head(torch.outer(shared, shared))
    found = copying_scores(head, embed, unembed, n_null=99)
    assert found.scores.item() == pytest.approx(1)  # the plain number says "copies"
    assert found.null_mean.item() == pytest.approx(1)
    assert found.p_values.item() > 0.5


def test_planted_copying_head_and_its_opposite():
    layers = induction_layers()
    d_model = layers[1].d_model
    embed = draw(300, d_model, seed=1)
    found = copying_scores(layers[1], embed, embed.T)
    assert found.scores[5] == pytest.approx(1, abs=0.01)
    assert found.q_values[5] == (found.q_values[found.q_values < 0.05]).max()
    opposite = replace(layers[1], W_O=-layers[1].W_O)
    found = copying_scores(opposite, embed, embed.T)
    assert found.p_below[5] == 1 / 200
    assert found.p_values[5] == 1


def test_the_embedded_suites_induction_heads():
    suite = hs.open_suite("micro")
    tables = suite.embedding_matrices(6144)
    found = copying_scores(suite.head_weights(6144, 2), tables["embed"], tables["unembed"])
    assert found.scores.argmax() == 2  # an induction head
    assert found.q_values[2] < 0.05
    start = suite.embedding_matrices(0)
    first = copying_scores(suite.head_weights(0, 2), start["embed"], start["unembed"])
    assert (first.q_values > 0.05).all()


def test_result_round_trips_and_speaks(tmp_path):
    heads = [random_heads(3, 8, 2, seed=i, layer=i, model="m", step=4) for i in range(2)]
    found = copying_scores(heads, n_null=19, seed=2)
    save(found, tmp_path / "copying.json")
    again = load(tmp_path / "copying.json")
    np.testing.assert_array_equal(again.eigenvalues, found.eigenvalues)
    frame = found.to_frame()
    assert frame["layer"].tolist() == [0, 0, 0, 1, 1, 1]
    assert set(frame["metric"]) == {"ov_positivity"}
    assert frame["seed"].tolist() == [2] * 6
    assert "of 6 heads" in found.summary()
    np.testing.assert_array_equal(copying_scores(heads, n_null=19, seed=2).p_values, found.p_values)


def test_messages():
    heads = random_heads(2, 8, 2)
    with pytest.raises(InputError, match="or neither"):
        copying_scores(heads, draw(20, 8))
    with pytest.raises(InputError, match="Transpose"):
        copying_scores(heads, draw(20, 9), draw(9, 20))
    with pytest.raises(InputError, match="finite embeddings"):
        copying_scores(heads, draw(20, 8) * torch.nan, draw(8, 20))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_same_on_the_gpu():
    heads, tables = random_heads(2, 8, 2), (draw(20, 8), draw(8, 20))
    here = copying_scores(heads, *tables, n_null=9)
    there = copying_scores(heads.to(device="cuda"), *(table.cuda() for table in tables), n_null=9)
    np.testing.assert_allclose(there.scores, here.scores, rtol=1e-6)
