"""All of the parity study's answers from one sweep: findings, hypotheses, tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from headspec.series.transitions import Transition
from headspec.studies.hypotheses import HypothesisVerdict, tabulate_verdicts
from headspec.studies.parity_emergence import METRICS, find_parity_emergence, tabulate_emergence
from headspec.studies.parity_findings import describe_parity, read_without_null
from headspec.studies.parity_hypotheses import judge_parity_hypotheses


@dataclass(frozen=True)
class ParityAnswers:
    """What a sweep says of the parity study's questions.

    Attributes:
        findings: plain sentences, of the first layer first.
        hypotheses: H1 to H9 in the first layer, by success, as the study measures it.
        verdicts: the same beside the verdicts by the graded metric.
        emergence: one row a layer and metric, see `ParityEmergence`.
        changes: by layer, the window of largest change of the strength, by success.
    """

    findings: tuple[str, ...]
    hypotheses: tuple[HypothesisVerdict, ...]
    verdicts: pd.DataFrame
    emergence: pd.DataFrame
    changes: dict[int, Transition]


def answer_parity_study(
    frame: pd.DataFrame,
    *,
    layers: Sequence[int],
    capabilities: pd.DataFrame | None = None,
    final_step: int | None = None,
    seed: int = 0,
) -> ParityAnswers:
    """Find emergence, judge the hypotheses and put both in words.

    Args:
        frame: as `add_parity_q_values` returns it.
        layers: of the sweep; hypotheses are judged in the first.
        capabilities: as in `judge_parity_hypotheses`.
        final_step: where training ended; None: the last step of the frame.
        seed: of the tests for transitions.
    """
    found = {
        metric: [
            find_parity_emergence(frame, layer=layer, metric=metric, final_step=final_step)
            for layer in layers
        ]
        for metric in METRICS
    }
    judged = {
        metric: judge_parity_hypotheses(ones[0], frame, capabilities=capabilities, seed=seed)
        for metric, ones in found.items()
    }
    naive = {layer: read_without_null(frame, layer=layer, seed=seed) for layer in layers}
    by_layer = [one for ones in zip(*found.values(), strict=True) for one in ones]
    return ParityAnswers(
        findings=(
            *(describe_parity(one, frame) for one in by_layer),
            *(sentence for sentence, _ in naive.values()),
        ),
        hypotheses=judged["strength"],
        verdicts=tabulate_verdicts(judged),
        emergence=tabulate_emergence(by_layer),
        changes={layer: change for layer, (_, change) in naive.items()},
    )
