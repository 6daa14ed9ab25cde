"""A plan of checkpoints: the steps, the moments they belong to, and its JSON file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from headspec.errors import InputError
from headspec.results import tidy
from headspec.results.files import write_atomically

_FORMAT = "headspec checkpoint plan 1"
KINDS = ("jump", "candidate", "control", "landmark")
"""Kinds of moments: what was detected, what the caller asked for, what is compared, fixed."""

MOMENT_TYPES = {
    "moment": "int64",
    "kind": "str",
    "matched": "Int64",
    "model": "str",
    "seed": "Int64",
    "layer_name": "str",
    "metric": "str",
    "before": "Int64",
    "during": "Int64",
    "after": "Int64",
    "phase": "float64",
    "magnitude": "float64",
    "type": "Int64",
}
_FIELDS = ("steps", "n_steps", "n_measured", "checkpoint_bytes", "select", "notes")


@dataclass(frozen=True, eq=False)
class CheckpointPlan:
    """Which checkpoints of a training to keep, and why.

    Attributes:
        steps: all of them, increasing, each once: what `checkpoints=` of a training takes.
        moments: one row a moment: `moment` (its number), `kind` (`"jump"`, `"candidate"` from
            the caller, `"control"`, `"landmark"`), `matched` (of a control: the moment it is
            compared with, whose model, seed, layer and metric it bears), `model seed layer_name
            metric`, the steps `before during after`
            (`during` missing with two checkpoints a jump; a landmark has `during` alone),
            `phase`, `magnitude`, `type` (missing where there is none).
        moment_steps: the steps of each moment, in the order of `moments`.
        n_steps: updates of the training.
        n_measured: measurements of the training, the number of checkpoints of a plan that keeps
            them all.
        checkpoint_bytes: size of one checkpoint; None if not known.
        select: how jumps were chosen.
        notes: what could not be had as asked, in words.
    """

    steps: tuple[int, ...]
    moments: pd.DataFrame
    moment_steps: tuple[tuple[int, ...], ...]
    n_steps: int
    n_measured: int
    checkpoint_bytes: int | None = None
    select: str = "coverage"
    notes: tuple[str, ...] = ()

    @property
    def n_checkpoints(self) -> int:
        """Checkpoints on disk: the steps, with step 0 and the last, which training always keeps."""
        return len({0, *self.steps, self.n_steps})

    @property
    def n_bytes(self) -> int | None:
        """Storage of the plan in bytes, `checkpoint_bytes` x `n_checkpoints`; None if not known."""
        return None if self.checkpoint_bytes is None else self.checkpoint_bytes * self.n_checkpoints

    @property
    def n_bytes_measured(self) -> int | None:
        """Storage of a checkpoint at every measurement, in bytes; None if not known."""
        return None if self.checkpoint_bytes is None else self.checkpoint_bytes * self.n_measured

    def to_frame(self) -> pd.DataFrame:
        """One tidy row a moment: `step` is `during` (`before` without), `value` the magnitude."""
        rows = self.moments.copy()
        rows["step"] = rows["during"].fillna(rows["before"])
        rows["value"] = rows["magnitude"]
        return tidy(rows)

    def summary(self) -> str:
        """Numbers of moments and checkpoints, their storage, and the notes."""
        counts = self.moments["kind"].value_counts()
        named = [f"{counts[kind]} {kind}s" for kind in KINDS if kind in counts]
        text = (
            f"{len(self.steps)} checkpoints for {', '.join(named) or 'no moments'} in "
            f"{self.n_steps} updates ({self.n_checkpoints} on disk with the first and the last, "
            f"of {self.n_measured} measured)."
        )
        if self.n_bytes is not None and self.n_bytes_measured is not None:
            text += (
                f" Storage {self.n_bytes / 1e6:.1f} MB; a checkpoint at every measurement "
                f"would take {self.n_bytes_measured / 1e6:.1f} MB."
            )
        return "\n".join([text, *(f"Note: {note}." for note in self.notes)])

    def to_json(self, path: str | Path) -> None:
        """Write the plan, whole or not at all.

        The file is a JSON object: `format`, `steps` (what other training code needs), `n_steps`,
        `n_measured`, `checkpoint_bytes`, `select`, `notes`, and `moments`, each an object with
        the columns of `moments` (null where missing) and its `steps`.

        Args:
            path: of the file; folders are made.
        """
        rows: Any = json.loads(self.moments.to_json(orient="records") or "[]")
        for row, own, exact in zip(
            rows, self.moment_steps, self.moments.to_dict("records"), strict=True
        ):
            row["steps"] = list(own)
            for name in ("phase", "magnitude"):  # every digit, which pandas does not write
                row[name] = None if pd.isna(exact[name]) else float(exact[name])
        content = {"format": _FORMAT} | {name: getattr(self, name) for name in _FIELDS}
        text = json.dumps(content | {"moments": rows}, indent=1, allow_nan=False)
        write_atomically(Path(path), text.encode() + b"\n")


def load_checkpoint_plan(path: str | Path) -> CheckpointPlan:
    """Read a plan that `CheckpointPlan.to_json` wrote.

    Args:
        path: of the file.

    Returns:
        The plan, equal to the one written.

    Raises:
        InputError: no such file, no plan in it, or steps and moments that contradict each other.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import pandas as pd
        >>> from headspec.series.checkpoint_plan import plan_checkpoints
        >>> from headspec.series.checkpoint_plan_result import load_checkpoint_plan
        >>> jumps = pd.DataFrame({"step": [40], "step_before": [35], "magnitude": [0.5]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plan_checkpoints(jumps, n_steps=100).to_json(Path(folder) / "plan.json")
        ...     load_checkpoint_plan(Path(folder) / "plan.json").steps
        (27, 37, 47, 50, 75, 100)
    """
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise _no_plan(path, str(error)) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise _no_plan(path, f"no {_FORMAT!r} in it")
    missing = [name for name in (*_FIELDS, "moments") if name not in content]
    if missing:
        raise _no_plan(path, f"no {', '.join(missing)}")
    try:
        own = tuple(tuple(map(_whole, row.pop("steps"))) for row in content["moments"])
        n_bytes = content["checkpoint_bytes"]
        plan = CheckpointPlan(
            steps=tuple(map(_whole, content["steps"])),
            moments=moments_frame(content["moments"]),
            moment_steps=own,
            n_steps=_whole(content["n_steps"]),
            n_measured=_whole(content["n_measured"]),
            checkpoint_bytes=None if n_bytes is None else _whole(n_bytes),
            select=str(content["select"]),
            notes=_texts(content["notes"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _no_plan(path, f"numbers or moments that cannot be read: {error!r}") from error
    wrong = _contradiction(plan)
    if wrong:
        raise _no_plan(path, wrong)
    return plan


def moments_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The frame of the moments with fixed dtypes, also without rows."""
    frame = pd.DataFrame(rows, columns=pd.Index(MOMENT_TYPES))
    for name, dtype in MOMENT_TYPES.items():
        column = frame[name].astype(object)
        if dtype == "str":
            frame[name] = column.where(column.notna(), "").astype(str)
        else:
            gap = None if dtype == "Int64" else float("nan")
            frame[name] = column.where(column.notna(), gap).astype(dtype)  # pyright: ignore[reportArgumentType]
    return frame


def _contradiction(plan: CheckpointPlan) -> str:
    """What is wrong with a plan, in words; empty where nothing is."""
    asked = {step for own in plan.moment_steps for step in own}
    if tuple(sorted(asked)) != plan.steps:
        return "steps that are not those of its moments, sorted"
    if asked and not 0 <= min(asked) <= max(asked) <= plan.n_steps:
        return f"steps outside 0 to n_steps = {plan.n_steps}"
    if not set(plan.moments["kind"]) <= set(KINDS):
        return f"kinds of moments other than {', '.join(KINDS)}"
    if plan.moments["moment"].tolist() != list(range(len(plan.moments))):
        return "moments that are not numbered 0, 1, 2, ..."
    places = plan.moments[["before", "during", "after"]]
    for own, (_, row) in zip(plan.moment_steps, places.iterrows(), strict=True):
        if not set(row.dropna()) <= set(own):
            return f"a moment at {row.dropna().tolist()} whose steps are {list(own)}"
    return ""


def _whole(number: Any) -> int:
    """A whole number from 0 up as it is; nothing else is rounded to one."""
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ValueError(f"{number!r} is no whole number from 0 up")
    return number


def _texts(texts: Any) -> tuple[str, ...]:
    """A list of texts; a single text is not one."""
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{texts!r} is no list of texts")
    return tuple(texts)


def _no_plan(path: str | Path, got: str) -> InputError:
    return InputError(
        expected=f"a plan of checkpoints in {path}",
        got=got,
        fix="Write it again with `plan_checkpoints(...).to_json(path)`.",
    )
