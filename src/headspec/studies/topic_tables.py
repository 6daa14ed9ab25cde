"""Tables of the topic-ordering study: the conditions, and what needs no training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from headspec.results import tidy
from headspec.studies.topic_measures import mean_interval
from headspec.studies.topic_outcomes import middle_layer

_HEADS = ("within_topic_mass", "entropy")

COLUMNS: dict[str, tuple[str, str]] = {
    "validation_loss": ("Validation loss", ".4f"),
    "within_topic_mass": ("Within topic", ".1%"),
    "topic_excess": ("Beyond reach", "+.1%"),
    "entropy": ("Entropy, nats", ".2f"),
    "probe_accuracy": ("Probe, middle layer", ".1%"),
    "selectivity": ("Its selectivity", "+.1%"),
}
"""Columns of the study's table, with what the corrected analysis adds to them."""


def condition_table(
    outcomes: pd.DataFrame, columns: Mapping[str, tuple[str, str]] | None = None
) -> pd.DataFrame:
    """The study's table: a row a condition, means over seeds ± half a 95 % interval (t).

    With one seed there are no intervals, and the table says so.

    Args:
        outcomes: rows of `run_outcomes`.
        columns: outcome -> heading and format; the study's by default.
    """
    shown = COLUMNS if columns is None else columns
    rows = []
    for name, part in outcomes.groupby("condition", sort=False):
        row = {"condition": str(name), "seeds": part["seed"].nunique()}
        for metric, (heading, form) in shown.items():
            values = part.loc[part["metric"] == metric, "value"].to_numpy(float)
            row[heading] = with_interval(values, form)
        rows.append(row)
    return pd.DataFrame(rows)


def with_interval(values: np.ndarray, form: str) -> str:
    """A mean and the half width of its 95 % interval (t over runs), as text.

    Example:
        >>> with_interval(np.array([1.0, 2.0, 3.0]), ".1f")
        '2.0 ± 2.5'
        >>> with_interval(np.array([0.5]), ".0%")
        '50% (one seed)'
    """
    mean, low, high = mean_interval(values)
    if len(values) < 2:
        return f"{mean:{form}} (one seed)"
    return f"{mean:{form}} ± {(high - low) / 2:{form.lstrip('+')}}"


def baseline_table(frame: pd.DataFrame, references: pd.DataFrame) -> pd.DataFrame:
    """What the columns of the table are without any training: one row a reference.

    Args:
        frame: rows of `measure_topic_model`.
        references: rows of `reference_rows`.
    """
    known = references.set_index("metric")["value"].astype(float).to_dict()

    def of(metric: str, column: str) -> float:
        return float(frame.loc[frame["metric"] == metric, column].astype(float).mean())

    middle = frame["layer"] == middle_layer(frame)
    control = frame.loc[middle & (frame["metric"] == "control_accuracy"), "value"].mean()
    rows = [
        ("uniform causal attention", *(of(m, "null_mean") for m in _HEADS), np.nan, np.nan),
        ("attention to the last 32 tokens", *(of(m, "window_baseline") for m in _HEADS)),
        ("attention to the first token", *(of(m, "first_baseline") for m in _HEADS)),
        ("largest topic", np.nan, np.nan, np.nan, of("accuracy", "null_mean")),
        ("probe of the control task, middle layer", np.nan, np.nan, np.nan, control),
        ("uniform guess, ln V", np.nan, np.nan, known["ln_vocab"]),
        ("ideal reader of single tokens", np.nan, np.nan, known.get("unigram_loss"),
         known.get("unigram_topic_accuracy")),
        ("ideal reader (Bayes)", np.nan, np.nan, known.get("bayes_loss"),
         known.get("ideal_topic_accuracy")),
    ]  # fmt: skip
    columns = ("within_topic_mass", "entropy", "validation_loss", "probe_accuracy")
    names = ("without training", *(COLUMNS[name][0] for name in columns))
    forms = ("", ".1%", ".2f", ".4f", ".1%")
    return pd.DataFrame(
        [
            {
                name: value if not form else "" if pd.isna(value) else f"{value:{form}}"
                for name, form, value in zip(names, forms, (*row, *[np.nan] * 4)[:5], strict=True)
            }
            for row in rows
        ]
    )


