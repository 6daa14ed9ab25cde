"""Values of sets of heads: what restores enough, and what each head is worth."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from headspec.errors import InputError
from headspec.heads import Head
from headspec.interventions.example_effects import ExampleEffects, SmallGapWarning
from headspec.interventions.sufficient_sets import (
    SufficientSets,
    find_sufficient,
    group_weights,
    share_doubts,
)
from headspec.results import tidy
from headspec.stats import MeanIntervals, bootstrap_means


@dataclass(frozen=True)
class HeadSetValues:
    """The metric with sets of heads of one layer replaced by those of the other run.

    Attributes:
        sets: which heads are in each set.
        values: the metric with that set replaced, of each example.
        target: the metric of the other run, of each example.
        shapley_values, shapley_errors: see `shapley`; None if not all sizes were measured.
        exact: all sets of `sizes` were measured; else sets along `n_samples` orders.
        sizes: set sizes measured.
        groups: which examples share their prompts, by number.
        layer, metric, unit, direction, n_samples, seed: what was done.
        model, step, processing: of the model.
        resolution: relative rounding of the model's arithmetic; smaller changes are nothing.
    """

    sets: Bool[np.ndarray, "set head"]
    values: Float[np.ndarray, "set example"]
    target: Float[np.ndarray, " example"]
    shapley_values: Float[np.ndarray, "head example"] | None
    shapley_errors: Float[np.ndarray, " head"] | None
    exact: bool
    sizes: tuple[int, ...]
    groups: Int[np.ndarray, " example"]
    layer: int
    metric: str
    unit: str
    direction: str
    n_samples: int
    seed: int
    model: str = ""
    step: int | None = None
    processing: str = "none"
    resolution: float = 2e-6

    @property
    def n_heads(self) -> int:
        """Heads in the layer."""
        return self.sets.shape[1]

    @property
    def n(self) -> int:
        """Distinct examples."""
        return len(np.unique(self.groups))

    @property
    def none(self) -> float:
        """Mean metric with no head replaced: the base run."""
        return float(self._means()[self.sets.sum(1).argmin()])

    @property
    def all(self) -> float:
        """Mean metric with all heads of the layer replaced."""
        return float(self._means()[self.sets.sum(1).argmax()])

    @property
    def whole(self) -> ExampleEffects:
        """What all heads of the layer together change, beside the gap between the two runs."""
        sizes = self.sets.sum(1)
        runs = [self.values[sizes.argmin()], self.values[sizes.argmax()], self.target]
        none, every, target = (
            np.array([one[rows].mean() for rows in self._members()]) for one in runs
        )
        return ExampleEffects(
            values=(every - none)[None],
            base=none,
            target=target,
            metric=self.metric,
            unit=self.unit,
            site="z",
            mode=self.direction,
            seed=self.seed,
            resolution=self.resolution,
        )

    @property
    def gap_share(self) -> float:
        """(v(all) - v(none)) / (metric of the other run - v(none)): 1 where it is reached.

        How much of the gap between clean and corrupt all heads of the layer make up (`"noise"`:
        take away); negative where they go the other way. nan, with a `SmallGapWarning`, where the
        interval of the gap holds 0.
        """
        share = float(self.whole.normalized_means()[0])
        return -share if self.direction == "noise" else share

    @property
    def shapley(self) -> Float[np.ndarray, " head"]:
        """Shapley value of each head, mean over examples, in the metric's unit.

        They sum to `all` - `none`. A Shapley value averages over everything the other heads may
        be doing; it is not the effect of the head alone, nor of its removal.

        Raises:
            InputError: only some sizes were measured.
        """
        return self._shapley_values() @ group_weights(self.groups)

    @property
    def shapley_per_example(self) -> Float[np.ndarray, "head example"]:
        """Shapley value of each head in each example.

        Raises:
            InputError: only some sizes were measured.
        """
        return self._shapley_values()

    @property
    def shapley_intervals(self) -> MeanIntervals:
        """Bootstrap intervals of the Shapley values over distinct examples."""
        sums = np.stack([self._shapley_values()[:, rows].mean(1) for rows in self._members()], 1)
        return bootstrap_means(sums, seed=self.seed)

    @property
    def by_size(self) -> pd.DataFrame:
        """For each size: the best, mean and worst mean metric of sets, sd, count, best set."""
        means, sizes = self._means(), self.sets.sum(1)
        rows = []
        for size in self.sizes:
            of_size = np.flatnonzero(sizes == size)
            best = int(of_size[means[of_size].argmax()])
            rows.append(
                {
                    "size": size,
                    "best": means[best],
                    "mean": means[of_size].mean(),
                    "worst": means[of_size].min(),
                    "sd": means[of_size].std(),
                    "n_sets": len(of_size),
                    "best_set": self._names(best),
                }
            )
        return pd.DataFrame(rows)

    def smallest_sufficient(self, share: float = 0.8) -> SufficientSets:
        """The smallest sets that restore `share` of what all heads of the layer restore.

        restored share of S = (v(S) - v(none)) / (v(all) - v(none)), of means over distinct
        examples. It can exceed 1 where other heads of the layer work against the answer. It is no
        share of the gap between clean and corrupt: that is `gap_share` times it. Warns with a
        `SmallGapWarning` where that gap, or v(all) - v(none), cannot be told from 0, or where all
        heads together go the other way.

        Args:
            share: wanted share, above 0.

        Raises:
            InputError: a share of 0 or less, or all heads of the layer together change nothing.
        """
        for doubt in share_doubts(self.whole):
            warnings.warn(doubt, SmallGapWarning, stacklevel=2)
        return self._sufficient(share)

    def _sufficient(self, share: float) -> SufficientSets:
        whole = self.whole
        return find_sufficient(
            self.sets,
            self.values,
            groups=self.groups,
            layer=self.layer,
            share=share,
            exhaustive=self.sizes if self.exact else (),
            seed=self.seed,
            resolution=self.resolution,
            direction=self.direction,
            gap_share=self.gap_share if whole.gap_is_clear else float("nan"),
        )

    def _means(self) -> Float[np.ndarray, " set"]:
        return self.values @ group_weights(self.groups)

    def _members(self) -> list[np.ndarray]:
        return [np.flatnonzero(self.groups == group) for group in np.unique(self.groups)]

    def _shapley_values(self) -> Float[np.ndarray, "head example"]:
        if self.shapley_values is None:
            raise InputError(
                expected="values of sets of all sizes for Shapley values",
                got=f"sizes {', '.join(map(str, self.sizes))}",
                fix="Leave `sizes` out of head_set_values.",
            )
        return self.shapley_values

    def _names(self, row: int) -> str:
        return " ".join(str(Head(self.layer, int(head))) for head in np.flatnonzero(self.sets[row]))

    def to_frame(self) -> pd.DataFrame:
        """Rows `shapley` for each head, and `best_set` for each size beside all sets of that size.

        For `best_set`, null_mean and null_sd are of all measured sets of the size. Extra columns:
        ends of the interval over examples, sampling error, size, number of sets, heads of the
        set, exact, unit, direction, processing.
        """
        rows: list[dict[str, object]] = []
        if self.shapley_values is not None and self.shapley_errors is not None:
            intervals = self.shapley_intervals
            rows += [
                {
                    "head": head,
                    "metric": "shapley",
                    "value": value,
                    "ci_low": intervals.low[head],
                    "ci_high": intervals.high[head],
                    "sampling_error": self.shapley_errors[head],
                }
                for head, value in enumerate(self.shapley)
            ]
        rows += [
            {
                "metric": "best_set",
                "value": one["best"],
                "null_mean": one["mean"],
                "null_sd": one["sd"],
                "size": one["size"],
                "n_sets": one["n_sets"],
                "worst": one["worst"],
                "heads": one["best_set"],
            }
            for one in self.by_size.to_dict("records")
        ]
        return tidy(
            rows,
            model=self.model,
            step=self.step,
            layer=self.layer,
            n=self.n,
            seed=self.seed,
            of=self.metric,
            unit=self.unit,
            direction=self.direction,
            base=self.none,
            target=float(self.target @ group_weights(self.groups)),
            exact=self.exact,
            processing=self.processing,
        )

    def summary(self, *, share: float = 0.8, top: int = 5) -> str:
        """The finding in plain sentences.

        Args:
            share: of the sufficient sets.
            top: heads to name.
        """
        where = [self.model] if self.model else []
        where += [f"step {self.step}"] if self.step is not None else []
        start = ", ".join([*where, f"layer {self.layer}", f"{self.n} distinct examples"])
        unit = f" {self.unit}" if self.unit else ""
        which = "all" if self.exact else f"{self.n_samples} random orders of joining, in all"
        which += f" {len(self.sets)} sets"
        if self.exact and len(self.sizes) <= self.n_heads:
            which += f" of {', '.join(map(str, self.sizes))} heads"
        done, does, other = "restored", "restore", "clean"
        if self.direction == "noise":
            done, does, other = "corrupted", "take away", "corrupt"
        target = self.target @ group_weights(self.groups)
        words = [
            f"{start}: {self.metric} {self.none:.3g}{unit} with no head {done}, {self.all:.3g} "
            f"with all, {target:.3g} in the {other} run; {which} measured."
        ]
        if self.whole.gap_is_clear:
            words.append(f"All heads together {does} {self.gap_share:.0%} of clean - corrupt.")
        words += share_doubts(self.whole)
        try:
            words.append(self._sufficient(share).summary())
        except InputError:
            words.append("All heads together change nothing: there is nothing to share out.")
        if self.shapley_values is not None:
            order = np.argsort(-np.abs(self.shapley), kind="stable")[:top]
            named = [f"{Head(self.layer, int(i))} {self.shapley[i]:+.3g}{unit}" for i in order]
            words.append(f"Largest Shapley values: {', '.join(named)}.")
        return " ".join(words)
