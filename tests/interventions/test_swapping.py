"""Swaps of clusters: identities inside a layer, weights as oracle, and a null that holds."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib.metadata import version
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo import random_tokens, tiny_model

import headspec as hs
from headspec.heads import Head
from headspec.interventions import swapping
from headspec.interventions.edits import Edit
from headspec.interventions.replay import Replay
from headspec.interventions.swap_divergence import swap_divergences
from headspec.interventions.swap_pairs import (
    count_pairings,
    draw_pairings,
    match_pairing,
    pairings_within,
    random_sets,
)
from headspec.interventions.swap_result import swap_word
from headspec.interventions.swap_values import SwapValues
from headspec.interventions.swapping import Unequal, swap_clusters
from headspec.interventions.weight_swaps import SwapKind, swapped_weights
from headspec.lens.hooks import run_logits
from headspec.lens.logits import LogitRead
from headspec.lens.models import wrap_model
from headspec.stats import permutation_p, summarise_null

pytestmark = pytest.mark.models
CLASSES = (
    ("bridge", "hooked_transformer")
    if version("transformer-lens").startswith("3.")
    else ("bridge",)
)
KINDS: tuple[SwapKind, ...] = SwapKind.__args__  # type: ignore[attr-defined]
WHOLE = ((0, 2), (1, 3))  # whole key-value groups where two heads share one
N, T = 3, 9


def build(name, model_class: Any = "bridge", processing: Any = "none", **overrides) -> Any:
    return wrap_model(tiny_model(name, **overrides), model_class=model_class, processing=processing)


@cache
def shared(name="gpt_neox", heads=4) -> Any:
    """Models for tests that leave them as they are."""
    return build(name, num_attention_heads=heads)


@cache
def micro():
    return hs.open_suite("micro").model(6144)


def micro_tokens(n=4, length=16):
    return torch.as_tensor(np.asarray(hs.held_out_tokens())[:n, :length]).long()


def by_edits(replay, layer, how, pairs):
    return replay.read([SwapValues(replay, layer, how).intervention(pairs)], LogitRead())[0]


CASES = [
    (name, model_class, processing)
    for name in ("gpt_neox", "gpt2", "qwen2", "qwen3", "olmo2")
    for model_class in CLASSES
    for processing in ("none", "compatibility")
    if (name, model_class) != ("olmo2", "hooked_transformer")
]


@pytest.mark.filterwarnings("ignore:interventions run as whole forward passes")
@pytest.mark.parametrize(("name", "model_class", "processing"), CASES)
def test_edits_equal_swapped_weights(name, model_class, processing):
    """The oracle: the same swap in the weights, run by the model itself, at every position."""
    model = build(name, model_class, processing)
    tokens, mask = random_tokens(N, T), torch.ones(N, T, dtype=torch.long)
    mask[0, :3] = 0
    replay = Replay(model, tokens, attention_mask=mask)
    plain = replay.read([()], LogitRead())[0]
    for how in KINDS:
        if name == "olmo2" and how in ("queries", "keys"):
            with pytest.raises(ValueError, match="share the gain of QK-norm"):
                SwapValues(replay, 0, how)
            continue
        ours = by_edits(replay, 0, how, WHOLE)
        with swapped_weights(model, 0, WHOLE, which=how), torch.no_grad():
            theirs = run_logits(model, tokens, attention_mask=mask)
        seen = mask.bool()
        torch.testing.assert_close(ours[seen], theirs[seen], atol=3e-5, rtol=1e-5)
        if how != "all":
            assert (ours - plain)[seen].abs().max() > 1e-3, how


@pytest.mark.parametrize("model_class", CLASSES)
def test_key_value_heads_are_swapped_head_by_head(model_class):
    """Pairs that split a key-value group: the oracle is the same model without groups."""
    grouped = build("qwen3", model_class)
    hf_model = tiny_model("qwen3", num_key_value_heads=4)
    state = tiny_model("qwen3").state_dict()
    for key in list(state):
        if "k_proj" in key or "v_proj" in key:
            state[key] = state[key].unflatten(0, (2, -1)).repeat_interleave(2, 0).flatten(0, 1)
    hf_model.load_state_dict(state)
    ungrouped = wrap_model(hf_model, model_class=model_class)
    tokens = random_tokens(N, T)
    replay = Replay(grouped, tokens)
    for pairs in ([(0, 2)], [(0, 1)], [(1, 2), (0, 3)]):
        for how in KINDS:
            ours = by_edits(replay, 0, how, pairs)
            with swapped_weights(ungrouped, 0, pairs, which=how), torch.no_grad():
                theirs = run_logits(ungrouped, tokens)
            torch.testing.assert_close(ours, theirs, atol=3e-5, rtol=1e-5)


def test_one_piece_of_evidence_not_four():
    """qk, pattern and ov are one swap, outputs and single matrices others, all is none."""
    model, tokens = shared(), random_tokens(N, T)
    kl = {
        how: swap_clusters(model, [0, 1, 0, 1], tokens, layer=0, how=how, n_random=3).kl
        for how in KINDS
    }
    np.testing.assert_allclose(kl["pattern"], kl["qk"], rtol=1e-12)
    np.testing.assert_allclose(kl["ov"], kl["qk"], rtol=1e-12)
    assert (kl["all"] == 0).all()  # below rounding
    none = swap_clusters(model, [0, 1, 0, 1], tokens, layer=0, how="all", n_random=3)
    assert (none.null_quantiles == 0.5).all()
    distinct = [kl[how].mean() for how in ("qk", "outputs", "queries", "keys", "values")]
    assert np.ptp(distinct) > 0
    assert min(abs(a - b) for a, b in combinations(distinct, 2)) > 1e-4


def test_kl_by_hand():
    """KL of the z-swap, by plain hooks of the model and the definition."""
    model, tokens = shared(), random_tokens(N, T)
    found = swap_clusters(
        model, [[Head(1, 0)], [Head(1, 3)]], tokens, how="outputs", read_positions="all"
    )
    with torch.no_grad():
        base = run_logits(model, tokens).double().log_softmax(-1)

        def swap(z, hook=None):
            z = z.clone()
            z[:, :, [0, 3]] = z[:, :, [3, 0]]
            return z

        with model.hooks(fwd_hooks=[("blocks.1.attn.hook_z", swap)]):
            other = run_logits(model, tokens).double().log_softmax(-1)
    expected = (base.exp() * (base - other)).sum(-1).mean(1)
    np.testing.assert_allclose(found.kl, expected, rtol=1e-4)
    assert found.pairings == (((0, 3),),)
    assert found.exact
    assert len(found.null_draws) == comb(4, 2)
    assert found.mean_kl in found.null_draws


def test_patterns_are_free_of_coordinates_and_outputs_are_not():
    """W_V -> W_V A, W_O -> A^-1 W_O leaves the model alone."""
    tokens = random_tokens(N, T)
    kinds: tuple[SwapKind, ...] = ("qk", "outputs")
    results = []
    for turn in (False, True):
        model = build("gpt_neox", "bridge")
        attention = model.blocks[0].attn
        if turn:
            rotation = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator()))[0]
            with torch.no_grad():
                v = attention.v.original_component
                v.weight[:16] = rotation.T @ v.weight[:16]
                v.bias[:16] = rotation.T @ v.bias[:16]
                o = attention.o.original_component.weight
                o[:, :16] = o[:, :16] @ rotation
        logits = run_logits(model, tokens).detach()
        swaps = [swap_clusters(model, [0, 1, 0, 1], tokens, layer=0, how=how) for how in kinds]
        results.append((logits, *(swap.mean_kl for swap in swaps)))
    (before, qk, outputs), (after, qk_after, outputs_after) = results
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    assert abs(qk_after - qk) < 1e-4 * qk
    assert abs(outputs_after - outputs) > 0.01 * outputs


def test_eleven_heads_replaced_by_one_mean_is_not_a_swap():
    """The naive way overwrites the layer; it has no pairs, and swapping twice does not undo it."""
    model, tokens = micro(), micro_tokens()
    replay = Replay(model, tokens)
    z = replay.activation(2, "z")
    one, others = [6], [h for h in range(12) if h != 6]
    naive = z.clone()
    naive[:, :, others] = z[:, :, one]
    naive[:, :, one] = z[:, :, others].mean(2, keepdim=True)
    twice = naive.clone()
    twice[:, :, others] = naive[:, :, one]
    twice[:, :, one] = naive[:, :, others].mean(2, keepdim=True)
    assert (twice - z).abs().max() > 0.1

    end = torch.full((len(tokens), 1), tokens.shape[1] - 1)
    read = LogitRead(positions=end, log_probs=True)
    base, wrong = replay.read([(), (Edit(2, "z", naive),)], read)
    naive_kl = float((base.exp() * (base - wrong)).sum(-1).mean())
    labels = [int(h == 6) for h in range(12)]
    found = swap_clusters(model, labels, tokens, layer=2, n_pairings=11)
    assert found.sizes == (11, 1)
    assert found.n_pairs == 1
    assert len(found.pairings) == 11
    assert naive_kl > 3 * found.mean_kl
    assert found.p_least == pytest.approx(1 / 12)
    assert "No p below 0.083 is possible." in found.summary()
    assert found.exact
    assert len(found.null_draws) == 12


def test_without_a_control_random_heads_are_called_strong():
    model, tokens = micro(), micro_tokens(8)
    parity = [0, 1] * 6
    found = swap_clusters(model, parity, tokens, layer=0, how="outputs", n_random=40)
    assert found.word == "strong"
    assert found.null_word_share > 0.8
    assert found.p_value > 0.05
    assert "of them are strong or more" in found.summary()
    assert "not distinguishable" in found.summary()


def test_p_is_calibrated_when_labels_are_random(monkeypatch):
    """Random labels: p at most .05 in .05 of the runs, with either rule of pairing."""
    model, tokens = shared(heads=8), random_tokens(2, 5)
    every = [*combinations(range(8), 2)]
    pairings = [(a, b) for a, b in combinations(every, 2) if not set(a) & set(b)]
    pairings += [(pair,) for pair in every]  # for swaps inside a cluster
    known = dict(
        zip(
            pairings,
            swap_divergences(
                model,
                tokens,
                pairings,
                layer=1,
                how="outputs",
                positions=None,
                read_positions="last",
                attention_mask=None,
                memory_budget=2**27,
            ),
            strict=True,
        )
    )
    monkeypatch.setattr(
        swapping,
        "swap_divergences",
        lambda model, tokens, pairings, **_: np.stack([known[one] for one in pairings]),
    )
    rng = np.random.default_rng(0)
    n_runs = 120
    rules: tuple[Unequal, ...] = ("repeat", "match")
    said: list[str] = []
    for unequal in rules:
        ps = []
        for run in range(n_runs):
            heads = rng.permutation(8)
            labels = np.full(8, -1)
            labels[heads[:3]], labels[heads[3:5]] = 0, 1
            found = swap_clusters(
                model,
                labels.tolist(),
                tokens,
                layer=1,
                n_random=39,
                n_pairings=2,
                unequal=unequal,
                seed=run,
            )
            ps.append(found.p_value)
            said.append(found.verdict)
        rejected = np.mean(np.array(ps) <= 0.05)
        assert abs(rejected - 0.05) < 3 * np.sqrt(0.05 * 0.95 / n_runs)
        assert 0.46 < np.mean(ps) < 0.56
    # More or less: .05 in all. With .05 for each of the two it would be .1.
    wrong = np.mean(["not distinguishable" not in one for one in said])
    assert abs(wrong - 0.05) < 3 * np.sqrt(0.05 * 0.95 / len(said))


def test_averaging_only_the_observed_pairings_would_not_be_calibrated():
    """Why random sets go through the same number of pairings: else p piles up in the middle."""
    rng = np.random.default_rng(0)
    kl = rng.standard_normal(4000)  # every pairing alike: only chance tells them apart
    fair, unfair = [], []
    for _ in range(400):
        observed = rng.choice(kl, 10).mean()
        fair.append(permutation_p(observed, rng.choice(kl, (19, 10)).mean(1)))
        unfair.append(permutation_p(observed, rng.choice(kl, 19)))
    assert 0.03 < np.mean(np.array(fair) <= 0.05) < 0.08
    assert np.mean(np.array(unfair) <= 0.05) < 0.01


def test_a_real_difference_is_found():
    """Two heads write twenty times as much: swapping them with the rest is more than chance."""
    model, tokens = build("gpt_neox", num_attention_heads=16), random_tokens(4, 8)
    with torch.no_grad():
        weight = model.blocks[1].attn.o.original_component.weight
        for head in (2, 5):
            weight[:, 4 * head : 4 * head + 4] *= 20
    labels = [int(head in (2, 5)) for head in range(16)]
    found = swap_clusters(model, labels, tokens, layer=1, how="outputs", n_random=120)
    assert found.exact
    assert found.p_value < 0.025
    assert "more than swaps of random sets" in found.summary()


@given(st.integers(2, 6), st.integers(2, 6), st.integers(1, 30), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_pairings_are_one_to_one(n_one, n_other, n_draws, seed):
    one, other = tuple(range(n_one)), tuple(range(n_one, n_one + n_other))
    n_pairs = min(n_one, n_other)
    rng = np.random.default_rng(seed)
    drawn = draw_pairings(one, other, n_pairs=n_pairs, n_draws=n_draws, rng=rng)
    count = count_pairings(n_one, n_other, n_pairs)
    assert len(drawn) == min(count, n_draws)
    if count <= n_draws:
        assert len(set(drawn)) == count
    for pairing in drawn:
        assert len(pairing) == n_pairs
        assert len({head for pair in pairing for head in pair}) == 2 * n_pairs
        assert all(a in one and b in other for a, b in pairing)
    inside = pairings_within(one, n_pairs=n_one // 2, n_draws=n_draws, rng=rng)
    for pairing in inside:
        assert len({head for pair in pairing for head in pair}) == 2 * (n_one // 2)
        assert {head for pair in pairing for head in pair} <= set(one)
    if len(inside) < n_draws:
        assert len(set(inside)) == len(inside)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_random_sets_keep_sizes(a, b, seed):
    rng = np.random.default_rng(seed)
    few, exact = random_sets((a, b), n_heads=6, n_random=10_000, rng=rng)
    assert exact
    assert len(set(few)) == len(few) == comb(6, a) * comb(6 - a, b) // (2 if a == b else 1)
    some, exact = random_sets((a, b), n_heads=16, n_random=10, rng=rng)
    assert not exact
    for one, other in some:
        assert (len(one), len(other)) == (a, b)
        assert not set(one) & set(other)


def test_matching_is_the_best_assignment():
    rng = np.random.default_rng(0)
    similarity = rng.standard_normal((7, 7))
    one, other = (0, 3), (1, 2, 5, 6)
    best = max(
        draw_pairings(one, other, n_pairs=2, n_draws=10_000, rng=rng),
        key=lambda pairs: sum(similarity[i, j] if i in one else similarity[j, i] for i, j in pairs),
    )
    assert match_pairing(one, other, similarity=similarity) == best


def test_rows_in_parts_and_columns_alone():
    model, tokens = shared(), random_tokens(5, T)
    options: dict[str, Any] = {"layer": 0, "how": "outputs", "attention_mask": None}
    pairings = [((0, 1),), ((0, 1), (2, 3))]

    def divergences(**changed):
        settings = {"positions": None, "read_positions": "last", "memory_budget": 2**27}
        return swap_divergences(model, tokens, pairings, **options, **(settings | changed))

    whole = divergences()
    np.testing.assert_allclose(divergences(memory_budget=30_000), whole, rtol=1e-4)
    end = torch.full((5, 1), T - 1)
    np.testing.assert_allclose(divergences(read_positions=end), whole, rtol=1e-6)
    np.testing.assert_allclose(divergences(read_positions=end - T), whole, rtol=1e-6)
    assert (divergences(positions=[T - 1], read_positions=end - 1) == 0).all()
    late = divergences(positions=[T - 1])
    mask = torch.zeros(5, T, dtype=torch.bool)
    mask[:, -1] = True
    np.testing.assert_allclose(divergences(positions=mask), late, rtol=1e-6)
    assert (late != whole).all()


def test_a_column_for_each_row_is_read_as_by_patching():
    """An Int tensor of one column a row is no list of columns for every row."""
    model, tokens = shared(), random_tokens(3, T)
    options: dict[str, Any] = {"layer": 0, "how": "outputs", "n_random": 2}
    columns = torch.tensor([2, 5, -1])
    mask = torch.zeros(3, T, dtype=torch.bool)
    mask[torch.arange(3), columns] = True
    by_column = swap_clusters(model, [0, 1, 0, 1], tokens, positions=columns, **options)
    by_mask = swap_clusters(model, [0, 1, 0, 1], tokens, positions=mask, **options)
    by_list = swap_clusters(model, [0, 1, 0, 1], tokens, positions=[2, 5, T - 1], **options)
    np.testing.assert_array_equal(by_column.kl, by_mask.kl)
    assert (np.abs(by_list.kl - by_mask.kl) > 1e-6).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": [T]}, "positions within 2 rows"),
        ({"positions": torch.tensor([0, -T - 1])}, "positions within 2 rows"),
        ({"positions": torch.tensor([0, 1, 2])}, "positions within 2 rows"),
        ({"positions": "each"}, "one set of positions"),
        ({"read_positions": torch.tensor([[0], [T]])}, "read_positions within 9 columns"),
    ],
)
def test_columns_that_are_not_there_are_explained(options, message):
    with pytest.raises(ValueError, match=message):
        swap_clusters(shared(), [0, 1, 0, 1], random_tokens(2, T), layer=0, **options)


def test_masks_that_do_not_fit():
    model, tokens = shared(), random_tokens(2, 5)
    wrong = {"positions": torch.ones(1, 2).bool(), "read_positions": torch.ones(1, 2).long()}
    for name, value in wrong.items():
        options: dict[str, Any] = {"positions": None, "read_positions": "last", name: value}
        with pytest.raises(ValueError, match=r"shape"):
            swap_divergences(
                model,
                tokens,
                [((0, 1),)],
                layer=0,
                how="outputs",
                attention_mask=None,
                memory_budget=2**27,
                **options,
            )


def test_padding_is_not_read():
    model, tokens = shared(), random_tokens(1, T)
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.long), tokens], 1)
    mask = (torch.arange(T + 4) >= 4).long()[None]
    for read in ("last", "all"):
        alone = swap_clusters(model, [0, 1, 0, 1], tokens, layer=0, read_positions=read)
        beside = swap_clusters(
            model, [0, 1, 0, 1], padded, layer=0, read_positions=read, attention_mask=mask
        )
        np.testing.assert_allclose(beside.kl, alone.kl, rtol=1e-3)


def test_clusterings_sets_and_labels_agree():
    model, tokens = micro(), micro_tokens()
    weights = hs.open_suite("micro").head_weights(6144, 1)
    clusters = hs.cluster_heads(weights, feature="qk", n_clusters=2, null=None)
    sets = [[Head(1, int(h)) for h in np.flatnonzero(clusters.labels == k)] for k in (0, 1)]
    found = [
        swap_clusters(model, given, tokens, layer=layer, n_random=5)
        for given, layer in [(clusters, None), (clusters.labels.tolist(), 1), (sets, None)]
    ]
    assert found[0].mean_kl == found[1].mean_kl == found[2].mean_kl
    assert found[0].clusters == tuple(tuple(one) for one in sets)
    matched = swap_clusters(model, clusters, tokens, n_random=5, unequal="match")
    assert len(matched.pairings) == 1
    assert (found[0].model, found[0].step, found[0].layer) == ("micro", 6144, 1)


def test_within_swaps_and_the_frame():
    model, tokens = micro(), micro_tokens()
    twice = torch.cat([tokens, tokens])
    found = swap_clusters(model, [0] * 8 + [1] * 3 + [-1], twice, layer=2, n_random=7)
    first, second = found.within
    assert (first.n_pairs, second.n_pairs, found.n_pairs) == (3, 1, 3)
    assert len(first.draws) == len(first.between) == 5
    assert len(second.draws) == 3  # all there are
    assert found.n == len(tokens)  # a prompt given twice is one prompt
    frame = found.to_frame()
    assert list(frame.columns[:11]) == list(hs.results.TIDY_COLUMNS)
    row = frame.set_index("metric").loc["swap_kl"]
    assert row["value"] == found.mean_kl == pytest.approx(found.kl.mean())
    assert row["p"] == found.p_value
    assert row["n"] == len(tokens)
    assert set(frame["metric"]) == {
        "swap_kl", "prompt_kl", "within_a_kl", "between_a_kl", "within_b_kl", "between_b_kl"
    }  # fmt: skip
    assert "Inside cluster A (3 of its pairs at a time)" in found.summary()
    again = swap_clusters(model, [0] * 8 + [1] * 3 + [-1], twice, layer=2, n_random=7)
    assert found.null_draws.tolist() == again.null_draws.tolist()


def test_each_prompt_has_the_studys_word_beside_its_null():
    """Of two prompts one is "strong" and yet where random sets put it; by plain runs of each."""
    model, tokens = micro(), micro_tokens(3)
    found = swap_clusters(model, [0] + [1] * 11, tokens, layer=2, how="outputs", n_pairings=11)
    assert found.exact
    assert found.null_kl is not None
    assert found.null_kl.shape == (12, 3)
    np.testing.assert_allclose(found.null_kl.mean(1), found.null_draws)
    for head in (3, 7):  # one head against the others: the prompt's KL under each exchange
        swaps = [((min(head, h), max(head, h)),) for h in range(12) if h != head]
        options: dict[str, Any] = {"positions": None, "read_positions": "last"}
        by_hand = swap_divergences(
            model, tokens, swaps, layer=2, how="outputs", attention_mask=None,
            memory_budget=2**27, **options,
        ).mean(0)  # fmt: skip
        assert np.isclose(found.null_kl, by_hand, rtol=1e-4).all(1).sum() == 1
    kl, null = np.array([2.0, 0.05, 0.5]), np.array([[3, 0.01, 0.5], [4, 0.02, 0.1]])
    made = replace(found, kl=kl, null_kl=null, null_draws=null.mean(1))
    rows = made.to_frame().query("metric == 'prompt_kl'")
    assert rows["word"].tolist() == ["strong", "minimal", "moderate"]
    assert rows["null_quantile"].tolist() == [0, 1, 0.75]  # below both, above both, above and a tie
    assert rows["null_mean"].tolist() == pytest.approx([3.5, 0.015, 0.3])
    assert rows["null_q95"].tolist() == pytest.approx([3.95, 0.0195, 0.48])
    bare = replace(found, null_kl=None).to_frame().query("metric == 'prompt_kl'")
    assert bare["null_quantile"].isna().all()


@pytest.mark.parametrize(
    ("n_above", "verdict"),
    [(0, "more"), (4, "more"), (5, "not dist"), (194, "not dist"), (195, "less"), (199, "less")],
)
def test_a_verdict_of_more_or_less_errs_in_a_twentieth_in_all(n_above, verdict):
    """p = .025 is more; p = .03 is neither, where two tests at .05 each would have said so."""
    draws = np.array([2.0] * n_above + [0.0] * (199 - n_above))
    model, tokens = shared(), random_tokens(2, 5)
    found = swap_clusters(model, [0, 1, 0, 1], tokens, layer=0, n_random=2)
    found = replace(found, null=summarise_null(1.0, draws), null_draws=draws, null_kl=None)
    assert found.verdict.startswith(verdict)
    assert "with 0.025 for each" in found.summary()


def test_words_are_the_studys():
    assert [swap_word(kl) for kl in (2.0, 1.0, 0.1, 0.09)] == [
        "strong", "moderate", "moderate", "minimal"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("clustering", "options", "message"),
    [
        ([0, 1, 0, 1], {}, "layer= with plain labels"),
        ([0, 1, 0], {"layer": 0}, "one label for each of the layer's 4 heads"),
        ([0, 1, 2, 1], {"layer": 0}, "two clusters"),
        ([0, 0, 0, 0], {"layer": 0}, "two clusters"),
        ([0, 1, 0, 1], {"layer": 5}, "layer from 0 to 1"),
        ([["L0H0"], ["L1H1"]], {}, "of one layer"),
        ([["L0H0"], ["L0H0"]], {}, "at most once"),
        ([["L0H0"], ["L0H9"]], {}, "head indices 0 to 3"),
        ([["L0H0"], ["L0H1"]], {"layer": 1}, "the layer of the heads, 0"),
        ([0, 1, 0, 1], {"layer": 0, "n_random": 0}, "shows nothing"),
    ],
)
def test_what_does_not_fit_is_explained(clustering, options, message):
    model = shared()
    with pytest.raises(ValueError, match=message):
        swap_clusters(model, clustering, random_tokens(2, 5), **options)


def test_nothing_is_left_behind():
    model, tokens = build("gpt_neox"), random_tokens(2, 5)
    before = {name: p.detach().numpy().tobytes() for name, p in model.named_parameters()}
    state = torch.random.get_rng_state()
    for how in KINDS:
        swap_clusters(model, [0, 1, 0, 1], tokens, layer=0, how=how, n_random=2)
    assert before == {name: p.detach().numpy().tobytes() for name, p in model.named_parameters()}
    assert not any(point.fwd_hooks for point in model.hook_dict.values())
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.is_grad_enabled()
