"""What models come to do, and when: the capability half of the study of weight statistics."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from headspec.errors import InputError
from headspec.results import tidy
from headspec.series.decline import decline_after_peak
from headspec.series.emergence import emergence_step
from headspec.series.emergence_comparison import compare_emergence


@dataclass(frozen=True)
class Tracked:
    """A capability that the study follows.

    Attributes:
        name: of the curve, as `capability_curves` gives it.
        source: metric of the capability frame that it is made of.
        chance: its value without the ability; None: what the frame says, if it does.
        continuous: name of the continuous curve of the same ability, for a thresholded one.
        turn: how the source is turned so that more is better: as it is, `"minus"` (a loss), or
            `"minus_log"` (a perplexity, which becomes the mean log probability in nats).
        graded: whether it is a continuous measure, in nats. Such a one leaves chance by next to
            nothing, long before anything comes of it: `emergence_windows` takes its largest rise.
    """

    name: str
    source: str
    chance: float | None = None
    continuous: str | None = None
    turn: str = "as_is"
    graded: bool = False


EMBEDDED = (
    Tracked("decimal_accuracy", "decimal_accuracy", 0.5, "decimal_log_prob_difference"),
    Tracked("decimal_log_prob_difference", "decimal_log_prob_difference", 0.0, graded=True),
    Tracked("version_accuracy", "version_accuracy", 0.5, "version_log_prob_difference"),
    Tracked("version_log_prob_difference", "version_log_prob_difference", 0.0, graded=True),
    Tracked("addition_accuracy", "addition_accuracy", 1 / 90, "addition_log_prob"),
    Tracked("addition_log_prob", "addition_log_prob", graded=True),
    Tracked("induction_gain", "induction_gain", 0.0, graded=True),
    Tracked("prose_log_prob", "prose_loss", turn="minus", graded=True),
)
"""What the embedded suite was trained to do. By chance half of the comparisons are right, picking
either number, and one sum in 90, always answering the most frequent one."""

PYTHIA = (
    Tracked("lambada_openai.acc", "lambada_openai.acc", continuous="lambada_openai.log_prob"),
    Tracked("lambada_openai.log_prob", "lambada_openai.ppl", turn="minus_log", graded=True),
    *(Tracked(name, name) for name in ("sciq.acc", "arc_easy.acc", "piqa.acc")),
    *(Tracked(name, name) for name in ("arc_challenge.acc_norm", "winogrande.acc", "logiqa.acc")),
)
"""Evaluations that were published of every Pythia checkpoint. Left out is wsc: of its 104 questions
63.5 % have the answer no, so that its chance depends on which answer a model prefers."""

_KEYS = ["model", "metric"]


def capability_curves(frame: pd.DataFrame, tracked: Sequence[Tracked]) -> pd.DataFrame:
    """The tracked capabilities, turned so that more is better.

    Args:
        frame: tidy rows of one model or several: of `headspec.capability_curve`, or of
            `headspec.load_pythia_evals`.
        tracked: which, such as `EMBEDDED` or `PYTHIA`. Those that the frame lacks are left out.

    Returns:
        Tidy rows with `se` and `chance`.

    Raises:
        InputError: the frame has none of them.
    """
    parts = []
    for one in tracked:
        rows = frame.loc[frame["metric"] == one.source]
        chance = one.chance if one.chance is not None else rows.get("chance", np.nan)
        rows = rows[["model", "step", "value", "n", "se"]].assign(chance=chance)
        value, se = rows["value"], rows["se"]
        if one.turn == "minus":
            value = -value
        elif one.turn == "minus_log":
            value, se = -np.log(value), se / value
        parts.append(rows.assign(metric=one.name, value=value, se=se))
    curves = pd.concat(parts, ignore_index=True)
    if curves.empty:
        raise InputError(
            expected=f"some of the metrics {', '.join(one.source for one in tracked)}",
            got=f"{sorted(set(frame['metric']))[:8]}",
            fix="Name the capabilities of this frame in tracked=...",
        )
    curves["chance"] = curves["chance"].astype(float)
    return tidy(curves.sort_values(by="step", kind="stable", ignore_index=True))


def of_models(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Rows of these models, under these names.

    Args:
        frame: with `model`, such as `"pythia-70m"`.
        names: of suites, such as `"EleutherAI/pythia-70m"`: what stands before the last slash is
            not compared.

    Raises:
        InputError: the frame lacks a model.
    """
    wanted = {_short(name): name for name in names}
    if missing := sorted(set(wanted) - set(frame["model"])):
        raise InputError(
            expected=f"capabilities of {', '.join(wanted)}",
            got=f"none of {', '.join(missing)}; there are {sorted(set(frame['model']))[:8]}",
            fix="Point --evals at a folder that holds these models too.",
        )
    parts = [frame.loc[frame["model"] == short].assign(model=wanted[short]) for short in wanted]
    return pd.concat(parts, ignore_index=True)


