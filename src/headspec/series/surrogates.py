"""Curves that change as one curve does, but not when it does: draws for a null distribution."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from headspec.errors import InputError, check_choice

Null = Literal["phase_randomised", "circular_shift", "permutation"]
_POWERS = (-1.5, 0.75)  # of the width, that the size of a change may follow


def surrogates(
    values: Float[np.ndarray, "*series interval"],
    *,
    null: Null = "phase_randomised",
    n_null: int = 2000,
    seed: int = 0,
) -> Float[np.ndarray, "*series draw interval"]:
    """Draws of one or several series that keep their autocorrelation and lose their place.

    Several series get the same random numbers, so that what they have in common stays (Prichard
    and Theiler 1994): a null that leaves correlated series correlated.

    * `"phase_randomised"`: the Fourier amplitudes stay, a random phase is added to each frequency
      (Theiler et al. 1992). Exact for stationary normal series that close on themselves.
    * `"circular_shift"`: the series moved along itself, the end joined to the beginning; all
      shifts, in order, the series itself first. Keeps the values; p is never below 1 / intervals.
    * `"permutation"`: the values in random order. Keeps no autocorrelation: for comparison only.

    Args:
        values: the series; its intervals count as neighbours whatever their width.
        null: which draws.
        n_null: how many; `"circular_shift"` gives one an interval.
        seed: of the draws.

    Returns:
        The draws, an axis before the last one.

    Raises:
        InputError: fewer than one draw.

    Example:
        >>> import numpy as np
        >>> from headspec.series.surrogates import surrogates
        >>> surrogates(np.array([3.0, 1.0, 2.0]), null="circular_shift").tolist()
        [[3.0, 1.0, 2.0], [2.0, 3.0, 1.0], [1.0, 2.0, 3.0]]
    """
    check_choice("null", null, get_args(Null))
    if n_null < 1:
        raise InputError(expected="n_null of 1 or more", got=f"{n_null}", fix="Use 2000.")
    n = values.shape[-1]
    if null == "circular_shift":
        places = (np.arange(n)[None] - np.arange(n)[:, None]) % n
        return values[..., places]
    rng = np.random.default_rng(seed)
    if null == "permutation":
        return values[..., rng.permuted(np.tile(np.arange(n), (n_null, 1)), axis=1)]
    phases = rng.uniform(0, 2 * np.pi, (n_null, n // 2 + 1))
    phases[:, 0] = 0.0
    if n % 2 == 0:  # the highest frequency of an even number has a sign only
        phases[:, -1] = np.pi * rng.integers(0, 2, n_null)
    spectrum = np.fft.rfft(values, axis=-1)[..., None, :] * np.exp(1j * phases)
    return np.fft.irfft(spectrum, n=n, axis=-1)


def width_scale(
    rates: Float[np.ndarray, "*series interval"], widths: Float[np.ndarray, " interval"]
) -> Float[np.ndarray, "*series interval"]:
    """How large changes typically are by the width of their interval: a fitted power of it.

    Two noisy curves on uneven steps both vary most where the steps lie closest (or widest), which
    looks like a link to a null that spreads variation evenly. Surrogates are drawn of
    rates / scale and multiplied by it. Least squares of log size on log width.
    """
    logs = np.log(widths) - np.log(widths).mean()
    if not (np.abs(logs) > 1e-9).any():
        return np.ones_like(rates)
    floor = 1e-2 * np.sqrt((rates**2).mean(axis=-1, keepdims=True))
    sizes = np.log(np.maximum(np.abs(rates) + floor, np.finfo(float).tiny))
    powers = np.clip(sizes @ logs / (logs @ logs), *_POWERS)
    return np.exp(powers[..., None] * logs)
