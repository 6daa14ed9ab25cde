"""Values of sets of heads: by hand, by brute force, by the axioms of Shapley values."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain, combinations, permutations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from micro_model import L0H0, L0H1, MLP, NUMBER, micro_features, micro_hf_model
from torch import Tensor
from zoo import random_tokens, tiny_model

from headspec import head_set_values, patch_heads, results
from headspec.errors import InputError
from headspec.heads import Head
from headspec.interventions.example_effects import SmallGapWarning
from headspec.interventions.set_values_result import HeadSetValues
from headspec.interventions.shapley import antithetic_orders, exact_shapley, sampled_shapley
from headspec.interventions.sufficient_sets import find_sufficient
from headspec.lens.logits import LogitRead
from headspec.lens.models import wrap_model

pytestmark = pytest.mark.models

HAS_HOOKED_TRANSFORMER = version("transformer-lens").startswith("3.")
CLASSES = ("bridge", "hooked_transformer") if HAS_HOOKED_TRANSFORMER else ("bridge",)


@dataclass
class Answer:
    """The logit of one token at the last position, minus that of another."""

    token: int = 5
    other: int = 9
    name: str = "logit_difference"
    unit: str = "nats"

    def read(self, tokens: Tensor) -> LogitRead:
        last = torch.full((len(tokens), 1), tokens.shape[1] - 1)
        columns = torch.tensor([[[self.token, self.other]]]).expand(len(tokens), 1, 2)
        return LogitRead(last, columns)

    def __call__(self, logits: Tensor) -> Tensor:
        return logits[:, 0, 0] - logits[:, 0, 1]


def prompts(n: int = 4, *, seed: int = 0, length: int = 8) -> tuple[Tensor, Tensor]:
    clean = random_tokens(n, length, seed=seed)
    corrupt = clean.clone()
    corrupt[:, 3] = 2 + (clean[:, 3] + 11) % 59
    return clean, corrupt


def model_of(name: str = "gpt_neox", *, model_class: Any = "bridge", **overrides: Any) -> Any:
    return wrap_model(tiny_model(name, **overrides), model_class=model_class, name=name, step=7)


def every_set(n: int) -> list[tuple[int, ...]]:
    return list(chain.from_iterable(combinations(range(n), size) for size in range(n + 1)))


def values_of(function: Any, n: int) -> np.ndarray:
    """Values of all sets, in the order of their bits."""
    members = [[i for i in range(n) if index >> i & 1] for index in range(2**n)]
    return np.array([np.atleast_1d(function(heads)) for heads in members], dtype=float)


@torch.no_grad()
def by_plain_hooks(model: Any, clean: Tensor, corrupt: Tensor, layer: int, heads: Any):
    _, cache = model.run_with_cache(clean)
    clean_z = cache[f"blocks.{layer}.attn.hook_z"]

    def patch(z: Tensor, hook: Any = None) -> Tensor:
        z = z.clone()
        z[:, :, list(heads)] = clean_z[:, :, list(heads)]
        return z

    logits = model.run_with_hooks(corrupt, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", patch)])
    return (logits[:, -1, 5] - logits[:, -1, 9]).numpy()


def brute_force_shapley(value: Any, n: int) -> np.ndarray:
    """Mean marginal contributions over all n! orders, by the definition."""
    total = 0
    orders = list(permutations(range(n)))
    for order in orders:
        gains = [None] * n
        for k, player in enumerate(order):
            gains[player] = value(frozenset(order[: k + 1])) - value(frozenset(order[:k]))
        total = total + np.array(gains)
    return total / len(orders)


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("name", ["gpt_neox", "qwen3"])
def test_every_set_and_shapley_values_equal_brute_force(name, model_class):
    model = model_of(name, model_class=model_class)
    clean, corrupt = prompts()
    found = head_set_values(model, clean, corrupt, Answer(), layer=0)
    expected = {
        frozenset(heads): by_plain_hooks(model, clean, corrupt, 0, heads) for heads in every_set(4)
    }
    assert len(found.sets) == 16
    for mask, values in zip(found.sets, found.values, strict=True):
        heads = frozenset(np.flatnonzero(mask).tolist())
        np.testing.assert_allclose(values, expected[heads], atol=1e-5)
    shapley = brute_force_shapley(expected.__getitem__, 4)
    np.testing.assert_allclose(found.shapley_per_example, shapley, atol=1e-5)
    np.testing.assert_allclose(found.shapley, shapley.mean(1), atol=1e-5)
    assert found.shapley.sum() == pytest.approx(found.all - found.none, abs=1e-6)
    # negative control: heads alone do not add up, later layers bend v
    alone = sum(expected[frozenset([head])] - expected[frozenset()] for head in range(4))
    gap = np.abs(alone - (expected[frozenset(range(4))] - expected[frozenset()]))
    assert gap.max() > 1e-3


def test_by_hand():
    """Sequential micro model: head L0H0 reaches the logits of features 2 and, by the MLP, 6."""
    model = wrap_model(micro_hf_model(parallel=False))
    clean, corrupt = torch.tensor([[1, 6, 2]]), torch.tensor([[1, 2, 2]])
    rows = {
        heads: micro_features(
            [1, 2, 2],
            parallel=False,
            written={
                f"L0H{head}": [
                    row[(L0H0, L0H1)[head]] for row in micro_features([1, 6, 2], parallel=False)
                ]
                for head in heads
            },
        )[-1]
        for heads in [(), (0,), (1,), (0, 1)]
    }

    def metric(logits: Tensor) -> Tensor:
        return logits[:, -1, MLP] * logits[:, -1, L0H1]  # the product of two heads: not additive

    found = head_set_values(model, clean, corrupt, metric, layer=0)
    by_hand = [rows[heads][MLP] * rows[heads][L0H1] for heads in [(), (0,), (1,), (0, 1)]]
    # clean means 3 and (2 * 1 + 6 + 2) / 4 = 2.5; corrupt 5 / 3 and 6 / 4; the MLP doubles
    assert by_hand == pytest.approx([10 / 3 * 1.5, 6 * 1.5, 10 / 3 * 2.5, 6 * 2.5])
    assert found.values.ravel() == pytest.approx(by_hand, rel=1e-4)
    first = ((by_hand[1] - by_hand[0]) + (by_hand[3] - by_hand[2])) / 2
    second = ((by_hand[2] - by_hand[0]) + (by_hand[3] - by_hand[1])) / 2
    assert found.shapley == pytest.approx([first, second], rel=1e-3)
    assert found.by_size["best"].tolist() == pytest.approx([5, 9, 15], rel=1e-4)
    assert found.by_size["worst"].tolist() == pytest.approx([5, 25 / 3, 15], rel=1e-4)
    assert found.by_size["best_set"].tolist() == ["", "L0H0", "L0H0 L0H1"]
    best = found.smallest_sufficient(0.4)  # 4 of 10 by head 0; 10 / 3 by head 1
    assert (best.size, best.sets) == (1, ((Head(0, 0),),))
    assert found.smallest_sufficient(0.5).size == 2
    assert np.isnan(best.held_out_share)  # one example has no halves
    assert NUMBER == 0


@given(seed=st.integers(0, 999), n=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_axioms(seed, n):
    rng = np.random.default_rng(seed)
    one, other = rng.standard_normal((2, 2**n, 3))
    shapley = exact_shapley(one)
    np.testing.assert_allclose(shapley.sum(0), one[-1] - one[0], atol=1e-10)  # efficiency
    combined = exact_shapley(2 * one - 3 * other)  # linearity
    np.testing.assert_allclose(combined, 2 * shapley - 3 * exact_shapley(other), atol=1e-10)
    worth = rng.standard_normal(n)
    additive = exact_shapley(values_of(lambda heads: worth[heads].sum(), n))
    np.testing.assert_allclose(additive[:, 0], worth, atol=1e-10)
    brute = brute_force_shapley(lambda heads: one[sum(1 << head for head in heads)], n)
    np.testing.assert_allclose(shapley, brute, atol=1e-10)


def test_symmetric_and_idle_heads():
    """Heads 0 and 1 are worth something only together; head 2 nothing: 1/2, 1/2, 0."""
    shapley = exact_shapley(values_of(lambda heads: float({0, 1} <= set(heads)), 3))
    assert shapley.ravel().tolist() == pytest.approx([0.5, 0.5, 0.0])
    # glove game: one left glove (0), two right ones: 2/3, 1/6, 1/6
    glove = exact_shapley(values_of(lambda heads: float(0 in heads and len(heads) > 1), 3))
    assert glove.ravel().tolist() == pytest.approx([2 / 3, 1 / 6, 1 / 6])
    with pytest.raises(InputError, match=r"2\^n sets.*got 3 values"):
        exact_shapley(np.zeros((3, 1)))


def sampled(value: Any, n: int, *, n_samples: int, seed: int):
    orders = antithetic_orders(n, n_samples=n_samples, seed=seed)
    chains = np.array([[value(order[:k].tolist()) for k in range(n + 1)] for order in orders])
    return sampled_shapley(orders, chains[..., None])


def test_sampled_values_are_right_within_their_errors():
    worth = np.random.default_rng(0).standard_normal(6)

    def value(heads: list[int]) -> float:
        return float(np.tanh(worth[heads].sum()))

    exact = exact_shapley(values_of(value, 6))[:, 0]
    z = []
    for seed in range(40):
        found, errors = sampled(value, 6, n_samples=64, seed=seed)
        assert found.sum() == pytest.approx(exact.sum())  # efficiency holds in every sample
        z.append((found[:, 0] - exact) / errors)
    z = np.array(z)
    assert np.abs(z.mean(0)).max() < 4 / np.sqrt(40)  # unbiased
    assert 0.8 < z.std() < 1.25  # errors of the right size


def test_antithetic_orders_vary_less():
    def value(heads: list[int]) -> float:
        return float(min(len(heads), 3))  # contributions shrink: 1 for the first three, then 0

    _, errors = sampled(value, 6, n_samples=64, seed=0)
    orders = np.random.default_rng(0).permuted(np.tile(np.arange(6), (64, 1)), axis=1)
    place = np.argsort(orders, axis=1)
    plain = (place < 3).std(0, ddof=1) / np.sqrt(64)
    assert errors.max() < 1e-12
    assert plain.min() > 0.05


def test_sampling_above_the_limit():
    model = model_of(num_attention_heads=4)
    clean, corrupt = prompts()
    exact = head_set_values(model, clean, corrupt, Answer(), layer=0)
    found = head_set_values(
        model, clean, corrupt, Answer(), layer=0, exact_limit=3, n_samples=48, seed=1
    )
    assert (exact.exact, found.exact) == (True, False)
    assert (exact.n_samples, found.n_samples) == (0, 48)
    assert found.shapley.sum() == pytest.approx(exact.shapley.sum(), abs=1e-6)
    assert exact.shapley_errors.tolist() == [0] * 4
    z = (found.shapley - exact.shapley) / np.maximum(found.shapley_errors, 1e-6)
    assert np.abs(z).max() < 4
    assert "random orders" in found.summary()
    assert "smallest seen" in found.smallest_sufficient(0.5).summary()
    assert not found.smallest_sufficient(0.5).exact
    again = head_set_values(
        model, clean, corrupt, Answer(), layer=0, exact_limit=3, n_samples=48, seed=1
    )
    np.testing.assert_array_equal(again.shapley, found.shapley)
    with pytest.raises(InputError, match="even number of sampled orders"):
        head_set_values(model, clean, corrupt, Answer(), layer=0, exact_limit=3, n_samples=5)


def test_chosen_sizes():
    model = model_of()
    clean, corrupt = prompts()
    found = head_set_values(model, clean, corrupt, Answer(), layer=1, sizes=[1, 3])
    every = head_set_values(model, clean, corrupt, Answer(), layer=1)
    assert found.sizes == (0, 1, 3, 4)
    assert found.by_size["n_sets"].tolist() == [1, 4, 4, 1]
    full = every.by_size.set_index("size").loc[[0, 1, 3, 4], "best"]
    assert found.by_size["best"].tolist() == pytest.approx(full.tolist(), abs=1e-5)
    assert not found.smallest_sufficient(1.0).exact  # sets of two were not measured
    with pytest.raises(InputError, match=r"sizes 0, 1, 3, 4.*Leave `sizes` out"):
        _ = found.shapley
    with pytest.raises(InputError, match="at most 8 sets; got 12 sets of sizes"):
        head_set_values(model, clean, corrupt, Answer(), layer=0, sizes=[1, 2], exact_limit=3)
    with pytest.raises(InputError, match=r"sizes from 0 to 4.*got 5"):
        head_set_values(model, clean, corrupt, Answer(), layer=0, sizes=[5])


def sufficient(values: np.ndarray, share: float = 0.8, seed: int = 0):
    n = len(values).bit_length() - 1
    sets = (np.arange(2**n)[:, None] >> np.arange(n)) % 2 == 1
    groups = np.arange(values.shape[1])
    return find_sufficient(
        sets, values, groups=groups, layer=2, share=share, exhaustive=tuple(range(n + 1)), seed=seed
    )


def test_all_ties_are_listed():
    """Heads 0 and 1 do the same job: either suffices, and both are named."""
    values = values_of(lambda heads: [float(bool({0, 1} & set(heads)))] * 4, 3)
    found = sufficient(values)
    assert (found.size, found.n_of_size, found.exact) == (1, 3, True)
    assert found.sets == ((Head(2, 0),), (Head(2, 1),))
    assert found.shares.tolist() == [1.0, 1.0]
    assert (found.seen_share, found.held_out_share) == (1.0, 1.0)
    assert "and 1 more sets of this size" in found.summary()
    with pytest.raises(InputError, match="share above 0"):
        sufficient(values, 0)
    with pytest.raises(InputError, match="heads together change the metric"):
        sufficient(np.ones((8, 4)))


def test_a_set_chosen_on_the_data_restores_less_on_other_data():
    """Selection bias: of 1,024 sets of noise, some fit these examples; not the held-out half."""
    seen, held_out = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        noise = 4 * rng.standard_normal((2**10, 12))
        noise[[0, -1]] = 0
        size = np.array([index.bit_count() for index in range(2**10)])
        truth = 0.1 * size  # every head restores a tenth: sets of 8 truly suffice, smaller do not
        found = sufficient(truth[:, None] + noise, seed=seed)
        assert found.size is not None
        assert found.size < 4  # the naive claim
        seen.append(found.seen_share)
        held_out.append(found.held_out_share)
    assert np.mean(seen) > 0.8
    assert np.mean(held_out) < 0.5  # what a set of that size really restores


def test_repeated_prompts_stay_on_one_side_and_count_once():
    model = model_of()
    clean, corrupt = prompts(3)
    rows = torch.tensor([0, 0, 0, 1, 2])
    found = head_set_values(model, clean, corrupt, Answer(), layer=0)
    again = head_set_values(model, clean[rows], corrupt[rows], Answer(), layer=0)
    assert again.n == found.n == 3
    np.testing.assert_allclose(again.shapley, found.shapley, atol=1e-5)
    assert again.all == pytest.approx(found.all, abs=1e-5)
    np.testing.assert_allclose(
        again.shapley_intervals.high, found.shapley_intervals.high, atol=1e-4
    )


def test_positions_noise_and_padding():
    model = model_of()
    clean, corrupt = prompts()
    at_end = head_set_values(model, clean, corrupt, Answer(), layer=0, positions=-1)
    mask = torch.zeros(clean.shape, dtype=torch.bool)
    mask[:, -1] = True
    same = head_set_values(model, clean, corrupt, Answer(), layer=0, positions=mask)
    np.testing.assert_allclose(at_end.values, same.values, atol=1e-6)
    everywhere = head_set_values(model, clean, corrupt, Answer(), layer=0)
    assert np.abs(at_end.values - everywhere.values).max() > 1e-3
    listed = head_set_values(model, clean, corrupt, Answer(), layer=0, positions=range(8))
    np.testing.assert_allclose(listed.values, everywhere.values, atol=1e-5)
    noised = head_set_values(model, clean, corrupt, Answer(), layer=0, direction="noise")
    turned = head_set_values(model, corrupt, clean, Answer(), layer=0)
    np.testing.assert_allclose(noised.values, turned.values, atol=1e-6)
    pad = torch.full((4, 2), 0)
    padded = head_set_values(
        model,
        torch.cat([pad, clean], 1),
        torch.cat([pad, corrupt], 1),
        Answer(),
        layer=0,
        attention_mask=torch.cat([pad, torch.ones_like(clean)], 1),
    )
    np.testing.assert_allclose(padded.values, everywhere.values, atol=1e-4)
    moved = torch.cat([random_tokens(4, 1, seed=5), clean], 1)  # one token longer
    mapped = head_set_values(
        model, moved, corrupt, Answer(), layer=0, position_map=torch.arange(1, 9)
    )
    np.testing.assert_allclose(mapped.values[0], everywhere.values[0], atol=1e-5)
    with pytest.raises(InputError, match="as many tokens each"):
        head_set_values(model, clean, corrupt[:, 1:], Answer(), layer=0)
    with pytest.raises(InputError, match="4 rows of 8 columns; got columns"):
        head_set_values(model, clean, corrupt, Answer(), layer=0, positions=[8])
    with pytest.raises(InputError, match=r"one set of positions.*got 8 sets \(0, 1"):
        head_set_values(model, clean, corrupt, Answer(), layer=0, positions="each")
    with pytest.raises(InputError, match="layer from 0 to 1"):
        head_set_values(model, clean, corrupt, Answer(), layer=2)


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_position_maps_are_read_as_by_patch_heads(direction):
    """The map names clean columns of corrupt ones; noising needs it turned round."""
    model, (clean, corrupt) = model_of(), prompts()
    arguments: dict[str, Any] = {
        "direction": direction,
        "position_map": torch.tensor([-1, 0, 1, 2, 3, 4, 5, 7]),
    }
    found = head_set_values(model, clean, corrupt, Answer(), layer=0, sizes=[1], **arguments)
    singles = [Head(0, int(mask.argmax())) for mask in found.sets[1:-1]]
    exact = patch_heads(model, clean, corrupt, Answer(), heads=singles, **arguments)
    np.testing.assert_allclose(found.values[1:-1] - found.values[0], exact.values, atol=1e-4)
    assert np.abs(exact.values).max() > 0.01


def test_whole_vocabulary_metrics_are_measured_in_parts():
    """A user's function reads all logits: 16 sets in parts give what one call gives."""
    model = model_of()
    clean, corrupt = prompts()

    def metric(logits: Tensor) -> Tensor:
        return logits[:, -1, 5] - logits[:, -1, 9]

    small = head_set_values(model, clean, corrupt, metric, layer=0, memory_budget=20_000)
    found = head_set_values(model, clean, corrupt, Answer(), layer=0)
    np.testing.assert_allclose(small.values, found.values, atol=1e-5)
    assert small.metric == "metric"


