"""Measure how curves without jumps score, and try the rules for jumps on the battery.

    python tools/calibrate_jumps.py table     # writes src/headspec/series/jump_test_table.py
    python tools/calibrate_jumps.py battery   # writes tools/jump_battery.csv and the page's tables

Some minutes each on one core; everything is seeded.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from headspec.series.jump_battery import score_detector
from headspec.series.jump_battery_curves import NULL_CURVES
from headspec.series.jump_result import Method
from headspec.series.jump_test import sudden_changes

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "src" / "headspec" / "series" / "jump_test_table.py"
BATTERY = ROOT / "tools" / "jump_battery.csv"
PAGE = ROOT / "docs" / "jump_detection.md"
MARKS = "<!-- written by tools/calibrate_jumps.py -->\n", "<!-- end of what it writes -->"
LENGTHS = (30, 45, 60, 80, 120, 180, 260, 400, 700, 1200, 2000)
RATES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
METHODS: tuple[Method, ...] = ("calibrated", "study", "trailing_window", "changepoints")
OTHER_LENGTHS = (60, 120, 200, 1000, 2000)
_LOWEST = 2.5


def null_scores(kind: int, n_points: int, n_curves: int) -> np.ndarray:
    """Scores of everything the rule would call on curves of one kind, highest first."""
    rng = np.random.default_rng([20, kind, n_points])
    values = list(NULL_CURVES.values())[kind](rng, n_curves, n_points)
    found = sudden_changes(values, np.zeros(n_curves), threshold=_LOWEST)
    return np.sort([jump.score for jumps in found for jump in jumps])[::-1]


def worst_scores(n_points: int, points: int) -> tuple[list[float], list[str]]:
    """For each rate the score exceeded at it on the worst kind of curve, and that kind."""
    n_curves, rows = max(points // n_points, 1), []
    for kind in range(len(NULL_CURVES)):
        scores = null_scores(kind, n_points, n_curves)
        at = [int(rate * n_curves * n_points / 1000) for rate in RATES]
        rows.append([float(scores[i]) if i < len(scores) else _LOWEST for i in at])
    table = np.array(rows)
    names = [list(NULL_CURVES)[kind] for kind in table.argmax(axis=0)]
    return [round(score, 3) for score in table.max(axis=0).tolist()], names


def write_table(points: int, workers: int) -> None:
    scores: list[list[float]] = []
    with ProcessPoolExecutor(workers) as pool:
        results = pool.map(worst_scores, LENGTHS, [points] * len(LENGTHS))
        for length, (row, names) in zip(LENGTHS, results, strict=True):
            scores.append(row)
            print(length, dict(zip(RATES, zip(row, names, strict=True), strict=True)), flush=True)
    lines = "".join(f"    ({', '.join(f'{x:.3f}' for x in row)}),\n" for row in scores)
    TABLE.write_text(
        '"""Scores of curves without jumps, written by `tools/calibrate_jumps.py table`."""\n\n'
        f"LENGTHS = {LENGTHS!r}\n"
        '"""Points a curve."""\n\n'
        f"RATES = {RATES!r}\n"
        '"""Detections per 1,000 points of the worst kind of curve without jumps."""\n\n'
        f"SCORES = (\n{lines})\n"
        '"""The score exceeded at each rate, `length rate`."""\n'
    )


def battery_rows(method: Method, n_points: int, n_series: int) -> pd.DataFrame:
    return score_detector(method, n_series=n_series, n_points=n_points, seed=1)


def write_battery(series: int, workers: int) -> None:
    methods = (*METHODS, *(METHODS[0] for _ in OTHER_LENGTHS))
    lengths = (*(400 for _ in METHODS), *OTHER_LENGTHS)
    with ProcessPoolExecutor(workers) as pool:
        frames = list(pool.map(battery_rows, methods, lengths, [series] * len(methods)))
    frame = pd.concat(frames, ignore_index=True)
    columns = ["method", "kind", "series", "metric", "value", "se", "n", "n_points", "size", "seed"]
    frame[columns].to_csv(BATTERY, index=False, float_format="%.6g")
    page = PAGE.read_text()
    start, end = page.index(MARKS[0]) + len(MARKS[0]), page.index(MARKS[1])
    PAGE.write_text(page[:start] + "\n" + page_tables(frame, series) + "\n" + page[end:])


def page_tables(frame: pd.DataFrame, series: int) -> str:
    """The tables of the page: all rules at 400 points, the calibrated one at other lengths."""
    parts = [f"{series} curves of each kind; standard errors over curves in brackets.\n"]
    said = {
        "false_positives": "False positives per 1,000 points",
        "recall": "Recall of jumps of three noise standard deviations, within 5 points",
    }
    for metric, words in said.items():
        parts.append(f"**{words}, 400 points**\n")
        parts.append(markdown(frame.query("metric == @metric and n_points == 400"), "method"))
        kind = "null" if metric == "false_positives" else "planted"
        query = f"metric == @metric and method == 'calibrated' and kind == {kind!r}"
        parts.append(f"**{words}, the calibrated rule by the number of points**\n")
        parts.append(markdown(frame.query(query), "n_points"))
    return "\n".join(parts)


def markdown(rows: pd.DataFrame, across: str) -> str:
    names = sorted(set(rows[across]), key=lambda x: METHODS.index(x) if x in METHODS else x)
    lines = [f"| curve | {' | '.join(map(str, names))} |", "|---" * (len(names) + 1) + "|"]
    cells = {
        (row["series"], row[across]): f"{row['value']:.2f} ({row['se']:.2f})"
        for row in rows.to_dict("records")
    }
    for series in dict.fromkeys(rows["series"].tolist()):
        lines.append(f"| {series} | {' | '.join(cells[series, name] for name in names)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("table", "battery"))
    parser.add_argument("--points", type=int, default=100_000, help="a kind of curve and length")
    parser.add_argument("--series", type=int, default=400, help="curves of each kind")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    start = time.perf_counter()
    if args.what == "table":
        write_table(args.points, args.workers)
    else:
        write_battery(args.series, args.workers)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
