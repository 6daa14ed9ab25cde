"""When do even heads begin to differ from odd ones? The parity study's questions, asked of a sweep.

The study ("Training dynamics: when does even/odd head specialisation emerge?") plots even minus odd
over eleven checkpoints of Pythia-160M. Here the difference is read against the same difference of
every other split of the layer into halves, at every step.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd

from headspec.errors import InputError, check_choice
from headspec.stats import false_discovery_rate

PHASES = {"early": (0.0, 0.1), "middle": (0.1, 0.5), "late": (0.5, 1.0)}
"""The study's parts of training: (share after which it begins, share at which it ends)."""

Strength = Literal["strength", "graded_strength"]
METRICS: tuple[Strength, ...] = get_args(Strength)
"""The two ways to measure even minus odd: by success, as the study does, and in nats."""

LEAST_EFFECT = 0.1
"""Where not even the strongest split reaches this (share of success, nats), nothing can be seen."""

_TESTED = ("value", "p", "q", "strongest")


def add_parity_q_values(frame: pd.DataFrame) -> pd.DataFrame:
    """Adjust the p-values of even minus odd for all steps and layers looked at.

    Benjamini and Hochberg's procedure (1995), for success and for the graded metric apart; rows
    of other metrics get NaN.

    Args:
        frame: tidy frame of a sweep with `ParityMeasure`.

    Returns:
        A copy with the column `q`.

    What it does not show: neighbouring steps share most of their weights, so that a run of small
    q-values over steps is one observation seen several times. The number of splits bounds p from
    below (1/462 for 12 heads), so that over many layers and steps one alone may never be found.
    """
    q = pd.Series(np.nan, index=frame.index)
    for metric in METRICS:
        tested = (frame["metric"] == metric) & frame["p"].notna()
        q[tested] = false_discovery_rate(frame.loc[tested, "p"].to_numpy(float))
    if q.isna().all():
        raise InputError(
            expected=f"rows of {' or '.join(METRICS)} with p-values",
            got=f"metrics {sorted(map(str, frame['metric'].unique()))}",
            fix="Sweep with hs.ParityMeasure.",
        )
    return frame.assign(q=q)


@dataclass(frozen=True)
class ParityEmergence:
    """From which step on even and odd heads of a layer differ more than halves of other splits do.

    A step is *significant* where q <= alpha. The specialisation *lasts* from the first of two or
    more measured steps up to the last one that are all significant and of one sign. It is *gone*
    at a step after a significant one where half of all splits, or more, differ as much (p >= .5),
    or where it is significant with another sign than at the last step. A part of training was
    *seen* where, at some measured step in it, the strongest split reaches `LEAST_EFFECT`: elsewhere
    restoring heads of this layer changes too little for any split to stand out. It is *testable*
    where enough steps are left from its beginning to the end: p is at least 1 / splits, so that
    among many tests only several significant ones make q <= alpha.

    Attributes:
        layer, metric: what was measured.
        n_steps, n_significant: how many steps, and at how many of them even and odd differ clearly.
        first_step: the first significant one.
        before_step: the one measured before it.
        lasting_step: from which on it lasts.
        gone_step: the last at which it is gone.
        more: which heads restore more at the last step (`direction="noise"`: leave more).
        seen, testable: parts of training that were, see `PHASES`.
        n_needed: how many significant steps it takes for one to be.
        value, strongest, p, q: at the last step; `strongest` is the largest of all splits.
        final_step: where training ended.
        direction: of the sweep, see `parity_test`.

    What it does not show: that a specialisation that was not found is absent. A preference of
    some even heads over some odd ones is a split like many others.
    """

    layer: int
    metric: Strength
    n_steps: int
    n_significant: int
    first_step: int | None
    before_step: int | None
    lasting_step: int | None
    gone_step: int | None
    more: Literal["even", "odd", "neither"]
    seen: tuple[str, ...]
    testable: tuple[str, ...]
    n_needed: int
    value: float
    strongest: float
    p: float
    q: float
    final_step: int
    direction: str = "denoise"

    def share(self, step: int | None) -> float:
        """A step as a share of training; None, for no step, counts as its beginning."""
        return 0.0 if step is None else step / max(self.final_step, 1)


