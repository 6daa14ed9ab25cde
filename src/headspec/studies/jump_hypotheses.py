"""The four hypotheses of the study of jumps, by rules that were written before any result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from headspec.results import tidy
from headspec.series.jump_result import Jumps
from headspec.studies.hypotheses import HypothesisVerdict, Verdict
from headspec.studies.jump_effects_decisions import LEAST_SEEDS, Decision
from headspec.studies.jump_effects_matched import jump_effects
from headspec.studies.jump_hypotheses_counts import EARLY, compare_rates, early_share, jump_rates
from headspec.studies.jump_hypotheses_words import (
    count_words,
    join_effects,
    rate_words,
    share_words,
)

FAMILIES: dict[str, dict[str, int]] = {
    "heads": {"normalised_entropy": -1, "head_divergence": 1},
    "filters": {"filter_orthogonality": 1, "gabor_r2": 1},
    "loss": {"validation_loss": -1},
    "capability": {"accuracy": 1, "largest_class_gain": 1},
}
"""Measures that decide about each hypothesis, and the direction it predicts across a jump."""

RATE_MARGIN = 1.0
"""Jumps per 1,000 points that would matter: what the detector may find where there are none."""

SHARE_MARGIN = 2.0
"""Times the share of points that jumps would have to be early to matter."""

LATE = 0.5
LATE_GAIN = 0.01
"""Accuracy gained in the second half of training that counts as something learnt."""

RULES = f"""The rules were written before any result was seen. At jumps: a change is measured from
before to after a jump, less the same for windows of equal width, as far into training, that hold
no jump, both less their trend in log(1 + step), averaged over the jumps of a run and then over
runs. It is there if q (permutation of the labels of jumps and controls inside matched blocks,
one-sided, corrected by Holm's method inside a hypothesis) is at most .05, the 95 % interval over
seeds and moments leaves out 0, and three of four seeds (of three: all) have its sign; absent if q
is larger and the interval leaves out one unit, the standard deviation of the difference between
two windows that nothing tells apart; else open. The labels are permuted moment by moment, since
flipping the sign of three seeds cannot give a p below 1/8. Nothing is decided with fewer than
{LEAST_SEEDS} seeds.
1. Heads: supported if entropy falls and heads diverge at jumps of the transformer, both there;
not supported if one of them is absent; without a jump there is nothing to compare: not decided.
2. Convolutions: supported if the CNN has more jumps per 1,000 points than the MLP (p at most .05,
by exact division of the runs) and its filters become more orthogonal or more like Gabor functions
at jumps (one of the two there); not supported if the interval of the rates leaves out
{RATE_MARGIN:g} per 1,000 (a detector may find as many where there are none), which without any
jump it does, or if both measures of filters are absent.
3. Early: supported if the share of jumps in the first {EARLY:.0%} of training is beyond that of
the points measured there (p at most .05, jumps moved along training together) and the loss falls
more at early jumps than at their controls; not supported if the interval of the share leaves out
{SHARE_MARGIN:g} times the share of points, if there are no jumps though curves were examined, or
if the effect on the loss is absent.
4. Late: supported if accuracy, or that of the class that gains most, rises more at jumps in the
second half than at their controls (one of the two there); not supported if both are absent, or if
there are no late jumps though accuracy rises by {100 * LATE_GAIN:g} point or more in that half;
without late jumps and without such a rise nothing was acquired late, and it is not decided."""
"""What the page says of them."""

_HEADS = "Jumps of transformers are attention heads specialising: they focus and diverge."
_FILTERS = "CNNs have more jumps than MLPs, since convolutions let filters differentiate at once."
_EARLY = "Early jumps are the escape from the random initialisation."
_LATE = "Late jumps are capabilities being acquired."


@dataclass(frozen=True, eq=False)
class JumpFindings:
    """What became of the hypotheses, with the numbers that decided.

    Attributes:
        verdicts: four, in the study's order.
        effects: one row a hypothesis and number, as `to_frame` gives them.
        rates: rows of `jump_rates`.
    """

    verdicts: tuple[HypothesisVerdict, ...]
    effects: pd.DataFrame
    rates: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """Tidy rows with `hypothesis` (1 to 4), `low high q unit decision n_runs n_seeds`."""
        return tidy(self.effects)

    def summary(self) -> str:
        """The verdicts, one a line."""
        return "\n".join(f"{each.verdict}: {each.hypothesis}" for each in self.verdicts)


def judge_jump_hypotheses(
    measured: pd.DataFrame,
    jumps: Sequence[Jumps],
    *,
    alpha: float | int = 0.05,
    n_null: int = 9999,
    n_resamples: int = 2000,
    seed: int = 0,
) -> JumpFindings:
    """Judge the study's four hypotheses by `RULES`.

    Args:
        measured: rows of `measure_moments` of all runs, of the models "transformer", "cnn" and
            "mlp" with the same seeds; an architecture may be missing, what needs it is then not
            decided.
        jumps: of `detect_jumps`, one a run, all jumps and not those chosen for checkpoints.
        alpha: level of each hypothesis.
        n_null, n_resamples, seed: draws, as in `jump_effects`.

    Returns:
        A `JumpFindings`.

    **What it does not show.** Causes; other data, sizes or learning rates; anything about jumps too
    small for the detector.
    """
    options: dict[str, Any] = {
        "alpha": alpha,
        "n_null": n_null,
        "n_resamples": n_resamples,
        "seed": seed,
    }
    rates = jump_rates(jumps)
    counts = _late_counts(jumps)
    judged = [
        _judge_heads(measured, rates, options),
        _judge_filters(measured, rates, options),
        _judge_early(measured, rates, jumps, options),
        _judge_late(measured, counts, options),
    ]
    verdicts = tuple(verdict for verdict, _ in judged)
    n_seeds = min((len(set(rows["seed"])) for _, rows in rates.groupby("model")), default=0)
    if n_seeds < LEAST_SEEDS:
        few = "One seed decides" if n_seeds == 1 else f"{n_seeds} seeds decide"
        why = f"{few} nothing; it takes {LEAST_SEEDS}. "
        verdicts = tuple(
            replace(each, verdict="not decided", evidence=why + each.evidence) for each in verdicts
        )
    rows = [{"hypothesis": i, **row} for i, (_, found) in enumerate(judged, 1) for row in found]
    return JumpFindings(verdicts, tidy(rows), rates)


Judged = tuple[HypothesisVerdict, list[dict[str, Any]]]


def _judge_heads(measured: pd.DataFrame, rates: pd.DataFrame, options: dict[str, Any]) -> Judged:
    rows = _effects(measured, "heads", options, model="transformer")
    decisions = [row["decision"] for row in rows]
    verdict: Verdict = "not decided"
    if decisions and set(decisions) == {"there"}:
        verdict = "supported"
    elif "absent" in decisions:
        verdict = "not supported"
    said = count_words(rates, "transformer")
    return HypothesisVerdict(_HEADS, verdict, f"{said} {join_effects(rows)}"), rows


def _judge_filters(measured: pd.DataFrame, rates: pd.DataFrame, options: dict[str, Any]) -> Judged:
    found = compare_rates(rates, n_resamples=options["n_resamples"], seed=options["seed"])
    rate = "open"
    if found["n_seeds"] >= LEAST_SEEDS:
        if found["p"] <= options["alpha"]:
            rate = "there"
        elif found["high"] < RATE_MARGIN:
            rate = "absent"
    row = {"metric": "jumps_per_1000_points", "decision": rate, "expected": 1, **found}
    rows = _effects(measured, "filters", options, model="cnn")
    verdict = _both(rate, _any_there(rows))
    said = f"{rate_words(found)} {join_effects(rows)}"
    return HypothesisVerdict(_FILTERS, verdict, said), [row, *rows]


def _judge_early(
    measured: pd.DataFrame,
    rates: pd.DataFrame,
    jumps: Sequence[Jumps],
    options: dict[str, Any],
) -> Judged:
    draws = {name: options[name] for name in ("n_null", "n_resamples", "seed")}
    found = early_share(jumps, **draws)
    share = "open"
    if not found["n"]:
        share = "absent" if len(rates) else "open"
    elif found["n_seeds"] >= LEAST_SEEDS:
        if found["p"] <= options["alpha"] and found["low"] > EARLY:
            share = "there"
        elif found["high"] < SHARE_MARGIN * EARLY:
            share = "absent"
    row = {"metric": "early_share", "decision": share, "expected": 1, **found}
    rows = _effects(measured, "loss", options, phases=(0, EARLY))
    verdict = _both(share, _any_there(rows))
    said = f"{share_words(found, EARLY)} {join_effects(rows)}"
    return HypothesisVerdict(_EARLY, verdict, said), [row, *rows]


def _judge_late(measured: pd.DataFrame, counts: tuple[int, int], options: dict[str, Any]) -> Judged:
    n_late, n_examined = counts
    gain = late_gain(measured)
    row = {"metric": "late_jumps", "value": float(n_late), "n": n_examined}
    learnt = "is not known" if np.isnan(gain) else f"changes by {100 * gain:+.1f} points"
    said = f"{n_late} jumps in the second half of training; accuracy {learnt} in it."
    if not n_late:
        verdict: Verdict = "not decided"
        if n_examined and gain >= LATE_GAIN:
            verdict = "not supported"
            said += " What is learnt late is learnt without a jump."
        else:
            said += " Nothing was acquired late that a jump could stand for."
        return HypothesisVerdict(_LATE, verdict, said), [row]
    rows = _effects(measured, "capability", options, phases=(LATE, 1))
    decision = _any_there(rows)
    verdicts: dict[Decision, Verdict] = {"there": "supported", "absent": "not supported"}
    verdict = verdicts.get(decision, "not decided")
    return HypothesisVerdict(_LATE, verdict, f"{said} {join_effects(rows)}"), [row, *rows]


def late_gain(measured: pd.DataFrame) -> float:
    """Accuracy at the end less that at the middle, by the plan's landmarks, a mean over runs.

    Args:
        measured: rows of `measure_moments`.

    Returns:
        A share; nan where there are no such landmarks.
    """
    if not len(measured):
        return float("nan")
    rows: Any = measured.loc[(measured["kind"] == "landmark") & (measured["metric"] == "accuracy")]
    phase = rows["phase"].to_numpy(float).round(2)  # the middle of an odd number of updates
    rows = rows.assign(phase=phase).loc[np.isin(phase, [LATE, 1.0])]
    wide = rows.pivot_table(index=["model", "seed"], columns="phase", values="value", dropna=False)
    if not {LATE, 1.0} <= set(wide.columns):
        return float("nan")
    return float(np.nanmean(wide[1.0] - wide[LATE]))


def _effects(
    measured: pd.DataFrame, family: str, options: dict[str, Any], *, model: str = "", **more: Any
) -> list[dict[str, Any]]:
    """Rows of `jump_effects` for one family, of one model or of all together."""
    if not len(measured):
        return []
    rows = measured.loc[measured["model"] == model] if model else measured
    if not len(rows):
        return []
    by = ("model",) if model else ()
    found: Any = jump_effects(rows, family=FAMILIES[family], by=by, **options, **more)
    return found.dropna(axis="columns", how="all").to_dict("records")


def _any_there(rows: Sequence[Mapping[str, Any]]) -> Decision:
    """There where one number is, absent where all are."""
    decisions = {row["decision"] for row in rows}
    if "there" in decisions:
        return "there"
    return "absent" if decisions == {"absent"} else "open"


def _both(first: str, second: str) -> Verdict:
    if "absent" in (first, second):
        return "not supported"
    return "supported" if first == second == "there" else "not decided"


def _late_counts(jumps: Sequence[Jumps]) -> tuple[int, int]:
    """Late jumps, and curves examined."""
    late = sum(int((one.table["phase"].to_numpy(float) > LATE).sum()) for one in jumps)
    examined = sum(int(np.count_nonzero(one.curves["verdict"] == "examined")) for one in jumps)
    return late, examined
