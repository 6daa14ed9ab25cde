"""Even against odd heads: by hand, by plain hooks, against all other splits, and calibrated."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import combinations
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from torch import Tensor
from zoo import random_tokens, tiny_model

from headspec import parity_test, permutation_p, results
from headspec.errors import InputError
from headspec.interventions.parity import split_sets
from headspec.interventions.split_strength import split_strength
from headspec.lens.logits import LogitRead
from headspec.lens.models import wrap_model
from headspec.stats import bootstrap_interval

pytestmark = pytest.mark.models

HAS_HOOKED_TRANSFORMER = version("transformer-lens").startswith("3.")
CLASSES = ("bridge", "hooked_transformer") if HAS_HOOKED_TRANSFORMER else ("bridge",)


@dataclass
class Answers:
    """Reads two answers at the last position; "accuracy" reads the whole vocabulary."""

    name: str
    answers: Tensor
    unit: str = "nats"

    def read(self, tokens: Tensor) -> LogitRead:
        last = torch.full((len(tokens), 1), tokens.shape[1] - 1)
        return LogitRead(last, None if self.name == "accuracy" else self.answers[:, None])

    def __call__(self, logits: Tensor) -> Tensor:
        if self.name == "accuracy":
            return (logits[:, 0].argmax(-1) == self.answers[:, 0].to(logits.device)).float()
        difference = logits[:, 0, 0] - logits[:, 0, 1]
        return (difference > 0).float() if self.name == "preference" else difference


@dataclass
class Pair:
    clean: str
    corrupt: str
    correct: str
    wrong: str


@dataclass
class Prompts:
    """Random prompts of the zoo's vocabulary that differ at one position, as a tokenised task."""

    clean: Tensor
    corrupt: Tensor
    answers: Tensor
    name: str = "random"
    attention_mask: Tensor | None = None
    pairs: list[Pair] = field(default_factory=list)

    def __post_init__(self) -> None:
        rows = zip(self.clean.tolist(), self.corrupt.tolist(), self.answers.tolist(), strict=True)
        self.pairs = [Pair(str(a), str(b), str(c), str(d)) for a, b, (c, d) in rows]
        last = torch.full((len(self.clean),), self.clean.shape[1] - 1)
        self.positions = {"end": last, "number": torch.full_like(last, 3)}

    def metric(self, kind: str) -> Answers:
        return Answers(kind, self.answers)


def prompts(n: int = 5, *, seed: int = 0, length: int = 9, differ: int = 3) -> Prompts:
    clean = random_tokens(n, length, seed=seed)
    corrupt = clean.clone()
    corrupt[:, differ] = 2 + (clean[:, differ] + 11) % 59
    return Prompts(clean, corrupt, random_tokens(n, 2, seed=seed + 1))


def model_of(name: str = "gpt_neox", *, model_class: Any = "bridge", **overrides: Any) -> Any:
    return wrap_model(tiny_model(name, **overrides), model_class=model_class, name=name, step=7)


