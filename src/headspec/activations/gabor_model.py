"""The two-dimensional Gabor function, its derivatives, and least-squares fits of one image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy.optimize import least_squares

N_PARAMETERS = 9
"""x0 y0 orientation width_across width_along frequency cosine sine offset."""

_STARTS = 3  # candidates that are refined
_WIDTHS = (0.5, 0.8, 1.3, 2.1, 3.4)  # of the candidates, in pixels
_N_ANGLES, _N_FREQUENCIES, _N_CENTRES = 8, 5, 3


@dataclass(frozen=True)
class Grid:
    """Pixels of one size: coordinates from the middle, and the bounds of the parameters."""

    x: Float[np.ndarray, " pixel"]
    y: Float[np.ndarray, " pixel"]
    low: Float[np.ndarray, " parameter"]
    high: Float[np.ndarray, " parameter"]


@lru_cache(maxsize=32)
def pixel_grid(height: int, width: int) -> Grid:
    """The grid of an image: the centre stays inside, widths are half a pixel to the longer side.

    The frequency lies between half a cycle over the longer side and .5 cycles a pixel.
    """
    y, x = np.mgrid[:height, :width].astype(float)
    side = max(height, width)
    reach_x, reach_y = (width - 1) / 2, (height - 1) / 2
    narrow, wide = np.log(0.5), np.log(side)
    ends = np.array(
        [
            (-reach_x, reach_x),
            (-reach_y, reach_y),
            (-np.inf, np.inf),
            (narrow, wide),
            (narrow, wide),
            (0.5 / side, 0.5),
            (-np.inf, np.inf),
            (-np.inf, np.inf),
            (-np.inf, np.inf),
        ]
    )
    return Grid((x - reach_x).ravel(), (y - reach_y).ravel(), ends[:, 0], ends[:, 1])


def gabor_values(parameters: np.ndarray, grid: Grid) -> Float[np.ndarray, " pixel"]:
    """E (a cos u + b sin u) + c, E = exp(-X^2 / 2 s^2 - Y^2 / 2 t^2), u = 2 pi f X.

    X runs across the stripes, Y along them: the coordinates from (x0, y0), turned by the
    orientation. Parameters are x0, y0, orientation, ln s, ln t, f, a, b, c.
    """
    return _parts(parameters, grid)[0] + parameters[8]


def gabor_gradients(parameters: np.ndarray, grid: Grid) -> Float[np.ndarray, "pixel parameter"]:
    """Derivatives of `gabor_values` by its parameters."""
    _, across, along, envelope, carrier, slope, cosine, sine = _parts(parameters, grid)
    _, _, angle, log_s, log_t, frequency, *_ = parameters
    s2, t2 = np.exp(2 * log_s), np.exp(2 * log_t)
    by_across = envelope * (2 * np.pi * frequency * slope - carrier * across / s2)
    by_along = -envelope * carrier * along / t2
    c, d = np.cos(angle), np.sin(angle)
    return np.stack(
        [
            -c * by_across + d * by_along,
            -d * by_across - c * by_along,
            along * by_across - across * by_along,
            envelope * carrier * across**2 / s2,
            envelope * carrier * along**2 / t2,
            envelope * slope * 2 * np.pi * across,
            envelope * cosine,
            envelope * sine,
            np.ones_like(across),
        ],
        axis=1,
    )


def _parts(parameters: np.ndarray, grid: Grid) -> tuple[np.ndarray, ...]:
    x0, y0, angle, log_s, log_t, frequency, a, b, _ = parameters
    dx, dy = grid.x - x0, grid.y - y0
    c, d = np.cos(angle), np.sin(angle)
    across, along = c * dx + d * dy, c * dy - d * dx
    envelope = np.exp(-0.5 * ((across * np.exp(-log_s)) ** 2 + (along * np.exp(-log_t)) ** 2))
    phase = 2 * np.pi * frequency * across
    cosine, sine = np.cos(phase), np.sin(phase)
    carrier, slope = a * cosine + b * sine, b * cosine - a * sine
    return envelope * carrier, across, along, envelope, carrier, slope, cosine, sine


def fit_image(image: Float[np.ndarray, "height width"]) -> tuple[np.ndarray, float]:
    """Parameters and R^2 of the best fit found.

    The candidates of a coarse grid and the peak of the Fourier spectrum are all solved for a, b
    and c; the best of different kinds are refined by `scipy.optimize.least_squares`.

    Returns:
        Parameters (of the image as it is) and 1 - residual / variance; nan of a constant image.
    """
    grid = pixel_grid(*image.shape)
    centred = image.ravel() - image.mean()
    scale = np.sqrt(np.mean(centred**2))
    if not scale > 1e-12 * np.abs(image).max():
        return np.full(N_PARAMETERS, np.nan), float("nan")
    target = centred / scale
    best, cost = None, np.inf
    for start in _starts(target, image.shape):
        found = least_squares(
            lambda p: gabor_values(p, grid) - target,
            start,
            jac=lambda p: gabor_gradients(p, grid),  # pyright: ignore[reportArgumentType]
            bounds=(grid.low, grid.high),
            xtol=1e-6,
            ftol=1e-6,
            gtol=1e-8,
            max_nfev=60,
        )
        if found.cost < cost:
            best, cost = found.x, found.cost
    assert best is not None  # there is always a start
    best[6:] *= scale
    best[8] += image.mean()
    return best, float(1 - 2 * cost / target.size)


def _starts(target: np.ndarray, shape: tuple[int, ...]) -> list[np.ndarray]:
    """The best candidates, each of another orientation or frequency than the ones before."""
    candidates, bases, columns = _candidates(*shape)
    share = np.square(np.einsum("cpk,p->ck", bases, target)).sum(1)
    chosen: list[int] = []
    for one in np.argsort(-share):
        kind = candidates[one, [2, 5]]
        if all(np.abs(kind - candidates[other, [2, 5]]).max() > 1e-9 for other in chosen):
            chosen.append(int(one))
        if len(chosen) == _STARTS:
            break
    starts = []
    for one in chosen:
        linear = np.linalg.lstsq(columns[one], target, rcond=None)[0]
        starts.append(np.concatenate([candidates[one], linear]))
    starts.append(_fourier_start(target, shape))
    grid = pixel_grid(*shape)
    inside = 1e-6 * np.where(np.isfinite(grid.high), grid.high - grid.low, 0)
    return [np.clip(start, grid.low + inside, grid.high - inside) for start in starts]


@lru_cache(maxsize=16)
def _candidates(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parameters before a, b, c; orthonormal bases and the columns they span (less a constant)."""
    grid, side = pixel_grid(height, width), max(height, width)
    centres = [np.linspace(low, high, _N_CENTRES + 2)[1:-1] for low, high in
               zip(grid.low[:2], grid.high[:2], strict=True)]  # fmt: skip
    angles = np.arange(_N_ANGLES) * np.pi / _N_ANGLES
    frequencies = np.linspace(0.5 / side, 0.5, _N_FREQUENCIES)
    widths = np.log([w for w in _WIDTHS if w <= side / 1.5])
    axes = np.meshgrid(*centres, angles, widths, widths, frequencies, indexing="ij")
    found = np.stack([axis.ravel() for axis in axes], axis=1)
    columns = np.empty((len(found), height * width, 3))
    for row, one in enumerate(found):
        columns[row] = gabor_gradients(np.array([*one, 1.0, 0.0, 0.0]), grid)[:, 6:]
    pairs = columns[..., :2] - columns[..., :2].mean(1, keepdims=True)
    left, values, _ = np.linalg.svd(pairs, full_matrices=False)
    bases = left * (values > 1e-3)[:, None]  # a cosine or sine that is flat on the pixels
    return found, bases, columns


def _fourier_start(target: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The strongest wave of the image under a wide envelope around its energy."""
    grid, side = pixel_grid(*shape), max(shape)
    size = 4 * side
    spectrum = np.abs(np.fft.fft2(target.reshape(shape), (size, size)))
    spectrum[0, 0] = 0
    row, column = np.unravel_index(np.argmax(spectrum), spectrum.shape)
    wave = np.fft.fftfreq(size)[[column, row]]
    energy = np.square(target) / np.square(target).sum()
    start = np.array(
        [energy @ grid.x, energy @ grid.y, np.arctan2(wave[1], wave[0]), 0, 0, 0, 1, 0, 0], float
    )
    start[3:5] = np.log(side / 3)
    start[5] = np.clip(np.hypot(*wave), 0.5 / side, 0.5)
    columns = gabor_gradients(start, grid)[:, 6:]
    start[6:] = np.linalg.lstsq(columns, target, rcond=None)[0]
    return start
