"""Scores of heads against the model's own patterns, transformer-lens's detector, shipped tables."""

import weakref

import jaxtyping
import numpy as np
import pytest
import torch
from block_forward import CLASSES, build
from transformer_lens import head_detector
from zoo import VOCAB, random_tokens, tiny_model, tiny_tokenizer

import headspec as hs
from headspec.activations.target_positions import HEAD_KINDS, head_targets, target_attention
from headspec.checkpoints.micro import micro_tokenizer
from headspec.errors import InputError
from headspec.lens.capture import capture
from headspec.lens.layer_patterns import pattern_runner
from headspec.lens.models import wrap_model
from headspec.lens.score_heads import draw_tokens, head_scores
from headspec.results.frames import TIDY_COLUMNS

pytestmark = pytest.mark.models

VARIANTS = ("gpt_neox", "gpt2", "llama", "qwen3")  # the last two with grouped queries
DETECTED = {
    "previous_token": "previous_token_head",
    "induction": "induction_head",
    "duplicate_token": "duplicate_token_head",
}
TEXT = "w5 w7 w9 w5 w11 w7 w7 w20 w5 w9 w31 w11"


def from_hooks(model, tokens, kind):
    """Means over all queries of all sequences of the patterns that the hooks hold."""
    sites = [(layer, "pattern") for layer in range(model.cfg.n_layers)]
    held = capture(model, tokens, sites)
    at = head_targets(tokens, kind)
    count = at.any(-1).sum(-1).double()
    found = torch.stack([target_attention(held[site].float(), at) for site in sites])
    return ((found.nan_to_num() * count[:, None]).sum(1) / count.sum()).numpy()


@pytest.fixture(scope="module")
def micro():
    return hs.open_suite("micro").model(6144)


@pytest.fixture(scope="module")
def micro_scores(micro):
    symbols = hs.repeat_symbols(micro_tokenizer())
    return head_scores(micro, symbols=symbols, period=48, n_sequences=64, seed=1)


