"""Suites and measures without models, importable by worker processes."""

import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from headspec.errors import StepNotFoundError


def finished(out):
    """The steps whose files lie in the folder of sweeps."""
    return {int(path.name[4:].split("-")[0]) for path in Path(out).rglob("step*.json")}


@dataclass(frozen=True)
class StubCheckpoint:
    suite: object
    step: int
    previous: object = None


@dataclass(frozen=True)
class StubSuite:
    steps: tuple = (0, 1, 2, 4, 8, 16)
    name: str = "stub"
    changed: tuple = ()

    def resolve_steps(self, requested=None):
        chosen = self.steps if requested is None else tuple(sorted(set(requested)))
        if not set(chosen) <= set(self.steps):
            raise StepNotFoundError(
                expected="steps", got=str(sorted(set(chosen) - set(self.steps))), fix="Others."
            )
        return chosen

    def fingerprint(self, step):
        return f"content {step}" + (" changed" if step in self.changed else "")

    def config(self, step):
        return {"n_layers": 2}

    def checkpoint(self, step):
        return StubCheckpoint(self, step)


def square(checkpoint):
    return {"square": checkpoint.step**2, "third": checkpoint.step / 3}


def fails_at_four(checkpoint):
    if checkpoint.step == 4:
        raise ArithmeticError("four is bad")
    return square(checkpoint)


def dies_at_four(checkpoint):
    if checkpoint.step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(checkpoint)


@dataclass(frozen=True)
class Logged:
    """Notes in a file which steps it was called for, after waiting a little."""

    log: str
    seconds: float = 0.0
    power: int = 2

    def __call__(self, checkpoint):
        with open(self.log, "a") as file:
            file.write(f"{checkpoint.step}\n")
        time.sleep(self.seconds)
        before = None if checkpoint.previous is None else checkpoint.previous.step
        return {
            "power": checkpoint.step**self.power / 3,
            "before": float("nan") if before is None else before,
        }


def kill_again_and_again(out, log, *, kills, workers, n_steps):
    """Start a sweep `kills` times and kill it, with its workers, at random moments.

    Runs in a process of its own without threads, so that it may fork. Prints what went wrong.
    """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    from headspec.sweeps import sweep
    from headspec.sweeps.fingerprint import headspec_identity

    headspec_identity()  # remembered here: the same in every round, even if sources are edited
    suite, measure = StubSuite(tuple(range(n_steps))), Logged(log, 0.004)
    moments = random.Random(workers)
    killed = 0
    for _ in range(kills):
        done_before = finished(out)
        Path(log).write_text("")
        child = os.fork()
        if child == 0:
            os.setsid()
            pool = multiprocessing.get_context("fork")
            executor = ProcessPoolExecutor(workers, mp_context=pool) if workers else None
            sweep(suite, measure, out=out, executor=executor, progress=False)
            os._exit(0)
        enough, give_up = moments.randrange(6), time.monotonic() + 20
        while len(Path(log).read_text().split()) < enough and time.monotonic() < give_up:
            time.sleep(0.001)
        time.sleep(moments.uniform(0.0, 0.03))
        os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
        again = set(map(int, Path(log).read_text().split())) & done_before
        if again:
            print(f"finished before and computed again: {sorted(again)}")
    done = len(finished(out))
    if killed < kills or not 0 < done < n_steps:
        print(f"killed {killed} of {kills} with {done} of {n_steps} steps done")
    print(headspec_identity())
