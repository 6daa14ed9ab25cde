"""A measure at every step of a suite: in parallel, resumable, one tidy frame."""

from __future__ import annotations

import logging
import os
import pickle
import secrets
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from tqdm.auto import tqdm

from headspec.errors import HeadspecError, InputError, check_choice
from headspec.results import tidy
from headspec.results.files import FORMATS, write_atomically
from headspec.sweeps.step import Failure, Job, Suite, free_cycles, run_in_worker, run_job
from headspec.sweeps.store import StepStore, SweepWarning

_log = logging.getLogger("headspec.sweep")


class SweepError(HeadspecError, RuntimeError):
    """A sweep that could not go on. The steps finished before are kept."""


class UnverifiedSuiteWarning(SweepWarning):
    """The checkpoints of a sweep were not checked, or did not pass."""


def sweep(
    suite: Suite,
    measure: Callable[[Any], Any],
    *,
    steps: Iterable[int] | None = None,
    out: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    on_error: Literal["raise", "record"] = "raise",
    progress: bool = True,
) -> pd.DataFrame:
    """Measure every step of a suite.

    With `out` every finished step is written at once, by the process that measured it. A rerun
    takes finished steps from there: nothing is lost when the sweep is interrupted or killed. A
    step is computed again when its weights or config, its predecessor in the sweep, the measure's
    code or settings, or headspec have changed (see `headspec.sweeps.store` and
    `headspec.sweeps.fingerprint` for what is noticed and what is not), or its file is damaged.

    Args:
        suite: the checkpoints; call `suite.verify()` before.
        measure: takes a `Checkpoint`, whose `.previous` is the one before it in this sweep (None
            at the first), and returns a mapping of metric names to numbers, a frame (see
            `results.tidy`), or a result with `to_frame()`. It must give the same for the same
            checkpoint: seeds belong in its settings.
        steps: which steps; None: all.
        out: folder for the step files; None: kept in memory only.
        executor: runs the steps in parallel: a process pool,
            `dask.distributed.Client(...).get_executor()`, any `concurrent.futures.Executor`.
            It stays open. Process pools need a measure that can be pickled: a function of a
            module, or a dataclass. Torch uses every core in every process unless
            `OMP_NUM_THREADS` says otherwise.
        on_error: `"raise"` ends the sweep at the first failing step; `"record"` goes on, the
            frame then has a column `error` (missing where all went well) and a failed step has one
            row there with value NaN. Failed steps are tried again in a rerun.
        progress: show a bar with the estimated time left, on stderr if that is a terminal, and in
            notebooks.

    Returns:
        `results.TIDY_COLUMNS` first. Rows by step, then as the measure gave them: the same, bit
        for bit, whichever executor was used and however often the sweep was interrupted.

    Raises:
        StepNotFoundError: a requested step is not in the suite.
        InputError: the measure cannot be sent to the executor's processes, or not be identified.
        SweepError: a step failed under `on_error="raise"`, or a worker process died.

    Example:
        >>> def norms(checkpoint):
        ...     return {"norm of W_Q": checkpoint.head_weights(layer=0).W_Q.float().norm()}
        >>> sweep(open_suite("micro"), norms, out="out/norms")      # doctest: +SKIP
    """
    check_choice("on_error", on_error, ("raise", "record"))
    if not hasattr(suite, "resolve_steps"):
        raise InputError(
            expected="a suite of checkpoints", got=repr(suite), fix="Pass open_suite(...) of it."
        )
    chosen = suite.resolve_steps(None if steps is None else list(steps))
    _warn_if_unverified(suite, chosen)
    store = StepStore(None if out is None else Path(out), suite, measure, steps=chosen)
    store.remove_leftovers()
    found = {step: store.read(step) for step in chosen}
    frames = {step: frame for step, frame in found.items() if frame is not None}
    run = secrets.token_hex(8)

    def job(step: int) -> Job:
        path, noted = store.path(step), store.provenance(step)
        return Job(suite, step, store.previous[step], measure, path, noted, run)

    todo = [step for step in chosen if step not in frames]
    with _bar(len(chosen), len(frames), store.measure_name, progress) as bar:
        collector = _Collector(store, on_error, frames, bar)
        if executor is None:
            _run_here(todo, job, collector)
        else:
            _run_in_executor(todo, job, collector, executor)
    return _join([frames[step] for step in chosen], on_error)


