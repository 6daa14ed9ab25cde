"""Measure the error rates and the power of `headspec.series`, and write docs/calibration.md.

    python tools/calibrate_transitions.py --reps 1200

Some minutes on one core; every table is seeded.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from headspec.series.changepoints import Segments, changepoints
from headspec.series.emergence import emergence_step
from headspec.series.step_test import run_step_tests
from headspec.series.transitions import transition_verdict

LENGTHS = (8, 12, 16, 24, 30)
NOISE: dict[str, Callable] = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "Laplace": lambda rng, n: rng.laplace(size=n) / np.sqrt(2),
    "Student t, 3 df": lambda rng, n: rng.standard_t(3, size=n) / np.sqrt(3),
    "exponential": lambda rng, n: rng.exponential(size=n) - 1,
}
SLOPES = ((3, "normal"), (10, "normal"), (100, "normal"), (5, "Student t, 3 df"))
GRIDS: dict[str, Callable] = {
    "uniform": lambda n: np.arange(n) * 1000,
    "doubling": lambda n: np.r_[0, 2 ** np.arange(n - 1)],
    "log-spaced to 143000": lambda n: np.unique(
        np.geomspace(1, 143001, n).astype(int) - 1 + np.arange(n)
    ),
}


def as_frame(steps, values, **columns) -> pd.DataFrame:
    return pd.DataFrame({"step": steps, "metric": "m", "value": values, **columns})


def kinds(curves: list[np.ndarray], steps: np.ndarray, **options) -> dict[str, float]:
    """How often `find_transition` gives each verdict, for many curves at once."""
    settings = {"noise_sd": None, "axis": "log_step", "drift": "both"} | options
    found = run_step_tests(
        np.stack(curves), np.asarray(steps), n_null=2000, seed=0, floor=0.0, **settings
    )
    each = zip(*(x.tolist() for x in (found.p_jump, found.p_change, found.share)), strict=True)
    verdicts = [transition_verdict(p, any_p, share, 0.05, 0.5)[0] for p, any_p, share in each]
    return {kind: verdicts.count(kind) / len(verdicts) for kind in ("sudden", "gradual", "none")}


def table(rows: list[dict]) -> str:
    frame = pd.DataFrame(rows)
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + "---|" * len(frame.columns)]
    for row in frame.itertuples(index=False):
        cells = [f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def ramp(steps, axis: str) -> np.ndarray:
    x = np.log1p(steps) if axis == "log step" else np.asarray(steps, dtype=float)
    return (x - x[0]) / (x[-1] - x[0])


def null_scenarios() -> dict[str, tuple[Callable, str]]:
    """Name -> (curve without noise from its steps, kind of noise)."""
    found: dict[str, tuple[Callable, str]] = {
        f"white noise, {noise}": (lambda steps: np.zeros(len(steps)), noise) for noise in NOISE
    }
    for axis in ("log step", "step"):
        for slope, noise in (
            (3, "normal"),
            (10, "normal"),
            (100, "normal"),
            (5, "Student t, 3 df"),
        ):
            found[f"drift of {slope} sd along {axis}, {noise}"] = (
                lambda steps, axis=axis, slope=slope: slope * ramp(steps, axis),
                noise,
            )
    return found


def false_sudden(reps: int) -> list[dict]:
    rows = []
    for name, (curve, noise) in null_scenarios().items():
        row: dict = {"curve": name}
        worst = 0.0
        for n in LENGTHS:
            rates = []
            for grid in GRIDS.values():
                rng, steps = np.random.default_rng([n, len(rates)]), grid(n)
                draws = [curve(steps) + NOISE[noise](rng, n) for _ in range(reps)]
                rates.append(kinds(draws, steps)["sudden"])
            row[f"n={n}"] = float(np.mean(rates))
            worst = max(worst, *rates)
        rows.append(row | {"worst cell": worst})
    return rows


def beyond(reps: int) -> list[dict]:
    """Curves outside what is promised."""

    def ar(rng, n, rho):
        y, last = np.empty(n), rng.standard_normal()
        for i in range(n):
            y[i] = last
            last = rho * last + np.sqrt(1 - rho**2) * rng.standard_normal()
        return y

    curves = {
        "white noise, Student t, 2 df": lambda rng, n: rng.standard_t(2, size=n),
        "one outlier of 10 sd": lambda rng, n: (
            rng.standard_normal(n) + 10 * (np.arange(n) == n // 2)
        ),
        "AR(1), correlation .5": lambda rng, n: ar(rng, n, 0.5),
        "random walk": lambda rng, n: rng.standard_normal(n).cumsum(),
        "saturating 1 - exp, 5 sd": lambda rng, n: (
            5 * (1 - np.exp(-np.arange(n) / (n / 4))) + rng.standard_normal(n)
        ),
    }
    rows = []
    for name, draw in curves.items():
        for verdict in ("sudden", "gradual"):
            row: dict = {"curve": name, "called": verdict}
            for n in LENGTHS:
                rng = np.random.default_rng(n)
                steps = GRIDS["doubling"](n)
                row[f"n={n}"] = kinds([draw(rng, n) for _ in range(reps)], steps)[verdict]
            rows.append(row)
    return rows


def power(reps: int) -> list[dict]:
    rows = []
    options = {
        "estimated": {},
        "estimated, drift='axis'": {"drift": "axis"},
        "known (noise_sd=1)": {"noise_sd": np.ones},
    }
    for noise, option in options.items():
        for height in (3, 5, 10):
            row: dict = {"noise": noise, "jump": f"{height} sd"}
            for n in (8, 16, 24):
                for part, at in (("1/4", n // 4), ("1/2", n // 2)):
                    rng, steps = np.random.default_rng([n, at]), GRIDS["doubling"](n)
                    jump = height * (np.arange(n) >= at)
                    draws = [jump + rng.standard_normal(n) for _ in range(reps)]
                    given = {k: v(n) if callable(v) else v for k, v in option.items()}
                    row[f"n={n}, at {part}"] = kinds(draws, steps, **given)["sudden"]
            rows.append(row)
    return rows


def sigmoids(reps: int) -> list[dict]:
    rows, n = [], 16
    for height in (5, 10, 30):
        for width in (0.5, 1, 2, 3, 4, 6):
            rng, steps = np.random.default_rng(height), GRIDS["doubling"](n)
            centre = (np.arange(n) - (n - 1) / 2) * 2 * np.log(9) / width
            draws = [height / (1 + np.exp(-centre)) + rng.standard_normal(n) for _ in range(reps)]
            rates = kinds(draws, steps)
            names = ("sudden", "gradual", "none")
            rows.append(
                {"height": f"{height} sd", "10-90 % width": f"{width} intervals"}
                | {name: rates[name] for name in names}
            )
    return rows


def cuts(reps: int) -> list[dict]:
    cases: tuple[tuple[Segments, float | None], ...] = (
        ("level", None),
        ("level", 1.0),
        ("trend", None),
        ("trend", 1.0),
    )
    rows = []
    for (segments, known), noise in itertools.product(cases, NOISE):
        row: dict = {"segments": segments, "noise sd": "known" if known else "estimated"}
        row["noise"] = noise
        for n in (8, 16, 30):
            rng, steps = np.random.default_rng(n), GRIDS["doubling"](n)
            count = reps if segments == "level" else reps // 4
            drift = 5.0 * (segments == "trend") * ramp(steps, "log step")
            found = [
                changepoints(
                    as_frame(steps, drift + NOISE[noise](rng, n)),
                    "m",
                    segments=segments,
                    noise_sd=known,
                )
                for _ in range(count)
            ]
            row[f"n={n}"] = float(np.mean([len(one.sizes) > 0 for one in found]))
        rows.append(row)
    return rows


def emergences(reps: int) -> list[dict]:
    rows = []
    for noise, se, truth in (
        *((name, None, "never") for name in NOISE),
        ("normal", 1.0, "never"),
        ("normal", None, "half way, 5 sd"),
        ("normal", 1.0, "half way, 5 sd"),
        ("normal", None, "at first step, 10 sd"),
        ("normal", 1.0, "at first step, 10 sd"),
    ):
        for n in (8, 16, 30):
            rng, steps = np.random.default_rng(n), GRIDS["doubling"](n)
            start = {"n": n, "h": n // 2, "a": 0}[truth[0]]
            height = 10.0 if start == 0 else 5.0
            found = [
                emergence_step(
                    as_frame(steps, height * (np.arange(n) >= start) + NOISE[noise](rng, n)),
                    "m", chance=0.0, se=se,
                )
                for _ in range(reps)
            ]  # fmt: skip
            true = float(steps[start]) if start < n else np.inf
            at = np.array([np.nan if f.step is None else f.step for f in found])
            rows.append(
                {"truth": truth, "noise": noise, "se": "given" if se else "no", "n": n}
                | {
                    "emerged": float(np.mean(np.isfinite(at))),
                    "too early": float(np.mean(at < true)),
                    "exact": float(np.mean(at == true)),
                    "too late": float(np.mean(at > true)),
                    "lost": float(np.mean([f.status == "lost" for f in found])),
                }
            )
    return rows


def coverage(reps: int) -> list[dict]:
    rows = []
    for n in (8, 16, 24):
        for height, width in ((10, 1), (10, 3), (30, 1), (30, 3)):
            rng, steps = np.random.default_rng(n), GRIDS["doubling"](n)
            x = np.log1p(steps)
            middle = (x[n // 2 - 1] + x[n // 2]) / 2
            shape = 1 / (1 + np.exp(-(x - middle) * 2 * np.log(9) / (width * np.log(2))))
            held, wide = [], []
            for _ in range(reps):
                frame = as_frame(steps, height * shape + rng.standard_normal(n))
                fit = emergence_step(frame, "m", chance=0.0, se=1.0).sigmoid
                if np.isfinite(fit.midpoint_low + fit.midpoint_high):
                    held.append(fit.midpoint_low <= np.expm1(middle) <= fit.midpoint_high)
                    wide.append(np.log2((1 + fit.midpoint_high) / (1 + fit.midpoint_low)))
            rows.append(
                {"n": n, "height": f"{height} sd", "10-90 % width": f"{width} intervals"}
                | {"covers": float(np.mean(held)), "median intervals wide": float(np.median(wide))}
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reps", type=int, default=1200)
    parser.add_argument("--out", type=Path, default=Path("docs/calibration.md"))
    parser.add_argument("--only", nargs="*", help="names of tables, to look at without writing")
    options = parser.parse_args()
    text = (Path(__file__).parent / "calibration_text.md").read_text()
    # what is not vectorised, on fewer curves
    tables = {
        false_sudden: 1,
        beyond: 1,
        power: 1,
        sigmoids: 1,
        cuts: 4,
        emergences: 4,
        coverage: 4,
    }
    for make, fewer in tables.items():
        if options.only and make.__name__ not in options.only:
            continue
        start = time.perf_counter()
        result = table(make(options.reps // fewer))
        print(f"{make.__name__}: {time.perf_counter() - start:.0f} s\n{result}", flush=True)
        text = text.replace(f"<!-- {make.__name__} -->\n", result)
    if not options.only:
        text = text.replace("REPS", str(options.reps))
        options.out.parent.mkdir(exist_ok=True)
        options.out.write_text(text)


if __name__ == "__main__":
    main()