def found_of(none: Any, every: Any, target: Any, **more: Any) -> HeadSetValues:
    """One head of two does all: the metric of each example with none, all, and in the other run."""
    none, every, target = (np.asarray(each, dtype=float) for each in (none, every, target))
    sets = np.array([[False, False], [True, False], [False, True], [True, True]])
    values = np.stack([none, every, none, every])
    arguments: dict[str, Any] = {"exact": True, "sizes": (0, 1, 2), "direction": "denoise"}
    return HeadSetValues(
        sets=sets,
        values=values,
        target=target,
        shapley_values=None,
        shapley_errors=None,
        groups=np.arange(len(none)),
        layer=0,
        metric="x",
        unit="nats",
        n_samples=0,
        seed=0,
        **(arguments | more),
    )


def test_what_a_layer_restores_is_given_beside_the_gap():
    """The layer makes up 1.1 of 16 nats: its smallest set restores 7 % of what there is."""
    noise = np.array([0.1, -0.1, 0.05, -0.05])
    found = found_of(-8 + noise, -6.9 - noise, 8 + 2 * noise)
    assert found.gap_share == pytest.approx(1.1 / 16, rel=1e-6)
    best = found.smallest_sufficient(0.8)
    assert best.sets == ((Head(0, 0),),)
    assert "80% of what all heads of the layer restore (5% of the gap" in best.summary()
    text = found.summary()
    for part in ("-6.9 with all, 8 in the clean run", "All heads together restore 7% of clean"):
        assert part in text
    frame = found.to_frame()
    assert set(frame["target"]) == {8.0}
    noised = found_of(8 + noise, 4 - noise, -8 + noise, direction="noise")
    assert noised.gap_share == pytest.approx(0.25)
    assert "estor" not in noised.summary()
    for part in ("no head corrupted", "in the corrupt run", "take away 25% of clean", "takes away"):
        assert part in noised.summary()


