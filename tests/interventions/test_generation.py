"""Generation with a cache equals generation without; edits stay in their columns."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any

import pytest
import torch
from zoo import random_tokens, tiny_model, tiny_tokenizer

import headspec as hs
from headspec.interventions.edits import Edit
from headspec.interventions.generation import generate_tokens
from headspec.interventions.replay import Replay
from headspec.lens.capture import capture
from headspec.lens.hooks import run_logits
from headspec.lens.logits import LogitRead
from headspec.lens.models import wrap_model

pytestmark = pytest.mark.models
CLASSES = (
    ("bridge", "hooked_transformer")
    if version("transformer-lens").startswith("3.")
    else ("bridge",)
)
N, P, NEW = 3, 7, 8


def build(name="gpt_neox", model_class: Any = "bridge", processing: Any = "none", **more) -> Any:
    hf_model = tiny_model(name, **more)
    return wrap_model(hf_model, tiny_tokenizer(), model_class=model_class, processing=processing)


@cache
def shared(name="gpt_neox", model_class: Any = "bridge", processing: Any = "none") -> Any:
    """Models for tests that leave them as they are."""
    return build(name, model_class, processing)


def padding():
    mask = torch.ones(N, P, dtype=torch.long)
    mask[0, :3] = 0
    return mask


def edits_of(model, tokens, mask=None):
    """Edits of every site, some rows and columns only, of another run's values."""
    other = capture(
        model,
        tokens.roll(1, 0),
        [(1, "z"), (0, "q"), (1, "k"), (0, "v"), (1, "pattern"), (0, "mlp_out"), (1, "resid_pre")],
        attention_mask=mask,
    )
    late = torch.zeros(tokens.shape, dtype=torch.bool)
    late[:, 4:6] = True
    return {
        "z": (Edit(1, "z", 3 * other[1, "z"], heads=(0, 2)),),
        "zeros, some columns": (Edit(0, "z", torch.zeros(()), heads=(1,), where=late),),
        "q": (Edit(0, "q", other[0, "q"]),),
        "k": (Edit(1, "k", 2 * other[1, "k"], heads=(0,), where=late),),
        "v": (Edit(0, "v", other[0, "v"], heads=(1,)),),
        "pattern": (Edit(1, "pattern", other[1, "pattern"], heads=(3,)),),
        "mlp_out": (Edit(0, "mlp_out", other[0, "mlp_out"], where=late),),
        "resid_pre": (Edit(1, "resid_pre", other[1, "resid_pre"], where=late),),
    }


def uncached(model, tokens, n_new, *, hooks=(), mask=None):
    """Plain greedy decoding: the whole text again for every token, hooks on absolute columns."""
    chosen = []
    with torch.no_grad(), model.hooks(fwd_hooks=list(hooks)):
        for _ in range(n_new):
            logits = run_logits(model, tokens, attention_mask=mask)[:, -1]
            chosen.append(logits.log_softmax(-1).max(-1).values)
            tokens = torch.cat([tokens, logits.argmax(-1)[:, None]], 1)
            mask = None if mask is None else torch.nn.functional.pad(mask, (0, 1), value=1)
    return tokens, torch.stack(chosen, 1)


