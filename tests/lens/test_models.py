"""Hooked models compute what the Hugging Face model computes, whatever class and processing."""

import copy
import pickle
from importlib.metadata import version

import pytest
import torch
from zoo import CONTEXT, ZOO, random_tokens, save_tiny, tiny_model, tiny_tokenizer

from headspec.errors import CheckpointError, InputError, UnsupportedArchitectureError
from headspec.lens.models import load_model, wrap_model
from headspec.lens.processing import origin_of
from headspec.lens.protocols import HookedModel

pytestmark = pytest.mark.models

HAS_HOOKED_TRANSFORMER = version("transformer-lens").startswith("3.")
CLASSES = ("bridge", "hooked_transformer") if HAS_HOOKED_TRANSFORMER else ("bridge",)
NOT_ON_HOOKED_TRANSFORMER = {"bert": "got 'bert'", "olmo2": "missing weight matrices"}

LAYER_NORM_STEPS = "fold_ln,center_writing_weights,center_unembed,fold_value_biases"
RMS_NORM_STEPS = "fold_ln,center_unembed,fold_value_biases"
PROCESSED = {
    "gpt_neox": LAYER_NORM_STEPS,
    "gpt_neox_sequential": LAYER_NORM_STEPS,
    "gpt2": LAYER_NORM_STEPS,
    "olmo": LAYER_NORM_STEPS,
    "llama": RMS_NORM_STEPS,
    "qwen2": RMS_NORM_STEPS,
    "qwen3": RMS_NORM_STEPS,
    "mistral": RMS_NORM_STEPS,
    "olmo2": "center_unembed,fold_value_biases",  # norms stand behind the attention
    "bert": "center_writing_weights,center_unembed,fold_value_biases",
}


@torch.no_grad()
def log_probs(model, tokens):
    out = model(tokens)
    return getattr(out, "logits", out).log_softmax(-1)


@pytest.mark.parametrize("processing", ["none", "compatibility"])
@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("name", ZOO)
def test_log_probs_agree_with_hugging_face(name, model_class, processing):
    tokens = random_tokens(2, 40)
    expected = log_probs(tiny_model(name), tokens)
    if model_class == "hooked_transformer" and name in NOT_ON_HOOKED_TRANSFORMER:
        with pytest.raises(UnsupportedArchitectureError, match=NOT_ON_HOOKED_TRANSFORMER[name]):
            wrap_model(tiny_model(name), tiny_tokenizer(), model_class=model_class)
        return
    model = wrap_model(
        tiny_model(name), tiny_tokenizer(), model_class=model_class, processing=processing
    )
    assert isinstance(model, HookedModel)
    exact = model_class == "bridge" and processing == "none" and name != "gpt2"
    tolerance = 0.0 if exact else 1e-5
    torch.testing.assert_close(log_probs(model, tokens), expected, atol=tolerance, rtol=0)
    recorded = origin_of(model).processing
    assert recorded == ("none" if processing == "none" else PROCESSED[name])
    assert model.cfg.n_ctx == CONTEXT
    assert not model.training


@pytest.mark.parametrize("model_class", CLASSES)
def test_load_model_from_a_folder_of_steps(tmp_path, model_class):
    tokens = random_tokens(1, 20)
    for step in (0, 8):
        save_tiny("gpt_neox", tmp_path / f"step{step}", seed=step)
    for step in (0, 8):
        model = load_model(str(tmp_path), step=step, model_class=model_class)
        expected = log_probs(tiny_model("gpt_neox", seed=step), tokens)
        torch.testing.assert_close(log_probs(model, tokens), expected, atol=1e-5, rtol=0)
        origin = origin_of(model)
        assert (origin.model, origin.step) == (str(tmp_path), step)


@pytest.mark.parametrize("folder", ["llama", "gemma-2-9b", "my-bert"])
def test_folder_names_decide_nothing(tmp_path, folder):
    """transformer-lens guesses the architecture from such names."""
    path = save_tiny("gpt_neox", tmp_path / folder)
    tokens = random_tokens(1, 20)
    for model_class in CLASSES:
        model = load_model(str(path), model_class=model_class)
        expected = log_probs(tiny_model("gpt_neox"), tokens)
        torch.testing.assert_close(log_probs(model, tokens), expected, atol=1e-5, rtol=0)


def test_auto_is_the_bridge_on_every_release():
    model = wrap_model(tiny_model("gpt_neox"), tiny_tokenizer())
    assert type(model).__name__ == "TransformerBridge"


@pytest.mark.skipif(HAS_HOOKED_TRANSFORMER, reason="this release has HookedTransformer")
def test_hooked_transformer_without_one_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"transformer-lens 4\..*install 'transformer-lens<4'"):
        load_model(str(tmp_path / "nothing"), model_class="hooked_transformer")


