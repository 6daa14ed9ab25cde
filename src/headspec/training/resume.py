"""The point from which a killed run goes on, with the same bits as if it had not been killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from headspec.errors import CheckpointError, InputError
from headspec.training.atomic_files import write_file

_FILE = Path("resume") / "state.pt"


def save_resume_point(
    folder: Path,
    *,
    step: int,
    model: nn.Module,
    optimizers: dict[str, torch.optim.Optimizer],
    randomness: list[dict[str, Any]],
    fingerprint: str,
) -> None:
    """Write weights, optimiser states, random states and step into one file, or nothing.

    Args:
        folder: of the run.
        step: updates done.
        model: the module itself, not compiled or wrapped.
        optimizers: by name.
        randomness: random state of every process.
        fingerprint: of what the run reads; another one is refused when resuming.
    """
    state = {
        "step": step,
        "fingerprint": fingerprint,
        "model": model.state_dict(),
        "optimizers": {name: optimizer.state_dict() for name, optimizer in optimizers.items()},
        "randomness": randomness,
    }
    write_file(folder / _FILE, lambda path: torch.save(state, path))


def load_resume_point(folder: Path, *, fingerprint: str) -> dict[str, Any] | None:
    """What `save_resume_point` wrote; None where there is nothing to resume.

    Raises:
        InputError: the run read other data.
        CheckpointError: the file is damaged.
    """
    path = folder / _FILE
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(
            expected=f"a whole resume point in {path}",
            got=f"{type(error).__name__}: {error}",
            fix="The disk has damaged it, since it is only ever written whole: remove the folder "
            "of the run and train again.",
        ) from error
    if state["fingerprint"] != fingerprint:
        raise InputError(
            expected=f"the data that the run in {folder} was reading",
            got="other data under the same name",
            fix="Put the old data back, or train into another folder.",
        )
    return state


def restore(
    state: dict[str, Any], *, model: nn.Module, optimizers: dict[str, torch.optim.Optimizer]
) -> None:
    """Put weights and optimiser states back."""
    model.load_state_dict(state["model"])
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict(state["optimizers"][name])


def has_resume_point(folder: Path) -> bool:
    """Whether a run was left unfinished here."""
    return (folder / _FILE).exists()


def remove_resume_point(folder: Path) -> None:
    """The run is finished."""
    (folder / _FILE).unlink(missing_ok=True)
    if (folder / _FILE.parent).is_dir():
        for left in (folder / _FILE.parent).iterdir():
            left.unlink()
        (folder / _FILE.parent).rmdir()
