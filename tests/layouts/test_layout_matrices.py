"""The oracle of a layer's matrices: what Hugging Face's own modules compute with them."""

import doctest

import pytest
import torch
from torch.nn.functional import linear
from zoo import PYTHIA_160M, VOCAB, ZOO, config_dict, tiny_model

from headspec.errors import CheckpointError, InputError, UnsupportedArchitectureError
from headspec.layouts import (
    EMBEDDINGS,
    LAYOUTS,
    MATRICES,
    Layout,
    embedding_matrices_from_tensors,
    embedding_names,
    head_weights_from_tensors,
    layer_matrices_from_tensors,
    layer_matrix_names,
    matrices,
)

GATED = {"llama", "mistral", "qwen2", "qwen3", "olmo", "olmo2"}
MLP_MODULES = {  # role: module of the model, by name's ending
    "gpt_neox": {"mlp_in": "mlp.dense_h_to_4h", "mlp_out": "mlp.dense_4h_to_h"},
    "gpt2": {"mlp_in": "mlp.c_fc", "mlp_out": "mlp.c_proj"},
    "bert": {"mlp_in": "0.intermediate.dense", "mlp_out": "layer.0.output.dense"},
    **{
        name: {"mlp_in": "mlp.up_proj", "mlp_gate": "mlp.gate_proj", "mlp_out": "mlp.down_proj"}
        for name in GATED
    },
}


def apply_module(model, ending, width):
    """What the first layer's module of that name makes of the unit vectors, without its bias."""
    module = next(m for name, m in model.named_modules() if name.endswith(ending))
    with torch.no_grad():
        return module(torch.eye(width)) - module(torch.zeros(1, width))


@pytest.mark.parametrize("name", ZOO)
def test_mlp_matrices_do_what_the_modules_do(name):
    model = tiny_model(name)
    found = layer_matrices_from_tensors(config_dict(model), 0, model.state_dict())
    modules = MLP_MODULES[model.config.model_type]
    assert list(found) == [role for role in MATRICES if role in {*"qkvo", *modules}]
    for role, ending in modules.items():
        width = found[role].shape[0]
        torch.testing.assert_close(found[role], apply_module(model, ending, width))
        assert width == (64 if role != "mlp_out" else found["mlp_in"].shape[1])


@pytest.mark.parametrize("name", ZOO)
def test_attention_matrices_are_the_heads_side_by_side(name):
    model = tiny_model(name)
    config, tensors = config_dict(model), model.state_dict()
    for layer in range(2):
        found = layer_matrices_from_tensors(config, layer, tensors)
        w = head_weights_from_tensors(config, layer, tensors)
        for role, heads in (("q", w.W_Q), ("k", w.W_K), ("v", w.W_V)):
            assert torch.equal(found[role], torch.cat(list(heads), dim=1))
            assert found[role].shape == (w.d_model, heads.shape[0] * w.d_head)
        assert torch.equal(found["o"], w.W_O.flatten(0, 1))


@pytest.mark.parametrize("name", ZOO)
def test_embeddings_do_what_the_modules_do(name):
    model = tiny_model(name)
    found = embedding_matrices_from_tensors(config_dict(model), model.state_dict())
    assert [role for role in EMBEDDINGS if role in found] == list(found)
    embed, unembed = model.get_input_embeddings(), model.get_output_embeddings()
    ids, hidden = torch.arange(VOCAB), torch.randn(5, 64)
    assert torch.equal(found["embed"], embed(ids))
    torch.testing.assert_close(hidden @ found["unembed"], linear(hidden, unembed.weight))
    tied = name in ("gpt2", "bert")
    assert torch.equal(found["unembed"], found["embed"].T) == tied
    assert ("pos_embed" in found) == tied  # learned positions
    assert ("token_type_embed" in found) == (name == "bert")


