"""Training steps on a logarithmic axis that has a place for step 0."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from headspec.errors import InputError

STEP_TITLE = "training step (log scale; 0 set apart)"
STEP_TITLE_POSITIVE = "training step (log scale)"


def short_number(step: int) -> str:
    """A step as a tick label: 0, 512, 1k, 2.5k, 6144, 143k, 1M.

    >>> [short_number(s) for s in (0, 512, 1000, 2500, 6144, 143000, 10**6)]
    ['0', '512', '1k', '2.5k', '6144', '143k', '1M']
    """
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if step >= 10 * size or (step >= size and step % (size // 10) == 0):
            return f"{step / size:.4g}{letter}"
    return str(step)


class StepAxis:
    """A log axis over steps; step 0 stands a third of a decade or more left of the first step.

    Args:
        steps: every step of the figure, at least one, none negative.

    Raises:
        InputError: without steps, or with a negative one.
    """

    def __init__(self, steps: Iterable[int]) -> None:
        self.steps = tuple(sorted({int(step) for step in steps}))
        if not self.steps or self.steps[0] < 0:
            raise InputError(
                expected="training steps of zero or more",
                got=f"steps {list(self.steps)[:5]}",
                fix="Give a sweep's frame with a `step` column of whole numbers.",
            )
        positive = [step for step in self.steps if step]
        first = positive[0] if positive else 1
        self.zero = first / 3
        low = self.zero if self.steps[0] == 0 else first
        high = positive[-1] if positive else 1
        pad = 0.03 * max(math.log10(high / low), 0.5)
        self.range = (math.log10(low) - pad, math.log10(high) + pad)

    @property
    def title(self) -> str:
        """What the axis shows, with its unit."""
        return STEP_TITLE if self.steps[0] == 0 else STEP_TITLE_POSITIVE

    def place(self, steps: Iterable[Any]) -> list[float]:
        """Where steps stand on the axis: at themselves, 0 at `zero`."""
        return [float(step) if step else self.zero for step in steps]

    def ticks(self) -> list[int]:
        """The steps that get a label: 0, powers of ten, the last step."""
        positive = [step for step in self.steps if step]
        chosen = [0] if self.steps[0] == 0 else []
        if not positive:
            return chosen
        first, last = positive[0], positive[-1]
        powers = [10**k for k in range(math.ceil(math.log10(first)), 20) if 10**k <= last]
        if not powers or powers[0] > first * 2:
            powers = [first, *powers]
        powers = [power for power in powers if power == last or power * 2.5 < last]
        return [*chosen, *powers, *([] if last in powers else [last])]

    def layout(self) -> dict:
        """The axis as a plotly layout part."""
        ticks = self.ticks()
        return {
            "type": "log",
            "range": list(self.range),
            "tickmode": "array",
            "tickvals": self.place(ticks),
            "ticktext": [short_number(step) for step in ticks],
        }


def choose_steps(available: Sequence[int], steps: Sequence[int] | None, *, most: int) -> list[int]:
    """The wanted steps, or at most `most` of those available, evenly spread in rank.

    Raises:
        InputError: when a wanted step is not in the frame.
    """
    have = sorted({int(step) for step in available})
    if steps is None:
        if len(have) <= most:
            return have
        return [have[round(i * (len(have) - 1) / (most - 1))] for i in range(most)]
    missing = [step for step in steps if step not in have]
    if missing or not len(steps):
        raise InputError(
            expected=f"steps out of {have}",
            got=f"{list(steps)}",
            fix="Name steps that the frame holds, or leave `steps` out for an even choice.",
        )
    return sorted({int(step) for step in steps})
