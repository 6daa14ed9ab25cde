"""Layouts: checkpoint tensors of each architecture become the right head weights.

The oracle is the model itself: the attention of a layer, computed by hand from `HeadWeights`,
must equal what Hugging Face's own module computes from the same weights.
"""

import copy
import doctest
import importlib
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo import ZOO, config_dict, tiny_model

from headspec.errors import CheckpointError, InputError, UnsupportedArchitectureError
from headspec.head_weights import HeadWeights
from headspec.layouts import (
    LAYOUTS,
    architecture,
    dimensions,
    head_tensor_names,
    head_weights_from_tensors,
    n_heads,
    n_layers,
    rotary,
)

PYTHIA_160M = {  # config.json as published with the Pythia suite
    "architectures": ["GPTNeoXForCausalLM"],
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "gelu",
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "model_type": "gpt_neox",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.24.0",
    "use_cache": True,
    "use_parallel_residual": True,
    "vocab_size": 50304,
}


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


def test_gpt_neox_fused_rows_are_head_major():
    """Naive `[3, head, d_head]` calls the query of head 2 "query of head 6"."""
    heads, d_head, d_model = 12, 64, 768
    weight = torch.empty(3 * d_model, d_model)
    for head in range(heads):  # what the modelling code does: rows of a head are q, k, v in turn
        for part in range(3):
            start = (3 * head + part) * d_head
            weight[start : start + d_head] = 10 * head + part
    tensors = {
        "gpt_neox.layers.0.attention.query_key_value.weight": weight,
        "gpt_neox.layers.0.attention.query_key_value.bias": weight[:, 0],
        "gpt_neox.layers.0.attention.dense.weight": torch.zeros(d_model, d_model),
        "gpt_neox.layers.0.attention.dense.bias": torch.zeros(d_model),
    }
    w = head_weights_from_tensors(PYTHIA_160M, 0, tensors)

    naive_q = weight.reshape(3, heads, d_head, d_model)[0]
    assert naive_q[6].unique().tolist() == [20.0]  # head 2, query
    assert naive_q[:, 0, 0].tolist() == [0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32]

    for part, matrix, bias in ((0, w.W_Q, w.b_Q), (1, w.W_K, w.b_K), (2, w.W_V, w.b_V)):
        right = [10.0 * head + part for head in range(heads)]
        assert matrix[:, 0, 0].tolist() == right
        assert bias is not None
        assert bias[:, 0].tolist() == right
    assert torch.equal(w.W_Q[2].T, naive_q[6])


def test_gpt_neox_heads_by_hand():
    weight = torch.arange(12.0 * 4).reshape(12, 4)  # 2 heads x (q, k, v) x d_head 2, d_model 4
    dense = torch.arange(16.0).reshape(4, 4)
    config = {
        "model_type": "gpt_neox",
        "hidden_size": 4,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "attention_bias": False,
    }
    w = head_weights_from_tensors(
        config,
        0,
        {
            "layers.0.attention.query_key_value.weight": weight,
            "layers.0.attention.dense.weight": dense,
        },
    )
    assert torch.equal(w.W_Q[1], weight[6:8].T)
    assert torch.equal(w.W_K[1], weight[8:10].T)
    assert torch.equal(w.W_V[0], weight[4:6].T)
    assert torch.equal(w.W_O[1], dense[:, 2:4].T)
    assert w.b_Q is None
    assert w.b_O is None


def test_gpt2_is_matrix_major_and_transposed():
    config = {"model_type": "gpt2", "n_embd": 4, "n_head": 2, "n_layer": 1}
    c_attn = torch.arange(4.0 * 12).reshape(4, 12)  # [in, q0 q1 k0 k1 v0 v1]
    c_proj = torch.arange(16.0).reshape(4, 4)
    w = head_weights_from_tensors(
        config,
        0,
        {
            "h.0.attn.c_attn.weight": c_attn,
            "h.0.attn.c_attn.bias": torch.arange(12.0),
            "h.0.attn.c_proj.weight": c_proj,
            "h.0.attn.c_proj.bias": torch.zeros(4),
        },
    )
    assert torch.equal(w.W_Q[1], c_attn[:, 2:4])
    assert torch.equal(w.W_V[0], c_attn[:, 8:10])
    assert torch.equal(w.W_O[1], c_proj[2:4])
    assert w.b_K is not None
    assert w.b_K.tolist() == [[4, 5], [6, 7]]
    assert w.rotary is None