@torch.no_grad()
def by_plain_hooks(model: Any, task: Any, layer: int, heads: Any, columns: Any) -> np.ndarray:
    """Logit difference of the corrupt run with clean z of some heads, by transformer-lens alone."""
    _, cache = model.run_with_cache(task.clean)
    clean = cache[f"blocks.{layer}.attn.hook_z"]

    def patch(z: Tensor, hook: Any = None) -> Tensor:
        z = z.clone()
        for head in heads:
            z[:, columns, head] = clean[:, columns, head]
        return z

    hooks = [(f"blocks.{layer}.attn.hook_z", patch)]
    logits = model.run_with_hooks(task.corrupt, fwd_hooks=hooks)
    return Answers("log_prob_difference", task.answers)(
        logits[:, -1:].gather(-1, task.answers[:, None])
    ).numpy()


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("name", ["gpt_neox", "qwen3"])
def test_every_split_equals_plain_hooks(name, model_class):
    model, task = model_of(name, model_class=model_class), prompts()
    found = parity_test(model, task, layer=1)
    assert found.exact
    assert found.sets.shape == (6, 2)
    for row, heads in enumerate(found.sets):
        one = by_plain_hooks(model, task, 1, heads, slice(None))
        other = by_plain_hooks(model, task, 1, set(range(4)) - set(heads.tolist()), slice(None))
        assert found.graded.set_means[row] == pytest.approx(one.mean(), abs=1e-5)
        assert found.graded_null[row] == pytest.approx(one.mean() - other.mean(), abs=1e-5)
        assert found.null[row] == pytest.approx((one > 0).mean() - (other > 0).mean())
    even, odd, none, every = (
        by_plain_hooks(model, task, 1, heads, slice(None))
        for heads in ([0, 2], [1, 3], [], [0, 1, 2, 3])
    )
    assert found.strength == pytest.approx((even > 0).mean() - (odd > 0).mean())
    assert found.graded_strength == pytest.approx(even.mean() - odd.mean(), abs=1e-5)
    assert found.even_success == pytest.approx((even > 0).mean())
    assert found.odd_success == pytest.approx((odd > 0).mean())
    assert found.base_success == pytest.approx((none > 0).mean())
    assert found.full_success == pytest.approx((every > 0).mean())
    np.testing.assert_allclose(found.pairs["graded_even"], even, atol=1e-5)
    np.testing.assert_allclose(found.pairs["graded_odd"], odd, atol=1e-5)
    np.testing.assert_allclose(found.pairs["graded_base"], none, atol=1e-5)
    np.testing.assert_allclose(found.pairs["graded_full"], every, atol=1e-5)
    with torch.no_grad():
        logits = model(task.clean)[:, -1]
    clean = logits.gather(-1, task.answers)
    np.testing.assert_allclose(found.pairs["graded_clean"], clean[:, 0] - clean[:, 1], atol=1e-5)


@pytest.mark.parametrize("model_class", CLASSES)
def test_named_positions_and_noising(model_class):
    model, task = model_of(model_class=model_class), prompts()
    at_end = parity_test(model, task, layer=0, positions="end")
    even, odd = (by_plain_hooks(model, task, 0, heads, [-1]) for heads in ([0, 2], [1, 3]))
    assert at_end.graded_strength == pytest.approx((even - odd).mean(), abs=1e-5)
    both = parity_test(model, task, layer=0, positions=["number", "end"])
    even, odd = (by_plain_hooks(model, task, 0, heads, [3, -1]) for heads in ([0, 2], [1, 3]))
    assert both.graded_strength == pytest.approx((even - odd).mean(), abs=1e-5)
    assert abs(both.graded_strength - at_end.graded_strength) > 1e-4
    turned = Prompts(task.corrupt, task.clean, task.answers)
    noised = parity_test(model, task, layer=1, direction="noise")
    assert noised.graded_strength == pytest.approx(
        parity_test(model, turned, layer=1).graded_strength, abs=1e-6
    )
    assert noised.graded_base == pytest.approx(noised.graded_clean)
    assert noised.summary().count("Corrupting") == 1


def test_strength_by_hand():
    """Two heads of four carry the whole answer: heads 0 and 1, so parity is the wrong split."""
    worth = np.array([[1.0, 1.0, 0.0, 0.0], [3.0, 1.0, 0.0, 0.0]])  # pair head
    sets, exact = split_sets(4, splits="exact", max_splits=100, seed=0)
    assert exact
    assert sets.tolist() == [[0, 2], [0, 1], [0, 3], [1, 3], [2, 3], [1, 2]]
    values = np.array([worth[:, heads].sum(1) for heads in sets])
    found = split_strength(
        Answers("x", torch.zeros(1)),
        sets=values,
        full=worth.sum(1),
        base=np.zeros(2),
        clean=worth.sum(1),
        seed=0,
    )
    assert found.null.tolist() == [1.0, 3.0, 1.0, -1.0, -3.0, -1.0]
    assert found.strength == 1.0  # means: even 2, odd 1
    assert (found.rank, found.n_splits) == (2, 3)
    assert found.p == 1.0  # all three splits are at least as strong
    assert found.even.tolist() == [1.0, 3.0]
    assert found.odd.tolist() == [1.0, 1.0]
    assert found.has_effect


