"""A finished training run: where it lies, its config, its log, its checkpoints."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from headspec.results import tidy
from headspec.training.run_folder import finished_config
from headspec.training.train_config import TrainConfig
from headspec.training.train_log import read_log

if TYPE_CHECKING:
    from headspec.checkpoints.suite import CheckpointSuite

_METRICS = ("loss", "validation_loss", "gradient_norm", "muon_lr", "adamw_lr", "tokens_per_second")


@dataclass(frozen=True)
class TrainingRun:
    """A training run on disk; `train` and `recalibrate` return it, `open_run` finds it again.

    Losses are nats per token. The training loss at step n is that of one batch *before* update n,
    and so noisy, and optimistic where the data repeat; the validation loss is of the model after
    it. Neither says what the model can do.

    Attributes:
        folder: holds `step{N}/`, `config.toml` and `log.csv`.
        config: what was trained.
        log: a row for each update: `step loss validation_loss gradient_norm muon_lr adamw_lr
            tokens tokens_per_second`.
    """

    folder: Path
    config: TrainConfig
    log: pd.DataFrame

    @property
    def suite(self) -> CheckpointSuite:
        """The checkpoints, for everything that takes a suite."""
        from headspec.checkpoints.suite import open_suite

        return open_suite(self.folder)

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps at which there is a checkpoint."""
        return self.config.checkpoint_steps

    @property
    def validation_loss(self) -> float:
        """After the last update, in nats per token."""
        return float(self.log["validation_loss"].dropna().iloc[-1])

    def to_frame(self) -> pd.DataFrame:
        """Tidy rows `model step metric value seed`, one for each number of the log."""
        long = self.log.melt("step", [*_METRICS], var_name="metric").dropna(subset="value")
        return tidy(long, model=self.folder.name, seed=self.config.seed)

    def summary(self) -> str:
        """A few lines of plain text."""
        losses = self.log["validation_loss"].dropna()
        return (
            f"{self.folder.name}: {self.config.steps} updates of {self.config.batch_size} "
            f"sequences, seed {self.config.seed}, {len(self.steps)} checkpoints\n"
            f"validation loss {losses.iloc[0]:.4f} -> {losses.iloc[-1]:.4f} nats per token; "
            f"median {self.log['tokens_per_second'].median():,.0f} tokens/s"
        )


def open_run(folder: str | os.PathLike[str]) -> TrainingRun:
    """Open a run that `train` or `recalibrate` has finished.

    Args:
        folder: the run's `out`.

    Raises:
        InputError: the folder holds no run.
        CheckpointError: the run is not finished.
    """
    path = Path(folder)
    config = finished_config(TrainConfig, path, call="train", what="a training run")
    return TrainingRun(path, config, read_log(path / "log.csv"))
