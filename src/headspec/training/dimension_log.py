"""Dimensionality of every layer while a model of images is trained, on the same images each time.

One forward pass gives the activations of all layers and the accuracy of each class.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from headspec.activations.dimensionality import dimensionality_stats
from headspec.activations.dimensionality_formulas import measures
from headspec.activations.dimensionality_result import METRICS
from headspec.results import tidy
from headspec.training.train_log import TrainLog, read_rows
from headspec.training.vision_config import Samples
from headspec.training.vision_models import VisionModel

DIMENSION_FILE = "dimensionality.csv"
ACCURACY_FILE = "accuracy.csv"
_TOGETHER = 500_000
"""Numbers computed together, for speed."""
_ROUNDINGS = 10  # errors of the products before an activation, see `dimensionality_stats`
_RESOLUTIONS = tuple(f"{name}_resolution" for name in METRICS)
_DIMENSION_COLUMNS = ("step", "layer", *METRICS, *_RESOLUTIONS)
_ACCURACY_COLUMNS = ("step", "class", "value", "loss", "n")


class DimensionLog:
    """An observer of `run_loop` that writes `dimensionality.csv` and `accuracy.csv`.

    Floats are written so that they read back as the same bits; when a run resumes, rows of later
    steps are cut off.

    Args:
        folder: of the run.
        model: what is measured.
        images: on which, always the same, on the model's device.
        labels: their classes.
        n_classes: number of classes.
        samples: rows of the measured matrices, as in `VisionModel.activations`.
        resolve_every: updates between two measurements of the resolution, which costs more than
            all else; between them the larger of both neighbours holds.
        last: step at which it is measured too.
    """

    def __init__(
        self,
        folder: Path,
        model: VisionModel,
        *,
        images: Float[Tensor, "image 1 height width"],
        labels: Int64[Tensor, " image"],
        n_classes: int,
        samples: Samples = "images",
        resolve_every: int = 500,
        last: int = 0,
    ) -> None:
        self.resolve_every, self.last = resolve_every, last
        self.folder, self.model = folder, model
        self.images, self.labels = images, labels
        self.samples: Samples = samples
        self.counts = torch.bincount(labels, minlength=n_classes)
        self._pending: dict[int, dict[str, Tensor]] = {}
        self._rows: dict[str, list[dict[str, float | int]]] = {}
        self._logs: dict[str, TrainLog] = {}

    def begin(self, step: int | None) -> None:
        """Open the files; rows after a step (None: all) are removed."""
        for name, columns in (
            (DIMENSION_FILE, _DIMENSION_COLUMNS),
            (ACCURACY_FILE, _ACCURACY_COLUMNS),
        ):
            self._logs[name] = TrainLog(self.folder / name, resume_step=step, columns=columns)
            self._rows[name] = []

    def measure(self, step: int) -> None:
        """One forward pass; its numbers are computed with those of the next few."""
        activations = self.model.activations(self.images, samples=self.samples)
        self._pending[step] = activations
        size = sum(part.numel() for part in activations.values())
        if (len(self._pending) + 1) * size > _TOGETHER:
            self._compute()

    def flush(self, *, to_disk: bool = False) -> None:
        """Write what was measured; `to_disk`: all of it, and wait."""
        if to_disk:
            self._compute()
        for name, log in self._logs.items():
            log.append(self._rows[name])
            self._rows[name] = []
            if to_disk:
                log.to_disk()

    def _compute(self) -> None:
        """Rows of what is pending."""
        pending, self._pending = self._pending, {}
        rows = iter(measure_layers([part for found in pending.values() for part in found.values()]))
        last = self.model.layer_names[-1]
        for step, found in pending.items():
            limits = [{}] * len(found)
            if step % self.resolve_every == 0 or step == self.last:
                limits = resolve_layers([*found.values()])
            self._rows[DIMENSION_FILE] += [
                {"step": step, "layer": layer, **next(rows), **limit}
                for layer, limit in enumerate(limits)
            ]
            accuracy = class_rows(found[last], self.labels, self.counts)
            self._rows[ACCURACY_FILE] += [{"step": step, **row} for row in accuracy]


def measure_layers(activations: Sequence[Tensor]) -> list[dict[str, float]]:
    """Measures of each matrix: those of `dimensionality_stats`, without their resolution.

    From the Gram matrix of the shorter side, in float64, of all matrices of one shape together.
    Bits do not depend on which matrices these are, as a run that goes on after a kill needs. That
    function sums over blocks whose size depends on how many go through together, so it would have
    to be called for every step by itself, which takes twice (transformer) to 13 times (MLP) as
    long. No SVD takes over here for values that would be 0: `effective_rank` of 1 to 5 directions
    out of 64 to 512 is 1e-7 to 1e-5 of itself too high, a tenth of its resolution at most.

    Args:
        activations: `sample feature` each.

    Raises:
        FloatingPointError: numbers that are not finite.
    """
    rows: list[dict[str, float]] = [{} for _ in activations]
    shapes: dict[torch.Size, list[int]] = {}
    for i, part in enumerate(activations):
        shapes.setdefault(part.shape, []).append(i)
    for places in shapes.values():
        x = torch.stack([activations[i] for i in places]).double()
        x -= x.mean(-2, keepdim=True)
        n_samples, n_features = x.shape[-2:]
        gram = x @ x.mT if n_samples < n_features else x.mT @ x
        if not bool(torch.isfinite(gram.sum())):
            raise FloatingPointError("activations that are not finite")
        values = torch.linalg.eigvalsh(gram).clamp_min_(0).sqrt_().flip(-1).cpu().numpy()
        values[:, n_samples - 1 :] = 0  # about the mean n samples span n - 1 directions
        found = measures(values)
        columns = zip(*(found[name].tolist() for name in METRICS), strict=True)
        for i, row in zip(places, columns, strict=True):
            rows[i] = dict(zip(METRICS, row, strict=True))
    return rows


def resolve_layers(activations: Sequence[Tensor]) -> list[dict[str, float]]:
    """Resolution of each matrix's measures, see `dimensionality_stats`."""
    found = dimensionality_stats(activations, roundings=_ROUNDINGS).resolution
    columns = zip(*(found[name].tolist() for name in METRICS), strict=True)
    return [dict(zip(_RESOLUTIONS, row, strict=True)) for row in columns]


