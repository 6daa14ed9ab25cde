"""Tables of the topic-ordering study: the conditions, and what needs no training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import t as student

COLUMNS: dict[str, tuple[str, str]] = {
    "validation_loss": ("Validation loss", ".4f"),
    "within_topic_mass": ("Within topic, %", ".1%"),
    "topic_excess": ("Beyond reach, %", "+.1%"),
    "entropy": ("Entropy, nats", ".2f"),
    "probe_accuracy": ("Probe, middle layer", ".1%"),
    "selectivity": ("Its selectivity", "+.1%"),
}
"""Columns of the study's table, with what the corrected analysis adds to them."""


def condition_table(
    outcomes: pd.DataFrame, columns: Mapping[str, tuple[str, str]] | None = None
) -> pd.DataFrame:
    """The study's table: a row a condition, means over seeds with 95 % intervals (t), as text.

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
    """A mean with the ends of its t interval over runs, as text.

    Example:
        >>> with_interval(np.array([1.0, 2.0, 3.0]), ".1f")
        '2.0 [-0.5, 4.5]'
        >>> with_interval(np.array([0.5]), ".0%")
        '50% (one seed)'
    """
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return f"{mean:{form}} (one seed)"
    half = float(student.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return f"{mean:{form}} [{mean - half:{form}}, {mean + half:{form}}]"


def baseline_table(frame: pd.DataFrame, references: pd.DataFrame) -> pd.DataFrame:
    """What the columns of the table are without any training: one row a reference.

    Args:
        frame: rows of `measure_topic_model`.
        references: rows of `reference_rows`.
    """
    known = references.set_index("metric")["value"].astype(float).to_dict()

    def of(metric: str, column: str) -> float:
        return float(frame.loc[frame["metric"] == metric, column].astype(float).mean())

    control = of("control_accuracy", "value")
    rows = [
        ("uniform causal attention", *(of(m, "null_mean") for m in _HEADS), np.nan, np.nan),
        ("attention to the last 32 tokens", *(of(m, "window_baseline") for m in _HEADS)),
        ("attention to the first token", *(of(m, "first_baseline") for m in _HEADS)),
        ("largest topic", np.nan, np.nan, np.nan, of("accuracy", "null_mean")),
        ("probe of the control task, mean over layers", np.nan, np.nan, np.nan, control),
        ("uniform guess, ln V", np.nan, np.nan, known["ln_vocab"]),
        ("ideal reader of single tokens", np.nan, np.nan, known.get("unigram_loss"),
         known.get("unigram_topic_accuracy")),
        ("ideal reader (Bayes)", np.nan, np.nan, known.get("bayes_loss"),
         known.get("ideal_topic_accuracy")),
    ]  # fmt: skip
    names = ("without training", "Within topic, %", "Entropy, nats", "Validation loss", "Probe")
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


_HEADS = ("within_topic_mass", "entropy")
