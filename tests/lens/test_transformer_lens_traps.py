"""What a reader of hooks and fused weights has to know of transformer-lens, held by tests."""

from importlib.metadata import version

import pytest
import torch
from zoo import random_tokens, tiny_model, tiny_tokenizer

from headspec.lens.models import wrap_model
from headspec.lens.weights import head_weights

pytestmark = pytest.mark.models
CLASSES = ["bridge"]
if version("transformer-lens").startswith("3."):
    CLASSES.append("hooked_transformer")


def wrapped(name, model_class="bridge"):
    return wrap_model(tiny_model(name), tiny_tokenizer(), model_class=model_class)


def seen(model, names):
    """Which of these hooks fire, and the shapes they carry."""
    shapes = {}
    hooks = [
        (name, lambda value, hook, name=name: shapes.update({name: tuple(value.shape)}))
        for name in names
    ]
    with torch.no_grad():
        model.run_with_hooks(random_tokens(1, 20), fwd_hooks=hooks)
    return shapes


def test_the_fused_matrix_edited_in_place_is_not_what_a_bridge_uses():
    """The Bridge has split copies: head weights are read from what it computes with."""
    hf_model = tiny_model("gpt_neox")
    fused = [layer.attention.query_key_value.weight for layer in hf_model.gpt_neox.layers]
    model = wrap_model(hf_model, tiny_tokenizer())
    before = head_weights(model, 0)
    tokens = random_tokens(1, 20)
    with torch.no_grad():
        first = model(tokens)
        for weight in fused:
            weight.zero_()
        second = model(tokens)
    assert fused
    assert torch.equal(first, second)
    assert torch.equal(head_weights(model, 0).W_Q, before.W_Q)


@pytest.mark.parametrize("model_class", CLASSES)
def test_key_and_value_hooks_carry_native_heads(model_class):
    found = seen(wrapped("qwen3", model_class), [f"blocks.0.attn.hook_{kind}" for kind in "qkv"])
    assert [found[f"blocks.0.attn.hook_{kind}"][2] for kind in "qkv"] == [4, 2, 2]


@pytest.mark.parametrize("model_class", CLASSES)
def test_parallel_blocks_have_no_middle_of_the_residual_stream(model_class):
    names = ["blocks.0.hook_resid_pre", "blocks.0.hook_resid_post"]
    model = wrapped("gpt_neox", model_class)
    assert set(seen(model, names)) == set(names)
    assert "blocks.0.hook_resid_mid" not in model.hook_dict
    assert "blocks.0.hook_resid_mid" in wrapped("gpt2", model_class).hook_dict