# --- oracles ----------------------------------------------------------------------------------


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("variant", [*VARIANTS, "mistral_window"])
def test_scores_are_those_of_the_models_own_patterns(variant, model_class):
    model, tokens = build(variant, model_class), random_tokens(5, 24) % 12
    found = head_scores(model, tokens=tokens)
    assert found.scores.shape == (4, 2, 4)
    for kind in HEAD_KINDS:
        expected = from_hooks(model, tokens, kind)
        np.testing.assert_allclose(found.of_kind(kind), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", DETECTED)
def test_transformer_lens_detects_the_same(kind, variant, model_class):
    """Its score ("mul") divides by all queries: ours times the share of those with a target."""
    if (variant, model_class) == ("qwen3", "hooked_transformer"):
        pytest.skip("detect_head itself fails there (IndexError); ours is compared with patterns")
    model = build(variant, model_class)
    tokens = model.to_tokens(TEXT).cpu()
    expected = head_detector.detect_head(model, TEXT, DETECTED[kind])
    found = head_scores(model, kinds=(kind,), tokens=tokens)
    share = found.n_queries[0] / tokens.shape[1]
    np.testing.assert_allclose(found.scores[0] * share, expected, rtol=1e-4, atol=1e-6)
    assert found.of_kind(kind).max() > expected.max()


def test_its_other_error_measure_follows_where_every_target_is_one_key():
    """abs = 1 - (sum over targets of 2 (1 - p) + queries without a target) / queries."""
    model = build("gpt2")
    tokens = model.to_tokens(TEXT).cpu()
    expected = head_detector.detect_head(model, TEXT, "previous_token_head", error_measure="abs")
    found = head_scores(model, kinds=("previous_token",), tokens=tokens)
    n, queries = tokens.shape[1], found.n_queries[0]
    by_hand = 1 - (2 * queries * (1 - found.scores[0]) + n - queries) / n
    np.testing.assert_allclose(by_hand, expected, atol=6e-4)  # it rounds to three digits


def test_the_detectors_positions_are_ours():
    tokens = random_tokens(1, 30) % 9
    for kind, name in DETECTED.items():
        theirs = getattr(head_detector, f"get_{name}_detection_pattern")(tokens)
        assert torch.equal(theirs.bool(), head_targets(tokens, kind)[0])


def test_the_shipped_table_of_micro_is_reproduced(micro_scores):
    shipped = hs.head_score_curve("micro").query("step == 6144").sort_values(["layer", "head"])
    of_kind = dict(list(shipped.groupby("metric")))
    induction = of_kind["induction"]
    found = micro_scores.of_kind("induction").ravel()
    np.testing.assert_allclose(found, induction["value"].to_numpy(float), atol=1e-5)
    at = micro_scores.kinds.index("induction")
    assert micro_scores.uniform[at] == pytest.approx(induction["null_mean"].iloc[0], rel=1e-5)
    # that table leaves out the query after the first token: a share of 1 / 96
    found = micro_scores.of_kind("previous_token").ravel()
    previous = of_kind["previous_token"]["value"].to_numpy(float)
    assert np.abs(found - previous).max() <= 1 / 96


def test_the_heads_of_micro_are_found(micro_scores):
    assert micro_scores.top_heads("previous_token", 1) == (hs.Head(1, 5),)
    induction = micro_scores.of_kind("induction")
    layers, _ = np.nonzero(induction > 0.3)
    assert layers.tolist() == [2] * 6
    assert "L1H5 1.000" in micro_scores.summary()


# --- what stands beside the scores ------------------------------------------------------------


def test_induction_heads_do_not_look_there_when_nothing_comes_again(micro_scores):
    """The same positions of sequences whose second half is another's."""
    at = micro_scores.kinds.index("induction")
    heads = micro_scores.scores[at] > 0.3
    assert micro_scores.control[at][heads].max() < 0.05
    positional = [micro_scores.kinds.index(kind) for kind in ("previous_token", "first_token")]
    assert np.isnan(micro_scores.control[positional]).all()


def test_heads_that_look_a_fixed_way_back_score_in_the_control_as_well():
    """A previous-token head on a period of two "does induction" without reading anything."""
    model = hs.open_suite("micro").model(6144)
    tokens = torch.arange(40).reshape(4, 10).repeat_interleave(2, 1)  # a a b b c c ...
    found = head_scores(model, kinds=("duplicate_token",), tokens=tokens + 100)
    head = hs.Head(1, 5)
    score = found.scores[0, head.layer, head.index]
    assert score > 2 * found.uniform[0]
    assert found.control[0, head.layer, head.index] == pytest.approx(score, abs=0.1)


def test_untrained_heads_look_about_uniformly():
    model = hs.open_suite("micro-tiny").model(0)
    found = head_scores(model, n_sequences=8, period=30)
    assert np.abs(found.scores - found.uniform[:, None, None]).max() < 0.05


def test_random_tokens_have_no_special_ones_and_none_beyond_the_tokenizer():
    hf_model = tiny_model("gpt_neox", vocab_size=VOCAB + 40)  # padded, as Pythia's
    model = wrap_model(hf_model, tiny_tokenizer())
    rows = draw_tokens(model, None, n=4, period=40, seed=0)
    assert rows.shape == (4, 81)
    assert (rows[:, 0] == 0).all()
    assert torch.equal(rows[:, 1:41], rows[:, 41:])
    assert rows[:, 1:].min() >= 1
    assert rows[:, 1:].max() < VOCAB
    assert all(len(set(row.tolist())) == 40 for row in rows[:, 1:])


# --- streaming --------------------------------------------------------------------------------


def test_one_layers_patterns_are_alive_at_a_time(micro):
    tokens = torch.arange(60).reshape(2, 30)
    alive, most = [], []

    def take(layer, pattern):
        alive.append(weakref.ref(pattern))
        most.append(sum(ref() is not None for ref in alive))

    pattern_runner(micro, tokens)(tokens, take)
    assert most == [1] * 4


@pytest.mark.parametrize("model_class", CLASSES)
def test_models_that_cannot_be_taken_apart_are_run_whole(model_class):
    tokens = random_tokens(4, 20) % 9
    model = wrap_model(tiny_model("gpt2"), tiny_tokenizer(), model_class=model_class)
    expected = head_scores(model, tokens=tokens)
    with model.hooks(fwd_hooks=[("blocks.0.attn.hook_z", lambda z, hook: z)]):
        found = head_scores(model, tokens=tokens)  # with hooks of the caller, layers are not ours
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4, atol=1e-6)
    with model.hooks(fwd_hooks=[("blocks.0.attn.hook_z", lambda z, hook: 0 * z)]):
        edited = head_scores(model, tokens=tokens)
    assert np.abs(edited.scores[:, 1] - expected.scores[:, 1]).max() > 1e-3


def test_batches_change_nothing():
    model, tokens = build("qwen3"), random_tokens(7, 20) % 9
    expected = head_scores(model, tokens=tokens)
    found = head_scores(model, tokens=tokens, batch_size=2)
    for name in ("scores", "se", "uniform", "control"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-6)
    assert found.n_queries == expected.n_queries


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("variant", ["gpt_neox", "qwen3"])
def test_half_precision_is_close(variant, model_class):
    exact = head_scores(build(variant, model_class), period=20, n_sequences=4)
    half = build(variant, model_class, dtype=torch.bfloat16)
    found = head_scores(half, period=20, n_sequences=4)
    assert np.abs(found.scores - exact.scores).max() < 0.02


