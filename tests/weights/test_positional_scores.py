"""Previous-token attention by position: by hand, its null, and against measured attention."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from random_heads import random_heads, rejection_bounds
from scipy import stats

import headspec as hs
from headspec import HeadWeights, Rotary, previous_token_scores
from headspec.errors import InputError
from headspec.results import load, save
from headspec.weights.rotary_angles import rotate


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotary_head(strength: float = 30.0, offset: int = 1, n: int = 1) -> HeadWeights:
    """Queries and keys from biases alone: the key's direction, and the query's turned back."""
    rotary = Rotary(dim=8, base=10.0)
    key = torch.ones(8, dtype=torch.float64)
    nothing = torch.zeros(n, 4, 8, dtype=torch.float64)
    return HeadWeights(
        W_Q=nothing,
        W_K=nothing,
        W_V=nothing,
        W_O=nothing.mT,
        b_Q=(strength * rotate(key, -offset, rotary)).repeat(n, 1),
        b_K=key.repeat(n, 1),
        rotary=rotary,
    )


def test_a_rotary_head_that_looks_one_back():
    inputs = torch.zeros(3, 4)
    found = previous_token_scores(rotary_head(), inputs, normalisation="none", n_positions=20)
    assert found.scores.item() > 0.99
    assert found.best_offsets == (1,)
    assert found.p_values.item() < 0.05
    two_back = previous_token_scores(
        rotary_head(offset=2), inputs, normalisation="none", n_positions=20
    )
    assert two_back.best_offsets == (2,)
    assert two_back.scores.item() < 0.1  # only position 1, which has no second token before it


def test_uniform_attention_by_hand():
    """Weights of 0 attend alike to all: position i gives the one before 1 / (i + 1)."""
    found = previous_token_scores(
        rotary_head(strength=0), torch.zeros(1, 4), n_positions=4, n_null=9
    )
    assert found.scores.item() == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 3)
    assert found.uniform == pytest.approx(found.scores.item())
    assert found.p_values.item() == 1


def test_a_learned_head_that_looks_one_back():
    """W_QK maps each position's vector to that of the one before."""
    n = 10
    shift = torch.eye(n).roll(-1, 1)
    head = HeadWeights(
        W_Q=30 * shift[None], W_K=torch.eye(n)[None], W_V=shift[None], W_O=shift[None]
    )
    found = previous_token_scores(head, pos_embed=torch.eye(n), normalisation="none", n_positions=n)
    assert found.scores.item() > 0.95
    assert found.p_values.item() < 0.01
    # the mean of the inputs is alike at all positions: content of one kind changes nothing here
    with_content = previous_token_scores(
        head, torch.zeros(2, n), pos_embed=torch.eye(n), normalisation="none", n_positions=n
    )
    assert with_content.scores.item() == pytest.approx(found.scores.item())


def test_equal_to_scores_averaged_over_pairs_of_contents():
    """The form is the mean over independent contents of query and key, biases and QK-norm in."""
    rotary = Rotary(dim=4, base=7.0)
    heads = random_heads(
        4,
        12,
        6,
        kv=2,
        dtype=torch.float64,
        b_Q=draw(4, 6, seed=3),
        b_K=draw(2, 6, seed=4),
        q_norm=draw(6, seed=5),
        k_norm=draw(6, seed=6),
        rotary=rotary,
    )
    inputs = draw(9, 12, seed=7)
    found = previous_token_scores(heads, inputs, n_positions=5, n_null=0)
    assert "without a null" in found.summary()
    assert "nan" not in found.summary()
    x = torch.nn.functional.layer_norm(inputs, (12,))
    grown = heads.expand_kv()
    for head in range(4):
        sides = []
        for W, b, gain in (
            (grown.W_Q, grown.b_Q, grown.q_norm),
            (grown.W_K, grown.b_K, grown.k_norm),
        ):
            assert b is not None
            assert gain is not None
            sides.append(torch.nn.functional.rms_norm(x @ W[head] + b[head], (6,), gain, 1e-6))
        scores = torch.full((5, 5), -torch.inf, dtype=torch.float64)
        for i in range(5):
            for j in range(i + 1):
                pairs = rotate(sides[0], i, rotary) @ rotate(sides[1], j, rotary).T
                scores[i, j] = pairs.mean() / 6**0.5
        expected = scores.softmax(-1).diagonal(-1).mean()
        assert found.scores[head] == pytest.approx(float(expected))


