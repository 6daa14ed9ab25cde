"""What changes across jumps more than across matched stretches of training without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from headspec.errors import InputError, check_choice
from headspec.results import tidy
from headspec.stats import permutation_p
from headspec.studies.jump_effects_blocks import (
    MatchedBlock,
    arrange_events,
    matched_blocks,
    permuted_means,
    resampled_means,
    run_difference,
)
from headspec.studies.jump_effects_changes import Layers, moment_changes, without_trend
from headspec.studies.jump_effects_decisions import correct_effects, decide_effect

_WINDOW = ("before", "during", "after")
_NEEDED = ("model", "seed", "moment", "kind", "place", "before", "after", "metric", "value")
_ALTERNATIVES: dict[int, Literal["greater", "less", "two-sided"]] = {
    1: "greater",
    -1: "less",
    0: "two-sided",
}


def jump_effects(
    frame: pd.DataFrame,
    *,
    family: Mapping[str, int] | None = None,
    kind: str = "jump",
    phases: tuple[float | int, float | int] = (0.0, 1.0),
    layers: Layers = "all",
    adjust: bool = True,
    by: Sequence[str] = ("model",),
    level: float | int = 0.95,
    n_null: int = 9999,
    n_resamples: int = 2000,
    alpha: float | int = 0.05,
    seed: int = 0,
) -> pd.DataFrame:
    """Change across jumps less change across their controls, with an interval and a permutation p.

    Of a moment the change is the mean over layers, heads and classes of `value` after less before,
    or the value itself of what is measured across the moment (`place` "across", such as CKA). Jumps
    that overlap are one event, and so are controls; an event enters by its mean. In a block (a jump
    event with its controls) the difference is the mean over jumps less the mean over controls;

        effect = mean over runs of [mean over the jump events of a run of the difference].

    *p*: inside each block the labels are exchanged, any as many of its events being called jumps,
    independently over blocks and runs; every labelling is counted where there are at most 50,000.
    It holds where a jump, if it were a step like any other, could as well have been its control.
    One-sided in the direction that `family` predicts. (Three seeds as the unit would allow no p
    below 1/8 by flips of sign: the unit is the moment, and p speaks of these runs.)

    *Interval*: bootstrap of runs, and of the blocks inside the drawn runs; none with fewer than
    three seeds. With three it covers 95 % where the effect is the same in all seeds, 89 % where it
    differs between seeds by half as much as between moments, 84 % where by as much.

    *Trend*: everything changes fastest at the beginning, where jumps crowd and leave no room for
    controls, so that these lie later and change less. Changes are therefore taken less a trend in
    log(1 + step) (`without_trend`). With jumps put at random, three quarters of them in the first
    fifth of a decaying curve, p <= .05 in 3 to 5 % of studies; without it in 10 to 22 %.

    *Unit*: `unit` is what two matched windows differ by if nothing tells them apart: the standard
    deviation of the permuted effect times the root of the number of jump events.

    *Decision*, with three seeds or more: "there" where q <= alpha, the interval leaves out 0 and
    three of four seeds (of three: all) have the sign of the effect; "absent" where q > alpha and
    the interval, with the trend and without it, leaves out one `unit` in the predicted direction;
    else "open".

    Args:
        frame: rows of `measure_moments`, of one run or several.
        family: metric -> predicted direction, +1, -1 or 0 (any). q is then corrected over these by
            Holm's method. None: all metrics, two-sided, Benjamini-Hochberg within each group.
        kind: of the moments compared with controls; `"candidate"` for the largest changes that are
            no detected jumps.
        phases: jumps above the first and up to the second; a phase of 0 belongs to the first part.
        layers: `"own"`: only rows of the layer that jumped, or of the block it is part of, and
            rows without a layer.
        adjust: whether the trend is taken off.
        by: columns that part the rows into groups, each with effects of its own; `()` pools all.
        level: nominal coverage.
        n_null, n_resamples: draws.
        alpha: level of the decision.
        seed: of the draws.

    Returns:
        Tidy rows, one a group and metric: `value`, `null_mean`, `null_sd`, `p`, `n` (jump events),
        and `low high q unit expected decision n_runs n_seeds n_agree n_controls n_left_out least_p
        unadjusted_value unadjusted_low unadjusted_high` (`n_agree`: seeds with the sign of the
        effect; `n_left_out`: moments without a usable control; `least_p`: the smallest p there
        could be; `unadjusted`: with the trend left in).

    Raises:
        InputError: columns missing, or an unknown direction.

    **What it does not show.** That the jump causes the change; that controls match in anything but
    phase; or, where jumps were chosen by a large change of dimensionality, more than that two
    measures of the same network move together.

    References:
        Ernst 2004, "Permutation methods: a basis for exact inference" (relabelling in blocks).
        Davison and Hinkley 1997, "Bootstrap methods", section 3.8 (hierarchical resampling).

    Example:
        >>> moments = [("jump", 20), ("control", 30), ("jump", 50), ("control", 40)]
        >>> rows = [
        ...     dict(model="mlp", seed=s, moment=m, kind=k, place=p, before=b, after=b + 2,
        ...          matched=None if k == "jump" else m - 1, phase=b / 100, metric="sparsity",
        ...          value=float(p == "after" and k == "jump"))
        ...     for s in range(3)
        ...     for m, (k, b) in enumerate(moments)
        ...     for p in ("before", "after")
        ... ]
        >>> effects = jump_effects(pd.DataFrame(rows), family={"sparsity": 1})
        >>> effects[["value", "p", "decision"]].round(2).values.tolist()
        [[0.98, 0.02, 'there']]
    """
    check_choice("layers", layers, get_args(Layers))
    _check(frame, family)
    if not len(frame):
        return tidy([])
    changes = moment_changes(frame, layers=layers)
    draws: Any = {
        "level": float(level),
        "n_null": n_null,
        "n_resamples": n_resamples,
        "seed": seed,
    }
    rows: list[dict[str, Any]] = []
    for key, group in _groups(changes, by):
        chosen = _in_phases(group, kind, phases)
        arranged = [(run, arrange_events(_moments(run), kind=kind)) for run in _runs(chosen)]
        names = list(family) if family is not None else list(dict.fromkeys(changes["metric"]))
        here = set(group["metric"])
        found = []
        for metric in names:
            if metric not in here:
                continue
            way = (family or {}).get(metric, 0)
            plain = _blocks(arranged, metric, False)
            blocks = _blocks(arranged, metric, True) if adjust else plain
            other = _effect(plain, way, **draws)
            found.append(
                {
                    **dict(zip(by, key, strict=True)),
                    "metric": metric,
                    **_effect(blocks, way, **draws),
                    **_counts(arranged, blocks, kind),
                    **{f"unadjusted_{name}": other[name] for name in ("value", "low", "high")},
                }
            )
        correct_effects(found, holm=family is not None)
        rows += [{**each, "decision": decide_effect(each, alpha=float(alpha))} for each in found]
    return tidy(rows)


def _check(frame: pd.DataFrame, family: Mapping[str, int] | None) -> None:
    missing = [name for name in _NEEDED if name not in frame]
    if missing and len(frame):
        raise InputError(
            expected=f"rows of measure_moments with {', '.join(_NEEDED)}",
            got=f"no column {', '.join(missing)}",
            fix="Concatenate the frames of measure_moments of your runs.",
        )
    wrong = {name: way for name, way in (family or {}).items() if way not in _ALTERNATIVES}
    if wrong:
        raise InputError(
            expected="directions +1, -1 or 0 (any)", got=f"{wrong}", fix="Predict before looking."
        )


def _groups(changes: Any, by: Sequence[str]) -> list[tuple[tuple[Any, ...], Any]]:
    if not by:
        return [((), changes)]
    return [(tuple(key), rows) for key, rows in changes.groupby(list(by), sort=False)]


def _runs(changes: Any) -> list[Any]:
    runs = changes.groupby(["model", "seed"], dropna=False, sort=False)
    return [run for _, run in runs]


def _moments(run: Any) -> pd.DataFrame:
    return run.drop_duplicates("moment")[["moment", "kind", "matched", *_WINDOW]]


def _in_phases(changes: Any, kind: str, phases: tuple[float | int, float | int]) -> pd.DataFrame:
    """Rows with the jumps of other phases under another kind: they still keep controls away."""
    phase = changes["phase"].to_numpy(float, na_value=np.nan)
    low, high = phases
    inside = ~((phase <= low) & (low > 0)) & ~(phase > high)
    outside = (changes["kind"] == kind).to_numpy(bool) & ~inside
    return changes.assign(kind=changes["kind"].astype(object).mask(outside, "other jump"))


def _blocks(
    arranged: Sequence[tuple[Any, pd.DataFrame]], metric: str, adjust: bool
) -> list[list[MatchedBlock]]:
    """Of each run its blocks, for one metric."""
    changes = []
    for run, events in arranged:
        values = run.loc[run["metric"] == metric].set_index("moment")["value"]
        changes.append(values.reindex(events["moment"]).to_numpy(float))
    if adjust:
        models = [str(run["model"].iloc[0]) for run, _ in arranged]
        places = [events["during"].to_numpy(float) for _, events in arranged]
        changes = without_trend(changes, places, models)
    pairs = zip(changes, (events for _, events in arranged), strict=True)
    return [matched_blocks(values, events) for values, events in pairs]


def _effect(
    runs: Sequence[Sequence[MatchedBlock]],
    direction: int,
    *,
    level: float,
    n_null: int,
    n_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Effect, null and interval over the runs that have a block."""
    runs = [blocks for blocks in runs if blocks]
    n = sum(len(block.jumps) for blocks in runs for block in blocks)
    names = ("value", "null_mean", "null_sd", "p", "low", "high", "unit", "least_p")
    found: dict[str, Any] = {**dict.fromkeys(names, np.nan), "n": n, "expected": direction}
    if not runs:
        return found
    value = float(np.mean([run_difference(blocks) for blocks in runs]))
    draws, exact = permuted_means(runs, n_null=n_null, seed=seed)
    places = 12 - _digits(draws)  # sums in another order differ in the last digits
    p = permutation_p(
        round(value, places), draws.round(places), alternative=_ALTERNATIVES[direction], exact=exact
    )
    resampled = resampled_means(runs, n_resamples=n_resamples, seed=seed)
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    found |= {"value": value, "null_mean": float(draws.mean()), "null_sd": float(draws.std())}
    found |= {"p": p, "low": float(low), "high": float(high)}
    found |= {"unit": float(draws.std() * np.sqrt(n))}
    found["least_p"] = 1 / len(draws) if exact else 1 / (1 + len(draws))
    return found


