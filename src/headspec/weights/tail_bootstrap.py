"""How often a sample drawn from the fitted law has a larger KS distance: goodness of fit."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from headspec.weights.tail_scan import scan_tails

_VALUES_AT_ONCE = 2**19


def goodness_of_fit(
    logs: Float[np.ndarray, " n"],
    *,
    log_xmin: float,
    slope: float,
    distance: float,
    n_bootstrap: int,
    min_tail: int,
    refit_xmin: bool,
    seed: int,
    device: torch.device,
) -> float:
    """p-value of the KS distance of one fit: (1 + #{drawn >= observed}) / (1 + draws).

    Each draw has as many values as the sample. A value comes from the fitted law with probability
    n_tail / n, else from the values below xmin with replacement; the law is then fitted as it was
    to the data, xmin included unless it was given (Clauset, Shalizi and Newman 2009, 4.1).

    Args:
        logs: logarithms of the sample, ascending.
        log_xmin, slope, distance: of the fit (slope is alpha - 1).
        n_bootstrap: draws.
        min_tail: as in the fit.
        refit_xmin: whether xmin was chosen from the data.
        seed: of the draws; every sample of a batch takes the same stream, so that its p does not
            depend on its neighbours.
        device: where the scan runs.
    """
    n = len(logs)
    body = logs[logs < log_xmin]
    share = 1 - len(body) / n
    rng = np.random.default_rng(seed)
    larger, at_once = 0, max(1, _VALUES_AT_ONCE // n)
    for start in range(0, n_bootstrap, at_once):
        size = (min(at_once, n_bootstrap - start), n)
        drawn = log_xmin + rng.standard_exponential(size) / slope
        if len(body):
            below = rng.random(size) >= share
            drawn[below] = body[rng.integers(0, len(body), int(below.sum()))]
        drawn.sort(axis=1)
        if refit_xmin:
            nothing = torch.zeros(len(drawn), dtype=torch.long, device=device)
            scanned = scan_tails(torch.from_numpy(drawn).to(device), nothing, min_tail=min_tail)
            distances = scanned.distance.cpu().numpy()
        else:
            distances = tail_at(drawn, np.full(len(drawn), log_xmin))[1]
        larger += int(np.count_nonzero(distances >= distance * (1 - 1e-12)))
    return (1 + larger) / (1 + n_bootstrap)


def tail_at(
    logs: Float[np.ndarray, "row n"], log_xmin: Float[np.ndarray, " row"]
) -> tuple[
    Float[np.ndarray, " row"],
    Float[np.ndarray, " row"],
    Float[np.ndarray, " row"],
]:
    """alpha - 1, KS distance and size of the tail above a given xmin; nan without a tail.

    Args:
        logs: ascending along the last axis; -inf for values that are not part of the sample.
        log_xmin: lower end of each row.
    """
    inside = logs >= log_xmin[:, None]
    size = inside.sum(1).astype(float)
    above = np.where(inside, logs - log_xmin[:, None], 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(above.sum(1) > 0, size / above.sum(1), np.nan)
        is_first = np.diff(logs, axis=1, prepend=-np.inf) > 0
    first = np.maximum.accumulate(np.where(is_first, np.arange(logs.shape[1]), 0), axis=1)
    left = logs.shape[1] - np.maximum(first, logs.shape[1] - size[:, None])
    with np.errstate(invalid="ignore"):
        share = left / np.maximum(size, 1)[:, None]
        apart = np.abs(np.exp(-slope[:, None] * above) - share)
    return slope, np.where(inside, apart, 0.0).max(1) + 0 * slope, size