CASES = [
    (name, model_class, processing)
    for name in ("gpt_neox", "gpt2", "qwen3")
    for model_class in CLASSES
    for processing in ("none", "compatibility")
]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("name", "model_class", "processing"), CASES)
def test_equals_uncached_decoding(name, model_class, processing, padded):
    model, tokens = shared(name, model_class, processing), random_tokens(N, P)
    mask = padding() if padded else None
    expected, log_probs = uncached(model, tokens, NEW, mask=mask)
    out = generate_tokens(model, tokens, max_new_tokens=NEW, attention_mask=mask)
    assert out.is_cached, out.reason
    assert torch.equal(out.tokens, expected)
    torch.testing.assert_close(out.log_probs, log_probs, atol=2e-5, rtol=1e-5)
    assert out.changed_positions == ()


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("name", "model_class", "processing"), CASES)
def test_edits_with_and_without_cache(name, model_class, processing, padded):
    model, tokens = shared(name, model_class, processing), random_tokens(N, P)
    mask = padding() if padded else None
    plain = generate_tokens(model, tokens, max_new_tokens=4, attention_mask=mask)
    differ = 0
    for label, edits in edits_of(model, tokens, mask).items():
        options: dict[str, Any] = {
            "interventions": edits,
            "max_new_tokens": 4,
            "attention_mask": mask,
        }
        fast = generate_tokens(model, tokens, **options)
        slow = generate_tokens(model, tokens, **options, cached=False)
        assert fast.is_cached
        assert slow.reason == "cached=False"
        assert torch.equal(fast.tokens, slow.tokens), label
        torch.testing.assert_close(fast.log_probs, slow.log_probs, atol=3e-5, rtol=1e-5)
        differ += not torch.allclose(fast.log_probs, plain.log_probs, atol=1e-3)
        some = "columns" in label or edits[0].where is not None
        assert fast.changed_positions == ((4, 5) if some else tuple(range(P)),)
    assert differ >= 7  # the comparison can fail: edits matter


@pytest.mark.parametrize("model_class", CLASSES)
def test_prompt_edits_by_plain_hooks(model_class):
    """The oracle: a hook that writes the prompt's absolute columns, the text run anew each time."""
    model, tokens = shared("gpt_neox", model_class), random_tokens(N, P)
    z = capture(model, tokens.roll(1, 0), [(1, "z")])[1, "z"] * 4

    def write(activation, hook=None):
        activation = activation.clone()
        activation[:, :P, 1] = z[:, :, 1]
        return activation

    expected, log_probs = uncached(model, tokens, NEW, hooks=[("blocks.1.attn.hook_z", write)])
    edit = Edit(1, "z", z, heads=(1,))
    out = generate_tokens(model, tokens, interventions=[edit], max_new_tokens=NEW)
    assert torch.equal(out.tokens, expected)
    torch.testing.assert_close(out.log_probs, log_probs, atol=2e-5, rtol=1e-5)
    end = LogitRead(positions=torch.full((N, 1), P - 1))
    first = Replay(model, tokens).read([(edit,)], end)[0, :, 0]
    assert torch.equal(first.argmax(-1), out.new_tokens[:, 0])


@pytest.mark.parametrize("name", ["gpt_neox", "qwen3"])
def test_equals_hugging_face(name):
    """Without edits: the tokens of transformers' own greedy generation with its cache."""
    tokens = random_tokens(N, P)
    hf_model = tiny_model(name)
    hf_model.generation_config.eos_token_id = None
    with torch.no_grad():
        expected = hf_model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=NEW,
            do_sample=False,
            use_cache=True,
        )
    assert torch.equal(generate_tokens(shared(name), tokens, max_new_tokens=NEW).tokens, expected)


def naive_hook(z_clean, head):
    """As the study had it: clean values of as many columns as the activation has, from 0 on."""

    def write(activation, hook=None):
        activation = activation.clone()
        n = min(activation.shape[1], z_clean.shape[1])
        activation[:, :n, head] = z_clean[:, :n, head]
        return activation

    return write


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.filterwarnings("ignore")
def test_a_hook_left_on_overwrites_every_generated_token(model_class):
    """Cached decoding shows one column at a time, and the naive hook takes it for column 0."""
    model, tokens = shared("gpt_neox", model_class), random_tokens(N, P)
    z = capture(model, tokens.roll(1, 0), [(0, "z")])[0, "z"] * 4
    seen: list[torch.Tensor] = []

    def watched(activation, hook=None):
        out = naive_hook(z, 1)(activation)
        seen.append(out[:, :, 1])
        return out

    options = {"do_sample": False, "stop_at_eos": False, "verbose": False}
    with torch.no_grad(), model.hooks(fwd_hooks=[("blocks.0.attn.hook_z", watched)]):
        naive = model.generate(
            tokens, max_new_tokens=NEW, use_past_kv_cache=True, return_type="tokens", **options
        )
    single = [one for one in seen if one.shape[1] == 1]
    assert len(single) >= NEW - 1  # decoding was cached
    assert all(torch.equal(one[:, 0], z[:, 0, 1]) for one in single)  # column 0 of the clean run

    edit = Edit(0, "z", z, heads=(1,))
    out = generate_tokens(model, tokens, interventions=[edit], max_new_tokens=NEW)
    right = [("blocks.0.attn.hook_z", naive_hook(z, 1))]  # uncached, columns are what they seem
    expected, _ = uncached(model, tokens, NEW, hooks=right)
    assert torch.equal(out.tokens, expected)
    assert out.changed_positions == (tuple(range(P)),)
    assert not torch.equal(naive, expected)
    # What the naive hook did on purpose: every generated column replaced by column 0.
    on_purpose = generate_tokens(
        model,
        tokens,
        interventions=[edit],
        generated=[Edit(0, "z", z[:, :1], heads=(1,))],
        max_new_tokens=NEW,
    )
    assert torch.equal(on_purpose.tokens, naive)
    assert on_purpose.changed_positions == (tuple(range(P + NEW - 1)),)


