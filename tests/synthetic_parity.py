"""Made-up sweeps of `ParityMeasure`: heads whose effects add up, so that the truth is known."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from headspec.interventions.parity import split_sets
from headspec.interventions.parity_result import ParityTest
from headspec.interventions.split_strength import split_strength
from headspec.lens.logits import FunctionMetric
from headspec.measures.parity import half_rows, head_rows, split_rows, with_strongest
from headspec.results import tidy
from headspec.studies.parity_emergence import add_parity_q_values

N_HEADS, N_PAIRS = 12, 40
STEPS = (0, 10, 30, 60, 100, 160, 250, 350, 450, 600, 800, 1000)
EVEN = np.where(np.arange(N_HEADS) % 2 == 0, 1.0, -1.0)
SETS, _ = split_sets(N_HEADS, splits="exact", max_splits=1000, seed=0)


def parity_result(effects, *, step=None, layer=2, base=-2.0, seed=0):
    """A parity test of heads that add `effects` nats each to a baseline; pairs differ by noise."""
    rng = np.random.default_rng([seed, step or 0])
    noise = rng.normal(size=N_PAIRS)
    shared = 1 + 0.3 * rng.normal(size=N_PAIRS)  # pairs on which all heads matter more, or less
    effects = np.asarray(effects, dtype=float)
    graded = {
        "sets": effects[SETS].sum(1)[:, None] * shared + base + noise,
        "full": effects.sum() * shared + base + noise,
        "base": base + noise,
        "clean": 3 + noise,
    }
    found = [
        split_strength(
            FunctionMetric(len, *named),
            **{name: act(each) for name, each in graded.items()},
            seed=seed,
        )
        for named, act in (
            (("preference", ""), lambda each: (each > 0).astype(float)),
            (("log_prob_difference", "nats"), lambda each: each),
        )
    ]
    return ParityTest(
        success=found[0],
        graded=found[1],
        sets=SETS,
        exact=True,
        prompts=tuple((f"clean {i}", f"corrupt {i}") for i in range(N_PAIRS)),
        task="made up",
        positions="from the first that differs",
        direction="denoise",
        layer=layer,
        n_heads=N_HEADS,
        seed=seed,
        model="made up",
        step=step,
    )


def parity_frame(effects: Mapping[int, np.ndarray], *, layer=2, seed=0, splits=True):
    """The frame of a sweep whose heads have these effects at each step, with q-values."""
    parts = []
    for step, each in effects.items():
        found = parity_result(each, step=step, layer=layer, seed=seed)
        parts += [make(found) for make in (with_strongest, half_rows, head_rows)]
        parts += [split_rows(found)] if splits else []
    return add_parity_q_values(pd.concat(parts, ignore_index=True))


def strength_frame(effects: Mapping[int, np.ndarray], *, layer=2):
    """Only the rows `graded_strength` of such a sweep, without pairs: quick, for many draws."""
    rows = []
    for step, each in effects.items():
        sizes = np.abs(2 * np.asarray(each)[SETS[: len(SETS) // 2]].sum(1) - np.sum(each))
        p = np.mean(sizes >= sizes[0] - 1e-9)
        value = float(np.sum(EVEN * each))
        rows.append({"step": step, "value": value, "p": p, "strongest": sizes.max()})
    frame = tidy(rows, layer=layer, metric="graded_strength", n_splits=len(SETS) // 2)
    return add_parity_q_values(frame)


def planted(strengths, *, seed=0, spread=0.05, restored=3.0):
    """Effects over STEPS: all heads together restore `restored` nats, even ones more by strength.

    Heads also differ from each other by random numbers of size `spread`, drawn anew each step.
    """
    rng = np.random.default_rng(seed)
    return {
        step: restored / N_HEADS + EVEN * strength / N_HEADS + spread * rng.normal(size=N_HEADS)
        for step, strength in zip(STEPS, strengths, strict=True)
    }


def drifting(seed):
    """Heads that are exchangeable: effects drift from step to step, whatever their index."""
    rng = np.random.default_rng(seed)
    drift = np.cumsum(rng.normal(scale=0.15, size=(len(STEPS), N_HEADS)), axis=0)
    return {step: 0.25 + each for step, each in zip(STEPS, drift, strict=True)}
