"""The noise of a curve, estimated from how far each point lies off the line of its neighbours."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

_NORMAL_MEDIAN = 0.6744897501960817  # median of |z| of a standard normal


def local_noise_sd(
    values: Float[np.ndarray, "curve step"], positions: Float[np.ndarray, " step"]
) -> Float[np.ndarray, " curve"]:
    """Standard deviation of independent noise around a smooth curve.

    Each inner point is compared with the straight line between its two neighbours; the median of
    the absolute differences, each divided by its standard deviation under unit noise, estimates
    the noise. Straight drift drops out exactly, a jump touches two of the differences only.

    Args:
        values: curves, `curve step`, three steps or more.
        positions: where the steps lie on the axis, increasing.

    Returns:
        One standard deviation a curve. It has about n / 3 degrees of freedom, is too large on
        curves that bend within three points, and too small on noise that is correlated from step
        to step.

    Reference:
        Gasser, Sroka, Jennen-Steinmetz, "Residual variance and residual pattern in nonlinear
        regression", Biometrika 73 (1986), here with the median instead of the mean square.

    Example:
        >>> import numpy as np
        >>> from headspec.series.noise import local_noise_sd
        >>> float(local_noise_sd(np.array([[0.0, 1.0, 2.0, 3.0]]), np.arange(4.0))[0])
        0.0
    """
    left = np.diff(positions)[:-1] / (positions[2:] - positions[:-2])
    off = values[..., 1:-1] - ((1 - left) * values[..., :-2] + left * values[..., 2:])
    off = np.abs(off) / np.sqrt(1 + left**2 + (1 - left) ** 2)
    return np.median(off, axis=-1) / _NORMAL_MEDIAN
