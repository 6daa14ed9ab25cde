"""Operators restricted to heads: what adds up, what does not, and what they are not."""

from typing import Any

import pytest
import torch
from block_forward import CLASSES, build, model_logits
from operator_models import EMBEDDINGS, hand_parts, operator_of, vector
from zoo import random_tokens

import headspec as hs
from headspec.errors import InputError
from headspec.lens.hooks import run_logits

pytestmark = pytest.mark.models
N_POS = 6


def test_by_hand():
    operator = operator_of(hand_parts(), EMBEDDINGS)
    swap = torch.tensor([[0, 0.5], [0.5, 0]], dtype=torch.float64)
    through, without = operator.through(["L0H0"]), operator.without([hs.Head(0, 0)])
    expected = torch.zeros(2, 2, 2, 2, dtype=torch.float64)
    expected[0, :, 0] = torch.tensor([[0, 1], [-1, 2]])  # with the neuron: (1 0; 2 -1)(0 1; 1 0)
    expected[1, :, 0] = expected[1, :, 1] = swap
    torch.testing.assert_close(through.matrix()[0], expected)
    torch.testing.assert_close(through.bias()[0], torch.stack([vector(1, 2), vector(1, 0)]))
    torch.testing.assert_close(without.bias()[0], torch.stack([vector(0, -1), vector(0, 1)]))
    assert torch.equal(operator.only(["0.0"]).output, operator.output)
    assert torch.equal(operator.only([]).output, without.output)


@pytest.mark.parametrize("to", ["resid_post", "logits"])
@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("variant", ["gpt_neox", "gpt2", "qwen3", "olmo_clip"])
def test_heads_of_a_layer_and_the_rest_add_up(variant, model_class, to):
    operator = hs.linear_operator(build(variant, model_class), random_tokens(2, N_POS), to=to)
    x = torch.randn(operator.inputs.shape, generator=torch.Generator().manual_seed(0))
    tolerance: Any = {"rtol": 1e-4, "atol": 1e-4 * float(operator.output.abs().max())}
    for layer in (0, 1):
        heads = hs.layer_heads(layer, n_heads=4)
        parts = [operator.through([head]) for head in heads] + [operator.without(heads)]
        for whole, pieces in (
            (operator.output, [part.output for part in parts]),
            (operator.bias(), [part.bias() for part in parts]),
            (operator.apply(x), [part.apply(x) for part in parts]),
        ):
            torch.testing.assert_close(sum(pieces), whole, **tolerance)
    assert all(float(part.apply(x).norm()) > 1e-2 for part in parts)
    # heads of two layers share paths: they do not add up
    everywhere = [hs.Head(layer, index) for layer in (0, 1) for index in range(4)]
    pieces = [operator.through([head]).output for head in everywhere]
    total = sum(pieces) + operator.without(everywhere).output
    assert (total - operator.output).norm() > 1e-3 * operator.output.norm()


def test_no_heads_move_nothing_between_positions():
    operator = hs.linear_operator(build("gpt2"), random_tokens(1, N_POS)).only([])
    matrix = operator.matrix()[0]
    off = ~torch.eye(N_POS, dtype=torch.bool)
    assert not matrix.permute(0, 2, 1, 3)[off].any()
    assert matrix.permute(0, 2, 1, 3)[~off].any()
    some = hs.linear_operator(build("gpt2"), random_tokens(1, N_POS)).only(["L1H2"])
    assert some.matrix()[0].permute(0, 2, 1, 3)[off].any()


def test_parts_have_adjoints_and_maps():
    whole = hs.linear_operator(build("qwen3"), random_tokens(2, N_POS), to="logits")
    y = torch.randn(whole.output.shape, generator=torch.Generator().manual_seed(0))
    for operator in (
        whole.only(["L0H1", "L1H0"]),
        whole.without(["L1H3"]),
        whole.through(["L0H2"]),
    ):
        x = torch.randn(whole.inputs.shape, generator=torch.Generator().manual_seed(1))
        left = (operator.apply(x) * y).sum()
        torch.testing.assert_close(
            left, (x * operator.transpose_apply(y)).sum(), rtol=1e-3, atol=1e-3
        )
        found = operator.apply(operator.inputs) + operator.bias()
        torch.testing.assert_close(found, operator.output, rtol=1e-4, atol=1e-4)
        assert hs.input_contributions(operator, (5, 9)).completeness_gap < 1e-4
    through = [whole.through([head]) for head in hs.layer_heads(1, n_heads=4)]
    maps = [
        hs.input_contributions(part, (5, 9))
        for part in [*through, whole.without(hs.layer_heads(1, n_heads=4))]
    ]
    expected = hs.input_contributions(whole, (5, 9))
    torch.testing.assert_close(
        torch.tensor(sum(found.values for found in maps)),
        torch.tensor(expected.values),
        rtol=1e-4,
        atol=1e-4,
    )


def test_without_a_head_of_the_last_layer_is_its_ablation_in_the_residual_stream():
    """Nothing comes after it but the MLP: attention-only it is exactly zero-ablation."""
    model = build("gpt_neox")  # parallel: the MLP does not read what attention writes
    tokens = random_tokens(2, N_POS)
    operator = hs.linear_operator(model, tokens).without(["L1H2"])
    seen = {}

    def cut(z):
        z = z.clone()
        z[:, :, 2] = 0
        return z

    def keep(resid):
        seen["resid"] = resid.detach()

    run_logits(model, tokens, {"blocks.1.attn.hook_z": cut, "blocks.1.hook_resid_post": keep})
    torch.testing.assert_close(operator.output, seen["resid"], rtol=1e-4, atol=1e-4)
    # to the logits the final norm would respond, and the operator's does not
    logits = hs.linear_operator(model, tokens, to="logits").without(["L1H2"]).output
    ablated = run_logits(model, tokens, {"blocks.1.attn.hook_z": cut}).detach()
    assert (logits - ablated).norm() > 1e-2 * (ablated - model_logits(model, tokens)).norm()


def test_restrictions_combine():
    whole = hs.linear_operator(build("gpt2"), random_tokens(1, N_POS))
    left = whole.without(["L0H0"]).without(["L1H1"])
    torch.testing.assert_close(left.output, whole.without(["L0H0", "L1H1"]).output)
    both = whole.only(["L0H0", "L1H1"])
    torch.testing.assert_close(both.only(["L1H1"]).output, whole.only(["L1H1"]).output)
    part = both.through(["L1H1"])
    expected = both.output - whole.only(["L0H0"]).output
    torch.testing.assert_close(part.output, expected, rtol=1e-4, atol=1e-5)
    # a part restricted further is the part of the restricted operator, in either order
    ours = whole.through(["L1H1"])
    torch.testing.assert_close(ours.only(["L0H0", "L1H1"]).output, part.output)
    expected = whole.without(["L0H0"]).through(["L1H1"]).output
    torch.testing.assert_close(ours.without(["L0H0"]).output, expected)
    assert not ours.without(["L1H1"]).output.any()  # no path through it is left
    assert "2 of 8 heads" in both.summary()
    assert "paths through some heads" in part.summary()


def test_errors():
    whole = hs.linear_operator(build("gpt2"), random_tokens(1, N_POS), to=0)
    with pytest.raises(InputError, match="layers 0 to 0"):
        whole.without(["L1H0"])
    with pytest.raises(InputError, match="L0H1 more than once"):
        whole.only(["L0H1", "L0H1"])
    with pytest.raises(InputError, match="one made by through"):
        whole.through(["L0H1"]).through(["L0H2"])
