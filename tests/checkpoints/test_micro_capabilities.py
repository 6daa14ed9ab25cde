"""Capability measurements on models whose behaviour is known exactly."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from headspec.checkpoints import micro_capabilities as mc
from headspec.checkpoints import micro_tasks as mt

ALPHABET = ["<bos>", "\n", *map(chr, range(32, 127))]


class Letters:
    """A tokenizer of single characters."""

    bos_token_id = 0

    def __call__(self, text):
        return SimpleNamespace(input_ids=[ALPHABET.index(c) for c in text])


@dataclass
class Scripted:
    """A model that puts `margin` nats more on the next character of what `answer(prompt)` says."""

    answer: object
    margin: float = 5.0
    device: str = "cpu"

    def __call__(self, tokens, *, use_cache):
        logits = torch.zeros(*tokens.shape, len(ALPHABET))
        for row, ids in enumerate(tokens.tolist()):
            text = "".join(ALPHABET[i] for i in ids[1:])
            for stop in ("Answer: ", "="):
                if stop in text:
                    at = text.index(stop) + len(stop)
                    for i, c in enumerate(self.answer(text[:at])):
                        if at + i < len(ids):
                            logits[row, at + i, ALPHABET.index(c)] = self.margin
        return SimpleNamespace(logits=logits)


def _operands(prompt):
    return prompt.split(": ")[1].removesuffix("? Answer").split(" or ")


def always_decimal(prompt):
    return mt.compare("decimal", *_operands(prompt)) + "\n"


def test_a_model_that_always_reads_decimals_is_right_on_decimals_and_wrong_on_versions():
    for kind, right in (("decimal", 1.0), ("version", 0.0)):
        examples = mt.sample_comparisons(kind, 40, split="held_out", seed=0)
        scores = mc.answer_scores(Scripted(always_decimal), Letters(), examples, batch_size=16)
        assert scores["correct"].mean() == right
        sign = 1 if right else -1
        np.testing.assert_allclose(scores["log_prob_difference"], sign * 5.0, atol=1e-5)


def test_log_prob_of_the_whole_answer_is_counted_by_hand():
    per_character = 5.0 - np.log(np.exp(5.0) + len(ALPHABET) - 1)
    scores = mc.answer_scores(Scripted(lambda _: "82\n"), Letters(), [mt.addition(37, 45)])
    assert scores["log_prob"][0] == pytest.approx(3 * per_character, abs=1e-5)
    assert np.isnan(scores["log_prob_difference"][0])


def test_an_answer_that_does_not_end_is_not_counted_as_right():
    examples = [mt.comparison("decimal", "9.1", "9.01")]
    assert examples[0].answer == "9.1\n"
    longer = mc.answer_scores(Scripted(lambda _: "9.11\n"), Letters(), examples)
    assert not longer["correct"].any()
    naive = [examples[0].answer.strip() == "9.11"[:3]]
    assert all(naive)  # comparing prefixes would have counted it


def small_model(**options):
    config = GPTNeoXConfig(
        vocab_size=50,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
        **options,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GPTNeoXForCausalLM(config).eval()


def test_token_losses_agree_with_the_models_own_loss():
    model = small_model()
    tokens = np.random.default_rng(0).integers(0, 50, size=(5, 20))
    losses = mc.token_losses(model, tokens, batch_size=2)
    assert losses.shape == (5, 19)
    ids = torch.as_tensor(tokens)
    assert losses.mean() == pytest.approx(float(model(ids, labels=ids).loss.detach()), abs=1e-5)


def test_halves_of_a_repeated_sequence_are_told_apart():
    class Copies:
        device = "cpu"

        def __call__(self, tokens, *, use_cache):
            logits = torch.zeros(*tokens.shape, 64)
            ahead = torch.roll(tokens, mc.REPEAT_PERIOD - 1, dims=1)
            logits.scatter_(2, ahead[..., None], 20.0)
            logits[:, : mc.REPEAT_PERIOD] = 0
            return SimpleNamespace(logits=logits)

    first, second = mc.repeat_losses(Copies(), np.arange(1, 64), n=4, bos=0)
    np.testing.assert_allclose(first, np.log(64), rtol=1e-5)
    np.testing.assert_allclose(second, 0.0, atol=1e-4)


def test_attention_scores_of_hand_made_patterns():
    period, size = 5, 11
    before, after = torch.zeros(size, size), torch.zeros(size, size)
    for q in range(1, size):
        before[q, q - 1] = 1.0
        after[q, max(q - period + 1, 0)] = 1.0
    uniform = torch.ones(size, size).tril() / torch.arange(1, size + 1)[:, None]
    patterns = torch.stack([before, after, uniform])[None]

    def model(tokens, *, use_cache, output_attentions):
        return SimpleNamespace(attentions=(patterns,))

    frame = mc.head_attention_scores(model, np.zeros((1, size), dtype=int), period=period)
    assert frame["previous_token"][0] == 1.0
    assert frame["induction"].tolist()[:2] == [0.0, 1.0]
    assert frame["induction"][2] == pytest.approx(frame["uniform"][2])


def test_measuring_is_seeded_tidy_and_leaves_the_model_alone():
    def answer(prompt):
        if prompt.endswith("="):
            a, b = prompt.rstrip("=").split("+")
            return f"{int(a) + int(b)}\n"
        kind = "version" if "version" in prompt else "decimal"
        return mt.compare(kind, *_operands(prompt)) + "\n"

    letters = np.array([i for i, c in enumerate(ALPHABET) if c.isalpha() and len(c) == 1])
    arguments = {"symbols": letters, "held_out": np.ones((3, 10), dtype=int), "n": 20}
    frames = [
        mc.measure_capabilities(Scripted(answer), Letters(), name="m", step=3, seed=s, **arguments)
        for s in (0, 0)
    ]
    assert frames[0].equals(frames[1])
    values = frames[0].set_index("metric")["value"]
    for kind in ("decimal", "version", "addition"):
        assert values[f"{kind}_accuracy"] == 1.0
    assert values["prose_loss"] == pytest.approx(np.log(len(ALPHABET)), abs=1e-5)
    assert (frames[0]["step"] == 3).all()