def test_attention_of_one_content_is_the_models():
    """All tokens the same: the score is the attention that a real model pays."""
    from zoo import tiny_model

    for name in ("gpt_neox", "qwen3"):
        model = tiny_model(name)
        tokens = torch.full((1, 12), 7)
        with torch.no_grad():
            out = model(tokens, output_attentions=True, output_hidden_states=True)
            base = model.gpt_neox if name == "gpt_neox" else model.model
            norm = base.layers[1].input_layernorm
            inputs = norm(out.hidden_states[1])[0]
        measured = out.attentions[1][0].diagonal(-1, 1, 2).mean(-1)
        weights = hs.head_weights(model, 1)
        found = previous_token_scores(
            weights, inputs[:1], normalisation="none", n_positions=12, n_null=0
        )
        # positions of one repeated token reach layer 1 alike: attention is all by position
        np.testing.assert_allclose(found.scores, measured, rtol=2e-4)


@pytest.mark.parametrize("learned", [False, True])
def test_random_heads_are_rejected_at_the_level(learned):
    heads = random_heads(150, 16, 8, rotary=None if learned else Rotary(dim=6, base=100.0))
    inputs, pos_embed = draw(5, 16) + draw(16, seed=1), 2 * draw(16, 16, seed=2)
    found = previous_token_scores(
        heads,
        None if learned else inputs,
        pos_embed=pos_embed if learned else None,
        n_positions=16,
        n_null=99,
    )
    low, high = rejection_bounds(150, 0.05)
    assert low <= (found.p_values <= 0.05).sum() <= high


def test_the_embedded_suite_where_embeddings_fail_and_streams_do_not():
    """Token embeddings say little of measured attention: a limit, kept in sight."""
    suite = hs.open_suite("micro")
    measured = hs.head_score_curve("micro").query("step == 6144 and metric == 'previous_token'")[
        "value"
    ]
    layers = [suite.head_weights(6144, layer) for layer in range(4)]
    embed = suite.embedding_matrices(6144)["embed"]
    found = previous_token_scores(layers, embed, n_null=0)
    rho = stats.spearmanr(found.scores, measured)[0]
    assert rho == pytest.approx(0.34, abs=0.02)
    assert measured.to_numpy().argmax() == 17  # L1H5
    assert found.scores[17] < found.uniform  # and it is missed


@pytest.mark.models
def test_the_embedded_suite_from_captured_streams():
    suite = hs.open_suite("micro")
    measured = hs.head_score_curve("micro").query("step == 6144 and metric == 'previous_token'")[
        "value"
    ]
    model = suite.model(6144, processing="compatibility")
    tokens = torch.randint(1, 512, (32, 128), generator=torch.Generator().manual_seed(0))
    names = [f"blocks.{layer}.hook_resid_pre" for layer in range(4)]
    _, cache = model.run_with_cache(tokens, names_filter=lambda name: name in names)
    found = np.concatenate(
        [
            previous_token_scores(
                hs.head_weights(model, layer), cache[name].flatten(0, 1), n_null=0
            ).scores
            for layer, name in enumerate(names)
        ]
    )
    assert found.argmax() == 17
    assert found[17] > 0.99
    assert stats.spearmanr(found, measured).statistic > 0.6  # pyright: ignore


def test_result_round_trips_and_speaks(tmp_path):
    found = previous_token_scores(rotary_head(n=2), torch.zeros(1, 4), n_positions=6, n_null=19)
    save(found, tmp_path / "positions.json")
    again = load(tmp_path / "positions.json")
    np.testing.assert_array_equal(again.profile, found.profile)
    frame = found.to_frame()
    assert set(frame["metric"]) == {"positional_previous_token"}
    assert frame["best_offset"].tolist() == [1, 1]
    assert "of 2 heads" in found.summary()


def test_messages():
    head = rotary_head()
    with pytest.raises(InputError, match="rotary weights without inputs"):
        previous_token_scores(head)
    with pytest.raises(InputError, match="no previous-token score"):
        previous_token_scores(replace(head, rotary=None), torch.zeros(1, 4))
    with pytest.raises(InputError, match="d_model=4"):
        previous_token_scores(head, torch.zeros(1, 5))
    with pytest.raises(InputError, match="Lower n_positions"):
        previous_token_scores(replace(head, rotary=None), pos_embed=torch.zeros(8, 4))
    with pytest.raises(InputError, match="known by name only"):
        previous_token_scores(replace(head, rotary=Rotary(8, scaling="yarn")), torch.zeros(1, 4))
