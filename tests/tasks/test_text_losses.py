"""Perplexity: against Hugging Face token by token, windows, errors over documents."""

import doctest
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_models import CLASSES, hooked, ids_of, reference_log_probs, sentence
from zoo import CAUSAL, CONTEXT, VOCAB, tiny_model, tiny_tokenizer

import headspec as hs
from headspec import results
from headspec.checkpoints import micro
from headspec.errors import InputError
from headspec.lens.models import wrap_model
from headspec.tasks import text_losses
from headspec.tasks.scored_tokens import start_token, token_log_probs
from headspec.tasks.text_losses import TextLosses, _windows, perplexity

pytestmark = pytest.mark.models


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("name", ["gpt_neox", "gpt2", "qwen3"])
def test_log_probs_are_those_of_hugging_face_row_by_row(name, kind):
    """Rows of unequal length together, in small batches, with padding on the right."""
    model, rng = hooked(name, kind), np.random.default_rng(0)
    rows = [[0, *rng.integers(2, VOCAB, size=n).tolist()] for n in (3, 20, 1, 20, 7)]
    for budget in (8 * VOCAB * 45, 2**28, 1):
        found = token_log_probs(model, rows, memory_budget=budget)
        for row, values in zip(rows, found, strict=True):
            assert values == pytest.approx(reference_log_probs(name, row), abs=2e-5)


@pytest.mark.parametrize("name", CAUSAL)
def test_every_architecture_of_the_zoo(name):
    model, text = hooked(name, "bridge"), sentence(np.random.default_rng(1), 9)
    found = perplexity(model, [text, text + " w5"])
    expected = -reference_log_probs(name, ids_of(text)).sum()
    assert found.nats[0] == pytest.approx(expected, abs=1e-4)


def test_by_token_byte_and_character():
    model = hooked("gpt_neox", "bridge", name="toy", step=7)
    texts = ["w3 w4 w5 w6", "w7 w8"]
    found = perplexity(model, texts, name="toy_text")
    assert found.n_tokens.tolist() == [4, 2]
    assert found.n_bytes.tolist() == [11, 5]
    total = -sum(reference_log_probs("gpt_neox", ids_of(text)).sum() for text in texts)
    assert found.nats_per_token == pytest.approx(total / 6, abs=1e-5)
    assert found.nats_per_byte == pytest.approx(total / 16, abs=1e-5)
    assert found.perplexity == pytest.approx(math.exp(total / 6), rel=1e-5)
    frame = found.to_frame().set_index("measure")
    assert list(frame.index) == ["nats_per_token", "nats_per_byte", "nats_per_char", "perplexity"]
    assert frame["metric"].iloc[0] == "toy_text.nats_per_token"
    assert frame.loc["nats_per_token", "chance"] == pytest.approx(math.log(VOCAB))
    assert frame.loc["perplexity", "chance"] == VOCAB
    assert (frame["model"].iloc[0], frame["step"].iloc[0], frame["n"].iloc[0]) == ("toy", 7, 2)
    assert "2 documents, 6 tokens" in found.summary()


def test_bytes_are_not_characters():
    found = TextLosses("t", *(np.array([x]) for x in (6.0, 3, 4, 2)), 9, 8, 4, "", None, "none")
    assert (found.nats_per_token, found.nats_per_byte) == (2, 1.5)
    assert found.mean_and_error(found.n_chars)[0] == 3


@given(
    st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(2, 20))),
    st.integers(1, 19),
)
@settings(max_examples=80, deadline=None)
def test_windows_score_every_token_once_with_enough_context(sizes, stride):
    length, window = sizes[0] + 1, sizes[1]
    stride = min(stride, window - 1)
    scored = []
    for start, first in _windows(length, window, stride):
        targets = list(range(start + 1 + first, min(start + window, length)))
        assert all(t - start >= min(window - stride, t) for t in targets)
        scored += targets
    assert scored == list(range(1, length))


def test_long_texts_are_windowed_as_by_hand():
    model, rng = hooked("gpt_neox", "bridge"), np.random.default_rng(2)
    text = sentence(rng, 24)
    ids = ids_of(text)
    found = perplexity(model, text, window=10, stride=4)
    expected = 0.0
    for target in range(1, len(ids)):
        start = 0 if target < 10 else 4 * math.ceil((target - 9) / 4)
        expected -= reference_log_probs("gpt_neox", ids[start : target + 1])[-1]
    assert found.nats[0] == pytest.approx(expected, abs=1e-4)
    assert found.n_tokens.tolist() == [24]
    whole = perplexity(model, text)
    assert whole.window == CONTEXT
    assert whole.nats[0] == pytest.approx(-reference_log_probs("gpt_neox", ids).sum(), abs=1e-4)
    # negative control: cutting without overlap gives another number
    naive = sum(
        -reference_log_probs("gpt_neox", [0, *ids[1:][i : i + 9]]).sum() for i in range(0, 24, 9)
    )
    assert abs(naive - expected) > 0.01


