"""What is said of capabilities: when they emerge, when they decline."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd


def describe_capabilities(table: pd.DataFrame, *, alpha: float = 0.05) -> list[str]:
    """Sentences on when capabilities emerge, and a sentence on every decline.

    Args:
        table: of `emergence_table`.
        alpha: rate of false decline to accept, over all rows (Bonferroni).
    """
    sentences = []
    for capability, part in table.groupby("capability", sort=False):
        rows = [row for row in part.to_dict("records") if row["status"] != "not asked"]
        if not rows:
            continue
        told = {"emerged": "leaves chance between steps "} | _STATES
        when = [
            told[status] + _grouped([row for row in rows if row["status"] == status], words)
            for status, words in {"emerged": _window, **dict.fromkeys(_STATES, _nothing)}.items()
            if any(row["status"] == status for row in rows)
        ]
        sentence = f"{_named(capability)}: {'; '.join(when)}; rises most from step "
        sentence += _grouped(rows, _rise)
        if not any(pd.isna(row.get("continuous_before")) for row in rows):
            sentence += "; the continuous measure rises most from step "
            sentence += _grouped(rows, _continuous_rise)
            sentence += "; " + _grouped(rows, _comparison)
        sentences.append(f"{sentence}.")
    for row in table.loc[table["p_decline"] <= alpha / max(len(table), 1)].to_dict("records"):
        wobble = "within" if row["p_wobble"] > alpha else "beyond"
        sentences.append(
            f"Late decline: {_named(row['capability'])} of {_short(row['model'])} falls from "
            f"{row['peak']:.3f} at step {row['peak_step']} to {row['last']:.3f} at the last step, "
            f"more than errors over examples explain (p = {row['p_decline']:.2g}), {wobble} the "
            f"wobble from checkpoint to checkpoint (p = {row['p_wobble']:.2g})."
        )
    return sentences


_COMPARISONS = {
    "metric": "moves earlier and less abruptly: the abruptness may be in part the measure's",
    "late_onset": "moves earlier, and not measurably less abruptly",
    "sharper": "is not shown to begin earlier, and takes longer",
    "shared": "moves neither earlier nor less abruptly",
    "undecided": "cannot be compared: one of the two does not begin at chance and leave it",
}

_STATES = {
    "at_first_step": "above chance from the first step on",
    "never": "never clearly above chance",
    "lost": "above chance on the way, not at the end",
}


def _window(row: dict) -> str:
    return f"{row['step_before']} and {row['step']}"


def _nothing(row: dict) -> str:
    return ""


def _rise(row: dict) -> str:
    return f"{row['rise_before']} to {row['rise_after']}"


def _continuous_rise(row: dict) -> str:
    return f"{row['continuous_before']} to {row['continuous_after']}"


def _comparison(row: dict) -> str:
    return _COMPARISONS[row["comparison"]]


def _grouped(rows: list[dict], words: Callable[[dict], str]) -> str:
    """What is said of each model, said once of those that share it."""
    said: dict[str, list[str]] = {}
    for row in rows:
        said.setdefault(words(row), []).append(_short(row["model"]))
    return ", ".join(f"{text} ({', '.join(models)})" for text, models in said.items())


def _named(capability: object) -> str:
    return str(capability).replace("_", " ")


def _short(model: object) -> str:
    return str(model).rsplit("/", 1)[-1]