@pytest.mark.parametrize("name", ZOO)
def test_nothing_is_copied(name):
    model = tiny_model(name)
    tensors = dict(model.state_dict())
    w = head_weights_from_tensors(config_dict(model), 1, tensors)
    stored = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
    for part in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_O", "q_norm"):
        value = getattr(w, part)
        assert value is None or value.untyped_storage().data_ptr() in stored


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("prefix", ["", "other.", "base_model.model."])
def test_any_prefix_works(name, prefix):
    model = tiny_model(name)
    base = model.base_model_prefix + "."
    config, tensors = config_dict(model), model.state_dict()
    renamed = {prefix + key.removeprefix(base): value for key, value in tensors.items()}
    names = head_tensor_names(config, 1, list(renamed))
    assert all(found.startswith(prefix) for found in names.values())
    needed = {found: renamed[found] for found in names.values()}  # nothing else is asked for
    ours = head_weights_from_tensors(config, 1, needed)
    theirs = head_weights_from_tensors(config, 1, tensors)
    for part in ("W_Q", "W_K", "W_V", "W_O"):
        assert torch.equal(getattr(ours, part), getattr(theirs, part))


def test_layer_1_is_not_layer_11():
    names = [
        f"gpt_neox.layers.{i}.attention.{part}.{kind}"
        for i in (1, 11)
        for part in ("query_key_value", "dense")
        for kind in ("weight", "bias")
    ]
    found = head_tensor_names(PYTHIA_160M, 1, names)
    assert set(found.values()) == set(names[:4])


def test_two_models_in_one_checkpoint_are_not_guessed_between():
    tensors = tiny_model("llama").state_dict()
    both = {f"{who}.{name}": value for name, value in tensors.items() for who in ("a", "b")}
    with pytest.raises(CheckpointError, match=r"a\.model\.layers\.0.*b\.model\.layers\.0"):
        head_tensor_names(config_dict(tiny_model("llama")), 0, list(both))


def test_missing_tensors_are_named():
    model = tiny_model("qwen2")
    config, tensors = config_dict(model), dict(model.state_dict())
    del tensors["model.layers.1.self_attn.k_proj.bias"]
    with pytest.raises(CheckpointError, match=r"without model\.layers\.1\.self_attn\.k_proj\.bias"):
        head_weights_from_tensors(config, 1, tensors)
    assert head_weights_from_tensors(config, 0, tensors).b_K is not None
    with pytest.raises(CheckpointError, match=r"layers\.0\.self_attn\.q_proj\.weight.*no tensors"):
        head_weights_from_tensors(config, 0, {})


def test_wrong_shapes_are_named():
    model = tiny_model("gpt_neox")
    config, tensors = config_dict(model), dict(model.state_dict())
    name = "gpt_neox.layers.0.attention.query_key_value.weight"
    tensors[name] = tensors[name].T
    with pytest.raises(CheckpointError, match=r"shape \[192, 64\]; got shape \[64, 192\]"):
        head_weights_from_tensors(config, 0, tensors)


@pytest.mark.parametrize("layer", [-1, 2])
def test_layers_the_model_lacks_are_refused(layer):
    model = tiny_model("gpt2")
    with pytest.raises(InputError, match=r"a layer from 0 to 1; got layer"):
        head_weights_from_tensors(config_dict(model), layer, model.state_dict())


@pytest.mark.parametrize("name", ["gemma", "phi", "mamba", "t5"])
def test_unknown_architectures_name_the_known_ones(name):
    with pytest.raises(
        UnsupportedArchitectureError, match=rf"bert, gpt2, gpt_neox.*{name}.*LAYOUTS"
    ):
        architecture({"model_type": name})


def test_configs_without_an_architecture():
    with pytest.raises(UnsupportedArchitectureError, match=r"a config without model_type"):
        architecture({})
    with pytest.raises(UnsupportedArchitectureError, match=r"'-hf' twin"):
        architecture({"model_type": "hf_olmo"})


