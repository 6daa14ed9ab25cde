"""QK forms at an offset against the scores of real models, before the softmax."""

from dataclasses import replace

import pytest
import torch
from zoo import ZOO, config_dict, random_tokens, tiny_model, tiny_tokenizer

import headspec as hs
from headspec.errors import InputError
from headspec.head_tensors import HeadWeights
from headspec.layouts import LAYOUTS, architecture, head_weights_from_tensors
from headspec.lens.models import wrap_model
from headspec.lens.weights import head_weights

ROTARY = [name for name in ZOO if name not in ("gpt2", "bert")]


def scores_from_forms(w: HeadWeights, x: torch.Tensor, frequencies=None) -> torch.Tensor:
    """Every score from the SVD of the form at its offset: `head q_pos k_pos`."""
    n = len(x)
    one = torch.cat([x, torch.ones(n, 1)], 1)
    scores = torch.zeros(w.n_heads, n, n)
    for offset in range(n):
        found = hs.qk_svd(w, offset=offset, biases=True, frequencies=frequencies)
        whole = ((one @ found.U) * found.S[:, None, :]) @ found.Vh @ one.mT
        scores += torch.diag_embed(whole.diagonal(-offset, 1, 2), -offset)
    grown = w.expand_kv()
    for W, bias, gain, dim in (
        (grown.W_Q, grown.b_Q, grown.q_norm, 2),
        (grown.W_K, grown.b_K, grown.k_norm, 1),
    ):
        if gain is not None:  # the division of QK-norm, which is not linear
            plain = x @ W if bias is None else x @ W + bias[:, None]
            if gain.ndim == 2:  # over all heads together; repeated key-value heads count once
                group = w.n_heads // (w.n_kv_heads if dim == 1 else w.n_heads)
                squares = plain[::group].pow(2).mean((0, 2), keepdim=True).expand(w.n_heads, n, 1)
            else:
                squares = plain.pow(2).mean(2, keepdim=True)
            norm = (squares + w.qk_norm_eps).sqrt()
            scores = scores / (norm if dim == 2 else norm.mT)
    return scores / w.d_head**0.5


def assert_same_scores(ours: torch.Tensor, log_pattern: torch.Tensor) -> None:
    """Equal up to the constant of each row that the softmax takes away, over keys not masked."""
    seen = torch.isfinite(log_pattern)
    assert seen.sum() > 100

    def centred(scores: torch.Tensor) -> torch.Tensor:
        scores = scores.where(seen, 0)
        mean = scores.sum(-1, keepdim=True) / seen.sum(-1, keepdim=True)
        return (scores - mean).where(seen, 0)

    torch.testing.assert_close(centred(ours), centred(log_pattern), atol=1e-4, rtol=1e-3)