@dataclass
class _Collector:
    """Takes in what the steps gave."""

    store: StepStore
    on_error: Literal["raise", "record"]
    frames: dict[int, pd.DataFrame]
    bar: Any
    failed: list[int] = field(default_factory=list)

    def take(self, step: int, outcome: bytes | Failure, cause: Exception | None = None) -> None:
        if isinstance(outcome, Failure):
            self._take_failure(step, outcome, cause)
        else:
            path = self.store.path(step)
            if path is not None and not (path.exists() and path.read_bytes() == outcome):
                write_atomically(path, outcome)  # the worker's disk is not ours
            self.frames[step] = FORMATS[".json"].loads(outcome)
            _log.info("step %d finished", step)
        self.bar.set_postfix_str(f"step {step}", refresh=False)
        self.bar.update()

    def _take_failure(self, step: int, failure: Failure, cause: Exception | None) -> None:
        if self.on_error == "raise":
            raise self.error(f"at step {step}: {failure.error}", failure) from cause
        _log.warning("step %d failed: %s", step, failure.error)
        row = {"model": self.store.suite.name, "step": step, "error": failure.error}
        self.frames[step] = tidy([row])
        self.failed.append(step)

    def error(self, got: str, failure: Failure | None = None) -> SweepError:
        """The error that ends the sweep, saying what is kept."""
        done = len(self.frames) - len(self.failed)
        kept = (
            f"{done} finished steps are kept in {self.store.folder}; run again to go on from there"
            if self.store.folder is not None
            else "Pass `out=` to keep finished steps"
        )
        error = SweepError(
            expected=f"{self.store.measure_name} to give numbers at every step",
            got=got,
            fix=f"{kept}. on_error='record' goes on after failing steps.",
        )
        if failure is not None:
            error.add_note(failure.traceback)
        return error


def _run_here(todo: list[int], job: Callable[[int], Job], collector: _Collector) -> None:
    for step in todo:
        started = time.perf_counter()
        try:
            outcome = run_job(job(step))
        except Exception as error:  # taken in here: kept, it would hold all the step had in memory
            collector.take(step, Failure.of(error), error)
        else:
            collector.take(step, outcome)
        free_cycles(time.perf_counter() - started)


def _run_in_executor(
    todo: list[int], job: Callable[[int], Job], collector: _Collector, executor: Executor
) -> None:
    pending: dict[Future[bytes | Failure], int] = {}
    try:
        for step in todo:
            try:
                ready = job(step)
            except HeadspecError as error:  # its files cannot be read
                collector.take(step, Failure.of(error), error)
            else:
                pending[executor.submit(run_in_worker, _pack(ready, executor))] = step
        while pending:
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=pending.__getitem__):
                step = pending.pop(future)
                collector.take(step, _outcome(future))
    except (BrokenExecutor, CancelledError) as error:
        waiting = sorted({*todo} - {*collector.frames})
        raise collector.error(
            f"a worker process that ended (killed, or out of memory) or jobs cancelled "
            f"({type(error).__name__}) with the steps {waiting[:8]} unfinished"
        ) from error
    finally:
        for future in pending:
            future.cancel()


def _pack(job: Job, executor: Executor) -> Job | bytes:
    """The job as a process pool can send it; other executors have ways of their own."""
    if not isinstance(executor, ProcessPoolExecutor):
        return job
    try:
        return pickle.dumps(job)
    except Exception as error:
        raise _cannot_be_sent(error) from error


def _outcome(future: Future[bytes | Failure]) -> bytes | Failure:
    try:
        return future.result()
    except (BrokenExecutor, CancelledError):
        raise
    except Exception as error:
        if isinstance(error, pickle.PicklingError) or "pickle" in str(error):
            raise _cannot_be_sent(error) from error
        return Failure.of(error)


def _cannot_be_sent(error: Exception) -> InputError:
    return InputError(
        expected="a measure (and suite) that can be pickled and sent to another process",
        got=f"{type(error).__name__}: {error}",
        fix="Use a function at the top of a module, or a dataclass with __call__, instead of a "
        "lambda or a function inside another; or sweep without an executor.",
    )


def _warn_if_unverified(suite: Suite, steps: tuple[int, ...]) -> None:
    if not hasattr(suite, "verification"):
        return
    verified: pd.DataFrame | None = suite.verification  # pyright: ignore
    if verified is None:
        message = (
            f"The checkpoints of {suite.name} were not verified: duplicate, truncated or wrong "
            "ones would be measured like any other. Call `suite.verify()` before the sweep."
        )
    else:
        ok: Mapping[int, bool] = dict(zip(verified["step"], verified["ok"], strict=True))
        missing = [step for step in steps if step not in ok]
        wrong = [step for step in steps if step in ok and not ok[step]]
        if not missing and not wrong:
            return
        message = f"Of {suite.name}, "
        message += f"steps {wrong[:8]} failed verification" if wrong else ""
        message += " and " if wrong and missing else ""
        message += f"steps {missing[:8]} were not verified" if missing else ""
        message += ". See `suite.verification`, and leave wrong steps out with `steps=`."
    warnings.warn(message, UnverifiedSuiteWarning, stacklevel=3)


def _bar(total: int, done: int, name: str, progress: bool) -> Any:
    shown = progress and (sys.stderr.isatty() or "ipykernel" in sys.modules)
    return tqdm(total=total, initial=done, desc=name, unit="step", disable=not shown)


def _join(frames: list[pd.DataFrame], on_error: str) -> pd.DataFrame:
    frame = tidy(pd.concat(frames, ignore_index=True) if frames else [])
    if on_error == "record":
        text = frame["metric"].dtype
        errors = frame.pop("error") if "error" in frame else None
        frame["error"] = pd.Series(errors, index=frame.index, dtype=object).astype(text)
    return frame
