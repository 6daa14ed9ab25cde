"""What replays refuse, what they fall back from, and that they leave everything as it was."""

from __future__ import annotations

import warnings

import pytest
import torch
from replay_models import N, T, build
from zoo import VOCAB, random_tokens, tiny_model

from headspec.errors import InputError
from headspec.interventions.edits import Edit
from headspec.interventions.replay import Replay, SlowReplayWarning
from headspec.interventions.replay_checks import checked_mask
from headspec.lens.logits import LogitRead
from headspec.lens.models import wrap_model

pytestmark = pytest.mark.models


def test_hooks_of_the_caller_are_honoured():
    model = build("parallel", "bridge")
    model.add_hook("blocks.1.attn.hook_z", lambda activation, hook: activation * 0)
    with pytest.warns(SlowReplayWarning, match="hooks of the caller"):
        slow = Replay(model, random_tokens(N, T))
    assert not slow.is_fast
    read = LogitRead()
    other = slow.read([(), (Edit(1, "z", torch.ones(()), heads=(0,)),)], read)
    silent = Replay(build("parallel", "bridge"), slow.tokens)
    assert torch.allclose(
        other[0], silent.read([(Edit(1, "z", torch.zeros(())),)], read)[0], atol=1e-5
    )
    assert model.blocks[1].attn.hook_z.fwd_hooks or any(
        point.fwd_hooks for point in model.hook_dict.values()
    )


@pytest.mark.parametrize(
    ("name", "overrides", "reason"),
    [("mistral", {}, "sliding"), ("olmo2", {}, "olmo2|norm"), ("bert", {}, "bert|Bert")],
)
def test_falls_back_and_says_so_once(name, overrides, reason):
    model = wrap_model(tiny_model(name, **overrides))
    tokens = random_tokens(2, 12)
    with pytest.warns(SlowReplayWarning, match=reason):
        slow = Replay(model, tokens)
    assert not slow.is_fast
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Replay(model, tokens)
    z = slow.activation(1, "z")
    logits = slow.read([(), (Edit(1, "z", z),), (Edit(1, "z", torch.zeros(())),)], LogitRead())
    assert torch.equal(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Edit(9, "z", torch.zeros(())), "layers 0 to 2"),
        (Edit(0, "z", torch.zeros(()), heads=(4,)), "heads 0 to 3"),
        (Edit(0, "k", torch.zeros(()), heads=(2,)), "key-value heads 0 to 1"),
        (Edit(0, "z", torch.zeros(()), where=torch.ones(1, 2, dtype=torch.bool)), "shape"),
        (Edit(0, "z", torch.zeros(2, 7)), "values"),
    ],
)
def test_edits_that_do_not_fit(edit, message):
    replay = Replay(build("grouped", "bridge"), random_tokens(N, T))
    with pytest.raises(ValueError, match=message):
        replay.read([(edit,)], LogitRead())


def test_tokens_and_masks_that_do_not_fit():
    model = build("parallel", "bridge")
    with pytest.raises(ValueError, match="context"):
        Replay(model, random_tokens(1, 65))
    with pytest.raises(ValueError, match="on the left"):
        Replay(model, random_tokens(2, 4), attention_mask=torch.tensor([[1, 1, 1, 0]] * 2))
    with pytest.raises(ValueError, match="one intervention"):
        Replay(model, random_tokens(2, 4)).read([], LogitRead())


def test_weights_and_hooks_are_left_as_they_were():
    model = build("sequential", "bridge")
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def interrupted(logits):
        raise KeyboardInterrupt

    for fast in (True, False):
        replay = Replay(model, random_tokens(N, T), fast=fast)
        with pytest.raises(KeyboardInterrupt):
            replay.measure([(Edit(0, "z", torch.zeros(())),)], interrupted)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


@pytest.mark.parametrize("fast", [True, False])
def test_a_metric_of_whole_logits_stays_within_the_budget(fast, monkeypatch):
    """Logits of many interventions are never held together; the numbers are the same."""
    model = build("parallel", "bridge")
    replay = Replay(model, random_tokens(N, T), fast=fast)
    edits = [(Edit(layer, "z", torch.zeros(()), heads=(h,)),) for layer in (2, 0) for h in range(4)]

    def last(logits):
        return logits[:, -1, 3]

    together = replay.measure([*edits, ()], last)
    sizes = []
    read = Replay.read

    def watched(self, interventions, *args, **kwargs):
        sizes.append(len(interventions))
        return read(self, interventions, *args, **kwargs)

    monkeypatch.setattr(Replay, "read", watched)
    replay.memory_budget = 3 * 8 * N * T * VOCAB
    assert torch.allclose(replay.measure([*edits, ()], last), together, atol=1e-5)
    assert sizes == [3, 3, 3]


def test_values_that_are_not_finite_reach_only_the_heads_that_take_them():
    replay = Replay(build("parallel", "bridge"), random_tokens(N, T))
    values = torch.ones(N, T, 4, 16)
    values[:, :, 3] = torch.nan
    edits = [(Edit(1, "z", values, heads=(head,)),) for head in (1, 3)]
    found = replay.read(edits, LogitRead())
    assert found[0].isfinite().all()
    assert not found[1].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
def test_a_mask_with_a_hole_is_refused_whatever_its_dtype(dtype):
    hole = torch.tensor([[1, 0, 1, 1], [1, 1, 1, 1]]).to(dtype)
    with pytest.raises(InputError, match="zeros on the left only"):
        checked_mask(hole, random_tokens(2, 4))
    padded = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]).to(dtype)
    checked = checked_mask(padded, random_tokens(2, 4))
    assert checked is not None
    assert torch.equal(checked, padded.long())


def test_the_fast_path_is_checked_once_for_the_same_weights(monkeypatch):
    """And refused, with its reason, where it does not give the model's own logits."""
    model, tokens = build("parallel", "bridge"), random_tokens(N, T)
    checks = []
    measured = Replay._difference

    def counted(self, run):
        checks.append(self.tokens.shape[1])
        return measured(self, run)

    monkeypatch.setattr(Replay, "_difference", counted)
    Replay(model, tokens)
    Replay(model, tokens.flip(0))
    assert checks == [T]
    Replay(model, tokens[:, 1:])
    with torch.no_grad():
        next(model.parameters()).mul_(1.01)
    Replay(model, tokens)
    assert checks == [T, T - 1, T]
    monkeypatch.setattr(Replay, "_difference", lambda self, run: 0.5)
    with pytest.warns(SlowReplayWarning, match="compute something else"):
        assert not Replay(build("sequential", "bridge"), tokens).is_fast