@pytest.mark.parametrize("name", ["gpt_neox", "qwen3"])
def test_edits_of_generated_columns(name):
    model, tokens = shared(name), random_tokens(N, P)
    silent = Edit(0, "z", torch.zeros(()), heads=(1,))

    def later(i):
        if i < 2:
            return ()
        weights = torch.ones(1, 1, 1, P + i + 1) / (P + i + 1)
        return (silent, Edit(1, "pattern", weights, heads=(0,)))

    for generated in (later, [silent]):
        found = [
            generate_tokens(model, tokens, generated=generated, max_new_tokens=6, cached=cached)
            for cached in (True, False)
        ]
        assert torch.equal(found[0].tokens, found[1].tokens)
        torch.testing.assert_close(found[0].log_probs, found[1].log_probs, atol=3e-5, rtol=1e-5)
    by_step = generate_tokens(model, tokens, generated=later, max_new_tokens=6)
    assert by_step.edits == ("L0 z heads 1", "L1 pattern heads 0")
    assert by_step.changed_positions == ((9, 10, 11), (9, 10, 11))
    plain = generate_tokens(model, tokens, max_new_tokens=6)
    torch.testing.assert_close(by_step.log_probs[:, :3], plain.log_probs[:, :3])
    assert not torch.allclose(by_step.log_probs[:, 3:], plain.log_probs[:, 3:], atol=1e-3)
    assert "replaced in columns 9-11" in by_step.summary()


def test_sampling_reproduces_and_leaves_the_global_generator_alone():
    model, tokens = shared(), random_tokens(N, P)
    state = torch.random.get_rng_state()
    runs = [
        generate_tokens(model, tokens, temperature=1.5, seed=seed, max_new_tokens=10, cached=cached)
        for seed, cached in [(1, True), (1, False), (2, True)]
    ]
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(runs[0].tokens, runs[1].tokens)
    assert not torch.equal(runs[0].tokens, runs[2].tokens)
    assert torch.is_grad_enabled()


def test_samples_follow_the_distribution():
    model, tokens = shared(), random_tokens(1, P).expand(4000, P)
    out = generate_tokens(model, tokens, temperature=1, max_new_tokens=1)
    with torch.no_grad():
        expected = run_logits(model, tokens[:1])[0, -1].softmax(-1)
    shares = torch.bincount(out.new_tokens[:, 0], minlength=len(expected)) / len(tokens)
    error = 4 * (expected * (1 - expected) / len(tokens)).sqrt() + 1 / len(tokens)
    assert ((shares - expected).abs() < error).all()
    assert torch.allclose(out.log_probs[:, 0].exp(), expected[out.new_tokens[:, 0]], atol=1e-5)


def test_stop_tokens_end_rows():
    model, tokens = shared(), random_tokens(N, P)
    plain = generate_tokens(model, tokens, max_new_tokens=NEW)
    stop = int(plain.new_tokens[0, 2])
    out = generate_tokens(model, tokens, max_new_tokens=NEW, stop=[stop])
    for row in range(N):
        new = plain.new_tokens[row].tolist()
        length = new.index(stop) + 1 if stop in new else NEW
        assert int(out.lengths[row]) == length
        assert out.new_tokens[row, :length].tolist() == new[:length]
        assert (out.new_tokens[row, length:] == stop).all()
    assert len(out.to_frame()) == int(out.lengths.sum())
    assert out.texts is not None
    assert out.texts[0].split() == [f"w{t}" for t in out.new_tokens[0, : out.lengths[0]].tolist()]


