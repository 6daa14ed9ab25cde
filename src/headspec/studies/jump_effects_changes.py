"""The change of every measure across every moment, from rows of `measure_moments`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

Layers = Literal["all", "own"]
_PART = ("layer_name", "head", "class")
_LABELS = ("kind", "matched", "before", "during", "after", "phase")
_PLACES = {"before": -1.0, "after": 1.0, "across": 1.0}


def moment_changes(frame: pd.DataFrame, *, layers: Layers = "all") -> pd.DataFrame:
    """The change of each metric across each moment: one row a run, moment and metric.

    Args:
        frame, layers: as in `jump_effects`.

    Returns:
        Columns `model seed moment kind matched before during after phase metric value`. Parts
        (layers, heads, classes) that are not finite at both ends are left out of the mean.
    """
    missing = [name for name in (*_PART, *_LABELS, "moment_layer") if name not in frame]
    rows: Any = frame.assign(**dict.fromkeys(missing, None))
    ends = [rows[name].to_numpy(float, na_value=np.nan) for name in ("before", "during", "after")]
    rows["during"] = np.where(np.isnan(ends[1]), (ends[0] + ends[2]) / 2, ends[1])
    if layers == "own":
        rows = rows.loc[_own(rows)]
    value = rows["value"].to_numpy(float, na_value=np.nan)
    place = rows["place"].map(_PLACES)
    rows = rows.assign(value=value * place.to_numpy(float), ends=1 + (rows["place"] == "across"))
    rows = rows.loc[np.isfinite(rows["value"])]  # of other places, and what was not defined
    about = ["model", "seed", "moment", "metric"]
    parts: Any = rows.groupby([*about, *_PART], dropna=False, sort=False)[["value", "ends"]].sum()
    whole = parts.loc[parts["ends"] == 2]
    means = whole.groupby(about, dropna=False, sort=False)["value"].mean().reset_index()
    labels = rows.drop_duplicates(about[:3])[[*about[:3], *_LABELS]]
    return means.merge(labels, on=about[:3], how="left")


def _own(rows: Any) -> np.ndarray:
    """Whether a row is of its moment's layer, of the block around it, or of no layer."""
    pairs = zip(rows["layer_name"], rows["moment_layer"], strict=True)
    return np.array(
        [
            pd.isna(name) or pd.isna(jumped) or not jumped or f"{jumped}.".startswith(f"{name}.")
            for name, jumped in pairs
        ],
        dtype=bool,
    )


def without_trend(
    changes: Sequence[np.ndarray],
    places: Sequence[np.ndarray],
    models: Sequence[str],
) -> list[np.ndarray]:
    """Changes less their trend over training: linear in log(1 + step), one slope a model.

    Where jumps crowd, their controls lie further into training, where everything changes less. The
    slope is fitted to jumps and controls alike, within runs; part of what jumps bring is taken for
    trend where they come earlier than their controls, which errs on the side of no effect.

    Args:
        changes: of each run's moments; nan where not known.
        places: their steps.
        models: of each run; runs of a model share a slope.

    Returns:
        The changes of each run; untouched where a model has too few moments for a slope (fewer
        than four more than runs).
    """
    out = [values.copy() for values in changes]
    for model in dict.fromkeys(models):
        runs = [i for i, name in enumerate(models) if name == model]
        run = np.repeat(runs, [len(changes[i]) for i in runs])
        values = np.concatenate([changes[i] for i in runs])
        place = np.log1p(np.concatenate([places[i] for i in runs]))
        known = np.isfinite(values)
        if known.sum() < len(set(run[known])) + 4:
            continue
        within = (run[known, None] == runs).astype(float)
        design = np.column_stack([place[known], within])
        slope = np.linalg.lstsq(design, values[known], rcond=None)[0][0]
        for i in runs:
            out[i] -= slope * (place[run == i] - place[known].mean())
    return out
