"""Which models can be taken apart: replaced rotary embeddings, configs of one's own, refusals."""

from typing import Any

import pytest
import torch
from block_forward import (
    CLASSES,
    HAS_HOOKED,
    N_POS,
    assert_blocks_are_the_model,
    build,
    first_residual,
    forward,
    model_logits,
)
from torch import nn
from zoo import random_tokens, tiny_model, tiny_tokenizer

from headspec.lens.blocks import UnsupportedBlocks, open_blocks
from headspec.lens.models import wrap_model

pytestmark = pytest.mark.models
needs_hooked = pytest.mark.skipif(not HAS_HOOKED, reason="transformer-lens 3 has HookedTransformer")


class NoRotation(nn.Module):
    """Every position is turned by the angle zero."""

    def __init__(self, width):
        super().__init__()
        self.width = width

    def forward(self, hidden, position_ids):
        cos = torch.ones(*position_ids.shape, self.width, dtype=hidden.dtype)
        return cos, torch.zeros_like(cos)


@pytest.mark.parametrize("processing", ["none", "compatibility"])
@pytest.mark.parametrize("name", ["gpt_neox", "llama"])
def test_a_replaced_rotary_module_is_honoured(name, processing):
    hf_model = tiny_model(name)
    base = hf_model.gpt_neox if name == "gpt_neox" else hf_model.model
    base.rotary_emb = NoRotation(4 if name == "gpt_neox" else 16)
    model = wrap_model(hf_model, tiny_tokenizer(), processing=processing)
    blocks = assert_blocks_are_the_model(model, random_tokens(3, N_POS))
    (q,) = blocks.project(0, first_residual(model, random_tokens(1, N_POS)), "q")
    assert torch.equal(blocks.position(0, q, torch.arange(N_POS), "q"), q)


