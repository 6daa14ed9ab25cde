"""Layers as functions against the whole forward pass of every hooked model class."""

from dataclasses import replace

import pytest
import torch
from block_forward import (
    CASES,
    CLASSES,
    N_POS,
    PROCESSINGS,
    assert_blocks_are_the_model,
    assert_same_logits,
    build,
    first_residual,
    forward,
    model_logits,
)
from zoo import random_tokens, tiny_model

from headspec.lens.blocks import open_blocks
from headspec.lens.capture import capture
from headspec.lens.hooks import run_logits
from headspec.lens.models import wrap_model

pytestmark = pytest.mark.models


@pytest.mark.parametrize("processing", PROCESSINGS)
@pytest.mark.parametrize(("variant", "model_class"), CASES)
def test_layers_in_order_are_the_model(variant, model_class, processing):
    model = build(variant, model_class, processing)
    assert_blocks_are_the_model(model, random_tokens(3, N_POS))


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("variant", ["gpt_neox", "gpt2", "llama", "qwen3", "olmo"])
@pytest.mark.parametrize("processing", PROCESSINGS)
def test_half_precision_errs_no_more_than_the_model_itself(variant, model_class, processing):
    exact = build(variant, model_class, processing)
    model = build(variant, model_class, processing, dtype=torch.bfloat16)
    tokens = random_tokens(4, N_POS)
    expected = model_logits(exact, tokens)
    own = (model_logits(model, tokens) - expected).square().mean().sqrt()
    with torch.no_grad():
        blocks = open_blocks(model, n_pos=N_POS)
        found = forward(blocks, first_residual(model, tokens))
    assert blocks.dtype == torch.bfloat16
    assert found.dtype == torch.float32
    error = (found - expected).square().mean().sqrt()
    assert error <= 1.5 * own + 1e-3 * expected.abs().max()


@pytest.mark.parametrize("processing", PROCESSINGS)
@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("variant", ["gpt_neox", "gpt2", "qwen3", "olmo_clip"])
def test_each_function_gives_what_its_hook_holds(variant, model_class, processing):
    model = build(variant, model_class, processing)
    tokens = random_tokens(2, N_POS)
    blocks = open_blocks(model, n_pos=N_POS)
    sites = [(1, site) for site in ("q", "k", "v", "z", "resid_pre", "attn_out", "mlp_out")]
    seen = {site: value for (_, site), value in capture(model, tokens, sites).items()}
    with torch.no_grad():
        projected = blocks.project(1, seen["resid_pre"])
        attn_out = blocks.write(1, seen["z"])
        middle = seen["resid_pre"] + seen["attn_out"]
        mlp_out = blocks.mlp(1, seen["resid_pre"] if blocks.is_parallel(1) else middle)
        (alone,) = blocks.project(1, seen["resid_pre"], "k")
        by_head = torch.einsum("...hd,hdm->...m", seen["z"], blocks.W_O(1))
        bias = blocks.write(1, torch.zeros_like(seen["z"]))
    for found, name in zip(projected, "qkv", strict=True):
        torch.testing.assert_close(found, seen[name])
    assert torch.equal(alone, projected[1])
    torch.testing.assert_close(attn_out, seen["attn_out"])
    torch.testing.assert_close(by_head + bias, seen["attn_out"])
    torch.testing.assert_close(mlp_out, seen["mlp_out"])
    assert projected[1].shape[-2] == blocks.n_kv_heads


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("variant", ["gpt_neox", "gpt2", "llama", "qwen3", "mistral"])
def test_left_padding_needs_no_other_positions(variant, model_class):
    """HookedTransformer counts rotary positions without the padding: attention is relative."""
    model = build(variant, model_class)
    tokens = random_tokens(3, N_POS)
    mask = torch.ones_like(tokens)
    mask[1, :3], mask[2, :7] = 0, 0
    assert_blocks_are_the_model(model, tokens, attention_mask=mask)


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("variant", ["gpt_neox", "llama3", "qwen3", "olmo_clip"])
def test_some_positions_are_a_slice_of_all(variant, model_class):
    model = build(variant, model_class)
    tokens = random_tokens(2, N_POS)
    blocks = open_blocks(model, n_pos=N_POS)
    resid = first_residual(model, tokens)
    some, every = torch.tensor([4, 9]), torch.arange(N_POS)
    whole = [
        blocks.position(1, x, every, role)
        for x, role in zip(blocks.project(1, resid), "qkv", strict=True)
    ]
    part = [
        blocks.position(1, x, some, role)
        for x, role in zip(blocks.project(1, resid[:, some]), "qkv", strict=True)
    ]
    shifted = blocks.position(1, blocks.project(1, resid[:, some], "q")[0], some + 1, "q")
    for found, expected in zip(part, whole, strict=True):
        torch.testing.assert_close(found, expected[:, some])
    assert not torch.allclose(shifted, part[0], atol=1e-3)
    torch.testing.assert_close(blocks.mlp(1, resid[:, some]), blocks.mlp(1, resid)[:, some])


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("variant", ["gpt_neox", "qwen3"])
def test_positions_may_differ_between_rows(variant, model_class):
    model = build(variant, model_class)
    blocks = open_blocks(model, n_pos=N_POS)
    (q,) = blocks.project(0, first_residual(model, random_tokens(2, 3)), "q")
    positions = torch.tensor([[0, 5, 2], [7, 1, 11]])
    found = blocks.position(0, q.expand(4, *q.shape), positions, "q")
    by_row = [blocks.position(0, q[row], positions[row], "q") for row in range(2)]
    torch.testing.assert_close(found, torch.stack(by_row).expand(4, *q.shape))


