"""A model's layers in order by functions alone, and the models to try them on."""

from importlib.metadata import version
from typing import Any

import torch
from zoo import tiny_model, tiny_tokenizer

from headspec.lens.blocks import open_blocks
from headspec.lens.capture import capture
from headspec.lens.hooks import run_logits
from headspec.lens.models import wrap_model

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


def build(variant, model_class="bridge", processing: Any = "none", dtype=torch.float32):
    name, overrides = VARIANTS[variant]
    hf_model = tiny_model(name, **overrides)
    how: Any = {"model_class": model_class, "processing": processing, "dtype": dtype}
    return wrap_model(hf_model, tiny_tokenizer(), **how)


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


def assert_blocks_are_the_model(model, tokens, **extra):
    """The functions in order equal the model's logits; gives the functions."""
    blocks = open_blocks(model, n_pos=tokens.shape[1])
    mask = extra.get("attention_mask")
    with torch.no_grad():
        found = forward(blocks, first_residual(model, tokens, **extra), mask)
    expected = model_logits(model, tokens, **extra)
    real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.bool()
    assert_same_logits(found[real], expected[real])
    return blocks
