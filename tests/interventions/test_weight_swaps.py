"""Swapped weights are seen by the forward pass, and every byte comes back."""

from __future__ import annotations

from contextlib import ExitStack
from importlib.metadata import version
from typing import Any

import pytest
import torch
from zoo import random_tokens, tiny_model

from headspec.heads import Head
from headspec.interventions import weight_swaps
from headspec.interventions.weight_swaps import SwapKind, swapped_weights
from headspec.lens.capture import capture
from headspec.lens.hooks import run_logits
from headspec.lens.models import wrap_model

pytestmark = pytest.mark.models
CLASSES = (
    ("bridge", "hooked_transformer")
    if version("transformer-lens").startswith("3.")
    else ("bridge",)
)
KINDS: tuple[SwapKind, ...] = SwapKind.__args__  # type: ignore[attr-defined]
CASES = [
    (name, model_class, processing)
    for name in ("gpt_neox", "gpt2", "qwen2", "qwen3", "olmo2")
    for model_class in CLASSES
    for processing in ("none", "compatibility")
    if (name, model_class) != ("olmo2", "hooked_transformer")
]
WHOLE = [(0, 2), (1, 3)]  # exchanges the two groups of two heads


def build(name, model_class: Any = "bridge", processing: Any = "none"):
    return wrap_model(tiny_model(name), model_class=model_class, processing=processing)