def test_p_counts_every_split_once():
    """For 12 heads the smallest p is 1 / 462 = 2 / 924, and both signs of a split count once."""
    worth = np.where(np.arange(12) % 2 == 0, 1.0, 0.0)
    sets, exact = split_sets(12, splits="exact", max_splits=20_000, seed=0)
    assert (len(sets), exact) == (924, True)
    assert len({tuple(heads) for heads in sets.tolist()}) == 924
    values = worth[sets].sum(1)[:, None]
    found = split_strength(
        Answers("x", torch.zeros(1)),
        sets=values,
        full=values[0],
        base=0 * values[0],
        clean=values[0],
        seed=0,
    )
    assert found.p == 1 / 462
    assert found.rank == 1
    assert found.p == pytest.approx(permutation_p(6.0, np.abs(found.null), exact=True))
    assert sorted(found.null) == pytest.approx(sorted(-found.null))


@given(n_heads=st.sampled_from([2, 4, 6, 8]), splits=st.integers(2, 60), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_sampled_sets(n_heads, splits, seed):
    sets, exact = split_sets(n_heads, splits=splits, max_splits=10, seed=seed)
    every = list(combinations(range(n_heads), n_heads // 2))
    assert exact == (splits >= len(every))
    rows = [tuple(heads) for heads in sets.tolist()]
    assert rows[0] == tuple(range(0, n_heads, 2))
    assert len(set(rows)) == len(rows)
    assert len(rows) == (len(every) if exact else 2 * (splits // 2))
    half = len(rows) // 2
    for one, other in zip(rows[:half], rows[half:], strict=True):
        assert sorted(one + other) == list(range(n_heads))
    again, _ = split_sets(n_heads, splits=splits, max_splits=10, seed=seed)
    np.testing.assert_array_equal(again, sets)


def worths(rng: np.random.Generator, n_heads: int, n_pairs: int) -> np.ndarray:
    """What exchangeable heads are worth to each pair: a share of their own, and noise."""
    return rng.standard_normal(n_heads) + 0.5 * rng.standard_normal((n_pairs, n_heads))


def strengths_of(worth: np.ndarray, sets: np.ndarray) -> Any:
    values = np.tanh(worth[:, sets].sum(-1)).T  # not additive, as downstream layers are not
    zero = np.zeros(len(worth))
    return split_strength(
        Answers("x", torch.zeros(1)), sets=values, full=zero, base=zero, clean=zero, seed=0
    )


@pytest.mark.parametrize("splits", ["exact", 20])
def test_p_rejects_exchangeable_heads_at_its_rate(splits, monkeypatch):
    """Heads that are draws of one distribution: p <= a in a share a of layers, no more, no less."""
    monkeypatch.setattr(
        "headspec.interventions.split_strength.bootstrap_interval",
        lambda values, seed: bootstrap_interval(values, seed=seed, n_resamples=9),
    )
    rng = np.random.default_rng(0)
    sets, _ = split_sets(8, splits=splits, max_splits=100, seed=1)
    p = np.array([strengths_of(worths(rng, 8, 6), sets).p for _ in range(1500)])
    for level in (0.1, 0.2, 0.5):
        nominal = np.floor(level * len(sets) / 2 + 1e-9) / (len(sets) / 2)
        low, high = scipy_stats.binom.interval(0.999, len(p), nominal)
        assert low <= np.count_nonzero(p <= level + 1e-9) <= high


def test_one_split_alone_finds_parity_in_exchangeable_heads(monkeypatch):
    """Pitfall 12: even against odd alone, over pairs, is "significant" in most random layers."""
    rng = np.random.default_rng(0)
    sets, _ = split_sets(8, splits="exact", max_splits=100, seed=0)
    found = [strengths_of(worths(rng, 8, 20), sets) for _ in range(60)]
    naive = np.mean([one.ci_low > 0 or one.ci_high < 0 for one in found])
    ours = np.mean([one.p < 0.05 for one in found])
    assert naive > 0.5
    assert ours < 0.15


def test_random_models_have_no_parity():
    """Layers whose heads are random draws: with 4 heads the three splits are equally likely."""
    p = []
    for seed in range(100, 160):
        p.append(parity_test(model_of(seed=seed), prompts(seed=seed), layer=1).graded_p)
    counts = [np.count_nonzero(np.isclose(p, value)) for value in (1 / 3, 2 / 3, 1)]
    assert sum(counts) == len(p)
    assert scipy_stats.chisquare(counts).pvalue > 0.001


def test_repeated_pairs_are_one_observation():
    """Pitfall 11: a pair given 4 times is one pair; the interval does not shrink."""
    model, task = model_of(), prompts(4)
    found = parity_test(model, task, layer=1)
    rows = torch.arange(4).repeat_interleave(4)
    repeated = Prompts(task.clean[rows], task.corrupt[rows], task.answers[rows])
    again = parity_test(model, repeated, layer=1)
    assert again.n == found.n == 4
    assert again.graded_strength == pytest.approx(found.graded_strength, abs=1e-6)
    assert again.graded.ci_high == pytest.approx(found.graded.ci_high, abs=1e-5)
    assert len(again.pairs) == 4
    sixteen = bootstrap_interval(np.repeat(found.graded.even - found.graded.odd, 4))
    naive = sixteen.high - sixteen.low  # negative control: what 16 "trials" would claim
    assert naive < 0.7 * (found.graded.ci_high - found.graded.ci_low)


def test_metrics_that_read_other_logits():
    """Accuracy reads the whole vocabulary, the graded metric two logits: both are right."""
    model, task = model_of(), prompts(6)
    with torch.no_grad():
        task.answers[:, 0] = model(task.clean)[:, -1].argmax(-1)
    found = parity_test(model, task, layer=1, metric="accuracy")
    assert found.success.metric == "accuracy"
    assert found.clean_success == 1.0
    assert found.graded_strength == pytest.approx(parity_test(model, task, layer=1).graded_strength)
    half = parity_test(
        model, task, layer=1, graded=lambda logits: logits[:, -1].log_softmax(-1)[:, 5]
    )
    assert half.graded.metric == "<lambda>"
    assert half.strength == parity_test(model, task, layer=1).strength


def test_no_effect_to_split():
    model, task = model_of(), prompts()
    same = Prompts(task.clean, task.clean.clone(), task.answers)
    found = parity_test(model, same, layer=0, positions="end")
    assert not found.success.has_effect
    assert not found.graded.has_effect
    assert (found.strength, found.p, found.graded_p) == (0.0, 1.0, 1.0)
    assert found.summary().count("no effect to split") == 2
    there = parity_test(model, task, layer=0)
    assert there.graded.has_effect
    assert "Graded (log_prob_difference): even minus odd" in there.summary()


def test_frame_and_round_trip(tmp_path):
    found = parity_test(model_of(), prompts(), layer=1, splits=4)
    assert (found.exact, found.success.n_splits) == (False, 2)
    frame = found.to_frame().set_index("metric")
    assert frame.loc["strength", "value"] == found.strength
    assert frame.loc["graded_strength", "p"] == found.graded_p
    assert frame.loc["even_success", "value"] == found.even_success
    assert frame.loc["graded_full", "value"] == found.graded_full
    assert set(frame["n"]) == {5}
    assert set(frame["step"]) == {7}
    text = found.summary()
    for part in ("gpt_neox, step 7, layer 1", "5 distinct", "a sample of 2 splits", "p = "):
        assert part in text
    again = results.load(results.save(found, tmp_path / "parity.json"))
    np.testing.assert_array_equal(again.graded_null, found.graded_null)
    assert again.summary() == text


def test_splits_above_the_limit_are_sampled():
    found = parity_test(model_of(num_attention_heads=8), prompts(2), layer=0, max_splits=12)
    assert (found.exact, len(found.sets)) == (False, 12)
    assert "a sample of 6 splits" in found.summary()


def test_what_cannot_be_split(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # let wrong words through
    task = prompts(2)
    odd = model_of(num_attention_heads=3, hidden_size=48)
    with pytest.raises(InputError, match=r"even number of heads.*got 3 heads.*head_set_values"):
        parity_test(odd, task, layer=0)
    model = model_of()
    with pytest.raises(InputError, match="'end', 'number'; got 'middle'"):
        parity_test(model, task, layer=0, positions="middle")
    with pytest.raises(InputError, match="layer from 0 to 1; got 2"):
        parity_test(model, task, layer=2)
    with pytest.raises(InputError, match="at least 2 sets"):
        parity_test(model, task, layer=0, splits=1)
    with pytest.raises(InputError, match="direction out of"):
        parity_test(model, task, layer=0, direction="both")


def test_the_model_is_left_alone():
    model, task = model_of(), prompts(2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    parity_test(model, task, layer=0, splits=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.is_grad_enabled()
