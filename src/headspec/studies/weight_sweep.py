"""Everything that the study of weight statistics measures of weights."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from headspec.checkpoints.suite import CheckpointSuite
from headspec.measures.clusters import ClusterMeasure
from headspec.measures.weight_statistics import WeightMeasure
from headspec.studies.weight_curves import dropped_curves, weight_curves
from headspec.sweeps.run import sweep


def measure_weights(
    suites: Mapping[str, CheckpointSuite],
    steps: Mapping[str, Sequence[int]],
    *,
    n_null: int = 200,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
) -> dict[str, pd.DataFrame]:
    """Statistics of all matrices and clusters of heads, at every step of every suite.

    Checkpoints are verified first; finished steps under `out` are not measured again.

    Args:
        suites: by name.
        steps: of each suite.
        n_null: draws of the clusters' null.
        seed: of that null.
        out: folder for finished steps.

    Returns:
        `"weights"` and `"clusters"`, the rows of the sweeps; `"curves"` of `weight_curves`, and
        `"left_out"` of `dropped_curves`.
    """
    clusters = ClusterMeasure(n_null=n_null, seed=seed, unit_norm=True, positions=False)
    parts: dict[str, list[pd.DataFrame]] = {"weights": [], "clusters": []}
    for name, suite in suites.items():
        suite.verify(steps=steps[name])
        for kind, measure in (("weights", WeightMeasure()), ("clusters", clusters)):
            folder = None if out is None else Path(out) / kind
            parts[kind].append(sweep(suite, measure, steps=steps[name], out=folder))
    found = {kind: pd.concat(frames, ignore_index=True) for kind, frames in parts.items()}
    both = found["weights"], found["clusters"]
    return found | {"curves": weight_curves(*both), "left_out": dropped_curves(*both)}
