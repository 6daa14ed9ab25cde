"""Attention statistics of models: blocks of queries against cached patterns, on every class."""

import copy
from importlib.metadata import version
from typing import Any

import jaxtyping
import numpy as np
import pytest
import scipy.stats
import torch
from zoo import CAUSAL, random_tokens, tiny_model, tiny_tokenizer

import headspec as hs
from headspec.activations.attention_totals import AttentionTotals
from headspec.lens import observe_sources
from headspec.lens.hooks import run_logits

pytestmark = pytest.mark.models

HAS_HOOKED = version("transformer-lens").startswith("3.")
CLASSES = ["bridge", *(["hooked_transformer"] if HAS_HOOKED else [])]
HOOKED = ("gpt_neox", "gpt2", "llama", "qwen2", "qwen3", "olmo")
TOKENS = random_tokens(5, 30)
LABELS = torch.randint(-1, 3, (5, 30), generator=torch.Generator().manual_seed(0))
ALL = (
    "entropy",
    "distance",
    "sink_mass",
    "within_topic_mass",
    "topic_ratio",
    "topic_specialisation",
    "topic_excess",
)


def wrapped(name, model_class: Any = "bridge", **options):
    return hs.wrap_model(
        tiny_model(name, **options.pop("overrides", {})),
        tiny_tokenizer(),
        model_class=model_class,
        **options,
    )


def assert_same(found, expected, tolerance=2e-6):
    assert set(found.means) == set(expected.means)
    for name in expected.means:
        for field in ("means", "se", "low", "high"):
            np.testing.assert_allclose(
                getattr(found, field)[name],
                getattr(expected, field)[name],
                rtol=20 * tolerance,
                atol=20 * tolerance,
                err_msg=f"{field} of {name}",
            )
    for field in ("by_query", "by_topic", "exchanged"):
        for name, values in getattr(expected, field).items():
            np.testing.assert_allclose(
                getattr(found, field)[name], values, rtol=50 * tolerance, atol=50 * tolerance
            )
    np.testing.assert_array_equal(found.excess_p, expected.excess_p)


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("name", HOOKED)
def test_blocks_give_what_transformer_lens_caches(name, model_class):
    model = wrapped(name, model_class)
    found = hs.attention_statistics(model, TOKENS, labels=LABELS)
    assert (found.method, found.reason) == ("blockwise", "")
    with torch.no_grad():
        names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(2)]
        _, cache = model.run_with_cache(TOKENS, names_filter=names)
    for layer, each in enumerate(names):
        pattern = cache[each].double()
        entropy = scipy.stats.entropy(pattern.numpy(), axis=-1)
        np.testing.assert_allclose(found.means["entropy"][layer], entropy.mean((0, 2)), atol=2e-6)
        np.testing.assert_allclose(found.by_query["entropy"][layer], entropy.mean(0), atol=5e-6)
        se = scipy.stats.sem(entropy.mean(2), axis=0)
        np.testing.assert_allclose(found.se["entropy"][layer], se, rtol=1e-4)
        within = hs.within_topic_mass(pattern, LABELS).transpose(1, 2)[LABELS >= 0].mean(0)
        np.testing.assert_allclose(found.means["within_topic_mass"][layer], within, atol=2e-6)
        ratio = hs.topic_ratio(pattern, LABELS)
        np.testing.assert_allclose(found.means["topic_ratio"][layer], ratio, rtol=2e-5)
    patterns = hs.attention_statistics(model, TOKENS, labels=LABELS, method="patterns")
    assert patterns.method == "patterns"
    assert_same(found, patterns)


@pytest.mark.parametrize("name", CAUSAL)
def test_a_hugging_face_model_is_run_with_attention_in_blocks(name):
    hf_model = tiny_model(name)
    hf_model.set_attn_implementation("sdpa")
    found = hs.attention_statistics(hf_model, TOKENS, labels=LABELS)
    patterns = hs.attention_statistics(hf_model, TOKENS, labels=LABELS, method="patterns")
    assert (found.method, patterns.method) == ("blockwise", "patterns")
    assert_same(found, patterns)
    assert hf_model.config._attn_implementation == "sdpa"
    bridge = hs.attention_statistics(wrapped(name), TOKENS, labels=LABELS)
    assert_same(found, bridge)