@pytest.mark.parametrize(
    ("every", "target", "words"),
    [
        ([-2, -2.1, -2.2, -1.9], [5, 5, 5, 5], "away from the other run"),  # worse than nothing
        ([1, 1.1, 1.2, 0.9], [9, -9, 8, -8], "lean - corrupt is"),  # no gap to speak of
        ([3, -3, 2, -2], [5, 5, 5, 5], "What all heads together change"),
    ],
)
def test_shares_of_nothing_certain_are_called_that(every, target, words):
    none = np.zeros(4)
    found = found_of(none, np.array(every) + 1e-3, target)
    with pytest.warns(SmallGapWarning, match=words):
        found.smallest_sufficient(0.8)
    assert words.lower() in found.summary().lower()  # and no warning
    turned = found_of(none, -np.array(every) - 1e-3, -np.array(target), direction="noise")
    with pytest.warns(SmallGapWarning, match=words):
        turned.smallest_sufficient(0.8)


def test_the_other_run_is_measured_and_left_out_sizes_are_named():
    model, (clean, corrupt) = model_of(), prompts()
    found = head_set_values(model, clean, corrupt, Answer(), layer=1, sizes=[2, 3])
    exact = patch_heads(
        model, clean, corrupt, Answer(), heads=[[Head(1, head) for head in range(4)]]
    )
    np.testing.assert_allclose(found.target, exact.target, atol=1e-5)
    assert found.gap_share == pytest.approx(exact.normalized[0], abs=1e-5)
    text = found.summary()
    assert "no set of 1 was measured: smaller may exist" in text
    assert "sampled" not in text
    assert "sets of 0, 2, 3, 4 heads measured" in text


