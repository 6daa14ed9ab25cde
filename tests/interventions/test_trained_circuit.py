"""The numbers of docs/interventions.md: a circuit of two heads in the trained embedded model."""

import numpy as np
import pytest

import headspec as hs
from headspec.heads import Head

pytestmark = pytest.mark.models

ASKS, ANSWERS = Head(1, 4), Head(3, 3)


@pytest.fixture(scope="module")
def model():
    return hs.open_suite("micro").model(6144)


@pytest.fixture(scope="module")
def task(model):
    return hs.build_task("decimal_comparison", n=40, wording="micro").tokenise(model.tokenizer)


def given(task):
    return {"attention_mask": task.attention_mask}


def test_two_heads_carry_the_question(model, task):
    pair = (model, task.clean, task.corrupt, task.metric())
    alone = hs.patch_heads(*pair, **given(task)).normalized
    assert alone[1, 4] > 0.9
    assert alone[3, 3] > 0.75
    others = np.delete(alone.ravel(), [12 + 4, 36 + 3])
    assert np.abs(others).max() < 0.1
    both = hs.patch_heads(*pair, heads=[[ASKS, ANSWERS]], **given(task))
    assert both.normalized[0] == pytest.approx(1, abs=0.05)
    assert both.ci_low[0] > 10
    assert both.n == task.n_examples == 40


def test_one_asks_through_the_query_of_the_other(model, task):
    found = hs.patch_paths(
        model,
        task.clean,
        task.corrupt,
        task.metric(),
        senders=[ASKS],
        receivers=["L3H3.q", "L3H3.k", "L3H3.v", "logits"],
        freeze_mlps=False,
        **given(task),
    ).normalized[0]
    assert found[0] > 0.7
    assert np.abs(found[1:3]).max() < 0.02
    assert found[3] < 0.2


def test_ablations_answer_another_question(model, task):
    """L0H1 is needed for both questions alike; donors of one task all ask the same one."""
    arguments = {"heads": [Head(0, 1), ASKS], **given(task)}
    for mode in ("zero", "mean"):
        counted = task.is_token if mode == "mean" else None
        found = hs.ablate_heads(
            model, task.clean, task.metric(), mode=mode, counted=counted, **arguments
        ).effect
        assert found[0, 1] < -8
        assert found[1, 4] < -8
    lent = hs.ablate_heads(model, task.clean, task.metric(), mode="resample", **arguments)
    assert abs(lent.effect[1, 4]) < 2
    patched = hs.patch_heads(model, task.clean, task.corrupt, task.metric(), **arguments)
    assert abs(patched.normalized[0, 1]) < 0.05