@pytest.mark.parametrize(
    ("name", "reason"), [("mistral", "sliding window of 8"), ("olmo2", "architecture is 'olmo2'")]
)
def test_layers_that_cannot_be_taken_apart_fall_back_to_patterns(name, reason):
    model = wrapped(name)
    found = hs.attention_statistics(model, TOKENS)
    assert found.method == "patterns"
    assert reason in found.reason
    with pytest.raises(hs.InputError, match=reason):
        hs.attention_statistics(model, TOKENS, method="blockwise")


@pytest.mark.parametrize("layers", [None, [1]])
def test_dropped_rotations(layers):
    hf_model = hs.drop_rope(tiny_model("qwen3"), layers=layers)
    found = hs.attention_statistics(hf_model, TOKENS, labels=LABELS)
    model = hs.wrap_model(copy.deepcopy(hf_model), tiny_tokenizer())
    blocks = hs.attention_statistics(model, TOKENS, labels=LABELS)
    assert (found.method, blocks.method) == ("blockwise", "blockwise")
    assert_same(found, blocks)
    assert_same(blocks, hs.attention_statistics(model, TOKENS, labels=LABELS, method="patterns"))
    with_rope = hs.attention_statistics(tiny_model("qwen3"), TOKENS, labels=LABELS)
    changed = np.abs(found.entropy - with_rope.entropy).max(1)
    assert changed[1] > 1e-3
    assert (changed[0] > 1e-3) == (layers is None)


def test_masked_language_models_are_refused_unless_named():
    """Their patterns are not causal: entropies beyond the ceiling that causal attention has."""
    for model in (wrapped("bert"), tiny_model("bert")):
        with pytest.raises(hs.InputError, match=r"above the diagonal|not causal"):
            hs.attention_statistics(model, TOKENS)
        found = hs.attention_statistics(model, TOKENS, labels=LABELS, causal=False)
        assert found.ceiling == pytest.approx(np.log(30))
        causal = hs.attention_baselines(30).uniform["entropy"]
        assert (found.entropy > causal).any()
        with pytest.raises(hs.InputError, match="causal=False"):
            hs.attention_statistics(model, TOKENS, causal=False, method="blockwise")


@pytest.mark.parametrize("name", ["gpt2", "qwen3"])
def test_batches_and_widths_change_nothing(name, monkeypatch):
    model = wrapped(name)
    whole = hs.attention_statistics(model, TOKENS, labels=LABELS)
    monkeypatch.setattr(observe_sources, "_WIDTH", 7)
    assert_same(hs.attention_statistics(model, TOKENS, labels=LABELS, batch_size=2), whole)


def test_padding_on_the_right_is_left_out():
    lengths = torch.tensor([30, 30, 22, 9, 1])
    mask = (torch.arange(30) < lengths[:, None]).long()
    tokens = TOKENS * mask
    for model in (wrapped("qwen3"), tiny_model("qwen3")):
        found = hs.attention_statistics(model, tokens, labels=LABELS, attention_mask=mask)
        expected = {"entropy": 0.0, "distance": 0.0}
        for row, length in zip(tokens, lengths, strict=True):
            alone = hs.attention_statistics(model, row[None, :length])
            for name in expected:
                expected[name] += alone.by_query[name].sum(-1) / int(lengths.sum())
        for name, values in expected.items():
            np.testing.assert_allclose(found.means[name], values, rtol=1e-5, atol=1e-6)
        t = np.concatenate([np.arange(1, n + 1) for n in lengths.tolist()])
        assert found.ceiling == pytest.approx(np.log(t).mean())
    with pytest.raises(hs.InputError, match="padding before tokens"):
        hs.attention_statistics(wrapped("gpt2"), tokens, attention_mask=mask.flip(1))