def correction_rows(frame: pd.DataFrame, outcomes: pd.DataFrame) -> pd.DataFrame:
    """The published way beside the corrected one, on the same models: rows for `plot_correction`.

    Args:
        frame: rows of `measure_topic_model`, with the columns of conditions.
        outcomes: `run_outcomes(frame)`.

    Returns:
        One row a condition, quantity (`entropy`, `within_topic_mass`, `probe_accuracy`) and way:
        mean over seeds with the ends of its t interval, the baseline of that way in `null_mean`,
        and in `ceiling` the largest entropy that causal attention can have.
    """
    rows = []
    for metric, source in (*((name, name) for name in _HEADS), ("probe_accuracy", "accuracy")):
        for way, prefix in (("published", "published_"), ("corrected", "")):
            within = f"{prefix}{'probe_accuracy' if prefix and source == 'accuracy' else source}"
            null = frame.loc[frame["metric"] == within, "null_mean"].to_numpy(float).mean()
            ceiling = frame.loc[frame["metric"] == source, "null_mean"].to_numpy(float).mean()
            chosen = outcomes.loc[outcomes["metric"] == f"{prefix}{metric}"]
            for condition, part in chosen.groupby("condition", sort=False):
                value, low, high = mean_interval(part["value"].to_numpy(float))
                row = {"condition": condition, "metric": metric, "way": way, "value": value}
                row |= {"low": low, "high": high, "null_mean": null, "n": len(part)}
                rows.append(row | {"ceiling": ceiling if metric == "entropy" else np.nan})
    return tidy(rows)


def outcome_means(outcomes: pd.DataFrame, factor: str) -> dict[tuple[str, str], float]:
    """Mean of every outcome at each level of a factor, over all else: (metric, level) -> mean."""
    means = outcomes.groupby(["metric", factor])["value"].mean()
    return {(str(key[0]), str(key[1])): float(value) for key, value in means.to_dict().items()}  # type: ignore[index]


def circuit_table(frame: pd.DataFrame, outcomes: pd.DataFrame) -> pd.DataFrame:
    """Spectra of circuits and clusters of heads by condition, means over seeds with intervals."""
    columns = {
        "qk.effective_rank": ("QK effective rank", ".2f"),
        "ov.effective_rank": ("OV effective rank", ".2f"),
        "qk.silhouette_excess": ("QK silhouette less null", "+.3f"),
        "ov.silhouette_excess": ("OV silhouette less null", "+.3f"),
    }
    table = condition_table(outcomes, columns)
    for feature in ("qk", "ov"):
        rows = frame.loc[frame["metric"] == f"{feature}.silhouette"]
        clear = rows.assign(clear=rows["p"].astype(float) < 0.05).groupby("condition")["clear"]
        words = {str(name): f"{int(each.sum())} of {len(each)}" for name, each in clear}
        table[f"{feature.upper()} clusters, p < .05"] = [
            words.get(n, "") for n in table["condition"]
        ]
    return table


def probe_differences(frame: pd.DataFrame) -> pd.DataFrame:
    """Probe accuracy after DroPE, topic-ordered less shuffled, by attention and layer.

    Args:
        frame: rows of `measure_topic_model`, with the columns of conditions.

    Returns:
        Columns `attention`, `layer`, `value` (mean over seeds), `n_positive` and `n` (seeds).
    """
    chosen = (frame["metric"] == "accuracy") & (frame["position"] == "drope")
    rows = frame.loc[chosen].astype({"layer": int})
    rows = rows.loc[rows["layer"] >= 0]
    keys = ["attention", "layer", "seed"]
    wide = rows.pivot_table(index=keys, columns="ordering", values="value")
    difference = (wide["topic_ordered"] - wide["shuffled"]).reset_index(name="value")
    groups = difference.groupby(["attention", "layer"], sort=False)["value"]
    return groups.agg(
        value="mean", n_positive=lambda values: int((values > 0).sum()), n="size"
    ).reset_index()
