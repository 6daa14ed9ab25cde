"""One step of a sweep: measure it, turn what comes back into rows, write them. Runs in workers."""

from __future__ import annotations

import dataclasses
import gc
import pickle
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from headspec.errors import InputError
from headspec.results import tidy
from headspec.results.files import FORMATS, write_atomically
from headspec.results.provenance import Provenance


@runtime_checkable
class Suite(Protocol):
    """What a sweep needs of a suite; a `CheckpointSuite` has it."""

    @property
    def name(self) -> str: ...

    def resolve_steps(self, requested: Iterable[int] | None = None) -> tuple[int, ...]: ...

    def fingerprint(self, step: int) -> str: ...

    def config(self, step: int) -> dict[str, Any]: ...

    def checkpoint(self, step: int) -> Any: ...


@dataclass(frozen=True)
class Job:
    """A step to be measured.

    Attributes:
        suite: the suite.
        step: the step to measure.
        previous: the step before it in the sweep, if any.
        measure: called with the step's checkpoint.
        path: where the rows are written; None: nowhere.
        provenance: written along.
        run: different for every sweep, so that no scheduler takes one for another.
    """

    suite: Suite
    step: int
    previous: int | None
    measure: Callable[[Any], Any]
    path: Path | None
    provenance: Provenance
    run: str = ""


@dataclass(frozen=True)
class Failure:
    """An exception of a measure, as text: not every exception survives the way between processes.

    Attributes:
        error: type and message.
        traceback: as Python prints it.
    """

    error: str
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """The failure that an exception means."""
        message = "".join(traceback.format_exception_only(error)).strip()
        return cls(message, "".join(traceback.format_exception(error)))


def run_job(job: Job) -> bytes:
    """Measure a step and write its rows.

    Returns:
        The content of the step's file, whether or not it was written.
    """
    checkpoint = job.suite.checkpoint(job.step)
    if job.previous is not None:
        before = job.suite.checkpoint(job.previous)
        checkpoint = dataclasses.replace(checkpoint, previous=before)
    frame = to_rows(job.measure(checkpoint), model=job.suite.name, step=job.step)
    content = FORMATS[".json"].dumps(frame, job.provenance)
    if job.path is not None:
        write_atomically(job.path, content)
    return content


def run_in_worker(job: Job | bytes) -> bytes | Failure:
    """`run_job` in another process or thread; exceptions come back as a `Failure`.

    Args:
        job: the job, or what `pickle.dumps` made of it.
    """
    started = time.perf_counter()
    try:
        outcome = run_job(pickle.loads(job) if isinstance(job, bytes) else job)
    except Exception as error:
        outcome = Failure.of(error)
    free_cycles(time.perf_counter() - started)
    return outcome


_COLLECTION_SHARE = 0.2  # most of the time that collections may take
_collection_seconds, _seconds_since = 0.15, 0.0


def free_cycles(seconds: float) -> None:
    """Free reference cycles (models are full of them), so that memory stays flat over steps.

    Python's own schedule goes by the number of objects and not by their size. A collection costs
    about 0.15 s with torch and transformers loaded, so very short steps share one.

    Args:
        seconds: how long the step just finished took.
    """
    global _collection_seconds, _seconds_since
    _seconds_since += seconds
    if _seconds_since * _COLLECTION_SHARE >= _collection_seconds:
        started = time.perf_counter()
        gc.collect()
        _collection_seconds, _seconds_since = time.perf_counter() - started, 0.0


def to_rows(result: Any, *, model: str, step: int) -> pd.DataFrame:
    """What a measure returned, as tidy rows of one step.

    Args:
        result: a mapping of metric names to numbers, a frame, or a result with `to_frame()`.
        model: name of the suite, for rows that name no model.
        step: the step, for rows that name no step.

    Raises:
        InputError: for anything else, or rows of another step.
    """
    if hasattr(result, "to_frame") and not isinstance(result, pd.DataFrame):
        result = result.to_frame()
    if isinstance(result, pd.DataFrame):
        frame = tidy(result, model=model, step=step)
    elif isinstance(result, Mapping):
        rows = [{"metric": str(name), "value": _number(name, x)} for name, x in result.items()]
        frame = tidy(rows, model=model, step=step)
    else:
        raise InputError(
            expected="a measure that returns a mapping of names to numbers, a frame or a result "
            "with to_frame()",
            got=f"a {type(result).__name__}",
            fix="Return for instance {'silhouette': 0.3}.",
        )
    others = sorted(set(frame["step"].dropna().astype(int)) - {step})
    if others:
        raise InputError(
            expected=f"rows of step {step}",
            got=f"rows of {others[:5]}",
            fix="Leave the column `step` out: the sweep fills it in.",
        )
    return frame


def _number(name: Any, value: Any) -> float:
    try:
        if isinstance(value, str) or (np.ndim(value) != 0 and value.numel() != 1):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(
            expected=f"one number for the metric {name!r}",
            got=f"{type(value).__name__} {str(value)[:60]!r}",
            fix="Return a frame with one row for each number, such as `results.tidy(rows)`.",
        ) from error
