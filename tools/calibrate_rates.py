"""Measure the error rates and the power of `headspec.series` on rates, and write docs/rates.md.

    python tools/calibrate_rates.py --reps 200

The words of the page are in tools/rates_text.md; `<!-- name -->` is replaced by the table.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, pearsonr

from headspec.checkpoints.micro import STEPS
from headspec.series.coincidence import coincidence_test
from headspec.series.correlation import correlate_rates
from headspec.series.pooling import pool_models

PYTHIA = np.r_[0, 2 ** np.arange(10), 1000, np.arange(3000, 144_000, 10_000)]
EMBEDDED = np.array(STEPS)
GRIDS = {"Pythia, 26 intervals": PYTHIA, "embedded, 16 intervals": EMBEDDED}
FAMILIES = (1, 50, 500)


def walks(rng: np.random.Generator, n: int, steps: np.ndarray, power: float = 0.5) -> np.ndarray:
    """Random walks whose increments grow with a power of the interval's width on log step."""
    widths = np.diff(np.log1p(steps))
    return np.cumsum(rng.normal(size=(n, len(widths))) * widths**power, axis=1)


def noise(rng: np.random.Generator, n: int, steps: np.ndarray, phi: float = 0.0) -> np.ndarray:
    """Stationary noise of the values, with correlation phi from checkpoint to checkpoint."""
    values = rng.normal(size=(n, len(steps) + 50))
    for at in range(1, values.shape[1]):
        values[:, at] += phi * values[:, at - 1]
    return values[:, 51:]


def drifting(rng: np.random.Generator, n: int, steps: np.ndarray) -> np.ndarray:
    """Curves whose rates are correlated .6 from interval to interval."""
    widths = np.diff(np.log1p(steps))
    return np.cumsum(noise(rng, n, np.arange(len(widths) + 1), 0.6) * widths, axis=1)


def saturating(
    rng: np.random.Generator, n: int, steps: np.ndarray, middle: str = "anywhere", sd: float = 0.01
) -> np.ndarray:
    """Logistic curves of random height, rate and midpoint on log step, with a little noise."""
    x = np.log1p(steps)
    middles = rng.uniform(0.5, x[-1] - 0.3, n)
    if middle == "together":
        middles = rng.normal(0.62 * x[-1], 1.0, n)
    scales = np.exp(rng.uniform(np.log(0.15), np.log(1.5), n))[:, None]
    heights = (np.exp(rng.normal(size=n)) * rng.choice([-1, 1], n))[:, None]
    rises = 1 / (1 + np.exp(-(x - middles[:, None]) / scales))
    return (heights * (rises + sd * rng.normal(size=rises.shape)))[:, 1:]


def exponential(rng: np.random.Generator, n: int, steps: np.ndarray) -> np.ndarray:
    """1 - exp(-step / tau), tau log-uniform, noise of .005."""
    tau = np.exp(rng.uniform(1, np.log1p(steps[-1]), n))[:, None]
    return (1 - np.exp(-steps / tau) + 0.005 * rng.normal(size=(n, len(steps))))[:, 1:]


def power_law(rng: np.random.Generator, n: int, steps: np.ndarray) -> np.ndarray:
    """(1 + step / tau) to a random negative power, noise of .002."""
    tau = np.exp(rng.uniform(0, np.log1p(steps[-1]), n))[:, None]
    falls = (1 + steps / tau) ** -rng.uniform(0.2, 1.5, (n, 1))
    return (falls + 0.002 * rng.normal(size=falls.shape))[:, 1:]


def together(rng: np.random.Generator, n: int, steps: np.ndarray) -> np.ndarray:
    """Random walks that share most of their increments, the first one (the capability) not."""
    values = walks(rng, n, steps)
    values[1:] = 0.9 * values[1] + 0.44 * values[1:]
    return values


CURVES: dict[str, Callable[..., np.ndarray]] = {
    "random walk on log step": walks,
    "random walk, equal increments": lambda *a: walks(*a, power=0.0),
    "random walks that move together": together,
    "noise": noise,
    "AR(1) noise, .7": lambda *a: noise(*a, phi=0.7),
    "AR(1) rates, .6": drifting,
    "saturating, midpoints anywhere": saturating,
    "saturating, without noise": lambda *a: saturating(*a, sd=0.0),
    "saturating, midpoints together": lambda *a: saturating(*a, middle="together"),
    "1 - exp(-step/tau)": exponential,
    "power law": power_law,
}


