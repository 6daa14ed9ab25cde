"""The hypotheses of the study of weight statistics, judged from its tables."""

from __future__ import annotations

import numpy as np
import pandas as pd

from headspec.studies.hypotheses import HypothesisVerdict, Verdict
from headspec.studies.weight_controls import (
    CLOSE,
    CLOSE_R,
    PERFECT,
    can_decide,
    count_seen,
    count_tests,
)
from headspec.studies.weight_curves import CLUSTER_METRIC
from headspec.studies.weight_links import WeightLinks


def judge_links(found: WeightLinks, *, alpha: float = 0.05) -> tuple[HypothesisVerdict, ...]:
    """Judge the study's four hypotheses.

    The first family (statistics averaged over layers and matrices, pooled over models where there
    are several) decides. Where nothing passes, the verdict is "not supported" only if a link of
    r = .9 would have been seen, in half of its draws or more, for at least half of the
    capabilities, else "not decided". That a perfect link would be seen is not enough: no statistic
    is the capability itself.

    Args:
        found: of `link_weights`.
        alpha: false discovery rate to accept.
    """
    several = found.pooled_overall is not None
    main = found.pooled_overall if found.pooled_overall is not None else found.overall
    return (
        _moves(main, found, alpha),
        _all_sizes(found, alpha)
        if several
        else HypothesisVerdict(_SIZES, "not decided", "One model was measured."),
        _coincides(found, alpha),
        _clusters(main, found, alpha),
    )


_MOVES = "The rate of change of some weight statistic moves with that of a capability."
_SIZES = "The same statistic moves with the same capability in all sizes."
_INFLECTIONS = "Inflections of weight statistics coincide with the emergence of capabilities."
_CLUSTERS = "Clusters of heads emerge when capabilities do."


def _moves(main: pd.DataFrame, found: WeightLinks, alpha: float) -> HypothesisVerdict:
    tested, passed = count_tests(main, alpha)
    verdict = _verdict(passed, found)
    (seen, asked), (close, _) = (count_seen(found.control, kind) for kind in (PERFECT, CLOSE))
    evidence = f"{passed} of {tested} links pass; a link of r = {CLOSE_R:g} would have been seen "
    evidence += f"for {close} of {asked} capabilities, a perfect one for {seen}."
    return HypothesisVerdict(_MOVES, verdict, evidence)


def _verdict(passed: int, found: WeightLinks) -> Verdict:
    if passed:
        return "supported"
    return "not supported" if can_decide(found.control) else "not decided"


def _all_sizes(found: WeightLinks, alpha: float) -> HypothesisVerdict:
    each = found.overall.dropna(subset=["value"])
    each = each.assign(positive=each["value"] > 0, passed=each["q"] <= alpha)
    n_models = len(each["model"].unique())
    pairs = each.groupby(["metric", "capability"])
    signs, passing = (np.asarray(pairs[key].mean(), dtype=float) for key in ("positive", "passed"))
    in_all = np.asarray(pairs["model"].nunique() == n_models)
    alike = np.isin(signs, (0, 1)) & in_all
    everywhere, same = int((alike & (passing == 1)).sum()), alike.sum() / max(in_all.sum(), 1)
    pooled, passed = found.pooled_overall, 0
    if pooled is not None:
        one_sign = (pooled["sign_consistency"] == 1) & (pooled["n_models"] == n_models)
        passed = count_tests(pooled.loc[one_sign], alpha)[1]
    verdict = _verdict(everywhere, found)
    if passed and not everywhere:
        verdict = "not decided"
    return HypothesisVerdict(
        _SIZES,
        verdict,
        f"{everywhere} of {in_all.sum()} pairs pass in each of {n_models} sizes with one sign, "
        f"{passed} pooled and with one sign. The sign is the same in all sizes for {same:.0%} of "
        f"the pairs; by chance for {0.5 ** (n_models - 1):.0%}, were the sizes independent.",
    )


def _coincides(found: WeightLinks, alpha: float) -> HypothesisVerdict:
    tests = found.coincidences
    if tests.empty:
        return HypothesisVerdict(_INFLECTIONS, "not decided", "No capability emerges in the run.")
    tested, passed = count_tests(tests, alpha)
    blind = bool((tests["least_p"].to_numpy(float) * tested > alpha).all())
    verdict: Verdict = "supported" if passed else "not decided" if blind else "not supported"
    near, chance = (tests[name].to_numpy(float).mean() for name in ("value", "null_mean"))
    return HypothesisVerdict(
        _INFLECTIONS,
        verdict,
        f"{near:.0%} of the inflections lie near an emergence, {chance:.0%} when they are shifted "
        f"along training; {passed} of {tested} tests pass.",
    )


def _clusters(main: pd.DataFrame, found: WeightLinks, alpha: float) -> HypothesisVerdict:
    rows = main.loc[main["metric"] == CLUSTER_METRIC]
    if rows.empty:
        return HypothesisVerdict(_CLUSTERS, "not decided", "Clusters were not measured.")
    passed = count_tests(rows.loc[rows["value"] > 0], alpha)[1]
    best = rows.loc[rows["value"].idxmax()]
    control = found.control.loc[found.control["capability"] == best["capability"]]
    perfect, seen = (bool(count_seen(control, kind)[0]) for kind in (PERFECT, CLOSE))
    verdict: Verdict = "supported" if passed else "not supported" if seen else "not decided"
    evidence = (
        f"{passed} of {len(rows)} capabilities rise when heads become more clustered; closest is "
        f"{best['capability']} (r = {best['value']:.2f}, q = {best['q']:.2g})"
    )
    if not perfect:
        evidence += ", which rises so fast that not even a perfect link could be seen"
    elif not seen:
        evidence += f", for which a link of r = {CLOSE_R:g} would be missed more often than seen"
    return HypothesisVerdict(_CLUSTERS, verdict, f"{evidence}.")
