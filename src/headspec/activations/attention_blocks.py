"""Attention and its statistics from queries and keys, without ever holding a whole pattern."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headspec.activations.attention import check_pattern
from headspec.errors import InputError

_ROWS = 128  # queries of a head at a time: measured best on one core at 2,048 tokens
_MASKED = -1e30  # finite, so that 0 * score stays 0; exp of it is exactly 0


@dataclass(frozen=True, kw_only=True)
class AttendedQueries:
    """What each query's attention is like, and what it reads.

    Attributes:
        entropy: nats.
        distance: tokens, mean of query minus key.
        sink_mass: probability of the first key.
        topic_mass: probability of the keys of each column of `topics`.
        z: mean of the values, in the dtype of the queries; empty without values.
    """

    entropy: Float[Tensor, "batch head q_pos"]
    distance: Float[Tensor, "batch head q_pos"]
    sink_mass: Float[Tensor, "batch head q_pos"]
    topic_mass: Float[Tensor, "batch head q_pos topic"]
    z: Float[Tensor, "batch head q_pos d_value"]


def read_pattern(
    pattern: Float[Tensor, "batch head pos pos"],
    *,
    topics: Float[Tensor, "batch pos topic"] | None = None,
    causal: bool = True,
) -> AttendedQueries:
    """The same figures from a whole pattern, checked once; without `z`.

    Args:
        pattern: attention probabilities.
        topics: as in `attend_in_blocks`.
        causal: as in `attention_entropy`.

    Raises:
        InputError: as `attention_entropy`.
    """
    checked = check_pattern(pattern, causal=causal)
    at = torch.arange(checked.shape[-1], device=checked.device)
    columns = checked.new_empty(*checked.shape[::3], 0) if topics is None else topics
    return AttendedQueries(
        entropy=torch.special.entr(checked).sum(-1, dtype=torch.float64),
        distance=(checked * (at[:, None] - at).abs()).sum(-1, dtype=torch.float64),
        sink_mass=checked[..., 0].double(),
        topic_mass=(checked @ columns.to(checked)[:, None]).double(),
        z=checked.new_empty(*checked.shape[:3], 0),
    )


@torch.no_grad()
def attend_in_blocks(
    q: Float[Tensor, "batch head pos d_head"],
    k: Float[Tensor, "batch kv_head pos d_head"],
    v: Float[Tensor, "batch kv_head pos d_value"] | None = None,
    *,
    scale: float | int,
    topics: Float[Tensor, "batch pos topic"] | None = None,
    mask: Bool[Tensor, "batch mask_head pos pos"] | None = None,
    max_scores: int | None = None,
) -> AttendedQueries:
    """Causal attention by blocks of queries, with the statistics of `attention_entropy` and others.

    With scores s_k = scale q . k, m their largest and Z = sum_k exp(s_k - m), the entropy is

        H = ln Z - E[s - m],    E under p_k = exp(s_k - m) / Z,

    and everything else a mean of some column under p: the values, key positions, topics and the
    ones that give Z are columns of one matrix, so that one product a block yields all. Keys after
    a block are never looked at. Memory is two blocks of scores whatever the length.

    Args:
        q, k, v: after norms and rotations. Query head h reads key-value head h // (heads /
            key-value heads). float64 is computed in float64, all else in float32.
        scale: factor on scores.
        topics: columns to sum probabilities of keys over, such as `topic_columns(labels)`.
        mask: True where a query may look, besides being causal (a sliding window), for all heads
            or for one; a row must allow one key or means nothing.
        max_scores: scores held at a time; None: 2 million on a CPU, 64 million on a GPU.

    Returns:
        `AttendedQueries`, in the dtype of the computation.

    Raises:
        InputError: heads that do not divide.

    Example:
        >>> import torch
        >>> q = torch.zeros(1, 1, 4, 2).double()
        >>> attend_in_blocks(q, q, scale=1).entropy.round(decimals=3).tolist()
        [[[0.0, 0.693, 1.099, 1.386]]]
    """
    batch, n_heads, n_pos, _ = q.shape
    n_kv, dtype = k.shape[1], torch.float64 if q.dtype == torch.float64 else torch.float32
    if n_heads % n_kv:
        raise InputError(
            expected="a number of query heads that key-value heads divide",
            got=f"{n_heads} query heads and {n_kv} key-value heads",
            fix="Keep keys and values at their native heads.",
        )
    group = n_heads // n_kv
    d_value = 0 if v is None else v.shape[-1]
    n_topics = 0 if topics is None else topics.shape[-1]
    out = q.new_empty(batch, n_heads, n_pos, d_value + n_topics + 4, dtype=dtype)
    budget = max_scores or (2**21 if q.device.type == "cpu" else 2**26)
    rows = min(_ROWS, n_pos)
    size = max(1, budget // (rows * group * n_pos))  # key-value heads at a time
    memory = q.new_empty(2, min(size, n_kv) * group * rows * n_pos, dtype=dtype)
    for sequence in range(batch):
        shared = q.new_empty(n_pos, n_topics + 2, dtype=dtype)
        shared[:, 0] = 1
        if topics is not None:
            shared[:, 2:] = topics[sequence]
        for start in range(0, n_kv, size):
            kv = slice(start, min(start + size, n_kv))
            heads = slice(kv.start * group, kv.stop * group)
            columns = shared.expand(kv.stop - kv.start, -1, -1)
            read = [] if v is None else [v[sequence, kv].to(dtype)]
            allowed = None
            if mask is not None:
                allowed = mask[sequence] if mask.shape[1] == 1 else mask[sequence, heads]
            _attend(
                (q[sequence, heads].to(dtype) * scale).unflatten(0, (-1, group)),
                k[sequence, kv].to(dtype).mT,
                torch.cat([columns, *read], -1),
                allowed=allowed,
                rows=rows,
                memory=memory,
                out=out[sequence, heads].unflatten(0, (-1, group)),
            )
    entropy, sink, ahead, topic_mass, z = out.split([1, 1, 2, n_topics, d_value], -1)
    return AttendedQueries(
        entropy=entropy[..., 0],
        distance=ahead[..., 1],
        sink_mass=sink[..., 0],
        topic_mass=topic_mass,
        z=z.to(q.dtype),
    )


def _attend(
    q: Tensor,
    k: Tensor,
    columns: Tensor,
    *,
    allowed: Tensor | None,
    rows: int,
    memory: Tensor,
    out: Tensor,
) -> None:
    """Fill `out` (`kv group q_pos column`: entropy, sink, 1, distance, the rest) block by block.

    Args:
        q: scaled, `kv group pos d_head`.
        k: `kv d_head pos`.
        columns: `kv pos column`; column 0 is ones, column 1 is overwritten.
        allowed: `1|head pos pos`.
        rows: queries in a block.
        memory: two buffers for scores.
        out: view to write to.
    """
    n_kv, group, n_pos, _ = q.shape
    at = torch.arange(n_pos, device=q.device, dtype=q.dtype)
    hidden = q.new_full((rows, rows), _MASKED).triu(1)
    for start in range(0, n_pos, rows):
        stop = min(start + rows, n_pos)
        shape = (n_kv, group, stop - start, stop)
        count = n_kv * group * (stop - start) * stop
        scores, weights = (part[:count].view(n_kv, -1, stop) for part in memory)
        torch.matmul(q[:, :, start:stop].flatten(1, 2), k[..., :stop], out=scores)
        if allowed is not None:
            blocked = ~allowed[:, start:stop, :stop]
            blocked = blocked if len(blocked) == 1 else blocked.unflatten(0, (n_kv, group))
            scores.view(shape).masked_fill_(blocked, _MASKED)
        scores.view(shape)[..., start:] += hidden[: stop - start, : stop - start]
        scores -= scores.amax(-1, keepdim=True)
        torch.exp(scores, out=weights)
        columns[:, :, 1] = start - at  # small numbers near the block: distances stay exact
        means = weights @ columns[:, :stop]
        sums = means[..., :1]
        means = means / sums
        sink = weights[..., 0] / sums[..., 0]
        expected = weights.mul_(scores).sum(-1) / sums[..., 0]
        block = out[:, :, start:stop]
        block[..., 0] = (sums[..., 0].log() - expected).view(shape[:3])
        block[..., 1] = sink.view(shape[:3])
        block[..., 2:] = means.view(*shape[:3], -1)
        block[..., 3] += at[: stop - start]
