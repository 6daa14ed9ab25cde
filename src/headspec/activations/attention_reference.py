"""`attention_baselines`: what attention without any knowledge scores on the same labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from headspec.activations.attention_by_topic import (
    TopicTotals,
    by_query_topic,
    ratio_of_totals,
    specialisation_of_totals,
)
from headspec.activations.attention_shapes import SHAPES, shape_by_query, shape_masses
from headspec.errors import InputError
from headspec.results import tidy

_CHUNK = 2_000_000  # numbers of running counts held at a time


@dataclass(frozen=True, kw_only=True)
class AttentionBaselines:
    """Figures of content-free attention: uniform, over a window, on the first token alone.

    Attributes:
        means: metric -> one number for each of `kinds`, mean over queries (and sequences):
            `"entropy"` nats, `"distance"` tokens, `"sink_mass"`, and with labels
            `"within_topic_mass"`, `"topic_ratio"`, `"topic_specialisation"`.
        by_query: the same per query, `kind q_pos`, mean over sequences (no ratio, no
            specialisation); nan where no sequence has a query that counts.
        kinds: `("uniform", "window", "first")`.
        n: sequences; 0 without labels.
        n_pos: tokens of a sequence.
        window: tokens of the window, the query's own among them.
        causal: whether keys after the query are forbidden.
    """

    means: Mapping[str, Float[np.ndarray, " kind"]]
    by_query: Mapping[str, Float[np.ndarray, "kind q_pos"]]
    kinds: tuple[str, ...]
    n: int
    n_pos: int
    window: int
    causal: bool

    @property
    def uniform(self) -> dict[str, float]:
        """metric -> mean of uniform attention. Its entropy is the ceiling of any attention."""
        return self._of("uniform")

    @property
    def windowed(self) -> dict[str, float]:
        """metric -> mean of attention to the last `window` tokens."""
        return self._of("window")

    @property
    def first(self) -> dict[str, float]:
        """metric -> mean of attention to the first token."""
        return self._of("first")

    def _of(self, kind: str) -> dict[str, float]:
        row = self.kinds.index(kind)
        return {metric: float(values[row]) for metric, values in self.means.items()}

    def to_frame(self) -> pd.DataFrame:
        """One row a baseline and metric; extra columns `baseline`, `window`, `causal`."""
        rows = [
            {"metric": metric, "value": value, "baseline": kind}
            for metric, values in self.means.items()
            for kind, value in zip(self.kinds, values.tolist(), strict=True)
        ]
        return tidy(rows, n=self.n or None, window=self.window, causal=self.causal)

    def summary(self) -> str:
        """One line a baseline."""
        names = {"uniform": "uniform", "window": f"last {self.window} tokens", "first": "first"}
        lines = [f"Attention without content, {self.n_pos} tokens:"]
        for kind in self.kinds:
            figures = ", ".join(
                f"{metric.replace('_', ' ')} {value:.3f}"
                for metric, value in self._of(kind).items()
            )
            lines.append(f"  {names[kind]}: {figures}")
        return "\n".join(lines)


def attention_baselines(
    labels: Integer[Tensor, "*batch pos"] | Integer[np.ndarray, "*batch pos"] | int,
    *,
    window: int = 32,
    causal: bool = True,
    counted: Bool[Tensor, "*rows q_pos"] | None = None,
) -> AttentionBaselines:
    """What uniform, windowed and first-token attention score, on the same labels.

    A head's figure means something only beside these: the entropy of uniform attention is the
    ceiling of all causal attention (mean ln(t + 1) over queries), and its within-topic mass is
    what no knowledge of topics gives. By closed forms: no pattern is held, 16,384 tokens are
    nothing.

    Args:
        labels: topic of each position, negative for none, as in `within_topic_mass`; or the number
            of positions, for the figures that need no labels.
        window: tokens of the window, the query's own among them.
        causal: whether keys after the query are forbidden. False: uniform over all keys, and the
            window is centred.
        counted: queries that count, one row a sequence; None: all. For topics, the labelled ones
            among them.

    Returns:
        An `AttentionBaselines`, float64.

    What it does not show: chance variation. A head of another reach than the window has another
    within-topic mass by position alone; `attention_statistics` adds each head's own, with the
    labels of other sequences.

    Raises:
        InputError: no position, no query that counts, a window below 1.

    Example:
        >>> round(attention_baselines(512).uniform["entropy"], 3)
        5.246
    """
    rows = _as_rows(labels)
    n_pos = labels if isinstance(labels, int) else int(rows.shape[1])
    if n_pos < 1 or window < 1:
        raise InputError(
            expected="at least one position and a window of at least one token",
            got=f"{n_pos} positions, window {window}",
            fix="Use window=32, say.",
        )
    queries = torch.ones(max(len(rows), 1), n_pos, dtype=torch.bool)
    queries = queries if counted is None else counted.cpu().reshape(-1, n_pos)
    if not queries.any():
        raise InputError(expected="a query that counts", got="none", fix="Check the mask.")
    weight = queries.sum(0).double().numpy()
    by_query: dict[str, np.ndarray] = {}
    for metric in ("entropy", "distance", "sink_mass"):
        figures = [shape_by_query(n_pos, k, window=window, causal=causal)[metric] for k in SHAPES]
        by_query[metric] = np.stack([figure.numpy() for figure in figures])
    means = {metric: values @ weight / weight.sum() for metric, values in by_query.items()}
    for values in by_query.values():
        values[:, weight == 0] = np.nan
    if not isinstance(labels, int):
        _add_topics(means, by_query, rows.masked_fill(~queries, -1), rows, window, causal)
    return AttentionBaselines(
        means=means,
        by_query=by_query,
        kinds=SHAPES,
        n=0 if isinstance(labels, int) else len(rows),
        n_pos=n_pos,
        window=window,
        causal=causal,
    )


def _as_rows(labels: Tensor | np.ndarray | int) -> Tensor:
    if isinstance(labels, int):
        return torch.empty(0, 0, dtype=torch.long)
    if isinstance(labels, np.ndarray):
        labels = torch.from_numpy(labels.astype(np.int64))
    return labels.cpu().long().reshape(-1, labels.shape[-1])


def _add_topics(
    means: dict[str, np.ndarray],
    by_query: dict[str, np.ndarray],
    queries: Tensor,
    keys: Tensor,
    window: int,
    causal: bool,
) -> None:
    """Within-topic mass, topic ratio and specialisation, a few sequences at a time."""
    n_topics = int(keys.max()) + 1
    n_pos = keys.shape[1]
    summed = torch.zeros(len(SHAPES), n_pos, dtype=torch.float64)
    totals = torch.zeros(len(SHAPES), 2, max(n_topics, 1), dtype=torch.float64)
    size = max(1, _CHUNK // (n_pos * max(n_topics, 1)))
    for start in range(0, len(keys), size):
        rows = slice(start, start + size)
        own = queries[rows, :, None]
        for i, shape in enumerate(SHAPES):
            masses = shape_masses(
                keys[rows], shape, window=window, causal=causal, n_topics=n_topics
            )
            within = masses.gather(-1, own.clamp(min=0)).masked_fill(own < 0, 0)
            summed[i] += within[..., 0].sum(0)
            parts = by_query_topic(masses[:, None], queries[rows])
            totals[i] += torch.stack([part.sum((0, 1)) for part in parts])
    count = (queries >= 0).sum(0).double()
    means["within_topic_mass"] = (summed.sum(1) / count.sum()).numpy()
    by_query["within_topic_mass"] = (summed / count).numpy()
    within, cross = totals.numpy().swapaxes(0, 1)
    found = TopicTotals(within, cross, within[:1], cross[:1])
    means["topic_ratio"] = ratio_of_totals(found)
    means["topic_specialisation"] = specialisation_of_totals(found)