def test_an_architecture_is_added_with_one_line(monkeypatch):
    monkeypatch.setitem(LAYOUTS, "roberta", LAYOUTS["bert"])
    model = tiny_model("bert")
    tensors = {k.replace("bert.", "roberta.", 1): v for k, v in model.state_dict().items()}
    w = head_weights_from_tensors({**config_dict(model), "model_type": "roberta"}, 0, tensors)
    assert w.n_heads == 4


def test_sizes_of_pythia_160m():
    assert n_layers(PYTHIA_160M) == n_heads(PYTHIA_160M) == 12
    sizes = dimensions(PYTHIA_160M)
    assert (sizes.d_head, sizes.d_model, sizes.n_kv_heads) == (64, 768, 12)


def test_sizes_that_are_missing_or_do_not_divide():
    with pytest.raises(InputError, match=r"hidden_size or n_embd.*hidden_size=None"):
        dimensions({k: v for k, v in PYTHIA_160M.items() if k != "hidden_size"})
    with pytest.raises(InputError, match=r"hidden_size 770 and 12 heads"):
        dimensions({**PYTHIA_160M, "hidden_size": 770})


def test_old_and_new_rotary_keys_agree():
    """Published Pythia configs (rotary_pct) and what transformers 5 writes (rope_parameters)."""
    old = rotary(PYTHIA_160M)
    assert old is not None
    assert (old.dim, old.base, old.pairing, old.scaling) == (16, 10000.0, "halves", None)
    new = {k: v for k, v in PYTHIA_160M.items() if not k.startswith("rotary")}
    new["rope_parameters"] = {
        "partial_rotary_factor": 0.25,
        "rope_theta": 10000.0,
        "rope_type": "default",
    }
    assert rotary(new) == old


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([0.125, 0.25, 0.5, 1.0]),
    st.sampled_from([500.0, 10000.0, 1e6]),
    st.booleans(),
)
def test_rotary_agrees_with_transformers(fraction, base, old):
    """Number of frequencies and their base, against the buffer of Hugging Face's own module."""
    keys: dict[str, Any] = (
        {"rotary_pct": fraction, "rotary_emb_base": base}
        if old
        else {"rope_parameters": {"partial_rotary_factor": fraction, "rope_theta": base}}
    )
    model = tiny_model("gpt_neox", **keys)
    found = rotary(config_dict(model) if not old else {**PYTHIA_160M, **keys, "hidden_size": 192})
    inverse = model.gpt_neox.rotary_emb.inv_freq
    assert found is not None
    assert found.dim == 2 * len(inverse)
    torch.testing.assert_close(base ** (-torch.arange(0, found.dim, 2) / found.dim), inverse)
    assert found.base == base


def test_odd_rotary_dimension_is_rounded_up_as_in_the_model():
    model = tiny_model("gpt_neox", rotary_pct=0.2)  # 3.2 of 16 dimensions
    found = rotary(config_dict(model))
    cos, _ = model.gpt_neox.rotary_emb(torch.zeros(1), torch.zeros(1, 1))
    assert found is not None
    assert found.dim == cos.shape[-1] == 4


def test_rotary_scaling_is_named():
    llama = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "rope_theta": 500000.0,
    }
    plain, scaled, older = (
        rotary({**llama, "rope_scaling": scaling})
        for scaling in (None, {"rope_type": "llama3", "factor": 8.0}, {"type": "linear"})
    )
    assert plain is not None
    assert scaled is not None
    assert older is not None
    assert (plain.scaling, scaled.scaling, older.scaling) == (None, "llama3", "linear")
    assert plain.base == scaled.base == 500000.0


def test_rotary_per_layer_type():
    config = {
        "model_type": "qwen3",
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "head_dim": 16,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            "full_attention": {"rope_type": "yarn", "rope_theta": 1e6},
        },
    }
    first, second = (rotary(config, layer=layer) for layer in range(2))
    assert first is not None
    assert second is not None
    assert (first.base, first.scaling) == (1e4, None)
    assert (second.base, second.scaling) == (1e6, "yarn")


def test_no_rotary_where_positions_are_learned():
    assert rotary({"model_type": "gpt2"}) is None
    assert rotary({"model_type": "bert"}) is None


@pytest.mark.parametrize("name", ["configs", "reading"])
def test_examples_run(name):
    assert doctest.testmod(importlib.import_module(f"headspec.layouts.{name}")).failed == 0