def test_half_precision():
    exact = hs.attention_statistics(tiny_model("qwen3"), TOKENS, labels=LABELS)
    model = wrapped("qwen3", dtype=torch.bfloat16)
    found = hs.attention_statistics(model, TOKENS, labels=LABELS)
    assert found.method == "blockwise"
    np.testing.assert_allclose(found.entropy, exact.entropy, atol=0.03)
    patterns = hs.attention_statistics(model, TOKENS, labels=LABELS, method="patterns")
    np.testing.assert_allclose(found.entropy, patterns.entropy, atol=0.03)


def test_hooks_of_the_caller_are_heeded():
    model = wrapped("gpt2")
    before = hs.attention_statistics(model, TOKENS)
    with model.hooks(fwd_hooks=[("blocks.0.attn.hook_q", lambda q, hook=None: 0 * q)]):
        found = hs.attention_statistics(model, TOKENS)
    assert found.method == "patterns"
    assert "hooks" in found.reason
    np.testing.assert_allclose(found.entropy[0], found.ceiling, atol=1e-5)
    assert_same(hs.attention_statistics(model, TOKENS), before, 1e-12)


def test_blocks_that_give_something_else_are_not_used(monkeypatch):
    model = wrapped("llama")
    scale = observe_sources.Blocks.scores_scale
    monkeypatch.setattr(
        observe_sources.Blocks, "scores_scale", lambda self, layer: 1.5 * scale(self, layer)
    )
    found = hs.attention_statistics(model, TOKENS)
    assert found.method == "patterns"
    assert "something else than the model" in found.reason


def _fail(*_: Any, **__: Any) -> None:
    raise RuntimeError("on purpose")


@pytest.mark.parametrize("kind", ["hooked", "module"])
def test_the_model_stays_as_it_was(kind, monkeypatch):
    hf_model = tiny_model("qwen3")
    model: Any = hf_model if kind == "module" else hs.wrap_model(hf_model, tiny_tokenizer())
    weights = {name: value.clone() for name, value in model.state_dict().items()}

    def run():
        return hf_model(TOKENS).logits if kind == "module" else run_logits(model, TOKENS)

    with torch.no_grad():
        before = run()
    model.train()
    state = torch.get_rng_state()
    found = hs.attention_statistics(model, TOKENS)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    assert model.training
    assert found.method == "blockwise"
    model.eval()
    with torch.no_grad():
        assert torch.equal(run(), before)
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name])
    with monkeypatch.context() as broken:
        broken.setattr(AttentionTotals, "add", _fail)
        with pytest.raises(RuntimeError, match="on purpose"):
            hs.attention_statistics(model, TOKENS)
    with torch.no_grad():
        assert torch.equal(run(), before)


def test_the_result():
    model = wrapped("gpt_neox")
    found = hs.attention_statistics(
        model, TOKENS.numpy(), labels=LABELS.numpy(), window=8, n_exchanged=3, seed=4
    )
    assert tuple(found.means) == ALL
    frame = found.to_frame()
    assert len(frame) == 7 * 2 * 4
    assert (frame.n == 5).all()
    by_metric = frame.set_index(["metric", "layer", "head"])
    baselines = hs.attention_baselines(LABELS, window=8)
    for metric in ALL[:-1]:
        rows = by_metric.loc[metric]
        assert (rows.null_mean == baselines.uniform[metric]).all()
        assert (rows.window_baseline == baselines.windowed[metric]).all()
        assert (rows.first_baseline == baselines.first[metric]).all()
        np.testing.assert_array_equal(rows.value, found.means[metric].ravel())
        assert ((rows.low <= rows.value) & (rows.value <= rows.high)).all()
    excess = by_metric.loc["topic_excess"]
    assert (excess.null_mean == 0).all()
    assert excess.p.between(0.25, 1).all()
    assert (excess.null_sd > 0).all()
    np.testing.assert_allclose(
        by_metric.loc["within_topic_mass"].exchanged_baseline + excess.value,
        by_metric.loc["within_topic_mass"].value,
    )
    assert found.by_topic["topic_ratio"].shape == (2, 4, 3)
    text = found.summary()
    assert "2 x 4 heads on 5 sequences of 30 tokens (blockwise)" in text
    assert "largest topic excess: L" in text
    assert "last 8 tokens" in text


