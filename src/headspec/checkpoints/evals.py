"""Capability curves from evaluation files: Pythia's, and any of lm-evaluation-harness."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import functools
import warnings
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal, TypeAlias, get_args

import pandas as pd

from headspec.checkpoints.eval_checks import (
    EvalProblem,
    identical_steps,
    joint_problems,
    single_file_problems,
)
from headspec.checkpoints.eval_results import EvalFile, read_results
from headspec.checkpoints.eval_sources import EvalSource, read_sources
from headspec.errors import InputError, check_choice
from headspec.results.capability_rows import capability_rows

OnError = Literal["raise", "warn"]
"""`"warn"`: leave out what is faulty and name it in a warning."""

Globs: TypeAlias = str | Sequence[str] | None


class EvalFilesWarning(UserWarning):
    """Evaluation files that are missing, odd, or were left out."""


def load_pythia_evals(
    path_or_url: EvalSource,
    *,
    models: Globs = None,
    tasks: Globs = None,
    metrics: Globs = None,
    shots: int | Collection[int] | None = None,
    on_error: OnError = "raise",
) -> pd.DataFrame:
    """Capability curves of the Pythia models, from the JSON files of EleutherAI/pythia.

    Files are named like `pythia-70m/zero-shot/70m_step1000.json` or
    `pythia-160m/five-shot/160m-5shot_step3000.json`, and hold
    `{results: {task: {acc, acc_stderr, ...}}, versions, config}`. Model, step and shots are read
    from `config`, the file's name and its folders, which must agree.

    Args:
        path_or_url: a folder at any level (everything, one model, one number of shots), a file, a
            `.zip` or `.tar.gz` archive, a URL of a file or archive or of a folder on github.com,
            or a list of these. Files not named `*step<N>*.json` are not looked at.
        models: names or patterns, such as `"pythia-*m"`; None: all.
        tasks: names or patterns, such as `("lambada_openai", "hendrycksTest-*")`; None: all.
        metrics: measures or whole metrics, such as `"acc"` or `"lambada_openai.*"`; None: all.
        shots: number or numbers of examples in the prompt; None: all.
        on_error: with faulty files (not JSON, not lm-eval's, contradicting themselves), two files
            of the same thing, or a task in several versions or with several limits on its
            examples in one curve: `"raise"` one error that names all of them; `"warn"` leaves
            the faulty files, *both* files of a duplicate, and the rarer version out (all, where
            no version is in most files), and says so. Numbers of tasks that are not asked for
            are not judged. Nothing is ever averaged.

    Returns:
        One row a number: the tidy columns with `metric` = `"{task}.{measure}"`, then `task`,
        `measure`, `se` (standard error over examples), `shots`, `chance` (of guessing, NaN if
        unknown), `version` of the task, `identical_to` (the step before, where *all* numbers of
        the file are the same; step 1 repeats step 0 in Pythia), `file`. Sorted by model, shots,
        metric, step: `frame.query("model == 'pythia-70m' and shots == 0")` holds one curve a
        metric.

    Raises:
        InputError: nothing there, nothing of these names, or faulty files under `"raise"`.
        HubUnreachableError: a URL that cannot be read.

    Warns:
        EvalFilesWarning: a step that another model has, a task that is not there at all steps, a
            task in one version for one model and in another for the next, a name in `tasks` that
            no file has, or a file with the same numbers as the step before; and what `"warn"`
            left out.

    What it does not show: standard errors are over examples; they say nothing of the spread
    between training runs or neighbouring checkpoints. `acc_norm` compares answers per
    character. An untrained model is not at `chance` (see `chance_level`).

    Example:
        >>> frame = load_pythia_evals("evals/pythia-v1", tasks="lambada_openai")  # doctest: +SKIP
        >>> hs.emergence_step(                                                    # doctest: +SKIP
        ...     frame.query("model == 'pythia-70m' and shots == 0"),
        ...     "lambada_openai.acc", chance=0, se="se")
    """
    check_choice("on_error", on_error, get_args(OnError))
    files = _read(path_or_url, pattern="*step[0-9]*.json", of_pythia=True, tasks=tasks)
    return _frame(files, models, tasks, metrics, shots, on_error)


def load_lm_eval(
    path_or_url: EvalSource,
    *,
    model: str | None = None,
    step: int | None = None,
    models: Globs = None,
    tasks: Globs = None,
    metrics: Globs = None,
    shots: int | Collection[int] | None = None,
    on_error: OnError = "raise",
) -> pd.DataFrame:
    """Capability curves from result files of lm-evaluation-harness, of today (0.4) or before.

    Today's files, `results_<date>.json`, have measures such as `"acc,none"` with
    `"acc_stderr,none"`, and `versions`, `n-shot`, `n-samples`, `config.model_args`. The filter
    `none` is dropped from names, others are kept: `"gsm8k.exact_match,strict-match"`. The step
    comes from `revision=step1000` or the model's path (`.../checkpoint-1000`) in `model_args`, from
    the file's name or the two folders above it, whichever says it; they must agree. Groups
    (`mmlu`) are tasks of their own.

    Args:
        path_or_url: as in `load_pythia_evals`; every `.json` file with `results` counts, and
            every one named `results*`; others, such as a config.json, are not looked at.
        model: of all files that do not say.
        step: of all files that do not say.
        models, tasks, metrics, shots, on_error: as in `load_pythia_evals`.

    Returns:
        As `load_pythia_evals`, with `n` (examples) where the file says.

    Raises:
        InputError: as there; also a file whose step nothing says.

    What it does not show: whether two files used the same prompts: the version of a task should
    say so.

    Example:
        >>> frame = load_lm_eval("results/my-model", tasks="piqa")           # doctest: +SKIP
        >>> frame[["step", "metric", "value", "se"]]                         # doctest: +SKIP
    """
    check_choice("on_error", on_error, get_args(OnError))
    files = _read(path_or_url, pattern="*.json", of_pythia=False, tasks=tasks)
    results = [one for one in files if not one.foreign or _named_results(one.file)]
    files = results or files
    for i, one in enumerate(files):
        known = one.identity
        identity = dataclasses.replace(
            known,
            model=known.model or model or "",
            step=step if known.step is None else known.step,
        )
        files[i] = dataclasses.replace(one, identity=identity)
    return _frame(files, models, tasks, metrics, shots, on_error)


def _read(source: EvalSource, *, pattern: str, of_pythia: bool, tasks: Globs) -> list[EvalFile]:
    judged = functools.partial(_in, tasks)
    return [
        read_results(name, content, of_pythia=of_pythia, judged=judged)
        for name, content in read_sources(source, pattern=pattern)
    ]


def _named_results(file: str) -> bool:
    return PurePosixPath(file).name.startswith("results")


def _frame(
    files: list[EvalFile],
    models: Globs,
    tasks: Globs,
    metrics: Globs,
    shots: int | Collection[int] | None,
    on_error: OnError,
) -> pd.DataFrame:
    files = [one for one in files if not one.identity.model or _in(models, one.identity.model)]
    problems = single_file_problems(files)
    bad = {file for problem in problems for file in problem.files}
    good = [one for one in files if one.file not in bad]
    copies, notes = identical_steps(good)
    everything = [row for one in good for row in _rows(one, copies)]
    rows = _chosen(everything, tasks, metrics, shots)
    joint, dropped = joint_problems(rows)
    faults = [problem for problem in [*problems, *joint] if problem.is_fault]
    if faults and on_error == "raise":
        raise InputError(
            expected="evaluation files that fit together",
            got=_listed(faults),
            fix="Repair or leave out these files, or on_error='warn', which leaves them out.",
        )
    rows = [row for i, row in enumerate(rows) if i not in dropped]
    if not rows:
        raise _nothing(everything, faults, tasks, metrics)
    notes = [problem for problem in joint if not problem.is_fault] + notes
    for glob in [tasks] if isinstance(tasks, str) else tasks or ():
        if not any(fnmatch.fnmatchcase(row["task"], glob) for row in everything):
            notes.append(EvalProblem("missing_task", "", None, f"no task {glob!r} anywhere", ()))
    if told := [*faults, *notes]:
        left = " (faulty ones were left out)" if faults else ""
        warnings.warn(f"evaluation files{left}: {_listed(told)}", EvalFilesWarning, stacklevel=3)
    frame = capability_rows(rows).drop(columns="limit")
    order = ["model", "shots", "metric", "step"]
    return frame.sort_values(order, kind="stable", ignore_index=True)


def _rows(one: EvalFile, copies: dict[str, int]) -> list[dict[str, Any]]:
    model, step = one.key()
    of_file = {"model": model, "step": step, "file": one.file, "limit": one.limit}
    return [{**of_file, "identical_to": copies.get(one.file), **row} for row in one.rows]


def _in(globs: Globs, *names: str) -> bool:
    wanted = [globs] if isinstance(globs, str) else globs
    return wanted is None or any(fnmatch.fnmatchcase(n, glob) for n in names for glob in wanted)


def _chosen(
    rows: list[dict[str, Any]],
    tasks: Globs,
    metrics: Globs,
    shots: int | Collection[int] | None,
) -> list[dict[str, Any]]:
    counts = shots if shots is None or isinstance(shots, Collection) else {shots}
    return [
        row
        for row in rows
        if _in(tasks, row["task"])
        and _in(metrics, row["measure"], f"{row['task']}.{row['measure']}")
        and (counts is None or row["shots"] in counts)
    ]


def _listed(problems: list[EvalProblem], most: int = 12) -> str:
    lines = []
    for one in problems[:most]:
        where = " ".join(filter(None, [one.model, "" if one.step is None else f"step {one.step}"]))
        files = ", ".join(one.files[:4]) + (" ..." if len(one.files) > 4 else "")
        lines.append(": ".join(filter(None, [one.kind.replace("_", " "), where, one.message])))
        lines[-1] += f" [{files}]" if files else ""
    if len(problems) > most:
        lines.append(f"and {len(problems) - most} more")
    return "\n- " + "\n- ".join(lines) + "\n"


def _nothing(
    everything: list[dict[str, Any]], faults: list[EvalProblem], tasks: Globs, metrics: Globs
) -> InputError:
    if not everything or faults:
        return InputError(
            expected="evaluation results",
            got=_listed(faults) if faults else "none of these models",
            fix="Check `models` and the folder.",
        )
    known = sorted({row["task"] for row in everything} | {row["measure"] for row in everything})
    asked = [
        name for one in (tasks, metrics) for name in ([one] if isinstance(one, str) else one or ())
    ]
    near = [hit for name in asked for hit in difflib.get_close_matches(name, known, n=3)]
    counts = " and ".join(sorted({f"{row['shots']}-shot" for row in everything}))
    return InputError(
        expected="tasks, metrics and shots that the files have",
        got=f"tasks={tasks!r}, metrics={metrics!r}; the files are {counts}",
        fix=f"Did you mean one of {near or known[:8]}?",
    )
