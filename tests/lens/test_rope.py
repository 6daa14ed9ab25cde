"""Models without rotary embeddings: position independence, every class, saving, patching."""

from __future__ import annotations

import copy
import pickle
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from block_forward import assert_blocks_are_the_model
from zoo import random_tokens, save_tiny, tiny_model, tiny_tokenizer

import headspec as hs
from headspec.interventions.edits import Edit
from headspec.interventions.replay import Replay
from headspec.lens.logits import LogitRead
from headspec.lens.rope import drop_rope, restore_dropped_rope

pytestmark = pytest.mark.models

CLASSES = ["bridge", *(["hooked_transformer"] if version("transformer-lens")[0] == "3" else [])]
ROTARY = ("gpt_neox", "gpt_neox_sequential", "llama", "qwen2", "qwen3", "mistral", "olmo", "olmo2")
MAIN = ("gpt_neox", "llama", "qwen3")


def by_hand(model, tokens, dropped=(), positions=None):
    """Logits of an untouched model, layer by layer, with rotations of our own choice."""
    base = model.base_model
    n_pos = tokens.shape[1]
    ids = torch.arange(n_pos)[None] if positions is None else positions
    x = model.get_input_embeddings()(tokens)
    cos, sin = base.rotary_emb(x, position_ids=ids)
    still = torch.ones_like(cos), torch.zeros_like(sin)
    mask = torch.full((n_pos, n_pos), -torch.inf, dtype=x.dtype).triu(1)[None, None]
    with torch.no_grad():
        for index, layer in enumerate(base.layers):
            turned = still if index in dropped else (cos, sin)
            out = layer(x, attention_mask=mask, position_embeddings=turned)
            x = out[0] if isinstance(out, tuple) else out
        norm = base.final_layer_norm if hasattr(base, "final_layer_norm") else base.norm
        return model.get_output_embeddings()(norm(x))


def logits(model, tokens, **options):
    with torch.no_grad():
        return model(tokens, **options).logits


def wrapped(model, *args, **options) -> Any:
    return hs.wrap_model(model, *args, **options)


@pytest.mark.parametrize("dropped", [None, (0,), (1,), (0, 1)])
@pytest.mark.parametrize("name", ROTARY)
def test_it_is_the_model_with_other_rotations(name, dropped):
    model, tokens = tiny_model(name, sliding_window=None), random_tokens(2, 11)
    before = logits(model, tokens)
    changed = drop_rope(model, layers=dropped)
    found = logits(changed, tokens)
    expected = by_hand(model, tokens, (0, 1) if dropped is None else dropped)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (found - before).abs().max() > 0.1
    assert torch.equal(logits(model, tokens), before)  # the given model stays as it is
    assert not hasattr(model.config, "dropped_rope_layers")
    assert changed.config.dropped_rope_layers == list((0, 1) if dropped is None else dropped)
    pairs = zip(model.state_dict().items(), changed.state_dict().items(), strict=True)
    assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


@pytest.mark.parametrize("name", MAIN)
def test_one_layer_sees_a_set_of_tokens(name):
    """Permuting earlier tokens leaves the last position unchanged; with rotations it does not."""
    model = tiny_model(name, num_hidden_layers=1)
    tokens = random_tokens(3, 12)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(0))
    mixed = torch.cat([tokens[:, order], tokens[:, -1:]], dim=1)
    bare = drop_rope(model)
    there, here = logits(bare, tokens)[:, -1], logits(bare, mixed)[:, -1]
    torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-5)
    change = logits(model, tokens)[:, -1] - logits(model, mixed)[:, -1]
    assert change.abs().max() > 0.1
    # Two layers: earlier positions see other tokens than before, in which the mask tells the order.
    deep = drop_rope(tiny_model(name))
    change = logits(deep, tokens)[:, -1] - logits(deep, mixed)[:, -1]
    assert change.abs().max() > 1e-2


@pytest.mark.parametrize("name", MAIN)
def test_position_ids_do_not_matter(name):
    """Shifted, stretched or random ids; a shift alone would not tell: rotations are relative."""
    model, tokens = tiny_model(name, max_position_embeddings=512), random_tokens(2, 10)
    bare, mask = drop_rope(model), torch.ones(2, 10, dtype=torch.long)
    ids = torch.arange(10)
    generator = torch.Generator().manual_seed(0)
    for other in (ids + 7, 3 * ids, torch.randperm(200, generator=generator)[:10]):
        # With a mask: without, transformers takes a jump in the ids for the next document.
        shifted = {"position_ids": other[None].expand(2, -1), "attention_mask": mask}
        assert torch.equal(
            logits(bare, tokens, **shifted), logits(bare, tokens, attention_mask=mask)
        )
    stretched = {"position_ids": 3 * ids[None].expand(2, -1), "attention_mask": mask}
    change = logits(model, tokens, **stretched) - logits(model, tokens, attention_mask=mask)
    assert change.abs().max() > 0.1
    moved = {"position_ids": ids[None].expand(2, -1) + 7, "attention_mask": mask}
    change = logits(model, tokens, **moved) - logits(model, tokens, attention_mask=mask)
    assert change.abs().max() < 1e-3


