"""What metrics and capabilities are called in figures, and their units."""

from __future__ import annotations

import pandas as pd

METRICS: dict[str, tuple[str, str]] = {
    "silhouette": ("Silhouette", "no unit, −1 to 1"),
    "inter_cluster_distance": ("Distance between clusters", "weight norm"),
    "within_cluster_variance": ("Variance within clusters", "weight norm²"),
    "separation_ratio": ("Separation ratio, as the study defines it", "1 / weight norm"),
    "separation_dimensionless": ("Separation, dimensionless", "distance / sd"),
    "wasserstein": ("Wasserstein distance between clusters", "weight value"),
    "weight_divergence": ("Divergence from the step before", "share of weight norm"),
    "ari_previous": ("Agreement with the step before", "adjusted Rand"),
    "stability": ("Stability under resampling", "adjusted Rand"),
    "smallest_cluster": ("Size of the smallest cluster", "heads"),
}
"""Metric name to (title of its panel, unit on its axis)."""


def metric_words(metric: str) -> tuple[str, str]:
    """The title and unit of a metric; a readable form of its name where it is not known."""
    return METRICS.get(metric, (metric.replace("_", " ").capitalize(), "value"))


def capability_name(metric: str) -> str:
    """A capability's name as read by people: `lambada_openai.acc` is lambada openai acc."""
    return metric.replace("_", " ").replace(".", " ")


def capability_unit(metric: str, rows: pd.DataFrame) -> str:
    """The unit of a capability: the column `unit` where given, else told from name and values.

    Losses and gains are in nats per token, log-probabilities in nats; values within 0 to 1 are
    taken as accuracies.
    """
    given = rows["unit"].dropna().tolist() if "unit" in rows.columns else []
    values = rows["value"].dropna().tolist()
    if given:
        return str(given[0])
    if "log_prob" in metric:
        return "nats"
    if metric.endswith(("ppl", "perplexity")):
        return "perplexity"
    if any(word in metric for word in ("loss", "gain", "nats")):
        return "nats per token"
    return "accuracy (share right)" if all(0 <= v <= 1 for v in values) else "value"
