"""Rules for jumps that others use: the study's, ndtracker's and changepoints.

Each takes curves over the same steps and gives, for each curve, the jumps it finds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headspec.series.changepoints import changepoints

STUDY_Z = 2.0
_FLAT = 1e-10  # of ndtracker: a window with a smaller standard deviation says nothing


class Found(NamedTuple):
    """One jump of one curve.

    Attributes:
        before, after: indices of the last measurement before the jump and the first after it.
        change: signed.
        score: in units of the rule, positive.
        p: chance of it on a curve without jumps, NaN where the rule has none.
    """

    before: int
    after: int
    change: float
    score: float
    p: float = float("nan")


def study_jumps(values: Float[np.ndarray, "curve step"]) -> list[list[Found]]:
    """The study's rule: differences more than two standard deviations from their mean.

    z = (d - mean(d)) / sd(d) over all first differences d of the curve, sd with divisor n; a jump
    where |z| > 2. On normal noise that is 4.6 % of all points, whatever the curve does.

    Args:
        values: `curve step`.
    """
    differences = np.diff(values, axis=1)
    centred = differences - differences.mean(axis=1, keepdims=True)
    spread = differences.std(axis=1, keepdims=True)
    z = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)
    found: list[list[Found]] = [[] for _ in values]
    for curve, at in np.argwhere(np.abs(z) > STUDY_Z).tolist():
        change, score = float(differences[curve, at]), float(abs(z[curve, at]))
        found[curve].append(Found(at, at + 1, change, score))
    return found


def trailing_window_jumps(
    values: Float[np.ndarray, "curve step"],
    *,
    window: int = 50,
    z: float | int = 3.0,
    min_points: int = 20,
) -> list[list[Found]]:
    """ndtracker's rule: a value more than three standard deviations from those before it.

    z = |x_t - mean| / sd over the `window` points before t (divisor n; as many as there are, from
    `min_points` on; windows with sd below 1e-10 say nothing), exactly as
    `ndt.core.jump_detector.JumpDetector` of ndtracker 2.0.0. Every value beyond the threshold is
    a jump of its own, so a change of level is called until the window has caught up, and steady
    drift is called too.

    Args:
        values: `curve step`.
        window, z, min_points: as in ndtracker.
    """
    found: list[list[Found]] = [[] for _ in values]
    for at in range(min_points, values.shape[1]):
        past = values[:, max(0, at - window) : at]
        spread = past.std(axis=1)
        off = np.abs(values[:, at] - past.mean(axis=1))
        score = np.divide(off, spread, out=np.zeros_like(off), where=spread >= _FLAT)
        for curve in np.flatnonzero(score > z).tolist():
            change = float(values[curve, at] - values[curve, at - 1])
            found[curve].append(Found(at - 1, at, change, float(score[curve])))
    return found


def changepoint_jumps(
    values: Float[np.ndarray, "curve step"], steps: Int[np.ndarray, " step"]
) -> list[list[Found]]:
    """Cuts between constant levels by PELT, see `headspec.changepoints` (`ruptures`).

    The penalty is 14.5 times the noise variance, which is estimated from how far points lie off
    the line of their neighbours. Drift is cut to stairs and correlated noise to levels.

    Args:
        values: `curve step`.
        steps: of the measurements.
    """
    found: list[list[Found]] = []
    for row in values:
        frame = pd.DataFrame({"step": steps, "metric": "m", "value": row})
        cuts = changepoints(frame, "m", axis="step", dtype="float64")
        after = np.searchsorted(steps, cuts.steps_after).tolist()
        sizes = cuts.sizes.tolist()
        found.append(
            [
                Found(at - 1, at, size, abs(size) / cuts.noise_sd)
                for at, size in zip(after, sizes, strict=True)
            ]
        )
    return found
