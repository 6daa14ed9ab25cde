"""Spread of entropy over heads and their divergence: by hand, SciPy, and softmaxed twice."""

import doctest
import math

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import entr
from topic_labels import random_pattern

import headspec as hs
from headspec import results
from headspec.activations import head_specialisation

FIELDS = (
    *("entropy", "normalised_entropy", "entropy_range", "entropy_variance"),
    *("divergences", "head_divergence"),
)


def test_by_hand():
    """Head 0 looks at the first token, 1 at itself, 2 at all alike; query 0 has no choice."""
    own = torch.eye(3, dtype=torch.float64)
    first = torch.zeros(3, 3, dtype=torch.float64)
    first[:, 0] = 1
    uniform = torch.ones(3, 3, dtype=torch.float64).tril() / torch.arange(1, 4)[:, None]
    found = hs.attention_specialisation(torch.stack([first, own, uniform]))
    mean = (0 + math.log(2) + math.log(3)) / 3
    np.testing.assert_allclose(found.entropy, [0, 0, mean], atol=1e-12)
    np.testing.assert_allclose(found.normalised_entropy, [0, 0, 1], atol=1e-12)
    assert float(found.entropy_range) == pytest.approx(mean)
    assert float(found.entropy_variance) == pytest.approx(mean**2 * 2 / 9)
    apart = 2 * math.log(2) / 3  # two of three queries share no key
    one_of_two = entr([0.75, 0.25]).sum() - math.log(2) / 2
    one_of_three = entr([4 / 6, 1 / 6, 1 / 6]).sum() - math.log(3) / 2
    near = (one_of_two + one_of_three) / 3
    right = [[0, apart, near], [apart, 0, near], [near, near, 0]]
    np.testing.assert_allclose(found.divergences, right, atol=1e-12)
    assert float(found.head_divergence) == pytest.approx((apart + 2 * near) / 3)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    n_pos=st.integers(1, 8),
    n_heads=st.integers(2, 4),
    sharpness=st.floats(0, 60),
    causal=st.booleans(),
)
def test_divergence_is_scipys_and_at_most_ln_2(seed, n_pos, n_heads, sharpness, causal):
    pattern = random_pattern(
        2, n_heads, n_pos, n_pos, seed=seed, sharpness=sharpness, causal=causal
    )
    found = hs.attention_specialisation(pattern, causal=causal)
    numbers = pattern.numpy()
    for one in range(n_heads):
        for other in range(n_heads):
            with np.errstate(invalid="ignore"):  # SciPy: the root of -1e-17
                distance = jensenshannon(numbers[:, one], numbers[:, other], axis=-1)
            right = np.square(np.nan_to_num(distance)).mean()
            assert found.divergences[one, other] == pytest.approx(right, abs=1e-9)
    assert 0 <= found.head_divergence <= math.log(2) + 1e-12
    assert found.n == 2
    known = found.normalised_entropy[~np.isnan(found.normalised_entropy)]
    assert ((known >= 0) & (known <= 1 + 1e-9)).all()


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_the_order_of_heads_and_of_keys_does_not_matter(seed):
    pattern = random_pattern(3, 5, 6, 6, seed=seed, causal=False)
    rng = np.random.default_rng(seed)
    heads, keys = rng.permutation(5), rng.permutation(6)
    plain = hs.attention_specialisation(pattern, causal=False)
    moved = hs.attention_specialisation(pattern[:, heads][..., keys], causal=False)
    np.testing.assert_allclose(moved.entropy, plain.entropy[heads])
    np.testing.assert_allclose(moved.divergences, plain.divergences[np.ix_(heads, heads)])
    for name in ("entropy_range", "entropy_variance", "head_divergence"):
        assert float(getattr(moved, name)) == pytest.approx(float(getattr(plain, name)))


def test_equal_entropy_is_not_equal_attention():
    """Heads that each look at one key of their own: no spread of entropy, full divergence."""
    pattern = torch.stack([torch.eye(4).roll(shift, 1) for shift in range(4)])
    found = hs.attention_specialisation(pattern, causal=False)
    assert float(found.entropy_range) == float(found.entropy_variance) == 0
    assert float(found.head_divergence) == pytest.approx(math.log(2))
    same = hs.attention_specialisation(pattern[:1].expand(3, 4, 4), causal=False)
    assert float(same.head_divergence) == 0


def test_uniform_attention_reads_one_whatever_the_mask():
    uniform = torch.ones(2, 9, 9, dtype=torch.float64).tril() / torch.arange(1, 10)[:, None]
    causal = hs.attention_specialisation(uniform)
    np.testing.assert_allclose(causal.normalised_entropy, 1)
    both = hs.attention_specialisation(torch.full((2, 9, 9), 1 / 9), causal=False)
    np.testing.assert_allclose(both.normalised_entropy, 1, rtol=1e-6)
    # over ln 9 for every query, causal uniform attention would seem focused
    assert causal.entropy[0] / math.log(9) < 0.7
    alone = hs.attention_specialisation(torch.ones(2, 1, 1))
    assert np.isnan(alone.normalised_entropy).all()


def test_pitfall_a_softmax_of_probabilities():
    """Heads of 0 nats and of ln 64: softmaxed once more both are uniform, and alike."""
    sharp = torch.eye(64)
    flat = torch.full((64, 64), 1 / 64)
    pattern = torch.stack([sharp, flat])
    found = hs.attention_specialisation(pattern, causal=False)
    assert float(found.entropy_range) == pytest.approx(math.log(64), rel=1e-6)
    assert float(found.head_divergence) > 0.6
    twice = hs.attention_specialisation(pattern.softmax(-1), causal=False)  # the naive way
    assert float(twice.entropy_range) < 0.02
    assert float(twice.head_divergence) < 0.01
    assert (twice.normalised_entropy > 0.995).all()


