"""The result of a parity test: two metrics, each beside the strengths of all other splits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headspec.interventions.split_strength import SplitStrength
from headspec.results import tidy


@dataclass(frozen=True)
class ParityTest:
    """Even against odd heads of one layer, and against every other split.

    Attributes:
        success: share of pairs whose answer is the clean one.
        graded: a graded metric.
        sets: head indices of each set; the even heads first. Row i + (rows / 2) is the complement
            of row i.
        exact: whether `sets` are all; else a sample.
        prompts: clean and corrupt prompt of each distinct pair.
        task, positions, direction, layer, n_heads, seed: what was done.
        model, step, processing: of the model.
    """

    success: SplitStrength
    graded: SplitStrength
    sets: Int[np.ndarray, "set half"]
    exact: bool
    prompts: tuple[tuple[str, str], ...]
    task: str
    positions: str
    direction: str
    layer: int
    n_heads: int
    seed: int
    model: str = ""
    step: int | None = None
    processing: str = "none"

    @property
    def n(self) -> int:
        """Distinct prompt pairs: repeats of a pair are one observation."""
        return len(self.prompts)

    @property
    def strength(self) -> float:
        """Success rate with even heads minus success rate with odd heads."""
        return self.success.strength

    @property
    def graded_strength(self) -> float:
        """The same of the graded metric."""
        return self.graded.strength

    @property
    def p(self) -> float:
        """Two-sided permutation p of the strength."""
        return self.success.p

    @property
    def graded_p(self) -> float:
        """Two-sided permutation p of the graded strength."""
        return self.graded.p

    @property
    def null(self) -> Float[np.ndarray, " set"]:
        """Strength of every set against its complement; the observed first."""
        return self.success.null

    @property
    def graded_null(self) -> Float[np.ndarray, " set"]:
        """The same of the graded metric."""
        return self.graded.null

    @property
    def even_success(self) -> float:
        """Success rate with the even heads replaced."""
        return float(self.success.even.mean())

    @property
    def odd_success(self) -> float:
        """Success rate with the odd heads replaced."""
        return float(self.success.odd.mean())

    @property
    def base_success(self) -> float:
        """Success rate of the run that was patched: the corrupt one when denoising."""
        return float(self.success.base.mean())

    @property
    def clean_success(self) -> float:
        """Success rate of the clean run."""
        return float(self.success.clean.mean())

    @property
    def full_success(self) -> float:
        """Success rate with all heads of the layer replaced."""
        return float(self.success.full.mean())

    @property
    def graded_even(self) -> float:
        """Graded metric with the even heads replaced."""
        return float(self.graded.even.mean())

    @property
    def graded_odd(self) -> float:
        """Graded metric with the odd heads replaced."""
        return float(self.graded.odd.mean())

    @property
    def graded_base(self) -> float:
        """Graded metric of the run that was patched."""
        return float(self.graded.base.mean())

    @property
    def graded_clean(self) -> float:
        """Graded metric of the clean run."""
        return float(self.graded.clean.mean())

    @property
    def graded_full(self) -> float:
        """Graded metric with all heads of the layer replaced."""
        return float(self.graded.full.mean())

    @property
    def pairs(self) -> pd.DataFrame:
        """One row a distinct pair: its prompts, and both metrics in all five conditions."""
        columns: dict[str, object] = {
            "pair": np.arange(self.n),
            "clean_prompt": [clean for clean, _ in self.prompts],
            "corrupt_prompt": [corrupt for _, corrupt in self.prompts],
        }
        for condition in ("even", "odd", "full", "base", "clean"):
            columns[f"{condition}_success"] = getattr(self.success, condition)
            columns[f"graded_{condition}"] = getattr(self.graded, condition)
        return pd.DataFrame(columns)

    def to_frame(self) -> pd.DataFrame:
        """Rows `strength` and `graded_strength` with their null, then the rates they come from.

        Extra columns: the measured metric and its unit, quantiles of the null, interval over
        pairs, rank, number of splits, exact, task, positions, direction, processing.
        """
        rows = []
        for one, names in (
            (self.success, ("strength", "{}_success")),
            (self.graded, ("graded_strength", "graded_{}")),
        ):
            rows.append(
                {
                    "metric": names[0],
                    "value": one.strength,
                    "null_mean": one.null.mean(),
                    "null_sd": one.null.std(),
                    "p": one.p,
                    "null_q025": one.null_q[0],
                    "null_q05": one.null_q[1],
                    "null_q50": one.null_q[2],
                    "null_q95": one.null_q[3],
                    "null_q975": one.null_q[4],
                    "ci_low": one.ci_low,
                    "ci_high": one.ci_high,
                    "rank": one.rank,
                    "has_effect": one.has_effect,
                    "of": one.metric,
                    "unit": one.unit,
                }
            )
            rows += [
                {
                    "metric": names[1].format(condition),
                    "value": getattr(one, condition).mean(),
                    "of": one.metric,
                    "unit": one.unit,
                }
                for condition in ("even", "odd", "full", "base", "clean")
            ]
        return tidy(
            rows,
            model=self.model,
            step=self.step,
            layer=self.layer,
            n=self.n,
            seed=self.seed,
            n_splits=self.success.n_splits,
            exact=self.exact,
            task=self.task,
            positions=self.positions,
            direction=self.direction,
            processing=self.processing,
        )

    def summary(self) -> str:
        """The finding in plain sentences."""
        where = [f"step {self.step}"] if self.step is not None else []
        where += [f"layer {self.layer}", f"task {self.task}", f"{self.n} distinct prompt pairs"]
        start = ", ".join([*([self.model] if self.model else []), *where]) + "."
        doing = "Restoring" if self.direction == "denoise" else "Corrupting"
        rates = (
            f"{doing} the even heads gives the clean answer in {self.even_success:.0%} of pairs, "
            f"the odd heads in {self.odd_success:.0%}, all heads of the layer in "
            f"{self.full_success:.0%}, none in {self.base_success:.0%} (clean run: "
            f"{self.clean_success:.0%})."
        )
        words = [self._words(self.success, "Success"), self._words(self.graded, "Graded")]
        return " ".join([start, rates, *words])

    def _words(self, one: SplitStrength, name: str) -> str:
        unit = f" {one.unit}" if one.unit else ""
        if not one.has_effect:
            return f"{name} ({one.metric}): no effect to split, no set of heads changes it."
        which = "splits" if self.exact else "sampled splits"
        interval = f"95 % over pairs {one.ci_low:+.3g} to {one.ci_high:+.3g}"
        if self.n == 1:
            interval = "one pair: no interval"
        verdict = "unusual" if one.p < 0.05 else "like an arbitrary split"
        as_strong = round(one.p * one.n_splits)
        return (
            f"{name} ({one.metric}): even minus odd {one.strength:+.3g}{unit} "
            f"({interval}). {as_strong} of {one.n_splits} {which} "
            f"into equal halves are at least as strong (95 % lie within {one.null_q[0]:+.3g} and "
            f"{one.null_q[4]:+.3g}), p = {one.p:.2g}: {verdict}."
        )