def test_without_labels_and_with_one_sequence(tmp_path):
    found = hs.attention_statistics(wrapped("gpt2"), TOKENS[:1])
    assert tuple(found.means) == ALL[:3]
    assert found.exchanged == {}
    assert np.isnan(found.se["entropy"]).all()
    assert "largest entropy" in found.summary()
    loaded = hs.results.load(hs.results.save(found, tmp_path / "attention.json"))
    np.testing.assert_array_equal(loaded.entropy, found.entropy)
    assert loaded.summary() == found.summary()
    one = hs.attention_statistics(wrapped("gpt2"), TOKENS[:1], labels=LABELS[:1] * 0)
    assert np.isnan(one.means["topic_ratio"]).all()  # nothing to attend across
    assert "topic ratio: undefined here" in one.summary()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": LABELS[:, :-1]}, r"tokens \[5, 30\], labels \[5, 29\]"),
        ({"labels": LABELS * 0 - 1}, "topic labels from 0"),
        ({"window": 0}, "window 0"),
        ({"batch_size": -1}, "batch_size=-1"),  # gave zeros, without a word
        ({"level": 95.0}, "level=95"),
        ({"n_exchanged": -1}, "n_exchanged=-1"),
    ],
)
def test_errors(options, message):
    with pytest.raises(hs.InputError, match=message):
        hs.attention_statistics(wrapped("gpt2"), TOKENS, **options)


@pytest.mark.parametrize("beyond", [-1, 10**6])
def test_tokens_of_another_vocabulary(beyond):
    tokens = TOKENS.clone()
    tokens[1, 2] = beyond
    model = wrapped("gpt2")
    calls = {
        "statistics": lambda: hs.attention_statistics(model, tokens),
        "unhooked": lambda: hs.attention_statistics(tiny_model("gpt2"), tokens),
        "scores": lambda: hs.head_scores(model, tokens=tokens),
        "operator": lambda: hs.linear_operator(model, tokens),
        "probes": lambda: hs.probe_model(model, tokens, LABELS),
    }
    for call in calls.values():
        with pytest.raises(hs.InputError, match="the model's vocabulary"):
            call()


def test_what_is_no_batch_of_tokens_or_no_model(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # let wrong ones through
    observe: Any = hs.attention_statistics
    for tokens in (TOKENS[0], TOKENS[None], TOKENS[:0]):
        with pytest.raises(hs.InputError, match="tokens, one row a sequence"):
            observe(wrapped("gpt2"), tokens)
    with pytest.raises(hs.InputError, match="got a Linear"):
        observe(torch.nn.Linear(2, 2), TOKENS)
    for tokens in ("some text", TOKENS / 2):
        with pytest.raises(hs.InputError, match="expected whole numbers"):
            observe(wrapped("gpt2"), tokens)
    given = observe(wrapped("gpt2"), TOKENS.tolist(), attention_mask=np.ones(TOKENS.shape, int))
    np.testing.assert_array_equal(given.entropy, observe(wrapped("gpt2"), TOKENS).entropy)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("method", ["blockwise", "patterns"])
def test_the_same_on_a_gpu(method):
    expected = hs.attention_statistics(wrapped("qwen3"), TOKENS, labels=LABELS, method=method)
    model = wrapped("qwen3", device="cuda")
    assert_same(hs.attention_statistics(model, TOKENS, labels=LABELS, method=method), expected)
