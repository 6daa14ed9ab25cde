"""The smallest sets of heads that restore enough, chosen on some examples, checked on others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from headspec.errors import InputError
from headspec.heads import Head
from headspec.interventions.example_effects import ExampleEffects

_ROUNDING = 1e-6
"""Shares that fall short by less than this reach what was asked for."""


@dataclass(frozen=True)
class SufficientSets:
    """The smallest sets of heads that restore a share of what all heads of the layer restore.

    With `direction="noise"`, that take away a share of what all heads of the layer take away.

    Attributes:
        share: what was asked for.
        size: heads in the smallest sets; None if no measured set restores that much.
        sets: all sets of that size that do, those that restore most first.
        shares: what each restores.
        n_of_size: measured sets of that size.
        seen_share: the same search done on one half of the examples: share of its best set there.
        held_out_share: what that set restores on the other half, which had no say in the choice.
            Mean of both directions; nan with one example or where no set suffices. A search among
            thousands of sets finds some that fit these examples by chance: believe this number.
        exact: whether all sets of that size and smaller were measured.
        unmeasured: sizes up to that one of which no set was measured.
        direction: `"denoise"` or `"noise"`.
        gap_share: the part of clean - corrupt that all heads of the layer make up; nan where that
            gap is not clear. 80 % of what the layer restores may be little of what there is.
    """

    share: float
    size: int | None
    sets: tuple[tuple[Head, ...], ...]
    shares: Float[np.ndarray, " set"]
    n_of_size: int
    seen_share: float
    held_out_share: float
    exact: bool
    unmeasured: tuple[int, ...] = ()
    direction: str = "denoise"
    gap_share: float = float("nan")

    def summary(self) -> str:
        """The finding in plain sentences."""
        noise = self.direction == "noise"
        does, do = ("takes away", "take away") if noise else ("restores", "restore")
        goal = f"{does} {self.share:.0%} of what all heads of the layer {do}"
        if not np.isnan(self.gap_share):
            goal += f" ({self.gap_share * self.share:.0%} of the gap between clean and corrupt)"
        if self.size is None:
            return f"No measured set {goal}."
        names = ", ".join(str(head) for head in self.sets[0]) or "none"
        more = f" and {len(self.sets) - 1} more sets of this size" if len(self.sets) > 1 else ""
        start = "The smallest" if self.exact else f"The smallest seen ({self._unseen()})"
        heads = "1 head" if self.size == 1 else f"{self.size} heads"
        halves = (
            f"Chosen on half of the examples ({self.seen_share:.0%} there), such a set {does} "
            f"{self.held_out_share:.0%} on the other half."
        )
        if np.isnan(self.held_out_share):
            halves = "It could not be chosen on one half of the examples and tried on the other."
        return (
            f"{start} set that {goal}: {heads}, {names} ({self.shares[0]:.0%}){more}, of "
            f"{self.n_of_size} measured. {halves}"
        )

    def _unseen(self) -> str:
        if not self.unmeasured:
            return "sampled: smaller may exist"
        return f"no set of {', '.join(map(str, self.unmeasured))} was measured: smaller may exist"


def find_sufficient(
    sets: Bool[np.ndarray, "set head"],
    values: Float[np.ndarray, "set example"],
    *,
    groups: Int[np.ndarray, " example"],
    layer: int,
    share: float | int,
    exhaustive: tuple[int, ...],
    seed: int,
    resolution: float = 2e-6,
    direction: str = "denoise",
    gap_share: float = float("nan"),
) -> SufficientSets:
    """The smallest measured sets that restore a share; see `HeadSetValues.smallest_sufficient`.

    Args:
        sets: heads of each set, among them none and all.
        values: the metric with each set restored.
        groups: which examples share their prompts.
        layer: of the heads.
        share: wanted, above 0.
        exhaustive: sizes of which every set was measured.
        seed: of the two halves of the examples.
        resolution: relative rounding of the model's arithmetic; a smaller change is none.
        direction, gap_share: as in `SufficientSets`.

    Raises:
        InputError: a share of 0 or less, or nothing to restore.
    """
    if share <= 0:
        raise InputError(expected="a share above 0", got=str(share), fix="0.8, for instance.")
    sizes = sets.sum(1)
    shares = restored_shares(sizes, values @ group_weights(groups), resolution=resolution)
    size, rows = _smallest(sizes, shares, share)
    seen, held_out = _held_out(sizes, values, groups, share, seed=seed, resolution=resolution)
    smaller = range(sets.shape[1] + 1 if size is None else size + 1)
    return SufficientSets(
        share=float(share),
        size=size,
        sets=tuple(
            tuple(Head(layer, int(head)) for head in np.flatnonzero(sets[row])) for row in rows
        ),
        shares=shares[rows],
        n_of_size=0 if size is None else int((sizes == size).sum()),
        seen_share=seen,
        held_out_share=held_out,
        exact=set(smaller) <= set(exhaustive),
        unmeasured=tuple(sorted(set(smaller) - set(sizes.tolist()))),
        direction=direction,
        gap_share=gap_share,
    )


def share_doubts(whole: ExampleEffects) -> list[str]:
    """Why shares of what all heads of a layer do may mean nothing: sentences, or none.

    Args:
        whole: what all heads together change; one row.
    """
    found, effect, gap = [], whole.intervals, whole.gap.mean()
    low, high = effect.low[0], effect.high[0]
    moved = effect.means[0] * (-1 if whole.mode == "noise" else 1)
    if not whole.gap_is_clear:
        found.append(f"C{whole.gap_words()[1:]}")
    elif moved * gap < 0:
        found.append("All heads together move the metric away from the other run.")
    if whole.n > 1 and low <= 0 <= high:
        found.append(
            f"What all heads together change, {effect.means[0]:.3g} [{low:.3g}, {high:.3g}], is "
            "not distinguishable from 0."
        )
    return [f"{words} Shares of it mean little." for words in found]


def restored_shares(
    sizes: Int[np.ndarray, " set"],
    means: Float[np.ndarray, " set"],
    *,
    resolution: float = 2e-6,
) -> Float[np.ndarray, " set"]:
    """(v(S) - v(none)) / (v(all) - v(none)) of each set.

    Raises:
        InputError: v(all) equals v(none), to the rounding of the model's arithmetic.
    """
    none, every = means[sizes.argmin()], means[sizes.argmax()]
    if abs(every - none) <= resolution * max(1.0, abs(none)):
        raise InputError(
            expected="a layer whose heads together change the metric",
            got=f"no change ({none:.3g} with none and with all restored)",
            fix="Take a layer of which patch_heads finds that all heads together matter.",
        )
    return (means - none) / (every - none)


def group_weights(
    groups: Int[np.ndarray, " example"], chosen: Bool[np.ndarray, " example"] | None = None
) -> Float[np.ndarray, " example"]:
    """Weights of examples in a mean in which every distinct example counts once.

    Args:
        groups: which examples share their prompts.
        chosen: examples that take part; None: all.
    """
    chosen = np.ones(len(groups), dtype=bool) if chosen is None else chosen
    _, group, counts = np.unique(groups[chosen], return_inverse=True, return_counts=True)
    weights = np.zeros(len(groups))
    weights[chosen] = 1 / (counts[group] * len(counts))
    return weights


def _smallest(
    sizes: np.ndarray, shares: np.ndarray, share: float | int
) -> tuple[int | None, np.ndarray]:
    """The smallest size that suffices, and its rows that do, best first."""
    enough = np.flatnonzero(shares >= share - _ROUNDING)
    if not len(enough):
        return None, enough
    size = int(sizes[enough].min())
    rows = enough[sizes[enough] == size]
    return size, rows[np.argsort(-shares[rows], kind="stable")]


def _held_out(
    sizes: np.ndarray,
    values: np.ndarray,
    groups: np.ndarray,
    share: float | int,
    *,
    seed: int,
    resolution: float,
) -> tuple[float, float]:
    """Choose on one half of the distinct examples, measure on the other, both ways round."""
    nothing = float("nan"), float("nan")
    order = np.random.default_rng(seed).permutation(np.unique(groups))
    halves = [np.isin(groups, part) for part in np.array_split(order, 2)]
    if not all(half.any() for half in halves):
        return nothing
    found = []
    for chosen_on, unseen_on in (halves, halves[::-1]):
        try:
            seen, unseen = (
                restored_shares(sizes, values @ group_weights(groups, on), resolution=resolution)
                for on in (chosen_on, unseen_on)
            )
        except InputError:  # nothing to restore in this half
            return nothing
        _, rows = _smallest(sizes, seen, share)
        found.append((seen[rows[0]], unseen[rows[0]]) if len(rows) else nothing)
    seen_share, held_out_share = np.mean(found, axis=0)
    return float(seen_share), float(held_out_share)
