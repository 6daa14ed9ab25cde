"""Is one step of a curve a sustained jump, beyond drift and noise? The test and its null.

The curve is compared with smooth drift, y = a + b log(1 + step) + c step + noise. What drift
leaves over is explained by a jump between two neighbouring steps (at least two points on either
side), and by ramps that spread over three intervals or more. The statistic is the share of the
left-over sum of squares that the best jump explains, or 0 when some ramp explains as much. It
does not change when the curve is shifted, scaled or tilted, so its distribution on noise depends
on the steps alone, and is simulated once for them, for normal, heavy-tailed (Student t, 3
degrees of freedom) and skewed (exponential) noise. p is the largest of the three.

Reference: Andrews, "Tests for parameter instability and structural change with unknown change
point", Econometrica 61 (1993), for the supremum over change points.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float

from headspec.series.curve import Axis, Curve

Drift = Literal["both", "axis"]
MIN_POINTS = 6
_MIN_SIDE = 2  # points on either side of a jump: one point alone is an outlier, not a level
_MIN_RAMP = 3  # intervals: a change spread over so many or more is not sudden


@dataclass(frozen=True)
class StepTest:
    """The best sustained jump of a curve.

    Attributes:
        p_jump: chance of a jump this clear, better than every ramp, from drift and noise.
        p_change: chance of so clear a trend, jump or ramp from noise alone.
        before: index of the last point before the jump.
        size: fitted height of the jump, in the unit of the metric.
        share: height over the range of the fitted drift and jump, 0 to 1.
        noise_sd: standard deviation left by the better of jump and ramp; the known one if known.
        drift: the fitted drift, `step`.
    """

    p_jump: float
    p_change: float
    before: int
    size: float
    share: float
    noise_sd: float
    drift: Float[np.ndarray, " step"]


@dataclass(frozen=True)
class _Design:
    """Unit vectors to project a (whitened) curve on."""

    drift: np.ndarray  # point, rank
    constant: np.ndarray  # point, 1
    jumps: np.ndarray  # point, jump: what drift leaves of each jump, unit length
    jump_norms: np.ndarray
    ramps: np.ndarray  # point, ramp
    changes: np.ndarray  # point, shape: trends, jumps and ramps less their mean


def run_step_test(
    curve: Curve,
    *,
    axis: Axis,
    drift: Drift,
    n_null: int,
    seed: int,
    floor: float,
) -> StepTest:
    """Fit jumps and ramps to a curve of `MIN_POINTS` points or more.

    Args:
        curve: the curve; with `noise_sd` the statistic is the fit gained over known noise.
        axis: along which ramps are straight.
        drift: `"both"` allows drift along step and log step at once, `"axis"` only along `axis`.
        n_null: simulated noise curves for each of the three kinds of noise.
        seed: of the simulation.
        floor: differences below this are rounding; a curve that drift fits so well has no jump.
    """
    sds = None if curve.noise_sd is None else tuple(curve.noise_sd.tolist())
    key = (tuple(curve.steps.tolist()), axis, drift, sds)
    design = _design(*key)
    scale = np.ones(len(curve.steps)) if curve.noise_sd is None else curve.noise_sd
    y = (curve.values - curve.values.mean()) / scale
    left = _residual(design.drift, y[:, None])
    known = sds is not None
    null_jump, null_change = _null(*key, n_null, seed)
    flat = np.sqrt((left**2).mean()) <= np.max(floor / scale)
    jump = 0.0 if flat else float(_jump_statistic(design, left, known)[0])
    change = float(_change_statistic(design, y[:, None], known)[0])

    coefficients = design.jumps.T @ left[:, 0]
    best = int(np.abs(coefficients).argmax())
    size = float(coefficients[best] / design.jump_norms[best])
    fitted = (y - left[:, 0] + design.jumps[:, best] * coefficients[best]) * scale
    fitted += curve.values.mean()
    gained = max(coefficients[best] ** 2, float(((design.ramps.T @ left) ** 2).max()))
    freedom = max(len(y) - design.drift.shape[1] - 1, 1)
    noise = np.sqrt(max(float((left**2).sum()) - gained, 0.0) / freedom)
    return StepTest(
        p_jump=_p(jump, null_jump),
        p_change=_p(change, null_change),
        before=best + _MIN_SIDE - 1,
        size=size,
        share=float(min(abs(size) / max(np.ptp(fitted), np.finfo(float).tiny), 1.0)),
        noise_sd=float(noise if not known else np.sqrt(np.mean(scale**2))),
        drift=(y - left[:, 0]) * scale + curve.values.mean(),
    )


def _p(statistic: float, null: Float[np.ndarray, "noise draw"]) -> float:
    reached = (null >= statistic * (1 - 1e-9)).sum(axis=1)
    return float((1 + reached.max()) / (1 + null.shape[1]))


def _residual(basis: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return columns - basis @ (basis.T @ columns)


def _jump_statistic(design: _Design, left: np.ndarray, known: bool) -> np.ndarray:
    jump = ((design.jumps.T @ left) ** 2).max(axis=0)
    ramp = ((design.ramps.T @ left) ** 2).max(axis=0)
    total = np.maximum((left**2).sum(axis=0), np.finfo(float).tiny)
    sudden = jump > ramp + 1e-12 * total
    return np.where(sudden, jump if known else jump / total, 0.0)


def _change_statistic(design: _Design, y: np.ndarray, known: bool) -> np.ndarray:
    left = _residual(design.constant, y)
    best = ((design.changes.T @ left) ** 2).max(axis=0)
    return best if known else best / np.maximum((left**2).sum(axis=0), np.finfo(float).tiny)


def _basis(columns: list[np.ndarray], scale: np.ndarray) -> np.ndarray:
    """Orthonormal basis of the columns over `scale`; collinear columns count once."""
    standard = [(c - c.mean()) / c.std() if c.std() > 0 else c for c in columns]
    left, values, _ = np.linalg.svd(
        np.stack(standard, axis=1) / scale[:, None], full_matrices=False
    )
    return left[:, : int((values > 1e-8 * values[0]).sum())]


def _unit_beyond(basis: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the basis leaves of each column at unit length, and its length; nothing: 0, inf."""
    left = _residual(basis, columns)
    norms = np.linalg.norm(left, axis=0)
    norms = np.where(norms > 1e-7 * np.linalg.norm(columns, axis=0), norms, np.inf)
    return left / norms, norms


