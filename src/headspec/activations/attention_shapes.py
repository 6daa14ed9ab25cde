"""Attention that knows nothing of content: uniform, a window, the first token; by closed forms.

No pattern is formed: what a query of such attention does follows from its position, and its mass
on each topic from running counts of the labels.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from headspec.errors import InputError

Shape = Literal["uniform", "window", "first"]
SHAPES: tuple[Shape, ...] = ("uniform", "window", "first")


def topic_columns(
    labels: Integer[Tensor, "*batch pos"], n_topics: int | None = None
) -> Float[Tensor, "*batch pos topic"]:
    """One column a topic, 1 where a position has it; rows of zeros for negative labels.

    Args:
        labels: topic of each position, from 0; negative: none.
        n_topics: columns; None: as many as the largest label asks for.

    Raises:
        InputError: no label at all, or one too large.
    """
    wide = labels.long()
    largest = int(wide.max()) if wide.numel() else -1
    if largest < 0 or (n_topics is not None and largest >= n_topics):
        raise InputError(
            expected="topic labels from 0 up"
            + ("" if n_topics is None else f", below n_topics={n_topics}"),
            got=f"largest label {largest}" if wide.numel() else "no position",
            fix="Negative labels mark positions without a topic; some must have one.",
        )
    topics = torch.arange(n_topics or largest + 1, device=wide.device)
    return (wide[..., None] == topics).float()


def key_bounds(
    n_pos: int, shape: Shape, *, window: int = 32, causal: bool = True
) -> Int[Tensor, "2 pos"]:
    """First key and one past the last key that each query attends to, equally to each.

    Args:
        n_pos: length.
        shape: `"uniform"` over all keys that are allowed; `"window"` over the last `window` keys,
            the query's own among them (the nearest, centred, when not causal); `"first"` the first
            token alone.
        window: tokens.
        causal: whether keys after the query are forbidden.
    """
    at = torch.arange(n_pos)
    start, stop = torch.zeros_like(at), at + 1 if causal else torch.full_like(at, n_pos)
    if shape == "first":
        stop = torch.ones_like(at)
    elif shape == "window":
        ahead = 0 if causal else (window - 1) // 2
        stop = (at + ahead + 1).clamp(max=n_pos)
        start = (at + ahead + 1 - window).clamp(min=0)
    return torch.stack([start, stop])


def shape_masses(
    labels: Integer[Tensor, "batch pos"],
    shape: Shape,
    *,
    window: int = 32,
    causal: bool = True,
    n_topics: int | None = None,
) -> Float[Tensor, "batch pos topic"]:
    """Mass of each query on the keys of each topic, float64, for content-free attention.

    Args:
        labels, n_topics: as in `topic_columns`.
        shape, window, causal: as in `key_bounds`.
    """
    counts = topic_columns(labels, n_topics).double().cumsum(1)
    counts = torch.cat([torch.zeros_like(counts[:, :1]), counts], 1)
    start, stop = key_bounds(labels.shape[1], shape, window=window, causal=causal).to(counts.device)
    return (counts[:, stop] - counts[:, start]) / (stop - start)[:, None]


def shape_by_query(
    n_pos: int, shape: Shape, *, window: int = 32, causal: bool = True
) -> dict[str, Float[Tensor, " pos"]]:
    """Entropy (nats), distance (tokens) and sink mass of each query, float64.

    Args:
        n_pos, shape, window, causal: as in `key_bounds`.
    """
    start, stop = key_bounds(n_pos, shape, window=window, causal=causal).double()
    at, width = torch.arange(n_pos, dtype=torch.float64), stop - start
    behind, ahead = at - start, (stop - 1 - at).clamp(min=0)
    summed = (behind * (behind + 1) + ahead * (ahead + 1)) / 2
    distance = at if shape == "first" else summed / width
    return {
        "entropy": width.log(),
        "distance": distance,
        "sink_mass": (start == 0).double() / width,
    }
