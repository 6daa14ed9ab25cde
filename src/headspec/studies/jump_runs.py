"""Two passes of every training of the jumps study; what is finished is not done again."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from headspec.errors import CheckpointError
from headspec.results import Provenance, load, load_provenance, save
from headspec.series.checkpoint_plan_result import CheckpointPlan
from headspec.series.jump_result import Jumps
from headspec.studies.jump_moments import CriticalMoments, identify_moments
from headspec.studies.jump_moments_measures import measure_moments
from headspec.studies.jump_scales import JumpScale
from headspec.training.vision import train_vision
from headspec.training.vision_config import Architecture
from headspec.training.vision_run import VisionRun, open_vision_run

_MEASURES = 1  # part of what saved measurements must match; counts changes of what is measured


@dataclass(frozen=True, eq=False)
class JumpStudy:
    """Everything the study measured.

    Attributes:
        dimensionality: the curves of all runs, from the first pass.
        jumps: what the calibrated rule finds in them.
        logs: losses by update, with `model` and `seed`.
        accuracy: by class over time, with `model` and `seed`.
        moments: rows of `measure_moments` of all runs, from the second pass.
        plans: rows of `CriticalMoments.frame` of all runs: what was looked into.
        folder: holds `runs`, `plans` and `measured`.
        scale, seeds: what was run.
    """

    dimensionality: pd.DataFrame
    jumps: Jumps
    logs: pd.DataFrame
    accuracy: pd.DataFrame
    moments: pd.DataFrame
    plans: pd.DataFrame
    folder: str
    scale: JumpScale
    seeds: tuple[int, ...]

    def run(self, model: str, seed: int) -> VisionRun:
        """The second pass of a training: the one with checkpoints at the planned steps."""
        return open_vision_run(_folders(Path(self.folder), model, seed)[1])


def run_jump_study(
    scale: JumpScale,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    out: str | Path,
    device: str | None = None,
    jobs: int = 1,
    progress: bool = True,
) -> JumpStudy:
    """Train every architecture with every seed, find its jumps, and train it again to look inside.

    The first pass logs the dimensionality of all layers. Its jumps, with matched controls and
    landmarks, make a plan of checkpoints (a JSON file under `out/plans`). The second pass repeats
    the training from the same seed with checkpoints at these steps; its losses have to be the
    same, number for number. Then the models before, during and after each moment are measured.
    Whatever was interrupted goes on where it was, and whatever is finished is not repeated.

    Args:
        scale: of `jump_scale`, changed or not.
        seeds: of the trainings, at least three for an interval that says something.
        out: folder for runs, plans and measurements.
        device: for training; CUDA where there is one, else the CPU. On a GPU sums may be added in
            another order from run to run: losses may then differ by 1e-3 of their size.
        jobs: trainings at a time, in processes of their own, each with its share of the threads.
        progress: show bars, and lines with the time left.

    Returns:
        A `JumpStudy`.

    Raises:
        CheckpointError: the second pass had other losses than the first.
    """
    folder = Path(out)
    trainings: list[tuple[Architecture, int]] = [
        (model, seed) for model in scale.models for seed in seeds
    ]
    alone = jobs == 1
    work = partial(train_twice, scale=scale, out=folder, device=device, progress=progress and alone)
    start = time.monotonic()
    if alone:
        for number, (model, seed) in enumerate(trainings, start=1):
            work(model, seed=seed)
            _tell(f"{model}, seed {seed}", number, len(trainings), start, progress)
    else:
        threads = max(1, torch.get_num_threads() // jobs)
        with ProcessPoolExecutor(
            jobs,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=torch.set_num_threads,
            initargs=(threads,),
        ) as pool:
            waiting = {
                pool.submit(work, model, seed=seed): f"{model}, seed {seed}"
                for model, seed in trainings
            }
            for number, done in enumerate(as_completed(waiting), start=1):
                if done.exception():
                    pool.shutdown(cancel_futures=True)
                done.result()
                _tell(waiting[done], number, len(trainings), start, progress)
    return _collect(scale, tuple(seeds), folder)


def train_twice(
    model: Architecture,
    *,
    seed: int,
    scale: JumpScale,
    out: Path,
    device: str | None = None,
    progress: bool = True,
) -> None:
    """Both passes of one training, and the measurements between them and after.

    Args:
        model: architecture.
        seed, scale, out, device, progress: as in `run_jump_study`.

    Raises:
        CheckpointError: the second pass had other losses than the first.
    """
    first_folder, second_folder, plan_file, _ = _folders(out, model, seed)
    train = partial(train_vision, device=device, progress=progress)
    first = train(scale.config(model, seed=seed), out=first_folder)
    plan = find_moments(first, scale).plan
    plan.to_json(plan_file)
    second = train(scale.config(model, seed=seed, checkpoints=plan.steps), out=second_folder)
    check_same_losses(first, second)
    measured_moments(second, plan, scale, out=out)


def find_moments(run: VisionRun, scale: JumpScale) -> CriticalMoments:
    """Jumps of all layers and metrics of a first pass, their controls and the plan of checkpoints.

    Args:
        run: the first pass.
        scale: how many.
    """
    return identify_moments(
        run,
        n_jumps=scale.n_jumps,
        metrics=None,
        controls=scale.controls,
        fill=scale.candidates,
        false_positives=scale.false_positives,
        seed=run.config.seed,
    )


def check_same_losses(first: VisionRun, second: VisionRun) -> None:
    """Raise unless two passes of a training had the same losses.

    Args:
        first, second: runs of one seed.

    Raises:
        CheckpointError: they differ: on a CPU in any bit, on a GPU by more than a thousandth.
    """
    one, other = (run.log["loss"].to_numpy(float) for run in (first, second))
    tolerance = 1e-3 if torch.cuda.is_available() else 0.0
    n = min(len(one), len(other))
    same = np.isclose(one[:n], other[:n], rtol=tolerance, atol=0, equal_nan=True)
    if len(one) != len(other) or not same.all():
        raise CheckpointError(
            expected=f"the losses of {first.folder} in {second.folder} too",
            got=f"{len(one)} and {len(other)} of them, the first other one at update "
            f"{int(np.argmin(same)) if not same.all() else n}",
            fix="Remove both folders and train again, on the same machine and number of threads.",
        )


def measured_moments(
    run: VisionRun, plan: CheckpointPlan, scale: JumpScale, *, out: Path
) -> pd.DataFrame:
    """Rows of `measure_moments`: those saved under `out/measured`, if they are of this run.

    Args:
        run: the second pass.
        plan: its moments.
        scale: how many images and filters.
        out: of the study.
    """
    path = _folders(out, run.config.model, run.config.seed)[3]
    how: dict[str, Any] = {"n_images": scale.n_images, "n_gabor": scale.n_gabor}
    arguments = {
        **how,
        "config": run.config.to_dict(),
        "moments": [list(steps) for steps in plan.moment_steps],
        "measures": _MEASURES,
    }
    provenance = Provenance.collect(seeds=run.config.seed, arguments=arguments)
    if path.exists():
        before = load_provenance(path)
        if before is not None and before.arguments == provenance.arguments:
            return load(path)
    rows = measure_moments(run, plan, **how)
    text = {name: "str" for name in rows if rows[name].dtype == object}
    save(rows.astype(text), path, provenance=provenance)
    return load(path)


def _folders(out: Path, model: str, seed: int) -> tuple[Path, Path, Path, Path]:
    """First pass, second pass, plan, measurements."""
    name = f"{model}_seed{seed}"
    return (
        out / "runs" / "first" / name,
        out / "runs" / "second" / name,
        out / "plans" / f"{name}.json",
        out / "measured" / f"{name}.parquet",
    )


def _collect(scale: JumpScale, seeds: tuple[int, ...], out: Path) -> JumpStudy:
    """Read what the trainings left."""
    parts: dict[str, list[pd.DataFrame]] = {
        name: []
        for name in ("dimensionality", "table", "curves", "logs", "accuracy", "moments", "plans")
    }
    found = None
    for model in scale.models:
        for seed in seeds:
            first, second = (open_vision_run(path) for path in _folders(out, model, seed)[:2])
            found = find_moments(first, scale)
            labels = {"model": model, "seed": seed}
            parts["dimensionality"].append(first.dimensionality)
            parts["table"].append(found.jumps.table)
            parts["curves"].append(found.jumps.curves)
            parts["logs"].append(first.log.assign(**labels))
            parts["accuracy"].append(first.accuracy.assign(**labels))
            parts["moments"].append(measured_moments(second, found.plan, scale, out=out))
            parts["plans"].append(found.frame)
    assert found is not None
    joined = {name: _joined(frames) for name, frames in parts.items()}
    jumps = replace(found.jumps, table=joined.pop("table"), curves=joined.pop("curves"))
    return JumpStudy(**joined, jumps=jumps, folder=str(out), scale=scale, seeds=seeds)


def _joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """One frame; those without rows only where all are (their dtypes would win otherwise)."""
    return pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)


def _tell(name: str, done: int, n: int, start: float, progress: bool) -> None:
    if progress:
        left = (time.monotonic() - start) / done * (n - done)
        print(f"{name}: {done} of {n} trainings done, about {left:.0f} s left", flush=True)
