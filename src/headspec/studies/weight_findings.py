"""What the study of weight statistics says, computed from its tables."""

from __future__ import annotations

import numpy as np
import pandas as pd

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

_MOST = 4
_KEPT_IN_FILES = ("midpoint_low", "midpoint_high", "width", "graded")  # not shown on a page


def describe_links(found: WeightLinks, *, alpha: float = 0.05) -> list[str]:
    """Sentences: raw correlations, rates against the null, over models, beyond the loss, clusters.

    Args:
        found: of `link_weights`.
        alpha: false discovery rate to accept in each family.
    """
    first = "averaged over layers and matrices"
    sentences = [_raw(found.links, alpha), _rates(found.overall, alpha, first)]
    if found.pooled_overall is not None:
        sentences.append(_pooled(found.pooled_overall, alpha, first))
    sentences.append(_control(found.control))
    if found.beyond_loss is not None:
        words = "the same without what goes with the loss"
        sentences.append(_rates(found.beyond_loss, alpha, words))
    sentences.append(_rates(found.links, alpha, "of each matrix, averaged over layers"))
    sentences.append(_rates(found.by_layer, alpha, "of each matrix of each layer"))
    if found.pooled is not None:
        sentences.append(_pooled(found.pooled, alpha, "of each matrix"))
    return [*sentences, *_clusters(found, alpha)]


def conclude_links(found: WeightLinks, *, alpha: float = 0.05) -> str:
    """The answer in two sentences, from the family that decides and what it could have seen.

    Args:
        found: of `link_weights`.
        alpha: false discovery rate to accept.
    """
    main = found.overall if found.pooled_overall is None else found.pooled_overall
    tested, passed = count_tests(main, alpha)
    (seen, asked), (close, _) = (count_seen(found.control, kind) for kind in (PERFECT, CLOSE))
    where = "in this model" if found.pooled_overall is None else "over all sizes"
    if passed:
        return (
            f"{passed} of {tested} pairs of a weight statistic and a capability change together "
            f"{where}, more than curves of training do anyway. That says nothing of cause."
        )
    answer = (
        f"No statistic of the weights was found to change when a capability does, {where}, more "
        f"than curves of training do anyway (0 of {tested} pairs)."
    )
    if not seen:
        return f"{answer} These tests could not have found any: nothing is decided."
    answer += (
        f" For {seen} of {asked} capabilities a statistic with the very same course would have "
        f"been found, for {close or 'none'} one whose rates correlate {CLOSE_R:g} with the "
        "capability's."
    )
    if not can_decide(found.control):
        return f"{answer} That is too few to decide."
    return answer + ("" if close == asked else " About the others nothing is decided.")


def shorten(table: pd.DataFrame, *, most: int = 24) -> pd.DataFrame:
    """A table as a page shows it: the smallest q first, what is the same in all rows left out.

    Args:
        table: of `WeightLinks`, or of `emergence_table`.
        most: rows to keep of a table with q; others are kept whole.
    """
    if "q" in table:
        table = table.sort_values(by=["q", "p"], kind="stable").head(most)
    n_different = table.nunique(dropna=False).to_dict()
    first = [name for name in ("model", "capability") if len(table[name].dropna())]
    if "status" not in table and n_different["metric"] > 1:  # else the capability's name again
        first.append("metric")
    left_out = {"metric", "seed", *first, *_KEPT_IN_FILES} | {
        x for x, n in n_different.items() if n == 1
    }
    left_out -= {"value", "p", "q"}
    names = [*first, *(str(name) for name in table if name not in left_out)]
    return table.reset_index(drop=True).reindex(columns=names)


def _raw(links: pd.DataFrame, alpha: float) -> str:
    raw = links.assign(p=links["raw_p"], q=links["raw_q"])
    tested, passed = count_tests(raw, alpha)
    return (
        f"Raw values: {passed} of {tested} correlations of a statistic with a "
        f"capability pass a textbook test after correction (median size of r "
        f"{links['raw_r'].abs().median():.2f}). That says no more than that both change "
        "during training."
    )


