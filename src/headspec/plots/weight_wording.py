"""What statistics of weights are called in figures, and their units."""

from __future__ import annotations

import re

MATRICES: dict[str, str] = {
    "all": "All matrices",
    "q": "Q",
    "k": "K",
    "v": "V",
    "o": "O",
    "qk": "QK circuit",
    "ov": "OV circuit",
    "mlp_in": "MLP in",
    "mlp_gate": "MLP gate",
    "mlp_out": "MLP out",
    "embed": "Embedding",
    "pos_embed": "Positions",
    "unembed": "Unembedding",
}
"""Matrices in the order of a forward pass, as figures name them."""

STATISTICS: dict[str, tuple[str, str]] = {
    "spectral_norm": ("spectral norm", "weight norm"),
    "frobenius_norm": ("Frobenius norm", "weight norm"),
    "nuclear_norm": ("nuclear norm", "weight norm"),
    "stable_rank": ("stable rank", "dimensions"),
    "effective_rank": ("effective rank", "dimensions"),
    "participation_ratio": ("participation (σ²)", "dimensions"),
    "participation_ratio_sigma": ("participation (σ)", "dimensions"),
    "condition_number": ("condition number", "largest σ / smallest σ"),
    "decay_rate": ("decay rate", "per log rank"),
    "alpha": ("power-law α", "exponent, no unit"),
    "weighted_alpha": ("weighted α", "α log₁₀ of the largest σ²"),
    "ks": ("power-law misfit", "KS distance"),
    "n_tail": ("values in the tail", "number"),
    "mp_spikes": ("spikes", "number above the bulk"),
    "silhouette_excess": ("clustering of heads", "silhouette above its null"),
    "cosine": ("cosine to step before", "no unit, −1 to 1"),
    "relative_change": ("relative change", "share of weight norm"),
    "path_length": ("path length", "sum of relative changes"),
    "turning": ("turning", "sum of 1 − cosine"),
    "norm_growth": ("norm growth", "ratio of norms"),
    "left_angle": ("left drift", "radians"),
    "right_angle": ("right drift", "radians"),
    "singular_value": ("singular value", "weight norm"),
}
"""Statistic to (label, unit), in the order of figures."""


def split_metric(metric: str) -> tuple[str, str]:
    """Matrix and statistic of a metric: `q.stable_rank` is ("q", "stable_rank").

    A metric of no matrix, such as `silhouette`, has the matrix "".
    """
    matrix, dot, statistic = metric.partition(".")
    return (matrix, statistic) if dot else ("", metric)


def matrix_label(matrix: str) -> str:
    """A matrix as figures name it; "Other" for none."""
    return MATRICES.get(matrix, matrix.replace("_", " ") if matrix else "Other")


def statistic_words(statistic: str) -> tuple[str, str]:
    """Label and unit of a statistic; a readable form of its name where it is not known."""
    top = re.fullmatch(r"top_?(\d+)_variance(?:_fraction)?|top_variance_(\d+)", statistic)
    if top:
        count = top.group(1) or top.group(2)
        return f"variance in top {count}", "share of Σσ²"
    return STATISTICS.get(statistic, (statistic.replace("_", " "), "value"))


def metric_label(metric: str) -> str:
    """Matrix and statistic in words: "Q stable rank"."""
    matrix, statistic = split_metric(metric)
    label = statistic_words(statistic)[0]
    return f"{matrix_label(matrix)} {label}" if matrix else label


def in_order(names: list[str], known: dict) -> list[str]:
    """Known names in their order, then the others as they come."""
    return [name for name in known if name in names] + [n for n in names if n not in known]


def composition_title(metric: str) -> str:
    """A kind of composition as a title: `q_composition` is "Q-composition"."""
    kind, _, word = metric.partition("_")
    if word == "composition":
        return f"{kind.upper()}-composition"
    return metric.replace("_", " ").capitalize()
