"""Metrics that compare a run with a reference run, or with the text itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headspec.errors import InputError
from headspec.lens.hooks import run_logits
from headspec.lens.logits import LogitRead


@dataclass(frozen=True, eq=False)
class KLFrom:
    """KL(reference || run) in nats, a mean over chosen positions: one number a row.

    Attributes:
        positions: columns compared in each row.
        reference: log-probabilities of the reference run there.
        weights: of each position; they sum to one in a row.
        name, unit: of the metric.
    """

    positions: Int[Tensor, "batch read"]
    reference: Float[Tensor, "batch read d_vocab"]
    weights: Float[Tensor, "batch read"]
    name: str = "kl"
    unit: str = "nats"

    def read(self, tokens: Int[Tensor, "batch pos"]) -> LogitRead:
        """Log-probabilities of the whole vocabulary at the positions."""
        _check_rows(tokens, len(self.positions), self.name)
        return LogitRead(self.positions, log_probs=True)

    def __call__(self, logits: Float[Tensor, "batch read column"]) -> Float[Tensor, " example"]:
        reference = self.reference.to(logits.device)
        probabilities = reference.exp()
        terms = torch.where(probabilities > 0, probabilities * (reference - logits), 0.0)
        return (terms.sum(-1) * self.weights.to(logits.device)).sum(1)


@dataclass(frozen=True, eq=False)
class NextTokenLoss:
    """Mean next-token cross entropy of each row, in nats a token.

    Attributes:
        positions: columns that predict, in each row.
        columns: the token that follows.
        weights: of each position; they sum to one in a row.
        name, unit: of the metric.
    """

    positions: Int[Tensor, "batch read"]
    columns: Int[Tensor, "batch read 1"]
    weights: Float[Tensor, "batch read"]
    name: str = "loss"
    unit: str = "nats"

    def read(self, tokens: Int[Tensor, "batch pos"]) -> LogitRead:
        """The log-probability of each next token."""
        _check_rows(tokens, len(self.positions), self.name)
        return LogitRead(self.positions, self.columns, log_probs=True)

    def __call__(self, logits: Float[Tensor, "batch read column"]) -> Float[Tensor, " example"]:
        return -(logits[..., 0] * self.weights.to(logits.device)).sum(1)


@torch.no_grad()
def kl_from(
    model: Any,
    tokens: Int[Tensor, "batch pos"],
    *,
    positions: int | Sequence[int] | Int[Tensor, " column"] | None = None,
    attention_mask: Int[Tensor, "batch pos"] | None = None,
) -> KLFrom:
    """How far a run's predictions are from those of the model on these tokens, as a metric.

        KL = sum over tokens t of p(t) (log p(t) - log q(t)),    p the reference, q the run

    A mean over positions, for each row, in nats. The model runs once, now; its log-probabilities
    are kept, `batch * positions * vocabulary` numbers of four bytes.

    Args:
        model: a hooked model of either class.
        tokens: of the reference run; the runs to be compared have as many rows and columns.
        positions: a column or columns (negative: from the end), a column for each row, or None
            for all that are not padding.
        attention_mask: 1 for tokens, 0 for padding on the left.

    Returns:
        A `Metric`: 0 for the reference run itself, else positive. What it does not show: whether
        predictions became better or worse, or which token gained. A large value on an unusual
        prompt may rest on a few improbable tokens.

    Raises:
        InputError: columns that the tokens do not have, or padding.

    Example:
        >>> kl = kl_from(model, tokens, positions=-1)                       # doctest: +SKIP
        >>> swapped = Replay(model, tokens).measure([edits], kl)            # doctest: +SKIP
    """
    columns, weights = _columns(positions, tokens, attention_mask)
    read = LogitRead(columns, log_probs=True)
    device = model.cfg.device
    mask = None if attention_mask is None else attention_mask.to(device)
    logits = run_logits(model, tokens.to(device), attention_mask=mask)
    return KLFrom(columns, read.take(logits).cpu(), weights)


def loss_metric(
    tokens: Int[Tensor, "batch pos"], attention_mask: Int[Tensor, "batch pos"] | None = None
) -> NextTokenLoss:
    """Mean next-token loss of each row, in nats a token, as a metric.

    Args:
        tokens: the text that is predicted.
        attention_mask: 1 for tokens, 0 for padding; a prediction counts where both it and the
            token it predicts are tokens.

    Raises:
        InputError: a row without two tokens.
    """
    tokens = tokens.cpu()
    real = torch.ones(tokens.shape) if attention_mask is None else attention_mask.cpu().float()
    used = real[:, :-1] * real[:, 1:]
    if tokens.shape[1] < 2 or (used.sum(1) == 0).any():
        raise InputError(
            expected="two tokens or more in every row",
            got=f"{int(real.sum(1).min())} in the shortest",
            fix="The first token of a text is predicted by nothing; give longer rows.",
        )
    positions = torch.arange(tokens.shape[1] - 1).expand(used.shape)
    return NextTokenLoss(positions, tokens[:, 1:, None], used / used.sum(1, keepdim=True))


def _columns(
    positions: int | Sequence[int] | Tensor | None, tokens: Tensor, attention_mask: Tensor | None
) -> tuple[Int[Tensor, "batch read"], Float[Tensor, "batch read"]]:
    n_rows, n_pos = tokens.shape
    real = torch.ones(n_rows, n_pos) if attention_mask is None else attention_mask.cpu().float()
    if positions is None:
        columns = torch.arange(n_pos).expand(n_rows, -1)
        return columns, real / real.sum(1, keepdim=True)
    if isinstance(positions, Tensor):
        columns = positions.cpu().long()[:, None]
    else:
        chosen = [positions] if isinstance(positions, int) else list(positions)
        columns = torch.tensor(chosen, dtype=torch.long).expand(n_rows, -1)
    outside = not columns.numel() or columns.max() >= n_pos or columns.min() < -n_pos
    if outside or len(columns) != n_rows:
        raise InputError(
            expected=f"columns below {n_pos} of {n_rows} rows",
            got=f"{columns.unique().tolist()} for {len(columns)} rows",
            fix="Give a column, a list of columns, or a tensor with one for each row.",
        )
    columns = columns % n_pos
    if (real.gather(1, columns) == 0).any():
        raise InputError(
            expected="positions of tokens",
            got="a column that is padding in some row",
            fix="Padding is on the left: count from the end, or give one column for each row.",
        )
    return columns, torch.full(columns.shape, 1.0 / columns.shape[1])


def _check_rows(tokens: Tensor, n_rows: int, name: str) -> None:
    if len(tokens) != n_rows:
        raise InputError(
            expected=f"the {n_rows} rows that {name} was made for",
            got=f"{len(tokens)} rows",
            fix="Make the metric from the tokens that it is used on.",
        )
