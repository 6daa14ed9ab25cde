"""Candidate probes of each kind: one for every set of labels and every penalty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from torch import Tensor

from headspec.activations.probe_solver import eigenbasis, solve_logistic

ProbeKind = Literal["logistic", "ridge", "mean_difference"]


def fit_candidates(
    x: Float[Tensor, "sample d_model"],
    targets: Int[Tensor, "set sample"],
    l2: Sequence[float],
    *,
    n_classes: int,
    kind: ProbeKind,
) -> tuple[Float[Tensor, "set l2 d_model class"], Float[Tensor, "set l2 class"]]:
    """Weights and biases of scores `x @ weights + biases`, x standardised.

    - logistic: see `solve_logistic`.
    - ridge: least squares on one-hot labels, mean of squares/2 + l2/2 |W|² for each class;
      scikit-learn's `Ridge(alpha=l2 * n)`.
    - mean_difference: the nearest class mean. Weights are the class means, so that the difference
      of two classes' weights is the difference of their means; there is no penalty to choose.
      A class that no sample has (control labels may lack a rare one) is never the nearest.
    """
    if kind == "logistic":
        return solve_logistic(x, targets, l2, n_classes=n_classes)
    onehot = F.one_hot(targets, n_classes).double()
    sums = torch.zeros(len(targets), x.shape[1], n_classes, dtype=torch.float64, device=x.device)
    for rows in torch.arange(len(x), device=x.device).split(8192):
        sums += x[rows].double().T @ onehot[:, rows]
    if kind == "mean_difference":
        counts = onehot.sum(1)
        means = sums / counts.clamp_min(1)[:, None]
        distances = (0.5 * means.square().sum(1)).masked_fill(counts == 0, float("inf"))
        weights, biases = means[:, None], -distances[:, None]
    else:
        basis = eigenbasis(x)
        vectors, values = basis.vectors.double(), basis.values.double()
        penalties = torch.tensor(l2, dtype=torch.float64, device=x.device)
        share = onehot.mean(1)
        # x has mean zero: the bias is the class's share, whatever the weights.
        turned = vectors.T @ (sums / len(x) - x.double().mean(0)[:, None] * share[:, None])
        weights = vectors @ (turned[:, None] / (values + penalties[:, None])[..., None])
        biases = share[:, None].expand(-1, len(l2), -1)
    return weights.to(x.dtype), biases.to(x.dtype)


def selection_losses(
    scores: Float[Tensor, "sample l2 class"], targets: Int[Tensor, " sample"], kind: ProbeKind
) -> Float[np.ndarray, " l2"]:
    """What the penalty is chosen by: log loss in nats, or squared error for ridge."""
    if kind == "logistic":
        log_p = scores.double().log_softmax(-1)
        chosen = log_p.gather(2, targets[:, None, None].expand(-1, scores.shape[1], 1))
        return -chosen[..., 0].mean(0).cpu().numpy()
    onehot = F.one_hot(targets, scores.shape[-1])[:, None]
    return (scores.double() - onehot).square().sum(-1).mean(0).cpu().numpy()


def fit_temperature(
    scores: Float[np.ndarray, "sample class"], codes: Int[np.ndarray, " sample"]
) -> float:
    """Temperature T of softmax(scores / T) that minimises log loss (Guo et al. 2017).

    It makes probabilities of scores that are none (ridge, class means); no decision changes.
    """

    def loss(log_t: float) -> float:
        scaled = scores / np.exp(log_t)
        scaled = scaled - scaled.max(1, keepdims=True)
        chosen = np.take_along_axis(scaled, codes[:, None], 1)[:, 0]
        return float(np.mean(np.log(np.exp(scaled).sum(1)) - chosen))

    found: Any = minimize_scalar(loss, bounds=(-12.0, 12.0), method="bounded")
    return float(np.exp(found.x))
