"""The fast path equals whole forward passes with hooks, on every kind of model it takes."""

from __future__ import annotations

import pytest
import torch
from replay_models import CLASSES, MODELS, N, T, build, left_padding
from zoo import random_tokens, tiny_model

from headspec.interventions.edits import Edit
from headspec.interventions.replay import Replay
from headspec.lens.logits import LogitRead
from headspec.lens.models import wrap_model

pytestmark = pytest.mark.models

PADDED = ("parallel", "learned_positions", "grouped_biased", "qk_norm")
"""Kinds whose padding is also tried with processed weights and in bfloat16."""


def interventions_of(replay: Replay) -> dict[str, tuple[Edit, ...]]:
    """Edits of every site, early and late, of one and of several heads, layers and positions."""
    generator = torch.Generator().manual_seed(0)

    def other(layer: int, site: str) -> torch.Tensor:
        like = replay.activation(layer, site)
        noise = torch.randn(like.shape, generator=generator).to(like)
        if site != "pattern":
            return like + 0.5 * noise
        mask = replay.attention_mask
        pattern = noise.softmax(-1).tril()
        return pattern if mask is None else pattern * mask[:, None, None, :]

    where = torch.zeros(N, T, dtype=torch.bool)
    where[:, 6:] = True
    scattered = torch.zeros(N, T, dtype=torch.bool)
    scattered[0, 5], scattered[1, 9], scattered[2, -1] = True, True, True
    last = torch.zeros(N, T, dtype=torch.bool)
    last[:, -1] = True
    z1, zero = other(1, "z"), torch.zeros(())
    found = {
        "nothing": (),
        "z of one head": (Edit(1, "z", z1, heads=(2,)),),
        "z of another head": (Edit(1, "z", z1, heads=(0,)),),
        "z of all heads": (Edit(1, "z", z1),),
        "z, later positions": (Edit(1, "z", z1, heads=(1, 3), where=where),),
        "z, one position a row": (Edit(1, "z", z1, heads=(1,), where=scattered),),
        "z, last position": (Edit(1, "z", z1, heads=(1,), where=last),),
        "z of the last layer": (Edit(2, "z", zero, heads=(0, 1)),),
        "z of two layers": (
            Edit(0, "z", zero, heads=(1,)),
            Edit(2, "z", other(2, "z"), heads=(3,)),
        ),
        "z twice, the second wins": (Edit(1, "z", zero), Edit(1, "z", z1, heads=(1,))),
        "z and mlp_out": (Edit(1, "z", zero, heads=(1,)), Edit(1, "mlp_out", zero)),
        "z, then queries": (
            Edit(0, "z", zero, heads=(0,)),
            Edit(1, "q", other(1, "q"), heads=(1,)),
        ),
    }
    for site in ("q", "k", "v", "pattern"):
        for layer in (0, 2):
            found[f"{site}{layer}"] = (Edit(layer, site, other(layer, site), heads=(1,)),)
        found[f"{site}, later positions"] = (Edit(1, site, other(1, site), where=where),)
    for site in ("mlp_out", "resid_pre"):
        for layer in (0, 2):
            found[f"{site}{layer}"] = (Edit(layer, site, other(layer, site)),)
        found[f"{site}, later positions"] = (Edit(1, site, other(1, site), where=where),)
        found[f"{site} after z"] = (Edit(0, "z", zero, heads=(0,)), Edit(2, site, other(2, site)))
    return found


def both(model, *, mask=None, memory_budget: int = 2**27) -> tuple[Replay, Replay]:
    tokens = random_tokens(N, T)
    fast = Replay(model, tokens, attention_mask=mask, memory_budget=memory_budget)
    return fast, Replay(model, tokens, attention_mask=mask, fast=False)


def assert_equal(fast: Replay, full: Replay, read: LogitRead, *, tolerance: float = 1e-5) -> None:
    edits = interventions_of(full)
    ours = fast.read(list(edits.values()), read)
    whole = full.read(list(edits.values()), read)
    scale = full.read([()], LogitRead()).std()
    for name, one, other in zip(edits, ours, whole, strict=True):
        error = ((one - other).abs().max() / scale).item()
        assert error < tolerance, f"{name}: {error:.2g}"
    # The comparison can fail: every intervention moves the logits by far more than the tolerance.
    moved = (whole[1:] - whole[0]).abs().amax((1, 2, 3)) / scale
    assert moved.min() > 100 * tolerance, dict(zip(list(edits)[1:], moved.tolist(), strict=True))


@pytest.mark.parametrize("processing", ["none", "compatibility"])
@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("kind", MODELS)
def test_equals_whole_forward_passes(kind, model_class, processing):
    model = build(kind, model_class, processing=processing)
    fast, full = both(model)
    assert fast.is_fast, fast.reason
    end = torch.full((N, 1), T - 1)
    assert_equal(fast, full, LogitRead(positions=end))
    columns = torch.tensor([[[3, 5]]]).expand(N, 1, 2)
    assert_equal(fast, full, LogitRead(positions=end, columns=columns))


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("kind", MODELS)
def test_padding_on_the_left(kind, model_class):
    model = build(kind, model_class)
    fast, full = both(model, mask=left_padding())
    assert fast.is_fast, fast.reason
    assert_equal(fast, full, LogitRead(positions=torch.tensor([[4, T - 1]] * N)))


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("kind", PADDED)
def test_padding_on_the_left_of_processed_weights(kind, model_class):
    fast, full = both(build(kind, model_class, processing="compatibility"), mask=left_padding())
    assert fast.is_fast, fast.reason
    assert_equal(fast, full, LogitRead(positions=torch.tensor([[4, T - 1]] * N)))