def _rates(links: pd.DataFrame, alpha: float, how: str) -> str:
    tested, passed = count_tests(links, alpha)
    sentence = (
        f"Rates of change, {how}: {passed} of {tested} pass against their null after correction "
        f"(median size of r {links['value'].abs().median():.2f})."
    )
    needed = _needed(links)
    if np.isfinite(needed):
        sentence += (
            f" 90 % of the null lies within ±{needed:.2f}, and no link may hang on one rise."
        )
    least = float(links["least_p"].to_numpy(float).min())
    if tested and least * tested > alpha * max(passed, 1):
        sentence += (
            f" No single link could pass: p is {least:.2g} at the least, and {tested} were tried."
        )
    return sentence + _strongest(links, alpha)


def _pooled(pooled: pd.DataFrame, alpha: float, what: str) -> str:
    tested, passed = count_tests(pooled, alpha)
    same = pooled.loc[(pooled["q"] <= alpha) & (pooled["sign_consistency"] == 1)]
    sentence = f"Over all sizes, {what}: {passed} of {tested} pairs with a capability pass"
    if passed:
        sentence += f", {len(same)} of them with the same sign in every size"
    return f"{sentence}.{_strongest(pooled, alpha)}"


def _control(control: pd.DataFrame) -> str:
    """What the tests could have seen."""
    said: dict[str, list[str]] = {PERFECT: [], CLOSE: []}
    pooled = control["model"].isna().to_numpy(bool)
    for which in np.unique(pooled):
        for kind, part in control.loc[pooled == which].groupby("metric"):
            where = "over all sizes" if which else "in single models"
            seen = part["seen"].to_numpy(bool).sum()
            said[str(kind)].append(f"{seen} of {len(part)} {where}")
    return (
        "What these tests can see: a statistic identical to the capability itself would pass the "
        f"correction for {' and '.join(said[PERFECT])}; one whose rates correlate {CLOSE_R:g} "
        f"with the capability's, in at least half of its draws, for {' and '.join(said[CLOSE])}. "
        "A capability that rises in one interval alone cannot be told from a coincidence, "
        "whatever changes with it."
    )


def _needed(links: pd.DataFrame) -> float:
    """Half the width of the middle 90 % of the null, of the test in the middle."""
    ends = links[["null_q05", "null_q95"]].to_numpy(float)
    return float(np.nanmedian(np.diff(ends, axis=1) / 2)) if np.isfinite(ends).any() else np.nan


def _strongest(table: pd.DataFrame, alpha: float) -> str:
    """The largest of those that pass; of pooled ones the largest of all where none does."""
    sizes, q = (table[name].to_numpy(float) for name in ("value", "q"))
    order = np.argsort(-np.nan_to_num(np.abs(sizes)), kind="stable")
    passed = [at for at in order if q[at] <= alpha][:_MOST]
    if passed:
        links = [_link(row) for row in table.iloc[passed].to_dict("records")]
        return f" Strongest: {'; '.join(links)}."
    if "sign_consistency" not in table or not len(order):
        return ""
    largest = table.iloc[order[:1]].to_dict("records")[0]
    return f" Largest, not distinguishable from the null: {_link(largest)}."


def _link(row: dict) -> str:
    layer, model = row["layer"], row["model"]
    where = f" of layer {layer}" if isinstance(layer, int) else ""
    model = f", {model.rpartition('/')[2]}" if isinstance(model, str) else ""
    return (
        f"{row['metric']}{where} with {row['capability']} (r = {row['value']:.2f}{model}, "
        f"q = {row['q']:.2g})"
    )


def _clusters(found: WeightLinks, alpha: float) -> list[str]:
    """What became of the clustering of heads, one of the statistics."""
    rows = found.overall.loc[found.overall["metric"] == CLUSTER_METRIC]
    if rows.empty:
        return []
    each = found.by_layer.loc[found.by_layer["metric"] == CLUSTER_METRIC]
    counts = [count_tests(part, alpha) for part in (rows, each)]
    sentence = (
        f"How clearly heads are clustered goes with capabilities in {counts[0][1]} of "
        f"{counts[0][0]} tests averaged over layers and {counts[1][1]} of {counts[1][0]} by layer."
    )
    largest = rows.loc[[rows["value"].abs().idxmax()]].to_dict("records")[0]
    return [f"{sentence} Largest: {_link(largest)}."]
