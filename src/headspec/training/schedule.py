"""Learning rates and checkpoints over the steps of a run."""

from __future__ import annotations

import math

from headspec.errors import InputError


def warmup_cosine(step: int, *, steps: int, warmup: int, final: float | int = 0.0) -> float:
    """The learning rate of one update as a share of its peak.

    Linear from 1/(warmup + 1) up to the peak, reached at update number `warmup`, then half a
    cosine down to `final` at the last update:
    final + (1 - final) (1 + cos(pi t)) / 2 with t = (step - warmup) / (steps - 1 - warmup).

    Args:
        step: which update, from 0.
        steps: how many updates there are.
        warmup: how many updates lie before the peak.
        final: share of the peak that is left at the last update.

    Example:
        >>> [round(warmup_cosine(step, steps=6, warmup=1), 3) for step in range(6)]
        [0.5, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - 1 - warmup)
    return final + (1 - final) * (1 + math.cos(math.pi * min(1.0, done))) / 2


def warmup_steps(warmup: float | int, steps: int) -> int:
    """A warm-up given as a number of updates (int) or a share of them (float), as a number."""
    return warmup if isinstance(warmup, int) else round(warmup * steps)


def checkpoint_steps(checkpoints: int | tuple[int, ...], steps: int) -> tuple[int, ...]:
    """The steps at which a checkpoint is written; step n is the model after n updates.

    Args:
        checkpoints: how many: 0, 1, and the rest as evenly as whole numbers allow on a log axis up
            to the last step; or the steps themselves, to which 0 and the last are added.
        steps: how many updates there are.

    Raises:
        InputError: for fewer than two checkpoints, or steps beyond the run.

    Example:
        >>> checkpoint_steps(6, 1000)
        (0, 1, 6, 33, 182, 1000)
        >>> checkpoint_steps((10, 100), 200)
        (0, 10, 100, 200)
    """
    if isinstance(checkpoints, tuple):
        outside = [step for step in checkpoints if not 0 <= step <= steps]
        if outside:
            raise InputError(
                expected=f"checkpoints between 0 and steps = {steps}",
                got=", ".join(map(str, outside)),
                fix="Leave them out, or train longer.",
            )
        return tuple(sorted({0, *checkpoints, steps}))
    if checkpoints < 2:
        raise InputError(
            expected="2 checkpoints or more: the first and the last step are always written",
            got=f"checkpoints = {checkpoints}",
            fix="Give a larger number, or the steps themselves.",
        )
    found = [0]
    left = min(checkpoints - 1, steps)
    while left > 0:  # geometric from here to the end, never the same step twice
        here = max(found[-1], 1)
        if found[-1] == 0 and left > 1:
            found.append(1)
        else:
            found.append(max(found[-1] + 1, round(here * (steps / here) ** (1 / left))))
        left -= 1
    return tuple(found)
