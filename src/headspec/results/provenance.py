"""Where a result comes from: suite, steps, hashes, versions, seeds, processing, arguments."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import PurePath
from typing import Any, Protocol, runtime_checkable

import numpy as np

_PACKAGES = (
    "headspec",
    "torch",
    "transformers",
    "transformer-lens",
    "huggingface-hub",
    "safetensors",
    "numpy",
    "scipy",
    "scikit-learn",
    "ruptures",
    "pandas",
)
# An absolute path (POSIX or Windows) inside a text; the last part is what is kept.
_PATH = re.compile(r"(?<![\w.:/\\])(?:[A-Za-z]:[\\/]|/)(?:[^\s/\\:\"']+[\\/])+([^\s/\\:\"']*)")


@runtime_checkable
class _Suite(Protocol):
    @property
    def name(self) -> str: ...

    def fingerprint(self, step: int) -> str: ...


@dataclass(frozen=True)
class Provenance:
    """What a result was computed from and with. It holds no machine paths and no host names.

    It says what was used, not that the result follows from it: code outside the listed packages
    (your own measure, say) is not part of it.

    Attributes:
        suite: name of the checkpoint suite; None for results that come from no suite.
        steps: training steps the result covers.
        hashes: content hash of each step's weights.
        versions: installed version of headspec and of every package its numbers depend on.
        python: version of the interpreter.
        platform: operating system and processor family, since rounding may depend on them.
        seeds: every seed given.
        processing: weight processing applied (`"none"`, `"fold_ln,..."`); None if not known.
        arguments: the command or function arguments; absolute paths are cut to their last part.
        created: UTC time, ISO 8601.
    """

    suite: str | None = None
    steps: tuple[int, ...] = ()
    hashes: dict[int, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    python: str = ""
    platform: str = ""
    seeds: tuple[int, ...] = ()
    processing: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    created: str = ""

    @classmethod
    def collect(
        cls,
        suite: _Suite | None = None,
        *,
        steps: Iterable[int] = (),
        seeds: Iterable[int] | int | None = None,
        processing: str | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> Provenance:
        """Note down what is in use now. No package is imported for it.

        Args:
            suite: the suite; its name and the content hashes of `steps` are noted.
            steps: the steps used.
            seeds: one seed or several.
            processing: weight processing applied.
            arguments: whatever else makes the run reproducible, such as
                `{"command": sys.argv, "feature": "qk"}`.

        Example:
            >>> Provenance.collect(seeds=0, arguments={"out": "/home/me/out"}).arguments
            {'out': 'out'}
        """
        steps = tuple(int(step) for step in steps)
        if seeds is None:
            seeds = ()
        seeds = (seeds,) if isinstance(seeds, int | np.integer) else seeds
        return cls(
            suite=None if suite is None else _without_paths(suite.name),
            steps=steps,
            hashes={} if suite is None else {step: suite.fingerprint(step) for step in steps},
            versions=dict(_versions()),
            python=platform.python_version(),
            platform=f"{platform.system()} {platform.machine()}",
            seeds=tuple(int(seed) for seed in seeds),
            processing=processing,
            arguments=_without_paths(dict(arguments or {})),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    found = []
    for package in _PACKAGES:
        try:
            found.append((package, metadata.version(package)))
        except metadata.PackageNotFoundError:
            continue
    return tuple(found)


def _without_paths(value: Any) -> Any:
    """Arguments as plain values, absolute paths cut to their last part."""
    if isinstance(value, PurePath):
        return value.name if value.is_absolute() else value.as_posix()
    if isinstance(value, str):
        return _PATH.sub(lambda found: found.group(1) or "...", value)
    if isinstance(value, Mapping):
        return {str(key): _without_paths(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_without_paths(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(_without_paths(item) for item in value)
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float):
        return value
    return _PATH.sub(lambda found: found.group(1) or "...", repr(value))
