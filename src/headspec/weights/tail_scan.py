"""The power-law tail of smallest KS distance, exactly, over all possible tails of many samples.

For a tail of m values from the value with rank i on, in logarithms L:

    b_i = m / sum_j (L_j - L_i)          (alpha - 1, maximum likelihood)
    D_i = max_j |1 - exp(-b_i (L_j - L_i)) - (first_j - i) / m|

where first_j is the rank of the first value equal to x_j, so that the step of the empirical
distribution is its left limit: the convention of Clauset's own code and of `powerlaw`. All pairs
(i, j) cost n^2 / 2 exponentials. The scan needs about a sixth of them and finds the same minimum:
each D_i is bounded from below by its value at a few j. The tails of lowest bound are computed in
full, and the places j of their largest differences raise the bounds of all others, until no bound
is below the smallest D found.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_RATIO = 1.5  # the first places j are at 1, 1.5, 2.25 ... values from the top
_AT_ONCE = 8  # tails computed in full in a round, for each sample
_AT_ONCE_ALONE = 16  # and for one sample alone: fewer rounds
_CHUNK = 2**15  # values in a chunk of samples: working arrays stay in the cache


@dataclass(frozen=True)
class Tails:
    """The chosen tail of each sample: rank of its first value (-1: none), alpha - 1 and D."""

    start: Int[Tensor, " row"]
    slope: Float[Tensor, " row"]
    distance: Float[Tensor, " row"]


def scan_tails(
    logs: Float[Tensor, "row n"], dropped: Int[Tensor, " row"], *, min_tail: int
) -> Tails:
    """The tail of smallest KS distance of every sample, over all values as the lower end.

    Args:
        logs: logarithms, ascending along the last axis, float64. The first `dropped` of a row
            are not part of its sample (any finite numbers not above the rest).
        dropped: how many of each row are left out.
        min_tail: values a tail must have; it must also hold two different ones.

    Returns:
        `Tails`. Of tails with the same distance the longest. A sample without a possible tail has
        start -1 and nan.
    """
    rows = max(1, _CHUNK // logs.shape[1])
    starts = range(0, len(logs), rows)
    parts = [_scan(logs[at : at + rows], dropped[at : at + rows], min_tail) for at in starts]
    if len(parts) == 1:
        return parts[0]
    names = ("start", "slope", "distance")
    return Tails(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def _scan(logs: Tensor, dropped: Tensor, min_tail: int) -> Tails:
    n_rows, n = logs.shape
    device, kind = logs.device, logs.dtype
    found = Tails(
        torch.full((n_rows,), -1, device=device),
        torch.full((n_rows,), torch.nan, dtype=kind, device=device),
        torch.full((n_rows,), torch.inf, dtype=kind, device=device),
    )
    samples = _samples(logs - logs[:, -1:], dropped, min_tail)  # precise where the tail is
    rows = torch.arange(n_rows, device=device)
    bounds = torch.where(samples.slope > 0, 0.0, torch.inf)
    places = _first_places(n, device).expand(n_rows, -1)
    at_once = min(n, max(_AT_ONCE, _AT_ONCE_ALONE // n_rows))
    while True:
        fresh = _distances(samples, None, places).amax(2)
        torch.maximum(bounds, fresh, out=bounds)
        picked = bounds.topk(at_once, dim=1, largest=False)
        alive = (picked.values[:, 0] <= found.distance[rows]) & picked.values[:, 0].isfinite()
        if not alive.all():
            rows, bounds, tails = rows[alive], bounds[alive], picked.indices[alive]
            samples = samples.select(alive)
        else:
            tails = picked.indices
        if not len(rows):
            found.distance[found.start < 0] = torch.nan
            return found
        distance, places = _distances(samples, tails, None).max(2)
        distance = distance.masked_fill_(bounds.gather(1, tails).isinf(), torch.inf)
        bounds.scatter_(1, tails, torch.inf)
        _keep_least(found, rows, tails, samples.slope, distance)


@dataclass(frozen=True)
class _Samples:
    """Of each rank: its log, alpha - 1 of the tail from there (0: none), 1 / m, m of its value."""

    logs: Float[Tensor, "row n"]
    slope: Float[Tensor, "row n"]
    inverse: Float[Tensor, "row n"]
    count: Float[Tensor, "row n"]

    def select(self, alive: Bool[Tensor, " row"]) -> _Samples:
        return _Samples(*(x[alive] for x in (self.logs, self.slope, self.inverse, self.count)))


def _samples(logs: Tensor, dropped: Tensor, min_tail: int) -> _Samples:
    """Sums of logs over xmin by adding gaps, which are all positive: nothing cancels."""
    n = logs.shape[1]
    ranks = torch.arange(n, device=logs.device)
    sizes = (n - ranks).to(logs.dtype)
    gaps = logs.diff(dim=1)
    is_first = ranks == dropped[:, None]
    is_first[:, 1:] |= gaps > 0
    sums = torch.zeros_like(logs)
    sums[:, :-1] = (gaps * sizes[1:]).flip(1).cumsum(1).flip(1)
    possible = is_first & (sums > 0) & (sizes >= min_tail) & (ranks >= dropped[:, None])
    slope = torch.where(possible, sizes / sums, 0.0)
    count = sizes.expand_as(logs)
    if not is_first.all():  # equal values count as at the first of them
        count = n - torch.where(is_first, ranks, 0).cummax(1).values.to(logs.dtype)
    return _Samples(logs, slope, (1 / sizes).expand_as(logs), count)


def _first_places(n: int, device: torch.device) -> Int[Tensor, "1 place"]:
    """Ranks at which every tail is looked at first: denser towards the largest values."""
    back, found = 1.0, {0}
    while back < n:
        found.add(n - round(back))
        back *= _RATIO
    return torch.tensor([sorted(found)], device=device)


def _distances(
    samples: _Samples,
    tails: Int[Tensor, "row tail"] | None,
    places: Int[Tensor, "row place"] | None,
) -> Float[Tensor, "row tail place"]:
    """Difference of the two distribution functions of a tail at each place; 0 below the tail.

    None stands for all ranks in order.
    """

    def at(values: Tensor, ranks: Tensor | None) -> Tensor:
        return values if ranks is None else values.gather(1, ranks)

    slope = at(samples.slope, tails)
    offset = (slope * at(samples.logs, tails))[:, :, None]
    fitted = torch.addcmul(offset, slope[:, :, None], at(samples.logs, places)[:, None], value=-1)
    fitted.clamp_(max=0.0).exp_()
    share = at(samples.inverse, tails)[:, :, None] * at(samples.count, places)[:, None]
    return fitted.sub_(share.clamp_(max=1.0)).abs_()


def _keep_least(found: Tails, rows: Tensor, tails: Tensor, slope: Tensor, distance: Tensor) -> None:
    """Take over the smallest distance of this round; the longer tail where two are equal."""
    smallest = distance.amin(1)
    start = torch.where(distance == smallest[:, None], tails, slope.shape[1]).amin(1)
    least, before = found.distance[rows], found.start[rows]
    better = (smallest < least) | ((smallest == least) & smallest.isfinite() & (start < before))
    rows, start = rows[better], start[better]
    found.start[rows] = start
    found.slope[rows] = slope[better].gather(1, start[:, None])[:, 0]
    found.distance[rows] = smallest[better]
