"""The result of `class_selectivity`: how far each unit tells one class from the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headspec.results import tidy
from headspec.stats import NullSummary, false_discovery_rate
from headspec.weights.batch_frames import spread

SelectivityMeasure = Literal["index", "eta_squared", "d_prime"]
MEASURES: tuple[SelectivityMeasure, ...] = get_args(SelectivityMeasure)
METRICS = {
    "index": "class_selectivity",
    "eta_squared": "class_eta_squared",
    "d_prime": "class_d_prime",
}


@dataclass(frozen=True, kw_only=True)
class ClassSelectivity:
    """Class selectivity of units beside what shuffled labels give.

    Attributes:
        value: one number a unit; nan where it is not defined (a unit that is 0 throughout, or
            constant for `"eta_squared"` and `"d_prime"`).
        null_mean, null_sd: of the same units with labels shuffled; nan without a null.
        p: share of the shuffles with at least the value, the observed order among them; nan
            without a null and where `value` is.
        preferred: label of the class with the largest mean, the first of equals; missing in the
            frame where `value` is not defined.
        class_means: mean of each unit for each class.
        overall: mean of `value` over the units where it is defined, with its null: the same
            shuffles for all units, so that their correlation is kept.
        classes: labels, in the order of `class`.
        measure: `"index"`, `"eta_squared"` or `"d_prime"`.
        n_samples, n_null, seed: samples, shuffles and their seed.
    """

    value: Float[np.ndarray, " unit"]
    null_mean: Float[np.ndarray, " unit"]
    null_sd: Float[np.ndarray, " unit"]
    p: Float[np.ndarray, " unit"]
    preferred: Int[np.ndarray, " unit"]
    class_means: Float[np.ndarray, "class unit"]
    overall: NullSummary
    classes: tuple[int, ...]
    measure: SelectivityMeasure
    n_samples: int
    n_null: int
    seed: int

    @property
    def p_fdr(self) -> Float[np.ndarray, " unit"]:
        """`p` adjusted over the units (Benjamini-Hochberg)."""
        return false_discovery_rate(self.p)

    @property
    def excess(self) -> Float[np.ndarray, " unit"]:
        """`value` less `null_mean`: what few samples a class give by chance is taken off."""
        return self.value - self.null_mean

    def to_frame(self) -> pd.DataFrame:
        """One row a unit; then one for their mean (`<metric>_mean`, `unit` missing).

        The metric is `class_selectivity`, `class_eta_squared` or `class_d_prime`; extra columns
        `unit`, `p_fdr`, `preferred_class`.
        """
        metric = METRICS[self.measure]
        units = {
            "unit": np.arange(len(self.value)),
            "metric": metric,
            "value": self.value,
            "null_mean": self.null_mean,
            "null_sd": self.null_sd,
            "p": self.p,
            "p_fdr": self.p_fdr,
            "preferred_class": np.where(np.isnan(self.value), np.nan, self.preferred),
        }
        mean = {
            "metric": f"{metric}_mean",
            "value": self.overall.observed,
            "null_mean": self.overall.mean,
            "null_sd": self.overall.sd,
            "p": self.overall.p_value,
        }
        frame = pd.concat([pd.DataFrame(units), pd.DataFrame([mean])], ignore_index=True)
        frame = frame.astype({"unit": "Int64", "preferred_class": "Int64"})
        return tidy(frame, n=self.n_samples, seed=self.seed if self.n_null else None)

    def summary(self) -> str:
        """The units in words, beside their null."""
        undefined = int(np.isnan(self.value).sum())
        head = (
            f"{len(self.value)} units, {len(self.classes)} classes, {self.n_samples} samples: "
            f"{METRICS[self.measure].replace('_', ' ')} {spread(self.value)}, mean "
            f"{self.overall.observed:.3f}"
        )
        if self.n_null:
            found = int((self.p_fdr <= 0.05).sum())
            head += (
                f" (labels shuffled: {self.overall.mean:.3f}, sd {self.overall.sd:.3f}, "
                f"p {self.overall.p_value:.3g}); {found} units above their null at a false "
                "discovery rate of .05"
            )
        return head + "." + (f" Not defined for {undefined}." if undefined else "")
