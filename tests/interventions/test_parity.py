"""Even against odd heads: by hand, by plain hooks, against all other splits, and calibrated."""

from __future__ import annotations

from dataclasses import dataclass
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
from zoo import random_tokens, tiny_model, tiny_tokenizer

from headspec import (
    head_set_values,
    open_suite,
    parity_test,
    patch_heads,
    permutation_p,
    results,
)
from headspec.errors import InputError
from headspec.heads import Head
from headspec.interventions.parity import split_sets
from headspec.interventions.split_strength import split_strength
from headspec.lens.logits import LogitRead
from headspec.lens.models import wrap_model
from headspec.stats import bootstrap_interval
from headspec.tasks.alignment import PositionMap
from headspec.tasks.families import build_task
from headspec.tasks.pairs import PairIds, PromptPair, Span
from headspec.tasks.tokenised import TokenisedTask, tokenise_task

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


def task_of(clean: Tensor, corrupt: Tensor, answers: Tensor, **tokenise: Any) -> TokenisedTask:
    """A task of token ids, with the positions `end` and `number`."""
    pairs = [
        PromptPair(
            ids=PairIds(tuple(one), tuple(other), (right,), (wrong,)),
            spans=(Span("start", (0, 1), (0, 1)), Span("number", (3, 4), (3, 4))),
        )
        for one, other, (right, wrong) in zip(
            clean.tolist(), corrupt.tolist(), answers.tolist(), strict=True
        )
    ]
    return tokenise_task("random", pairs, tiny_tokenizer(), prepend_bos=False, **tokenise)


def prompts(n: int = 5, *, seed: int = 0, length: int = 9) -> TokenisedTask:
    """Random prompts of the zoo's vocabulary that differ at position 3."""
    clean = random_tokens(n, length, seed=seed)
    corrupt = clean.clone()
    corrupt[:, 3] = 2 + (clean[:, 3] + 11) % 59
    right = random_tokens(n, seed=seed + 1)
    return task_of(clean, corrupt, torch.stack([right, 2 + (right + 5) % 59], 1))


def answers_of(task: TokenisedTask) -> Tensor:
    return torch.tensor([[c[0], w[0]] for c, w in zip(task.correct, task.wrong, strict=True)])


