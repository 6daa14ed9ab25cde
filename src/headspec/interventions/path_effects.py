"""The result of path patching: one number for each path from a sender to a receiver."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from headspec.heads import Head
from headspec.interventions.example_effects import ExampleEffects
from headspec.results import tidy


@dataclass(frozen=True, kw_only=True)
class PathEffects(ExampleEffects):
    """How a metric changes when one path alone carries the other run's activation.

    Properties are shaped `sender receiver`, nan where no path exists; see `ExampleEffects` for
    intervals, and `patch_paths` for what a path is. What an effect does not show: that effects of
    paths add up to that of the sender (later layers are not linear in them).

    Attributes:
        senders: heads of the sender of each row.
        receivers: receiver of each row, such as `"L5H1.q"`, `"L3.mlp"`, `"logits"`.
        freeze_mlps: whether MLPs between the two were frozen (the direct path alone).
        values, base, target, metric, unit, site, mode, groups, level, n_bootstrap, seed, model,
            step, processing, notes: see `ExampleEffects`.
    """

    senders: tuple[tuple[Head, ...], ...]
    receivers: tuple[str, ...]
    freeze_mlps: bool

    @property
    def sender_names(self) -> tuple[str, ...]:
        """Names of the axis of senders, in order."""
        return tuple(dict.fromkeys(map(_name, self.senders)))

    @property
    def receiver_names(self) -> tuple[str, ...]:
        """Names of the axis of receivers, in order."""
        return tuple(dict.fromkeys(self.receivers))

    def shaped(self, per_row: np.ndarray) -> np.ndarray:
        """Numbers of rows (first axis) as `sender receiver`."""
        senders, receivers = self.sender_names, self.receiver_names
        out = np.full((len(senders), len(receivers), *per_row.shape[1:]), np.nan)
        rows = [senders.index(_name(heads)) for heads in self.senders]
        out[rows, [receivers.index(name) for name in self.receivers]] = per_row
        return out

    def to_frame(self) -> pd.DataFrame:
        """One row a path: `value` is the mean effect on `metric`, `n` distinct examples.

        Extra columns: sender, receiver, ends of the intervals, effect relative to the gap, base
        and target metric, freeze_mlps, mode, unit, processing. `layer` and `head` are the
        sender's, where it is one head.
        """
        rows = {
            "layer": [heads[0].layer if len(heads) == 1 else None for heads in self.senders],
            "head": [heads[0].index if len(heads) == 1 else None for heads in self.senders],
            **self.columns(),
            "sender": list(map(_name, self.senders)),
            "receiver": list(self.receivers),
        }
        return tidy(rows, freeze_mlps=self.freeze_mlps, **self.constants())

    def summary(self, *, top: int = 5) -> str:
        """What was done, the largest effects with intervals, and how many chance alone allows."""
        names = [
            f"{_name(heads)} -> {receiver}"
            for heads, receiver in zip(self.senders, self.receivers, strict=True)
        ]
        what = "direct paths" if self.freeze_mlps else "paths (through MLPs)"
        return self.describe(what, names, top=top)


def _name(heads: tuple[Head, ...]) -> str:
    return " ".join(map(str, heads))
