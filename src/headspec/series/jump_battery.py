"""How often a rule for jumps is wrong: false positives and recall where the jumps are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import cast, get_args

import numpy as np
import pandas as pd

from headspec.errors import InputError, check_choice
from headspec.results import tidy
from headspec.series.jump_battery_curves import HARD_CURVES, NULL_CURVES, PLANTED_CURVES
from headspec.series.jump_result import Method
from headspec.series.jumps import detect_jumps

Rule = Callable[[np.ndarray], Iterable[int]]


def score_detector(
    detect: Rule | Method,
    *,
    n_series: int = 200,
    n_points: int = 400,
    size: float | int = 3.0,
    tolerance: int = 5,
    curves: Sequence[str] | None = None,
    name: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Try a rule on curves without jumps and on curves with jumps at known points.

    A detection within `tolerance` points of a planted jump finds it, one detection a jump; every
    other detection is false. The planted curves have jumps of `size` standard deviations of their
    noise, up or down at random.

    Args:
        detect: a function from the values of one curve (`point`, at steps 0, 1, 2, ...) to the
            indices where it sees jumps; or the name of one of headspec's rules.
        n_series: curves of each kind.
        n_points: of each curve.
        size: of the planted jumps.
        tolerance: in points; 5 as in ndtracker's own battery.
        curves: names of the kinds to use, out of `NULL_CURVES`, `HARD_CURVES` and
            `PLANTED_CURVES` in `headspec.series.jump_battery_curves`; all if None.
        name: of the rule in the frame.
        seed: the same curves for every rule.

    Returns:
        Tidy rows, one a kind of curve and measure. `metric` is `"false_positives"` (per 1,000
        points) or `"recall"` (planted curves); `se` its standard error over curves, `low` and
        `high` two of them to either side; further columns `method` (the rule), `series` (the
        kind of curve), `kind` (`"null"`, `"hard"` or `"planted"`), `n_points`, `size`. Frames of
        several rules, joined, make `headspec.plots.plot_detector_battery`.

    Raises:
        InputError: for an unknown kind of curve, or indices outside of the curve.

    What it does not show: how a rule does on other curves. A real curve can be smoother, more
    heavy-tailed or shorter than these.

    Reference: the method of ndtracker's `ndt.validity`, with more kinds of curves and many draws
    of each.

    Example:
        >>> import numpy as np
        >>> from headspec.series.jump_battery import score_detector
        >>> def far_off(values):
        ...     return np.flatnonzero(np.abs(np.diff(values)) > 5) + 1
        >>> frame = score_detector(far_off, n_series=20, curves=["white noise", "one jump"])
        >>> frame[["series", "metric", "value"]].round(2).to_dict("records")[0]
        {'series': 'white noise', 'metric': 'false_positives', 'value': 0.38}
    """
    kinds = {**dict.fromkeys(NULL_CURVES, "null"), **dict.fromkeys(HARD_CURVES, "hard")}
    kinds |= dict.fromkeys(PLANTED_CURVES, "planted")
    chosen = list(kinds) if curves is None else list(curves)
    for curve in chosen:
        check_choice("curves", curve, tuple(kinds))
    if n_series < 2 or n_points < 30:
        raise InputError(
            expected="n_series of at least 2 and n_points of at least 30",
            got=f"{n_series} and {n_points}",
            fix="200 series of 400 points are usual.",
        )
    rows = []
    for curve in chosen:
        rng = np.random.default_rng([seed, list(kinds).index(curve)])
        if kinds[curve] == "planted":
            values, truth = PLANTED_CURVES[curve](rng, n_series, n_points, float(size))
        else:
            values, truth = (NULL_CURVES | HARD_CURVES)[curve](rng, n_series, n_points), []
        found = _detections(detect, values)
        counts = np.array([match_jumps(hits, truth, tolerance) for hits in found], dtype=float)
        labels = {"series": curve, "kind": kinds[curve], "size": size if truth else np.nan}
        rows.append(_row("false_positives", 1000 * counts[:, 1] / n_points, labels))
        if truth:
            rows.append(_row("recall", counts[:, 0] / len(truth), labels))
    rule = name or (detect if isinstance(detect, str) else getattr(detect, "__name__", "rule"))
    return tidy(rows, seed=seed).assign(method=rule, n_points=n_points)


def _row(metric: str, each: np.ndarray, labels: dict) -> dict:
    se = float(each.std(ddof=1) / np.sqrt(len(each)))
    value = float(each.mean())
    low, high = max(value - 2 * se, 0.0), value + 2 * se
    if metric == "recall":
        high = min(high, 1.0)
    row = {"metric": metric, "value": value, "n": len(each), "se": se, "low": low, "high": high}
    return {**row, **labels}


def _detections(detect: Rule | Method, values: np.ndarray) -> list[list[int]]:
    if isinstance(detect, str):
        check_choice("detect", detect, get_args(Method))
        return _by_method(cast(Method, detect), values)
    found = []
    for row in values:
        hits = sorted(int(at) for at in detect(row.copy()))
        if hits and (hits[0] < 0 or hits[-1] >= len(row)):
            raise InputError(
                expected=f"indices from 0 to {len(row) - 1}",
                got=f"{hits[:3]} ... {hits[-1]}",
                fix="Let the rule return positions in the curve, not training steps.",
            )
        found.append(hits)
    return found


def _by_method(method: Method, values: np.ndarray) -> list[list[int]]:
    table = detect_jumps(values, method=method, resolution=0.0).to_frame()
    hits: list[list[int]] = [[] for _ in values]
    for curve, step in zip(table["curve"], table["step"], strict=True):
        hits[int(curve)].append(int(step))
    return hits


def match_jumps(found: Sequence[int], truth: Sequence[int], tolerance: int) -> tuple[int, int, int]:
    """Pair detections with planted jumps, one to one, first come first served.

    Args:
        found: detected points, in order.
        truth: planted points, in order.
        tolerance: how far apart a pair may lie.

    Returns:
        Jumps found, false detections, jumps missed.
    """
    left, false = list(truth), 0
    for at in found:
        near = [point for point in left if abs(at - point) <= tolerance]
        if near:
            left.remove(near[0])
        else:
            false += 1
    return len(truth) - len(left), false, len(left)