def find_parity_emergence(
    frame: pd.DataFrame,
    *,
    layer: int,
    metric: Strength = "strength",
    alpha: float = 0.05,
    final_step: int | None = None,
) -> ParityEmergence:
    """Since when even and odd heads of a layer differ, by the tests of every step.

    Args:
        frame: as `add_parity_q_values` returns it.
        layer: which layer.
        metric: `"strength"`, as the study defines it, or `"graded_strength"`.
        alpha: false discovery rate to accept.
        final_step: where training ended; None: the last step of the frame.

    Raises:
        InputError: for no or several values of one step.
    """
    check_choice("metric", metric, METRICS)
    part = parity_rows(frame, layer, metric)
    end = int(final_step or part["step"].iloc[-1])
    step = part["step"].to_numpy(int)
    value, p, q, strongest = (part[name].to_numpy(float) for name in _TESTED)
    side, significant = np.sign(value), q <= alpha
    missed = np.flatnonzero(~significant | (side != side[-1]))
    start = missed[-1] + 1 if len(missed) else 0
    first = int(np.argmax(significant)) if significant.any() else len(step)
    gone = np.flatnonzero((p >= 0.5) | (significant & (side != side[-1])))
    gone = gone[gone > first]
    shares = step / max(end, 1)
    tests = (frame["metric"] == metric).to_numpy(bool) & frame["p"].notna().to_numpy(bool)
    n_needed = max(2, math.ceil(tests.sum() / part["n_splits"].min() / alpha - 1e-9))
    return ParityEmergence(
        layer=layer,
        metric=metric,
        n_steps=len(step),
        n_significant=int(significant.sum()),
        first_step=int(step[first]) if significant.any() else None,
        before_step=int(step[first - 1]) if significant.any() and first else None,
        lasting_step=int(step[start]) if start < len(step) - 1 else None,
        gone_step=int(step[gone[-1]]) if len(gone) else None,
        more=("neither", "even", "odd")[int(side[-1])],
        seen=tuple(
            name
            for name in PHASES
            if any(in_phase(share, name) for share in shares[strongest >= LEAST_EFFECT])
        ),
        testable=tuple(
            name
            for name, (low, _) in PHASES.items()
            if np.sum((shares > low) | (low == 0)) >= n_needed
        ),
        n_needed=n_needed,
        value=float(value[-1]),
        strongest=float(strongest[-1]),
        p=float(p[-1]),
        q=float(q[-1]),
        final_step=end,
        direction=str(part["direction"].iloc[-1]) if "direction" in part else "denoise",
    )


def parity_rows(frame: pd.DataFrame, layer: int, metric: str) -> pd.DataFrame:
    """The rows of one layer and metric by step, one a step.

    Raises:
        InputError: for none, or several of one step.
    """
    here = (frame["layer"] == layer).to_numpy(bool, na_value=False)
    part = frame.loc[here & (frame["metric"] == metric).to_numpy(bool)]
    if part.empty or part["step"].duplicated().any():
        raise InputError(
            expected=f"one row of {metric} of layer {layer} a step",
            got=f"layers {sorted({int(each) for each in frame['layer'].dropna()})}"
            if part.empty
            else "several",
            fix="Keep the frame of one sweep with hs.ParityMeasure, of one task and suite.",
        )
    return part.sort_values(by="step", ignore_index=True)


def in_phase(share: float, phase: str) -> bool:
    """Whether a share of training lies in a part of it; 0 belongs to the first."""
    low, high = PHASES[phase]
    return bool(low < share <= high or share == low == 0)


def tabulate_emergence(found: list[ParityEmergence]) -> pd.DataFrame:
    """One row each, for tables: parts of training as text, the lasting step also as a share."""
    rows = [
        asdict(one)
        | {"seen": ", ".join(one.seen), "testable": ", ".join(one.testable)}
        | {"lasting_share": np.nan if one.lasting_step is None else one.share(one.lasting_step)}
        for one in found
    ]
    return pd.DataFrame(rows)