def test_negative_control_square_matrices_the_wrong_way_round():
    """Shapes alone do not catch GPT-2's transposed storage where d_mlp = d_model."""
    model = tiny_model("gpt2", n_inner=64)
    found = layer_matrices_from_tensors(config_dict(model), 0, model.state_dict())
    right = apply_module(model, "mlp.c_proj", 64)
    torch.testing.assert_close(found["mlp_out"], right)
    assert (found["mlp_out"].T - right).abs().max() > 0.1


def test_gpt_neox_by_hand():
    """Two heads of d_head 1: rows of the fused matrix are q0 k0 v0 q1 k1 v1."""
    config = {**PYTHIA_160M, "hidden_size": 2, "num_attention_heads": 2, "intermediate_size": 3}
    fused = torch.tensor([[float(10 * row), 10 * row + 1] for row in range(6)])
    tensors = {
        "gpt_neox.layers.0.attention.query_key_value.weight": fused,
        "gpt_neox.layers.0.attention.dense.weight": torch.tensor([[1.0, 2], [3, 4]]),
        "gpt_neox.layers.0.mlp.dense_h_to_4h.weight": torch.tensor([[1.0, 2], [3, 4], [5, 6]]),
        "gpt_neox.layers.0.mlp.dense_4h_to_h.weight": torch.tensor([[1.0, 2, 3], [4, 5, 6]]),
    }
    found = layer_matrices_from_tensors(config, 0, tensors)
    assert {role: matrix.tolist() for role, matrix in found.items()} == {
        "q": [[0, 30], [1, 31]],
        "k": [[10, 40], [11, 41]],
        "v": [[20, 50], [21, 51]],
        "o": [[1, 3], [2, 4]],
        "mlp_in": [[1, 3, 5], [2, 4, 6]],
        "mlp_out": [[1, 4], [2, 5], [3, 6]],
    }


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "gpt_neox"])
def test_views_where_the_storage_allows(name):
    model = tiny_model(name)
    tensors = dict(model.state_dict())
    found = layer_matrices_from_tensors(config_dict(model), 1, tensors)
    found |= embedding_matrices_from_tensors(config_dict(model), tensors)
    stored = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
    copied = {r for r, m in found.items() if m.untyped_storage().data_ptr() not in stored}
    assert copied == (set("qkv") if name == "gpt_neox" else set())


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("prefix", ["", "base_model.model."])
def test_any_prefix_and_nothing_but_the_matrices(name, prefix):
    model = tiny_model(name)
    base, config = model.base_model_prefix + ".", config_dict(model)
    renamed = {prefix + k.removeprefix(base): v for k, v in model.state_dict().items()}
    names = layer_matrix_names(config, 1, list(renamed))
    assert all(renamed[found].ndim == 2 for found in names.values())
    ours = layer_matrices_from_tensors(config, 1, {n: renamed[n] for n in names.values()})
    theirs = layer_matrices_from_tensors(config, 1, model.state_dict())
    assert all(torch.equal(ours[role], theirs[role]) for role in theirs)
    tables = {found: renamed[found] for found in embedding_names(config, list(renamed)).values()}
    embeddings = embedding_matrices_from_tensors(config, tables)
    assert torch.equal(embeddings["embed"], model.get_input_embeddings().weight)


def test_tied_by_the_config():
    """`tie_word_embeddings` decides; where the config is silent, the architecture does."""
    model = tiny_model("llama", tie_word_embeddings=True)
    config, tensors = config_dict(model), dict(model.state_dict())
    del tensors["lm_head.weight"]  # as files of tied models have it
    found = embedding_matrices_from_tensors(config, tensors)
    assert torch.equal(found["unembed"], tensors["model.embed_tokens.weight"].T)
    silent = {k: v for k, v in config.items() if k != "tie_word_embeddings"}
    with pytest.raises(CheckpointError, match=r"a tensor called lm_head\.weight"):
        embedding_matrices_from_tensors(silent, tensors)
    gpt2 = {"model_type": "gpt2", "n_embd": 4, "n_head": 2, "n_layer": 1}
    assert embedding_names(gpt2, ["wte.weight", "wpe.weight"])["unembed"] == "wte.weight"


