"""The result of attribution: estimated effects, and how far exact patching bears them out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats as scipy_stats

from headspec.interventions.effects import HeadEffects

_LOW = 0.8
"""Rank correlations below this are called low."""

_ROUNDING = 1e-5
"""Effects that differ by less than this share of the metric differ by float32 rounding."""


@dataclass(frozen=True)
class HeadAttribution:
    """What gradients say that patching heads would do, beside exact patching on a sample.

    Attributes:
        attributed: the attributions, on the grid of `patch_heads`.
        exact: exact effects of the checked rows; 0 for rows that cannot change (positions before
            the prompts differ); nan elsewhere.
        checked: which rows were patched exactly, of those that can change.
        layers: layers that were attributed.
        layer_sums: sum of the attributions of all heads of each layer.
        layer_effects: what patching all heads of each layer together does.
        method, n_steps: how.
    """

    attributed: HeadEffects
    exact: Float[np.ndarray, "row example"]
    checked: tuple[int, ...]
    layers: tuple[int, ...]
    layer_sums: Float[np.ndarray, "layer example"]
    layer_effects: Float[np.ndarray, "layer example"]
    method: str
    n_steps: int

    @property
    def effect(self) -> np.ndarray:
        """Mean attribution over examples, shaped as `HeadEffects.effect`."""
        return self.attributed.effect

    @property
    def per_example(self) -> np.ndarray:
        """Attributions in each example, shaped as `HeadEffects.per_example`."""
        return self.attributed.per_example

    @property
    def ci_low(self) -> np.ndarray:
        """Lower ends of bootstrap intervals of the attributions (not of the exact effects)."""
        return self.attributed.ci_low

    @property
    def ci_high(self) -> np.ndarray:
        """Upper ends of bootstrap intervals of the attributions (not of the exact effects)."""
        return self.attributed.ci_high

    @property
    def n(self) -> int:
        """Distinct examples."""
        return self.attributed.n

    @property
    def rank_correlation(self) -> float:
        """Spearman correlation of attributed and exact mean effects over the checked rows.

        nan for fewer than three rows, or where all effects are equal to rounding.
        """
        return self._correlation(scipy_stats.spearmanr)

    @property
    def pearson(self) -> float:
        """Pearson correlation of the same: led by the largest effects."""
        return self._correlation(scipy_stats.pearsonr)

    @property
    def slope(self) -> float:
        """Exact effects regressed on attributed ones through 0: above 1, attribution is too small.

        A high correlation says that heads are in the right order; not that sizes are right.
        """
        estimated, exact = self._checked()
        square = float(estimated @ estimated)
        return float(estimated @ exact) / square if square else float("nan")

    @property
    def completeness_error(self) -> Float[np.ndarray, " layer"]:
        """For each attributed layer: |sum of attributions - effect of the whole layer|.

        Mean over examples. For integrated gradients it is the error of the numerical integral,
        which more steps lower; for plain gradients how far the layer is from linear.
        """
        return np.abs(self.layer_sums - self.layer_effects).mean(1)

    def _checked(self) -> tuple[np.ndarray, np.ndarray]:
        rows = list(self.checked)
        return self.attributed.values[rows].mean(1), self.exact[rows].mean(1)

    def _correlation(self, function) -> float:
        estimated, exact = self._checked()
        if len(exact) < 3:
            return float("nan")
        rounding = _ROUNDING * max(np.abs(self.attributed.base).max(), np.abs(exact).max())
        if np.ptp(estimated) <= rounding or np.ptp(exact) <= rounding:
            return float("nan")
        return float(function(estimated, exact).statistic)

    def to_frame(self) -> pd.DataFrame:
        """The frame of `HeadEffects`, `value` being the attribution, with the check beside it.

        Extra columns: exact mean effect (nan where not checked), method, steps, number of checked
        rows, rank correlation, Pearson correlation, slope, error of completeness of the row's
        layer.
        """
        frame = self.attributed.to_frame()
        errors = dict(zip(self.layers, self.completeness_error, strict=True))
        frame["exact"] = self.exact.mean(1)
        frame["method"] = self.method
        frame["n_steps"] = self.n_steps
        frame["n_checked"] = len(self.checked)
        frame["rank_correlation"] = self.rank_correlation
        frame["pearson"] = self.pearson
        frame["slope"] = self.slope
        frame["completeness_error"] = [
            float("nan") if layer is None else errors[layer] for layer in self.attributed.layers
        ]
        return frame

    def summary(self, *, top: int = 5) -> str:
        """Whether the screen can be trusted, then what it finds.

        Args:
            top: attributions to name.
        """
        name = self.method.replace("_", " ")
        steps = f" ({self.n_steps} steps)" if self.method == "integrated_gradients" else ""
        worst = int(self.completeness_error.argmax())
        error, whole = self.completeness_error[worst], np.abs(self.layer_effects).mean(1)[worst]
        return " ".join(
            [
                f"Attribution by {name}{steps}: rank correlation with exact patching "
                f"{self.rank_correlation:.2f} (Pearson {self.pearson:.2f}, slope "
                f"{self.slope:.2f}) over {len(self.checked)} of {len(self.exact)} rows.",
                *self._warning(),
                f"Sums over a layer miss the effect of the whole layer by up to {error:.2g} "
                f"(layer {self.layers[worst]}, where it is {whole:.2g}; mean absolute values).",
                self.attributed.summary(top=top),
            ]
        )

    def _warning(self) -> list[str]:
        if np.isnan(self.rank_correlation):
            return ["Too few or equal effects to correlate: this screen is unchecked."]
        if self.rank_correlation >= _LOW:
            return []
        other = (
            "integrated gradients may do better; "
            if self.method == "gradient"
            else "try more n_steps; "
        )
        return [f"WARNING: that is low. Do not rank heads by it: {other}patch_heads is exact."]
