"""The oracle of all layouts: attention by hand from `HeadWeights` equals the model's own module."""

import copy
from typing import Any

import pytest
import torch
from zoo import ZOO, config_dict, tiny_model

from headspec.head_tensors import HeadWeights
from headspec.layouts import LAYOUTS, architecture, head_weights_from_tensors


def rotate(x, cos, sin):
    """Rotary embedding of the first dimensions, paired by halves. x: `head pos d_head`."""
    dim = cos.shape[-1]
    turned, kept = x[..., :dim], x[..., dim:]
    left, right = turned.chunk(2, dim=-1)
    turned = turned * cos + torch.cat([-right, left], dim=-1) * sin
    return torch.cat([turned, kept], dim=-1)


def gain(x, weight, eps, *, together):
    """RMS-normalise `head pos d_head` by itself or over all heads together, times the gain."""
    dims = (0, 2) if together else (2,)
    x = x * torch.rsqrt(x.pow(2).mean(dims, keepdim=True) + eps)
    return x * (weight[:, None, :] if together else weight)


def attention_by_hand(w: HeadWeights, x, *, causal, window=None):
    """Attention output of one layer from head weights, written out. x: `pos d_model`."""
    w = w.expand_kv()

    def project(W, b):
        out = torch.einsum("pm,hmd->hpd", x, W)
        out = out if b is None else out + b[:, None]
        return out if w.qkv_clip is None else out.clamp(-w.qkv_clip, w.qkv_clip)

    q, k, v = project(w.W_Q, w.b_Q), project(w.W_K, w.b_K), project(w.W_V, w.b_V)
    if w.q_norm is not None and w.k_norm is not None:
        q = gain(q, w.q_norm, w.qk_norm_eps, together=w.q_norm.ndim == 2)
        k = gain(k, w.k_norm, w.qk_norm_eps, together=w.k_norm.ndim == 2)
    n = x.shape[0]
    if w.rotary is not None:
        inverse = w.rotary.base ** (-torch.arange(0, w.rotary.dim, 2) / w.rotary.dim)
        angles = torch.outer(torch.arange(n).float(), inverse).repeat(1, 2)
        q, k = (rotate(t, angles.cos(), angles.sin()) for t in (q, k))
    scores = q @ k.transpose(1, 2) / w.d_head**0.5
    if causal:
        ones = torch.ones(n, n, dtype=torch.bool)
        seen = ones.tril() if window is None else ones.tril() & ones.triu(1 - window)
        scores = scores.masked_fill(~seen, -torch.inf)
    out = torch.einsum("hqk,hkd,hdm->qm", scores.softmax(-1), v, w.W_O)
    return out if w.b_O is None else out + w.b_O


def attention_of_module(model, layer, x):
    """What Hugging Face's own attention computes for normalised input x: `pos d_model`."""
    seen = {}
    part = LAYOUTS[architecture(config_dict(model))].module.format(layer=layer)
    (module,) = [m for name, m in model.named_modules() if name.endswith(part)]
    # BERT's module also adds the residual stream and normalises: take what its dense layer gives.
    bert = model.config.model_type == "bert"
    out_module = module.output.dense if bert else module

    def feed(_module, args, kwargs):
        if args:
            return (x[None], *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": x[None]}

    with (
        torch.no_grad(),
        module.register_forward_pre_hook(feed, with_kwargs=True),
        out_module.register_forward_hook(lambda _m, _a, out: seen.update(out=out)),
    ):
        model(torch.arange(2, 2 + x.shape[0])[None])
    return (seen["out"] if bert else seen["out"][0])[0]


VARIANTS = {
    **{name: (name, {}) for name in ZOO},
    "gpt_neox without biases": ("gpt_neox", {"attention_bias": False}),
    "gpt_neox, other base": ("gpt_neox", {"rotary_emb_base": 123.0}),
    "llama with biases": ("llama", {"attention_bias": True}),
    "llama, head_dim": ("llama", {"head_dim": 10}),
    "llama, partial_rotary_factor is not heeded": ("llama", {"partial_rotary_factor": 0.5}),
    "qwen3 with biases": ("qwen3", {"attention_bias": True}),
    "qwen3, partial_rotary_factor is not heeded": ("qwen3", {"partial_rotary_factor": 0.0}),
    "olmo, clipped, grouped": ("olmo", {"clip_qkv": 0.5, "num_key_value_heads": 2}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_attention_by_hand_equals_the_module(variant):
    name, overrides = VARIANTS[variant]
    model = tiny_model(name, **overrides)
    config = config_dict(model)
    x = torch.randn(11, 64, generator=torch.Generator().manual_seed(1))
    for layer in range(2):
        w = head_weights_from_tensors(config, layer, model.state_dict(), model=name, step=5)
        by_hand = attention_by_hand(
            w, x, causal=name != "bert", window=8 if name == "mistral" else None
        )
        torch.testing.assert_close(
            by_hand, attention_of_module(model, layer, x), atol=2e-5, rtol=1e-4
        )
        assert (w.model, w.step, w.layer, w.processing) == (name, 5, layer, "none")


@pytest.mark.parametrize("name", ["gpt_neox", "qwen3", "olmo2", "gpt2"])
def test_the_check_above_can_fail(name):
    """Negative control: without rotary, gains or the right heads the outputs differ."""
    model = tiny_model(name)
    x = torch.randn(11, 64, generator=torch.Generator().manual_seed(1))
    right = attention_of_module(model, 0, x)
    w = head_weights_from_tensors(config_dict(model), 0, model.state_dict())
    wrong: dict[str, Any] = {"W_K": w.W_K.flip(0)}
    if w.rotary is not None:
        wrong["rotary"] = None
    if w.q_norm is not None:
        wrong["q_norm"] = w.q_norm.flip(-1)
    for key, value in wrong.items():
        other = copy.copy(w)
        object.__setattr__(other, key, value)
        assert (attention_by_hand(other, x, causal=True) - right).abs().max() > 1e-2, key