def as_frame(values: np.ndarray, steps: np.ndarray, prefix: str, **labels: Any) -> pd.DataFrame:
    """Curves that start at 0 as a tidy frame."""
    names = [f"{prefix}{at}" for at in range(len(values))]
    return pd.DataFrame(
        {
            "step": np.tile(steps, len(values)),
            "metric": np.repeat(names, len(steps)),
            "value": np.c_[np.zeros(len(values)), values].ravel(),
            **labels,
        }
    )


def p_values(values: np.ndarray, steps: np.ndarray, **options: Any) -> np.ndarray:
    """Of all curves against the first."""
    stats, capability = as_frame(values[1:], steps, "s"), as_frame(values[:1], steps, "c")
    table = correlate_rates(stats, capability, **options).table
    return np.asarray(table["p"], dtype=float)


def any_found(p: np.ndarray, n: int) -> float:
    """Whether any of the first n tests has q <= .05; for one test, its rate over all."""
    return (
        float(np.mean(p <= 0.05)) if n == 1 else float(false_discovery_control(p[:n]).min() <= 0.05)
    )


def false_positives(reps: int) -> list[dict]:
    rows = []
    for (grid, steps), (name, draw) in ((g, c) for g in GRIDS.items() for c in CURVES.items()):
        found = []
        for rep in range(reps):
            values = draw(np.random.default_rng([rep, len(steps)]), 1 + max(FAMILIES), steps)
            p = p_values(values, steps, seed=rep)
            found.append([any_found(p, n) for n in FAMILIES])
        rates = np.mean(found, axis=0)
        rows.append(
            {"checkpoints": grid, "curves": name}
            | {f"{n} test{'s' * (n > 1)}": r for n, r in zip(FAMILIES, rates, strict=True)}
        )
        print(rows[-1], flush=True)
    return rows


_PLAIN: dict[str, Any] = {"weights": "equal", "partial": (), "leave_out": 0}
NULLS: dict[str, dict[str, Any]] = {
    "permuted rates": {"null": "permutation", **_PLAIN},
    "circular shifts": {"null": "circular_shift", **_PLAIN},
    "random phases, equal weights": _PLAIN,
    "random phases, weights": {"partial": (), "leave_out": 0},
    "the same, trend out": {"leave_out": 0},
    "the same, ranks": {"leave_out": 0, "method": "spearman"},
    "default": {},
}  # fmt: skip


def nulls_that_fail(reps: int) -> list[dict]:
    rows = []
    chosen = [name for name in CURVES if name in _HARD]
    for name in chosen:
        found = {key: [] for key in ("raw values, Pearson's p", *NULLS)}
        for rep in range(reps):
            values = CURVES[name](np.random.default_rng([rep, 1]), 51, PYTHIA)
            raw = np.array([pearsonr(values[0], each)[1] for each in values[1:]])
            found["raw values, Pearson's p"].append([any_found(raw, 1), any_found(raw, 50)])
            for key, options in NULLS.items():
                p = p_values(values, PYTHIA, n_null=2000, seed=rep, **options)
                found[key].append([any_found(p, 1), any_found(p, 50)])
        for key, rates in found.items():
            one, fifty = np.mean(rates, axis=0)
            rows.append({"curves": name, "null": key, "1 test": one, "50 tests": fifty})
            print(rows[-1], flush=True)
    return rows


_HARD = ("random walk, equal increments", "AR(1) rates, .6", "saturating, midpoints anywhere",
         "saturating, midpoints together")  # fmt: skip


def linked(rng: np.random.Generator, n: int, steps: np.ndarray, rho: float, lag: int) -> np.ndarray:
    """Random walks on log step; rates of the second lead those of the first, correlated rho."""
    roots = np.sqrt(np.diff(np.log1p(steps)))
    rates = rng.normal(size=(n, len(roots)))
    ahead = np.r_[rates[0, lag:], rng.normal(size=lag)]
    rates[1] = rho * ahead + np.sqrt(1 - rho**2) * rates[1]
    return np.cumsum(rates * roots, axis=1)


def power(reps: int) -> list[dict]:
    rows = []
    settings = (("1 test", 1, (0,)), ("1 statistic, lags 0 to 3", 1, (0, 1, 2, 3)),
                ("50 tests", 50, (0,)))  # fmt: skip
    for grid, steps in GRIDS.items():
        for words, n, lags in settings:
            for leave_out in (0.2, 0.0):
                row: dict = {"checkpoints": grid, "family": words, "leave_out": f"{leave_out:g}"}
                for rho in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95):
                    found = []
                    for rep in range(reps):
                        rng = np.random.default_rng([rep, 2])
                        values = linked(rng, 1 + n, steps, rho, lags[-1] and 1)
                        p = p_values(values, steps, lag=lags, leave_out=leave_out, seed=rep)
                        q = false_discovery_control(p)
                        found.append(q[1 if len(lags) > 1 else 0] <= 0.05)
                    row[f"rho {rho}"] = float(np.mean(found))
                rows.append(row)
                print(row, flush=True)
    return rows


