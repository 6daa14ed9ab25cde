"""Probes of a model: the activations probed are the model's, streamed or not."""

import numpy as np
import pytest
import torch
from block_forward import CLASSES
from zoo import random_tokens, tiny_model, tiny_tokenizer

from headspec import InputError, fit_probes, probe_model
from headspec.lens import probe_streaming
from headspec.lens.capture import capture
from headspec.lens.hooks import has_caller_hooks
from headspec.lens.models import wrap_model

pytestmark = pytest.mark.models
N_POS = 20
SITES = {"gpt_neox": "resid_pre", "qwen3": "z", "gpt2": "mlp_out", "llama": "attn_out"}


def build(name="gpt_neox", model_class="bridge", **options):
    return wrap_model(tiny_model(name), tiny_tokenizer(), model_class=model_class, **options)


def topics(n=60, seed=0):
    """Sequences whose two halves are of words 2 to 30 or 31 to 60; a token in ten from either."""
    generator = torch.Generator().manual_seed(seed)
    halves = torch.randint(2, (n, 2), generator=generator)
    labels = halves.repeat_interleave(N_POS // 2, 1)
    tokens = 2 + 29 * labels + torch.randint(0, 29, labels.shape, generator=generator)
    stray = torch.rand(labels.shape, generator=generator) < 0.1
    anywhere = torch.randint(2, 60, labels.shape, generator=generator)
    tokens = torch.where(stray, anywhere, tokens)
    labels[:, 0] = -1
    return tokens, labels


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize(("name", "site"), list(SITES.items()))
def test_what_is_probed_is_what_capture_gives(name, site, model_class):
    model = build(name, model_class)
    tokens, labels = topics()
    probes = probe_model(model, tokens, labels, site=site, tokens_per_sequence=None)
    found = capture(model, tokens, [(0, site), (1, site)])
    stacked = torch.stack([found[layer, site].flatten(0, 1) for layer in (0, 1)])
    if site == "z":
        stacked = stacked.transpose(1, 2)
    rows = torch.arange(60).repeat_interleave(N_POS)
    direct = fit_probes(stacked, labels.flatten(), groups=rows, token_types=tokens.flatten())
    assert probes.accuracy.shape == ((2, 4) if site == "z" else (2,))
    # batches round the activations differently
    np.testing.assert_allclose(probes.mean, direct.mean, atol=1e-4)
    assert probes.n_groups == direct.n_groups == (36, 12, 12)
    np.testing.assert_allclose(probes.values["log_loss"], direct.values["log_loss"], atol=2e-3)
    np.testing.assert_allclose(probes.accuracy, direct.accuracy, atol=0.02)
    assert (probes.site, probes.step, probes.processing) == (site, None, "none")
    assert probes.to_frame()["head"].notna().all() == (site == "z")


@pytest.mark.parametrize("model_class", CLASSES)
def test_layers_of_the_residual_stream_from_the_embeddings_on(model_class):
    model = build("gpt_neox", model_class)
    tokens, labels = topics()
    after = probe_model(model, tokens, labels, layers=(-1, 0, 1))
    before = probe_model(model, tokens, labels, site="resid_pre")
    np.testing.assert_array_equal(after.weights[:2], before.weights)
    assert after.layers == (-1, 0, 1)
    assert after.to_frame().query("metric == 'accuracy'")["layer"].tolist() == [-1, 0, 1]
    only = probe_model(model, tokens, labels, layers=[-1])
    np.testing.assert_array_equal(only.weights[0], after.weights[0])


def test_streaming_layer_by_layer_gives_the_same_bits():
    model = build()
    tokens, labels = topics()
    whole = probe_model(model, tokens, labels, tokens_per_sequence=7)
    streamed = probe_model(model, tokens, labels, tokens_per_sequence=7, max_bytes=1)
    np.testing.assert_array_equal(whole.weights, streamed.weights)
    assert whole.to_frame().equals(streamed.to_frame())


def test_no_more_layers_are_held_than_the_bytes_allow(monkeypatch):
    model = build()
    tokens, labels = topics()
    held = []
    collect = probe_streaming._collect

    def counting(*arguments):
        kept = collect(*arguments)
        held.append(sum(one.numel() * one.element_size() for one in kept.values()))
        return kept

    monkeypatch.setattr(probe_streaming, "_collect", counting)
    one_layer = 60 * 5 * 64 * 4
    probe_model(model, tokens, labels, tokens_per_sequence=5, max_bytes=one_layer + 1)
    assert held == [one_layer, one_layer]


def test_tokens_drawn_are_labelled_seeded_and_at_most_as_many_as_asked():
    allowed = torch.rand(50, 30, generator=torch.Generator().manual_seed(0)).numpy() < 0.3
    rows, columns = probe_streaming.draw_positions(allowed, per_row=6, seed=1)
    assert allowed[rows, columns].all()
    assert np.bincount(rows, minlength=50).tolist() == np.minimum(allowed.sum(1), 6).tolist()
    again = probe_streaming.draw_positions(allowed, per_row=6, seed=1)
    other = probe_streaming.draw_positions(allowed, per_row=6, seed=2)
    assert np.array_equal(columns, again[1])
    assert not np.array_equal(columns, other[1])
    everything = probe_streaming.draw_positions(allowed, per_row=None, seed=1)
    assert len(everything[0]) == allowed.sum()


def test_copies_of_a_sequence_are_one_group():
    """Copies on two sides of the split would let a probe recall random labels."""
    model = build()
    tokens = random_tokens(40, N_POS).repeat(2, 1)
    labels = torch.randint(2, (40, N_POS), generator=torch.Generator().manual_seed(1)).repeat(2, 1)
    probes = probe_model(model, tokens, labels, tokens_per_sequence=None)
    assert sum(probes.n_groups) == 40
    assert probes.accuracy.max() < 0.65


def test_half_precision_is_kept_as_it_is_and_probed_in_float32():
    model = build(dtype=torch.bfloat16)
    tokens, labels = topics()
    probes = probe_model(model, tokens, labels)
    exact = probe_model(build(), tokens, labels)
    np.testing.assert_allclose(probes.accuracy, exact.accuracy, atol=0.06)


def test_the_model_is_left_as_it_was():
    model = build()
    model.train()
    tokens, labels = topics()
    state = torch.get_rng_state()
    probe_model(model, tokens.numpy().astype(np.uint16), labels.numpy().astype(np.int8))
    assert model.training
    assert not has_caller_hooks(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_mistakes_are_named():
    model = build()
    tokens, labels = topics()
    with pytest.raises(InputError, match="layers from 0 to 1 at z"):
        probe_model(model, tokens, labels, site="z", layers=(-1,))
    with pytest.raises(InputError, match="layers from -1 to 1"):
        probe_model(model, tokens, labels, layers=(2,))
    with pytest.raises(InputError, match="at least one token"):
        probe_model(model, tokens, labels, tokens_per_sequence=0)
