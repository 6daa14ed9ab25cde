"""What a run's folder may hold before it starts or goes on, and whether it is finished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headspec.errors import CheckpointError, InputError
from headspec.training.config_files import C, differing_fields, read_config
from headspec.training.resume import has_resume_point

CONFIG_FILE = "config.toml"
_FREE = ("save_every", "save_seconds")
"""Fields that change nothing about the numbers."""


def check_folder(folder: Path, config: Any, *, resume: bool) -> None:
    """Raise where the folder holds a run that may not or cannot go on as this config.

    Args:
        folder: of the run.
        config: a `TrainConfig` or `VisionConfig`.
        resume: whether a run may go on.

    Raises:
        InputError: it holds another run, one where none may be, or checkpoints of something else.
    """
    if not (folder / CONFIG_FILE).is_file():
        _check_free(folder)
        return
    if not resume:
        raise InputError(
            expected="a folder without a run, for resume=False",
            got=f"the run in {folder}",
            fix="Choose another folder, remove this one, or let it resume.",
        )
    kind = type(config)
    differing = differing_fields(kind.from_file(folder / CONFIG_FILE), config)
    differing = {name: pair for name, pair in differing.items() if name not in _FREE}
    if differing:
        raise InputError(
            expected=f"the config of the run in {folder}",
            got="; ".join(
                f"{k}: {new!r} instead of {old!r}" for k, (old, new) in differing.items()
            ),
            fix="Take another folder for another run, or read the old config with "
            f"{kind.__name__}.from_file({str(folder / CONFIG_FILE)!r}).",
        )


def _check_free(folder: Path) -> None:
    """Raise where checkpoints of something else lie: a new run would remove its own steps first."""
    if folder.exists() and not folder.is_dir():
        raise InputError(expected="a folder", got=f"the file {folder}", fix="Choose another name.")
    if any(path.name[4:].isdigit() for path in folder.glob("step*")):
        raise InputError(
            expected="a new folder, or one that holds a run",
            got=f"{folder} with checkpoints and without {CONFIG_FILE}",
            fix="Choose another folder: training would replace these checkpoints.",
        )


def is_finished(folder: Path, config: Any) -> bool:
    """Whether the last checkpoint is there and nothing is left to resume."""
    return (folder / f"step{config.steps}").is_dir() and not has_resume_point(folder)


def finished_config(kind: type[C], folder: Path, *, call: str, what: str) -> C:
    """The config of a run that has finished.

    Args:
        kind: `TrainConfig` or `VisionConfig`.
        folder: of the run.
        call: the function that makes such runs, for messages.
        what: such a run, in words.

    Raises:
        InputError: the folder holds no such run.
        CheckpointError: the run is not finished.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise InputError(
            expected=f"the folder of {what}",
            got=f"{str(folder)!r} without {CONFIG_FILE}",
            fix=f"Give the folder that was passed to {call} as out=.",
        )
    config: Any = read_config(kind, folder / CONFIG_FILE)
    if not is_finished(folder, config):
        raise CheckpointError(
            expected=f"a finished run in {folder}",
            got=f"no step{config.steps}, or a resume point",
            fix=f"Call {call} with the same config and out to go on.",
        )
    return config
