"""The result of ablating clusters of heads on tasks: who matters where, beside random groups."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headspec.errors import InputError
from headspec.heads import Head
from headspec.interventions.interaction import tested_interaction
from headspec.results import tidy
from headspec.stats import NullSummary, false_discovery_rate

_CELLS = ("effects", "standardised", "null_mean", "null_sd", "cell_p")


@dataclass(frozen=True)
class ClusterEffects:
    """Effect of ablating each cluster on each task, against head labels permuted in the layer.

    Attributes:
        effects: metric(ablated) - metric(base run), mean over examples, in the task's unit.
        standardised: effects minus the mean, over the standard deviation, of random sets of the
            same size on that task; 0 for tasks left out.
        null_mean, null_sd: of these random sets.
        cell_p: two-sided p of each effect against them; `cell_q` adjusted over all cells
            (Benjamini-Hochberg).
        interaction: functional specialisation, the residual sum of squares of `standardised` after
            row and column means are removed, against permuted labels; nan with fewer than two
            tasks that are not left out.
        interaction_draws: its null.
        exact: the null holds every assignment of heads to clusters of these sizes.
        base: metric of the base run on each task.
        n: distinct examples of each task.
        clusters: heads of each cluster.
        tasks, metrics, units: of the columns.
        mode: what replaced the heads' outputs.
        n_random, seed: as asked for.
        layer, model, step, processing: where the heads are.
        left_out: tasks whose effects over random sets do not vary beyond rounding, or are not
            finite; they have no part in the interaction.
        standardised_draws: `standardised` under permuted labels, from which `among` draws; None:
            not kept.
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
    left_out: tuple[str, ...] = ()
    standardised_draws: Float[np.ndarray, "null cluster task"] | None = None

    @property
    def p_value(self) -> float:
        """Share of permuted labels with as much interaction of cluster and task."""
        return self.interaction.p_value

    def among(self, tasks: Iterable[str]) -> ClusterEffects:
        """The same for some of the tasks: cells of these, q over these, their interaction.

        Args:
            tasks: names, in any order; unknown ones are an error.

        Raises:
            InputError: a task that was not run, or no draws to take the interaction from.
        """
        wanted = set(tasks)
        if wanted == set(self.tasks):
            return self
        if not wanted or wanted - set(self.tasks) or self.standardised_draws is None:
            raise InputError(
                expected=f"some of the tasks {', '.join(self.tasks)}, and kept draws",
                got=f"{', '.join(sorted(wanted)) or 'none'}; draws "
                + ("not kept" if self.standardised_draws is None else "kept"),
                fix="Run cluster_effects on the tasks in question.",
            )
        at = [t for t, task in enumerate(self.tasks) if task in wanted]
        names = tuple(self.tasks[t] for t in at)
        decides = np.array([name not in self.left_out for name in names])
        drawn = self.standardised_draws[..., at]
        interaction, draws = tested_interaction(
            self.standardised[:, at], drawn, decides, exact=self.exact
        )
        return replace(
            self,
            **{name: getattr(self, name)[:, at] for name in _CELLS},
            cell_q=false_discovery_rate(self.cell_p[:, at]),
            interaction=interaction,
            interaction_draws=draws,
            standardised_draws=drawn,
            base=self.base[at],
            n=self.n[at],
            tasks=names,
            metrics=tuple(self.metrics[t] for t in at),
            units=tuple(self.units[t] for t in at),
            left_out=tuple(name for name in names if name in self.left_out),
        )

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
            return (
                "not decided by a single task"
                if len(self.tasks) == 1
                else "not decided, with fewer than two tasks that heads change beyond rounding"
            )
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
        if self.left_out:
            lines.append(
                f"Left out of the interaction, since effects there do not vary beyond rounding or "
                f"are not finite: {', '.join(self.left_out)}."
            )
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
