"""The training loop: a model, batches by step and a loss function, whatever they are."""

from __future__ import annotations

from pathlib import Path

from headspec.training import resume
from headspec.training.atomic_files import remove_folder, remove_leftovers
from headspec.training.processes import Processes
from headspec.training.recorder import Recorder
from headspec.training.session import Session
from headspec.training.surroundings import gradients_on, noted_interrupt, own_randomness
from headspec.training.task import LoopSettings, Task


def run_loop(
    task: Task,
    settings: LoopSettings,
    *,
    folder: Path,
    processes: Processes | None = None,
    progress: bool = True,
    tensorboard: bool = False,
) -> None:
    """Train, or go on training, and leave checkpoints `step{N}` and `log.csv` in a folder.

    Resume points are written at every checkpoint, every `save_every` updates or `save_seconds`,
    and on Ctrl-C; after a kill at any moment the same call goes on from the last one, and on a
    CPU ends with the same bits. A finished run has no resume point.

    Args:
        task: what to train.
        settings: how long, and what is done when.
        folder: where the run lies; made if there is none.
        processes: with which others; None: alone, where the model's parameters are.
        progress: show a bar with the time left.
        tensorboard: write event files too.

    Raises:
        TrainingDivergedError: a loss or gradient is not finite.
        InputError: a batch cannot be divided evenly.
        KeyboardInterrupt: Ctrl-C, after a resume point was written.
    """
    if processes is None:
        processes = Processes(next(task.model.parameters()).device)
    state = resume.load_resume_point(folder, fingerprint=task.fingerprint)
    start = None if state is None else int(state["step"])
    processes.wait()
    if processes.is_first:
        _tidy_folder(folder, start)
    recorder = Recorder(
        folder,
        start=start,
        steps=settings.steps,
        batch_tokens=settings.batch_tokens,
        writes=processes.is_first,
        progress=progress,
        tensorboard=tensorboard,
    )
    try:
        with (
            own_randomness(settings.seed + processes.rank, processes.device),
            gradients_on(),
            noted_interrupt() as interrupted,
        ):
            session = Session(task, settings, folder, processes=processes, recorder=recorder)
            session.run(state, interrupted)
    finally:
        recorder.close()


def _tidy_folder(folder: Path, start: int | None) -> None:
    """Remove unfinished writes, and checkpoints that the run will come to again."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    for path in folder.glob("step*"):
        if path.name[4:].isdigit() and int(path.name[4:]) > (-1 if start is None else start):
            remove_folder(path)
