"""Sums of attention figures over queries, kept by sequence, layer and head, as batches come in."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from headspec.activations.attention_blocks import AttendedQueries
from headspec.activations.attention_by_topic import by_query_topic, ratios_by_topic
from headspec.activations.attention_estimates import (
    BOUNDS,
    OF_TOPICS,
    Estimate,
    estimate_excess,
    jackknife,
    mean_of,
    summed,
    topic_totals,
)
from headspec.activations.attention_shapes import shape_masses, topic_columns

_CHUNK = 2_000_000  # numbers of running counts held at a time
PLAIN = ("entropy", "distance", "sink_mass")


class AttentionTotals:
    """Accumulates figures of queries in float64; a statistic of the sums comes out, with its error.

    Args:
        counted: queries that count, one row a sequence.
        labels: topic of each position, negative for none; None: no topics.
        n_layers, n_heads: of the model.
        n_exchanged: how many other sequences' labels each sequence is also read with.
        causal: of the attention.
        seed: of the choice of those sequences.
    """

    def __init__(
        self,
        counted: Bool[Tensor, "sequence pos"],
        labels: Integer[Tensor, "sequence pos"] | None,
        *,
        n_layers: int,
        n_heads: int,
        n_exchanged: int,
        causal: bool,
        seed: int,
    ) -> None:
        n, n_pos = counted.shape
        self.counted, self.causal = counted, causal
        self.sums = {name: np.zeros((n, n_layers, n_heads)) for name in PLAIN}
        names = PLAIN if labels is None else (*PLAIN, "within_topic_mass")
        self.by_query = {name: np.zeros((n_layers, n_heads, n_pos)) for name in names}
        self.labels: list[Tensor] = []
        if labels is None:
            return
        labels = labels.long().masked_fill(~counted, -1)
        self.n_topics = int(labels.max()) + 1
        self.donors = _donors(n, n_exchanged, seed)
        others = [labels[donors].masked_fill(~counted, -1) for donors in self.donors]
        self.labels = [labels, *others]
        shape = (n_layers, n_heads, self.n_topics)
        self.topic_entropy = np.zeros(shape)
        self.within, self.cross = np.zeros((n, *shape)), np.zeros((n, *shape))
        # Of exchanged labels: masses by exchange; within-mass by sequence and by who lent labels.
        self.other_within = np.zeros((len(others), *shape))
        self.other_cross = np.zeros((len(others), *shape))
        self.by_reader, self.by_lender = np.zeros((2, n, n_layers, n_heads))

    def columns(self, rows: slice) -> Float[Tensor, "batch pos topic"] | None:
        """What `attend_in_blocks` sums probabilities over, for some sequences."""
        if not self.labels:
            return None
        return torch.cat([topic_columns(each[rows], self.n_topics) for each in self.labels], -1)

    def add(self, layer: int, rows: slice, figures: AttendedQueries) -> None:
        """Take in one layer of some sequences."""
        skipped = ~self.counted[rows].to(figures.entropy.device)[:, None]
        for name in PLAIN:
            values = getattr(figures, name).double().masked_fill(skipped, 0)
            self.sums[name][rows, layer] = values.sum(-1).cpu().numpy()
            self.by_query[name][layer] += values.sum(0).cpu().numpy()
        if not self.labels:
            return
        parts = figures.topic_mass.unflatten(-1, (len(self.labels), -1)).unbind(-2)
        for i, (part, labels) in enumerate(zip(parts, self.labels, strict=True)):
            within, cross = (x.cpu().numpy() for x in by_query_topic(part, labels[rows]))
            if i == 0:
                self.within[rows, layer], self.cross[rows, layer] = within, cross
                continue
            self.other_within[i - 1, layer] += within.sum(0)
            self.other_cross[i - 1, layer] += cross.sum(0)
            self.by_reader[rows, layer] += within.sum(-1)
            self.by_lender[self.donors[i - 1][rows].numpy(), layer] += within.sum(-1)
        own = self.labels[0][rows].to(skipped.device)[:, None, :, None]
        mass = parts[0].double()
        mass = mass.gather(-1, own.clamp(min=0).expand(-1, mass.shape[1], -1, -1))
        mass = mass.masked_fill(own < 0, 0)[..., 0]
        self.by_query["within_topic_mass"][layer] += mass.sum(0).cpu().numpy()
        queries = topic_columns(own[:, 0, :, 0], self.n_topics).double()
        entropy = figures.entropy.double().masked_fill(skipped, 0)
        by_topic = torch.einsum("bhq,bqt->ht", entropy, queries)
        self.topic_entropy[layer] += by_topic.cpu().numpy()

    def query_means(self) -> dict[str, np.ndarray]:
        """Mean of each query over sequences, `layer head q_pos`; nan where none counts."""
        counts = {name: self.counted.sum(0).numpy() for name in self.by_query}
        if self.labels:
            counts["within_topic_mass"] = (self.labels[0] >= 0).sum(0).numpy()
        with np.errstate(invalid="ignore"):
            return {name: values / counts[name] for name, values in self.by_query.items()}

    def topic_means(self) -> dict[str, np.ndarray]:
        """Figures of the queries of each topic, `layer head topic`."""
        if not self.labels:
            return {}
        sums = summed(self._own())
        queries = np.bincount(self.labels[0][self.labels[0] >= 0], minlength=self.n_topics)
        with np.errstate(invalid="ignore"):
            return {
                "entropy": self.topic_entropy / queries,
                "within_topic_mass": sums["within"] / queries,
                "topic_ratio": ratios_by_topic(topic_totals(sums)),
            }

    def estimates(self, level: float) -> dict[str, Estimate]:
        """Every metric with its error over sequences."""
        parts: dict[str, np.ndarray] = {name: self.sums[name] for name in PLAIN}
        parts["queries"] = self.counted.sum(1).double().numpy()[:, None, None]
        found = {name: jackknife(mean_of(name), parts, level=level) for name in PLAIN}
        if not self.labels:
            return found
        own = self._own()
        for name, function in OF_TOPICS.items():
            found[name] = jackknife(function, own, level=level, bounds=BOUNDS[name])
        if len(self.labels) > 1:
            counts = [(other >= 0).sum(1).double() for other in self.labels[1:]]
            lent = torch.zeros(len(self.counted), dtype=torch.float64)
            for donors, count in zip(self.donors, counts, strict=True):
                lent.index_add_(0, donors, count)
            found["topic_excess"] = estimate_excess(
                (self.within.sum(-1), own["labelled"]),
                (self.by_reader, torch.stack(counts).sum(0).numpy()[:, None, None]),
                (self.by_lender, lent.numpy()[:, None, None]),
                n_exchanged=len(counts),
                level=level,
            )
        return found

    def exchanged(self) -> dict[str, Float[np.ndarray, "exchange layer head"]]:
        """Metrics of topics with the labels of other sequences, one draw an exchange.

        Every exchange gives each label row to exactly one sequence, so that what is particular to
        rows of labels or to sequences is in all draws alike.
        """
        draws: list[dict[str, np.ndarray]] = []
        for i, labels in enumerate(self.labels[1:]):
            uniform = _uniform_parts(labels, n_topics=self.n_topics, causal=self.causal).sum(1)
            sums = {
                "within": self.other_within[i],
                "cross": self.other_cross[i],
                "labelled": np.array((labels >= 0).sum().item()),
                "uniform_within": uniform[0],
                "uniform_cross": uniform[1],
            }
            draws.append({name: function(sums) for name, function in OF_TOPICS.items()})
        return {name: np.stack([draw[name] for draw in draws]) for name in OF_TOPICS if draws}

    def _own(self) -> dict[str, np.ndarray]:
        """Per-sequence sums that topic metrics are made of; axes `sequence layer head topic`."""
        labels = self.labels[0]
        uniform = _uniform_parts(labels, n_topics=self.n_topics, causal=self.causal)
        return {
            "within": self.within,
            "cross": self.cross,
            "labelled": (labels >= 0).sum(1).double().numpy()[:, None, None],
            "uniform_within": uniform[0],
            "uniform_cross": uniform[1],
        }


def _uniform_parts(
    labels: Tensor, *, n_topics: int, causal: bool
) -> Float[np.ndarray, "2 sequence 1 1 topic"]:
    """Mass within and across topics of uniform attention, by the query's topic."""
    found = []
    for rows in labels.split(max(1, _CHUNK // (labels.shape[1] * n_topics))):
        masses = shape_masses(rows, "uniform", causal=causal, n_topics=n_topics)
        found.append(torch.stack(by_query_topic(masses[:, None], rows)))
    return torch.cat(found, 1).numpy()[:, :, None]


def _donors(n: int, n_exchanged: int, seed: int) -> list[Tensor]:
    """For each exchange, another sequence for every sequence; none twice."""
    order = np.random.default_rng(seed).permutation(n)
    found = []
    for shift in range(1, min(n_exchanged, n - 1) + 1):
        donors = np.empty(n, dtype=np.int64)
        donors[order] = np.roll(order, shift)
        found.append(torch.from_numpy(donors))
    return found