@lru_cache(maxsize=256)
def _design(
    steps: tuple[int, ...], axis: Axis, drift: Drift, sds: tuple[float, ...] | None
) -> _Design:
    at = np.array(steps, dtype=float)
    scale = np.ones(len(at)) if sds is None else np.array(sds)
    along, other = (np.log1p(at), at) if axis == "log_step" else (at, np.log1p(at))
    ones, n = np.ones(len(at)), len(at)
    jumps = [(np.arange(n) >= k).astype(float) for k in range(_MIN_SIDE, n - _MIN_SIDE + 1)]
    ramps = [
        np.clip((along - along[i]) / (along[j] - along[i]), 0, 1)
        for i in range(n)
        for j in range(i + _MIN_RAMP, n)
    ]
    trends = [along, other] if drift == "both" else [along]
    basis, constant = _basis([ones, *trends], scale), _basis([ones], scale)
    whitened = [np.stack(shapes, axis=1) / scale[:, None] for shapes in (jumps, ramps)]
    unit_jumps, jump_norms = _unit_beyond(basis, whitened[0])
    changes = np.concatenate([np.stack(trends, axis=1) / scale[:, None], *whitened], axis=1)
    return _Design(
        drift=basis,
        constant=constant,
        jumps=unit_jumps,
        jump_norms=jump_norms,
        ramps=_unit_beyond(basis, whitened[1])[0],
        changes=_unit_beyond(constant, changes)[0],
    )


@lru_cache(maxsize=256)
def _null(
    steps: tuple[int, ...],
    axis: Axis,
    drift: Drift,
    sds: tuple[float, ...] | None,
    n_null: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Both statistics on noise alone, `noise draw`; known noise is taken to be normal."""
    design, shape = _design(steps, axis, drift, sds), (len(steps), n_null)
    rng = np.random.default_rng(seed)
    draws = [rng.standard_normal(shape)]
    if sds is None:
        draws += [rng.standard_t(3, size=shape), rng.exponential(size=shape)]
    known = sds is not None
    jump = [_jump_statistic(design, _residual(design.drift, d), known) for d in draws]
    change = [_change_statistic(design, d, known) for d in draws]
    return np.stack(jump), np.stack(change)