def pooled(reps: int) -> list[dict]:
    """Three models of one, two and three layers; 50 statistics; rho is that of the first."""
    rows = []
    cases = (("random walks", walks, 0.0), ("saturating, midpoints anywhere", saturating, 0.0),
             ("the same runs three times", walks, -1.0), ("linked, rho .5", walks, 0.5),
             ("linked, rho .7", walks, 0.7), ("linked, rho .8", walks, 0.8))  # fmt: skip
    for grid, steps in GRIDS.items():
        for words, draw, rho in cases:
            found = []
            for rep in range(reps):
                rng = np.random.default_rng([rep, 3])
                table = _pooled_once(rng, draw, rho, steps, rep)
                p = np.asarray(table["p"], dtype=float)
                first = float(np.asarray(table["q"], dtype=float)[0] <= 0.05)
                found.append([any_found(p, 1), any_found(p, 50), first])
            one, fifty, first = np.mean(found, axis=0)
            rows.append(
                {"checkpoints": grid, "curves": words}
                | ({"false, 1 test": one, "false, 50 tests": fifty} if rho <= 0 else
                   {"linked one found among 50": first})
            )  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def _pooled_once(
    rng: np.random.Generator, draw: Callable, rho: float, steps: np.ndarray, seed: int
) -> pd.DataFrame:
    stats, goals, base = [], [], draw(rng, 51, steps)
    roots = np.sqrt(np.diff(np.log1p(steps)))
    for layers in (1, 2, 3):
        values = base.copy() if rho < 0 else draw(rng, 51, steps)
        for layer in range(layers):
            own = values[1:] if rho < 0 else draw(rng, 50, steps)
            if rho > 0:
                rates = [np.diff(np.r_[0, one]) / roots for one in (values[0], own[0])]
                own[0] = np.cumsum((rho * rates[0] + np.sqrt(1 - rho**2) * rates[1]) * roots)
            frame = as_frame(own, steps, "s", model=f"m{layers}", layer=layer)
            stats.append(frame.assign(metric=frame["metric"].str.replace("s", "s0")))
        goals.append(as_frame(values[:1], steps, "c", model=f"m{layers}"))
    found = correlate_rates(pd.concat(stats), pd.concat(goals), n_null=1000, seed=seed)
    table = pool_models(found, n_null=2000).to_frame()
    return table.sort_values(by="metric")  # s00 first


def coincidences(reps: int) -> list[dict]:
    rows = []
    x = np.log1p(PYTHIA)
    for words in ("anywhere", "early, both", "linked"):
        for n in (5, 20, 100):
            found = []
            for rep in range(reps):
                rng = np.random.default_rng([rep, 4])
                low, high = (1.0, x[-1]) if words != "early, both" else (1.0, 6.0)
                goal = rng.uniform(low, high, 3)
                here = rng.uniform(low, high, n)
                if words == "linked":
                    here[: n // 2] = rng.choice(goal, n // 2) + rng.normal(0, 0.2, n // 2)
                here = here.clip(0, x[-1])
                test = coincidence_test(np.expm1(here), np.expm1(goal), steps=PYTHIA, within=0.5)
                found.append(test.p_value <= 0.05)
            rows.append({"inflections": words, "how many": n, "p <= .05": float(np.mean(found))})
            print(rows[-1], flush=True)
    return rows


def table(rows: list[dict]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        cells = [row.get(name, "") for name in names]
        cells = [f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("docs/rates.md"))
    parser.add_argument("--only", nargs="*", help="names of tables, to look at without writing")
    options = parser.parse_args()
    text = (Path(__file__).parent / "rates_text.md").read_text()
    for make in (false_positives, nulls_that_fail, power, pooled, coincidences):
        if options.only and make.__name__ not in options.only:
            continue
        start = time.perf_counter()
        result = table(make(options.reps))
        print(f"{make.__name__}: {time.perf_counter() - start:.0f} s\n{result}", flush=True)
        text = text.replace(f"<!-- {make.__name__} -->\n", result)
    if not options.only:
        options.out.write_text(text.replace("REPS", f"{options.reps} families a row."))


if __name__ == "__main__":
    main()
