"""KL from a reference run and next-token loss: by hand, by scipy, and on models with padding."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy
from zoo import random_tokens, tiny_model

from headspec.errors import InputError
from headspec.interventions.edits import Edit
from headspec.interventions.metrics import KLFrom, kl_from, loss_metric
from headspec.interventions.replay import Replay
from headspec.lens.logits import Metric
from headspec.lens.models import wrap_model

pytestmark = pytest.mark.models

OLDEST = version("transformer-lens").startswith("3.")
CLASSES = ("bridge", "hooked_transformer") if OLDEST else ("bridge",)


def build(model_class: str = "bridge", name: str = "gpt_neox"):
    return wrap_model(tiny_model(name), model_class=model_class)


def padded(n: int = 3, length: int = 9):
    tokens, mask = random_tokens(n, length), torch.ones(n, length, dtype=torch.long)
    tokens[1, :2], mask[1, :2] = 0, 0
    tokens[2, :5], mask[2, :5] = 0, 0
    return tokens, mask


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_kl_is_scipys_relative_entropy(seed):
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.ones(7) * 0.3, size=(2, 2, 3)).astype(np.float64) + 1e-9
    p, q = (one / one.sum(-1, keepdims=True) for one in (p, q))
    weights = torch.full((2, 3), 1 / 3)
    metric = KLFrom(torch.zeros(2, 3).long(), torch.tensor(np.log(p)).float(), weights)
    found = metric(torch.tensor(np.log(q)).float())
    np.testing.assert_allclose(found, entropy(p, q, axis=-1).mean(1), rtol=2e-4, atol=1e-5)


def test_kl_by_hand_also_where_the_reference_is_certain():
    reference = torch.tensor([[[0.0, -float("inf")]], [[np.log(0.5)] * 2]]).float()
    metric = KLFrom(torch.zeros(2, 1).long(), reference, torch.ones(2, 1))
    logits = torch.tensor([[[0.25, 0.75]], [[0.25, 0.75]]]).log()
    expected = [np.log(4), 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)]
    torch.testing.assert_close(metric(logits), torch.tensor(expected).float())


@pytest.mark.parametrize("model_class", CLASSES)
def test_a_run_is_at_no_distance_from_itself_and_an_edit_moves_it(model_class):
    model, (tokens, mask) = build(model_class), padded()
    zero = (Edit(0, "z", torch.zeros(())),)
    replay = Replay(model, tokens, attention_mask=mask)
    with torch.no_grad():
        p = model(tokens, attention_mask=mask).log_softmax(-1)
        hooks = [("blocks.0.attn.hook_z", lambda z, hook: torch.zeros_like(z))]
        with model.hooks(fwd_hooks=hooks):
            q = model(tokens, attention_mask=mask).log_softmax(-1)
    each = (p.exp() * (p - q)).sum(-1)
    for positions, expected in (
        (-1, each[:, -1]),
        ([-2, 8], each[:, -2:].mean(1)),
        (torch.tensor([3, 4, 7]), each[torch.arange(3), [3, 4, 7]]),
        (None, (each * mask).sum(1) / mask.sum(1)),
    ):
        metric = kl_from(model, tokens, positions=positions, attention_mask=mask)
        assert isinstance(metric, Metric)
        base, moved = replay.measure([(), zero], metric)
        torch.testing.assert_close(base, torch.zeros(3), atol=1e-5, rtol=0)
        torch.testing.assert_close(moved, expected, atol=1e-5, rtol=1e-4)
    assert (moved > 0.01).all()


def test_padding_counts_for_nothing():
    """Negative control: a mean over all columns depends on how wide the batch is."""
    model, (tokens, mask) = build(), padded()
    zero = (Edit(0, "z", torch.zeros(())),)
    metrics = {
        "kl": lambda t, m: kl_from(model, t, attention_mask=m),
        "loss": lambda t, m: loss_metric(t, m),
    }
    for name, metric in metrics.items():
        replay = Replay(model, tokens, attention_mask=mask)
        together = replay.measure([zero], metric(tokens, mask))[0, 2]
        short = tokens[2:, 5:]
        alone = Replay(model, short).measure([zero], metric(short, None))[0, 0]
        torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4, msg=name)
    naive = Replay(model, tokens, attention_mask=mask).measure([zero], loss_metric(tokens))[0, 2]
    assert abs(naive - together) > 0.005


@pytest.mark.parametrize("model_class", CLASSES)
def test_loss_is_the_cross_entropy_of_the_model(model_class):
    model, tokens = build(model_class), random_tokens(4, 7)
    found = Replay(model, tokens).base(loss_metric(tokens))
    with torch.no_grad():
        logits = model(tokens)
    expected = torch.nn.functional.cross_entropy(
        logits[:, :-1].mT, tokens[:, 1:], reduction="none"
    ).mean(1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_positions_and_rows_that_do_not_exist():
    model, (tokens, mask) = build(), padded()
    for positions in (9, -10, [], torch.tensor([1, 2])):
        with pytest.raises(InputError, match="columns below 9 of 3 rows"):
            kl_from(model, tokens, positions=positions)
    with pytest.raises(InputError, match="padding in some row"):
        kl_from(model, tokens, positions=1, attention_mask=mask)
    with pytest.raises(InputError, match="two tokens or more"):
        loss_metric(tokens[:, :1])
    with pytest.raises(InputError, match="1 in the shortest"):
        loss_metric(tokens[:2, :3], torch.tensor([[1, 1, 1], [0, 0, 1]]))
    with pytest.raises(InputError, match="the 3 rows that kl was made for"):
        kl_from(model, tokens).read(tokens[:2])
    with pytest.raises(InputError, match="the 3 rows that loss was made for"):
        loss_metric(tokens).read(tokens[:2])
