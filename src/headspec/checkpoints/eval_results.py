"""One result file of lm-evaluation-harness, of 2023 (`acc`) or of today (`acc,none`), as rows."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from headspec.checkpoints.chance_levels import chance_level
from headspec.checkpoints.eval_names import EvalIdentity, identify

_NOT_MEASURES = ("alias", "name", "sample_len", "sample_count")


@dataclass(frozen=True)
class EvalFile:
    """A result file as read.

    Attributes:
        file: its name.
        identity: what it is of.
        rows: one a task and measure, with `task measure value se shots version n chance`.
        limit: how many examples of each task were used, None for all.
        faults: what is wrong with it, in words.
        foreign: whether it is JSON of another kind, without `results`.
    """

    file: str
    identity: EvalIdentity
    rows: tuple[dict[str, Any], ...] = ()
    limit: float | int | None = None
    faults: tuple[str, ...] = field(default=())
    foreign: bool = False

    def key(self) -> tuple[str, int | None]:
        """Model and step."""
        return self.identity.model, self.identity.step

    def numbers(self) -> dict[tuple[str, str], tuple[float, Any]]:
        """Value of every task and measure, to tell copies."""
        return {(r["task"], r["measure"]): (r["value"], r["shots"]) for r in self.rows}


def read_results(
    file: str, content: bytes, *, of_pythia: bool, judged: Callable[[str], bool] = bool
) -> EvalFile:
    """A file as rows; what is wrong with it is said in `faults`, nothing is raised.

    Args:
        file: its name, with folders, which may say the model, the step and the shots.
        content: of the file.
        of_pythia: as in `identify`.
        judged: tasks whose numbers have to be sound; faulty ones of others are left out.
    """
    nobody = identify(file, {}, of_pythia=of_pythia)
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:  # also bytes that are no text
        return EvalFile(file, nobody, faults=(f"not JSON, perhaps truncated ({error})",))
    results = data.get("results") if isinstance(data, Mapping) else None
    if not isinstance(results, Mapping) or not results:
        said = ('no "results" of lm-evaluation-harness in it',)
        foreign = not isinstance(data, Mapping) or "results" not in data
        return EvalFile(file, nobody, faults=said, foreign=foreign)
    config = dict(data["config"]) if isinstance(data.get("config"), Mapping) else {}
    config.setdefault("model_name", data.get("model_name"))
    identity = identify(file, config, of_pythia=of_pythia)
    faults, rows = list(identity.contradictions), []
    for task, numbers in results.items():
        if not isinstance(numbers, Mapping):
            faults += [f"{task}: no measures"] if judged(task) else []
            continue
        settings = _settings(task, data, identity)
        for key in numbers:
            row, fault = _row(task, key, numbers)
            if fault and judged(task):
                faults.append(fault)
            elif row is not None:
                rows.append(row | settings)
    limit = config.get("limit")
    return EvalFile(
        file, identity, tuple(rows), limit if _is_number(limit) else None, tuple(faults)
    )


def _settings(task: str, data: Mapping[str, Any], identity: EvalIdentity) -> dict[str, Any]:
    """Shots, version and number of examples of a task."""
    shots = _of(data, "n-shot", task)
    if shots is None:
        shots = (_of(data, "configs", task) or {}).get("num_fewshot")
    version, samples = _of(data, "versions", task), _of(data, "n-samples", task)
    n = samples.get("effective") if isinstance(samples, Mapping) else samples
    return {
        "shots": identity.shots if shots is None else _count(shots),
        "version": None if version is None else str(version),
        "n": _count(n),
    }


def _count(given: Any) -> int | None:
    """A number of shots or examples, None for what is none: groups have "N/A" or a blank."""
    text = str(given).strip()
    return int(text) if re.fullmatch(r"\d{1,15}", text) else None


def _of(data: Mapping[str, Any], name: str, task: str) -> Any:
    named = data.get(name)
    return named.get(task) if isinstance(named, Mapping) else None


def _row(task: str, key: str, numbers: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """A measure with its standard error, or what is wrong with it; neither for other entries."""
    measure, _, filtered = key.partition(",")
    value = numbers[key]
    if key in _NOT_MEASURES or measure.endswith("_stderr") or isinstance(value, str):
        return None, ""
    name = measure if filtered in ("", "none") else key
    if not _is_number(value):
        return None, f"{task}.{name} is {str(value)[:40]}"
    if measure in ("acc", "acc_norm") and not 0 <= value <= 1:
        return None, f"{task}.{name} is {value}, no share"
    se = numbers.get(f"{measure}_stderr" + (f",{filtered}" if filtered else ""))
    if not _is_number(se) or se < 0:  # "N/A" in groups
        se = math.nan
    return {
        "task": task,
        "measure": name,
        "value": float(value),
        "se": float(se),
        "chance": chance_level(task, measure),
    }, ""


def _is_number(value: Any) -> TypeGuard[int | float]:
    """Whether it is finite, and fits into a float."""
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return known and abs(value) < 1e300