def everything(model):
    """Bytes of all parameters and buffers, also those that no state dict names."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: value.detach().numpy().tobytes() for name, value in named}


@torch.no_grad()
def logits(model, tokens):
    return run_logits(model, tokens)


@pytest.mark.parametrize(("name", "model_class", "processing"), CASES)
def test_bytes_come_back_and_the_swap_is_seen(name, model_class, processing):
    model, tokens = build(name, model_class, processing), random_tokens(2, 7)
    before, plain = everything(model), logits(model, tokens)
    for which in KINDS:
        with swapped_weights(model, 1, WHOLE, which=which):
            swapped = logits(model, tokens)
            assert everything(model) != before
        assert everything(model) == before
        moved = (swapped - plain).abs().max()
        if which == "all":
            assert moved < 2e-5
        else:
            assert moved > 1e-3, which
    assert torch.equal(logits(model, tokens), plain)


@pytest.mark.parametrize(("name", "model_class", "processing"), CASES)
def test_swapping_twice_is_the_identity(name, model_class, processing):
    model, tokens = build(name, model_class, processing), random_tokens(2, 7)
    before, plain = everything(model), logits(model, tokens)
    for which in KINDS:
        with (
            swapped_weights(model, 0, WHOLE, which=which),
            swapped_weights(model, 0, WHOLE, which=which),
        ):
            assert everything(model) == before
            assert torch.equal(logits(model, tokens), plain)


@pytest.mark.parametrize(("name", "model_class", "processing"), CASES)
def test_qk_is_ov_and_queries_are_the_rest(name, model_class, processing):
    """What is swapped, or all but what is swapped: the same function, heads being renamed."""
    model, tokens = build(name, model_class, processing), random_tokens(2, 7)

    def swap(*kinds):
        with ExitStack() as stack:
            for which in kinds:
                stack.enter_context(swapped_weights(model, 0, WHOLE, which=which))
            return logits(model, tokens)

    for one, other in [
        (["qk"], ["ov"]),
        (["pattern"], ["qk"]),
        (["outputs"], ["qk", "values"]),
        (["queries"], ["keys", "ov"]),
        (["keys"], ["queries", "ov"]),
        (["values"], ["qk", "outputs"]),
    ]:
        torch.testing.assert_close(swap(*one), swap(*other), atol=2e-5, rtol=1e-5)
    assert (swap("qk") - swap("queries")).abs().max() > 1e-3


def test_swapping_q_and_k_swaps_patterns():
    for name in ("gpt_neox", "qwen3", "olmo2"):
        model, tokens = build(name), random_tokens(2, 7)
        before = capture(model, tokens, [(1, "pattern")])[1, "pattern"]
        with swapped_weights(model, 1, WHOLE, which="qk"):
            after = capture(model, tokens, [(1, "pattern")])[1, "pattern"]
        torch.testing.assert_close(after, before[:, [2, 3, 0, 1]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_bytes_come_back_after_any_exception(model_class, error):
    model = build("gpt_neox", model_class)
    before = everything(model)
    seen = []

    def interrupted():
        with swapped_weights(model, 1, [(0, 3)], which="all"):
            seen.append(everything(model))
            raise error

    with pytest.raises(error):
        interrupted()
    assert everything(model) == before != seen[0]
    assert all(p.grad is None and p.requires_grad for p in model.blocks.parameters())


def test_bytes_come_back_when_the_swap_itself_is_interrupted(monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    model = build("gpt_neox")
    before = everything(model)
    monkeypatch.setattr(weight_swaps, "_check_seen", interrupt)
    with pytest.raises(KeyboardInterrupt), swapped_weights(model, 1, [(0, 3)], which="qk"):
        pass
    assert everything(model) == before


def test_what_the_block_writes_elsewhere_stays():
    model = build("gpt_neox")
    with swapped_weights(model, 1, [(0, 3)], which="qk"), torch.no_grad():
        next(model.blocks[0].mlp.parameters()).zero_()
    assert not next(model.blocks[0].mlp.parameters()).any()


def test_groups_must_be_exchanged_whole():
    model = build("qwen3")
    for which in ("keys", "values", "qk", "ov", "all"):
        with (
            pytest.raises(ValueError, match="whole groups of 2 heads"),
            swapped_weights(model, 0, [(0, 2)], which=which),
        ):
            pass
    for pairs in ([(0, 3), (1, 2)], [(0, 1)], [(2, 3), (0, 1)]):
        with swapped_weights(model, 0, pairs, which="qk"):
            pass
    for which in ("queries", "outputs"):
        with swapped_weights(model, 0, [(0, 2)], which=which):
            pass


def test_the_fused_matrix_of_a_bridge_is_not_seen(monkeypatch):
    """The naive way, and what headspec says if it were to write there."""
    model, tokens = build("gpt_neox"), random_tokens(1, 6)
    plain = logits(model, tokens)
    fused = model.blocks[1].attn.qkv.original_component.weight.detach()
    by_head = fused.unflatten(0, (4, 3, 16))
    old = by_head.clone()
    by_head.copy_(old[[1, 0, 2, 3]])
    assert torch.equal(logits(model, tokens), plain)  # nothing happened
    by_head.copy_(old)

    monkeypatch.setattr(
        weight_swaps,
        "head_parameters",
        lambda model, layer, part: (
            [by_head["qkv".index(part)]] if part == "o" else [by_head[:, "qkv".index(part)]]
        ),
    )
    with (
        pytest.raises(ValueError, match="computes with the W_Q"),
        swapped_weights(model, 1, [(0, 1)], which="queries"),
    ):
        pass
    assert torch.equal(by_head, old)


def test_heads_that_do_not_fit():
    model = build("gpt_neox")
    for pairs, message in [
        ([(0, 4)], "from 0 to 3"),
        ([(0, 1), (1, 2)], "at most once"),
        ([(1, 1)], "at most once"),
        ([(Head(0, 1), Head(1, 2))], "heads of layer 1"),
    ]:
        with (
            pytest.raises(ValueError, match=message),
            swapped_weights(model, 1, pairs, which="qk"),
        ):
            pass
    with (
        pytest.raises(ValueError, match="layer from 0 to 1"),
        swapped_weights(model, 2, [], which="qk"),
    ):
        pass
    with pytest.raises(Exception, match="which"), swapped_weights(model, 1, [], which="o"):  # type: ignore[arg-type]
        pass
    with swapped_weights(model, 1, [(Head(1, 0), Head(1, 2))], which="qk"):
        pass
