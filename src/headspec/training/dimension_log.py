"""Dimensionality of every layer while a model of images is trained, on the same images each time.

One forward pass gives the activations of all layers and the accuracy of each class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from headspec.activations.dimensionality import dimensionality_stats
from headspec.activations.dimensionality_result import METRICS
from headspec.results import tidy
from headspec.training.train_log import TrainLog, read_rows
from headspec.training.vision_config import Samples
from headspec.training.vision_models import VisionModel

DIMENSION_FILE = "dimensionality.csv"
ACCURACY_FILE = "accuracy.csv"
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
    ) -> None:
        self.folder, self.model = folder, model
        self.images, self.labels = images, labels
        self.samples: Samples = samples
        self.counts = torch.bincount(labels, minlength=n_classes)
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
        """Dimensionality of each layer, and accuracy and loss of each class."""
        activations = self.model.activations(self.images, samples=self.samples)
        if not all(bool(torch.isfinite(part).all()) for part in activations.values()):
            raise FloatingPointError("activations that are not finite")
        layers = measure_layers(activations)
        self._rows[DIMENSION_FILE] += [
            {"step": step, "layer": i, **row} for i, row in enumerate(layers)
        ]
        logits = activations[self.model.layer_names[-1]]
        self._rows[ACCURACY_FILE] += [
            {"step": step, **row} for row in class_rows(logits, self.labels, self.counts)
        ]

    def flush(self, *, to_disk: bool = False) -> None:
        """Write what was measured."""
        for name, log in self._logs.items():
            log.append(self._rows[name])
            self._rows[name] = []
            if to_disk:
                log.to_disk()


def measure_layers(activations: Mapping[str, Tensor]) -> list[dict[str, float]]:
    """Columns of `dimensionality.csv` for each layer."""
    stats = dimensionality_stats(activations, roundings=_ROUNDINGS)
    columns = {name: getattr(stats, name).tolist() for name in METRICS}
    columns |= {f"{name}_resolution": stats.resolution[name].tolist() for name in METRICS}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


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
    folder: Path, layer_names: Sequence[str], *, model: str, seed: int
) -> pd.DataFrame:
    """The dimensionality frame: tidy rows with `layer_name` and `resolution`."""
    wide = _read(folder / DIMENSION_FILE, _DIMENSION_COLUMNS)
    steps, layers = wide["step"].astype(int), wide["layer"].astype(int)
    names = [layer_names[layer] for layer in layers]
    parts: list[dict[str, Any]] = [
        {
            "step": steps,
            "layer": layers,
            "metric": [name] * len(wide),
            "value": wide[name],
            "layer_name": names,
            "resolution": wide[limit],
        }
        for name, limit in zip(METRICS, _RESOLUTIONS, strict=True)
    ]
    long = pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True)
    return tidy(long, model=model, seed=seed)


def read_accuracy(folder: Path) -> pd.DataFrame:
    """Rows `step class value loss n`: share of images named rightly, mean loss in nats, images."""
    frame = _read(folder / ACCURACY_FILE, _ACCURACY_COLUMNS)
    return frame.astype({"step": int, "class": int, "n": int})


def _read(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """The rows of a file, none where nothing was measured."""
    return read_rows(path, columns) if path.exists() else pd.DataFrame(columns=[*columns])
