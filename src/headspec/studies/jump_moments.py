"""The critical moments of a run: its jumps, the largest other changes, and what to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from headspec.errors import InputError
from headspec.results import tidy
from headspec.series.checkpoint_plan import Select, plan_checkpoints
from headspec.series.checkpoint_plan_result import CheckpointPlan
from headspec.series.jump_result import Jumps, Method
from headspec.series.jumps import detect_jumps
from headspec.training.vision_run import VisionRun

METRICS = ("stable_rank", "participation_ratio", "effective_rank")
"""Measures of dimensionality in which jumps are looked for unless others are named."""


@dataclass(frozen=True, eq=False)
class CriticalMoments:
    """When to look inside a run.

    Attributes:
        frame: the plan's moments with the column `detected`: True for jumps that the detector
            found, False for the largest other changes (kind `"candidate"`), controls and landmarks.
        plan: their checkpoints; `train_vision` takes `plan.steps` as `checkpoints=`.
        jumps: all jumps of the run, also those that were not chosen, and the curves examined.
        n_asked: how many jumps were asked for.
    """

    frame: pd.DataFrame
    plan: CheckpointPlan
    jumps: Jumps
    n_asked: int

    def to_frame(self) -> pd.DataFrame:
        """One tidy row a moment: `step` is `during`, `value` the magnitude."""
        rows = self.frame.assign(step=self.frame["during"], value=self.frame["magnitude"])
        return tidy(rows)

    def summary(self) -> str:
        """What was found and what stands in for it, in plain words."""
        kinds = self.frame["kind"].tolist()
        n_jumps, n_others = kinds.count("jump"), kinds.count("candidate")
        text = f"{len(self.jumps)} jumps detected, {n_jumps} of {self.n_asked} asked for chosen."
        if n_others:
            text += (
                f" {n_others} largest changes follow, which are no jumps by the detector "
                "(detected=False): what is seen there is seen at chosen steps."
            )
        return f"{text}\n{self.plan.summary()}"


def identify_moments(
    run: VisionRun,
    *,
    n_jumps: int = 5,
    select: Select = "coverage",
    metrics: Sequence[str] | None = METRICS,
    controls: int = 1,
    fill: bool = True,
    spacing: int | None = None,
    method: Method = "calibrated",
    false_positives: float | int = 1.0,
    seed: int = 0,
) -> CriticalMoments:
    """The moments of a run worth a checkpoint before, during and after, with controls.

    Jumps are those of `detect_jumps` in the dimensionality that was logged; `plan_checkpoints`
    chooses among them and adds to each a control: a window of the same width, as far into training
    and without a jump. Where fewer jumps are detected than asked for, the largest changes follow
    in units of their curve's noise, one a place and away from all jumps; they are marked, have the
    kind `"candidate"`, and `jump_effects` leaves them out unless it is asked for them.

    Args:
        run: of `train_vision`, with `measure_every` above 0.
        n_jumps: how many jumps (with `fill`: moments) at most.
        select: representative jumps, as in `plan_checkpoints`.
        metrics: measures of dimensionality to look at; None: all that were logged.
        controls: controls of each moment.
        fill: whether the largest changes follow.
        spacing: updates between the checkpoints of a moment; None: two measuring intervals.
        method, false_positives: as in `detect_jumps`.
        seed: of the choice of controls.

    Returns:
        A `CriticalMoments`.

    Raises:
        InputError: a run without dimensionality, or without the metrics named.

    What it does not show: that a candidate is anything but the largest of many ordinary changes.

    Example:
        >>> import tempfile
        >>> from headspec.training.vision import train_vision
        >>> from headspec.training.vision_config import VisionConfig
        >>> config = VisionConfig(model="mlp", steps=200, width=8)
        >>> run = train_vision(config, out=tempfile.mkdtemp() + "/mlp", progress=False)
        >>> found = identify_moments(run, n_jumps=2)
        >>> sorted(set(found.frame["kind"]) - {"jump", "candidate"})
        ['control', 'landmark']
    """
    rows = _logged(run, metrics)
    steps = np.unique(rows["step"].to_numpy(np.int64))
    jumps = detect_jumps(
        rows,
        method=method,
        n_steps=run.config.steps,
        false_positives=false_positives,
    )
    lacking = max(0, n_jumps - len(jumps)) if fill else 0
    changes = largest_changes(rows, jumps, n=lacking)
    plan = plan_checkpoints(
        jumps,
        n_steps=run.config.steps,
        n_jumps=n_jumps,
        select=select,
        spacing=spacing,
        controls=controls,
        candidates=tuple(int(step) for step in changes["step"]),
        steps=steps,
        checkpoint_bytes=_checkpoint_bytes(run),
        seed=seed,
    )
    moments = _named(plan.moments, changes, run)
    frame = moments.assign(detected=moments["kind"] == "jump")
    return CriticalMoments(frame, replace(plan, moments=moments), jumps, n_jumps)


def largest_changes(rows: pd.DataFrame, jumps: Jumps, *, n: int, guard: int = 4) -> pd.DataFrame:
    """The largest changes between two measurements that are no jumps, one a place.

    Sizes are in units of the noise of their curve; curves below their resolution have none.

    Args:
        rows: the dimensionality frame of one run.
        jumps: of the same rows.
        n: how many.
        guard: measurements between two of them, and between them and every jump.

    Returns:
        Rows `step layer layer_name metric magnitude score`, the largest score first.
    """
    labels = ["layer", "layer_name", "metric"]
    curves: Any = jumps.curves
    noise = {
        (str(name), str(metric)): float(sd)
        for name, metric, sd in zip(
            curves["layer_name"], curves["metric"], curves["noise_sd"], strict=True
        )
    }
    parts = []
    ordered: Any = rows.sort_values("step", kind="stable").groupby(labels, sort=False)
    for (layer, name, metric), curve in ordered:
        sd = noise.get((str(name), str(metric)), np.nan)
        change = np.abs(np.diff(curve["value"].to_numpy(float)))
        if n and np.isfinite(sd) and sd > 0:
            where = {"layer": layer, "layer_name": name, "metric": metric}
            sizes = {"magnitude": change, "score": change / sd}
            parts.append(pd.DataFrame({"step": curve["step"].to_numpy()[1:], **where, **sizes}))
    columns = ["step", *labels, "magnitude", "score"]
    if not parts:
        return pd.DataFrame(columns=columns)
    every = pd.concat(parts).sort_values("score", ascending=False, kind="stable")
    places = np.unique(rows["step"].to_numpy(np.int64))
    taken = [int(np.searchsorted(places, step)) for step in jumps.table["step"]]
    chosen: list[int] = []
    for i, step in enumerate(every["step"].astype(int)):
        place = int(np.searchsorted(places, step))
        if all(abs(place - other) >= guard for other in taken):
            chosen.append(i)
            taken.append(place)
        if len(chosen) == n:
            break
    return every.iloc[chosen][columns].reset_index(drop=True)


def _logged(run: VisionRun, metrics: Sequence[str] | None) -> pd.DataFrame:
    rows = run.dimensionality
    known = list(dict.fromkeys(rows["metric"]))
    asked = known if metrics is None else list(metrics)
    missing = [name for name in asked if name not in known]
    if not known or missing:
        raise InputError(
            expected=f"a run whose log holds {', '.join(asked) or 'dimensionality'}",
            got=f"{', '.join(known) or 'none: measure_every=0'} in {run.folder.name}",
            fix="Train with VisionConfig(measure_every=5), or name other metrics.",
        )
    return rows.loc[rows["metric"].isin(asked)]


def _named(moments: Any, changes: Any, run: VisionRun) -> pd.DataFrame:
    """Moments with the layer, metric and size of the candidates, and the run in every row."""
    rows = moments.assign(model=run.config.model)
    rows["seed"] = pd.array([run.config.seed] * len(rows), dtype="Int64")
    for change in changes.to_dict("records"):
        here = (rows["kind"] == "candidate") & (rows["during"] == int(change["step"]))
        for name in ("layer_name", "metric", "magnitude"):
            rows.loc[here, name] = change[name]
    owners = rows.set_index("moment")
    for name in ("layer_name", "metric"):  # of a control: those of what it is compared with
        own = rows["matched"].map(owners[name].to_dict())
        rows[name] = rows[name].where(own.isna(), own).astype("str")
    return rows


def _checkpoint_bytes(run: VisionRun) -> int | None:
    files = run.folder / f"step{run.config.steps}"
    return sum(path.stat().st_size for path in files.iterdir()) if files.is_dir() else None
