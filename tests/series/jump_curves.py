"""Curves that several tests of jumps share."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

NDT = Path(__file__).resolve().parents[3] / "shared" / "data" / "ndt-phase1"
RUNS = {"cnn": "cnn_deep_mnist", "mlp": "mlp_narrow_mnist", "transformer": "transformer_deep_mnist"}


def published(model: str) -> pd.DataFrame:
    """The dimensionality frame of a published run; skips where the data are not there."""
    if not NDT.is_dir():
        pytest.skip("the published runs are not beside the checkout")
    record = json.loads((NDT / f"{RUNS[model]}.json").read_text())
    rows = [
        {"step": at["step"], "layer": layer, "layer_name": name, "metric": metric, "value": value}
        for at in record["measurements"]
        for layer, (name, metrics) in enumerate(at["layer_metrics"].items())
        for metric, value in metrics.items()
    ]
    return pd.DataFrame(rows).assign(model=model, seed=0)


def published_jumps(model: str) -> pd.DataFrame:
    """The published jumps of a run."""
    if not NDT.is_dir():
        pytest.skip("the published jumps are not beside the checkout")
    table = pd.read_csv(NDT / "all_jumps_detailed.csv")
    return table[table["experiment"] == RUNS[model]]


def noisy_step(n: int = 200, *, at: int = 120, size: float = 6.0, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(n)
    return noise + size * (np.arange(n) >= at)
