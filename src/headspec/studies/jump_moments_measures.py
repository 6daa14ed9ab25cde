"""`measure_moments`: everything there is to see before, during and after jumps and controls."""

from __future__ import annotations

from typing import Any

import pandas as pd

from headspec.errors import InputError, StepNotFoundError
from headspec.results import tidy
from headspec.series.checkpoint_plan_result import CheckpointPlan
from headspec.studies.jump_moments_parts import (
    CheckpointView,
    Row,
    compare_views,
    view_checkpoint,
)
from headspec.training.vision_data import ImageData
from headspec.training.vision_run import VisionRun

PLACES = ("before", "during", "after")
_KEPT = ("moment", "kind", "matched", *PLACES, "phase")


def measure_moments(
    run: VisionRun,
    plan: CheckpointPlan,
    *,
    images: ImageData | None = None,
    n_images: int = 256,
    n_scored: int = 2000,
    n_null: int = 20,
    n_gabor: int = 6,
    device: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Look inside a run before, during and after every moment of a plan, controls included.

    Which measures there are for which architecture, and their definitions, stand with
    `headspec.studies.jump_moments_parts.view_checkpoint` and `compare_views`. Each checkpoint is
    loaded and measured once, however many moments share it.

    Args:
        run: trained with the plan's steps among its checkpoints.
        plan: of `plan_checkpoints` or `identify_moments`.
        images: other images than those the run was trained with; validation images are used.
        n_images: validation images for everything but loss and accuracy, the first.
        n_scored: validation images for loss and accuracy, at most.
        n_null: shuffles for the null of class selectivity.
        n_gabor: filters of the first convolution to which Gabor functions are fitted, the same at
            every checkpoint; 0: none. Some 20 ms a filter, most of the time for a CNN.
        device: where models run; the CPU if None.
        seed: of the nulls.

    Returns:
        Tidy rows `model step layer head metric value null_mean null_sd n seed`, and

        - `moment kind matched before during after phase` of the plan, `moment_layer` its layer;
        - `place`: "before", "during", "after", or "across" for what compares before with after
          (`step` is then that of after); landmarks have "during" alone;
        - `layer_name` and `class`, where they apply.

    Raises:
        StepNotFoundError: a step of the plan has no checkpoint.
        InputError: a plan of another model or seed.

    **What it does not show.** Whether a change belongs to the jump: training changes everything all
    the time. Compare with controls, see `jump_effects`. A checkpoint before or after a jump is
    `spacing` updates away: what went and came back in between is not seen.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import pandas as pd
        >>> from headspec.series.checkpoint_plan import plan_checkpoints
        >>> from headspec.training.vision import train_vision
        >>> from headspec.training.vision_config import VisionConfig
        >>> jumps = pd.DataFrame({"step": [15], "step_before": [10], "magnitude": [0.5]})
        >>> plan = plan_checkpoints(jumps, n_steps=40, steps=np.arange(0, 41, 5), landmarks=())
        >>> config = VisionConfig(model="mlp", steps=40, width=8, checkpoints=plan.steps)
        >>> run = train_vision(config, out=tempfile.mkdtemp() + "/mlp", progress=False)
        >>> frame = measure_moments(run, plan, n_images=50, n_null=0)
        >>> accuracy = frame[frame["metric"] == "accuracy"]
        >>> accuracy[["kind", "place", "step"]].values.tolist()
        [['jump', 'before', 2], ['jump', 'during', 12], ['jump', 'after', 22]]
    """
    _check(run, plan)
    data = run.images if images is None else images
    shown = data.validation_images[: max(n_scored, n_images)].to(device or "cpu")
    labels_shown = data.validation_labels[: len(shown)].to(shown.device)
    moments: Any = plan.moments
    places = pd.concat(
        [moments.assign(place=place, step=moments[place]) for place in PLACES], ignore_index=True
    ).dropna(subset="step")
    windows: Any = moments.dropna(subset=["before", "after"])
    pairs = {(int(a), int(b)) for a, b in zip(windows["before"], windows["after"], strict=True)}
    ends = {step for pair in pairs for step in pair}
    views: dict[int, CheckpointView] = {}
    single: list[Row] = []
    across: list[Row] = []
    for step in sorted({int(each) for each in places["step"]}):
        view, rows = view_checkpoint(
            run.model(step).to(shown.device),
            shown,
            labels_shown,
            n_images=n_images,
            n_null=n_null,
            n_gabor=n_gabor if step in ends else 0,
            seed=seed,
        )
        single += [{"step": step, **row} for row in rows]
        for before, _ in sorted(pair for pair in pairs if pair[1] == step):
            compared = compare_views(views[before] if before != step else view, view)
            across += [{"before": before, "after": step, "step": step, **row} for row in compared]
        if any(before == step for before, _ in pairs):
            views[step] = view
        last = {a: max(b for first, b in pairs if first == a) for a in views}
        views = {a: kept for a, kept in views.items() if last[a] > step}
    labels = places.rename(columns={"layer_name": "moment_layer"})
    labels = labels[[*_KEPT, "moment_layer", "place", "step"]]
    ends_only = labels.loc[labels["place"] == "after"].assign(place="across")
    parts = [labels.merge(pd.DataFrame(single), on="step")]
    if across:
        parts.append(ends_only.merge(pd.DataFrame(across), on=["step", "before", "after"]))
    return _typed(pd.concat(parts, ignore_index=True), run)


def _typed(rows: pd.DataFrame, run: VisionRun) -> pd.DataFrame:
    """Tidy rows, ordered by moment and place, with the same columns whatever was measured."""
    order: Any = {name: i for i, name in enumerate((*PLACES, "across"))}
    for name in ("layer", "head", "class", "layer_name", "null_mean", "null_sd", "n"):
        rows[name] = rows.get(name, None)
    rows = rows.assign(_place=rows["place"].map(order))
    rows = rows.sort_values(["moment", "_place"], kind="stable").drop(columns="_place")
    rows["moment_layer"] = rows["moment_layer"].astype("str")
    rows = rows.astype(dict.fromkeys(("class", *PLACES), "Int64"))
    return tidy(rows, model=run.config.model, seed=run.config.seed)


def _check(run: VisionRun, plan: CheckpointPlan) -> None:
    names = {str(name) for name in plan.moments["model"]} - {"", run.config.model}
    seeds = {int(seed) for seed in plan.moments["seed"].dropna()} - {run.config.seed}
    if names or seeds:
        raise InputError(
            expected=f"a plan for {run.config.model}, seed {run.config.seed}",
            got=f"one for {', '.join(sorted(names)) or run.config.model}, seeds "
            f"{sorted(seeds) or [run.config.seed]}",
            fix="Every run has jumps, and so a plan, of its own.",
        )
    missing = sorted(set(plan.steps) - set(run.steps))
    if missing:
        raise StepNotFoundError(
            expected=f"checkpoints at all {len(plan.steps)} steps of the plan",
            got=f"none at {', '.join(map(str, missing[:8]))}",
            fix="Train the same config again, into another folder, with checkpoints=plan.steps: "
            "its numbers stay the same.",
        )
