"""Layers as functions against the whole forward pass of every hooked model class."""

import copy
from importlib.metadata import version

import pytest
import torch
from zoo import random_tokens, tiny_model, tiny_tokenizer

from headspec.lens.blocks import open_blocks
from headspec.lens.capture import capture
from headspec.lens.hooks import run_logits
from headspec.lens.models import wrap_model

pytestmark = pytest.mark.models
HAS_HOOKED = version("transformer-lens").startswith("3.")
CLASSES = ["bridge", *(["hooked_transformer"] if HAS_HOOKED else [])]
PROCESSINGS = ["none", "compatibility"]
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
VARIANTS = {
    "gpt_neox": ("gpt_neox", {}),
    "gpt_neox_sequential": ("gpt_neox_sequential", {}),
    "gpt2": ("gpt2", {}),
    "gpt2_scaled": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    "llama": ("llama", {}),
    "llama3": ("llama", {"rope_parameters": LLAMA3}),
    "llama_bias": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral_window": ("mistral", {"sliding_window": 12}),
    "olmo": ("olmo", {}),
    "olmo_clip": ("olmo", {"clip_qkv": 0.3}),
}
CASES = [
    (variant, model_class)
    for variant in VARIANTS
    for model_class in CLASSES
    if (variant, model_class) != ("llama_bias", "hooked_transformer")  # it drops the biases
]
N_POS = 12


def build(variant, model_class="bridge", processing="none", dtype=torch.float32):
    name, overrides = VARIANTS[variant]
    hf_model = tiny_model(name, **overrides)
    return wrap_model(
        hf_model, tiny_tokenizer(), model_class=model_class, processing=processing, dtype=dtype
    )


def forward(blocks, resid, key_mask=None):
    """The layers in order, by functions alone: causal attention over the keys of `key_mask`."""
    n_pos = resid.shape[-2]
    positions = torch.arange(n_pos)
    visible = torch.ones(n_pos, n_pos, dtype=torch.bool).tril()
    if key_mask is not None:
        visible = visible & key_mask[:, None, None, :].bool()
    for layer in range(blocks.n_layers):
        q, k, v = (
            blocks.position(layer, x, positions, role)
            for x, role in zip(blocks.project(layer, resid), "qkv", strict=True)
        )
        k, v = (x.repeat_interleave(blocks.n_heads // blocks.n_kv_heads, -2) for x in (k, v))
        scores = torch.einsum("...qhd,...khd->...hqk", q, k) * blocks.scores_scale(layer)
        scores = scores.float().masked_fill(~visible, torch.finfo(torch.float32).min)
        pattern = scores.softmax(-1).to(v.dtype)
        attn_out = blocks.write(layer, torch.einsum("...hqk,...khd->...qhd", pattern, v))
        middle = resid + attn_out
        resid = middle + blocks.mlp(layer, resid if blocks.is_parallel(layer) else middle)
    return blocks.logits(resid)


def first_residual(model, tokens, **extra):
    return capture(model, tokens, [(0, "resid_pre")], **extra)[0, "resid_pre"]


def model_logits(model, tokens, **extra):
    with torch.no_grad():
        return run_logits(model, tokens, **extra).float()


def assert_same_logits(found, expected, tolerance=1e-5):
    scale = float(expected.abs().max())
    assert scale > 0.5  # random weights still make different predictions
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("processing", PROCESSINGS)
@pytest.mark.parametrize(("variant", "model_class"), CASES)
def test_layers_in_order_are_the_model(variant, model_class, processing):
    model = build(variant, model_class, processing)
    tokens = random_tokens(3, N_POS)
    blocks = open_blocks(model, n_pos=N_POS)
    with torch.no_grad():
        found = forward(blocks, first_residual(model, tokens))
    assert_same_logits(found, model_logits(model, tokens))


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
