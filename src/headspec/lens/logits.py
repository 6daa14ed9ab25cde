"""Which logits a number needs, and the protocol of the functions that make numbers of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headspec.errors import InputError


@dataclass(frozen=True)
class LogitRead:
    """The part of the logits that a metric reads; nothing else need be computed.

    Attributes:
        positions: columns of the token tensor to read in each row; None: all, in order.
        columns: vocabulary entries to read at each of these positions; None: the whole vocabulary.
        log_probs: give log-probabilities (nats) instead of logits. Reading few columns of
            log-probabilities still needs the whole unembedding, for its normaliser; a
            difference of two logits of one position does not, and equals that of log-probabilities.
    """

    positions: Int[Tensor, "batch read"] | None = None
    columns: Int[Tensor, "batch read column"] | None = None
    log_probs: bool = False

    def take(
        self, logits: Float[Tensor, "... batch pos d_vocab"]
    ) -> Float[Tensor, "... batch read column"]:
        """The read part of whole logits, in float32: shape `... batch read column`."""
        if self.positions is not None:
            rows = torch.arange(logits.shape[-3], device=logits.device)[:, None]
            logits = logits[..., rows, self.positions.to(logits.device), :]
        return self.select(logits)

    def select(
        self, logits: Float[Tensor, "... batch read d_vocab"]
    ) -> Float[Tensor, "... batch read column"]:
        """The read columns of logits at the read positions, in float32."""
        logits = logits.float()
        if self.log_probs:
            logits = logits.log_softmax(-1)
        if self.columns is None:
            return logits
        index = self.columns.to(logits.device).expand(*logits.shape[:-1], -1)
        return logits.gather(-1, index)


@runtime_checkable
class Metric(Protocol):
    """A number for each example, from the logits that it reads.

    Attributes:
        name: for tables and axes, such as `"log_prob_difference"`.
        unit: such as `"nats"`; `""` for shares.

    `read(tokens)` says which logits are needed for rows of tokens. Calling the metric with
    exactly these, `batch read column`, gives one number for each example: often one a row, but
    several rows may make one example (the two continuations of a prompt).
    """

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str: ...

    def read(self, tokens: Int[Tensor, "batch pos"]) -> LogitRead: ...

    def __call__(self, logits: Float[Tensor, "batch read column"]) -> Float[Tensor, " example"]: ...


@dataclass(frozen=True)
class FunctionMetric:
    """A user's function of whole logits, as a metric: reads everything.

    Attributes:
        function: takes logits `batch pos d_vocab` (float32), gives one number an example.
        name: for tables and axes.
        unit: of the numbers.
    """

    function: Callable[[Tensor], Tensor]
    name: str = "metric"
    unit: str = ""

    def read(self, tokens: Int[Tensor, "batch pos"]) -> LogitRead:
        """All positions, the whole vocabulary."""
        return LogitRead()

    def __call__(self, logits: Float[Tensor, "batch read column"]) -> Float[Tensor, " example"]:
        values = self.function(logits)
        if not isinstance(values, Tensor) or values.ndim != 1:
            shape = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise InputError(
                expected="a metric that gives one number for each example, a tensor of one axis",
                got=f"{shape} from {self.name}",
                fix="Reduce over positions and vocabulary, not over examples.",
            )
        return values


MetricLike: TypeAlias = Metric | Callable[[Tensor], Tensor]
"""A `Metric`, or a function from logits `batch pos d_vocab` to one number an example."""


def as_metric(metric: MetricLike) -> Metric:
    """The metric itself, or a function wrapped as one that reads all logits."""
    if isinstance(metric, Metric):
        return metric
    return FunctionMetric(metric, name=getattr(metric, "__name__", "metric"))
