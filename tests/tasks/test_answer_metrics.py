"""Metrics of answers: by hand, against the suite's own scores, and against unpadded rows."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import pytest
import torch
from zoo import CONTEXT, VOCAB, random_tokens, tiny_model, tiny_tokenizer

from headspec.checkpoints.micro import micro_model, micro_tokenizer
from headspec.checkpoints.micro_capabilities import answer_scores
from headspec.checkpoints.micro_tasks import Example
from headspec.checkpoints.suite import open_suite
from headspec.errors import InputError
from headspec.interventions.replay import Replay
from headspec.lens.logits import Metric
from headspec.lens.models import wrap_model
from headspec.tasks.families import build_task
from headspec.tasks.pairs import PairIds, PromptPair
from headspec.tasks.prompts import Task

OLDEST = version("transformer-lens").startswith("3.")
CLASSES = ("bridge", "hooked_transformer") if OLDEST else ("bridge",)
KINDS = ("log_prob_difference", "accuracy", "preference", "loss")


def by_ids(*rows):
    pairs = [PromptPair(ids=PairIds(*map(tuple, row))) for row in rows]
    return Task.from_pairs(pairs).tokenise(tiny_tokenizer(), prepend_bos=False)


def value(task, kind, logits):
    metric = task.metric(kind)
    return metric(metric.read(task.clean).take(logits))


def log_softmax_logits(shape, chosen):
    """Logits that give stated probabilities to chosen tokens: {(row, pos): {token: p}}."""
    logits = torch.full((*shape, 12), -50.0)
    for (row, pos), probabilities in chosen.items():
        for token, p in probabilities.items():
            logits[row, pos, token] = float(np.log(p)) + 3.0  # a constant that cancels
    return logits


def test_one_token_answers_by_hand():
    task = by_ids(((2, 3), (4, 3), (5,), (6,)), ((3, 2), (4, 2), (6,), (5,)))
    logits = log_softmax_logits(
        (2, 2), {(0, 1): {5: 0.5, 6: 0.25, 7: 0.25}, (1, 1): {6: 0.3, 5: 0.3, 7: 0.4}}
    )
    assert task.rows_per_example == 1
    expected = {
        "log_prob_difference": [np.log(2), 0.0],
        "logit_difference": [np.log(2), 0.0],
        "preference": [1.0, 0.5],  # a tie is half
        "accuracy": [1.0, 0.0],
        "loss": [-np.log(0.5), -np.log(0.3)],
    }
    for kind, numbers in expected.items():
        torch.testing.assert_close(value(task, kind, logits), torch.tensor(numbers).float())
        assert isinstance(task.metric(kind), Metric)
        assert task.metric(kind).name == kind


def test_longer_answers_by_hand():
    """Answers 8 5 7 and 8 6 share 8; the difference is of 5 7 against 6, accuracy of all three."""
    task = by_ids(((2, 3), (4, 3), (8, 5, 7), (8, 6)))
    assert task.clean.tolist() == [[2, 3, 8, 5], [2, 3, 8, 0]]
    assert task.end == 2
    right = {(0, 1): {8: 0.6, 9: 0.4}, (0, 2): {5: 0.5, 6: 0.2, 9: 0.3}, (0, 3): {7: 0.9, 9: 0.1}}
    logits = log_softmax_logits((2, 4), {**right, (1, 1): {8: 1.0}, (1, 2): {6: 0.2, 5: 0.8}})
    found = {kind: value(task, kind, logits).item() for kind in KINDS}
    assert found["log_prob_difference"] == pytest.approx(np.log(0.5 * 0.9 / 0.2), rel=1e-5)
    assert found["loss"] == pytest.approx(-np.log(0.6 * 0.5 * 0.9), rel=1e-5)
    assert (found["accuracy"], found["preference"]) == (1.0, 1.0)
    # each of the three tokens is judged: also the one that both answers share
    for place, probabilities in (((0, 1), {9: 0.6, 8: 0.4}), ((0, 3), {9: 0.6, 7: 0.4})):
        spoilt = log_softmax_logits((2, 4), {**right, place: probabilities})
        assert value(task, "accuracy", spoilt).item() == 0.0
    with pytest.raises(InputError, match="answers='first_token'"):
        task.metric("logit_difference")
    # the naive score, the first differing token alone, says something else
    first = torch.log(torch.tensor(0.5 / 0.2)).item()
    assert abs(first - found["log_prob_difference"]) > 0.05


def test_metrics_read_no_more_than_they_need():
    single = by_ids(((2, 3), (4, 3), (5,), (6,)))
    for kind in ("log_prob_difference", "logit_difference", "preference"):
        read = single.metric(kind).read(single.clean)
        assert (read.positions.shape, read.columns.shape) == ((1, 1), (1, 1, 2))
        assert not read.log_probs  # a difference of logits needs no normaliser
    read = by_ids(((2, 3), (4, 3), (8, 5, 7), (8, 6))).metric().read(torch.zeros(2, 4).long())
    assert (read.positions.shape, read.columns.shape, read.log_probs) == ((2, 2), (2, 2, 1), True)
    with pytest.raises(InputError, match="the 1 rows that accuracy was made for"):
        single.metric("accuracy").read(torch.zeros(2, 2).long())


@pytest.mark.models
@pytest.mark.parametrize("family", ["decimal_comparison", "version_comparison", "arithmetic"])
def test_scores_agree_with_those_of_the_embedded_suite(family):
    """An independent path: a plain Hugging Face model, padded on the right, another scorer."""
    task = build_task(family, n=60, wording="micro", seed=3)
    step = 1536 if family == "arithmetic" else 1024  # neither all right nor all wrong
    examples = [Example(p.clean, p.correct, p.wrong) for p in task.pairs]
    scores = answer_scores(micro_model("micro", step), micro_tokenizer(), examples)
    wrong = [Example(p.clean, p.wrong) for p in task.pairs]
    of_wrong = answer_scores(micro_model("micro", step), micro_tokenizer(), wrong)
    model = open_suite("micro").model(step)
    whole = task.tokenise(model.tokenizer)
    first = task.tokenise(model.tokenizer, answers="first_token")
    run = Replay(model, whole.clean, attention_mask=whole.attention_mask)
    found = {kind: run.base(whole.metric(kind)).numpy() for kind in KINDS}
    difference = scores["log_prob"] - of_wrong["log_prob"]
    np.testing.assert_allclose(found["loss"], -scores["log_prob"], atol=2e-4)
    np.testing.assert_allclose(found["log_prob_difference"], difference, atol=2e-4)
    np.testing.assert_array_equal(found["accuracy"], scores["correct"])
    np.testing.assert_array_equal(found["preference"], difference > 0)
    assert 0 < found["accuracy"].mean() < 1
    run = Replay(model, first.clean, attention_mask=first.attention_mask)
    np.testing.assert_allclose(
        run.base(first.metric("logit_difference")), scores["log_prob_difference"], atol=2e-4
    )


def unequal_rows(seed: int = 0) -> list[PromptPair]:
    """Prompts of 3 to 9 tokens with answers of 1 to 3."""
    tokens = random_tokens(6, 9, seed=seed).tolist()
    answers = random_tokens(6, 6, seed=seed + 1).tolist()
    pairs = []
    for i, (row, answer) in enumerate(zip(tokens, answers, strict=True)):
        clean = tuple(row[: 3 + i])
        correct, wrong = (5, *answer[: i % 3]), (6, *answer[3 : 3 + i % 2])
        ids = PairIds(clean, (2 + (clean[0] - 1) % (VOCAB - 2), *clean[1:]), correct, wrong)
        pairs.append(PromptPair(ids=ids))
    return pairs


@pytest.mark.models
@pytest.mark.parametrize("name", ["gpt_neox", "gpt2"])
@pytest.mark.parametrize("model_class", CLASSES)
def test_padding_on_the_left_changes_no_score(name, model_class):
    model = wrap_model(tiny_model(name), tiny_tokenizer(), model_class=model_class)
    pairs = unequal_rows()
    together = Task.from_pairs(pairs).tokenise(model.tokenizer)
    assert together.attention_mask is not None
    for side in ("clean", "corrupt"):
        ids = getattr(together, side)
        run = Replay(model, ids, attention_mask=together.attention_mask)
        for kind in KINDS:
            found = run.base(together.metric(kind))
            alone = []
            for pair in pairs:
                one = Task.from_pairs([pair]).tokenise(model.tokenizer)
                assert one.attention_mask is None
                alone.append(Replay(model, getattr(one, side)).base(one.metric(kind)))
            torch.testing.assert_close(found, torch.cat(alone), atol=2e-5, rtol=1e-4)
    # negative control: without the mask the padding is read as text
    unmasked = Replay(model, together.clean).base(together.metric())
    masked = Replay(model, together.clean, attention_mask=together.attention_mask)
    assert (unmasked - masked.base(together.metric())).abs().max() > 0.05


@pytest.mark.models
def test_the_logit_difference_is_the_difference_of_log_probabilities():
    model = wrap_model(tiny_model("gpt_neox"), tiny_tokenizer())
    task = Task.from_pairs(unequal_rows()).tokenise(model.tokenizer, answers="first_token")
    run = Replay(model, task.clean, attention_mask=task.attention_mask)
    logit = run.base(task.metric("logit_difference"))
    torch.testing.assert_close(logit, run.base(task.metric()), atol=1e-6, rtol=1e-6)
    log_probs = model(task.clean, attention_mask=task.attention_mask).log_softmax(-1)[:, task.end]
    rows = torch.arange(len(log_probs))
    correct = torch.tensor([c[n] for c, n in zip(task.correct, task.n_common, strict=True)])
    wrong = torch.tensor([w[n] for w, n in zip(task.wrong, task.n_common, strict=True)])
    expected = log_probs[rows, correct] - log_probs[rows, wrong]
    torch.testing.assert_close(logit, expected.detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.models
def test_accuracy_is_what_greedy_decoding_gives():
    step, task = 1536, build_task("arithmetic", n=25, wording="micro", seed=1)
    model, tokenizer = micro_model("micro", step), micro_tokenizer()
    produced = []
    for pair in task.pairs:
        ids = [0, *tokenizer(pair.clean).input_ids]
        n_prompt, answer = len(ids), tokenizer(pair.correct).input_ids
        with torch.no_grad():
            for _ in answer:
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        produced.append(ids[n_prompt:] == answer)
    hooked = open_suite("micro").model(step)
    tokenised = task.tokenise(hooked.tokenizer)
    run = Replay(hooked, tokenised.clean, attention_mask=tokenised.attention_mask)
    assert run.base(tokenised.metric("accuracy")).bool().tolist() == produced
    assert 0 < sum(produced) < len(produced)
    assert tokenised.clean.shape[1] < CONTEXT * 2
