"""What a study says of a hypothesis: the verdict, and the evidence for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import pandas as pd

from headspec.errors import InputError

Verdict = Literal["supported", "not supported", "not decided"]

SPECIALISATION = (
    "Task-specific specialisation: clusters handle different inputs, and intervening on them "
    "changes behaviour."
)
"""The third hypothesis of the clustering study, which both of its halves speak of."""


@dataclass(frozen=True)
class HypothesisVerdict:
    """A hypothesis, what became of it, and why.

    Attributes:
        hypothesis: the claim, in a sentence.
        verdict: `"supported"`, `"not supported"` or `"not decided"`.
        evidence: the numbers that decided it, in a sentence or two.

    Raises:
        InputError: for another verdict.
    """

    hypothesis: str
    verdict: Verdict
    evidence: str

    def __post_init__(self) -> None:
        if self.verdict not in get_args(Verdict):
            raise InputError(
                expected=f"a verdict out of {', '.join(get_args(Verdict))}",
                got=f"{self.verdict!r}",
                fix='Say "not decided" where the evidence does not suffice.',
            )


def tabulate_verdicts(judged: Mapping[str, Sequence[HypothesisVerdict]]) -> pd.DataFrame:
    """Verdicts on the same hypotheses by several measurements, one column each.

    Args:
        judged: name of the measurement -> verdicts, in the same order of hypotheses.
    """
    first = next(iter(judged.values()))
    columns = {name: [one.verdict for one in verdicts] for name, verdicts in judged.items()}
    return pd.DataFrame({"hypothesis": [one.hypothesis for one in first]} | columns)
