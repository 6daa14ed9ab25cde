"""A run on images that is killed at any moment, in forked processes; `test_vision_killed.py` starts
it with the architecture and the folder.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from forked import exit_code, in_child
from tiny_vision import tiny_vision

from headspec.training.vision import train_vision
from headspec.training.vision_data import open_images


def config(model):
    """Measured at every second update; resume points lie between measurements too."""
    return tiny_vision(model, steps=40, checkpoints=(7, 20), measure_every=2, save_every=3)


def kill_at_moments(model, folder):
    """Kill five times, each a random moment after it got further; the rows it had reached."""
    moments, reached = random.Random(0), []
    log = folder / "log.csv"

    def rows():
        return len(log.read_text().splitlines()) - 1 if log.exists() else 0

    def whole():
        train_vision(config(model), out=folder, progress=False)

    for attempt in range(5):
        child = in_child(whole)
        while rows() < 5 * attempt and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.0005)
        time.sleep(moments.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
        code = exit_code(child)
        assert code == -signal.SIGKILL, "the run was over before it was killed"
        reached.append(rows())
    assert exit_code(in_child(whole)) == 0
    return reached


if __name__ == "__main__":
    torch.set_num_threads(1)
    open_images("digits")  # imported once, before forking
    print(json.dumps(kill_at_moments(sys.argv[1], Path(sys.argv[2]))))
