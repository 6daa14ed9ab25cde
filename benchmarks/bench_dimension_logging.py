"""Training with the dimensionality of every layer measured at every fifth update, and without.

    .venv/bin/python benchmarks/bench_dimension_logging.py [--batch 64] [--images 0] [--part 1]

Both train the same model from the same seed, as `train_vision` does, with the log written; their
losses are the same bits, which is checked. The last column gives what measuring adds. It is
bounded by arithmetic: an update passes a batch forward and backward, at about three forward
passes, so that measuring n images at every fifth update of b adds n / (15 b) at least.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch
from harness import compare, print_header

from headspec import VisionConfig, build_vision_model, open_images
from headspec.training.processes import Processes
from headspec.training.recorder import Recorder
from headspec.training.session import Session
from headspec.training.vision import loop_settings, vision_task

UPDATES = {"transformer": 100, "cnn": 500, "mlp": 2000}
"""Timed at once; the resolution is measured at every hundredth."""


def training(config: VisionConfig, n_updates: int) -> Callable[[], list[float]]:
    """Each call does the next updates, and whatever is due after them; gives their losses."""
    data = open_images(config.data)
    model = build_vision_model(config, image_size=data.image_size, n_classes=data.n_classes)
    folder, alone = Path(tempfile.mkdtemp()), Processes(torch.device("cpu"))
    task = vision_task(config, data, model, folder=folder, processes=alone)
    recorder = Recorder(
        folder, start=None, steps=config.steps, batch_tokens=config.batch_size, progress=False
    )
    settings = loop_settings(config)
    session = Session(task, settings, folder, processes=alone, recorder=recorder)
    if session.observer is not None:
        session.observer.begin(None)
    steps = count()

    def updates() -> list[float]:
        losses = []
        for _ in range(n_updates):
            step = next(steps)
            losses.append(session.update(step).item())
            session.after(step + 1, lambda: False)
        return losses

    return updates


def compare_architecture(name: str, *, batch_size: int, n_images: int, n_updates: int) -> float:
    """A row; returns what measuring adds, as a share of training without."""
    config = VisionConfig(
        model=name,  # pyright: ignore[reportArgumentType]
        steps=10**7,
        batch_size=batch_size,
        warmup=0,
        schedule="constant",
        validate_every=0,
        save_every=10**7,
        save_seconds=10**7,
        measured_images=n_images or None,
    )
    measured = training(config, n_updates)
    plain = training(replace(config, measure_every=0), n_updates)
    result = compare(
        f"{n_updates} updates of {batch_size} images, {name}, {config.n_measured} measured at "
        "every fifth, against none measured",
        measured,
        plain,
        agree=lambda ours, peer: ours == peer,
    )
    return result.ours_seconds / result.peer_seconds - 1


def main() -> None:
    """Print the table, then what measuring adds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--images", type=int, default=0, help="measured; 0: the default")
    parser.add_argument("--part", type=int, default=1, help="does 1/part of the updates")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.threads} threads\n")
    print_header()
    added = {
        name: compare_architecture(
            name,
            batch_size=options.batch,
            n_images=options.images,
            n_updates=n_updates // options.part,
        )
        for name, n_updates in UPDATES.items()
    }
    print("\nmeasuring adds " + ", ".join(f"{x:.1%} ({name})" for name, x in added.items()))


if __name__ == "__main__":
    main()