def test_standard_error_over_documents():
    """Equal lengths: the usual error of the mean. Unequal: right on average over draws."""
    rng = np.random.default_rng(3)

    def losses(nats, units):
        return TextLosses("t", nats, units, units, units, 9, 8, 4, "", None, "none")

    nats, units = rng.normal(30, 4, size=50), np.full(50, 10)
    value, se = losses(nats, units).mean_and_error(units)
    assert value == pytest.approx(nats.mean() / 10)
    assert se == pytest.approx(nats.std(ddof=1) / np.sqrt(50) / 10)
    found = []
    for _ in range(400):
        units = rng.integers(5, 50, size=60)
        nats = units * rng.normal(3, 0.5, size=60)
        found.append(losses(nats, units).mean_and_error(units))
    values, errors = np.array(found).T
    assert errors.mean() == pytest.approx(values.std(), rel=0.1)


def test_rows_of_token_ids_as_the_embedded_suite_measures_prose():
    """The same number as the shipped capability table: mean over rows of 128 tokens."""
    model = hs.open_suite("micro").model(1024)
    found = perplexity(model, micro.held_out_tokens()[:128], name="prose")
    table = hs.capability_curve("micro").query("metric == 'prose_loss' and step == 1024")
    assert found.nats_per_token == pytest.approx(table["value"].iloc[0], abs=5e-5)
    frame = found.to_frame()
    assert frame["se"].iloc[0] == pytest.approx(table["se"].iloc[0], rel=1e-3)
    assert set(frame["measure"]) == {"nats_per_token", "perplexity"}


@pytest.mark.parametrize("kind", CLASSES)
def test_bfloat16_models_are_scored_in_float32(kind):
    text = sentence(np.random.default_rng(4), 12)
    exact = perplexity(hooked("gpt_neox", kind), text).nats_per_token
    rough = perplexity(hooked("gpt_neox", kind, dtype=torch.bfloat16), text).nats_per_token
    assert rough == pytest.approx(exact, rel=0.03)
    assert rough != exact


def test_the_callers_model_stays_as_it_was():
    model = hooked("gpt_neox", "bridge")
    model.train()
    state = torch.random.get_rng_state()
    perplexity(model, "w3 w4")
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.is_grad_enabled()


def test_errors(tmp_path):
    model = hooked("gpt_neox", "bridge")
    with pytest.raises(InputError, match="stride < window"):
        perplexity(model, "w3", window=CONTEXT + 1)
    with pytest.raises(InputError, match="text 1: ''"):
        perplexity(model, ["w3", ""])
    for last in (VOCAB, -1):
        with pytest.raises(InputError, match=f"below {VOCAB}"):
            perplexity(model, np.array([[1, last]]))
    with pytest.raises(InputError, match="rows of 2 to 64"):
        token_log_probs(model, [[1]])
    with pytest.raises(InputError, match="no row"):
        token_log_probs(model, [])
    with pytest.raises(InputError, match="Give rows of token ids"):
        start_token(None)
    assert start_token(tiny_tokenizer()) == 0
    bert = wrap_model(tiny_model("bert"), tiny_tokenizer())
    with pytest.raises(InputError, match="causal"):
        perplexity(bert, "w3 w4")


def test_saved_and_loaded(tmp_path):
    found = perplexity(hooked("gpt_neox", "bridge"), ["w3 w4", "w5"])
    results.save(found, tmp_path / "a.json")
    again = results.load(tmp_path / "a.json")
    assert again.to_frame().equals(found.to_frame())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_same_on_a_gpu():
    text = sentence(np.random.default_rng(5), 20)
    here = perplexity(hooked("gpt_neox", "bridge"), text)
    there = perplexity(hooked("gpt_neox", "bridge", device="cuda"), text)
    assert there.nats == pytest.approx(here.nats, rel=1e-4)


def test_docstrings():
    assert doctest.testmod(text_losses, extraglobs={"hs": hs}).failed == 0
