"""Curves that several tests of series share."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

EVALS = Path(__file__).resolve().parents[3] / "shared" / "data" / "pythia-evals"


def as_frame(steps, values, **columns) -> pd.DataFrame:
    return pd.DataFrame({"step": steps, "metric": "m", "value": values, **columns})


def doubling(n: int) -> np.ndarray:
    return np.r_[0, 2 ** np.arange(n - 1)]


def jump(n: int, at: int, height: float = 1.0) -> np.ndarray:
    return height * (np.arange(n) >= at).astype(float)


def logistic(n: int, width: float) -> np.ndarray:
    """From 0 to 1, centred, 10 % to 90 % in `width` intervals."""
    return 1 / (1 + np.exp(-(np.arange(n) - (n - 1) / 2) * 2 * np.log(9) / width))


def lambada(size: str) -> pd.DataFrame:
    """Zero-shot LAMBADA accuracy of a published Pythia model, with standard errors."""
    if not EVALS.is_dir():
        pytest.skip("the published Pythia evaluations are not beside the checkout")
    rows = []
    for path in (EVALS / f"pythia-{size}" / "zero-shot").glob("*_step*.json"):
        scores = json.loads(path.read_text())["results"]["lambada_openai"]
        step = int(re.search(r"_step(\d+)", path.name)[1])
        rows.append({"step": step, "value": scores["acc"], "se": scores["acc_stderr"]})
    return pd.DataFrame(rows).assign(metric="m", model=size)
