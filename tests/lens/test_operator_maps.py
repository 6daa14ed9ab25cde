"""Token-to-token maps: by hand, against the explicit matrix, completeness, calibrated probes."""

from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from block_forward import CLASSES, build, model_logits
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_models import EMBEDDINGS, hand_parts, operator_of, vector
from zoo import random_tokens

import headspec as hs
from headspec.errors import InputError

pytestmark = pytest.mark.models
N_POS = 6


def test_by_hand():
    operator = operator_of(hand_parts(), EMBEDDINGS)
    frobenius, spectral = hs.block_norms(operator), hs.block_norms(operator, norm="spectral")
    np.testing.assert_allclose(frobenius.values[0], [[2, 0], [0.5**0.5, 2.5**0.5]])
    np.testing.assert_allclose(spectral.values[0], [[2, 0], [0.5, 1.5]])
    norms = hs.direction_norms(operator, vector(0, 1))
    np.testing.assert_allclose(norms.values[0], [[2**0.5, 0], [0.5, 1.25**0.5]])
    found = hs.input_contributions(operator, vector(0, 1))
    np.testing.assert_allclose(found.values[0], [[1, 0], [0.5, 2]])
    assert found.bias is not None
    assert found.output is not None
    assert found.null_sd is not None
    np.testing.assert_allclose(found.bias[0], [1, 1])
    np.testing.assert_allclose(found.output[0], [2, 3.5])
    np.testing.assert_allclose(found.null_sd[0, 1], [0.5 / 2**0.5, 1.25**0.5 * 2 / 2**0.5])
    assert found.completeness_gap == 0


@pytest.mark.parametrize("to", [0, "logits"])
@pytest.mark.parametrize("variant", ["gpt_neox", "qwen3"])
def test_maps_are_those_of_the_explicit_matrix(variant, to):
    operator = hs.linear_operator(build(variant), random_tokens(2, N_POS), to=to)
    blocks = operator.matrix().double().permute(0, 1, 3, 2, 4)
    close: Any = {"rtol": 1e-5, "atol": 1e-5}
    frobenius = blocks.square().sum((-1, -2)).sqrt().numpy()
    np.testing.assert_allclose(hs.block_norms(operator).values, frobenius, **close)
    spectral = hs.block_norms(operator, norm="spectral", queries=[1, -1])
    expected = torch.linalg.matrix_norm(blocks[:, [1, -1]], ord=2).numpy()
    np.testing.assert_allclose(spectral.values, expected, **close)
    assert spectral.queries == (1, N_POS - 1)
    width = operator.output.shape[-1]
    directions = torch.randn(2, width, generator=torch.Generator().manual_seed(0))
    for direction in (directions, directions[0]):
        rows = torch.einsum("rqkoi,ro->rqki", blocks, direction.double().expand(2, width))
        found = hs.direction_norms(operator, direction, queries=[3, 0])
        np.testing.assert_allclose(found.values, rows.norm(dim=-1)[:, [3, 0]].numpy(), **close)
        parts = (rows * operator.inputs[:, None].double()).sum(-1).numpy()
        np.testing.assert_allclose(
            hs.input_contributions(operator, direction).values, parts, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("variant", ["gpt_neox", "gpt_neox_sequential", "gpt2", "llama", "qwen3"])
def test_contributions_and_bias_sum_to_the_logits(variant, model_class):
    model, tokens = build(variant, model_class), random_tokens(2, N_POS)
    operator = hs.linear_operator(model, tokens, to="logits")
    expected = model_logits(model, tokens).double().numpy()
    scale = np.abs(expected).max()
    single, pair = hs.input_contributions(operator, 7), hs.input_contributions(operator, (7, 3))
    for found, value in ((single, expected[..., 7]), (pair, expected[..., 7] - expected[..., 3])):
        total = found.values.sum(-1) + found.bias
        np.testing.assert_allclose(total, value, atol=1e-5 * scale)
        assert found.completeness_gap < 1e-4
    has_biases = variant in ("gpt_neox", "gpt_neox_sequential", "gpt2")
    assert single.bias is not None
    assert bool(np.abs(single.bias).max() > 0.01) == has_biases
    # negative control: without the bias they do not
    if has_biases:
        assert np.abs(single.values.sum(-1) - expected[..., 7]).max() > 0.01 * scale


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 9), st.integers(0, 10_000))
def test_contributions_are_linear_in_the_direction(n_pos, seed):
    operator = hs.linear_operator(build("qwen3"), random_tokens(1, n_pos, seed=seed), to=0)
    first, second = torch.randn(2, 64, generator=torch.Generator().manual_seed(seed))
    maps = [hs.input_contributions(operator, d).values for d in (first, second, 2 * first - second)]
    np.testing.assert_allclose(maps[2], 2 * maps[0] - maps[1], atol=1e-4)
    assert not maps[0][:, *np.triu_indices(n_pos, 1)].any()


