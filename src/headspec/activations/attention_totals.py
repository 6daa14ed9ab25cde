"""Sums of attention figures over queries, kept by sequence, layer and head, as batches come in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from scipy import stats as scipy_stats
from torch import Tensor

from headspec.activations.attention_blocks import AttendedQueries
from headspec.activations.attention_by_topic import (
    TopicTotals,
    by_query_topic,
    ratio_of_totals,
    ratios_by_topic,
    specialisation_of_totals,
)
from headspec.activations.attention_shapes import shape_masses, topic_columns

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
        self.labels = [labels, *(labels[donors] for donors in _donors(n, n_exchanged, seed))]
        self.labels[1:] = [other.masked_fill(~counted, -1) for other in self.labels[1:]]
        shape = (len(self.labels), n, n_layers, n_heads, self.n_topics)
        self.within, self.cross = np.zeros(shape), np.zeros(shape)
        self.topic_entropy = np.zeros((n_layers, n_heads, self.n_topics))

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
        parts = figures.topic_mass.double().unflatten(-1, (len(self.labels), -1))
        parts = parts.masked_fill(skipped[..., None, None], 0)
        for i, labels in enumerate(self.labels):
            within, cross = by_query_topic(parts[..., i, :], labels[rows])
            self.within[i, rows, layer] = within.cpu().numpy()
            self.cross[i, rows, layer] = cross.cpu().numpy()
        own = self.labels[0][rows].to(parts.device)[:, None, :, None]
        mass = parts[..., 0, :].gather(-1, own.clamp(min=0).expand(-1, parts.shape[1], -1, -1))
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
        totals = self._parts()
        queries = topic_columns(self.labels[0], self.n_topics).double().sum((0, 1)).numpy()
        with np.errstate(invalid="ignore"):
            return {
                "entropy": self.topic_entropy / queries,
                "within_topic_mass": totals["within"].sum(0) / queries,
                "topic_ratio": ratios_by_topic(_topic_totals(_summed(totals))),
            }

    def estimates(self, level: float) -> dict[str, Estimate]:
        """Every metric with its jackknife error over sequences."""
        parts: dict[str, np.ndarray] = {name: self.sums[name] for name in PLAIN}
        parts["queries"] = self.counted.sum(1).double().numpy()[:, None, None]
        found = {name: _estimate(_mean_of(name), parts, level) for name in PLAIN}
        if not self.labels:
            return found
        own = self._parts()
        found["within_topic_mass"] = _estimate(_within, own, level)
        found["topic_ratio"] = _estimate(_ratio, own, level, log=True)
        found["topic_specialisation"] = _estimate(_specialisation, own, level, bounds=(0.0, 1.0))
        if len(self.labels) > 1:
            others = [self._parts(i) for i in range(1, len(self.labels))]
            both = dict(own)
            for name in ("within", "labelled"):
                both[f"other_{name}"] = np.sum([other[name] for other in others], axis=0)
            found["topic_excess"] = _estimate(_excess, both, level)
        return found

    def exchanged(self) -> dict[str, np.ndarray]:
        """Metrics by topic with the labels of other sequences, mean over the exchanges."""
        others = [_summed(self._parts(i)) for i in range(1, len(self.labels))]
        functions: dict[str, _Statistic] = {
            "within_topic_mass": _within,
            "topic_ratio": _ratio,
            "topic_specialisation": _specialisation,
        }
        return {
            name: np.mean([function(other) for other in others], axis=0)
            for name, function in functions.items()
            if others
        }

    def _parts(self, which: int = 0) -> dict[str, np.ndarray]:
        """Per-sequence sums that topic metrics are made of; axes `sequence layer head topic`."""
        labels, uniform = self.labels[which], []
        for row in labels:
            masses = shape_masses(row[None], "uniform", causal=self.causal, n_topics=self.n_topics)
            uniform.append(torch.stack(by_query_topic(masses[:, None], row[None])))
        uniform_within, uniform_cross = torch.cat(uniform, 1).numpy()
        return {
            "within": self.within[which],
            "cross": self.cross[which],
            "labelled": (labels >= 0).sum(1).double().numpy()[:, None, None],
            "uniform_within": uniform_within[:, None],
            "uniform_cross": uniform_cross[:, None],
        }


@dataclass(frozen=True)
class Estimate:
    """A statistic, its standard error and the ends of its interval, all `layer head`."""

    value: np.ndarray
    se: np.ndarray
    low: np.ndarray
    high: np.ndarray


_Statistic = Callable[[Mapping[str, np.ndarray]], np.ndarray]


def _estimate(
    statistic: _Statistic,
    parts: Mapping[str, np.ndarray],
    level: float,
    *,
    log: bool = False,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Estimate:
    """Leave out one sequence at a time: se^2 = (n - 1) / n sum (theta_i - mean theta)^2."""
    whole = _summed(parts)
    value = statistic(whole)
    n = len(next(iter(parts.values())))
    if n < 2:
        nothing = np.full(value.shape, np.nan)
        return Estimate(value, nothing, nothing, nothing)
    scale = np.log if log else np.asarray
    with np.errstate(divide="ignore", invalid="ignore"):
        left_out = scale(statistic({name: whole[name] - part for name, part in parts.items()}))
        spread = ((left_out - left_out.mean(0)) ** 2).sum(0)
        se = np.sqrt((n - 1) / n * spread)
        reach = scipy_stats.t.ppf((1 + level) / 2, n - 1) * se
        ends = scale(value) - reach, scale(value) + reach
        low, high = np.exp(ends) if log else np.clip(ends, *bounds)
    return Estimate(value, value * se if log else se, low, high)


def _summed(parts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: part.sum(0) for name, part in parts.items()}


def _mean_of(name: str) -> _Statistic:
    return lambda sums: sums[name] / sums["queries"]


def _within(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    return sums["within"].sum(-1) / sums["labelled"]


def _excess(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    return _within(sums) - sums["other_within"].sum(-1) / sums["other_labelled"]


def _ratio(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    return ratio_of_totals(_topic_totals(sums))


def _specialisation(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    return specialisation_of_totals(_topic_totals(sums))


def _topic_totals(sums: Mapping[str, np.ndarray]) -> TopicTotals:
    names = ("within", "cross", "uniform_within", "uniform_cross")
    return TopicTotals(*(sums[name] for name in names))


def _donors(n: int, n_exchanged: int, seed: int) -> list[Tensor]:
    """For each exchange, another sequence for every sequence; none twice."""
    order = np.random.default_rng(seed).permutation(n)
    found = []
    for shift in range(1, min(n_exchanged, n - 1) + 1):
        donors = np.empty(n, dtype=np.int64)
        donors[order] = np.roll(order, shift)
        found.append(torch.from_numpy(donors))
    return found
