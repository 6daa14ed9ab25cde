"""A finished run on images: its config, its log, what was measured, its checkpoints."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from headspec.errors import CheckpointError, StepNotFoundError
from headspec.results import tidy
from headspec.training.dimension_log import class_rows, read_accuracy, read_dimensionality
from headspec.training.run_folder import finished_config
from headspec.training.train_log import read_log
from headspec.training.vision_config import VisionConfig
from headspec.training.vision_data import ImageData, open_images
from headspec.training.vision_models import VisionModel, build_vision_model

MODEL_FILE = "config.json"
_METRICS = ("loss", "validation_loss", "gradient_norm", "lr", "images_per_second")


@dataclass(frozen=True, eq=False)
class VisionRun:
    """A training run on images, on disk; `train_vision` returns it, `open_vision_run` finds it.

    Losses are nats per image. The training loss at step n is that of one batch *before* update n;
    the validation loss is of the model after it, on all validation images. Accuracy and
    dimensionality are measured on few of these (`config.n_measured`), always the same: curves
    over steps are comparable, their level has the sampling error of that many images.

    Attributes:
        folder: holds `step{N}/`, `config.toml`, `log.csv`, `dimensionality.csv`, `accuracy.csv`.
        config: what was trained.
        log: a row for each update: `step loss validation_loss gradient_norm lr images
            images_per_second`.
        dimensionality: tidy rows with `layer_name` and `resolution`, one for each step measured,
            layer and metric; `model` is the architecture. Empty where nothing was measured.
        accuracy: rows `step class value loss n`: share of the class's measured images that are
            named rightly, and their mean loss.
    """

    folder: Path
    config: VisionConfig
    log: pd.DataFrame
    dimensionality: pd.DataFrame
    accuracy: pd.DataFrame

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps at which there is a checkpoint."""
        return self.config.checkpoint_steps

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The measured layers, from input to output."""
        return _empty_model(self.folder / f"step{self.config.steps}").layer_names

    @property
    def validation_loss(self) -> float:
        """After the last update, in nats per image, on all validation images."""
        return float(self.log["validation_loss"].dropna().iloc[-1])

    @property
    def images(self) -> ImageData:
        """The data of the run, opened again."""
        return open_images(self.config.data)

    def model(self, step: int) -> VisionModel:
        """The model of a checkpoint, on the CPU, in evaluation mode.

        Args:
            step: one of `steps`.

        Raises:
            StepNotFoundError: there is no checkpoint of this step.
            CheckpointError: its files are damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if step not in self.steps:
            raise StepNotFoundError(
                expected=f"a checkpoint of {self.folder.name}: {', '.join(map(str, self.steps))}",
                got=f"step {step}",
                fix="Train again from the same seed with checkpoints= at the steps you need; the "
                "numbers stay the same.",
            )
        folder = self.folder / f"step{step}"
        model = _empty_model(folder)
        try:
            model.load_state_dict(load_file(folder / "model.safetensors"))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise CheckpointError(
                expected=f"the weights of step {step} in {folder}",
                got=f"{type(error).__name__}: {error}",
                fix="Remove the folder of the run and train again.",
            ) from error
        return model.eval()

    def class_accuracy(self, step: int) -> pd.DataFrame:
        """Accuracy of each class on *all* validation images, of a checkpoint.

        Args:
            step: one of `steps`.

        Returns:
            Rows `step class value loss n`.
        """
        data, model = self.images, self.model(step)
        with torch.no_grad():
            parts = [model(part) for part in data.validation_images.split(500)]
        counts = torch.bincount(data.validation_labels, minlength=data.n_classes)
        rows = class_rows(torch.cat(parts), data.validation_labels, counts)
        return pd.DataFrame([{"step": step, **row} for row in rows])

    def to_frame(self) -> pd.DataFrame:
        """Tidy rows `model step metric value seed`, one for each number of the log."""
        long = self.log.melt("step", [*_METRICS], var_name="metric").dropna(subset="value")
        return tidy(long, model=self.config.model, seed=self.config.seed)

    def summary(self) -> str:
        """A few lines of plain text."""
        config, losses = self.config, self.log["validation_loss"].dropna()
        lines = [
            f"{self.folder.name}: {config.model} on {config.data}, {config.steps} updates of "
            f"{config.batch_size} images, seed {config.seed}, {len(self.steps)} checkpoints",
            f"validation loss {losses.iloc[0]:.4f} -> {losses.iloc[-1]:.4f} nats per image; "
            f"median {self.log['images_per_second'].median():,.0f} images/s",
        ]
        if len(self.accuracy):
            last = self.accuracy[self.accuracy["step"] == config.steps]
            right = (last["value"] * last["n"]).sum() / last["n"].sum()
            lines.append(
                f"accuracy {right:.1%} of {last['n'].sum()} measured images; dimensionality of "
                f"{self.dimensionality['layer_name'].nunique()} layers at "
                f"{self.dimensionality['step'].nunique()} steps"
            )
        return "\n".join(lines)


def open_vision_run(folder: str | os.PathLike[str]) -> VisionRun:
    """Open a run that `train_vision` has finished.

    Args:
        folder: the run's `out`.

    Raises:
        InputError: the folder holds no such run.
        CheckpointError: the run is not finished, or one of its files is missing or damaged.
    """
    path = Path(folder)
    config = finished_config(VisionConfig, path, call="train_vision", what="a run on images")
    log = read_log(path / "log.csv").drop(columns="muon_lr")
    names = {"adamw_lr": "lr", "tokens": "images", "tokens_per_second": "images_per_second"}
    layers = _empty_model(path / f"step{config.steps}").layer_names
    measured = config.measure_every > 0
    return VisionRun(
        path,
        config,
        log.rename(columns=names),
        read_dimensionality(path, layers, model=config.model, seed=config.seed, measured=measured),
        read_accuracy(path, measured=measured),
    )


def write_vision_model(
    model: VisionModel,
    folder: Path,
    *,
    config: VisionConfig,
    image_size: tuple[int, int],
    n_classes: int,
) -> None:
    """Write `model.safetensors` and `config.json` into a folder that exists.

    Args:
        model: on any device.
        folder: where to.
        config: how it is built.
        image_size: height and width.
        n_classes: number of logits.
    """
    from safetensors.torch import save_file

    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    built = {"image_size": image_size, "n_classes": n_classes, "config": config.to_dict()}
    (folder / MODEL_FILE).write_text(json.dumps(built, indent=2) + "\n", encoding="utf-8")


def _empty_model(folder: Path) -> VisionModel:
    """The model that a checkpoint's `config.json` describes, with initial weights."""
    try:
        built = json.loads((folder / MODEL_FILE).read_text(encoding="utf-8"))
        height, width = built["image_size"]
        n_classes, config = built["n_classes"], built["config"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            expected=f"the description of a model in {folder / MODEL_FILE}",
            got=f"{type(error).__name__}: {error}",
            fix="Remove the folder of the run and train again.",
        ) from error
    return build_vision_model(
        VisionConfig.from_dict(config), image_size=(height, width), n_classes=n_classes
    )
