"""Names of revisions and folders <-> training steps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from operator import index
from string import Formatter
from typing import SupportsIndex

from headspec.errors import InputError, StepNotFoundError

DEFAULT_FORMATS = ("step{step}", "checkpoint-{step}", "step{step}-tokens{tokens}B")
"""What is recognised unasked: Pythia and PolyPythias, the Hugging Face Trainer and
stanford-crfm, OLMo."""


def compile_format(revision_format: str) -> re.Pattern[str]:
    """Turn `"step{step}-tokens{tokens}B"` into a regular expression.

    Args:
        revision_format: text with named fields in braces. `{step}` is required and matches
            digits; every other field matches anything and is ignored.

    Returns:
        A pattern to be used with `fullmatch`; its group `step` holds the step's digits.

    Raises:
        InputError: without exactly one `{step}`, or with a field that has no plain name.

    Example:
        >>> compile_format("stage1-step{step}-tokens{tokens}B").fullmatch(
        ...     "stage1-step150-tokens1B")["step"]
        '150'
    """
    try:
        parts = list(Formatter().parse(revision_format))
    except ValueError as error:
        raise _bad_format(revision_format, str(error)) from error
    fields = [field for _, field, _, _ in parts if field is not None]
    if fields.count("step") != 1 or not all(field.isidentifier() for field in fields):
        raise _bad_format(revision_format, f"the fields {fields}")
    regex = ""
    for literal, field, _, _ in parts:
        regex += re.escape(literal)
        if field is not None:
            regex += r"(?P<step>\d+)" if field == "step" else ".+?"
    return re.compile(regex)


def _bad_format(revision_format: str, got: str) -> InputError:
    return InputError(
        expected="a revision_format with one field {step}, such as 'step{step}-tokens{tokens}B'",
        got=f"{revision_format!r} ({got})",
        fix="Write a branch name and replace its step number by {step}, other parts that vary by "
        "a named field.",
    )


def find_steps(
    names: Iterable[str],
    revision_format: str | None = None,
    *,
    same: Mapping[str, str] | None = None,
) -> dict[int, str]:
    """Which names are training steps.

    Args:
        names: names of branches, tags or folders.
        revision_format: how a step is named; None tries `DEFAULT_FORMATS`.
        same: what each name stands for (a commit). Two names of one step are fine when they stand
            for the same thing; the first is kept.

    Returns:
        step -> name, in ascending order of steps.

    Raises:
        InputError: two names that are not the same thing give the same step.
    """
    formats = (revision_format,) if revision_format is not None else DEFAULT_FORMATS
    patterns = [compile_format(text) for text in formats]
    found: dict[int, str] = {}
    for name in names:
        match = next((m for pattern in patterns if (m := pattern.fullmatch(name))), None)
        if match is None:
            continue
        step = int(match["step"])
        other = found.setdefault(step, name)
        if other != name and (same is None or same[other] != same[name]):
            raise InputError(
                expected="one revision or folder per training step",
                got=f"{other!r} and {name!r}, both step {step}",
                fix="Say which ones are meant with revision_format, for example "
                f"revision_format={_suggest(name, step)!r}.",
            )
    return dict(sorted(found.items()))


def _suggest(name: str, step: int) -> str:
    """`name` with its step number replaced by the field, as a start for a revision_format."""
    return re.sub(rf"(?<!\d)0*{step}(?!\d)", "{step}", name, count=1)


def check_steps(
    requested: Iterable[SupportsIndex], available: Sequence[int], *, name: str
) -> tuple[int, ...]:
    """The requested steps, ascending and once each, if every one of them exists.

    Args:
        requested: training steps.
        available: the steps of the suite, ascending.
        name: name of the suite, for the message.

    Raises:
        InputError: for steps that are no whole numbers.
        StepNotFoundError: naming every missing step, the steps nearest to it and the range.
    """
    requested = list(requested)
    try:
        wanted = sorted({index(step) for step in requested})
    except TypeError:
        raise InputError(
            expected="training steps as whole numbers",
            got=", ".join(map(repr, requested)),
            fix="For instance 1000, as in suite.steps.",
        ) from None
    missing = [step for step in wanted if step not in set(available)]
    if not missing:
        return tuple(wanted)
    near = "; ".join(
        f"nearest to {step}: " + ", ".join(str(s) for s in nearest_steps(step, available))
        for step in missing
    )
    raise StepNotFoundError(
        expected=f"steps of {name}, which has {len(available)} from {available[0]} "
        f"to {available[-1]}",
        got=("step " if len(missing) == 1 else "steps ") + ", ".join(str(s) for s in missing),
        fix=f"Choose existing steps ({near}); all of them are in suite.steps.",
    )


def nearest_steps(step: int, available: Sequence[int], *, n: int = 3) -> tuple[int, ...]:
    """The `n` steps of `available` that are nearest to `step`, ascending."""
    return tuple(sorted(sorted(available, key=lambda s: (abs(s - step), s))[:n]))
