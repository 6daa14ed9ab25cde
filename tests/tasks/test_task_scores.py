"""Task scores: against Hugging Face's log-probabilities and the embedded suite's own table."""

import numpy as np
import pytest
import torch
from scored_models import CLASSES, hooked
from zoo import tiny_model

import headspec as hs
from headspec import results
from headspec.checkpoints import micro
from headspec.checkpoints.micro_capabilities import answer_scores
from headspec.checkpoints.micro_tasks import Example
from headspec.errors import InputError
from headspec.tasks import scored_tokens, task_scores
from headspec.tasks.prompts import Task
from headspec.tasks.task_scores import score_task

pytestmark = pytest.mark.models

ROWS = [
    ("w3 w4 w5", "w3 w4 w6", "w7 w8", "w9 w20"),
    ("w3 w4 w5 w6 w7", "w3 w4 w6 w6 w7", "w7 w8", "w7 w9"),
    ("w30 w31", "w30 w32", "w21", "w22"),
]


@torch.no_grad()
def by_hand(prompt, answer):
    """log p and greedy correctness of an answer, from one unpadded row."""
    p, a = ([int(word[1:]) for word in text.split()] for text in (prompt, answer))
    log_probs = (
        tiny_model("gpt_neox")(torch.tensor([[0, *p, *a]])).logits[0].double().log_softmax(-1)
    )
    at = log_probs[len(p) : len(p) + len(a)]
    chosen = at.gather(-1, torch.tensor(a)[:, None]).sum()
    return float(chosen), bool((at.argmax(-1) == torch.tensor(a)).all())


def spaced(rows):
    """Answers continue the prompt behind a space."""
    return Task.from_pairs([(c, k, f" {x}", f" {y}") for c, k, x, y in rows], name="toy")


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("budget", [1, 2**28])
def test_scores_are_those_of_hugging_face(kind, budget):
    model = hooked("gpt_neox", kind)
    task = Task("toy", spaced(ROWS).pairs, prepend_bos=True)
    found = score_task(model, task, contrast="whole", memory_budget=budget)
    right = [by_hand(clean, correct) for clean, _, correct, _ in ROWS]
    wrong = [by_hand(clean, other) for clean, _, _, other in ROWS]
    expected = np.array([x[0] for x in right])
    other = np.array([x[0] for x in wrong])
    assert found.log_prob == pytest.approx(expected, abs=5e-5)
    assert found.log_prob_difference == pytest.approx(expected - other, abs=1e-4)
    assert found.preference.tolist() == (expected > other).astype(float).tolist()
    assert found.accuracy.tolist() == [float(x[1]) for x in right]
    parting = score_task(model, task, memory_budget=budget)
    assert parting.log_prob == pytest.approx(expected, abs=5e-5)
    first = [
        by_hand(f"{clean}{common}", x)[0] - by_hand(f"{clean}{common}", y)[0]
        for (clean, *_), common, x, y in zip(
            ROWS, ("", " w7", ""), ("w7", "w8", "w21"), ("w9", "w9", "w22"), strict=True
        )
    ]
    assert parting.log_prob_difference == pytest.approx(first, abs=1e-4)


def test_frame_has_thresholded_and_continuous_together():
    found = score_task(hooked("gpt_neox", "bridge", name="toy", step=5), spaced(ROWS))
    frame = found.to_frame().set_index("measure")
    assert frame["metric"].tolist() == [
        f"toy.{m}" for m in ("accuracy", "preference", "log_prob_difference", "log_prob")
    ]
    assert frame["chance"].tolist()[:3] == [0, 0.5, 0]
    assert np.isnan(frame.loc["log_prob", "chance"])
    difference = found.log_prob_difference
    assert frame.loc["log_prob_difference", "value"] == pytest.approx(difference.mean())
    expected = difference.std(ddof=1) / np.sqrt(3)
    assert frame.loc["log_prob_difference", "se"] == pytest.approx(expected)
    assert (frame["model"].iloc[0], frame["step"].iloc[0], frame["n"].iloc[0]) == ("toy", 5, 3)
    assert "over 3 prompts" in found.summary()


