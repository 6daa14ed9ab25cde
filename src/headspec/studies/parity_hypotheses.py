"""The nine hypotheses of the parity study, each with a verdict and its evidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from headspec.series.transitions import Transition, find_transition
from headspec.stats import false_discovery_rate
from headspec.studies.hypotheses import HypothesisVerdict, Verdict
from headspec.studies.parity_emergence import (
    LEAST_EFFECT,
    PHASES,
    ParityEmergence,
    in_phase,
    parity_rows,
)
from headspec.studies.parity_findings import amount
from headspec.studies.rate_alignment import RateAlignment, align_rates

_TIMING = {
    "early": "H1 (early): specialisation emerges in the first 10 % of training.",
    "middle": "H2 (middle): specialisation emerges between 10 % and 50 % of training.",
    "late": "H3 (late): specialisation emerges in the second half of training.",
}
_MANNER = {
    "gradual": "H4 (gradual): its strength increases smoothly over training.",
    "sudden": "H5 (sudden): it appears suddenly, in a phase transition.",
    "fluctuating": "H6 (fluctuating): it appears, disappears, then stabilises.",
}
_LOSS = "H7: emergence goes with the large reductions of the loss."
_CAPABILITY = "H8: emergence goes with the development of general capabilities."
_INDEPENDENCE = "H9: emergence is independent of other training milestones."


def judge_parity_hypotheses(
    found: ParityEmergence,
    frame: pd.DataFrame,
    *,
    capabilities: pd.DataFrame | None = None,
    loss: str = "prose_loss",
    alpha: float = 0.05,
    n_null: int = 2000,
    seed: int = 0,
) -> tuple[HypothesisVerdict, ...]:
    """Judge the study's hypotheses H1 to H9 in one layer.

    Timing (H1 to H3). Emergence lies between the step before the first significant one and the
    step from which significance lasts (see `ParityEmergence`). *Supported*: all of that lies in
    the hypothesis's part of training. *Not decided*: some of it does; or it was significant
    there and did not last; or nothing lasts and nothing could be seen or tested there.

    Manner (H4 to H6), where a specialisation lasts. Sudden or gradual is what `find_transition`
    says of the curve of signed strength; a sudden rise must lie within the interval of emergence,
    and of a gradual curve at least half of all movement must be net rise. Fluctuating needs a step
    where it is gone, between a significant one and the lasting ones. Where nothing lasts there is
    no manner: not supported if all parts of training were seen and testable without anything
    significant, else not decided.

    Company (H7, H8): rates of change of strength against those of the loss and of capabilities,
    by circular shifts (`align_rates`), adjusted for the number of curves. Not decided
    without a lasting specialisation, without such curves, or where so few steps could not have
    shown it. H9 is never supported: a correlation that was not found is no independence.

    Args:
        found: of `find_parity_emergence`.
        frame: the sweep it was found in.
        capabilities: tidy frame with `step`, `metric`, `value`, the loss among its metrics.
        loss: which metric is the loss; metrics named `..._accuracy` and `..._gain` are
            capabilities.
        alpha: error rate to accept.
        n_null, seed: of `find_transition`.

    Returns:
        Nine verdicts in the study's order.
    """
    curve = _signed(found, frame)
    change = find_transition(curve, "curve", n_null=n_null, seed=seed) if len(curve) > 2 else None
    aligned = _alignments(curve, capabilities, loss)
    return (
        *(_judge_timing(found, phase) for phase in PHASES),
        *_judge_manner(found, curve, change),
        *_judge_company(found, aligned, loss, alpha=alpha),
    )


def _signed(found: ParityEmergence, frame: pd.DataFrame) -> pd.DataFrame:
    """Strength, counted positive on the side of the specialisation; its size where none lasts."""
    rows = parity_rows(frame, found.layer, found.metric)
    values = rows["value"].to_numpy(float)
    values = np.abs(values) if found.lasting_step is None else values * np.sign(values[-1])
    return pd.DataFrame({"step": rows["step"], "metric": "curve", "value": values})


def _judge_timing(found: ParityEmergence, phase: str) -> HypothesisVerdict:
    low, high = PHASES[phase]
    verdict: Verdict = "not supported"
    if found.lasting_step is not None:
        before, latest = found.share(found.before_step), found.share(found.lasting_step)
        if (before < high and latest > low) or latest == low == 0:
            verdict = "supported" if before >= low and latest <= high else "not decided"
        evidence = _lasting_words(found)
    elif found.first_step is not None:
        share = found.share(found.first_step)
        verdict = "not decided" if in_phase(share, phase) else "not supported"
        evidence = (
            f"Even and odd differ clearly at {found.n_significant} of {found.n_steps} steps, first "
            f"at {found.first_step} ({share:.1%} of training), but not up to the last step."
        )
    else:
        evidence = (
            f"At none of {found.n_steps} steps do even and odd heads of layer {found.layer} differ "
            f"more clearly than other splits of it (last step: "
            f"{amount(found.value, found.metric)}, and {found.p:.0%} of all splits differ as much)."
        )
    if found.lasting_step is None and phase not in found.seen:
        verdict = "not decided"
        least = amount(LEAST_EFFECT, found.metric, signed=False)
        evidence += f" In this part of training no split reaches {least}: none could stand out."
    elif found.lasting_step is None and phase not in found.testable:
        verdict = "not decided"
        evidence += (
            f" With so few splits and so many tests, it takes {found.n_needed} significant steps "
            "for one to be; from this part of training on there are fewer."
        )
    return HypothesisVerdict(_TIMING[phase], verdict, evidence)


def _lasting_words(found: ParityEmergence) -> str:
    less = "odd" if found.more == "even" else "even"
    does = "leave, when corrupted," if found.direction == "noise" else "restore"
    words = (
        f"{found.more.capitalize()} heads of layer {found.layer} {does} more than {less} ones, "
        f"more clearly than other splits, from step {found.lasting_step} on "
        f"({found.share(found.lasting_step):.1%} of training)"
    )
    if found.lasting_step == 0:
        return words + ": before any training."
    if found.before_step is not None:
        words += f", not yet at step {found.before_step} ({found.share(found.before_step):.1%})"
    return words + "."


def _judge_manner(
    found: ParityEmergence, curve: pd.DataFrame, change: Transition | None
) -> list[HypothesisVerdict]:
    if found.lasting_step is None:
        everywhere = set(found.seen) & set(found.testable) == set(PHASES)
        nothing = everywhere and not found.n_significant
        verdict: Verdict = "not supported" if nothing else "not decided"
        evidence = "No specialisation lasts to the end of training: it has no manner of emergence."
        return [HypothesisVerdict(text, verdict, evidence) for text in _MANNER.values()]
    values = curve["value"].to_numpy(float)
    moved = np.abs(np.diff(values)).sum()
    net = float((values[-1] - values[0]) / moved) if moved > 0 else 0.0
    fluctuates = found.gone_step is not None and found.gone_step < found.lasting_step
    kind = "none" if change is None else change.kind
    words = f"The curve of strength: {kind if kind != 'none' else 'no clear change'}"
    if change is not None:
        words += f" ({change.reason}; p of a jump {change.p_value:.2g}, of any change "
        words += f"{change.p_change:.2g})"
    words += f"; net rise {net:.0%} of all movement."
    went = "It is never gone again between its first significant step and the last."
    if fluctuates:
        went = f"Clear at step {found.first_step}, gone or turned round at {found.gone_step}, "
        went += f"and here to stay from {found.lasting_step} on."
    gradual = kind == "gradual" and net >= 0.5 and not fluctuates
    sudden = change is not None and _jumps_there(found, change)
    unclear = kind == "none"
    return [
        _verdict(_MANNER["gradual"], gradual, unclear and not fluctuates, words),
        _verdict(_MANNER["sudden"], sudden, unclear, words),
        _verdict(_MANNER["fluctuating"], fluctuates, False, went),
    ]


def _jumps_there(found: ParityEmergence, change: Transition) -> bool:
    """Whether a sudden rise lies within the interval of emergence."""
    if change.kind != "sudden" or change.jump_before is None or change.jump_after is None:
        return False
    begins = found.before_step or 0
    return change.jump_size > 0 and (
        change.jump_after > begins and change.jump_before < (found.lasting_step or 0)
    )


def _verdict(text: str, yes: bool, unsure: bool, evidence: str) -> HypothesisVerdict:
    verdict: Verdict = "supported" if yes else "not decided" if unsure else "not supported"
    return HypothesisVerdict(text, verdict, evidence)


def _alignments(
    curve: pd.DataFrame, capabilities: pd.DataFrame | None, loss: str
) -> list[RateAlignment]:
    """Of the loss, turned round, and of each capability, over the steps that both have."""
    if capabilities is None:
        return []
    found = []
    for name in dict.fromkeys(str(each) for each in capabilities["metric"]):
        if name != loss and not name.endswith(("_accuracy", "_gain")):
            continue
        rows = capabilities.loc[capabilities["metric"] == name, ["step", "metric", "value"]]
        rows = rows.dropna().astype({"value": float})
        rows["value"] *= -1 if name == loss else 1
        if len(set(rows["step"]) & set(curve["step"])) >= 3:
            found.append(align_rates(curve, rows, metrics=("curve", name)))
    return found


def _judge_company(
    found: ParityEmergence, aligned: Sequence[RateAlignment], loss: str, *, alpha: float
) -> list[HypothesisVerdict]:
    adjusted = false_discovery_rate([each.p for each in aligned]) if aligned else np.array([])
    pairs = list(zip(aligned, adjusted, strict=True))
    judged = [
        _judge_alignments(
            text, chosen, len(aligned), lasts=found.lasting_step is not None, alpha=alpha
        )
        for text, chosen in (
            (_LOSS, [pair for pair in pairs if pair[0].name == loss]),
            (_CAPABILITY, [pair for pair in pairs if pair[0].name != loss]),
        )
    ]
    together = any(one.verdict == "supported" for one in judged)
    evidence = "It goes with other changes of training: see H7 and H8."
    if not together:
        evidence = "A correlation that was not found is no independence"
        needed = [each.r_needed for each in aligned if np.isfinite(each.r_needed)]
        evidence += f": below r = {max(needed):.2f} it stays unseen here" if needed else ""
        evidence += ". And one run of training is one observation."
    return [*judged, _verdict(_INDEPENDENCE, False, not together, evidence)]


def _judge_alignments(
    text: str,
    chosen: list[tuple[RateAlignment, float]],
    n_curves: int,
    *,
    lasts: bool,
    alpha: float,
) -> HypothesisVerdict:
    if not chosen:
        return _verdict(text, False, True, "The suite has no such curve at three of these steps.")
    words = "; ".join(each.words() for each, _ in chosen) + "."
    if not lasts:
        words = f"Nothing lasts that could go with it. The size of even minus odd beside {words}"
        return _verdict(text, False, True, words)
    least = min(each.least_p for each, _ in chosen)
    hopeless = least * n_curves > alpha  # q of one curve alone that is as clear as it can be
    if hopeless:
        words += f" So few intervals allow no p below {least:.2g}"
        words += f", too large beside {n_curves} curves." if least <= alpha else "."
    supported = any(q <= alpha for _, q in chosen)
    return _verdict(text, supported, hopeless, words)
