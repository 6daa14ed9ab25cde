"""How often jumps come, in which architecture and when, against what chance would give."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from headspec.results import tidy
from headspec.series.jump_result import Jumps
from headspec.stats import permutation_p

EARLY = 0.1
"""Share of training that counts as early."""

_MOST_EXACT = 20_000


def jump_rates(found: Sequence[Jumps]) -> pd.DataFrame:
    """Jumps per 1,000 measured points of each layer of each run.

    Args:
        found: of `detect_jumps`, one a run or of several runs.

    Returns:
        Tidy rows `model layer metric value n seed` with `layer_name` and `n_jumps`; `n` are the
        points of all curves of the layer that were examined, those of several measures counting
        each. Curves below their resolution are not in it.
    """
    curves: Any = pd.concat([one.curves for one in found], ignore_index=True)
    curves = curves.loc[curves["verdict"] == "examined"]
    keys = ["model", "seed", "layer", "layer_name"]
    sums = curves.groupby(keys, dropna=False, sort=False)[["n_jumps", "n"]].sum().reset_index()
    value = 1000 * sums["n_jumps"].astype(float) / sums["n"].astype(float)
    return tidy(sums.assign(metric="jumps_per_1000_points", value=value))


def compare_rates(
    rates: pd.DataFrame,
    *,
    more: str = "cnn",
    fewer: str = "mlp",
    level: float | int = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """The difference of two architectures in jumps per 1,000 points, over runs.

    p: exact, one-sided: the runs are divided between the two names in every way. With three seeds
    each there are twenty ways, so that p is .05 where every run of the one has more than every run
    of the other, and more otherwise. Interval: bootstrap of runs, and of the layers inside.

    Args:
        rates: rows of `jump_rates`.
        more, fewer: names of the architectures.
        level: nominal coverage.
        n_resamples, seed: of the bootstrap.

    Returns:
        `value low high p null_mean null_sd least_p n n_seeds`, and `more fewer`, their rates;
        `n` counts runs. nan where one of them has no run.
    """
    groups = [_runs(rates, name) for name in (more, fewer)]
    sizes = [len(group) for group in groups]
    nothing = dict.fromkeys(
        ("value", "low", "high", "p", "null_mean", "null_sd", "least_p", "more", "fewer"), np.nan
    )
    found: dict[str, Any] = {**nothing, "n": sum(sizes), "n_seeds": min(sizes)}
    if not min(sizes):
        return found
    each = np.array([_rate(run) for group in groups for run in group])
    ways = np.array(list(itertools.combinations(range(len(each)), sizes[0])))
    if len(ways) > _MOST_EXACT:
        order = np.random.default_rng(seed).random((_MOST_EXACT, len(each))).argsort(axis=1)
        ways = np.concatenate([np.arange(sizes[0])[None], order[:, : sizes[0]]])
    sums = each[ways].sum(axis=1)
    draws = sums / sizes[0] - (each.sum() - sums) / sizes[1]
    rng = np.random.default_rng(seed)
    drawn = [_resampled_rates(group, n_resamples, rng) for group in groups]
    low, high = np.quantile(drawn[0] - drawn[1], [(1 - level) / 2, (1 + level) / 2])
    found |= {"more": each[: sizes[0]].mean(), "fewer": each[sizes[0] :].mean()}
    found |= {"value": found["more"] - found["fewer"], "low": low, "high": high}
    found |= {"null_mean": draws.mean(), "null_sd": draws.std(), "least_p": 1 / len(ways)}
    found["p"] = permutation_p(float(draws[0]), draws, exact=True)
    return {
        name: value.item() if hasattr(value, "item") else value for name, value in found.items()
    }


def early_share(
    found: Sequence[Jumps],
    *,
    early: float | int = EARLY,
    level: float | int = 0.95,
    n_null: int = 9999,
    n_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """The share of jumps in the first part of training, a mean over the runs that have jumps.

    p: one-sided, all jumps of a run moved along training by the same random amount, those that
    leave the end coming in at the beginning. Jumps of several layers that come together stay
    together and count as the one event they may be, which a binomial test would not know; the mean
    of the null is `early`, the share of the points measured. Interval: bootstrap of runs.

    Args:
        found: of `detect_jumps`, of all runs.
        early: end of that part, as a share of training; a phase of exactly that belongs to it.
        level: nominal coverage.
        n_null, n_resamples, seed: draws.

    Returns:
        `value low high p null_mean null_sd n n_runs n_seeds`; `n` counts jumps.
    """
    jumps: Any = pd.concat([one.to_frame() for one in found], ignore_index=True)
    runs = [
        run["phase"].to_numpy(float)
        for _, run in jumps.groupby(["model", "seed"], dropna=False, sort=False)
    ]
    names = ("value", "low", "high", "p", "null_mean", "null_sd")
    result: dict[str, Any] = {
        **dict.fromkeys(names, np.nan),
        "n": len(jumps),
        "n_runs": len(runs),
        "n_seeds": len(set(jumps["seed"])),
    }
    if not runs:
        return result
    rng = np.random.default_rng(seed)
    each = np.array([np.mean(phases <= early) for phases in runs])
    shifts = rng.random((n_null, len(runs), 1))
    draws = np.zeros(n_null)
    for i, phases in enumerate(runs):
        moved = (phases + shifts[:, i]) % 1.0
        draws += (moved <= early).mean(axis=1) / len(runs)
    means = each[rng.integers(len(runs), size=(n_resamples, len(runs)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    value = float(each.mean())
    result |= {"value": value, "low": float(low), "high": float(high)}
    result |= {"null_mean": float(draws.mean()), "null_sd": float(draws.std())}
    return result | {"p": permutation_p(value, draws)}


def _runs(rates: Any, model: str) -> list[np.ndarray]:
    """Of each run of an architecture its layers: jumps and points."""
    rows = rates.loc[rates["model"] == model]
    runs = rows.groupby("seed", dropna=False, sort=True)
    return [run[["n_jumps", "n"]].to_numpy(float) for _, run in runs]


def _rate(run: np.ndarray) -> float:
    return float(1000 * run[:, 0].sum() / run[:, 1].sum())


def _resampled_rates(runs: Sequence[np.ndarray], n: int, rng: np.random.Generator) -> np.ndarray:
    """Mean rate of drawn runs, each of drawn layers."""
    chosen = rng.integers(len(runs), size=(n, len(runs)))
    out = np.zeros(n)
    for number, run in enumerate(runs):
        times = chosen == number
        drawn = run[rng.integers(len(run), size=(int(times.sum()), len(run)))].sum(axis=1)
        rate = 1000 * drawn[:, 0] / drawn[:, 1]
        out += np.bincount(np.nonzero(times)[0], weights=rate, minlength=n)
    return out / len(runs)