def test_the_model_and_the_generator_are_left_as_they_were(micro):
    before = torch.get_rng_state()
    first = head_scores(micro, n_sequences=2, period=10)
    again = head_scores(micro, n_sequences=2, period=10)
    other = head_scores(micro, n_sequences=2, period=10, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(first.scores, again.scores)
    assert not np.array_equal(first.scores, other.scores)
    assert not any(point.fwd_hooks for point in micro.hook_dict.values())
    assert torch.is_grad_enabled()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_scores_the_same():
    model, tokens = build("qwen3"), random_tokens(4, 20) % 9
    expected = head_scores(model, tokens=tokens)
    found = head_scores(model.to("cuda"), tokens=tokens)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-3, atol=1e-5)


# --- errors over sequences, frames ------------------------------------------------------------


def test_standard_errors_are_those_over_sequences():
    """Equal numbers of queries: sd / sqrt(n). Unequal: about the jackknife's."""
    model, tokens = build("gpt2"), random_tokens(12, 24) % 12
    one = [head_scores(model, tokens=row[None]) for row in tokens]
    found = head_scores(model, tokens=tokens)
    at = found.kinds.index("previous_token")
    values = np.stack([each.scores[at] for each in one])
    np.testing.assert_allclose(found.se[at], values.std(0, ddof=1) / np.sqrt(12), rtol=1e-6)
    at = found.kinds.index("induction")
    values = np.stack([each.scores[at] for each in one])
    counts = np.array([each.n_queries[at] for each in one], float)[:, None, None]
    assert len(np.unique(counts)) > 1
    total, n = (values * counts).sum(0), counts.sum()
    np.testing.assert_allclose(found.scores[at], total / n, rtol=1e-6)
    left_out = (total - values * counts) / (n - counts)
    jackknife = np.sqrt(11 / 12 * ((left_out - left_out.mean(0)) ** 2).sum(0))
    np.testing.assert_allclose(found.se[at], jackknife, rtol=0.1)
    assert all(np.isnan(each.se).all() for each in one)
    assert np.isnan(one[0].control).all()


def test_frames_are_tidy_and_survive_saving(micro_scores, tmp_path):
    frame = micro_scores.to_frame()
    assert tuple(frame.columns[:11]) == TIDY_COLUMNS
    row = frame.query("metric == 'induction' and layer == 2 and head == 11").iloc[0]
    assert (row["model"], row["step"], row["n"], row["seed"]) == ("micro", 6144, 64, 1)
    assert row["value"] == micro_scores.of_kind("induction")[2, 11]
    assert row["control"] < 0.05
    hs.results.save(micro_scores, tmp_path / "scores.json")
    again = hs.results.load(tmp_path / "scores.json")
    np.testing.assert_array_equal(again.scores, micro_scores.scores)
    assert again.kinds == micro_scores.kinds


def test_what_cannot_be_scored_is_refused(micro, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # let wrong ones through
    with pytest.raises(InputError, match="period=63 or less"):
        head_scores(micro, period=300, symbols=range(1, 400))
    with pytest.raises(InputError, match="Cut the rows"):
        head_scores(micro, tokens=torch.zeros(1, 900, dtype=torch.long))
    with pytest.raises(InputError, match="positions of induction, duplicate_token"):
        head_scores(micro, tokens=torch.arange(10)[None])
    with pytest.raises(InputError, match="a period from 1 to 5"):
        head_scores(micro, symbols=range(5), period=8)
    with pytest.raises(InputError, match="different kinds"):
        head_scores(micro, kinds=("induction", "induction"))
    with pytest.raises(InputError, match="batch_size=-1"):
        head_scores(micro, batch_size=-1)
    with pytest.raises(InputError, match="n_sequences=0"):
        head_scores(micro, n_sequences=0)
    with pytest.raises(InputError, match="3 of which 1 differ"):
        head_scores(micro, symbols=[5, 5, 5], period=3)
    with pytest.raises(InputError, match="whole numbers"):
        head_scores(micro, tokens=torch.rand(2, 9))
    with pytest.raises(InputError, match="wrap_model"):
        head_scores(tiny_model("gpt2"), period=10)


def test_attention_both_ways_is_refused():
    """Its scores stood beside a causal baseline."""
    bert = hs.wrap_model(tiny_model("bert"), tiny_tokenizer())
    with pytest.raises(InputError, match="attention is causal"):
        head_scores(bert, period=10)


def test_tokens_on_a_device_are_taken(micro, monkeypatch):
    def refuse(*_, **__):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    tokens = torch.from_numpy(hs.held_out_tokens()[:2, :40].astype(np.int64))
    expected = head_scores(micro, tokens=tokens, kinds=("first_token",)).scores
    monkeypatch.setattr(torch.Tensor, "__array__", refuse)  # as for a tensor on a GPU
    found = head_scores(micro, tokens=tokens, kinds=("first_token",)).scores
    np.testing.assert_array_equal(found, expected)
