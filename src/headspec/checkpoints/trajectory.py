"""Whether checkpoints lie on one path through weight space, in the order of their steps."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.distance import pdist, squareform
from torch import Tensor

SAMPLE = 20_000
"""Entries of a checkpoint that stand for all of them; relative distances come out to about 1 %."""

_NOISE = 0.02  # of the largest distance; what a sample of entries cannot tell
_USUAL_DETOUR = float(np.sqrt(2.0))  # of a random walk with equal steps
_SMALLEST_EXCESS = float(np.log(1.6))


class Sampler:
    """Takes the same entries of every checkpoint's tensors.

    Each tensor gives entries in proportion to its size, at least 16, at positions that depend on
    its name and size only.

    Args:
        shapes: name -> shape of the tensors of one checkpoint.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        sizes = {name: int(np.prod(shape, dtype=np.int64)) for name, shape in shapes.items()}
        share = SAMPLE / max(1, sum(sizes.values()))
        self._quota = {n: min(size, max(16, round(size * share))) for n, size in sizes.items()}

    def take(self, name: str, tensor: Tensor) -> Float[np.ndarray, " n"]:
        """Entries of one tensor, float32."""
        quota = min(self._quota.get(name, 0), tensor.numel())
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        where = torch.randint(max(1, tensor.numel()), (quota,), generator=generator)
        return tensor.flatten()[where].float().numpy()


def path_distances(samples: Sequence[Float[np.ndarray, " n"]]) -> Float[np.ndarray, "step step"]:
    """Euclidean distances between checkpoints, relative to the root mean square of their norms."""
    stacked = np.stack(samples).astype(np.float64)
    scale = float(np.sqrt(np.mean(np.sum(stacked**2, axis=1))))
    return squareform(pdist(stacked)) / (scale or 1.0)


def detours(distances: Float[np.ndarray, "step step"]) -> Float[np.ndarray, " step"]:
    """How far out of the way each checkpoint lies between its neighbours.

    (d(before, it) + d(it, after)) / d(before, after): 1 on a straight line, sqrt(2) on a random
    walk, 2 for unrelated points, whatever the spacing of the steps; large where a checkpoint
    belongs elsewhere. NaN for the first and last.
    """
    n = len(distances)
    values = np.full(n, np.nan)
    inner = np.arange(1, n - 1)
    there = distances[inner - 1, inner] + distances[inner, inner + 1]
    direct = distances[inner - 1, inner + 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        values[inner] = there / direct
    return values


def orderliness(distances: Float[np.ndarray, "step step"]) -> Float[np.ndarray, " step"]:
    """Whether checkpoints further away in training are further away in weight space.

    Kendall's rank correlation between the two, over pairs on the same side of a checkpoint
    (differences under 2 % of the largest distance count as none): 1 where distance grows with
    every step in either direction, negative for a checkpoint that holds the weights of another
    time of training, also at the ends and in whole runs of such checkpoints, which `detours`
    does not see.
    """
    values = np.full(len(distances), np.nan)
    least = _NOISE * float(distances.max(initial=0.0))
    for i, row in enumerate(distances):
        signs = []
        for side in (row[:i][::-1], row[i + 1 :]):  # nearest in training first
            nearer, further = np.triu_indices(len(side), 1)
            growth = side[further] - side[nearer]
            signs.append(np.sign(growth) * (np.abs(growth) > least))
        agreement = np.concatenate(signs)
        if len(agreement):
            values[i] = agreement.mean()
    return values


def find_misplaced(distances: Float[np.ndarray, "step step"]) -> list[int]:
    """Positions of checkpoints that do not fit between their neighbours.

    One by one the worst is taken out until the rest lies in line: first those whose distances run
    against the order of steps (of five checkpoints or more), then those whose detour exceeds the
    usual one of this run by a factor (1.6 at least, and six scaled median absolute deviations).

    Where two checkpoints contradict each other one is named, as moving either mends the path: of
    two exchanged neighbours, or of a copy two steps from its original and the step between them.
    Fewer than three checkpoints cannot be judged, and fewer than five hardly.
    """
    kept, misplaced = list(range(len(distances))), []
    while len(kept) > 2:
        part = distances[np.ix_(kept, kept)]
        order, excess = np.nan_to_num(orderliness(part), nan=1.0), _excess(detours(part))
        if len(kept) >= 5 and order.min() < 0.0:
            worst = int(np.argmin(order))
        elif excess.max() > 0.0:
            worst = int(np.argmax(excess))
        else:
            break
        misplaced.append(kept.pop(worst))
    return sorted(misplaced)


def _excess(values: Float[np.ndarray, " step"]) -> Float[np.ndarray, " step"]:
    """By how much log detours exceed what is usual in this run; not positive where they do not."""
    with np.errstate(divide="ignore"):
        logs = np.log(values)
    known = logs[np.isfinite(logs)]
    usual = float(np.median(known)) if len(known) >= 5 else np.log(_USUAL_DETOUR)
    spread = 1.4826 * float(np.median(np.abs(known - usual))) if len(known) >= 5 else 0.0
    return np.nan_to_num(logs - usual - max(_SMALLEST_EXCESS, 6.0 * spread), nan=-1.0, posinf=1e3)