def test_logits_and_lost_masks_are_refused():
    scores = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(0))
    with pytest.raises(hs.InputError, match="every row sums to one"):
        hs.attention_specialisation(scores, causal=False)
    with pytest.raises(hs.InputError, match="above the diagonal"):
        hs.attention_specialisation(scores.softmax(-1))
    hs.attention_specialisation(scores.softmax(-1), causal=False)


def test_layers_are_kept_where_asked():
    pattern = random_pattern(3, 4, 2, 7, 7)
    found = hs.attention_specialisation(pattern, kept=1)
    assert found.entropy.shape == (3, 2)
    assert found.divergences.shape == (3, 2, 2)
    assert found.n == 4
    for layer in range(3):
        one = hs.attention_specialisation(pattern[layer])
        for name in FIELDS:
            np.testing.assert_allclose(getattr(found, name)[layer], getattr(one, name))
    whole = hs.attention_specialisation(pattern)
    np.testing.assert_allclose(whole.entropy, found.entropy.mean(0))
    assert whole.n == 12
    every = hs.attention_specialisation(pattern, kept=2)
    np.testing.assert_allclose(every.head_divergence.mean(1), found.head_divergence)


def test_patterns_in_parts_give_the_same(monkeypatch):
    pattern = random_pattern(11, 3, 6, 6)
    whole = hs.attention_specialisation(pattern)
    monkeypatch.setattr("headspec.activations.head_specialisation._CHUNK", 250)
    parts = hs.attention_specialisation(pattern)
    np.testing.assert_allclose(parts.divergences, whole.divergences, rtol=1e-12)


def test_the_spread_of_heads_alike_is_chance_and_that_of_others_is_not():
    """Exchanging heads: calibrated on heads that differ by chance only."""
    found = hs.attention_specialisation(random_pattern(300, 12, 4, 5, 5), kept=1, n_null=99)
    for name in head_specialisation.SPREADS:
        p = found.p[name]
        assert p.shape == (300,)
        for level in (0.1, 0.5):
            assert (p <= level).mean() == pytest.approx(level, abs=4 * (level / 300) ** 0.5)
        right = getattr(found, name).mean()
        assert found.null_mean[name].mean() == pytest.approx(right, rel=0.05)
    sharper = torch.stack(
        [random_pattern(30, 5, 5, seed=head, sharpness=1.0 + 0.5 * head) for head in range(4)], 1
    )
    apart = hs.attention_specialisation(sharper, n_null=99)
    assert float(apart.p["entropy_range"]) == 0.01
    assert float(apart.entropy_range) > 4 * float(apart.null_mean["entropy_range"])
    assert "heads exchanged" in apart.summary()
    single = hs.attention_specialisation(sharper[0], n_null=19)  # one pattern decides nothing
    assert float(single.p["entropy_range"]) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_lower_precision(dtype):
    pattern = random_pattern(4, 3, 16, 16)
    found = hs.attention_specialisation(pattern.to(dtype))
    right = hs.attention_specialisation(pattern)
    bound = 1e-6 if dtype == torch.float32 else 3e-3
    for name in FIELDS:
        np.testing.assert_allclose(getattr(found, name), getattr(right, name), atol=bound)
    twins = pattern[:, :1].to(dtype).expand(4, 3, 16, 16)
    assert float(hs.attention_specialisation(twins).head_divergence) < 1e-15


@pytest.mark.parametrize(
    "wrong",
    [
        {"kept": 2},
        {"kept": -1},
        {"n_null": -1},
        {"pattern": torch.ones(0, 2, 3, 3)},
        {"pattern": np.ones((1, 2, 3, 3)) / 3},
    ],
)
def test_misuse(wrong, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    options = {"pattern": random_pattern(4, 3, 5, 5)} | wrong
    with pytest.raises(hs.InputError, match="kept=1 for `layer batch head q_pos k_pos`"):
        hs.attention_specialisation(options.pop("pattern"), **options)


def test_frames_and_files(tmp_path):
    found = hs.attention_specialisation(random_pattern(2, 5, 3, 6, 6), kept=1, n_null=19)
    frame = found.to_frame()
    assert len(frame) == 2 * (2 * 3 + 3)
    one = frame.query("metric == 'entropy' and layer == 1 and head == 2")["value"]
    assert one.item() == found.entropy[1, 2]
    spread = frame[frame["metric"] == "entropy_range"]
    assert spread["head"].isna().all()
    np.testing.assert_array_equal(spread["p"], found.p["entropy_range"])
    assert set(frame["n"]) == {5}
    again = results.load(results.save(found, tmp_path / "heads.json"))
    assert again.to_frame().equals(frame)
    assert again.summary() == found.summary()
    plain = hs.attention_specialisation(random_pattern(5, 1, 6, 6))
    assert np.isnan(plain.head_divergence)
    assert len(plain.to_frame()) == 2 + 3
    assert plain.to_frame()["seed"].isna().all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_on_a_gpu():
    pattern = random_pattern(2, 5, 3, 6, 6)
    found = hs.attention_specialisation(pattern.cuda(), kept=1)
    right = hs.attention_specialisation(pattern, kept=1)
    for name in FIELDS:
        np.testing.assert_allclose(
            getattr(found, name), getattr(right, name), rtol=1e-9, atol=1e-12
        )


def test_examples_run():
    assert doctest.testmod(head_specialisation).failed == 0