def test_probes_are_unbiased_and_their_error_is_calibrated():
    operator = hs.linear_operator(build("gpt_neox"), random_tokens(2, N_POS))
    exact = hs.block_norms(operator).values
    below = np.tril(np.ones((N_POS, N_POS), dtype=bool))
    scores, squares = [], []
    for seed in range(60):
        found = hs.block_norms(operator, n_probes=32, seed=seed)
        assert found.standard_error is not None
        scores.append(((found.values - exact) / np.maximum(found.standard_error, 1e-12))[:, below])
        squares.append(found.values[:, below] ** 2)
    z = np.stack(scores)
    # mean and spread of the standardised errors; entries of one draw share their probes
    assert abs(z.mean()) < 0.3
    assert 0.8 < z.std() < 1.3
    np.testing.assert_allclose(np.mean(squares, 0), exact[:, below] ** 2, rtol=0.1)
    again = hs.block_norms(operator, n_probes=32, seed=0).values
    assert np.array_equal(again, hs.block_norms(operator, n_probes=32, seed=0).values)


def test_random_embeddings_of_the_same_norm_scatter_as_stated():
    operator = hs.linear_operator(build("gpt_neox"), random_tokens(1, N_POS), to="logits")
    stated = hs.input_contributions(operator, (7, 3), queries=[-1]).null_sd
    assert stated is not None
    y = torch.zeros(1, N_POS, 61)
    y[0, -1, 7], y[0, -1, 3] = 1, -1
    reading = operator.transpose_apply(y)
    random = torch.randn(20_000, N_POS, 64, generator=torch.Generator().manual_seed(0))
    random = random / random.norm(dim=-1, keepdim=True) * operator.inputs.norm(dim=-1)[0, :, None]
    drawn = (random * reading).sum(-1)
    np.testing.assert_allclose(drawn.std(0).numpy(), stated[0, 0], rtol=0.03)


def test_maps_do_not_depend_on_the_chunks(monkeypatch):
    operator = hs.linear_operator(build("gpt2"), random_tokens(2, N_POS), to="logits")
    whole = [hs.block_norms(operator).values, hs.direction_norms(operator, 5).values]
    monkeypatch.setattr("headspec.lens.operator_readings._CHUNK_BYTES", 1)
    found = [hs.block_norms(operator).values, hs.direction_norms(operator, 5).values]
    for one, other in zip(found, whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_frames_summaries_and_files(tmp_path):
    operator = hs.linear_operator(build("gpt2"), random_tokens(2, N_POS), to="logits")
    maps = [
        hs.input_contributions(operator, (7, 3), queries=[2, 5]),
        hs.block_norms(operator, n_probes=4, seed=3),
        hs.direction_norms(operator, torch.ones(61)),
    ]
    frame = maps[0].to_frame()
    assert list(frame.columns[:11]) == list(hs.results.TIDY_COLUMNS)
    assert len(frame) == 2 * (3 + 6)
    one = frame.query("row == 1 and q_pos == 5 and k_pos == 4").iloc[0]
    assert one["value"] == maps[0].values[1, 1, 4]
    assert one["k_token"] == operator.tokens[1, 4]
    assert one["direction"] == "logit 7 minus logit 3"
    assert len(maps[1].to_frame()) == 2 * 21
    assert set(maps[1].to_frame()["seed"]) == {3}
    for found in maps:
        for suffix in ("json", "parquet"):
            hs.results.save(found, tmp_path / f"map.{suffix}")
            again = hs.results.load(tmp_path / f"map.{suffix}")
            assert np.array_equal(again.values, found.values)
            assert again.kind == found.kind
        assert "patterns, scales and gates do not respond" in found.summary()
    assert "of the output" in maps[0].summary()
    assert "4 random probes" in maps[1].summary()
    assert np.isnan(maps[2].completeness_gap)


def test_errors(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # let wrong ones through
    operator = hs.linear_operator(build("gpt2"), random_tokens(1, N_POS))
    direction: Any = torch.ones(5)
    with pytest.raises(InputError, match="direction of 64 numbers"):
        hs.direction_norms(operator, direction)
    with pytest.raises(InputError, match="to='logits'"):
        hs.input_contributions(operator, 3)
    logits = hs.linear_operator(build("gpt2"), random_tokens(1, N_POS), to="logits")
    with pytest.raises(InputError, match="two different entries"):
        hs.direction_norms(logits, (3, 3))
    for entries in ((), (3, 4, 5), (3, 61)):
        wrong: Any = entries
        with pytest.raises(InputError, match="or two, from 0 to 60"):
            hs.direction_norms(logits, wrong)
    with pytest.raises(InputError, match="query positions from 0 to 5"):
        hs.block_norms(operator, queries=[6])
    with pytest.raises(InputError, match="Leave n_probes out"):
        hs.block_norms(operator, norm="spectral", n_probes=8)
