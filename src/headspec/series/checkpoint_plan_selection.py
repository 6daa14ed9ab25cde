"""Which jumps a plan of checkpoints takes: the study's rule, or the widest coverage."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from headspec.series.jump_rows import EDGES, phase_stratum

_STUDY = {"early": 2, "late": 2, "mid": 1}


def select_by_coverage(rows: Any, n_jumps: int) -> list[int]:
    """Greedily, the jumps that together cover the most layers, phases and magnitudes.

    Every jump has a label of each kind: its layer, its metric, its stratum of the training (early
    up to .1, mid, late above .5) and its third of the magnitudes of its metric. A set of jumps
    scores the sum over labels of 1 + 1/2 + ... + 1/k, k the number of its jumps with that label:
    a new label counts most, a repeated one less each time. The score is submodular, so that
    taking the best next jump n_jumps times reaches at least 1 - 1/e of the best possible score
    (Nemhauser, Wolsey, Fisher 1978). Ties: the larger magnitude within its metric, then the
    earlier row.

    Args:
        rows: from `jump_rows`, with `magnitude` and `phase`.
        n_jumps: how many.

    Returns:
        Positions of the chosen rows, in the order they were taken.
    """
    size = relative_magnitude(rows)
    third = np.minimum((3 * size).astype(int), 2)
    stratum = phase_stratum(rows["phase"].to_numpy(float), EDGES)
    labels = np.stack(
        [
            rows["layer_name"].astype("category").cat.codes,
            rows["metric"].astype("category").cat.codes,
            stratum,
            third,
        ],
        axis=1,
    ).astype(int)
    covered = [np.zeros(column.max(initial=0) + 1) for column in labels.T]
    left, chosen = np.ones(len(rows), dtype=bool), []
    for _ in range(min(n_jumps, len(rows))):
        gain = sum(1 / (1 + seen[own]) for seen, own in zip(covered, labels.T, strict=True))
        best = int(np.lexsort((-size, -np.where(left, gain, -1.0)))[0])
        left[best] = False
        chosen.append(best)
        for seen, own in zip(covered, labels[best], strict=True):
            seen[own] += 1
    return chosen


def select_as_study(
    rows: Any, types: Int[np.ndarray, " jump"], n_jumps: int
) -> tuple[list[int], list[str]]:
    """The study's rule: 2 jumps of the early type of largest magnitude, 2 late, 1 mid.

    The late type is the one with the latest mean phase; the early type is, of the others, the one
    with the largest mean magnitude; the mid type is, of the rest, the one whose mean phase lies
    nearest the middle between the two. Within a type the largest magnitudes are taken. For
    another n_jumps the shares 2 : 2 : 1 stay as nearly as whole numbers allow.

    Args:
        rows: from `jump_rows`, with `magnitude` and `phase`.
        types: of each jump.
        n_jumps: how many.

    Returns:
        Positions of the chosen rows, and notes on types that had too few jumps: those are filled
        up with the largest jumps not yet taken of the same stratum of the training, then of any.
    """
    size, phase = relative_magnitude(rows), rows["phase"].to_numpy(float)
    pools = _study_types(types, phase, size)
    order = np.argsort(-size, kind="stable")
    chosen: list[int] = []
    notes: list[str] = []
    for (role, wanted), stratum in zip(_quota(n_jumps).items(), (0, 2, 1), strict=True):
        of_type = types == pools.get(role, -1)
        near = phase_stratum(phase, EDGES) == stratum
        fallbacks = (of_type, near, np.ones(len(rows), dtype=bool))
        before = len(chosen)
        for pool, allowed in enumerate(fallbacks):
            lacking = wanted - (len(chosen) - before)
            new = [int(i) for i in order if allowed[i] and i not in chosen][:lacking]
            if new and pool:
                where = f"from the {role} part of the training" if pool == 1 else "from anywhere"
                notes.append(f"the {role} type has too few jumps: {len(new)} taken {where}")
            chosen += new
    return chosen, notes


def relative_magnitude(rows: Any) -> Float[np.ndarray, " jump"]:
    """Rank of the magnitude among the jumps of the same metric, 0 (smallest) to below 1."""
    groups = rows.groupby("metric")["magnitude"]
    ranks = groups.rank(method="average").to_numpy(float) - 1
    return ranks / np.maximum(1, groups.transform("size").to_numpy(float))


def _study_types(
    types: Int[np.ndarray, " jump"],
    phase: Float[np.ndarray, " jump"],
    size: Float[np.ndarray, " jump"],
) -> dict[str, int]:
    """The types that play the three roles, as far as there are enough of them."""
    names = np.unique(types)
    when = {int(name): float(phase[types == name].mean()) for name in names}
    large = {int(name): float(size[types == name].mean()) for name in names}
    found: dict[str, int] = {}
    late = max(when, key=lambda name: when[name], default=None)
    if late is None:
        return found
    found["late"] = late
    others = [name for name in when if name != late]
    if others:
        found["early"] = max(others, key=lambda name: large[name])
        others.remove(found["early"])
    if others:
        middle = (when[late] + when[found["early"]]) / 2
        found["mid"] = min(others, key=lambda name: abs(when[name] - middle))
    return found


def _quota(n_jumps: int) -> dict[str, int]:
    """2 : 2 : 1 by the largest remainder."""
    exact = {role: n_jumps * share / 5 for role, share in _STUDY.items()}
    quota = {role: int(value) for role, value in exact.items()}
    by_remainder = sorted(exact, key=lambda role: quota[role] - exact[role])
    for role in by_remainder[: n_jumps - sum(quota.values())]:
        quota[role] += 1
    return quota
