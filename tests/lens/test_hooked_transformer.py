"""HookedTransformer from any folder: settings from the config, where transformer-lens fixes them.

The comparisons with transformer-lens's own loader need release 3; the settings themselves do not.
"""

import json
from importlib import import_module
from importlib.metadata import version

import pytest
import torch
from zoo import config_dict, random_tokens, save_tiny, tiny_model, tiny_tokenizer

from headspec.errors import CheckpointError, UnsupportedArchitectureError
from headspec.lens.hooked_transformer import hooked_transformer_settings
from headspec.lens.models import load_model, wrap_model

needs_release_3 = [
    pytest.mark.models,
    pytest.mark.skipif(
        not version("transformer-lens").startswith("3."), reason="needs transformer-lens 3"
    ),
    pytest.mark.filterwarnings("ignore:HookedTransformer:DeprecationWarning"),
]


def release_3(test):
    for mark in needs_release_3:
        test = mark(test)
    return test


@torch.no_grad()
def log_probs(model, tokens):
    out = model(tokens)
    return getattr(out, "logits", out).log_softmax(-1)


def naive_hooked_transformer(folder, hf_model):
    """What transformer-lens's own pieces make of a local folder."""
    loading = import_module("transformer_lens.loading_from_pretrained")
    configs = import_module("transformer_lens.config.hooked_transformer_config")
    settings = loading.convert_hf_model_config(str(folder))
    settings.update(dtype=torch.float32, device="cpu", init_weights=False, tokenizer_name=None)
    cfg = configs.HookedTransformerConfig.from_dict(settings)
    model = import_module("transformer_lens").HookedTransformer(cfg, None, move_to_device=False)
    state = loading.get_pretrained_state_dict(str(folder), cfg, hf_model, dtype=torch.float32)
    model.load_state_dict(state, strict=False)
    return model


@release_3
def test_from_pretrained_refuses_a_folder_and_load_model_does_not(tmp_path):
    folder = save_tiny("gpt_neox", tmp_path)
    lens = import_module("transformer_lens")
    with pytest.raises(ValueError, match="not found"):
        lens.HookedTransformer.from_pretrained(str(folder))
    model = load_model(str(folder), model_class="hooked_transformer")
    assert type(model).__name__ == "HookedTransformer"


@release_3
def test_the_rotary_base_of_gpt_neox_is_heeded(tmp_path):
    folder = save_tiny("gpt_neox", tmp_path, rotary_emb_base=500.0)
    hf_model = tiny_model("gpt_neox", rotary_emb_base=500.0)
    tokens = random_tokens(1, 60)
    expected = log_probs(hf_model, tokens)
    naive = naive_hooked_transformer(folder, hf_model)
    assert naive.cfg.rotary_base == 10000
    assert (log_probs(naive, tokens) - expected).abs().max() > 5e-3
    ours = load_model(str(folder), model_class="hooked_transformer")
    assert ours.cfg.rotary_base == 500.0
    torch.testing.assert_close(log_probs(ours, tokens), expected, atol=1e-5, rtol=0)


@release_3
@pytest.mark.parametrize("n_ctx", [40, 3000])
def test_the_context_of_qwen3_is_heeded(tmp_path, n_ctx):
    folder = save_tiny("qwen3", tmp_path, max_position_embeddings=n_ctx)
    hf_model = tiny_model("qwen3", max_position_embeddings=n_ctx)
    assert naive_hooked_transformer(folder, hf_model).cfg.n_ctx == 2048
    assert load_model(str(folder), model_class="hooked_transformer").cfg.n_ctx == n_ctx


@release_3
@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_biases_that_the_converter_drops_are_noticed(name):
    with pytest.raises(
        CheckpointError, match=r"relative difference of 0\.\d+.*model_class='bridge'"
    ):
        wrap_model(
            tiny_model(name, attention_bias=True),
            tiny_tokenizer(),
            model_class="hooked_transformer",
        )


@release_3
@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("llama", {"head_dim": 8}),
        ("gpt2", {"n_inner": 80}),
        ("qwen2", {"num_key_value_heads": 4}),
        ("olmo", {"clip_qkv": 0.5}),
        ("olmo2", {"num_key_value_heads": 4}),
        ("qwen3", {"tie_word_embeddings": True}),
        (
            "llama",
            {
                "rope_parameters": {
                    "rope_type": "llama3",
                    "rope_theta": 10000.0,
                    "factor": 4.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 32,
                }
            },
        ),
    ],
)
@pytest.mark.parametrize("processing", ["none", "compatibility"])
def test_unusual_settings_agree_with_hugging_face(name, overrides, processing):
    tokens = random_tokens(2, 60)
    expected = log_probs(tiny_model(name, **overrides), tokens)
    model = wrap_model(
        tiny_model(name, **overrides),
        tiny_tokenizer(),
        model_class="hooked_transformer",
        processing=processing,
    )
    torch.testing.assert_close(log_probs(model, tokens), expected, atol=1e-5, rtol=0)


@release_3
@pytest.mark.parametrize("processing", ["none", "compatibility"])
def test_the_hugging_face_model_stays_as_it_was(processing):
    hf_model = tiny_model("gpt_neox")
    hf_model.gpt_neox.embed_in.weight.requires_grad_(False)
    before = {k: v.clone() for k, v in hf_model.state_dict().items()}
    flags = [p.requires_grad for p in hf_model.parameters()]
    wrap_model(hf_model, tiny_tokenizer(), model_class="hooked_transformer", processing=processing)
    after = hf_model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert [p.requires_grad for p in hf_model.parameters()] == flags


def test_settings_of_grouped_heads_and_windows():
    settings = hooked_transformer_settings(config_dict(tiny_model("mistral")))
    assert settings["n_key_value_heads"] == 2
    assert (settings["d_head"], settings["rotary_dim"]) == (8, 8)
    assert (settings["window_size"], settings["attn_types"]) == (8, ["local", "local"])
    settings = hooked_transformer_settings(config_dict(tiny_model("olmo")))
    assert "n_key_value_heads" not in settings
    assert "window_size" not in settings


def test_settings_from_an_old_pythia_config():
    old = {
        "model_type": "gpt_neox",
        "hidden_act": "gelu",
        "hidden_size": 768,
        "intermediate_size": 3072,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 2048,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "rotary_emb_base": 10000,
        "rotary_pct": 0.25,
        "use_parallel_residual": True,
        "vocab_size": 50304,
    }
    settings = hooked_transformer_settings(json.loads(json.dumps(old)))
    assert (settings["rotary_dim"], settings["n_ctx"], settings["d_mlp"]) == (16, 2048, 3072)
    assert settings["parallel_attn_mlp"] is True


def test_what_hooked_transformer_cannot_hold():
    with pytest.raises(UnsupportedArchitectureError, match=r"got 'bert'.*model_class='bridge'"):
        hooked_transformer_settings({"model_type": "bert"})
    linear = tiny_model("llama", rope_parameters={"rope_type": "linear", "factor": 2.0})
    with pytest.raises(UnsupportedArchitectureError, match=r"rope_type 'linear'"):
        hooked_transformer_settings(config_dict(linear))
