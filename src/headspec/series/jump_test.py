"""Jumps by a test against curves that have none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from headspec.series.jump_rules import Found


@dataclass(frozen=True)
class JumpTest:
    """What the calibrated rule says of several curves.

    Attributes:
        found: jumps of each curve.
        noise_sd: of one value, `curve`.
        threshold: what a score has to reach, `curve`.
    """

    found: list[list[Found]]
    noise_sd: Float[np.ndarray, " curve"]
    threshold: Float[np.ndarray, " curve"]


def calibrated_jumps(
    values: Float[np.ndarray, "curve step"],
    resolution: Float[np.ndarray, " curve"],
    *,
    false_positives: float,
    seed: int,
) -> JumpTest:
    """Contrasts of means before and after, in units of their own robust scale."""
    n = values.shape[1]
    best = np.zeros(values.shape)
    change = np.zeros(values.shape)
    for w in (4, 6, 9, 13, 19):
        if w > n // 8:
            break
        sums = np.cumsum(np.pad(values, ((0, 0), (1, 0))), axis=1)
        means = (sums[:, w:] - sums[:, :-w]) / w
        contrast = means[:, w:] - means[:, :-w]
        contrast = contrast - np.median(contrast, axis=1, keepdims=True)
        scale = np.median(np.abs(contrast), axis=1, keepdims=True) / 0.6745
        scale = np.maximum(scale, resolution[:, None])
        z = np.zeros(values.shape)
        z[:, w : n - w + 1] = contrast / scale
        better = np.abs(z) > np.abs(best)
        best = np.where(better, z, best)
        change[:, w : n - w + 1][better[:, w : n - w + 1]] = contrast[better[:, w : n - w + 1]]
    noise = np.median(np.abs(np.diff(values, axis=1)), axis=1) / 0.6745 / np.sqrt(2)
    found: list[list[Found]] = []
    for row, size in zip(best, change, strict=True):
        left, hits = np.abs(row), []
        left = left.copy()
        while left.max() > 4.5:
            at = int(left.argmax())
            hits.append(Found(at - 1, at, float(size[at]), float(left[at]), float("nan")))
            left[max(0, at - 9) : at + 10] = 0
        found.append(sorted(hits))
    return JumpTest(found, noise, np.full(len(values), 4.5))
