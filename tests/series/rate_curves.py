"""Curves for tests of rates: the shapes of the calibration script, as tidy frames."""

import numpy as np
import pandas as pd

PYTHIA = np.r_[0, 2 ** np.arange(10), 1000, np.arange(3000, 144_000, 10_000)]
EMBEDDED = np.array(
    [0, 1, 4, 16, 64, 128, 256, 384, 512, 768, 1024, 1280, 1536, 2048, 3072, 4096, 6144]
)


def frame_of(values, steps, prefix="s", **labels) -> pd.DataFrame:
    values = np.atleast_2d(np.asarray(values, dtype=float))
    return pd.DataFrame(
        {
            "step": np.tile(steps, len(values)),
            "metric": np.repeat([f"{prefix}{at}" for at in range(len(values))], len(steps)),
            "value": values.ravel(),
            **labels,
        }
    )


def walks(rng, n, steps, power=0.5):
    """Random walks; the increments grow with a power of the width of the interval."""
    widths = np.diff(np.log1p(steps))
    return np.c_[np.zeros(n), np.cumsum(rng.normal(size=(n, len(widths))) * widths**power, 1)]


def saturating(rng, n, steps, noise=0.01):
    """Logistic curves of random midpoint, width, height and sign on log step."""
    x = np.log1p(steps)
    middles, scales = rng.uniform(0.5, x[-1] - 0.3, n), np.exp(rng.uniform(-1.9, 0.4, n))
    heights = np.exp(rng.normal(size=n)) * rng.choice([-1, 1], n)
    rises = 1 / (1 + np.exp(-(x - middles[:, None]) / scales[:, None]))
    return heights[:, None] * (rises + noise * rng.normal(size=rises.shape))


def linked(rng, n, steps, rho, lag=0):
    """Random walks; the rates of the second lead those of the first, correlated rho."""
    roots = np.sqrt(np.diff(np.log1p(steps)))
    rates = rng.normal(size=(n, len(roots)))
    ahead = np.r_[rates[0, lag:], rng.normal(size=lag)]
    rates[1] = rho * ahead + np.sqrt(1 - rho**2) * rates[1]
    return np.c_[np.zeros(n), np.cumsum(rates * roots, axis=1)]
