"""The result of ablating clusters of heads on tasks: who matters where, beside random groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headspec.heads import Head
from headspec.results import tidy
from headspec.stats import NullSummary


@dataclass(frozen=True)
class ClusterEffects:
    """Effect of ablating each cluster on each task, against head labels permuted in the layer.

    Attributes:
        effects: metric(ablated) - metric(base run), mean over examples, in the task's unit.
        standardised: effects minus the mean, over the standard deviation, of random sets of the
            same size on that task; 0 where these do not vary.
        null_mean, null_sd: of these random sets.
        cell_p: two-sided p of each effect against them; `cell_q` adjusted over all cells
            (Benjamini-Hochberg).
        interaction: functional specialisation, the residual sum of squares of `standardised` after
            row and column means are removed, against permuted labels; nan with a single task.
        interaction_draws: its null.
        exact: the null holds every assignment of heads to clusters of these sizes.
        base: metric of the base run on each task.
        n: distinct examples of each task.
        clusters: heads of each cluster.
        tasks, metrics, units: of the columns.
        mode: what replaced the heads' outputs.
        n_random, seed: as asked for.
        layer, model, step, processing: where the heads are.
    """

    effects: Float[np.ndarray, "cluster task"]
    standardised: Float[np.ndarray, "cluster task"]
    null_mean: Float[np.ndarray, "cluster task"]
    null_sd: Float[np.ndarray, "cluster task"]
    cell_p: Float[np.ndarray, "cluster task"]
    cell_q: Float[np.ndarray, "cluster task"]
    interaction: NullSummary
    interaction_draws: Float[np.ndarray, " null"]
    exact: bool
    base: Float[np.ndarray, " task"]
    n: Int[np.ndarray, " task"]
    clusters: tuple[tuple[Head, ...], ...]
    tasks: tuple[str, ...]
    metrics: tuple[str, ...]
    units: tuple[str, ...]
    mode: str
    n_random: int
    seed: int
    layer: int
    model: str = ""
    step: int | None = None
    processing: str = "none"

    @property
    def p_value(self) -> float:
        """Share of permuted labels with as much interaction of cluster and task."""
        return self.interaction.p_value

    def to_frame(self) -> pd.DataFrame:
        """One row a cluster and task, then one of `interaction`.

        Extra columns: cluster, heads, task, standardised, q, base, unit, mode, processing. `n`
        counts distinct examples; for the interaction, heads.
        """
        rows = [
            {
                "metric": self.metrics[t],
                "value": self.effects[c, t],
                "null_mean": self.null_mean[c, t],
                "null_sd": self.null_sd[c, t],
                "p": self.cell_p[c, t],
                "n": self.n[t],
                "cluster": c,
                "heads": " ".join(map(str, heads)),
                "task": task,
                "standardised": self.standardised[c, t],
                "q": self.cell_q[c, t],
                "base": self.base[t],
                "unit": self.units[t],
            }
            for c, heads in enumerate(self.clusters)
            for t, task in enumerate(self.tasks)
        ]
        rows.append(
            {
                "metric": "interaction",
                "value": self.interaction.observed,
                "null_mean": self.interaction.mean,
                "null_sd": self.interaction.sd,
                "p": self.p_value,
                "n": sum(map(len, self.clusters)),
            }
        )
        return tidy(
            rows,
            model=self.model,
            step=self.step,
            layer=self.layer,
            seed=self.seed,
            mode=self.mode,
            processing=self.processing,
        )

    @property
    def verdict(self) -> str:
        """What the null says of functional specialisation."""
        if np.isnan(self.interaction.observed):
            return "not decided by a single task"
        if self.p_value < 0.05:
            return "clusters differ in which tasks need them, more than random groups"
        return "not distinguishable from random groups of these sizes"

    def summary(self) -> str:
        """Effects of each cluster, the interaction and its null, in plain sentences."""
        step = "" if self.step is None else f", step {self.step}"
        start = f"{self.model}{step}, " if self.model else ""
        lines = [
            f"{start}layer {self.layer}: clusters of "
            f"{' and '.join(str(len(heads)) for heads in self.clusters)} heads ablated "
            f"({self.mode}) on {len(self.tasks)} tasks."
        ]
        for t, task in enumerate(self.tasks):
            cells = ", ".join(
                f"{self.effects[c, t]:+.3g} (random sets {self.null_mean[c, t]:+.3g}, "
                f"q = {self.cell_q[c, t]:.2g})"
                for c in range(len(self.clusters))
            )
            lines.append(f"{task} ({self.metrics[t]} {self.base[t]:.3g}): {cells}.")
        draws = f"{len(self.interaction_draws)} {'' if self.exact else 'random '}relabellings"
        if not np.isnan(self.interaction.observed):
            lines.append(
                f"Interaction of cluster and task: {self.interaction.observed:.3g}, "
                f"{self.interaction.mean:.3g} on average over {draws}; p = {self.p_value:.2g}: "
                f"{self.verdict}."
            )
        else:
            lines.append(f"Functional specialisation is {self.verdict}.")
        return " ".join(lines)
