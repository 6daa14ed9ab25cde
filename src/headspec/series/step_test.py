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
from jaxtyping import Float, Int

from headspec.series.curve import Axis

Drift = Literal["both", "axis"]
MIN_POINTS = 6
_MIN_SIDE = 2  # points on either side of a jump: one point alone is an outlier, not a level
_TINY = float(np.finfo(float).tiny)
_MIN_RAMP = 3  # intervals: a change spread over so many or more is not sudden


@dataclass(frozen=True)
class StepTests:
    """The best sustained jump of each of several curves over the same steps.

    Attributes:
        p_jump: chance of a jump this clear, better than every ramp, from drift and noise, `curve`.
        p_change: chance of so clear a trend, jump or ramp from noise alone, `curve`.
        before: index of the last point before the jump, `curve`.
        size: fitted height of the jump, in the unit of the metric, `curve`.
        share: height over the range of the fitted drift and jump, 0 to 1, `curve`.
        noise_sd: standard deviation left by the better of jump and ramp; the root mean square of
            the known ones if known, `curve`.
        drift: the fitted drift, `curve step`.
    """

    p_jump: Float[np.ndarray, " curve"]
    p_change: Float[np.ndarray, " curve"]
    before: Int[np.ndarray, " curve"]
    size: Float[np.ndarray, " curve"]
    share: Float[np.ndarray, " curve"]
    noise_sd: Float[np.ndarray, " curve"]
    drift: Float[np.ndarray, "curve step"]


@dataclass(frozen=True)
class _Design:
    """Unit vectors to project a (whitened) curve on."""

    drift: np.ndarray  # point, rank
    constant: np.ndarray  # point, 1
    jumps: np.ndarray  # point, jump: what drift leaves of each jump, unit length
    jump_norms: np.ndarray
    ramps: np.ndarray  # point, ramp
    changes: np.ndarray  # point, shape: trends, jumps and ramps less their mean


def run_step_tests(
    values: Float[np.ndarray, "curve step"],
    steps: Int[np.ndarray, " step"],
    *,
    noise_sd: Float[np.ndarray, " step"] | None,
    axis: Axis,
    drift: Drift,
    n_null: int,
    seed: int,
    floor: float,
) -> StepTests:
    """Fit jumps and ramps to curves of `MIN_POINTS` points or more.

    Args:
        values: the curves, `curve step`.
        steps: increasing.
        noise_sd: known noise of each point, above zero; then the statistic is the fit gained in
            units of that noise, which is taken to be normal.
        axis: along which ramps are straight.
        drift: `"both"` allows drift along step and log step at once, `"axis"` only along `axis`.
        n_null: simulated noise curves for each of the three kinds of noise.
        seed: of the simulation.
        floor: differences below this are rounding; a curve that drift fits so well has no jump.
    """
    known = noise_sd is not None
    scale = np.ones(len(steps)) if noise_sd is None else noise_sd
    key = (tuple(steps.tolist()), axis, drift, tuple(scale.tolist()) if known else None)
    design, (null_jump, null_change) = _design(*key), _null(*key, n_null, seed)
    mean = values.mean(axis=1)
    y = (values - mean[:, None]).T / scale[:, None]
    left = _residual(design.drift, y)
    flat = np.sqrt((left**2).mean(axis=0)) <= np.max(floor / scale)
    jump = np.where(flat, 0.0, _jump_statistic(design, left, known))

    fits = design.jumps.T @ left
    best, each = np.abs(fits).argmax(axis=0), np.arange(len(values))
    fit = fits[best, each]
    size = fit / design.jump_norms[best]
    fitted = (y - left + design.jumps[:, best] * fit) * scale[:, None]
    gained = np.maximum(fit**2, ((design.ramps.T @ left) ** 2).max(axis=0))
    freedom = max(len(steps) - design.drift.shape[1] - 1, 1)
    noise = np.sqrt(np.maximum((left**2).sum(axis=0) - gained, 0.0) / freedom)
    return StepTests(
        p_jump=_p(jump, null_jump),
        p_change=_p(_change_statistic(design, y, known), null_change),
        before=best + _MIN_SIDE - 1,
        size=size,
        share=np.minimum(np.abs(size) / np.maximum(np.ptp(fitted, axis=0), _TINY), 1.0),
        noise_sd=np.full(len(values), np.sqrt(np.mean(scale**2))) if known else noise,
        drift=((y - left) * scale[:, None]).T + mean[:, None],
    )


def _p(
    statistic: Float[np.ndarray, " curve"], null: Float[np.ndarray, "noise draw"]
) -> Float[np.ndarray, " curve"]:
    """Share of noise that reaches the statistic, for the noise that does so most often."""
    below = [np.searchsorted(draws, statistic * (1 - 1e-9)) for draws in null]
    return (1 + null.shape[1] - np.min(below, axis=0)) / (1 + null.shape[1])


def _residual(basis: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return columns - basis @ (basis.T @ columns)


def _jump_statistic(design: _Design, left: np.ndarray, known: bool) -> np.ndarray:
    jump = ((design.jumps.T @ left) ** 2).max(axis=0)
    ramp = ((design.ramps.T @ left) ** 2).max(axis=0)
    total = np.maximum((left**2).sum(axis=0), _TINY)
    sudden = jump > ramp + 1e-12 * total
    return np.where(sudden, jump if known else jump / total, 0.0)


def _change_statistic(design: _Design, y: np.ndarray, known: bool) -> np.ndarray:
    left = _residual(design.constant, y)
    best = ((design.changes.T @ left) ** 2).max(axis=0)
    return best if known else best / np.maximum((left**2).sum(axis=0), _TINY)


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


def _ramp_widths(n: int) -> list[int]:
    """Every width up to 12 intervals, then steps of a quarter, so that long curves stay cheap."""
    widths, wide = [*range(_MIN_RAMP, min(13, n))], 12 * 1.25
    while wide < n - 1:
        widths.append(round(wide))
        wide *= 1.25
    return sorted({*widths, n - 1})


@lru_cache(maxsize=64)
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
        for width in _ramp_widths(n)
        for i, j in zip(range(n - width), range(width, n), strict=True)
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


@lru_cache(maxsize=64)
def _null(
    steps: tuple[int, ...],
    axis: Axis,
    drift: Drift,
    sds: tuple[float, ...] | None,
    n_null: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Both statistics on noise alone, sorted, `noise draw`; known noise is taken to be normal."""
    design, shape = _design(steps, axis, drift, sds), (len(steps), n_null)
    rng = np.random.default_rng(seed)
    draws = [rng.standard_normal(shape)]
    if sds is None:
        draws += [rng.standard_t(3, size=shape), rng.exponential(size=shape)]
    known = sds is not None
    jump = [_jump_statistic(design, _residual(design.drift, d), known) for d in draws]
    change = [_change_statistic(design, d, known) for d in draws]
    return np.sort(jump, axis=1), np.sort(change, axis=1)