def test_rounding_of_bfloat16_restores_nothing():
    sets = np.array([[False], [True]])
    values = np.array([[-6.0, -6.1], [-6.01, -6.05]])
    arguments: dict[str, Any] = {
        "groups": np.arange(2),
        "layer": 0,
        "share": 0.8,
        "exhaustive": (0, 1),
        "seed": 0,
    }
    assert find_sufficient(sets, values, **arguments).size == 1
    with pytest.raises(InputError, match="heads together change the metric"):
        find_sufficient(sets, values, resolution=0.03, **arguments)
    clean, corrupt = prompts()
    half = wrap_model(tiny_model("gpt_neox"), dtype=torch.bfloat16)
    assert head_set_values(half, clean, corrupt, Answer(), layer=0).resolution == 0.03


def test_frame_summary_and_round_trip(tmp_path):
    clean, corrupt = prompts()
    found = head_set_values(model_of(), clean, corrupt, Answer(), layer=1)
    frame = found.to_frame()
    shapley = frame[frame["metric"] == "shapley"]
    assert shapley["head"].tolist() == [0, 1, 2, 3]
    assert shapley["value"].sum() == pytest.approx(found.all - found.none, abs=1e-6)
    best = frame[frame["metric"] == "best_set"]
    assert (best["value"] >= best["null_mean"] - 1e-9).all()
    assert best["n_sets"].tolist() == [1, 4, 6, 4, 1]
    text = found.summary()
    for part in ("gpt_neox, step 7, layer 1, 4 distinct", "all 16 sets", "other half", "Shapley"):
        assert part in text
    again = results.load(results.save(found, tmp_path / "sets.parquet"))
    assert again.summary() == text
    np.testing.assert_array_equal(again.sets, found.sets)
    nothing = head_set_values(model_of(), clean, clean, Answer(), layer=1)
    assert "nothing to share out" in nothing.summary()
