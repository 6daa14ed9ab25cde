"""What processing a model went through: recorded by headspec, or read off a stranger's model."""

import warnings
from importlib.metadata import version

import pytest
import torch
from zoo import CAUSAL, tiny_model, tiny_tokenizer

from headspec.errors import CheckpointError
from headspec.lens.models import wrap_model
from headspec.lens.processing import (
    check_same_function,
    describe_flags,
    origin_of,
    probe_tokens,
    processing_flags,
)

HAS_HOOKED_TRANSFORMER = version("transformer-lens").startswith("3.")
CLASSES = ("bridge", "hooked_transformer") if HAS_HOOKED_TRANSFORMER else ("bridge",)


def a_strangers(model):
    """The same model as if its owner had made it without headspec."""
    del model.headspec_origin
    return model


@pytest.mark.models
@pytest.mark.parametrize("processing", ["none", "compatibility"])
@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("name", ["gpt_neox", "gpt2", "llama", "qwen2", "qwen3"])
def test_processing_is_read_off_the_weights(name, model_class, processing):
    model = wrap_model(
        tiny_model(name), tiny_tokenizer(), model_class=model_class, processing=processing
    )
    recorded = set(origin_of(model).processing.split(","))
    seen = set(origin_of(a_strangers(model)).processing.split(","))
    # Folding value biases that do not exist leaves no trace.
    assert seen - {"fold_value_biases"} == recorded - {"fold_value_biases"}


@pytest.mark.models
def test_single_steps_of_a_strangers_bridge():
    off = dict.fromkeys(
        ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases"), False
    )
    for step, expected in (
        ("fold_ln", "fold_ln"),
        ("center_writing_weights", "center_writing_weights"),
        ("fold_value_biases", "unknown"),
    ):
        model = a_strangers(wrap_model(tiny_model("gpt_neox"), tiny_tokenizer()))
        model.enable_compatibility_mode(disable_warnings=True, **{**off, step: True})
        assert origin_of(model).processing == expected
    model = a_strangers(wrap_model(tiny_model("gpt_neox"), tiny_tokenizer()))
    model.enable_compatibility_mode(disable_warnings=True, no_processing=True)
    assert origin_of(model).processing == "none"


@pytest.mark.models
def test_names_of_a_strangers_model():
    model = a_strangers(wrap_model(tiny_model("gpt2"), tiny_tokenizer(), name="someone/model"))
    assert origin_of(model).model == "someone/model"
    assert origin_of(model).step is None


def test_flags_that_take_effect():
    def flags(processing, **kwargs):
        given = {"normalization": "LN", "folds": True, "centers": True, "softcapped": False}
        return describe_flags(processing_flags(processing, **{**given, **kwargs}))

    assert flags("none") == "none"
    everything = "fold_ln,center_writing_weights,center_unembed,fold_value_biases"
    assert flags("compatibility") == everything
    assert flags("compatibility", normalization="RMS") == everything.replace(
        "center_writing_weights,", ""
    )
    assert flags("compatibility", folds=False) == everything.removeprefix("fold_ln,")
    assert flags("compatibility", softcapped=True) == everything.replace("center_unembed,", "")


def test_the_check_lets_rounding_pass_and_no_more():
    generator = torch.Generator().manual_seed(0)
    before = (3 * torch.randn(1, 20, 61, generator=generator)).log_softmax(-1)
    noise = torch.randn(before.shape, generator=generator)
    check_same_function(before, before + 1e-5 * noise, dtype=torch.float32, what="x")
    check_same_function(before, before + 3e-2 * noise, dtype=torch.bfloat16, what="x")
    with pytest.raises(CheckpointError, match=r"expected x to give.*difference of 0\.0"):
        check_same_function(before, before + 3e-2 * noise, dtype=torch.float32, what="x")
    with pytest.raises(CheckpointError, match="nan"):
        check_same_function(before, before * torch.nan, dtype=torch.float32, what="x")


@pytest.mark.models
def test_a_wrong_rotary_base_would_be_refused():
    """The smallest known silent error of a converter is far above what the check allows."""
    tokens = probe_tokens(61, n_ctx=64, device="cpu")
    assert tokens.shape == (1, 48)
    assert len(set(tokens[0].tolist())) > 30
    right, wrong = (
        tiny_model("gpt_neox", rotary_emb_base=base)(tokens).logits.log_softmax(-1).detach()
        for base in (500.0, 10000.0)
    )
    with pytest.raises(CheckpointError):
        check_same_function(right, wrong, dtype=torch.float32, what="x")


@pytest.mark.models
@pytest.mark.parametrize("name", CAUSAL)
def test_loading_is_silent(name, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for model_class in CLASSES:
            if (name, model_class) != ("olmo2", "hooked_transformer"):
                wrap_model(
                    tiny_model(name),
                    tiny_tokenizer(),
                    model_class=model_class,
                    processing="compatibility",
                )
    assert capfd.readouterr().out == ""
