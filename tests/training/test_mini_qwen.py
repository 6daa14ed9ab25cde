"""Mini-Qwen3: sizes by hand and by transformers, seeded weights, round trips, errors."""

from __future__ import annotations

import json
import tomllib

import jaxtyping
import pytest
import tomli_w
import torch

import headspec as hs
from headspec import InputError
from headspec.training.mini_qwen import MiniQwenConfig, build_mini_qwen

PRESETS = ("run1", "v2", "sanity", "debug")


@pytest.mark.parametrize(
    ("name", "attention", "millions"),
    [
        ("run1", "mha", 27.403776),
        ("run1", "gqa", 25.306624),
        ("v2", "mha", 97.243392),
        ("sanity", "mha", 3.836672),
    ],
)
def test_sizes_of_the_study(name, attention, millions):
    config = MiniQwenConfig.preset(name, attention=attention)
    assert config.n_parameters == round(millions * 1e6)
    assert config.attention == attention


def test_run1_by_hand():
    block = 4 * 512 * 512 + 3 * 512 * 1376 + 2 * 512 + 2 * 64
    config = MiniQwenConfig.preset("run1")
    assert config.n_parameters == 8 * block + 4096 * 512 + 512
    assert (config.n_kv_heads, config.rope_theta, config.max_positions) == (8, 1e6, 512)


@pytest.mark.parametrize("attention", ["mha", "gqa"])
@pytest.mark.parametrize("name", PRESETS)
def test_counts_are_transformers_own(name, attention):
    config = MiniQwenConfig.preset(name, attention=attention, vocab_size=97, seq_len=33)
    assert (config.vocab_size, config.max_positions) == (97, 33)
    counts = []
    for n_layers in (1, 2):  # the deeper ones are the same block again
        small = MiniQwenConfig.from_dict({**config.to_dict(), "n_layers": n_layers})
        counts.append(build_mini_qwen(small).num_parameters())
        assert counts[-1] == small.n_parameters
    assert config.n_parameters == counts[0] + (config.n_layers - 1) * (counts[1] - counts[0])


def test_untied_embeddings_count_twice():
    config = MiniQwenConfig.preset("debug")
    untied = MiniQwenConfig.from_dict({**config.to_dict(), "tie_embeddings": False})
    assert untied.n_parameters == config.n_parameters + 128 * 64
    assert build_mini_qwen(untied).num_parameters() == untied.n_parameters


def test_dict_json_and_toml_round_trips():
    config = MiniQwenConfig.preset("sanity", attention="gqa")
    assert MiniQwenConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert MiniQwenConfig.from_dict(tomllib.loads(tomli_w.dumps(config.to_dict()))) == config


def test_weights_are_seeded_and_the_global_generator_untouched():
    config = MiniQwenConfig.preset("debug")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = build_mini_qwen(config, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)  # a result that depended on the global state would change
    again, other = build_mini_qwen(config, seed=3), build_mini_qwen(config, seed=4)
    pairs = list(zip(first.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not any(torch.equal(a, c) for a, _, c in pairs if a.ndim == 2)


def test_initial_weights():
    model = build_mini_qwen(MiniQwenConfig.preset("debug"))
    assert model.training
    assert model.dtype == torch.float32
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.config.rope_parameters["rope_theta"] == 1e6
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1), name
        else:
            assert (parameter == 1).all(), name
    names = {name for name, _ in model.named_parameters()}
    assert "model.layers.0.self_attn.q_norm.weight" in names
    assert not any(name.endswith("bias") for name in names)
    tokens = torch.randint(0, 128, (2, 64), generator=torch.Generator().manual_seed(0))
    loss = model(tokens, labels=tokens, use_cache=False).loss
    assert loss.item() == pytest.approx(torch.tensor(128.0).log().item(), abs=0.1)


def test_it_learns():
    """One batch by heart: every part takes part in the gradient."""
    model = build_mini_qwen(MiniQwenConfig.preset("debug", attention="gqa", seq_len=16))
    tokens = torch.randint(0, 128, (4, 16), generator=torch.Generator().manual_seed(0))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = model(tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"n_kv_heads": 3}, "multiple of n_kv_heads"),
        ({"d_head": 15}, "even d_head"),
        ({"n_layers": 0}, "n_layers to be a positive whole number"),
        ({"d_mlp": 10.5}, "d_mlp to be a positive whole number"),
        ({"rope_theta": -1.0}, "rope_theta to be a positive number"),
        ({"hidden_size": "64"}, "hidden_size to be a positive whole number; got '64'"),
        ({"rope_theta": float("inf")}, "rope_theta to be a positive number"),
        ({"hidden": 4}, "the fields hidden_size"),
    ],
)
def test_errors(change, match, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # let wrong types through
    with pytest.raises(InputError, match=match):
        MiniQwenConfig.from_dict({**MiniQwenConfig.preset("debug").to_dict(), **change})


def test_unknown_names(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # let wrong words through
    with pytest.raises(InputError, match="'run1', 'v2', 'sanity', 'debug'"):
        MiniQwenConfig.preset("run2")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'mha', 'gqa'"):
        MiniQwenConfig.preset("run1", attention="mqa")  # type: ignore[arg-type]


@pytest.mark.models
@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("attention", ["mha", "gqa"])
def test_the_lens_opens_it(attention, dropped, tmp_path):
    config = MiniQwenConfig.preset("debug", attention=attention)
    model = build_mini_qwen(config, seed=2).eval()
    if dropped:
        model = hs.drop_rope(model)
    model.save_pretrained(tmp_path / "step0")
    suite = hs.open_suite(tmp_path)
    tokens = torch.randint(0, 128, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(suite.model(0)(tokens), model(tokens).logits)
    heads = suite.head_weights(0, 2)
    assert heads.W_Q.shape == (4, 64, 16)
    assert heads.W_K.shape == (config.n_kv_heads, 64, 16)
    assert heads.q_norm is not None
    assert (heads.rotary is None) == dropped