@pytest.mark.parametrize("model_class", CLASSES)
def test_without_a_tokenizer(tmp_path, model_class):
    tiny_model("llama").save_pretrained(tmp_path)
    model = load_model(str(tmp_path), model_class=model_class)
    tokens = random_tokens(1, 20)
    torch.testing.assert_close(
        log_probs(model, tokens), log_probs(tiny_model("llama"), tokens), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("model_class", CLASSES)
def test_the_tokenizer_is_a_copy_that_needs_no_network(model_class):
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.name_or_path = "someone/does-not-exist"
    before = pickle.dumps(tokenizer.init_kwargs)
    model = wrap_model(tiny_model("llama"), tokenizer, model_class=model_class)
    assert model.tokenizer is not tokenizer
    assert model.tokenizer.name_or_path == "someone/does-not-exist"
    assert pickle.dumps(tokenizer.init_kwargs) == before
    assert model.to_tokens("w4 w5", prepend_bos=False).tolist() == [[4, 5]]


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("processing", ["none", "compatibility"])
def test_bfloat16(model_class, processing):
    model = wrap_model(
        tiny_model("qwen3"),
        tiny_tokenizer(),
        model_class=model_class,
        processing=processing,
        dtype=torch.bfloat16,
    )
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    tokens = random_tokens(1, 20)
    difference = log_probs(model, tokens).float() - log_probs(tiny_model("qwen3"), tokens)
    assert difference.abs().mean() < 0.1


def test_a_bridge_wraps_in_place_and_compatibility_changes_the_weights():
    hf_model = tiny_model("gpt_neox")
    kept = copy.deepcopy(hf_model)
    tokens = random_tokens(1, 20)
    before = hf_model(tokens).logits.detach()
    wrap_model(hf_model, tiny_tokenizer(), processing="compatibility")
    assert any("_original_component" in module for module, _ in hf_model.named_modules())
    assert not torch.allclose(hf_model(tokens).logits.detach(), before, atol=1e-3)
    assert torch.equal(kept(tokens).logits, before)
    with pytest.raises(InputError, match=r"inside a TransformerBridge already.*fresh model"):
        wrap_model(hf_model, tiny_tokenizer())


def test_every_load_is_fresh(tmp_path):
    save_tiny("gpt_neox", tmp_path)
    first, second = load_model(str(tmp_path)), load_model(str(tmp_path))
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    tokens = random_tokens(1, 20)
    expected = log_probs(tiny_model("gpt_neox"), tokens)
    assert torch.equal(log_probs(second, tokens), expected)


def test_reusing_a_bridge_for_another_checkpoint_is_silently_wrong(tmp_path):
    """The naive way over checkpoints: load the next state dict with strict=False."""
    tokens = random_tokens(1, 20)
    for step in (0, 1):
        save_tiny("gpt_neox", tmp_path / f"step{step}", seed=step)
    expected = log_probs(tiny_model("gpt_neox", seed=1), tokens)

    reused = load_model(str(tmp_path), step=0)
    reused.original_model.load_state_dict(tiny_model("gpt_neox", seed=1).state_dict(), strict=False)
    assert (log_probs(reused, tokens) - expected).abs().max() > 0.1

    fresh = load_model(str(tmp_path), step=1)
    assert torch.equal(log_probs(fresh, tokens), expected)


@pytest.mark.parametrize("model_class", CLASSES)
def test_processing_that_changes_the_function_is_refused(model_class):
    """With an MLP as wide as the residual stream, transformer-lens centres the wrong side."""
    hf_model = tiny_model("gpt_neox", intermediate_size=64)
    with pytest.raises(CheckpointError, match=r"processing='compatibility' to give the log-prob"):
        wrap_model(hf_model, None, model_class=model_class, processing="compatibility")
    hf_model = tiny_model("gpt_neox", intermediate_size=64)
    wrap_model(hf_model, None, model_class=model_class)  # raw weights are fine


def test_a_model_the_bridge_cannot_hold_is_explained():
    with pytest.raises(
        UnsupportedArchitectureError, match=r"GPTNeoXForCausalLM, on which it fails"
    ):
        wrap_model(tiny_model("gpt_neox", attention_bias=False), tiny_tokenizer())


@pytest.mark.parametrize("model_class", CLASSES)
def test_the_origin_survives_copies(model_class):
    model = wrap_model(
        tiny_model("gpt2"), tiny_tokenizer(), model_class=model_class, name="mine", step=3
    )
    for other in (model, copy.deepcopy(model)):
        origin = origin_of(other)
        assert (origin.model, origin.step, origin.processing) == ("mine", 3, "none")


def test_choices_are_checked_before_anything_is_loaded():
    with pytest.raises(Exception, match=r"model_class"):
        load_model("someone/absent", model_class="ht", offline=True)  # type: ignore[arg-type]
    with pytest.raises(Exception, match=r"processing"):
        load_model("someone/absent", processing="fold", offline=True)  # type: ignore[arg-type]


def test_nothing_global_is_touched():
    state, dtype = torch.random.get_rng_state(), torch.get_default_dtype()
    hf_model = tiny_model("gpt_neox")
    for processing in ("none", "compatibility"):
        wrap_model(copy.deepcopy(hf_model), tiny_tokenizer(), processing=processing)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_default_dtype() == dtype
    assert torch.is_grad_enabled()