def model_of(name: str = "gpt_neox", *, model_class: Any = "bridge", **overrides: Any) -> Any:
    return wrap_model(
        tiny_model(name, **overrides), tiny_tokenizer(), model_class=model_class, name=name, step=7
    )


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
    return Answers("log_prob_difference", answers_of(task))(
        logits[:, -1:].gather(-1, answers_of(task)[:, None])
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
    clean = logits.gather(-1, answers_of(task))
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
    turned = task_of(task.corrupt, task.clean, answers_of(task))
    noised = parity_test(model, task, layer=1, direction="noise")
    assert noised.graded_strength == pytest.approx(
        parity_test(model, turned, layer=1).graded_strength, abs=1e-6
    )
    assert noised.graded_base == pytest.approx(noised.graded_clean)
    assert noised.summary().count("Corrupting") == 1


@torch.no_grad()
def one_by_one(model: Any, pair: PromptPair, heads: list[int], *, map_of: dict[int, int]) -> float:
    """Log-probability difference of two answers of any length, one unpadded row at a time."""
    scores = []
    for answer in (pair.ids.correct, pair.ids.wrong):
        clean, corrupt = (
            torch.tensor([[*ids, *answer]]) for ids in (pair.ids.clean, pair.ids.corrupt)
        )
        n_corrupt, n_clean = len(pair.ids.corrupt), len(pair.ids.clean)
        columns = map_of | {n_corrupt + i: n_clean + i for i in range(len(answer))}
        _, cache = model.run_with_cache(clean)
        clean_z = cache["blocks.0.attn.hook_z"]

        def patch(z: Tensor, hook: Any = None, columns=columns, clean_z=clean_z) -> Tensor:
            z = z.clone()
            for to, source in columns.items():
                z[:, to, heads] = clean_z[:, source, heads]
            return z

        logits = model.run_with_hooks(corrupt, fwd_hooks=[("blocks.0.attn.hook_z", patch)])
        log_probs = logits.log_softmax(-1)[0, n_corrupt - 1 :]
        scores.append(sum(float(log_probs[i, token]) for i, token in enumerate(answer)))
    return scores[0] - scores[1]


@pytest.mark.parametrize("model_class", CLASSES)
def test_answers_of_several_tokens_and_prompts_of_unequal_length(model_class):
    """Pitfall 10: columns correspond by the task's map, in a batch padded on the left."""
    model = model_of(model_class=model_class)
    rows = random_tokens(2, 9).tolist()
    ids = [
        PairIds((7, 8, *rows[0]), (9, *rows[0]), (5, 6, 7), (5, 8)),
        PairIds((7, 8, *rows[1][:5]), (9, *rows[1][:5]), (11,), (12, 13)),
    ]
    maps = [{column: column + 1 for column in range(1, 10)}, {i: i + 1 for i in range(1, 6)}]
    pairs = [
        PromptPair(
            ids=one,
            position_map=PositionMap(
                tuple((clean, corrupt) for corrupt, clean in columns.items()),
                n_clean=len(one.clean),
                n_corrupt=len(one.corrupt),
            ),
        )
        for one, columns in zip(ids, maps, strict=True)
    ]
    task = tokenise_task(
        "unequal", pairs, tiny_tokenizer(), alignment="explicit", prepend_bos=False
    )
    assert task.rows_per_example == 2
    found = parity_test(model, task, layer=0)
    for name, heads in {"even": [0, 2], "odd": [1, 3], "full": [0, 1, 2, 3], "base": []}.items():
        expected = [
            one_by_one(model, pair, heads, map_of=columns)
            for pair, columns in zip(pairs, maps, strict=True)
        ]
        np.testing.assert_allclose(getattr(found.graded, name), expected, atol=1e-4)
    turned = [
        PromptPair(
            ids=PairIds(one.ids.corrupt, one.ids.clean, one.ids.correct, one.ids.wrong),
            position_map=one.position_map.inverse(),
        )
        for one in pairs
    ]
    other = tokenise_task(
        "turned", turned, tiny_tokenizer(), alignment="explicit", prepend_bos=False
    )
    noised = parity_test(model, other, layer=0, direction="noise")
    assert noised.graded_strength == pytest.approx(found.graded_strength, abs=1e-5)


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_a_position_map_of_prompts_of_equal_length_is_used(direction):
    """Pitfall 10: 9 = 9 tokens say nothing about which words correspond; the map does."""
    model, plain = model_of(), prompts()
    given = PositionMap(((0, 1), (1, 2), (4, 6), (8, 8)), n_clean=9, n_corrupt=9)
    pairs = [PromptPair(ids=pair.ids, position_map=given) for pair in plain.pairs]
    task = tokenise_task("mapped", pairs, tiny_tokenizer(), alignment="explicit", prepend_bos=False)
    found = parity_test(model, task, layer=0, direction=direction)
    exact = patch_heads(
        model,
        task.clean,
        task.corrupt,
        task.metric(),
        heads=[[Head(0, 0), Head(0, 2)], [Head(0, 1), Head(0, 3)]],
        position_map=task.position_map,
        direction=direction,
    )
    assert found.graded_strength == pytest.approx(exact.effect[0] - exact.effect[1], abs=1e-5)
    naive = parity_test(model, plain, layer=0, direction=direction)
    assert abs(naive.graded_strength - found.graded_strength) > 0.01


def test_a_metric_that_counts_rows_where_pairs_have_two_is_refused():
    """Answers of two tokens make rows 2i and 2i + 1: one number a row is not one a pair."""
    rows = random_tokens(3, 9).tolist()
    pairs = [PromptPair(ids=PairIds((7, *row), (9, *row), (5, 6, 7), (8, 9, 10))) for row in rows]
    task = tokenise_task("two rows", pairs, tiny_tokenizer(), prepend_bos=False)
    assert (task.rows_per_example, task.n_examples) == (2, 3)

    def by_row(logits: Tensor) -> Tensor:
        return logits[:, -1, 5]

    for wrong in ({"metric": by_row}, {"graded": by_row}):
        with pytest.raises(InputError, match=r"number for each of 3 pairs.*got 6 from by_row"):
            parity_test(model_of(), task, layer=0, **wrong)


def test_perfect_parity_that_is_one_head():
    """Pitfall 12 on a trained model: odd heads restore every pair and even ones none, p = 1."""
    model = open_suite("micro").model(6144)
    task = build_task("decimal_comparison", n=12, wording="micro").tokenise(
        model.tokenizer, answers="first_token"
    )
    found = parity_test(model, task, layer=3)
    assert (found.even_success, found.odd_success) == (0.0, 1.0)
    assert found.strength == -1  # "perfect even/odd specialisation"
    assert found.success.ci_high == -1  # and alike for every pair
    assert found.p == 1.0  # but every split into halves is as perfect
    assert set(np.abs(found.null)) == {1.0}
    assert found.graded_p > 0.05
    values = head_set_values(
        model,
        task.clean,
        task.corrupt,
        task.metric(),
        layer=3,
        sizes=[1],
        attention_mask=task.attention_mask,
    )
    best = values.smallest_sufficient(0.8)
    assert best.sets == ((Head(3, 3),),)  # because one head does it all
    assert best.held_out_share > 0.8


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


@pytest.mark.parametrize(("k", "smallest"), [(1, 462), (2, 210), (3, 84), (4, 28), (5, 7), (6, 1)])
def test_how_few_heads_can_make_p_small(k, smallest):
    """k even heads of 12 do all the work in equal shares: 2 C(12 - k, 6 - k) / 924."""
    sets, _ = split_sets(12, splits="exact", max_splits=20_000, seed=0)
    values = (sets < 2 * k).astype(float) * (sets % 2 == 0)
    values = values.sum(1)[:, None]
    found = split_strength(
        Answers("x", torch.zeros(1)),
        sets=values,
        full=values[0],
        base=0 * values[0],
        clean=values[0],
        seed=0,
    )
    assert found.p == smallest / 462


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


def test_heads_that_share_keys_and_values_make_p_larger(monkeypatch):
    """Heads of a group resemble each other and parity divides them: fewer rejections, not more."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # for speed
    rng = np.random.default_rng(0)
    sets, _ = split_sets(8, splits="exact", max_splits=100, seed=0)
    p = []
    for _ in range(300):
        shared = np.repeat(rng.standard_normal(4), 2)
        p.append(strengths_of((shared + rng.standard_normal(8))[None], sets).p)
    assert np.mean(np.array(p) <= 0.2 + 1e-9) < 0.16


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
    repeated = task_of(task.clean[rows], task.corrupt[rows], answers_of(task)[rows])
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
        likeliest = model(task.clean)[:, -1].argmax(-1)
    answers = torch.stack([likeliest, 2 + (likeliest + 5) % 59], 1)
    task = task_of(task.clean, task.corrupt, answers)
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
    found = parity_test(model, task, layer=0, positions="start")  # before the prompts differ
    assert not found.success.has_effect
    assert not found.graded.has_effect
    assert (found.strength, found.p, found.graded_p) == (0.0, 1.0, 1.0)
    assert found.summary().count("no effect to split") == 2
    there = parity_test(model, task, layer=0)
    assert there.graded.has_effect
    assert "Graded (log_prob_difference): even minus odd" in there.summary()


def twin_tokens_model(dtype: torch.dtype) -> Any:
    """Tokens 10 and 21 have one embedding."""
    hf_model = tiny_model("gpt_neox")
    with torch.no_grad():
        weight = hf_model.get_input_embeddings().weight
        weight[21] = weight[10]
    return wrap_model(hf_model, tiny_tokenizer(), dtype=dtype)


def test_rounding_of_bfloat16_is_no_effect():
    """Runs that are the same, but for the rounding of sums."""
    plain = prompts(8)
    clean, corrupt = plain.clean.clone(), plain.clean.clone()
    clean[:, 3], corrupt[:, 3] = 10, 21
    task = task_of(clean, corrupt, answers_of(plain))
    found = parity_test(twin_tokens_model(torch.float32), task, layer=0)
    assert not found.graded.has_effect
    model = twin_tokens_model(torch.bfloat16)
    found = parity_test(model, task, layer=0)
    assert not found.graded.has_effect
    assert found.graded_p == 1
    moved = np.abs(found.graded.full - found.graded.base).max()
    assert moved > 2e-6 * np.abs(found.graded.base).max()  # negative control: not exactly nothing
    assert parity_test(model, plain, layer=0).graded.has_effect


def test_shares_of_pairs_are_counted_whatever_the_model_computes_in():
    """One pair of 100 is no rounding of bfloat16: .01 is less than its resolution."""
    sets = np.zeros((6, 100))
    sets[0, 0] = 1
    nothing = np.zeros(100)
    found = split_strength(
        Answers("preference", torch.zeros(1), unit=""),
        sets=sets,
        full=sets[0],
        base=nothing,
        clean=sets[0],
        seed=0,
        resolution=0.03,
    )
    assert (found.p, found.rank, found.has_effect) == (1 / 3, 1, True)


def test_one_pair_has_no_interval():
    text = parity_test(model_of(), prompts(1), layer=1).summary()
    assert "one pair: no interval" in text
    assert "nan" not in text


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
    for part in ("gpt_neox, step 7, layer 1", "5 distinct", "of 2 sampled splits", "p = "):
        assert part in text
    again = results.load(results.save(found, tmp_path / "parity.json"))
    np.testing.assert_array_equal(again.graded_null, found.graded_null)
    assert again.summary() == text


def test_splits_above_the_limit_are_sampled():
    found = parity_test(model_of(num_attention_heads=8), prompts(2), layer=0, max_splits=12)
    assert (found.exact, len(found.sets)) == (False, 12)
    assert "of 6 sampled splits" in found.summary()


def test_what_cannot_be_split(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # let wrong words through
    task = prompts(2)
    odd = model_of(num_attention_heads=3, hidden_size=48)
    with pytest.raises(InputError, match=r"even number of heads.*got 3 heads.*head_set_values"):
        parity_test(odd, task, layer=0)
    model = model_of()
    with pytest.raises(InputError, match="'start', 'number', 'end'; got 'middle'"):
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
