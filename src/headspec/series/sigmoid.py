"""A sigmoid through a curve: where its middle lies in training, how wide it is, how surely."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.optimize import OptimizeWarning, curve_fit
from scipy.stats import t as student

from headspec.series.curve import Curve, read_curve

_MIN_POINTS = 6  # four parameters and two degrees of freedom
_RISE = 2 * np.log(9.0)  # from 10 % to 90 % of a logistic curve of scale 1


@dataclass(frozen=True)
class SigmoidFit:
    """low + (high - low) / (1 + exp(-(x - middle) / scale)) on x = log(1 + step).

    Attributes:
        low, high: fitted values before and after, in the unit of the metric; high < low falls.
        midpoint: step where half of the change is done; NaN where no fit was found.
        midpoint_low, midpoint_high: its interval in steps; the window between two checkpoints
            where the whole fitted rise fits into that window.
        width: how many e-folds of log(1 + step) the change takes from 10 % to 90 %. About the
            spacing of the checkpoints or less means: as fast as could be seen.
        residual_sd: root mean square of the residuals, corrected for four parameters.
        level: of the interval, such as 0.95.
        n: number of steps.
    """

    low: float
    high: float
    midpoint: float
    midpoint_low: float
    midpoint_high: float
    width: float
    residual_sd: float
    level: float
    n: int


def fit_sigmoid(
    frame: pd.DataFrame, metric: str, *, se: float | int | str | None = None, level: float = 0.95
) -> SigmoidFit:
    """Least-squares logistic curve on log(1 + step), by `scipy.optimize.curve_fit`.

    Args:
        frame: tidy frame with `step`, `metric`, `value`, of one model, layer and head.
        metric: which metric.
        se: standard errors, a number or a column, as weights; zeros are raised to the smallest
            positive one. The interval still uses the spread of the residuals, which also holds
            what differs between checkpoints and no standard error knows.
        level: of the interval for the midpoint, from the linearised fit with t quantiles.

    Returns:
        `SigmoidFit`; all NaN for fewer than six steps, or where no curve fits better than a
        constant.

    Raises:
        InputError: if the frame does not hold one finite curve.

    What it does not show: that the curve is a sigmoid. A later decline or a second rise bends the
    fit; look at `residual_sd`.

    Example:
        >>> import numpy as np, pandas as pd
        >>> from headspec.series.sigmoid import fit_sigmoid
        >>> steps = [0, 1, 3, 7, 15, 31, 63, 127]
        >>> values = 1 / (1 + np.exp(-(np.log1p(steps) - np.log(8)) / 0.5))
        >>> frame = pd.DataFrame({"step": steps, "metric": "acc", "value": values})
        >>> round(fit_sigmoid(frame, "acc").midpoint, 3)
        7.0
    """
    return sigmoid_of(read_curve(frame, metric, noise_sd=se), level=level)


def sigmoid_of(curve: Curve, *, level: float) -> SigmoidFit:
    """`fit_sigmoid` of a curve already read."""
    n, x, y = len(curve.steps), np.log1p(curve.steps), curve.values
    nothing = SigmoidFit(*[np.nan] * 7, level=level, n=n)
    spread = float(np.ptp(y))
    if n < _MIN_POINTS or spread == 0:
        return nothing
    weights = _weights(curve)
    best = _best_fit(x, (y - y.min()) / spread, weights)
    if best is None:
        return nothing
    (low, rise, middle, log_scale), covariance, residuals = best
    half = student.ppf((1 + level) / 2, n - 4) * np.sqrt(covariance[2, 2])
    width = _RISE * np.exp(log_scale)
    at = int(np.clip(np.searchsorted(x, middle), 1, n - 1))
    lower, upper = middle - half, middle + half
    if width <= x[at] - x[at - 1]:  # flat on both sides: anywhere in the window fits as well
        lower, upper = x[at - 1], x[at]
    return SigmoidFit(
        low=float(y.min() + spread * low),
        high=float(y.min() + spread * (low + rise)),
        midpoint=float(np.expm1(middle)),
        midpoint_low=float(max(np.expm1(min(lower, 700.0)), 0.0)),
        midpoint_high=float(np.expm1(min(upper, 700.0))),
        width=float(width),
        residual_sd=float(spread * np.sqrt((residuals**2).sum() / (n - 4))),
        level=level,
        n=n,
    )


def _logistic(x: np.ndarray, low: float, rise: float, middle: float, log_scale: float):
    return low + rise / (1 + np.exp(np.clip(-(x - middle) / np.exp(log_scale), -700, 700)))


def _weights(curve: Curve) -> Float[np.ndarray, " step"] | None:
    if curve.noise_sd is None or not (curve.noise_sd > 0).any():
        return None
    positive = curve.noise_sd[curve.noise_sd > 0]
    return np.maximum(curve.noise_sd, positive.min()) / np.median(positive)


def _best_fit(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """From the best point of a grid; y from 0 to 1. None where a constant does as well."""
    span, scale = float(x[-1] - x[0]), np.ones_like(y) if weights is None else weights
    bounds = ([-1, -3, x[0], np.log(np.diff(x).min() / 10)], [2, 3, x[-1], np.log(2 * span)])
    start = np.clip(_grid_start(x, y, scale), np.add(bounds[0], 1e-6), np.add(bounds[1], -1e-6))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)
            fit, covariance = curve_fit(_logistic, x, y, start, sigma=weights, bounds=bounds)
    except RuntimeError:  # no convergence
        return None
    residuals = y - _logistic(x, *fit)
    constant = (y - np.average(y, weights=scale**-2)) / scale
    if ((residuals / scale) ** 2).sum() >= (constant**2).sum() * (1 - 1e-9):
        return None
    return fit, covariance, residuals


def _grid_start(x: np.ndarray, y: np.ndarray, scale: np.ndarray) -> list[float]:
    """Best of a grid of middles and widths, where low and rise are a straight line fit."""
    middles = np.concatenate([(x[1:] + x[:-1]) / 2, x[1:-1]])
    scales = np.log((x[-1] - x[0]) / np.array([100, 40, 20, 10, 5, 2.5]))
    grid = np.array([(middle, log_scale) for log_scale in scales for middle in middles])
    shapes = np.stack([_logistic(x, 0.0, 1.0, *point) for point in grid.tolist()])
    weight = scale**-2 / (scale**-2).sum()
    left = shapes - (shapes @ weight)[:, None]
    spread = (left**2) @ weight
    slopes = left @ (weight * y) / np.where(spread > 1e-12, spread, np.inf)
    best = int((slopes**2 * spread).argmax())
    low = float((weight * y).sum() - slopes[best] * (shapes[best] @ weight))
    return [low, float(slopes[best]), *grid[best].tolist()]