def class_rows(
    logits: Float[Tensor, "image n_classes"],
    labels: Int64[Tensor, " image"],
    counts: Int64[Tensor, " n_classes"],
) -> list[dict[str, float | int]]:
    """Columns of `accuracy.csv` for each class that has images: accuracy and mean loss."""
    losses = F.cross_entropy(logits, labels, reduction="none").double()
    right = (logits.argmax(-1) == labels).double()
    zeros = torch.zeros(len(counts), dtype=torch.float64, device=logits.device)
    n, hits, total = (
        counts.tolist(),
        zeros.index_add(0, labels, right).tolist(),
        zeros.index_add(0, labels, losses).tolist(),
    )
    return [
        {"class": i, "value": hits[i] / n[i], "loss": total[i] / n[i], "n": n[i]}
        for i in range(len(n))
        if n[i]
    ]


def read_dimensionality(
    folder: Path, layer_names: Sequence[str], *, model: str, seed: int, measured: bool
) -> pd.DataFrame:
    """The dimensionality frame: tidy rows with `layer_name` and `resolution`.

    Args:
        folder: of the run.
        layer_names: of the layers that were measured.
        model, seed: columns of the frame.
        measured: whether there are rows at all.

    Raises:
        CheckpointError: there should be rows, and the file is missing or damaged.
    """
    wide = _read(folder / DIMENSION_FILE, _DIMENSION_COLUMNS, measured=measured)
    steps, layers = wide["step"].astype(int), wide["layer"].astype(int)
    names = [layer_names[layer] for layer in layers]
    limits = wide[list(_RESOLUTIONS)].groupby(layers)
    limits = np.fmax(limits.ffill(), limits.bfill())
    parts: list[dict[str, Any]] = [
        {
            "step": steps,
            "layer": layers,
            "metric": [name] * len(wide),
            "value": wide[name],
            "layer_name": names,
            "resolution": limits[limit],
        }
        for name, limit in zip(METRICS, _RESOLUTIONS, strict=True)
    ]
    long = pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True)
    return tidy(long, model=model, seed=seed)


def read_accuracy(folder: Path, *, measured: bool) -> pd.DataFrame:
    """Rows `step class value loss n`: share of images named rightly, mean loss in nats, images.

    Args:
        folder: of the run.
        measured: whether there are rows at all.

    Raises:
        CheckpointError: as `read_dimensionality`.
    """
    frame = _read(folder / ACCURACY_FILE, _ACCURACY_COLUMNS, measured=measured)
    return frame.astype({"step": int, "class": int, "n": int})


def _read(path: Path, columns: Sequence[str], *, measured: bool) -> pd.DataFrame:
    return read_rows(path, columns) if measured else pd.DataFrame(columns=[*columns])
