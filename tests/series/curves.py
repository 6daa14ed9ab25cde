"""Curves that several tests of series share."""

import numpy as np
import pandas as pd


def as_frame(steps, values, **columns) -> pd.DataFrame:
    return pd.DataFrame({"step": steps, "metric": "m", "value": values, **columns})


def doubling(n: int) -> np.ndarray:
    return np.r_[0, 2 ** np.arange(n - 1)]


def jump(n: int, at: int, height: float = 1.0) -> np.ndarray:
    return height * (np.arange(n) >= at).astype(float)


def logistic(n: int, width: float) -> np.ndarray:
    """From 0 to 1, centred, 10 % to 90 % in `width` intervals."""
    return 1 / (1 + np.exp(-(np.arange(n) - (n - 1) / 2) * 2 * np.log(9) / width))
