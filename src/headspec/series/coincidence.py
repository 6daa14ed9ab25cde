"""Do turns of statistics fall near the emergence of capabilities more often than by chance?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float

from headspec.errors import InputError, check_choice
from headspec.results import tidy
from headspec.series.curve import Axis, axis_positions

ChanceTimes = Literal["circular_shift", "other_capabilities"]
_MOST_EXACT = 20_000  # choices out of the pool that are all tried


@dataclass(frozen=True)
class Coincidence:
    """How many turns lie near an emergence, and how many would by chance.

    Attributes:
        count: turns within the distance of an emergence.
        n: turns.
        null_mean, null_sd: of the count under the null.
        p_value: share of the null with as many or more, the observed one counted.
        least_p: the smallest p that this null could have given here.
        within: the distance, on `axis`.
        axis: log(1 + step) or step.
        null: how chance was made.
        emergences: steps of emergence that were asked about; of a window its end.
        exact: whether all of the null was counted, nothing drawn.
    """

    count: int
    n: int
    null_mean: float
    null_sd: float
    p_value: float
    least_p: float
    within: float
    axis: Axis
    null: ChanceTimes
    emergences: tuple[float, ...]
    exact: bool

    def to_frame(self) -> pd.DataFrame:
        """One tidy row: `value` is the share of turns near an emergence, `n` the turns."""
        row = {
            "metric": "coincidence",
            "value": self.count / self.n,
            "null_mean": self.null_mean / self.n,
            "null_sd": self.null_sd / self.n,
            "p": self.p_value,
            "n": self.n,
            "least_p": self.least_p,
            "within": self.within,
            "null": self.null,
        }
        return tidy([row])

    def summary(self) -> str:
        """One plain sentence, and a warning where p could not have been small."""
        unit = "e-folds of 1 + step" if self.axis == "log_step" else "steps"
        chance = {"circular_shift": "shifted along training", "other_capabilities": "for others"}
        words = (
            f"{self.count} of {self.n} turns lie within {self.within:g} {unit} of an emergence; "
            f"{self.null_mean:.1f} {chance[self.null]} (p = {self.p_value:.2g})."
        )
        if self.least_p > 0.05:
            words += f" p could not have been below {self.least_p:.2g}."
        return words


def coincidence_test(
    turns: Iterable[Any],
    emergences: Iterable[Any],
    *,
    steps: Sequence[int] | np.ndarray,
    within: float | int = 0.5,
    axis: Axis = "log_step",
    null: ChanceTimes = "circular_shift",
    pool: Iterable[Any] | None = None,
    n_null: int = 10_000,
    seed: int = 0,
) -> Coincidence:
    """Count turns within a distance of an emergence, against a null that keeps their spacing.

    * `"circular_shift"`: all turns are moved along training by the same amount, those that leave
      the end come in at the beginning. Matrices of one model that turn together stay together and
      count as the one event they are. Exact: the share of all shifts, by sorting where the count
      changes.
    * `"other_capabilities"`: as many emergences drawn from `pool`, the times of all capabilities
      that might have been asked about. Needed where everything happens in one part of training,
      which a shift does not know. Exact where there are few choices.

    Args:
        turns: steps where statistics turn (missing ones do not count), such as
            `inflection_steps(...)["step"]`.
        emergences: where capabilities emerge: steps, such as `emergence_step(...).step`, or windows
            (step before, step), from whose nearer end turns outside are measured.
        steps: of the checkpoints; their first and last bound training.
        within: distance that counts as near: e-folds of 1 + step, or steps.
        axis: of the distance.
        null: how chance is made.
        pool: for `"other_capabilities"`, steps or windows; the emergences asked about are added
            where missing.
        n_null, seed: draws from a large pool.

    Returns:
        A `Coincidence`, one-sided.

    Raises:
        InputError: no turns or emergences, steps outside of training, or a pool too small.

    Power: one emergence and turns that all lie near it give p of about 2 within / length of
    training at best, .08 for half an e-fold of Pythia's twelve: ask about narrow distances, or
    about several emergences at once. `least_p` says how small p could have been.

    What it does not show: which came first, or that one causes the other. Checkpoints further
    apart than `within` cannot tell near from far.

    Example:
        >>> from headspec.series.coincidence import coincidence_test
        >>> found = coincidence_test([90, 110], [100], steps=[0, 1, 10, 100, 1000], within=0.5)
        >>> found.count, round(found.p_value, 2)
        (2, 0.12)
    """
    check_choice("axis", axis, get_args(Axis))
    check_choice("null", null, get_args(ChanceTimes))
    ends = axis_positions(np.array([min(steps), max(steps)]), axis)
    here = _places(turns, ends, axis, "turns")[:, 0]
    near = _places(emergences, ends, axis, "emergences")
    within = float(within)
    if not within > 0:
        raise InputError(expected="within above zero", got=f"{within}", fix="Use 0.5 e-folds.")
    count, exact = _count(here, near[None], within)[0], True
    if null == "circular_shift":
        counts, share = _shifted_counts(here - ends[0], near - ends[0], within, ends[1] - ends[0])
    else:
        every = near if pool is None else _places(pool, ends, axis, "times of the pool")
        missing = [each for each in near if not np.isclose(every, each).all(axis=1).any()]
        chosen, exact = _choices(np.array([*every, *missing]), len(near), n_null, seed)
        counts = _count(here, chosen, within)
        if not exact:
            counts = np.r_[counts, count]
        share = np.full(len(counts), 1 / len(counts))
    mean = float(share @ counts)
    # turns at the very edge of near may reach a count that no length of shifts has
    reached = counts >= min(count, counts.max())
    return Coincidence(
        count=int(count),
        n=len(here),
        null_mean=mean,
        null_sd=float(np.sqrt(max(share @ (counts - mean) ** 2, 0.0))),
        p_value=float(min(1.0, share[reached].sum())),
        least_p=float(min(1.0, share[counts == counts.max()].sum())),
        within=within,
        axis=axis,
        null=null,
        emergences=tuple(_steps(near[:, 1], axis)),
        exact=exact,
    )


def _steps(places: np.ndarray, axis: Axis) -> list[float]:
    return np.round(np.expm1(places) if axis == "log_step" else places, 6).tolist()


def _places(
    steps: Iterable[Any], ends: np.ndarray, axis: Axis, what: str
) -> Float[np.ndarray, "step end"]:
    """Both ends of each window; those of a single step are one."""
    given = [np.atleast_1d(each).tolist() for each in steps]
    known = [each for each in given if not any(pd.isna(end) for end in each)]
    listed = [[float(min(each)), float(max(each))] for each in known]
    places = np.array(listed) if axis == "step" else np.log1p(np.array(listed))
    if not listed or places.min() < ends[0] - 1e-9 or places.max() > ends[1] + 1e-9:
        raise InputError(
            expected=f"{what} between the first and the last step",
            got=f"{known[:5]}" if listed else "none",
            fix="Leave out curves that never turn or emerge; give all steps of the suite.",
        )
    return places


def _count(
    here: Float[np.ndarray, " turn"], near: Float[np.ndarray, "draw emergence end"], within: float
) -> np.ndarray:
    gaps = _gaps(here[:, None, None], near[None])
    return (gaps.min(axis=2) <= within + 1e-12).sum(axis=0)


def _gaps(here: np.ndarray, near: Float[np.ndarray, "*each end"]) -> np.ndarray:
    """Distances from windows; 0 within."""
    return np.maximum(np.maximum(near[..., 0] - here, here - near[..., 1]), 0.0)


def _shifted_counts(
    here: Float[np.ndarray, " turn"],
    near: Float[np.ndarray, "emergence end"],
    within: float,
    span: float,
) -> tuple[np.ndarray, Float[np.ndarray, " piece"]]:
    """The count on every piece of shifts between which it changes, and how long each piece is.

    A turn at t is near an emergence at e while (t + shift) modulo the span lies in e +- within.
    """
    edges = np.clip(np.concatenate([near[:, 0] - within, near[:, 1] + within]), 0, span)
    cuts = np.unique(np.r_[0.0, span, ((edges[:, None] - here) % span).ravel()])
    middle = (cuts[1:] + cuts[:-1]) / 2
    moved = (here[None] + middle[:, None]) % span
    gaps = _gaps(moved[..., None], near).min(axis=2)
    return (gaps <= within).sum(axis=1), np.diff(cuts) / span


def _choices(
    pool: np.ndarray, size: int, n_null: int, seed: int
) -> tuple[Float[np.ndarray, "draw emergence end"], bool]:
    if len(pool) <= size:
        raise InputError(
            expected=f"a pool of more than {size} times",
            got=f"{len(pool)}",
            fix="Give the emergence steps of all capabilities that were measured.",
        )
    if math.comb(len(pool), size) <= _MOST_EXACT:
        return pool[np.array([*itertools.combinations(range(len(pool)), size)])], True
    rng = np.random.default_rng(seed)
    return np.stack([rng.choice(pool, size, replace=False) for _ in range(n_null)]), False
