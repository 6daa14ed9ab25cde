"""Where heads of a kind look, against positions found by hand and by plain loops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headspec.activations.repeats import repeated_tokens
from headspec.activations.target_positions import (
    HEAD_KINDS,
    count_queries,
    head_targets,
    target_attention,
    uniform_attention,
)
from headspec.errors import InputError

TOKENS = torch.tensor([[7, 8, 9, 7, 8, 8]])


def pairs(targets, row=0):
    return [tuple(pair) for pair in targets[row].nonzero().tolist()]


def random_pattern(*shape, seed=0):
    scores = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    hidden = torch.ones(shape[-2:]).triu(1).bool()
    return scores.masked_fill(hidden, -torch.inf).softmax(-1)


def test_positions_by_hand():
    assert pairs(head_targets(TOKENS, "previous_token")) == [(q, q - 1) for q in range(1, 6)]
    assert pairs(head_targets(TOKENS, "first_token")) == [(q, 0) for q in range(1, 6)]
    assert pairs(head_targets(TOKENS, "duplicate_token")) == [(3, 0), (4, 1), (5, 1), (5, 4)]
    # after the 7 at 0 comes position 1, after the 8s at 1 and 4 positions 2 and 5 (the query's own)
    assert pairs(head_targets(TOKENS, "induction")) == [(3, 1), (4, 2), (5, 2), (5, 5)]


def test_ignored_tokens_are_neither_queries_nor_copies():
    padded = torch.tensor([[7, 0, 7, 0, 0]])
    assert pairs(head_targets(padded, "duplicate_token", ignore=(0,))) == [(2, 0)]
    assert pairs(head_targets(padded, "induction", ignore=(0,))) == [(2, 1)]
    assert pairs(head_targets(padded, "previous_token", ignore=(0,))) == [(2, 1)]
    assert (4, 3) in pairs(head_targets(padded, "duplicate_token"))  # padding matches padding


@settings(deadline=None, max_examples=30)
@given(
    rows=st.lists(st.lists(st.integers(0, 5), min_size=9, max_size=9), min_size=1, max_size=3),
    kind=st.sampled_from(HEAD_KINDS),
    seed=st.integers(0, 99),
)
def test_scores_are_what_plain_loops_give(rows, kind, seed):
    tokens = torch.tensor(rows)
    pattern = random_pattern(len(rows), 2, 9, 9, seed=seed)
    found = target_attention(pattern, head_targets(tokens, kind))
    for b, row in enumerate(rows):
        scores = []
        for q in range(1, 9):
            copies = [j for j in range(q) if row[j] == row[q]]
            keys = {
                "previous_token": [q - 1],
                "first_token": [0],
                "duplicate_token": copies,
                "induction": [j + 1 for j in copies],
            }[kind]
            if keys:
                scores.append(pattern[b, :, q, keys].double().sum(-1))
        if scores:
            torch.testing.assert_close(found[b], torch.stack(scores).mean(0), rtol=1e-6, atol=1e-8)
        else:
            assert found[b].isnan().all()


def test_uniform_attention_scores_what_its_closed_form_says():
    uniform = torch.ones(6, 6).tril() / torch.arange(1, 7)[:, None]
    for kind in HEAD_KINDS:
        targets = head_targets(TOKENS, kind)
        found = target_attention(uniform[None, None], targets)
        torch.testing.assert_close(found[:, 0], uniform_attention(targets), rtol=1e-6, atol=0)
    by_hand = (1 / 4 + 1 / 5 + 2 / 6) / 3
    found = uniform_attention(head_targets(TOKENS, "induction"))
    assert float(found) == pytest.approx(by_hand)


def test_perfect_heads_score_one_and_only_on_their_kind():
    """On repeated tokens induction and duplicate heads are told apart by one position."""
    tokens = torch.as_tensor(repeated_tokens(torch.arange(1, 30).numpy(), 2, period=6, length=12))
    own = torch.eye(12)[None]
    for kind in ("induction", "duplicate_token"):
        at = head_targets(tokens, kind)
        perfect = torch.where(at.any(-1, keepdim=True), at.float(), own)[:, None]
        scores = {k: target_attention(perfect, head_targets(tokens, k)) for k in HEAD_KINDS}
        other = "duplicate_token" if kind == "induction" else "induction"
        assert (scores[kind] == 1).all()
        assert (scores[other] == 0).all()
    assert count_queries(at).tolist() == [6, 6]


def test_a_stripe_at_a_fixed_offset_is_no_induction_on_text():
    """The stripe that repeated tokens are read by misses copies at other distances."""
    tokens = torch.tensor([[1, 2, 3, 1, 4, 5, 6, 2]])
    at = head_targets(tokens, "induction")
    perfect = torch.where(at.any(-1, keepdim=True), at.float(), torch.eye(8))[:, None]
    assert float(target_attention(perfect, at)) == 1
    period = 3
    stripe = perfect[0, 0].diagonal(1 - period)[1:].mean()
    assert float(stripe) < 0.5


def test_scores_are_not_the_detectors_mean_over_all_queries():
    """Dividing by all queries makes a perfect head on few repeats look like none."""
    at = head_targets(TOKENS, "duplicate_token")
    perfect = torch.where(
        at.any(-1, keepdim=True), at / at.sum(-1, keepdim=True).clip(1), torch.eye(6)
    )
    over_all = float((perfect * at).sum() / perfect.sum())
    assert over_all == pytest.approx(3 / 6)
    assert float(target_attention(perfect[:, None], at)) == pytest.approx(1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_give_float64_near_the_exact_score(dtype):
    pattern, at = random_pattern(1, 3, 6, 6), head_targets(TOKENS, "induction")
    found = target_attention(pattern.to(dtype), at)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, target_attention(pattern, at), rtol=2e-2, atol=2e-3)


def test_scores_that_are_no_probabilities_are_refused():
    pattern, at = random_pattern(1, 2, 6, 6), head_targets(TOKENS, "induction")
    with pytest.raises(InputError, match="sums to one"):
        target_attention(pattern.log().nan_to_num(neginf=-9), at)
    full = torch.full((1, 1, 6, 6), 1 / 6)
    with pytest.raises(InputError, match="causal"):
        target_attention(full, at)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_gives_the_same():
    pattern = random_pattern(1, 3, 6, 6)
    for kind in HEAD_KINDS:
        on_gpu = target_attention(pattern.cuda(), head_targets(TOKENS.cuda(), kind))
        torch.testing.assert_close(
            on_gpu.cpu(), target_attention(pattern, head_targets(TOKENS, kind))
        )