@needs_hooked
def test_rotary_buffers_changed_later_are_seen():
    model = build("gpt_neox", "hooked_transformer")
    tokens = random_tokens(2, N_POS)
    blocks = open_blocks(model, n_pos=N_POS)
    before = model_logits(model, tokens)
    for block in model.blocks:
        block.attn.rotary_sin.zero_()
        block.attn.rotary_cos.fill_(1)
    after = model_logits(model, tokens)
    with torch.no_grad():
        found = forward(blocks, first_residual(model, tokens))
    torch.testing.assert_close(found, after, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(before, after, atol=1e-2)


@pytest.mark.parametrize("model_class", CLASSES)
def test_weights_changed_later_are_seen(model_class):
    model = build("llama", model_class)
    tokens = random_tokens(2, N_POS)
    blocks = open_blocks(model, n_pos=N_POS)
    resid = first_residual(model, tokens)
    with torch.no_grad():
        before = forward(blocks, resid)
        blocks.W_O(1).mul_(1.5)
        for parameter in model.blocks[0].parameters():
            parameter.mul_(1.1)
        after = forward(blocks, resid)
    torch.testing.assert_close(after, model_logits(model, tokens), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(before, after, atol=1e-2)


def test_a_bridge_computes_with_its_split_matrices_not_the_fused_one():
    hf_model = tiny_model("gpt_neox")
    fused = [layer.attention.query_key_value.weight for layer in hf_model.gpt_neox.layers]
    model = wrap_model(hf_model, tiny_tokenizer())
    with torch.no_grad():
        for weight in fused:
            weight.zero_()
    assert_blocks_are_the_model(model, random_tokens(2, N_POS))


def own_model(**changes):
    """A HookedTransformer from a config alone, with large weights."""
    import transformer_lens

    library: Any = transformer_lens
    settings = {
        "n_layers": 2,
        "d_model": 32,
        "n_ctx": 64,
        "d_head": 8,
        "n_heads": 4,
        "d_vocab": 61,
        "act_fn": "gelu",
        "device": "cpu",
        "seed": None,
    }
    config = library.HookedTransformerConfig(**{**settings, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        with pytest.warns(DeprecationWarning, match="HookedTransformer"):
            model = library.HookedTransformer(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.normal_(mean=float(name.endswith(".w")), std=0.3)
    return model


@needs_hooked
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attn_only": True},
        {"attn_only": True, "normalization_type": None},
        {"normalization_type": "LNPre", "act_fn": "relu"},
        {"normalization_type": "RMS", "gated_mlp": True, "act_fn": "silu"},
        {"normalization_type": "RMSPre", "n_key_value_heads": 2},
        {"n_key_value_heads": 2, "ungroup_grouped_query_attention": True},
        {"act_fn": "solu_ln"},
        {"positional_embedding_type": "rotary", "rotary_dim": 4},
        {"positional_embedding_type": "rotary", "rotary_dim": 4, "rotary_adjacent_pairs": True},
        {"positional_embedding_type": "rotary", "parallel_attn_mlp": True},
        {"scale_attn_by_inverse_layer_idx": True},
        {"use_attn_scale": False},
        {"use_attn_result": True, "use_split_qkv_input": True, "use_hook_mlp_in": True},
        {"use_local_attn": True, "attn_types": ["local", "global"], "window_size": N_POS},
    ],
    ids=str,
)
def test_a_config_of_ones_own(changes):
    model = own_model(**changes)
    assert model.training  # as built: there is no dropout
    blocks = assert_blocks_are_the_model(model, random_tokens(3, N_POS))
    assert blocks.has_mlp(0) == (not changes.get("attn_only"))
    k = blocks.project(0, torch.zeros(1, 2, 32), "k")[0]
    assert k.shape[-2] == blocks.n_kv_heads


@needs_hooked
def test_rows_longer_than_the_rotary_buffers():
    model = own_model(
        n_ctx=2100, positional_embedding_type="rotary", n_layers=1, n_heads=1, d_head=8
    )
    tokens = random_tokens(1, 2060)
    resid = first_residual(model, tokens[:, :8])
    rows = len(model.blocks[0].attn.rotary_cos)
    assert rows == 2048
    blocks = open_blocks(model, n_pos=2060)
    positions = torch.arange(2052, 2060)
    (q,) = blocks.project(0, resid, "q")
    found = blocks.position(0, q, positions, "q")
    assert len(model.blocks[0].attn.rotary_cos) == rows  # the caller's model is left alone
    torch.testing.assert_close(found, model.blocks[0].attn.apply_rotary(q, 2052))


def refused(model, n_pos=N_POS):
    with pytest.raises(UnsupportedBlocks) as caught:
        open_blocks(model, n_pos=n_pos)
    return caught.value.reason


@pytest.mark.parametrize("name", ["olmo2", "bert"])
def test_other_architectures_are_refused(name):
    assert f"architecture is '{name}'" in refused(wrap_model(tiny_model(name), tiny_tokenizer()))


@pytest.mark.parametrize("model_class", CLASSES)
def test_a_window_shorter_than_the_tokens_is_refused(model_class):
    model = wrap_model(tiny_model("mistral"), tiny_tokenizer(), model_class=model_class)
    assert "window of 8 is shorter than 9 tokens" in refused(model, 9)
    assert open_blocks(model, n_pos=8).n_layers == 2


def test_a_window_of_some_layers_is_refused():
    hf_model = tiny_model("qwen2", use_sliding_window=True, sliding_window=8, max_window_layers=1)
    assert "window of 8" in refused(wrap_model(hf_model, tiny_tokenizer()))


def test_training_mode_and_odd_modules_are_refused():
    model: Any = build("gpt2")
    model.blocks[1].train()
    assert "model.eval()" in refused(model)
    model.eval()
    model.blocks[1].attn.o.original_component.__class__ = type("Lora", (nn.Linear,), {})
    assert "a projection is a Lora" in refused(model)
    assert "it is a Linear" in refused(nn.Linear(2, 2))


@needs_hooked
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"positional_embedding_type": "shortformer"}, "'shortformer'"),
        ({"positional_embedding_type": "alibi"}, "'alibi'"),
        ({"attention_dir": "bidirectional"}, "not causal"),
        ({"attn_scores_soft_cap": 5.0}, "caps attention scores"),
        ({"output_logits_soft_cap": 5.0}, "caps logits"),
        ({"use_attention_sinks": True}, "sinks"),
        ({"use_local_attn": True, "attn_types": ["local"] * 2, "window_size": 4}, "window of 4"),
        ({"original_architecture": "GemmaForCausalLM"}, "architecture is 'GemmaForCausalLM'"),
        ({"num_experts": 2, "experts_per_token": 1, "gated_mlp": True}, "experts"),
    ],
    ids=str,
)
def test_variants_of_attention_are_refused(changes, reason):
    assert reason in refused(own_model(**changes))
