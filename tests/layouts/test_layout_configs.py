"""Architecture, sizes and rotary embeddings from configs of transformers 4 and 5."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo import PYTHIA_160M, config_dict, tiny_model

from headspec.errors import InputError, UnsupportedArchitectureError
from headspec.layouts import architecture, dimensions, n_heads, n_layers, rotary


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
