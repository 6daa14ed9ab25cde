"""Do rates of change of weight statistics go with those of capabilities? The study's tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import beta

from headspec.series.correlation import correlate_rates
from headspec.series.pooling import pool_models
from headspec.series.rate_correlations import RateCorrelations
from headspec.stats import false_discovery_rate
from headspec.studies.weight_controls import link_controls
from headspec.studies.weight_curves import mean_over_layers, mean_over_matrices
from headspec.studies.weight_turns import turns_near_emergence

_MANY = 3000  # surrogates of hundreds of pooled pairs, of which the strongest are shown


@dataclass(frozen=True)
class WeightLinks:
    """What was correlated with what, and what is left after correction.

    Attributes:
        overall: of `correlate_rates` on means over layers and matrices, the family that decides,
            since it is small enough to see something: one row a model, statistic and capability.
            `raw_p` is what a textbook gives for `raw_r`, `raw_q` the same adjusted: for
            comparison only.
        links: the same for every matrix, averaged over layers: a family of its own.
        by_layer: the same for every matrix of every layer: another one.
        control: of `link_controls`: what the tests of `overall` can see.
        coincidences: of `turns_near_emergence`: whether statistics turn when capabilities emerge.
        pooled_overall, pooled: of `pool_models` on `overall` and `links`: one row a statistic and
            capability; None for a single model.
        beyond_loss: `overall` with the rate of the loss partialled out too; None without a loss.
    """

    overall: pd.DataFrame
    links: pd.DataFrame
    by_layer: pd.DataFrame
    control: pd.DataFrame
    coincidences: pd.DataFrame
    pooled_overall: pd.DataFrame | None = None
    pooled: pd.DataFrame | None = None
    beyond_loss: pd.DataFrame | None = None

    def frames(self) -> dict[str, pd.DataFrame]:
        """Every table that there is, by name."""
        return {name: table for name, table in vars(self).items() if table is not None}


def link_weights(
    curves: pd.DataFrame,
    capabilities: pd.DataFrame,
    emergence: pd.DataFrame,
    *,
    loss: str | None = None,
    n_null: int = 20_000,
    n_pooled: int = 10_000,
    alpha: float = 0.05,
    seed: int = 0,
) -> WeightLinks:
    """Correlate rates of every statistic with those of every capability, in and over models.

    Args:
        curves: of `weight_curves`, of one model or several.
        capabilities: of `capability_curves`, of the same models.
        emergence: of `emergence_table`.
        loss: name of the capability that is (minus) the training loss, if there is one: most
            of what changes in training changes with the loss.
        n_null: surrogates of each capability. The smallest p is 1 / (1 + n_null), and it must
            pass a correction for all tests of the family.
        n_pooled: surrogates of pooled correlations; of those of single matrices 3,000 at most.
        alpha: false discovery rate to accept, for `control`.
        seed: of the surrogates.

    What it does not show: cause. Layers and statistics of one matrix are not independent, nor are
    sizes trained on the same batches in the same order.
    """

    def correlated(statistics: pd.DataFrame, goals: pd.DataFrame, **options: Any):
        return correlate_rates(statistics, goals, n_null=n_null, seed=seed, **options)

    few = mean_over_matrices(curves)
    found = correlated(few, capabilities)
    each = correlated(mean_over_layers(curves), capabilities)
    beyond = None
    if loss is not None:
        is_loss = capabilities["metric"] == loss
        options = {"partial": ("log_step", "loss"), "loss": capabilities.loc[is_loss]}
        beyond = correlated(few, capabilities.loc[~is_loss], **options)
    overall = with_raw_tests(found.to_frame())
    together = _pooled(found, n_pooled)
    return WeightLinks(
        overall=overall,
        links=with_raw_tests(each.to_frame()),
        by_layer=with_raw_tests(
            correlated(curves.loc[curves["layer"].notna()], capabilities).to_frame()
        ),
        control=link_controls(
            capabilities,
            overall,
            together,
            n_null=n_null,
            n_pooled=n_pooled,
            alpha=alpha,
            seed=seed,
        ),
        coincidences=turns_near_emergence(curves, emergence),
        pooled_overall=together,
        pooled=_pooled(each, min(n_pooled, _MANY)),
        beyond_loss=None if beyond is None else with_raw_tests(beyond.to_frame()),
    )


def _pooled(found: RateCorrelations, n_null: int) -> pd.DataFrame | None:
    if len({group.model for group in found.groups}) < 2:
        return None
    return pool_models(found, n_null=n_null).to_frame()


def with_raw_tests(links: pd.DataFrame) -> pd.DataFrame:
    """The textbook's p-value of each raw correlation, as if steps were independent observations.

    Args:
        links: with `raw_r` and `n`, the number of intervals (one less than steps).

    Returns:
        A copy with `raw_p` and `raw_q` (Benjamini and Hochberg over all rows).
    """
    r = links["raw_r"].to_numpy(float).clip(-1, 1)
    half = (links["n"].to_numpy(float) + 1) / 2 - 1  # r² of n values is Beta(1/2, (n - 2) / 2)
    p = 2 * beta.sf((1 + np.abs(r)) / 2, half, half)
    return links.assign(raw_p=p, raw_q=false_discovery_rate(p))