@pytest.mark.parametrize("model_class", CLASSES)
def test_leading_axes_are_rows(model_class):
    model = build("qwen3", model_class)
    blocks = open_blocks(model, n_pos=N_POS)
    resid = first_residual(model, random_tokens(6, N_POS))
    folded = resid.unflatten(0, (2, 3))
    positions = torch.arange(N_POS)
    for shape, value in ((6,), resid), ((2, 3), folded), ((), resid[0]):
        q, k, _ = blocks.project(0, value)
        assert k.shape == (*shape, N_POS, 2, 24)
        turned = blocks.position(0, q, positions, "q")
        assert blocks.write(0, turned).shape == value.shape
        assert blocks.mlp(0, value).shape == value.shape
        assert blocks.logits(value).shape[:-1] == value.shape[:-1]
    together = blocks.mlp(0, folded).flatten(0, 1)
    torch.testing.assert_close(together, blocks.mlp(0, resid))


@pytest.mark.parametrize("processing", PROCESSINGS)
@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("variant", ["gpt_neox", "gpt2", "llama"])
def test_chosen_columns_are_those_of_all_logits(variant, model_class, processing):
    model = build(variant, model_class, processing)
    blocks = open_blocks(model, n_pos=N_POS)
    resid = torch.randn(3, 40, 5, 64, generator=torch.Generator().manual_seed(1))
    every = blocks.logits(resid)
    few = random_tokens(40, 5, 2)
    assert len(few.unique()) > 16
    for columns in (few, torch.tensor([7, 3]), random_tokens(3, 40, 5, 1)):
        expected = every.gather(-1, columns.expand(*resid.shape[:-1], -1))
        torch.testing.assert_close(blocks.logits(resid, columns), expected)


def test_rows_with_columns_of_their_own_in_a_large_vocabulary():
    """Beyond a few columns each row is multiplied with its own alone."""
    hf_model = tiny_model("gpt2", vocab_size=500)
    blocks = open_blocks(wrap_model(hf_model, None), n_pos=N_POS)
    generator = torch.Generator().manual_seed(2)
    resid = torch.randn(3, 200, 64, generator=generator)
    columns = torch.randint(500, (200, 1), generator=generator)
    assert len(columns.unique()) > 64
    expected = blocks.logits(resid).gather(-1, columns.expand(3, 200, 1))
    torch.testing.assert_close(blocks.logits(resid, columns), expected)


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("variant", ["gpt_neox", "gpt2", "qwen3"])
def test_gradients_are_those_of_the_model(variant, model_class):
    model = build(variant, model_class)
    tokens = random_tokens(2, N_POS)
    resid = first_residual(model, tokens)
    blocks = open_blocks(model, n_pos=N_POS)
    weight = torch.randn(N_POS, 61, generator=torch.Generator().manual_seed(3))

    def gradient(logits_of):
        start = resid.clone().requires_grad_()
        return torch.autograd.grad((logits_of(start) * weight).sum(), start)[0]

    def through_the_model(start):
        return run_logits(model, tokens, {"blocks.0.hook_resid_pre": lambda _: start})

    expected = gradient(through_the_model)
    found = gradient(lambda start: forward(blocks, start))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("skipped", ["norm", "rotary", "scale", "bias"])
def test_a_part_left_out_is_seen(skipped, model_class, monkeypatch):
    """The comparison with the model notices each part."""
    model = build("gpt_neox" if skipped == "bias" else "qwen3", model_class)
    tokens = random_tokens(3, N_POS)
    blocks = assert_blocks_are_the_model(model, tokens)
    layer = blocks._layers[1]
    changes = {
        "norm": {"head_norms": {}},
        "rotary": {"rotary": None},
        "scale": {"scale": layer.scale * 1.05},
        "bias": {"out": lambda z: z @ layer.W_O().flatten(0, 1)},
    }
    wrong = (blocks._layers[0], replace(layer, **changes[skipped]))
    monkeypatch.setattr(blocks, "_layers", wrong)
    with torch.no_grad():
        found = forward(blocks, first_residual(model, tokens))
    with pytest.raises(AssertionError, match="close"):
        assert_same_logits(found, model_logits(model, tokens))
