"""One number a run: what the design of the topic-ordering study is about, and its effects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from headspec.results import tidy
from headspec.studies.factorial import factorial_effects
from headspec.studies.factorial_result import FactorialEffects
from headspec.studies.topic_conditions import FACTOR_LEVELS, varied_factors

DESIGN = (
    "validation_loss",
    "entropy",
    "within_topic_mass",
    "topic_excess",
    "head_spread",
    "probe_accuracy",
)
"""The outcomes whose main effects and interactions are shown."""


def run_outcomes(frame: pd.DataFrame) -> pd.DataFrame:
    """Averages of a run over its heads and layers, one row a run and outcome.

    | metric | what |
    |---|---|
    | `validation_loss` | as measured, nats per token |
    | `entropy`, `within_topic_mass`, `topic_excess`, `distance` | mean over all heads |
    | `log_topic_ratio` | mean over heads of ln(topic ratio): 0 is uniform attention |
    | `head_spread` | standard deviation over all heads of `within_topic_mass` |
    | `reach_spread` | the same of what the heads' reach alone gives (labels of other sequences) |
    | `probe_accuracy`, `selectivity` | of the probe at the middle layer |
    | `probe_accuracy_mean` | mean over layers |
    | `qk.effective_rank`, `ov.effective_rank` | mean over heads |
    | `qk.silhouette_excess`, `ov.silhouette_excess` | mean over layers, less the null's |
    | `published_...` | the published way: mean over heads; the probe at the middle layer |

    Heads of one model are not independent: from here on a run is one observation.

    Args:
        frame: rows of `measure_topic_model` with the columns of conditions.
    """
    rows = []
    for run in _runs(frame):
        first = run.iloc[0]
        labels = {name: str(first[name]) for name in ("model", "condition", *FACTOR_LEVELS)}
        rows += [
            {**labels, "seed": first["seed"], "metric": metric, "value": value}
            for metric, value in _averages(run).items()
        ]
    return tidy(rows)


def middle_layer(frame: pd.DataFrame) -> int:
    """The layer whose probe the tables show: half of the number of layers, counted from 0."""
    return (int(np.nanmax(frame["layer"].to_numpy(float, na_value=np.nan))) + 1) // 2


def learnt_share(outcomes: pd.DataFrame, references: pd.DataFrame) -> float:
    """How far the losses of models with RoPE went from a uniform guess (0) to the ideal reader (1).

    Args:
        outcomes: `run_outcomes(frame)`.
        references: rows of `reference_rows`.

    Returns:
        The share, a mean over runs; nan where the ideal reader is unknown, as for text.
    """
    known = references.set_index("metric")["value"].astype(float).to_dict()
    if "bayes_loss" not in known:
        return float("nan")
    chosen = (outcomes["position"] == "rope") & (outcomes["metric"] == "validation_loss")
    loss = float(outcomes.loc[chosen, "value"].mean())
    return (known["ln_vocab"] - loss) / (known["ln_vocab"] - known["bayes_loss"])


def _runs(frame: pd.DataFrame) -> list[pd.DataFrame]:
    return [run for _, run in frame.groupby(["condition", "seed"], sort=False)]


def _averages(run: pd.DataFrame) -> dict[str, float]:
    by_metric = {str(name): rows for name, rows in run.groupby("metric")}

    def values(name: str, column: str = "value") -> np.ndarray:
        return by_metric[name][column].to_numpy(float)

    def at_middle(name: str) -> float:
        layers = by_metric[name]["layer"].to_numpy(float)
        return float(values(name)[layers == middle_layer(run)][0])

    means = ("validation_loss", "entropy", "within_topic_mass", "topic_excess", "distance")
    means += ("qk.effective_rank", "ov.effective_rank")
    found = {name: float(values(name).mean()) for name in means}
    found["log_topic_ratio"] = float(np.log(values("topic_ratio")).mean())
    found["head_spread"] = float(values("within_topic_mass").std(ddof=1))
    found["reach_spread"] = float(values("within_topic_mass", "exchanged_baseline").std(ddof=1))
    found["probe_accuracy"] = at_middle("accuracy")
    found["selectivity"] = at_middle("selectivity")
    inside = by_metric["accuracy"]["layer"].to_numpy(float) >= 0
    found["probe_accuracy_mean"] = float(values("accuracy")[inside].mean())
    for name in ("qk.silhouette", "ov.silhouette"):
        if name in by_metric:
            found[f"{name}_excess"] = float((values(name) - values(name, "null_mean")).mean())
    for name in ("published_entropy", "published_within_topic_mass"):
        found[name] = float(values(name).mean())
    for name in ("published_probe_accuracy", "published_probe_accuracy_by_sequence"):
        found[name] = at_middle(name)
    return found


def design_effects(outcomes: pd.DataFrame, metrics: Sequence[str] = DESIGN) -> FactorialEffects:
    """Main effects and interactions of the factors that vary, on each outcome.

    Args:
        outcomes: rows of `run_outcomes`.
        metrics: which outcomes; all of them count in `q`.
    """
    chosen = outcomes.loc[outcomes["metric"].isin(metrics)]
    factors = varied_factors(chosen)
    levels = {name: FACTOR_LEVELS[name] for name in factors}
    return factorial_effects(chosen, factors=factors, by=("metric",), levels=levels)


def ordering_effects(
    outcomes: pd.DataFrame, metrics: Sequence[str], *, position: str = "drope"
) -> pd.DataFrame:
    """Topic-ordered less shuffled training at one position, with intervals over seeds.

    A mean over the kinds of attention where there are two. `q` is p corrected for these outcomes by
    Holm's method: no effect that is none passes `q <= alpha` more often than alpha, whatever the
    others are. (A false discovery rate does not hold that: beside one effect that is real, one of
    three that are none passes 7 times in 100.)

    Args:
        outcomes: rows of `run_outcomes`.
        metrics: which outcomes.
        position: `"drope"` or `"rope"`.

    Returns:
        Rows of `FactorialEffects.to_frame`, one a metric, with `q` of this family, and the
        contrasts of the seeds as the column `each seed` (text).
    """
    chosen = outcomes.loc[outcomes["metric"].isin(metrics) & (outcomes["position"] == position)]
    means = chosen.groupby(["metric", "seed", "ordering"], sort=False)["value"].mean()
    found = factorial_effects(
        means.reset_index(),
        factors=("ordering",),
        by=("metric",),
        levels={"ordering": FACTOR_LEVELS["ordering"]},
    )
    said = [", ".join(f"{one:+.3g}" for one in each[0]) for each in found.contrasts]
    rows = found.to_frame().assign(position=position, **{"each seed": said})
    rows["q"] = holm_adjusted(rows["p"].to_numpy(float))
    order = {name: i for i, name in enumerate(metrics)}
    return rows.sort_values("metric", key=lambda names: names.map(order), ignore_index=True)


def holm_adjusted(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """P-values such that any false one is at most alpha with probability alpha (Holm 1979).

    Args:
        p: of all tests; nan, for tests not done, stays and does not count.

    Example:
        >>> holm_adjusted(np.array([0.01, 0.04, 0.03])).round(3).tolist()
        [0.03, 0.06, 0.06]
    """
    out = np.full(p.shape, np.nan)
    order = np.argsort(p)[: int(np.isfinite(p).sum())]  # nan last
    scaled = p[order] * np.arange(len(order), 0, -1)
    out[order] = np.maximum.accumulate(scaled).clip(max=1)
    return out
