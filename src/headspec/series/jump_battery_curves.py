"""Made-up curves to try a rule for jumps on: without jumps, and with jumps at known points.

Each takes a generator, a number of curves and a number of points, and gives curves `curve point`
whose noise has standard deviation 1 (its innovations, where it is correlated; at its largest,
where its size changes).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.signal import lfilter

Curves = Float[np.ndarray, "curve point"]
Draw = Callable[[np.random.Generator, int, int], Curves]
_SETTLE = 200  # points that an autoregression is given to forget its start


def _white(rng: np.random.Generator, n_curves: int, n_points: int) -> Curves:
    return rng.standard_normal((n_curves, n_points))


def _student(rng: np.random.Generator, n_curves: int, n_points: int) -> Curves:
    return rng.standard_t(3, (n_curves, n_points)) / np.sqrt(3)


def _autoregression(correlation: float) -> Draw:
    def draw(rng: np.random.Generator, n_curves: int, n_points: int) -> Curves:
        noise = _white(rng, n_curves, n_points + _SETTLE)
        return np.asarray(lfilter([1.0], [1.0, -correlation], noise, axis=1))[:, _SETTLE:]

    return draw


def _walk(steps: Draw) -> Draw:
    return lambda rng, n_curves, n_points: np.cumsum(steps(rng, n_curves, n_points), axis=1)


def _noisy_walk(rng: np.random.Generator, n_curves: int, n_points: int) -> Curves:
    return _white(rng, n_curves, n_points) + 0.3 * _walk(_white)(rng, n_curves, n_points)


def _outliers(rng: np.random.Generator, n_curves: int, n_points: int) -> Curves:
    """One point in fifty is off by ten standard deviations, either way."""
    noise = _white(rng, n_curves, n_points)
    off = rng.random(noise.shape) < 0.02
    return noise + 10 * off * rng.choice([-1.0, 1.0], noise.shape)


def _drift(shape: Callable[[np.ndarray], np.ndarray], noise: Draw = _white) -> Draw:
    """A curve of the phase (0 to 1) plus noise."""

    def draw(rng: np.random.Generator, n_curves: int, n_points: int) -> Curves:
        return noise(rng, n_curves, n_points) + shape(np.linspace(0, 1, n_points))

    return draw


def _changing(size: Callable[[np.ndarray], np.ndarray]) -> Draw:
    """Normal noise whose standard deviation depends on the phase."""
    return lambda rng, n_curves, n_points: (
        _white(rng, n_curves, n_points) * size(np.linspace(0, 1, n_points))
    )


def _tenfold(phase: np.ndarray) -> np.ndarray:
    return 10.0**-phase


def _early(phase: np.ndarray) -> np.ndarray:
    return 0.1 + 0.9 * np.exp(-8 * phase)


def _sigmoid(width: float) -> Callable[[np.ndarray], np.ndarray]:
    """From 0 to 30 around the middle, 10 % to 90 % in `width` of the training."""
    return lambda phase: 30 / (1 + np.exp(-2 * np.log(9) * (phase - 0.5) / width))


NULL_CURVES: dict[str, Draw] = {
    "white noise": _white,
    "AR(1), -.4": _autoregression(-0.4),
    "AR(1), .3": _autoregression(0.3),
    "AR(1), .6": _autoregression(0.6),
    "AR(1), .9": _autoregression(0.9),
    "random walk": _walk(_white),
    "random walk under noise": _noisy_walk,
    "smooth walk, .5": _walk(_autoregression(0.5)),
    "smooth walk, .8": _walk(_autoregression(0.8)),
    "Student t noise, 3 df": _student,
    "outliers of 10 sd": _outliers,
    "straight drift, 33 sd": _drift(lambda phase: 33 * phase),
    "exponential drift, 10 sd": _drift(lambda phase: 10 * np.exp(-10 * phase)),
    "exponential drift, 100 sd": _drift(lambda phase: 100 * np.exp(-10 * phase)),
    "fast exponential, 100 sd": _drift(lambda phase: 100 * np.exp(-40 * phase)),
    "slow exponential, 100 sd": _drift(lambda phase: 100 * np.exp(-4 * phase)),
    "exponential on a walk": _drift(lambda phase: 100 * np.exp(-10 * phase), _walk(_white)),
    "sine, 2 periods, 30 sd": _drift(lambda phase: 30 * np.sin(4 * np.pi * phase)),
    "noise falling tenfold": _changing(_tenfold),
    "noise falling early": _changing(_early),
    "both falling early": _drift(lambda phase: 30 * np.exp(-10 * phase), _changing(_early)),
}
"""Curves without jumps on which the calibrated rule keeps its rate."""

HARD_CURVES: dict[str, Draw] = {
    "S-curve over a quarter": _drift(_sigmoid(0.25)),
    "S-curve over a tenth": _drift(_sigmoid(0.1)),
    "walk with Student t steps": _walk(_student),
}
"""Curves on which it is a matter of words whether they jump; nothing is promised."""


def _planted(at: tuple[float, ...], noise: Draw) -> Callable[..., tuple[Curves, list[int]]]:
    def draw(
        rng: np.random.Generator, n_curves: int, n_points: int, size: float
    ) -> tuple[Curves, list[int]]:
        curves = noise(rng, n_curves, n_points)
        points = [round(share * n_points) for share in at]
        for point in points:
            curves[:, point:] += size * rng.choice([-1.0, 1.0], (n_curves, 1))
        return curves, points

    return draw


PLANTED_CURVES: dict[str, Callable[..., tuple[Curves, list[int]]]] = {
    "one jump": _planted((0.5,), _white),
    "one early jump": _planted((0.15,), _white),
    "three jumps": _planted((0.25, 0.55, 0.75), _white),
    "three jumps, Student t noise": _planted((0.25, 0.55, 0.75), _student),
    "three jumps on straight drift": _planted((0.25, 0.55, 0.75), _drift(lambda phase: 10 * phase)),
    "three jumps on exponential drift": _planted(
        (0.25, 0.55, 0.75), _drift(lambda phase: 100 * np.exp(-10 * phase))
    ),
    "three jumps, AR(1) .6": _planted((0.25, 0.55, 0.75), _autoregression(0.6)),
}
"""Curves with jumps up or down at known points; noise as above."""
