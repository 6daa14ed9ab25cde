"""Finished steps of a sweep on disk: where they lie, and whether they still hold.

    out/
      pythia-160m-ClusterMeasure-1f0c2a9b/    a suite's name, a measure, a release of headspec
        step512-5be3a8c80e21.json             rows and provenance of one step

The second number is the step's fingerprint: of the suite's name, the step, weights and config of
this step and of the one before it in the sweep (a measure may compare with it), code and settings
of the measure, headspec's version and code. A file counts when its name is right and it is whole
(it carries a checksum). So runs with the same name, or sweeps over other steps, lie side by side.
Files of old measures and weights are never read again and can be deleted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from headspec.errors import CheckpointError, HeadspecError
from headspec.results import load
from headspec.results.provenance import Provenance
from headspec.sweeps.fingerprint import fingerprint_measure, headspec_identity, measure_name
from headspec.sweeps.step import Suite

_log = logging.getLogger("headspec.sweep")
_STALE_SECONDS = 3600


class SweepWarning(UserWarning):
    """Something about a sweep that its reader should know."""


class StepStore:
    """The step files of one suite and one measure.

    Args:
        out: the folder for all sweeps; None: nothing is read or written.
        suite: the suite.
        measure: the measure.
        steps: the steps of the sweep, ascending.

    Attributes:
        previous: step -> the one before it in the sweep, None for the first.
        folder: where the files lie, None for nowhere.
    """

    def __init__(
        self,
        out: Path | None,
        suite: Suite,
        measure: Callable[[Any], Any],
        *,
        steps: tuple[int, ...],
    ) -> None:
        self.suite, self.measure_name = suite, measure_name(measure)
        self.previous = dict(zip(steps, (None, *steps), strict=False))
        self._hashes: dict[int, str] = {}
        self._contents: dict[int, str] = {}
        self.folder: Path | None = None
        if out is not None:
            self._measure = fingerprint_measure(measure)
            key = _hash(suite.name, self._measure, headspec_identity())
            names = [_slug(Path(suite.name).name), _slug(self.measure_name), key[:8]]
            self.folder = Path(out).absolute() / "-".join(names)

    def path(self, step: int) -> Path | None:
        """The file of a step; None where nothing is stored."""
        if self.folder is None:
            return None
        return self.folder / f"step{step}-{self.fingerprint(step)[:12]}.json"

    def read(self, step: int) -> pd.DataFrame | None:
        """The rows of a finished step; None where there are none that hold.

        A damaged file is named in a `SweepWarning`.
        """
        if self.folder is None or next(self.folder.glob(f"step{step}-*.json"), None) is None:
            return None  # without reading the weights for their fingerprint
        try:
            path = self.path(step)
        except HeadspecError:  # measuring the step will say what is wrong with it
            return None
        if path is None or not path.exists():
            _log.info("step %d: what it was computed from has changed; computed again", step)
            return None
        try:
            return load(path)
        except CheckpointError as error:
            message = f"{path} is damaged; step {step} is computed again. ({error.got})"
            warnings.warn(message, SweepWarning, stacklevel=3)
            return None

    def fingerprint(self, step: int) -> str:
        """The hash of everything that the rows of a step depend on."""
        previous = self.previous[step]
        before = None if previous is None else self._content(previous)
        return _hash(
            *(self.suite.name, step, self._content(step), previous, before),
            *(self._measure, headspec_identity()),
        )

    def provenance(self, step: int) -> Provenance:
        """What is written along with the rows of a step."""
        if self.folder is None:
            return Provenance()
        arguments = {"measure": self.measure_name, "fingerprint": self.fingerprint(step)}
        noted = Provenance.collect(steps=(step,), arguments=arguments)
        hashes = {step: self._hashes[step]}
        return dataclasses.replace(noted, suite=self.suite.name, hashes=hashes)

    def _content(self, step: int) -> str:
        """Weights and config of a step, read once in a sweep."""
        if step not in self._contents:
            config = json.dumps(self.suite.config(step), sort_keys=True, default=str)
            self._hashes[step] = self.suite.fingerprint(step)
            self._contents[step] = _hash(self._hashes[step], config)
        return self._contents[step]

    def remove_leftovers(self) -> None:
        """Delete what processes killed while writing left behind, once it is an hour old."""
        if self.folder is None or not self.folder.is_dir():
            return
        for path in self.folder.glob(".*.tmp"):
            try:
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()
            except OSError:  # another sweep was quicker
                continue


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _slug(name: str) -> str:
    return re.sub(r"[^\w.]+", "-", name).strip("-.") or "measure"