@pytest.mark.parametrize("step", [512, 6144])
@pytest.mark.parametrize("family", ["decimal", "version"])
def test_the_embedded_suites_own_scores(family, step):
    """The same answers, judged by another code path on the plain model, prompt by prompt."""
    task = hs.build_task(f"{family}_comparison", n=60, wording="micro", seed=3)
    found = score_task(hs.open_suite("micro").model(step), task)
    examples = [Example(p.clean, p.correct, p.wrong) for p in task.pairs]
    table = answer_scores(micro.micro_model("micro", step), micro.micro_tokenizer(), examples)
    assert found.n == 60
    assert found.accuracy.tolist() == table["correct"].astype(float).tolist()
    assert found.log_prob == pytest.approx(table["log_prob"].to_numpy(), abs=1e-3)
    expected = table["log_prob_difference"].to_numpy()
    assert found.log_prob_difference == pytest.approx(expected, abs=1e-3)
    assert found.preference.tolist() == (expected > 0).astype(float).tolist()


def test_an_untrained_model_does_not_prefer_the_shorter_answer():
    """9.8 against 9.11: summed over whole answers, guessing looks like knowing."""
    task = hs.build_task("decimal_comparison", n=100, wording="micro")
    model = hs.open_suite("micro-small").model(0)
    naive = score_task(model, task, contrast="whole")
    assert naive.preference.mean() == 1  # negative control
    assert naive.log_prob_difference.mean() > 5
    found = score_task(model, task).to_frame().set_index("measure")
    assert abs(found.loc["preference", "value"] - 0.5) < 3.5 * found.loc["preference", "se"]
    assert abs(found.loc["log_prob_difference", "value"]) < 0.3


def test_the_embedded_suites_table():
    """Another draw of held-out questions: the shipped table's numbers within errors."""
    model = hs.open_suite("micro").model(6144)
    curve = hs.capability_curve("micro").query("step == 6144").set_index("metric")
    for family, metric in (("decimal", "decimal_accuracy"), ("version", "version_accuracy")):
        task = hs.build_task(f"{family}_comparison", n=150, wording="micro", seed=0)
        frame = score_task(model, task).to_frame().set_index("measure")
        row = frame.loc["accuracy"]
        error = np.hypot(max(row["se"], 0.01), curve.loc[metric, "se"])
        assert abs(row["value"] - curve.loc[metric, "value"]) < 3.5 * error


def test_differences_of_rounding_are_ties(monkeypatch):
    """The same tokens in another order, to a model that does not look at order."""
    row = torch.randn(128, generator=torch.Generator().manual_seed(0)) * 3
    monkeypatch.setattr(task_scores, "run_logits", lambda _, t, **__: row.expand(*t.shape, -1))
    words = [f"w{i}" for i in range(20, 29)]
    orders = [" ".join(np.random.default_rng(i).permutation(words)) for i in range(40)]
    rows = [("w3", f"w{60 + i}", " ".join(words), order) for i, order in enumerate(orders)]
    task = spaced(rows)
    model = hooked("gpt_neox", "bridge")
    found = score_task(model, task, contrast="whole")
    assert (found.log_prob_difference == 0).all()
    assert (found.preference == 0.5).all()
    monkeypatch.setattr(scored_tokens, "_ROUNDING", 0.0)
    assert (score_task(model, task, contrast="whole").preference != 0.5).any()  # negative control


def test_tokenised_tasks():
    model = hooked("gpt_neox", "bridge")
    whole = score_task(model, spaced(ROWS))
    tokenised = spaced(ROWS).tokenise(model.tokenizer)
    assert score_task(model, tokenised).log_prob == pytest.approx(whole.log_prob)
    first = score_task(model, spaced(ROWS).tokenise(model.tokenizer, answers="first_token"))
    assert first.log_prob[0] > whole.log_prob[0]
    assert first.log_prob_difference == pytest.approx(whole.log_prob_difference, abs=1e-5)


def test_broken_pairs_are_counted():
    model = hooked("gpt_neox", "bridge")
    rows = [*ROWS, ("w3 w4", "w5", "w7", "w8")]
    found = score_task(model, spaced(rows))
    assert (found.n, found.n_left_out) == (3, 1)
    assert "1 pairs left out" in found.summary()
    with pytest.raises(InputError, match="1 broken of 1"):
        score_task(model, spaced(rows[3:]))


def test_saved_and_loaded(tmp_path):
    found = score_task(hooked("gpt_neox", "bridge"), spaced(ROWS))
    results.save(found, tmp_path / "a.json")
    assert results.load(tmp_path / "a.json").to_frame().equals(found.to_frame())