def by_size(models: Iterable[str]) -> list[str]:
    """Names of models from the smallest on, as the names say it: 70m before 410m before 1.4b.

    Args:
        models: names; those without a size come first, in the order of the alphabet.
    """

    def size(name: str) -> float:
        found = re.findall(r"(\d+(?:\.\d+)?)([kmb])\b", name.lower())
        return float(found[-1][0]) * {"k": 1e3, "m": 1e6, "b": 1e9}[found[-1][1]] if found else 0.0

    return sorted(models, key=lambda name: (size(name), name))


def emergence_table(
    curves: pd.DataFrame, tracked: Sequence[Tracked], *, alpha: float = 0.05
) -> pd.DataFrame:
    """When each capability of each model leaves chance, changes most, and whether it declines.

    Args:
        curves: of `capability_curves`.
        tracked: what they are.
        alpha: rate of false emergence of each curve, and of false decline.

    Returns:
        One tidy row a model and capability, as `Emergence.to_frame` gives it (`status` is
        `"not asked"` where no chance is known), with `capability`; `graded`, whether it is
        continuous; `rise_before`, `rise_after`, `rise`: the neighbouring steps with the largest
        rise; `continuous`: the continuous curve of the same ability, with `continuous_before`,
        `continuous_after` and `comparison`, the verdict of `compare_emergence`; and of
        `decline_after_peak`: `peak_step`, `peak`, `last`, `p_decline` by standard errors,
        `p_wobble` by the wobble between checkpoints.

    What it does not show: that something began at `step`. Chance is left when errors are small
    enough to see it, which is earlier on a larger test; a thresholded measure leaves chance later
    than a continuous one of the same ability (Schaeffer et al. 2023, arXiv:2304.15004).
    """
    parts = {key: part.reset_index(drop=True) for key, part in curves.groupby(_KEYS, sort=False)}
    rows = []
    for one, model in product(tracked, curves["model"].unique()):
        part = parts.get((model, one.name))
        if part is None:
            continue
        row = {"model": model, "metric": f"{one.name}.emergence", "status": "not asked"}
        if np.isfinite(chance := float(part["chance"].iloc[0])):
            found = emergence_step(part, one.name, chance=chance, se="se", alpha=alpha)
            row |= found.to_frame().iloc[0].to_dict()
        row |= {"capability": one.name, "graded": one.graded, "continuous": one.continuous}
        row["rise_before"], row["rise_after"], row["rise"] = _largest_rise(part)
        if (other := parts.get((model, one.continuous))) is not None:
            row["continuous_before"], row["continuous_after"], _ = _largest_rise(other)
            row["comparison"] = _compared(part, other, alpha)
        ends = decline_after_peak(part, one.name, alpha=alpha)
        row |= {"peak_step": ends.peak_step, "peak": ends.peak, "last": ends.last}
        rows.append(row | {"p_decline": ends.p_examples, "p_wobble": ends.p_wobble})
    table = tidy(rows)
    whole = [name for name in table.columns if name.endswith(("step", "before", "after"))]
    return table.astype(dict.fromkeys(whole, "Int64"))


def emergence_windows(table: pd.DataFrame) -> pd.DataFrame:
    """When capabilities emerge, as the study takes it: (step_before, step] of each.

    Accuracies: where they leave chance. Continuous measures: where they rise most, since chance is
    left as soon as errors are small enough to see it: the loss on a repeated sequence is below
    that on the first one by .004 nats a thousand steps before there is any induction.

    Args:
        table: of `emergence_table`, or rows of `Emergence.to_frame`.

    Returns:
        The rows of capabilities that emerge, `status` `"emerged"` or, where `step_before` and
        `step` are those of the largest rise, `"rises_most"`.

    What it does not show: that a largest rise stands out. Every curve has one; those that never
    leave a known chance, or are lost again, are left out.
    """
    graded = table["graded"] if "graded" in table else np.zeros(len(table))
    graded = np.asarray(graded, dtype=bool) & ~table["status"].isin(("never", "lost"))
    rises = table.loc[graded]
    rises = rises.assign(step_before=rises.get("rise_before"), step=rises.get("rise_after"))
    chance = table.loc[~graded & (table["status"] == "emerged")]
    return pd.concat([chance, rises.assign(status="rises_most")]).sort_index()


def _largest_rise(part: pd.DataFrame) -> tuple[int, int, float]:
    rises = np.diff(part["value"].to_numpy(float))
    at = int(rises.argmax())
    steps = part["step"].tolist()
    return steps[at], steps[at + 1], float(rises[at])


def _compared(part: pd.DataFrame, other: pd.DataFrame, alpha: float) -> str:
    """Whether the thresholded measure makes a gradual improvement look sudden."""
    chances = [float(each["chance"].iloc[0]) for each in (part, other)]
    names = [str(each["metric"].iloc[0]) for each in (part, other)]
    return compare_emergence(
        pd.concat([part, other], ignore_index=True),
        thresholded=names[0],
        continuous=names[1],
        chance=chances[0],
        continuous_chance=chances[1] if np.isfinite(chances[1]) else "first_step",
        alpha=alpha,
    ).verdict


def _short(model: object) -> str:
    return str(model).rsplit("/", 1)[-1]
