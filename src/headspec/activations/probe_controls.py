"""Control tasks: labels that a probe can only have by memory, never from meaning."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Int

ControlTask = Literal["token_type", "group"]


def control_labels(
    codes: Int[np.ndarray, " sample"],
    *,
    groups: Int[np.ndarray, " sample"],
    token_types: Int[np.ndarray, " sample"] | None = None,
    seed: int = 0,
) -> Int[np.ndarray, " sample"]:
    """Labels of the control task, as frequent as the real ones up to chance.

    With token types (Hewitt and Liang 2019): every type has one class, drawn at random from the
    classes' frequencies, wherever it occurs. A probe that reads token identity and memorises does
    as well on it as on the real labels. Without: every group gets the labels of another group, in
    their order (repeated or cut to length). Nothing that is inside a group tells them; positions
    may, and a probe that only knows where labels stand in a sequence does as well on them.

    Args:
        codes: real classes, from 0.
        groups: group of each sample; samples of a group in their order.
        token_types: type of each sample, such as its token id.
        seed: of the drawing.
    """
    rng = np.random.default_rng([seed, 1])
    if token_types is not None:
        types, member = np.unique(token_types, return_inverse=True)
        return rng.choice(codes, size=len(types))[member]
    names, member = np.unique(groups, return_inverse=True)
    order = np.argsort(member, kind="stable")
    rows = np.split(order, np.cumsum(np.bincount(member))[:-1])
    ring = rng.permutation(len(names))  # each takes from the next: none from itself
    out = np.empty_like(codes)
    for taker, giver in zip(ring, np.roll(ring, -1), strict=True):
        out[rows[taker]] = np.resize(codes[rows[giver]], len(rows[taker]))
    return out