def pattern_of_module(model, layer, x):
    """Attention probabilities of Hugging Face's module for normalised input x: `pos d_model`."""
    part = LAYOUTS[architecture(config_dict(model))].module.format(layer=layer)
    (module,) = [m for name, m in model.named_modules() if name.endswith(part)]
    seen = {}

    def feed(_module, args, kwargs):
        if args:
            return (x[None], *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": x[None]}

    with (
        torch.no_grad(),
        module.register_forward_pre_hook(feed, with_kwargs=True),
        module.register_forward_hook(lambda _m, _a, out: seen.update(pattern=out[1])),
    ):
        model(torch.arange(2, 2 + len(x))[None])
    return seen["pattern"][0]


@pytest.mark.parametrize("name", [*ROTARY, "gpt2"])
def test_forms_give_the_scores_of_hugging_face_models(name):
    model = tiny_model(name)
    x = torch.randn(11, 64, generator=torch.Generator().manual_seed(1))
    for layer in range(2):
        w = head_weights_from_tensors(config_dict(model), layer, model.state_dict())
        assert_same_scores(scores_from_forms(w, x), pattern_of_module(model, layer, x).log())


@pytest.mark.parametrize("name", ["gpt_neox", "llama", "qwen3"])
def test_one_form_for_all_offsets_where_rotations_were_dropped(name):
    model = hs.drop_rope(tiny_model(name), layers=[1])
    x = torch.randn(11, 64, generator=torch.Generator().manual_seed(1))
    for layer in range(2):
        w = hs.head_weights(model, layer)
        assert_same_scores(scores_from_forms(w, x), pattern_of_module(model, layer, x).log())
        same = torch.equal(hs.qk_svd(w, offset=5).S, hs.qk_svd(w).S)
        assert same == (layer == 1)


def test_scaled_frequencies_can_be_given():
    scaling = {
        "rope_type": "llama3",
        "rope_theta": 100.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    model = tiny_model("llama", rope_parameters=scaling)
    x = torch.randn(11, 64, generator=torch.Generator().manual_seed(1))
    w = head_weights_from_tensors(config_dict(model), 0, model.state_dict())
    pattern = pattern_of_module(model, 0, x).log()
    frequencies = model.model.rotary_emb.inv_freq
    assert_same_scores(scores_from_forms(w, x, frequencies), pattern)
    with pytest.raises(InputError, match="known by name only"):
        scores_from_forms(w, x)
    assert w.rotary is not None
    plain = replace(w, rotary=replace(w.rotary, scaling=None))
    with pytest.raises(AssertionError):
        assert_same_scores(scores_from_forms(plain, x), pattern)


@pytest.mark.parametrize("name", ["gpt_neox", "llama", "qwen3", "olmo2"])
def test_the_check_above_can_fail(name):
    """Negative control: the form at offset 0 alone, or without gains, gives other scores."""
    model = tiny_model(name)
    x = torch.randn(11, 64, generator=torch.Generator().manual_seed(1))
    w = head_weights_from_tensors(config_dict(model), 0, model.state_dict())
    pattern = pattern_of_module(model, 0, x).log()
    wrong = [{"rotary": None}]
    if w.k_norm is not None:
        wrong.append({"k_norm": w.k_norm.flip(-1)})
    for change in wrong:
        with pytest.raises(AssertionError):
            assert_same_scores(scores_from_forms(replace(w, **change), x), pattern)


@pytest.mark.models
@pytest.mark.parametrize("name", ["gpt_neox", "llama", "qwen3"])
def test_forms_give_the_scores_of_hooked_models(name):
    model = wrap_model(tiny_model(name), tiny_tokenizer())
    tokens = random_tokens(1, 11)
    _, cache = model.run_with_cache(tokens)
    for layer in range(2):
        scores = cache[f"blocks.{layer}.attn.hook_attn_scores"][0]
        x = cache[f"blocks.{layer}.attn.hook_in"][0]
        ours = scores_from_forms(head_weights(model, layer), x)
        seen = torch.ones(11, 11).tril().bool()
        torch.testing.assert_close(ours[:, seen], scores[:, seen], atol=1e-4, rtol=1e-3)


@pytest.mark.models
@pytest.mark.parametrize("circuit", ["qk", "ov"])
def test_equal_to_transformer_lens(circuit):
    """`FactoredMatrix.svd` of the same heads: values, and vectors up to signs and rounding."""
    from transformer_lens import FactoredMatrix

    w = hs.open_suite("micro").head_weights(6144, 1).to(torch.float32)
    A, B = (w.W_Q, w.W_K.mT) if circuit == "qk" else (w.W_V, w.W_O)
    U, S, Vh = FactoredMatrix(A, B).svd()
    found = hs.qk_svd(w) if circuit == "qk" else hs.ov_svd(w)
    torch.testing.assert_close(found.S, S, rtol=1e-4, atol=1e-5)
    V = Vh if Vh.shape[-2] == A.shape[-2] else Vh.mT  # releases differ in what they call Vh
    first = (found.U * U).sum(-2)[:, 0] * (found.Vh.mT * V).sum(-2)[:, 0]
    torch.testing.assert_close(first, torch.ones_like(first), rtol=0, atol=1e-4)
