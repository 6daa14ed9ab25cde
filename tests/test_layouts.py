"""Layouts: checkpoint tensors of each architecture are found, checked and cut into heads."""

import doctest
import importlib

import pytest
import torch
from zoo import PYTHIA_160M, ZOO, config_dict, tiny_model

from headspec.errors import CheckpointError, InputError
from headspec.layouts import LAYOUTS, head_tensor_names, head_weights_from_tensors


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


def test_an_architecture_is_added_with_one_line(monkeypatch):
    monkeypatch.setitem(LAYOUTS, "roberta", LAYOUTS["bert"])
    model = tiny_model("bert")
    tensors = {k.replace("bert.", "roberta.", 1): v for k, v in model.state_dict().items()}
    w = head_weights_from_tensors({**config_dict(model), "model_type": "roberta"}, 0, tensors)
    assert w.n_heads == 4


@pytest.mark.parametrize("name", ["configs", "reading"])
def test_examples_run(name):
    assert doctest.testmod(importlib.import_module(f"headspec.layouts.{name}")).failed == 0
