"""Clusters ablated on tasks: effects by plain hooks, interaction by hand, and a null that holds."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from math import comb
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo import random_tokens, tiny_model

import headspec as hs
from headspec.heads import Head
from headspec.interventions import specialisation
from headspec.interventions.interaction import interaction_of
from headspec.interventions.specialisation import cluster_effects, relabellings
from headspec.lens.hooks import run_logits
from headspec.lens.models import wrap_model
from headspec.tasks.families import build_task

pytestmark = pytest.mark.models
CLASSES = (
    ("bridge", "hooked_transformer")
    if version("transformer-lens").startswith("3.")
    else ("bridge",)
)


def build(name="gpt_neox", model_class: Any = "bridge", **overrides) -> Any:
    return wrap_model(tiny_model(name, **overrides), model_class=model_class)


@cache
def shared(heads=4) -> Any:
    """Models for tests that leave them as they are."""
    return build(num_attention_heads=heads)


def logit_of(token):
    def last_logit(logits):
        return logits[:, -1, token]

    return last_logit


def tasks_of(n=2, length=6):
    return {f"w{k}": (random_tokens(n, length, seed=k), logit_of(5 + k)) for k in range(3)}


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("mode", ["mean", "zero"])
def test_effects_by_plain_hooks(model_class, mode):
    model, tasks = build("qwen3", model_class), tasks_of()
    found = cluster_effects(model, [0, 1, 0, -1], tasks, layer=0, mode=mode)
    assert found.effects.shape == (2, 3)
    for c, heads in enumerate([(0, 2), (1,)]):
        for t, (tokens, metric) in enumerate(tasks.values()):
            seen = []
            with torch.no_grad():
                with model.hooks(
                    fwd_hooks=[("blocks.0.attn.hook_z", lambda z, hook=None: seen.append(z))]  # noqa: B023
                ):
                    base = metric(run_logits(model, tokens))
                value = seen[0].mean((0, 1)) if mode == "mean" else torch.zeros(4, 24)

                def ablate(z, hook=None, heads=heads, value=value):
                    z = z.clone()
                    z[:, :, list(heads)] = value[list(heads)]
                    return z

                with model.hooks(fwd_hooks=[("blocks.0.attn.hook_z", ablate)]):
                    ablated = metric(run_logits(model, tokens))
            expected = float((ablated - base).mean())
            assert found.effects[c, t] == pytest.approx(expected, abs=2e-5)
            assert found.base[t] == pytest.approx(float(base.mean()), abs=2e-5)


def test_interaction_by_hand():
    """Rows and columns alone give 0; a diagonal of d in two by two gives d^2 (four times d/2)."""
    rows_and_columns = np.array([[5.0, 7.0, 6.0], [1.0, 3.0, 2.0]])
    assert interaction_of(rows_and_columns) == pytest.approx(0)
    assert interaction_of(np.array([[2.0, 0.0], [0.0, 2.0]])) == pytest.approx(4)
    both = np.stack([rows_and_columns, rows_and_columns])
    assert interaction_of(both).shape == (2,)


@given(st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_interaction_ignores_main_effects(seed):
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((3, 4))
    shifted = table + rng.standard_normal((3, 1)) + rng.standard_normal((1, 4))
    assert interaction_of(shifted) == pytest.approx(interaction_of(table))
    # The same by least squares on indicator variables.
    design = np.concatenate([np.kron(np.eye(3), np.ones((4, 1))), np.tile(np.eye(4), (3, 1))], 1)
    fitted = design @ np.linalg.lstsq(design, table.ravel(), rcond=None)[0]
    assert interaction_of(table) == pytest.approx(((table.ravel() - fitted) ** 2).sum())


def writing_to(model, directions):
    """Each head of the last layer writes along one direction only."""
    with torch.no_grad():
        weight = model.blocks[1].attn.o.original_component.weight  # d_model head*d_head
        for head, (direction, size) in enumerate(directions):
            part = weight[:, 8 * head : 8 * head + 8]
            unit = direction / direction.norm()
            part.copy_(size * unit[:, None] * torch.ones(8))
    return model


def specialised(*, each_its_own: bool):
    model = build(num_attention_heads=8)
    to = [model.unembed.W_U.detach()[:, token] for token in (5, 6)]
    first, second = (to[0], 0.5), (to[1] if each_its_own else to[0], 0.5)
    model = writing_to(model, [first] * 4 + [second] * 4)
    tokens = random_tokens(12, 8)
    return model, {"five": (tokens, logit_of(5)), "six": (tokens, logit_of(6))}


def test_specialised_groups_are_found():
    model, tasks = specialised(each_its_own=True)
    found = cluster_effects(model, [0] * 4 + [1] * 4, tasks, layer=1, mode="zero")
    assert found.exact
    assert len(found.interaction_draws) == comb(8, 4)
    assert found.p_value <= 4 / comb(8, 4)
    assert "more than random groups" in found.summary()
    mixed = cluster_effects(model, [0, 1] * 4, tasks, layer=1, mode="zero")
    assert mixed.p_value > 0.2


def test_a_cluster_that_matters_everywhere_is_not_specialised():
    """Negative control: large effects, one cluster far above the other, on both tasks."""
    model, tasks = additive()
    found = cluster_effects(model, [0] * 4 + [1] * 4, tasks, layer=1, mode="zero")
    assert np.abs(found.effects[0]).min() > np.abs(found.effects[1]).max()
    assert found.interaction.observed == pytest.approx(0, abs=1e-6)
    assert found.p_value > 0.5


def additive():
    """One cluster six times as strong on both tasks: rows and columns, and nothing else."""
    model = build(num_attention_heads=8)
    with torch.no_grad():
        model.blocks[1].attn.o.original_component.weight[:, :32] *= 6
    tokens = random_tokens(12, 8)
    return model, {"five": (tokens, logit_of(5)), "again": (tokens.flip(0), logit_of(5))}


def nothing_but(kind):
    def metric(logits):
        last = logits[:, -1, 6]
        return {"zeros": 0 * last, "nan": last / 0 - last / 0, "rounding": 50 + 1e-6 * last}[kind]

    return metric


@pytest.mark.parametrize("kind", ["zeros", "nan", "rounding"])
def test_a_task_that_no_head_touches_makes_no_specialisation(kind):
    """Negative control: a column of zeros would keep half of a row that should be removed."""
    model, tasks = additive()
    options: dict[str, Any] = {"layer": 1, "mode": "zero"}
    two = cluster_effects(model, [0] * 4 + [1] * 4, tasks, **options)
    tasks["dead"] = (next(iter(tasks.values()))[0], nothing_but(kind))
    found = cluster_effects(model, [0] * 4 + [1] * 4, tasks, **options)
    naive = np.concatenate([two.standardised, np.zeros((2, 1))], 1)
    assert float(interaction_of(naive)) > 1
    assert found.left_out == ("dead",)
    assert (two.left_out, found.p_value) == ((), two.p_value)
    assert found.interaction.observed == two.interaction.observed == pytest.approx(0, abs=1e-6)
    assert "not finite: dead." in found.summary()
    cells = found.cell_p[:, 2]
    assert np.isnan(cells).all() if kind == "nan" else (cells == 1).all()
    assert np.isfinite(found.standardised).all()
    alone = cluster_effects(
        model, [0] * 4 + [1] * 4, {k: tasks[k] for k in ("five", "dead")}, **options
    )
    assert np.isnan(alone.p_value)
    assert "fewer than two tasks that heads change" in alone.summary()
    assert len(alone.to_frame()) == 5


def test_among_some_tasks_is_a_run_on_these():
    model, tasks = shared(), tasks_of()
    options: dict[str, Any] = {"layer": 0, "n_random": 5}
    every = cluster_effects(model, [0, 1, 0, 1], tasks, **options)
    some = cluster_effects(model, [0, 1, 0, 1], {k: tasks[k] for k in ("w0", "w2")}, **options)
    found = every.among(["w2", "w0"])
    assert found.tasks == ("w0", "w2")
    assert every.among(every.tasks) is every
    pd.testing.assert_frame_equal(found.to_frame(), some.to_frame())
    assert np.isnan(every.among(["w1"]).p_value)
    for wrong in (["w9"], []):
        with pytest.raises(ValueError, match="some of the tasks w0, w1, w2"):
            every.among(wrong)


def test_p_is_calibrated_when_labels_are_random(monkeypatch):
    model, tasks = shared(8), tasks_of()
    measure, known = specialisation._ablate, {}

    def remembered(model, run, sets, **options):
        new = [one for one in sets if (run.metric.function, one) not in known]
        if new:
            base, effects = measure(model, run, new, **options)
            known.update({(run.metric.function, one): e for one, e in zip(new, effects)})  # noqa: B905
            known[run.metric.function] = base
        effects = np.array([known[run.metric.function, one] for one in sets])
        return known[run.metric.function], effects

    monkeypatch.setattr(specialisation, "_ablate", remembered)
    rng = np.random.default_rng(0)
    n_runs, ps, cells = 200, [], []
    for run in range(n_runs):
        labels = rng.permutation([0, 0, 0, 1, 1, -1, -1, -1])
        found = cluster_effects(model, labels.tolist(), tasks, layer=1, n_random=59, seed=run)
        assert not found.exact
        ps.append(found.p_value)
        cells.append(found.cell_p)
    band = 3 * np.sqrt(0.05 * 0.95 / n_runs)
    assert abs(np.mean(np.array(ps) <= 0.05) - 0.05) < band
    assert 0.45 < np.mean(ps) < 0.57
    # Few sets of two heads, many ties: p-values of cells are conservative.
    assert np.mean(np.stack(cells) <= 0.05) < 0.05 + band


@given(st.lists(st.integers(1, 3), min_size=2, max_size=3), st.integers(0, 1), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_relabellings_keep_sizes(sizes, rest, seed):
    n_heads = sum(sizes) + rest
    for n_random in (5, 10**5):
        found, exact = relabellings(sizes, n_heads=n_heads, n_random=n_random, seed=seed)
        assert exact or len(found) == 5
        for partition in found:
            assert [len(one) for one in partition] == sizes
            flat = [head for one in partition for head in one]
            assert len(set(flat)) == len(flat) == sum(sizes)
            assert all(list(one) == sorted(one) for one in partition)
    assert exact
    assert len(set(found)) == len(found)


def test_on_tasks_of_the_suite():
    suite = hs.open_suite("micro")
    model = suite.model(6144)
    tasks = {
        name: build_task(name, n=12, wording="micro")
        for name in ("decimal_comparison", "version_comparison")
    }
    sets = [[Head(2, h) for h in range(0, 12, 2)], [Head(2, h) for h in range(1, 12, 2)]]
    found = cluster_effects(model, sets, tasks, n_random=30)
    assert not found.exact
    assert found.metrics == ("log_prob_difference", "log_prob_difference")
    assert found.n.tolist() == [task.n for task in tasks.values()]
    frame = found.to_frame()
    assert list(frame.columns[:11]) == list(hs.results.TIDY_COLUMNS)
    assert len(frame) == 5
    assert frame["step"].unique().tolist() == [6144]
    row = frame[(frame["cluster"] == 1) & (frame["task"] == "decimal_comparison")]
    assert row["value"].tolist() == [found.effects[1, 0]]
    again = cluster_effects(
        model, sets, {k: t.tokenise(model.tokenizer) for k, t in tasks.items()}, n_random=30
    )
    np.testing.assert_array_equal(again.interaction_draws, found.interaction_draws)
    assert "Interaction of cluster and task" in found.summary()


def test_one_task_decides_nothing():
    model = shared()
    name, task = next(iter(tasks_of().items()))
    found = cluster_effects(model, [0, 1, 0, 1], {name: task}, layer=0)
    assert np.isnan(found.p_value)
    assert "not decided by a single task" in found.summary()
    assert np.isfinite(found.cell_p).all()


def test_padding_counts_in_no_mean():
    model, tokens = shared(), random_tokens(2, 6)
    padded = torch.cat([torch.zeros(2, 3, dtype=torch.long), tokens], 1)
    mask = (torch.arange(9) >= 3).long().expand(2, 9)
    alone = {"a": (tokens, logit_of(5)), "b": (tokens, logit_of(6))}
    beside = {"a": (padded, logit_of(5), mask), "b": (padded, logit_of(6), mask)}
    found = [cluster_effects(model, [0, 1, 0, 1], tasks, layer=0) for tasks in (alone, beside)]
    np.testing.assert_allclose(found[0].effects, found[1].effects, atol=2e-5)


@pytest.mark.parametrize(
    ("clusters", "tasks", "options", "message"),
    [
        ([0, 0, 0, 0], tasks_of(), {"layer": 0}, "two clusters or more"),
        ([0, 1, 0, 1], {}, {"layer": 0}, "a task or more"),
        ([0, 1, 0, 1], tasks_of(), {"layer": 0, "n_random": 0}, "relabellings"),
        ([0, 1, 0, 1], tasks_of(), {"layer": 7}, "layer from 0 to 1"),
        ([0, 1, 0, 1], tasks_of(), {}, "layer= with plain labels"),
    ],
)
def test_what_does_not_fit_is_explained(clusters, tasks, options, message):
    with pytest.raises(ValueError, match=message):
        cluster_effects(shared(), clusters, tasks, **options)