@pytest.mark.parametrize(("name", "reason"), [("olmo2", "olmo2"), ("mistral", "sliding window")])
def test_models_without_a_fast_path_give_the_right_tokens(name, reason):
    model, tokens = shared(name), random_tokens(2, P)
    out = generate_tokens(model, tokens, max_new_tokens=4)
    assert not out.is_cached
    assert reason in out.reason
    assert torch.equal(out.tokens, uncached(model, tokens, 4)[0])


def test_hooks_of_the_caller_are_honoured():
    model, tokens = shared(), random_tokens(N, P)
    plain = generate_tokens(model, tokens, max_new_tokens=4)

    def halve(activation, hook=None):
        return activation * 0.2

    with model.hooks(fwd_hooks=[("blocks.0.attn.hook_z", halve)]):
        out = generate_tokens(model, tokens, max_new_tokens=4)
        assert "hooks of the caller" in out.reason
    expected, _ = uncached(model, tokens, 4, hooks=[("blocks.0.attn.hook_z", halve)])
    assert torch.equal(out.tokens, expected)
    assert not torch.allclose(out.log_probs, plain.log_probs, atol=1e-4)


def test_on_the_suite():
    model = hs.open_suite("micro").model(6144)
    tokens = model.to_tokens("Which number is bigger: 9.8 or 9.11?", prepend_bos=False)
    out = generate_tokens(model, tokens, max_new_tokens=3)
    assert (out.model, out.step) == ("micro", 6144)
    assert out.texts is not None
    frame = out.to_frame()
    assert list(frame.columns[:11]) == list(hs.results.TIDY_COLUMNS)
    assert frame["position"].tolist() == [out.n_prompt + i for i in range(3)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 60}, "context of 64"),
        ({"max_new_tokens": 0}, "1 or more"),
        ({"temperature": -1.0}, "temperature"),
        ({"interventions": [Edit(7, "z", torch.zeros(()))]}, "layers 0 to 1"),
        ({"interventions": [Edit(0, "z", torch.zeros(2, 5))]}, "expected"),
    ],
)
def test_what_does_not_fit_is_explained(options, message):
    with pytest.raises(ValueError, match=message):
        generate_tokens(shared(), random_tokens(N, P), **options)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("by_function", [False, True])
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Edit(9, "z", torch.zeros(())), "layers 0 to 1"),
        (Edit(0, "z", torch.zeros(()), heads=(40,)), "heads 0 to 3"),
        (Edit(0, "z", torch.zeros(1, P, 4, 16)), "that expand to"),
        (Edit(0, "z", torch.zeros(()), where=torch.ones(N, P).bool()), "`where`"),
        (Edit(0, "pattern", torch.zeros(1, 1, 1, 3)), "over 8 keys"),
        (Edit(0, "pattern", torch.zeros(1, 4, 2, 8)), "that expand to"),
    ],
)
def test_edits_of_generated_columns_are_checked(edit, message, by_function, cached):
    """Under a cache an edit of a layer that is not there did nothing, and was reported as done."""
    generated = (lambda i: [edit]) if by_function else [edit]
    with pytest.raises(ValueError, match=message):
        generate_tokens(
            shared(), random_tokens(N, P), generated=generated, max_new_tokens=3, cached=cached
        )


def test_a_pattern_of_fixed_length_fits_one_column_only():
    pattern = Edit(0, "pattern", torch.full((1, 1, 1, P + 1), 1 / (P + 1)))
    options: dict[str, Any] = {"generated": [pattern]}
    out = generate_tokens(shared(), random_tokens(N, P), max_new_tokens=2, **options)
    assert out.changed_positions == ((P,),)  # the last token is never run
    with pytest.raises(ValueError, match="over 9 keys"):
        generate_tokens(shared(), random_tokens(N, P), max_new_tokens=3, **options)
