"""Jumps and their controls as blocks that may be relabelled: what a matched permutation needs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

_MOST_LISTED = 5_000  # relabellings of one block that are listed, beyond it they are drawn
_MOST_EXACT = 50_000  # relabellings of everything that are all counted


@dataclass(frozen=True)
class MatchedBlock:
    """Events of one run that belong together: changes across jumps, and across their controls.

    Attributes:
        jumps: change across each jump.
        controls: change across each control.
    """

    jumps: Float[np.ndarray, " jump"]
    controls: Float[np.ndarray, " control"]

    @property
    def difference(self) -> float:
        """Mean change across the jumps less that across the controls."""
        return float(self.jumps.mean() - self.controls.mean())

    @property
    def n_labellings(self) -> int:
        """In how many ways as many of the events could be called jumps."""
        n_jumps = len(self.jumps)
        return math.comb(n_jumps + len(self.controls), n_jumps)

    def relabelled(self, rng: np.random.Generator, n: int) -> Float[np.ndarray, " labelling"]:
        """The difference for every choice of the jumps, or for `n` drawn where they are many."""
        events = np.concatenate([self.jumps, self.controls])
        n_jumps = len(self.jumps)
        if self.n_labellings <= _MOST_LISTED:
            chosen = np.array(list(itertools.combinations(range(len(events)), n_jumps)))
        else:
            chosen = rng.random((n, len(events))).argsort(axis=1)[:, :n_jumps]
        sums = events[chosen].sum(axis=1)
        return sums / n_jumps - (events.sum() - sums) / len(self.controls)


def arrange_events(moments: Any, *, kind: str = "jump") -> pd.DataFrame:
    """Which event and block each moment of one run belongs to.

    Jumps whose windows (before, after) overlap are one event: what changes across one changes
    across the other. So are controls that overlap. A control whose window holds the middle of a
    jump is none and is left out. A block is made of jump events and their controls, of all that
    share a control, and of all whose windows overlap: blocks have no stretch of training in common,
    so that relabelling inside one leaves the others alone.

    Args:
        moments: one row a moment: `moment kind matched before during after`; kinds besides `kind`
            and `"control"` are not compared, but keep controls away.
        kind: what is compared with controls.

    Returns:
        Rows of moments that are in a block: `moment event block jump during` (`jump`: whether it
        is one).
    """
    jumps = moments.loc[moments["kind"] == kind].assign(jump=True)
    others = moments.loc[~moments["kind"].isin(["control", "landmark"])]
    middles = others["during"].to_numpy(float, na_value=np.nan)
    controls = moments.loc[moments["kind"] == "control"].assign(jump=False)
    controls = controls.loc[~_overlaps(controls, middles, middles).any(axis=1)]
    controls = controls.loc[controls["matched"].isin(jumps["moment"])]
    jumps = jumps.assign(event=_merged(jumps))
    controls = controls.assign(event=_merged(controls) + len(jumps))
    both = pd.concat([jumps, controls], ignore_index=True)
    events = both["event"].to_numpy(int)
    of = dict(zip(jumps["moment"], jumps["event"], strict=True))
    links = [
        (of[one], event) for one, event in zip(controls["matched"], controls["event"], strict=True)
    ]
    ends = [both[name].to_numpy(float) for name in ("before", "after")]
    links += [(events[i], events[j]) for i, j in np.argwhere(_overlaps(both, *ends))]
    pairs = np.array(links, dtype=np.int64).reshape(-1, 2)
    joined = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(both), len(both)))
    both["block"] = connected_components(joined, directed=False)[1][events] if len(both) else 0
    kinds = both.groupby("block")["jump"].transform("nunique")
    columns = ["moment", "event", "block", "jump", "during"]
    return both.loc[kinds == 2, columns].reset_index(drop=True)


def _overlaps(rows: Any, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Whether the windows of rows (down) have updates in common with others (across)."""
    before, after = (rows[name].to_numpy(float)[:, None] for name in ("before", "after"))
    return (before < last) & (after > first)


def _merged(rows: Any) -> np.ndarray:
    """A number for each row, the same for windows that overlap or are the same."""
    before, after = rows["before"].to_numpy(float), rows["after"].to_numpy(float)
    order = np.lexsort((after, before))
    group = np.zeros(len(rows), dtype=np.int64)
    number, end = -1, -np.inf
    for i in order:
        if before[i] >= end:
            number, end = number + 1, after[i]
        end = max(end, after[i])
        group[i] = number
    return group


def matched_blocks(changes: np.ndarray, events: pd.DataFrame) -> list[MatchedBlock]:
    """The blocks of a run for one quantity.

    Args:
        changes: of each row of `events`; nan where it was not measured.
        events: rows of `arrange_events`.

    Returns:
        Blocks that have a jump and a control with a number.
    """
    known = np.isfinite(changes)
    columns = (events[name].to_numpy(int)[known] for name in ("event", "block", "jump"))
    (event, block, jump), values = columns, changes[known]
    _, first, group = np.unique(event, return_index=True, return_inverse=True)
    means = np.bincount(group, weights=values) / np.bincount(group)
    blocks, is_jump = block[first], jump[first] == 1
    found = []
    for number in np.unique(blocks):
        parts = means[(blocks == number) & is_jump], means[(blocks == number) & ~is_jump]
        if all(map(len, parts)):
            found.append(MatchedBlock(*parts))
    return found


def run_difference(blocks: Sequence[MatchedBlock]) -> float:
    """Mean over the jumps of a run of change across the jump less change across its controls."""
    weights = np.array([len(block.jumps) for block in blocks], dtype=float)
    return float(np.average([block.difference for block in blocks], weights=weights))


def permuted_means(
    runs: Sequence[Sequence[MatchedBlock]], *, n_null: int, seed: int
) -> tuple[Float[np.ndarray, " draw"], bool]:
    """The mean over runs of `run_difference` with labels exchanged inside blocks.

    Returns:
        The draws, and whether they are all there are (the observed one among them).
    """
    rng = np.random.default_rng(seed)
    parts, total = [], 1
    for blocks in runs:
        n_jumps = sum(len(block.jumps) for block in blocks)
        for block in blocks:
            share = len(block.jumps) / n_jumps / len(runs)
            parts.append(share * block.relabelled(rng, n_null))
            total = min(total * block.n_labellings, _MOST_EXACT + 1)
    if total <= _MOST_EXACT and all(len(part) <= _MOST_LISTED for part in parts):
        draws = np.zeros(1)
        for part in parts:
            draws = (draws[:, None] + part).ravel()
        return draws, True
    draws = np.zeros(n_null)
    for part in parts:
        draws += part[rng.integers(len(part), size=n_null)]
    return draws, False


def resampled_means(
    runs: Sequence[Sequence[MatchedBlock]], *, n_resamples: int, seed: int
) -> Float[np.ndarray, " resample"]:
    """The mean over runs with runs drawn with replacement, and the blocks inside of each."""
    rng = np.random.default_rng(seed)
    n_runs = len(runs)
    chosen = rng.integers(n_runs, size=(n_resamples, n_runs))
    out = np.zeros(n_resamples)
    for number, blocks in enumerate(runs):
        sizes = np.array([len(block.jumps) for block in blocks], dtype=float)
        values = np.array([block.difference for block in blocks])
        times = chosen == number
        drawn = rng.integers(len(blocks), size=(int(times.sum()), len(blocks)))
        means = (sizes[drawn] * values[drawn]).sum(1) / sizes[drawn].sum(1)
        out += np.bincount(np.nonzero(times)[0], weights=means, minlength=n_resamples)
    return out / n_runs