@pytest.mark.parametrize("layers", [None, (0,), (1,)])
@pytest.mark.parametrize("processing", ["none", "compatibility"])
@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("name", MAIN)
def test_hooked_models_and_their_layers_as_functions(name, model_class, processing, layers):
    model, tokens = tiny_model(name), random_tokens(3, 12)
    chosen = (0, 1) if layers is None else layers
    expected = by_hand(model, tokens, chosen).log_softmax(-1)
    rotaries = [hs.head_weights(model, layer).rotary for layer in (0, 1)]
    assert None not in rotaries
    hooked = wrapped(
        drop_rope(model, layers=layers),
        tiny_tokenizer(),
        model_class=model_class,
        processing=processing,
    )
    with torch.no_grad():
        found = hooked(tokens).log_softmax(-1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert_blocks_are_the_model(hooked, tokens)
    for layer in (0, 1):
        rotary = hs.head_weights(hooked, layer).rotary
        assert rotary is None if layer in chosen else rotary == rotaries[layer]
    again = copy.deepcopy(hooked)
    hooked.reset_hooks()
    with torch.no_grad():
        assert torch.equal(again(tokens), hooked(tokens))
        torch.testing.assert_close(hooked(tokens).log_softmax(-1), found, rtol=0, atol=1e-6)


@pytest.mark.parametrize("layers", [None, (1,)])
@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("name", MAIN)
def test_replay_equals_the_whole_forward(name, model_class, layers):
    model = drop_rope(tiny_model(name, num_hidden_layers=3), layers=layers)
    hooked = hs.wrap_model(model, model_class=model_class)
    tokens = random_tokens(3, 11)
    fast, full = Replay(hooked, tokens), Replay(hooked, tokens, fast=False)
    assert fast.is_fast
    for site in ("z", "q", "k", "pattern"):
        value = fast.activation(1, site).flip(0)
        edit = (Edit(1, site, value, heads=(1,)),)
        torch.testing.assert_close(
            fast.read([edit], LogitRead())[0],
            full.read([edit], LogitRead())[0],
            rtol=1e-4,
            atol=1e-5,
        )


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("name", MAIN)
def test_saved_and_loaded_by_every_road(name, model_class, tmp_path: Path):
    tokens = random_tokens(2, 9)
    model = tiny_model(name)
    for step, layers in ((0, ()), (4, (1,)), (8, None)):
        folder = tmp_path / f"step{step}"
        save_tiny(name, folder)
        drop_rope(model, layers=layers).save_pretrained(folder)
    suite = hs.open_suite(tmp_path)
    for step, dropped in ((0, ()), (4, (1,)), (8, (0, 1))):
        expected = by_hand(model, tokens, dropped)
        roads = {
            "folder": hs.load_model(str(tmp_path / f"step{step}"), model_class=model_class),
            "step": hs.load_model(str(tmp_path), step=step, model_class=model_class),
            "suite": suite.model(step, model_class=model_class),
        }
        for road, loaded in roads.items():
            with torch.no_grad():
                found = loaded(tokens)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, msg=road)
        for layer in (0, 1):
            stored = suite.head_weights(step, layer).rotary
            assert (stored is None) == (layer in dropped)
            assert hs.head_weights(roads["suite"], layer).rotary == stored


@pytest.mark.parametrize("name", MAIN)
def test_transformers_alone_rotates_again(name, tmp_path: Path):
    """The documented warning: the config says so, the model does not heed it until restored."""
    from transformers import AutoModelForCausalLM

    model, tokens = tiny_model(name), random_tokens(2, 9)
    bare = drop_rope(model)
    bare.save_pretrained(tmp_path)
    plain: Any = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    plain.eval()
    assert plain.config.dropped_rope_layers == [0, 1]
    torch.testing.assert_close(logits(plain, tokens), logits(model, tokens))
    for _ in range(2):  # once or twice is the same
        restore_dropped_rope(plain)
        assert torch.equal(logits(plain, tokens), logits(bare, tokens))
        assert all(len(layer._forward_pre_hooks) == 1 for layer in plain.base_model.layers)
    assert torch.equal(hs.wrap_model(plain)(tokens), logits(bare, tokens))


