"""Trainings and measurements of the topic-ordering study; what is finished is not done again."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from headspec.results import Provenance, load, load_provenance, save
from headspec.studies.topic_conditions import FACTOR_LEVELS, TopicCondition
from headspec.studies.topic_measures import measure_topic_model
from headspec.studies.topic_references import reference_rows
from headspec.studies.topic_scales import TopicScale
from headspec.training.recalibration import recalibrate
from headspec.training.token_data import open_token_data
from headspec.training.trainer import train
from headspec.training.training_run import TrainingRun, open_run

_MEASURES = 1  # part of what a saved measurement must match; counts changes of what is measured


@dataclass(frozen=True)
class TopicStudy:
    """Everything the study measured.

    Attributes:
        frame: rows of `measure_topic_model` of all conditions and seeds, with the columns
            `condition attention ordering position`.
        references: rows of `reference_rows`: what the data alone allow.
        logs: training and validation losses by step, with the same columns.
        folder: holds `data`, `runs` and `measured`.
        scale, seeds: what was run.
    """

    frame: pd.DataFrame
    references: pd.DataFrame
    logs: pd.DataFrame
    folder: str
    scale: TopicScale
    seeds: tuple[int, ...]

    def suite(self, condition: str, seed: int) -> Any:
        """The checkpoints of one run."""
        return open_run(Path(self.folder) / "runs" / f"{condition}_seed{seed}").suite


def run_topic_study(
    scale: TopicScale,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    out: str | Path,
    device: str | None = None,
    jobs: int = 1,
    progress: bool = True,
) -> TopicStudy:
    """Train, recalibrate and measure every condition with every seed.

    One data set serves all. A model with DroPE is the one with RoPE, its embeddings removed, and
    recalibrated on the same shuffled sequences in every condition of a seed. Trainings that were
    interrupted go on where they were, finished ones are not repeated, and measurements are kept
    under `out/measured` with the hash of the weights they belong to.

    Args:
        scale: of `topic_scale`, changed or not.
        seeds: of initial weights and the order of the data, at least three for an interval that
            says something.
        out: folder for data, runs and measurements.
        device: for training and measuring; CUDA where there is one, else the CPU.
        jobs: trainings at a time, in processes of their own, each with its share of the threads.
        progress: show bars and lines.

    Returns:
        A `TopicStudy`.
    """
    folder = Path(out)
    data = folder / "data"
    scale.data(data)
    trainings = [
        (condition, seed)
        for seed in seeds
        for condition in scale.conditions
        if condition.position == FACTOR_LEVELS["position"][0]
    ]
    work = partial(
        _train_and_measure, scale=scale, out=folder, device=device, progress=progress and jobs == 1
    )
    if jobs > 1:
        threads = max(1, torch.get_num_threads() // jobs)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(
            jobs, mp_context=context, initializer=torch.set_num_threads, initargs=(threads,)
        ) as pool:
            for number, name in enumerate(pool.map(work, trainings), start=1):
                _say(f"{name}: {number} of {len(trainings)} trainings done", progress)
    else:
        for number, one in enumerate(trainings, start=1):
            _say(f"{work(one)}: {number} of {len(trainings)} trainings done", progress)
    return _collect(scale, tuple(seeds), folder)


def train_topic_model(
    scale: TopicScale,
    condition: TopicCondition,
    *,
    seed: int,
    out: str | Path,
    device: str | None = None,
    progress: bool = True,
) -> TrainingRun:
    """The trained model of a condition; with DroPE, the model with RoPE is trained first.

    Args:
        scale, seed, out, device, progress: as in `run_topic_study`.
        condition: which.

    Returns:
        The finished run, at once if it lies there.
    """
    folder = Path(out)
    trained = train(
        scale.config(condition, seed=seed, data=folder / "data"),
        out=folder / "runs" / f"{condition.run}_rope_seed{seed}",
        progress=progress,
        device=device,
    )
    if condition.position == "rope":
        return trained
    return recalibrate(
        trained,
        out=folder / "runs" / f"{condition.name}_seed{seed}",
        steps=scale.recalibration_steps,
        ordering=scale.recalibration_ordering,
        checkpoints=(0, scale.recalibration_steps),
        progress=progress,
        device=device,
    )


def measure_topic_run(
    scale: TopicScale,
    condition: TopicCondition,
    *,
    run: TrainingRun,
    out: str | Path,
    device: str | None = None,
) -> pd.DataFrame:
    """Measurements of a finished run: those saved under `out`, if they are of these weights.

    Args:
        scale, out, device: as in `run_topic_study`.
        condition: of the run.
        run: which.
    """
    seed, step = run.config.seed, run.config.steps
    path = Path(out) / "measured" / f"{condition.name}_seed{seed}.parquet"
    suite = run.suite
    arguments = {"n_measured": scale.n_measured, "n_published": scale.n_published}
    provenance = Provenance.collect(
        suite, steps=[step], seeds=seed, arguments={**arguments, "measures": _MEASURES}
    )
    if path.exists():
        before = load_provenance(path)
        same = before is not None and before.hashes == provenance.hashes
        if same and before is not None and before.arguments == provenance.arguments:
            return load(path)
    data = open_token_data(Path(out) / "data", split="validation")
    rows = slice(0, scale.n_measured)
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    frame = measure_topic_model(
        suite.model(step, device=where),
        torch.from_numpy(np.asarray(data.tokens[rows]).astype(np.int64)),
        torch.from_numpy(np.asarray(data.labels[rows]).astype(np.int64)),
        n_published=scale.n_published,
    )
    frame["step"] = pd.array([step] * len(frame), dtype="Int64")
    save(condition.label_rows(frame, seed=seed), path, provenance=provenance)
    return load(path)


def _train_and_measure(
    one: tuple[TopicCondition, int],
    *,
    scale: TopicScale,
    out: Path,
    device: str | None,
    progress: bool,
) -> str:
    """Both positions of a training; the name of it."""
    condition, seed = one
    for each in scale.conditions:
        if each.run == condition.run:
            run = train_topic_model(
                scale, each, seed=seed, out=out, device=device, progress=progress
            )
            measure_topic_run(scale, each, run=run, out=out, device=device)
    return f"{condition.run}, seed {seed}"


def _collect(scale: TopicScale, seeds: tuple[int, ...], out: Path) -> TopicStudy:
    """Read what the trainings left."""
    frames, logs = [], []
    for seed in seeds:
        for condition in scale.conditions:
            run = open_run(out / "runs" / f"{condition.name}_seed{seed}")
            frames.append(measure_topic_run(scale, condition, run=run, out=out))
            logs.append(condition.label_rows(run.to_frame(), seed=seed))
    return TopicStudy(
        frame=pd.concat(frames, ignore_index=True),
        references=reference_rows(scale, out / "data"),
        logs=pd.concat(logs, ignore_index=True),
        folder=str(out),
        scale=scale,
        seeds=seeds,
    )


def _say(words: str, progress: bool) -> None:
    if progress:
        print(words, flush=True)
