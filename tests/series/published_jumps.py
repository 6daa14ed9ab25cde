"""The published jumps of the study as a frame of jumps, and small synthetic ones."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

PUBLISHED = Path(__file__).parents[2].parent / "shared/data/ndt-phase1/all_jumps_detailed.csv"
needs_published = pytest.mark.skipif(not PUBLISHED.is_file(), reason="published jumps not here")
GRID = np.arange(0, 2000, 5)


def published_jumps() -> pd.DataFrame:
    """All 2,991: `step_before` is 5 x the published index, `model` the architecture."""
    table = pd.read_csv(PUBLISHED)
    before = 5 * table["step"]
    return pd.DataFrame(
        {
            "model": table["arch_name"].str.split("_").str[0],
            "experiment": table["experiment"],
            "layer_name": table["layer"],
            "metric": "stable_rank",
            "step": before + 5,
            "step_before": before,
            "phase": (before + 5) / 2000,
            "published_phase": table["phase"],
            "magnitude": table["magnitude"],
            "speed": table["speed"],
            "direction": table["direction"],
            "cluster": table["cluster"],
            "seed": table["experiment"].astype("category").cat.codes.astype(int),
        }
    )


def jumps_at(steps, *, layer="a", every=5, n_steps=2000, **more) -> pd.DataFrame:
    """Jumps of one layer at these steps, magnitude and speed 1."""
    step = np.asarray(steps, dtype=int)
    frame = {"step": step, "step_before": step - every, "layer_name": layer, "metric": "rank"}
    frame |= {"phase": step / n_steps, "magnitude": 1.0, "speed": 1.0, "direction": "increase"}
    return pd.DataFrame(frame | {"model": "m", "seed": 0} | more)