def test_copies_pickles_and_further_drops():
    model, tokens = tiny_model("qwen3"), random_tokens(2, 9)
    first = drop_rope(model, layers=[1])
    both = drop_rope(first, layers=[0])
    assert first.config.dropped_rope_layers == [1]
    assert both.config.dropped_rope_layers == [0, 1]
    assert torch.equal(logits(both, tokens), logits(drop_rope(model), tokens))
    for same in (copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        assert torch.equal(logits(same, tokens), logits(first, tokens))
    fresh = tiny_model("qwen3", seed=5)
    restore_dropped_rope(fresh)  # nothing recorded: nothing to do
    restore_dropped_rope(tiny_model("gpt2"))
    assert not any(layer._forward_pre_hooks for layer in fresh.base_model.layers)


@pytest.mark.parametrize("name", MAIN)
def test_generation_with_a_cache(name):
    model = drop_rope(tiny_model(name), layers=[1])
    tokens = random_tokens(2, 6)
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    cached = model.generate(tokens, use_cache=True, **options)
    assert torch.equal(cached, model.generate(tokens, use_cache=False, **options))
    for end in range(6, 14):  # greedy by hand
        best = by_hand(tiny_model(name), cached[:, :end], (1,))[:, -1].argmax(-1)
        assert torch.equal(best, cached[:, end])
    hooked = wrapped(model)
    own = {"max_new_tokens": 8, "do_sample": False, "stop_at_eos": False, "verbose": False}
    assert torch.equal(hooked.generate(tokens, **own), cached)
    fast = hs.generate_tokens(hooked, tokens, max_new_tokens=8)
    assert torch.equal(fast.tokens, cached)
    assert fast.is_cached


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", MAIN)
def test_gradients(name, checkpointing):
    """Training sees the identity too, also where the forward pass is run again for the gradient."""
    model, tokens = tiny_model(name), random_tokens(2, 8)
    bare = drop_rope(model).train()
    if checkpointing:
        bare.activation_checkpointing_enable()
    bare(tokens, labels=tokens, use_cache=False).loss.backward()
    model.base_model.rotary_emb.inv_freq.zero_()  # another way to the same function
    model.train()(tokens, labels=tokens, use_cache=False).loss.backward()
    pairs = zip(bare.named_parameters(), model.named_parameters(), strict=True)
    for (where, found), (_, expected) in pairs:
        assert found.grad is not None
        assert expected.grad is not None
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-6, msg=where)
    optimiser = torch.optim.SGD(bare.parameters(), lr=0.1)
    optimiser.step()
    assert bare.training


def test_compiled():
    model, tokens = drop_rope(tiny_model("qwen3"), layers=[0]), random_tokens(2, 8)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        found = compiled(tokens, use_cache=False).logits
    torch.testing.assert_close(found, logits(model, tokens))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype):
    model = tiny_model("qwen3").to(dtype)
    tokens = random_tokens(2, 9)
    found, expected = logits(drop_rope(model), tokens), by_hand(model, tokens, (0, 1))
    assert found.dtype == dtype
    assert (found - expected).float().abs().max() <= (0.1 if dtype == torch.bfloat16 else 1e-9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu():
    model, tokens = drop_rope(tiny_model("qwen3")), random_tokens(2, 9)
    found = logits(copy.deepcopy(model).cuda(), tokens.cuda())
    torch.testing.assert_close(found.cpu(), logits(model, tokens), rtol=1e-3, atol=1e-3)


@pytest.mark.skipif("hooked_transformer" not in CLASSES, reason="transformer-lens 3 only")
def test_long_contexts_of_hooked_transformers_stay_still():
    """Its tables start short and would be extended by real rotations."""
    long = {"max_position_embeddings": 5000, "num_hidden_layers": 1}
    tokens = random_tokens(1, 2100)
    hooked = hs.wrap_model(drop_rope(tiny_model("llama", **long)), model_class="hooked_transformer")
    mixed = torch.cat([tokens[:, :-1].flip(1), tokens[:, -1:]], dim=1)
    with torch.no_grad():
        change = (hooked(tokens) - hooked(mixed))[:, -1]
    assert change.abs().max() < 1e-3


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_nothing_to_drop(name):
    with pytest.raises(
        hs.UnsupportedArchitectureError, match=r"gpt_neox, llama.*learned positions"
    ):
        drop_rope(tiny_model(name))


def test_errors():
    model = tiny_model("qwen3")
    with pytest.raises(hs.InputError, match="a layer from 0 to 1; got layer 2"):
        drop_rope(model, layers=[2])
    with pytest.raises(hs.InputError, match="got layer -1"):
        drop_rope(model, layers=[-1])
    with pytest.raises(hs.InputError, match="Drop first, then wrap"):
        drop_rope(hs.wrap_model(tiny_model("qwen3")))
    with pytest.raises(hs.UnsupportedArchitectureError, match="got Linear, model_type None"):
        drop_rope(torch.nn.Linear(2, 2))
    model.config.dropped_rope_layers = [7]
    with pytest.raises(hs.InputError, match="got layer 7"):
        restore_dropped_rope(model)
    bare = drop_rope(tiny_model("qwen3"))
    with pytest.raises(hs.InputError, match="pass position_embeddings= by name"):
        bare.base_model.layers[0](torch.zeros(1, 2, 64))
