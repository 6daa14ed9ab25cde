"""Claims of the published study about losses, beside matched control steps of the same runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from headspec.series.jump_loss_result import LossAroundJumps
from headspec.series.jump_losses import loss_around_jumps
from headspec.series.jump_phases import PHASE_NAMES
from headspec.series.jump_rows import EDGES
from headspec.studies.jump_published import MEASURED_EVERY, N_STEPS
from headspec.studies.jump_published_claims import claim
from headspec.studies.jump_published_layers import TRANSFORMER

_PUBLISHED = (0.104, -0.287)
_WIDEST = 25
_REACH = 10


def published_losses(jumps: pd.DataFrame, logs: pd.DataFrame, *, seed: int = 0) -> LossAroundJumps:
    """Change of the loss around the published jumps of the three runs whose loss is published.

    Args:
        jumps: of `load_published_jumps`.
        logs: frames of `load_ndt_log`, concatenated.
        seed: of controls and draws.

    **What it does not show.** What jumped was the norm of activations on one batch, and the loss is
    that of one batch too.
    """
    rows: Any = jumps
    grid = np.arange(0, N_STEPS, MEASURED_EVERY)
    own = rows.loc[rows["model"].isin(set(logs["model"]))]
    return loss_around_jumps(
        own.assign(seed=0),
        logs.assign(seed=0),
        window=MEASURED_EVERY,
        n_steps=N_STEPS,
        steps=grid,
        seed=seed,
    )


def neighbour_shares(jumps: pd.DataFrame, logs: pd.DataFrame) -> pd.DataFrame:
    """How often the loss falls from one measurement to the next: at jumps, and at those around.

    Every measurement at which some layer of a run jumps counts once; beside it the measurements
    within ten of it at which none does. Unlike `published_losses` it leaves out no jump, and
    matches less strictly.

    Args:
        jumps: of `load_published_jumps`.
        logs: frames of `load_ndt_log`, concatenated.

    Returns:
        One row a part of training (`early`, `mid`, `late`, by updates): `moments`, `jumps` and
        `neighbours`, shares that improve.
    """
    table: Any = jumps
    rows = []
    for model, log in logs.groupby("model"):
        falls = np.diff(log["loss"].to_numpy(float)) < 0
        places = np.unique(table.loc[table["model"] == model, "index"])
        free = np.setdiff1d(np.arange(len(falls)), places)
        for place in places:
            near = free[np.abs(free - place) <= _REACH]
            part = np.digitize(place * MEASURED_EVERY / N_STEPS, EDGES, right=True)
            around = falls[near].mean() if len(near) else np.nan
            rows.append((PHASE_NAMES[int(part)], falls[place], around))
    found: Any = pd.DataFrame(rows, columns=["part", "jumps", "neighbours"]).astype(
        {"jumps": float}
    )
    groups = found.groupby("part")
    shares = groups[["jumps", "neighbours"]].mean().assign(moments=groups.size())
    return shares.reindex([part for part in PHASE_NAMES if part in shares.index]).reset_index()


def loss_claims(
    jumps: pd.DataFrame, logs: pd.DataFrame, found: LossAroundJumps
) -> list[dict[str, str]]:
    """Claims about the loss at jumps.

    Args:
        jumps: of `load_published_jumps`.
        logs: frames of `load_ndt_log`, concatenated.
        found: of `published_losses`.
    """
    rows: Any = jumps
    own = rows.loc[rows["model"].isin(set(logs["model"]))]
    mid = own["published_phase"] > 0.1
    improving, window = _nearest_shares(own, logs)
    parts: Any = found.to_frame()
    change = parts.loc[parts["metric"] == "loss_change.difference"].set_index("part").loc["all"]
    beside = ", ".join(
        f"{row['part']} {row['jumps']:.1%} against {row['neighbours']:.1%}"
        for row in neighbour_shares(jumps, logs).to_dict("records")
    )
    pairs = _representative_changes(logs)
    best = min(pairs, key=lambda pair: float(np.abs(np.subtract(pair, _PUBLISHED)).sum()))
    return [
        claim(
            "Early jumps coincide with improvement of the loss more often than mid ones: they are "
            "learning, not noise.",
            "66.2 % and 47.7 %",
            f"100 of {int((~mid).sum())} and 41 of {int(mid.sum())} would give them; mean losses "
            f"{window} measurements before and after give {improving[0]:.1%} and "
            f"{improving[1]:.1%}",
            corrected="by corrected phase, from one measurement to the next: at jumps against the "
            f"measurements around without a jump: {beside}; by strictly matched controls the loss "
            f"changes by {change['value']:+.3f} [{change['low']:+.3f} to {change['high']:+.3f}] "
            f"more, p = {change['p']:.2g} ({int(change['n_moments'])} moments; {found.n_left_out} "
            "have no control)",
            reason="The window is not published. The loss falls early in training, with jumps or "
            "without: only the difference from steps without a jump says anything.",
            status="corrected" if change["p"] <= 0.05 else "refuted",
        ),
        claim(
            "Late jumps of the transformer improve the loss more than early ones.",
            "early (.177) +.104, late (.198) -.287",
            f"no window of up to {_WIDEST} measurements gives both; the nearest "
            f"{best[0]:+.3f} and {best[1]:+.3f}",
            corrected="four jumps, all between 85 and 99 % of training, where the loss of a batch "
            f"varies by {_late_spread(logs):.3f} (standard deviation)",
            reason="Two jumps against two, in losses of single batches.",
            status="cannot be decided",
        ),
    ]


def _nearest_shares(own: Any, logs: pd.DataFrame) -> tuple[tuple[float, float], int]:
    """Shares of early and mid jumps whose loss improves, by the nearest symmetric window."""
    found = []
    for width in range(1, _WIDEST + 1):
        changes = _window_changes(own, logs, width)
        mid = (own["published_phase"] > 0.1).to_numpy()
        shares = tuple(float(np.mean(changes[part] < 0)) for part in (~mid, mid))
        found.append((abs(shares[0] - 0.662) + abs(shares[1] - 0.477), shares, width))
    _, shares, width = min(found)
    return (shares[0], shares[1]), width


def _window_changes(own: Any, logs: Any, width: int) -> np.ndarray:
    """Mean loss of `width` measurements after each jump less that of as many before."""
    losses = {name: run["loss"].to_numpy(float) for name, run in logs.groupby("model")}
    out = []
    for model, index in zip(own["model"], own["index"], strict=True):
        loss = losses[model]
        before = loss[max(0, index - width + 1) : index + 1]
        out.append(loss[index + 1 : index + 1 + width].mean() - before.mean())
    return np.array(out)


def _representative_changes(logs: Any) -> list[tuple[float, float]]:
    """Loss changes at the "early" and the "late" pair of jumps, by every window."""
    loss = logs.loc[logs["model"] == TRANSFORMER, "loss"].to_numpy(float)
    last = len(loss) - 1
    out = []
    for before in range(_WIDEST + 1):
        for after in range(_WIDEST + 1):
            pairs = [
                np.mean([loss[min(i + after, last)] - loss[max(i - before, 0)] for i in pair])
                for pair in ((343, 367), (395, 396))
            ]
            out.append((float(pairs[0]), float(pairs[1])))
    return out


def _late_spread(logs: Any) -> float:
    loss = logs.loc[logs["model"] == TRANSFORMER, "loss"].to_numpy(float)
    return float(loss[340:].std(ddof=1))
