"""What does not fit together in a set of evaluation files, each case named."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from headspec.checkpoints.eval_results import EvalFile

FAULTS = ("unreadable", "no_step", "duplicate", "mixed_version", "mixed_limit")
NOTES = ("missing_step", "missing_task", "other_version", "identical")


@dataclass(frozen=True)
class EvalProblem:
    """Something wrong, or odd, in a set of files.

    Attributes:
        kind: a fault, after which numbers would be wrong (`FAULTS`), or a note (`NOTES`).
        model, step: where.
        message: in words.
        files: which.
    """

    kind: str
    model: str
    step: int | None
    message: str
    files: tuple[str, ...]

    @property
    def is_fault(self) -> bool:
        """Whether numbers would be wrong, rather than missing or odd."""
        return self.kind in FAULTS


def single_file_problems(files: Iterable[EvalFile]) -> list[EvalProblem]:
    """Files that cannot be read, contradict themselves, or do not say their step or model."""
    found = []
    for one in files:
        model, step = one.key()
        if one.faults:
            text = "; ".join(one.faults[:3]) + (" ..." if len(one.faults) > 3 else "")
            found.append(EvalProblem("unreadable", model, step, text, (one.file,)))
        elif step is None or not model:
            what = "step" if step is None else "model"
            text = f"neither its name nor its configuration says the {what}"
            found.append(EvalProblem("no_step", model, step, text, (one.file,)))
    return found


def joint_problems(rows: Sequence[dict[str, Any]]) -> tuple[list[EvalProblem], set[int]]:
    """Duplicates, mixed versions and limits, missing steps and tasks among rows of good files.

    Returns:
        The problems, and which rows are faulty: all of a duplicate, the fewer of a mixture (all
        where none is in most files).
    """
    twice, copies = _duplicates(rows)
    mixed, fewer = _mixed(rows)
    return [*twice, *mixed, *_missing(rows), *_between_models(rows)], copies | fewer


def _duplicates(rows: Sequence[dict[str, Any]]) -> tuple[list[EvalProblem], set[int]]:
    at: dict[tuple, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        at[row["model"], row["step"], row["shots"], row["task"], row["measure"]].append(i)
    grouped: dict[tuple, list[list[int]]] = defaultdict(list)
    for key, same in at.items():
        if len(same) > 1:
            grouped[(*key[:3], tuple(sorted(rows[i]["file"] for i in same)))].append(same)
    found = []
    for (model, step, shots, files), cases in grouped.items():
        equal = all(len({rows[i]["value"] for i in same}) == 1 for same in cases)
        text = f"{len(cases)} measures ({shots}-shot) in {len(files)} files, with "
        text += "the same numbers" if equal else "different numbers"
        found.append(EvalProblem("duplicate", model, step, text, files))
    return found, {i for cases in grouped.values() for same in cases for i in same}


def _mixed(rows: Sequence[dict[str, Any]]) -> tuple[list[EvalProblem], set[int]]:
    """A task in several versions, or with several limits on its examples, within one curve."""
    curves: dict[tuple, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        curves[row["model"], row["shots"], row["task"]].append(i)
    found, fewer = [], set()
    for kind, name in (("mixed_version", "version"), ("mixed_limit", "limit")):
        grouped: dict[tuple, list[str]] = defaultdict(list)
        for (model, _, task), same in curves.items():
            count = Counter(kind for kind, _ in {(rows[i][name], rows[i]["file"]) for i in same})
            if len(count) > 1:
                (usual, most), (_, next_most) = count.most_common(2)
                tied = most == next_most
                odd = {i for i in same if tied or rows[i][name] != usual}
                fewer |= odd
                files = tuple(sorted({rows[i]["file"] for i in odd}))
                grouped[model, ", ".join(sorted(map(str, count))), files, tied].append(task)
        for (model, seen, files, tied), tasks in grouped.items():
            which = "all of them, as no one is in most files" if tied else "the fewer"
            text = f"{_some(tasks)} with {name}s {seen}; the files named are {which}"
            found.append(EvalProblem(kind, model, None, text, files))
    return found, fewer


def _between_models(rows: Sequence[dict[str, Any]]) -> list[EvalProblem]:
    """Tasks whose versions differ between models, each with one: their curves do not compare."""
    versions: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        versions[row["task"]][str(row["version"])].add(row["model"])
    grouped: dict[str, list[str]] = defaultdict(list)
    for task, by_version in versions.items():
        if len(by_version) > 1 and len(set(map(frozenset, by_version.values()))) > 1:
            said = (f"{v} of {_some(sorted(m))}" for v, m in sorted(by_version.items()))
            grouped["; ".join(said)].append(task)
    return [
        EvalProblem("other_version", "", None, f"{_some(tasks)} with versions {said}", ())
        for said, tasks in grouped.items()
    ]


def _missing(rows: Sequence[dict[str, Any]]) -> list[EvalProblem]:
    """Steps that another model has, and tasks that are not there at every step of a model."""
    steps: dict[tuple, set[int]] = defaultdict(set)
    tasks: dict[tuple, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        curve = (row["model"], row["shots"])
        steps[curve].add(row["step"])
        tasks[curve][row["task"]].add(row["step"])
    found = []
    for (model, shots), have in steps.items():
        others = set().union(*(s for (_, n), s in steps.items() if n == shots))
        if lost := sorted(others - have):
            text = f"no {shots}-shot results at steps {_some(lost)}, which other models have"
            found.append(EvalProblem("missing_step", model, lost[0], text, ()))
        grouped: dict[tuple, list[str]] = defaultdict(list)
        for task, at in tasks[model, shots].items():
            if gone := tuple(sorted(have - at)):
                grouped[gone].append(task)
        for gone, names in grouped.items():
            text = f"no {_some(names)} ({shots}-shot) at steps {_some(gone)}"
            found.append(EvalProblem("missing_task", model, gone[0], text, ()))
    return found


def identical_steps(files: Iterable[EvalFile]) -> tuple[dict[str, int], list[EvalProblem]]:
    """Files with exactly the numbers of the step before, by name, and notes on them.

    Compared are files of the same measures and shots: zero- and five-shot files may be mixed.

    Steps 0 and 1 are left out of the notes: they agree in all of Pythia's evaluations checked.
    """
    alike: dict[tuple, list[EvalFile]] = defaultdict(list)  # same model, measures and shots
    for one in files:
        measured = frozenset((key, shots) for key, (_, shots) in one.numbers().items())
        alike[one.identity.model, measured].append(one)
    copies, notes = {}, []
    for (model, _), same in alike.items():
        ordered = sorted(same, key=lambda one: one.identity.step or 0)
        for before, after in pairwise(ordered):
            first, second = before.identity.step or 0, after.identity.step or 0
            if first == second or not after.rows or before.numbers() != after.numbers():
                continue
            copies[after.file] = first
            if (first, second) != (0, 1):
                text = f"all {len(after.rows)} numbers are those of step {first}"
                notes.append(EvalProblem("identical", model, second, text, (after.file,)))
    return copies, notes


def _some(names: Sequence[Any]) -> str:
    shown = ", ".join(map(str, names[:5]))
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