@pytest.mark.parametrize("kind", ["parallel", "qk_norm"])
def test_all_logits_and_a_tight_budget(kind):
    model = build(kind, "bridge")
    for budget in (1, 40_000, 2**27):
        fast, full = both(model, memory_budget=budget)
        assert_equal(fast, full, LogitRead())
        assert_equal(fast, full, LogitRead(log_probs=True))


def test_rows_in_parts_leave_values_without_an_axis_of_rows_whole():
    """As many rows as columns (or dimensions): the first axis of the values is not the rows."""
    model, tokens = build("parallel", "bridge"), random_tokens(T, T)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(T, model.cfg.n_heads, model.cfg.d_head, generator=generator)
    mlp_out = torch.randn(T, model.cfg.d_model, generator=generator)
    edits = [(Edit(1, "z", z, heads=(0, 3)),), (Edit(1, "mlp_out", mlp_out),)]
    whole = Replay(model, tokens, fast=False).read(edits, LogitRead())
    for budget in (1, 100_000, 2**27):
        ours = Replay(model, tokens, memory_budget=budget).read(edits, LogitRead())
        torch.testing.assert_close(ours, whole, atol=1e-4, rtol=1e-4)


def test_values_of_another_device_are_moved():
    """Zeros made on the CPU ablate a model that is elsewhere."""
    edit = Edit(0, "z", torch.zeros(()))
    here = edit.of_columns(torch.tensor([0, 2], device="meta"), shape=(N, T, 4, 8))
    assert here.values.device.type == "meta"
    assert here.values.shape == (N, 2, 4, 8)


@pytest.mark.parametrize("processing", ["none", "compatibility"])
@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("kind", MODELS)
def test_bfloat16_errs_no_more_than_the_model(kind, model_class, processing):
    """The fast path rounds elsewhere; its distance to float32 is that of the whole forward."""
    assert_errs_no_more(kind, model_class, processing, mask=None)


@pytest.mark.parametrize("processing", ["none", "compatibility"])
@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("kind", PADDED)
def test_bfloat16_with_padding_on_the_left(kind, model_class, processing):
    assert_errs_no_more(kind, model_class, processing, mask=left_padding())


def assert_errs_no_more(kind, model_class, processing, *, mask) -> None:
    exact = build(kind, model_class, processing=processing)
    model = build(kind, model_class, processing=processing, dtype=torch.bfloat16)
    fast, full = both(model, mask=mask)
    assert fast.is_fast, fast.reason
    reference = Replay(exact, fast.tokens, attention_mask=mask, fast=False)
    edits = interventions_of(reference)
    half = [
        tuple(Edit(e.layer, e.site, e.values.bfloat16(), heads=e.heads, where=e.where) for e in one)
        for one in edits.values()
    ]
    read = LogitRead(positions=torch.full((N, 1), T - 1))
    true = reference.read(list(edits.values()), read)
    ours = (fast.read(half, read) - true).pow(2).mean().sqrt()
    theirs = (full.read(half, read) - true).pow(2).mean().sqrt()
    assert ours < 1.5 * theirs
    assert theirs < 0.2 * true.std()


def test_a_wrong_suffix_would_be_seen():
    """Negative control: the fast path with another model's later layers is not equal."""
    fast, full = both(build("parallel", "bridge"))
    stranger, _ = both(wrap_model(tiny_model("gpt_neox", seed=1, num_hidden_layers=3)))
    fast._run = stranger._run
    with pytest.raises(AssertionError):
        assert_equal(fast, full, LogitRead())


def test_gradients_reach_the_values_of_edits():
    model = build("qk_norm", "bridge")
    fast, full = both(model)
    grads = []
    for replay in (fast, full):
        values = replay.activation(1, "z").detach().clone().requires_grad_()
        out = replay.read([(Edit(1, "z", values, heads=(1,)),)], LogitRead(), grad=True)
        (grad,) = torch.autograd.grad(out[..., 3].sum(), values)
        grads.append(grad)
    assert torch.allclose(*grads, atol=1e-4)
    assert grads[0][:, :, 1].abs().max() > 0
    assert not grads[0][:, :, 0].any()
    assert all(p.grad is None for p in model.parameters())


def test_only_later_columns_change():
    fast, _ = both(build("parallel", "bridge"))
    where = torch.zeros(N, T, dtype=torch.bool)
    where[:, 4] = True
    logits = fast.read([(), (Edit(0, "z", torch.zeros(()), where=where),)], LogitRead())
    assert torch.equal(logits[0][:, :4], logits[1][:, :4])
    assert not torch.allclose(logits[0][:, 4:], logits[1][:, 4:])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", MODELS)
def test_on_a_gpu(kind, dtype):
    name, overrides = MODELS[kind]
    count = "n_layer" if name == "gpt2" else "num_hidden_layers"
    model = wrap_model(tiny_model(name, **{**overrides, count: 3}), device="cuda", dtype=dtype)
    fast, full = both(model, mask=left_padding())
    assert fast.is_fast, fast.reason
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    edits = interventions_of(full)
    read = LogitRead(positions=torch.full((N, 1), T - 1))
    ours, whole = fast.read(list(edits.values()), read), full.read(list(edits.values()), read)
    assert (ours - whole).abs().max() < tolerance * whole.std()