def _digits(draws: np.ndarray) -> int:
    """Order of magnitude of the largest draw."""
    top = float(np.abs(draws).max())
    return int(np.floor(np.log10(top))) if top > 0 else 0


def _counts(
    arranged: Sequence[tuple[Any, pd.DataFrame]],
    blocks: Sequence[Sequence[MatchedBlock]],
    kind: str,
) -> dict[str, Any]:
    by_seed: dict[Any, list[float]] = {}
    for (run, _), found in zip(arranged, blocks, strict=True):
        if found:
            by_seed.setdefault(run["seed"].iloc[0], []).append(run_difference(found))
    means = np.array([np.mean(each) for each in by_seed.values()])
    sign = np.sign(np.mean([each for found in by_seed.values() for each in found] or [0.0]))
    asked = sum(int(np.count_nonzero(_moments(run)["kind"] == kind)) for run, _ in arranged)
    placed = sum(int(np.count_nonzero(events["jump"])) for _, events in arranged)
    return {
        "n_runs": sum(map(len, by_seed.values())),
        "n_seeds": len(by_seed),
        "n_agree": int(np.count_nonzero(np.sign(means) == sign)),
        "n_controls": sum(len(block.controls) for found in blocks for block in found),
        "n_left_out": asked - placed,
    }
