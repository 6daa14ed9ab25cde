"""Runs that are killed, each in a forked process of its own; `test_train_killed.py` starts it.

    python killed_runs.py moments FOLDER    killed by another process, at any moment
    python killed_runs.py writing FOLDER    killed inside each of the writes, one after another
    python killed_runs.py devices FOLDER    two processes that share every batch

A process of its own, because forking is safe only while there is a single thread.
"""

import json
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path

import torch
from forked import exit_code, in_child
from tiny_training import MODEL, tiny_config

from headspec.training import atomic_files
from headspec.training.mini_qwen import build_mini_qwen
from headspec.training.train_config import OptimizerConfig
from headspec.training.trainer import train

CONFIG = tiny_config(steps=30, checkpoints=(3, 7, 15), save_every=2)


def whole_run(folder: Path) -> None:
    train(CONFIG, out=folder, progress=False)


def kill_at_moments(folder: Path) -> list[int]:
    """Kill six times, each a random moment after it got further; the steps it had reached."""
    moments, reached = random.Random(0), []
    log = folder / "log.csv"

    def rows() -> int:
        return len(log.read_text().splitlines()) - 1 if log.exists() else 0

    for attempt in range(6):
        child = in_child(lambda: whole_run(folder))
        while rows() < 3 * attempt and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        assert exit_code(child) == -signal.SIGKILL, "the run was over before it was killed"
        reached.append(rows())
    assert exit_code(in_child(lambda: whole_run(folder))) == 0
    return reached


def kill_while_writing(folder: Path) -> list[int]:
    """Kill attempt n inside its n-th write, each after half a file or before the rename."""
    codes = []
    for attempt in range(60):
        code = exit_code(in_child(lambda n=attempt: _killed_in_write(folder, n)))
        codes.append(code)
        if code == 0:
            return codes
    raise AssertionError("never finished")


def _killed_in_write(folder: Path, number: int) -> None:
    counted, replace = iter(range(10**6)), os.replace

    def deadly(source, target):
        if next(counted) == 1 + number % 3:
            source = Path(source)
            if source.is_file() and number % 2:  # as if the power failed halfway
                os.truncate(source, source.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    if number < 9:
        atomic_files.os = type("os", (), {**vars(os), "replace": staticmethod(deadly)})
    whole_run(folder)


def two_devices(folder: Path) -> list[int]:
    """The run by two processes over Gloo; killed once by Ctrl-C, then finished."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def work(rank: int) -> None:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        train(tiny_config(accumulation=2, **DEVICES), out=folder, progress=False)

    children = [in_child(lambda rank=rank: work(rank)) for rank in range(2)]
    return [exit_code(child) for child in children]


# Muon rounds gradients to bfloat16, which at large rates makes rounding errors visible.
DEVICES = {"validation_sequences": 23, "optimizer": OptimizerConfig()}

if __name__ == "__main__":
    torch.set_num_threads(1)
    build_mini_qwen(MODEL)  # imported once, before forking
    what, target = sys.argv[1], Path(sys.argv[2])
    work = {"moments": kill_at_moments, "writing": kill_while_writing, "devices": two_devices}
    print(json.dumps(work[what](target)))
