"""Heads, sets and positions: what they ask for, and what no position can change."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from micro_model import L0H0, L1H0, micro_hf_model
from zoo import random_tokens, tiny_model, tiny_tokenizer

from headspec.errors import InputError
from headspec.heads import Head
from headspec.interventions.head_sets import resolve_heads
from headspec.interventions.patching import patch_heads
from headspec.interventions.positions import resolve_positions
from headspec.lens.models import wrap_model

TOKENS = torch.zeros(2, 4, dtype=torch.long)


class Shape:
    """All that resolving needs of a model."""

    class cfg:
        n_layers, n_heads, n_key_value_heads = 3, 4, 2


def columns_of(found, index=0):
    return [row.nonzero()[:, 0].tolist() for row in found.where[index]]


def test_columns_by_number():
    assert resolve_positions(None, TOKENS).where == (None,)
    assert columns_of(resolve_positions(2, TOKENS)) == [[2], [2]]
    assert columns_of(resolve_positions([0, -1], TOKENS)) == [[0, 3], [0, 3]]
    assert resolve_positions([0, -1], TOKENS).labels == ("0,3",)
    assert columns_of(resolve_positions(torch.tensor([1, 3]), TOKENS)) == [[1], [3]]


def test_named_and_each_position_are_an_axis():
    found = resolve_positions({"subject": torch.tensor([1, 2]), "end": -1}, TOKENS)
    assert found.labels == ("subject", "end")
    assert found.by_position
    assert columns_of(found) == [[1], [2]]
    assert columns_of(found, 1) == [[3], [3]]
    each = resolve_positions("each", TOKENS)
    assert each.labels == ("0", "1", "2", "3")
    assert columns_of(each, 2) == [[2], [2]]


def test_what_can_change_nothing_is_left_out():
    allowed = torch.tensor([[False, True, True, True], [False, False, True, True]])
    assert columns_of(resolve_positions(None, TOKENS, allowed=allowed)) == [[1, 2, 3], [2, 3]]
    assert columns_of(resolve_positions([0, 1], TOKENS, allowed=allowed)) == [[1], []]
    mask = torch.ones(2, 4, dtype=torch.bool)
    assert columns_of(resolve_positions(mask, TOKENS, allowed=allowed)) == [[1, 2, 3], [2, 3]]


@pytest.mark.parametrize(
    "wrong",
    [4, [-5], torch.zeros(2, 3, dtype=torch.bool), torch.tensor([1, 2, 3]), "end", [0.5, "x"]],
)
def test_impossible_positions_are_explained(wrong):
    with pytest.raises(InputError, match=r"positions within 2 rows of 4 columns"):
        resolve_positions(wrong, TOKENS)


def test_heads_alone_sets_and_layers():
    every = resolve_heads(Shape(), None, site="z", layers=None)
    assert every.kind == "head"
    assert len(every.sets) == 12
    assert len(resolve_heads(Shape(), None, site="k", layers=[1, 2]).sets) == 4
    alone = resolve_heads(Shape(), [Head(2, 3)], site="z", layers=None)
    assert (alone.kind, alone.sets) == ("head", ((Head(2, 3),),))
    sets = [[Head(2, 3), Head(0, 1)], {Head(1, 1)}, []]
    found = resolve_heads(Shape(), sets, site="z", layers=None)
    assert found.kind == "set"
    assert found.layers == (None, 1, None)
    assert found.by_layer(0) == {0: (1,), 2: (3,)}
    layers = resolve_heads(Shape(), None, site="mlp_out", layers=None)
    assert (layers.kind, layers.layers) == ("layer", (0, 1, 2))


@pytest.mark.parametrize(
    ("heads", "site", "layers", "words"),
    [
        ([Head(3, 0)], "z", None, "layers 0 to 2"),
        ([Head(0, 2)], "v", None, "head indices 0 to 1"),
        ([Head(0, 0), Head(0, 0)], "z", None, "at most once"),
        ([[Head(0, 0)], Head(0, 1)], "z", None, "iterable of Head"),
        (Head(0, 0), "z", None, r"\[Head\(2, 3\)\] for one head"),
        (["L0H0"], "z", None, r"Head.parse"),
        ([Head(0, 0)], "z", [0], "heads= or layers="),
        (None, "z", [3], "layers from 0 to 2"),
        ([Head(0, 0)], "resid_pre", None, "whole layers"),
    ],
)
def test_impossible_heads_are_explained(heads, site, layers, words):
    with pytest.raises(InputError, match=words):
        resolve_heads(Shape(), heads, site=site, layers=layers)


def last_logit(number):
    def metric(logits):
        return logits[:, -1, number]

    return metric


@pytest.fixture(scope="module")
def micro():
    return wrap_model(micro_hf_model(), None)


@pytest.mark.models
@settings(max_examples=8, deadline=None)
@given(order=st.permutations(range(4)))
def test_without_positions_earlier_tokens_may_be_permuted(micro, order):
    """Layer 0 of the micro model knows no positions: only which tokens came before."""
    clean, corrupt = torch.tensor([[3, 6, 0, 5, 2]]), torch.tensor([[3, 2, 1, 5, 2]])
    found = patch_heads(micro, clean[:, [*order, 4]], corrupt[:, [*order, 4]], last_logit(L0H0))
    assert found.effect[0, 0] == pytest.approx((16 - 13) / 5, abs=1e-5)


@pytest.mark.models
def test_a_second_layer_hears_the_order():
    """The negative control of the permutation: the same tokens, another order, another number."""
    model = wrap_model(micro_hf_model(), None)
    order = [3, 2, 1, 0, 4]
    clean, corrupt = torch.tensor([[3, 6, 0, 5, 2]]), torch.tensor([[3, 2, 1, 5, 2]])
    one = patch_heads(model, clean, corrupt, last_logit(L1H0))
    other = patch_heads(model, clean[:, order], corrupt[:, order], last_logit(L1H0))
    assert abs(one.effect[0, 0] - other.effect[0, 0]) > 0.1


@pytest.mark.models
def test_columns_before_the_first_difference_change_nothing():
    """They are not computed; with a map that hides that tokens are equal, they are, and give 0."""
    model = wrap_model(tiny_model("gpt_neox"), tiny_tokenizer())
    clean = random_tokens(2, 7)
    corrupt = clean.clone()
    corrupt[0, 3] = clean[0, 3] % 50 + 5
    corrupt[1, 4] = clean[1, 4] % 50 + 5
    metric = last_logit(9)
    skipped = patch_heads(model, clean, corrupt, metric, positions="each")
    computed = patch_heads(
        model, clean, corrupt, metric, positions="each", position_map=torch.arange(7)
    )
    np.testing.assert_allclose(skipped.values, computed.values, atol=1e-5)
    assert np.all(skipped.effect[:3] == 0)
    assert np.abs(computed.effect[:3]).max() < 1e-5
    assert np.abs(computed.effect[3:]).max() > 1e-3
    every = patch_heads(model, clean, corrupt, metric)
    mapped = patch_heads(model, clean, corrupt, metric, position_map=torch.arange(7))
    np.testing.assert_allclose(every.values, mapped.values, atol=1e-5)


@pytest.mark.models
def test_padding_on_the_left_is_as_if_it_were_not_there():
    model = wrap_model(tiny_model("llama"), tiny_tokenizer())
    clean = random_tokens(2, 6)
    corrupt = clean.clone()
    corrupt[:, 2] = clean[:, 2] % 50 + 5
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[0, :2] = 0
    metric = last_logit(9)
    named = {"middle": torch.tensor([3, 3]), "end": -1}
    found = patch_heads(model, clean, corrupt, metric, attention_mask=mask, positions=named)
    alone = patch_heads(
        model, clean[:1, 2:], corrupt[:1, 2:], metric, positions={"middle": 1, "end": -1}
    )
    np.testing.assert_allclose(found.per_example[..., 0], alone.per_example[..., 0], atol=1e-5)
    assert found.positions[0] == "middle"
