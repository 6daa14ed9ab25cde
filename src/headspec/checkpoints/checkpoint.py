"""A checkpoint: one step of a suite, as measures get it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from headspec import layouts
from headspec.head_tensors import HeadWeights

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from headspec.checkpoints.suite import CheckpointSuite


@dataclass(frozen=True)
class Checkpoint:
    """One step of a suite: what a measure is given.

    Attributes:
        suite: the suite.
        step: training step.
        previous: the step before it among those that are swept, if any.
    """

    suite: CheckpointSuite
    step: int
    previous: Checkpoint | None = None

    @property
    def config(self) -> dict[str, Any]:
        """config.json of this step."""
        return self.suite.config(self.step)

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return layouts.n_layers(self.config)

    @property
    def n_heads(self) -> int:
        """Number of query heads in a layer."""
        return layouts.n_heads(self.config)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The suite's tokenizer."""
        return self.suite.tokenizer

    def head_weights(self, layer: int) -> HeadWeights:
        """The attention heads of one layer; see `CheckpointSuite.head_weights`."""
        return self.suite.head_weights(self.step, layer)

    def layer_matrices(self, layer: int) -> dict[str, Tensor]:
        """Every matrix of one layer by role; see `CheckpointSuite.layer_matrices`."""
        return self.suite.layer_matrices(self.step, layer)

    def embedding_matrices(self) -> dict[str, Tensor]:
        """The embeddings by role; see `CheckpointSuite.embedding_matrices`."""
        return self.suite.embedding_matrices(self.step)

    def matrices(self, pattern: str | re.Pattern[str]) -> dict[str, Tensor]:
        """Named matrices; see `CheckpointSuite.matrices`."""
        return self.suite.matrices(self.step, pattern)

    def model(self, **kwargs: Any) -> Any:
        """A hooked model; see `CheckpointSuite.model`."""
        return self.suite.model(self.step, **kwargs)