def test_both_spellings_of_the_unembedding():
    """Published Pythia files say embed_out; what transformers 5 saves from memory, lm_head."""
    for name in ("embed_out.weight", "lm_head.weight"):
        found = embedding_names(PYTHIA_160M, ["gpt_neox.embed_in.weight", name])
        assert found == {"embed": "gpt_neox.embed_in.weight", "unembed": name}
    both = ["embed_in.weight", "embed_out.weight", "lm_head.weight"]
    with pytest.raises(CheckpointError, match=r"one tensor called embed_out\.weight or lm_head"):
        embedding_names(PYTHIA_160M, both)


def test_a_base_model_has_no_unembedding():
    """Its tensors have no prefix; with one, a missing head is a missing shard."""
    assert embedding_names(PYTHIA_160M, ["embed_in.weight"]) == {"embed": "embed_in.weight"}
    model = tiny_model("gpt_neox")
    base = model.base_model
    found = embedding_matrices_from_tensors(config_dict(model), base.state_dict())
    assert list(found) == ["embed"]
    with pytest.raises(CheckpointError, match=r"a tensor called embed_out\.weight"):
        embedding_names(PYTHIA_160M, ["gpt_neox.embed_in.weight"])


def test_missing_tensors_are_named():
    model = tiny_model("qwen3")
    config, tensors = config_dict(model), dict(model.state_dict())
    del tensors["model.layers.1.mlp.gate_proj.weight"]
    with pytest.raises(CheckpointError, match=r"without model\.layers\.1\.mlp\.gate_proj\.weight"):
        layer_matrices_from_tensors(config, 1, tensors)
    assert "mlp_gate" in layer_matrices_from_tensors(config, 0, tensors)
    bloom = {"transformer.h.0.self_attention.query_key_value.weight": torch.zeros(6, 2)}
    with pytest.raises(CheckpointError, match=r"layers\.0\.attention\.query_key_value\.weight"):
        layer_matrices_from_tensors(PYTHIA_160M, 0, bloom)
    with pytest.raises(CheckpointError, match=r"embed_in\.weight"):
        embedding_matrices_from_tensors(PYTHIA_160M, bloom)
    with pytest.raises(InputError, match=r"a layer from 0 to 1; got layer 2"):
        layer_matrices_from_tensors(config, 2, tensors)


def test_wrong_shapes_are_named():
    model = tiny_model("gpt_neox")
    config, tensors = config_dict(model), dict(model.state_dict())
    swapped = {**tensors, "lm_head.weight": tensors["lm_head.weight"].T}
    with pytest.raises(CheckpointError, match=r"lm_head\.weight of shape \[61, 64\]"):
        embedding_matrices_from_tensors(config, swapped)
    name = "gpt_neox.layers.0.mlp.dense_4h_to_h.weight"
    with pytest.raises(CheckpointError, match=r"4h_to_h\.weight of shape \[64, 96\]; got .*96, 64"):
        layer_matrices_from_tensors(config, 0, {**tensors, name: tensors[name].T})


def test_rows_of_the_table_that_know_attention_only(monkeypatch):
    bert = LAYOUTS["bert"]
    row = Layout(module=bert.module, names=bert.names, qkv_bias="always", o_bias="always")
    monkeypatch.setitem(LAYOUTS, "mine", row)
    model = tiny_model("bert")
    config, tensors = {**config_dict(model), "model_type": "mine"}, model.state_dict()
    assert head_weights_from_tensors(config, 0, tensors).n_heads == 4
    with pytest.raises(UnsupportedArchitectureError, match=r"where the MLP of 'mine' lie.*mlp="):
        layer_matrices_from_tensors(config, 0, tensors)
    with pytest.raises(UnsupportedArchitectureError, match=r"embeddings of 'mine'.*embeddings="):
        embedding_matrices_from_tensors(config, tensors)


def test_examples_run():
    assert doctest.testmod(matrices).failed == 0
