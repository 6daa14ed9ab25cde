"""How much of a QK form depends on where the key is, and how much on what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from headspec.head_tensors import HeadWeights, Rotary
from headspec.results import tidy
from headspec.weights.circuit_factors import as_layers, qk_factors, with_gain
from headspec.weights.rotary_forms import as_offset, mean_square, query_factor


@dataclass(frozen=True)
class PositionShare:
    """Share of each head's QK form that is the same at all offsets.

    Attributes:
        share: squared Frobenius norm of the mean form over the mean squared norm of the forms,
            0 to 1, `layer head`, or `head` for one layer; nan for a head of zeros.
        null_mean: the share that is expected of random weights (independent, all directions alike)
            under the head's QK-norm gains: without gains the mean over dimensions of
            |mean of exp(i frequency offset)|^2, 1 for unrotated ones.
        offsets: the offsets averaged over; None for ever more of them.
        layers, steps, model, processing: as in the weights.
    """

    share: Float[np.ndarray, "*layer head"]
    null_mean: Float[np.ndarray, "*layer head"]
    offsets: tuple[int, ...] | None
    layers: tuple[int, ...]
    steps: tuple[int | None, ...]
    model: str = ""
    processing: str = "none"

    @property
    def span(self) -> str:
        """The offsets in words."""
        if self.offsets is None:
            return "all offsets"
        return f"{len(self.offsets)} offsets from {min(self.offsets)} to {max(self.offsets)}"

    def to_frame(self) -> pd.DataFrame:
        """One row a head: metric `"qk.position_share"`. Extra columns: `matrix`, `statistic`,
        `offsets` (in words), `processing`."""
        values = self.share.reshape(len(self.layers), -1)
        layer, head = (index.ravel() for index in np.indices(values.shape))
        frame = pd.DataFrame(
            {
                "step": pd.array([self.steps[i] for i in layer], dtype="Int64"),
                "layer": np.array(self.layers)[layer],
                "head": head,
                "metric": "qk.position_share",
                "value": values.ravel(),
                "null_mean": self.null_mean.ravel(),
                "matrix": "qk",
                "statistic": "position_share",
                "offsets": self.span,
                "processing": self.processing,
            }
        )
        return tidy(frame, model=self.model)

    def summary(self) -> str:
        """The median share and the heads at both ends."""
        values = self.share.reshape(len(self.layers), -1)
        named = f"QK forms of {self.model or 'a model'} over {self.span}: "
        if np.isnan(values).all():
            return named + "all heads are zero."
        low, high = (divmod(int(f(values)), values.shape[1]) for f in (np.nanargmin, np.nanargmax))
        return named + (
            f"a median {np.nanmedian(values):.3f} of the squared norm is the same at all of them, "
            f"from {values[low]:.3f} (L{self.layers[low[0]]}H{low[1]}) to {values[high]:.3f} "
            f"(L{self.layers[high[0]]}H{high[1]}); random weights give "
            f"{np.mean(self.null_mean):.3f}."
        )


@torch.no_grad()
def position_share(
    weights: HeadWeights | Sequence[HeadWeights],
    *,
    offsets: Sequence[int] | None = None,
    biases: bool = False,
    frequencies: Float[Tensor, " pair"] | None = None,
) -> PositionShare:
    """The share of each head's QK form that does not depend on the offset of query and key.

    Rotary embeddings make W_QK a function of the offset, M(t) = W_Q R(t) W_K^T. With M the mean
    of M(t) over offsets,

        mean ||M(t)||^2 = ||M||^2 + mean ||M(t) - M||^2    (Frobenius norms),

    and the share is ||M||^2 / mean ||M(t)||^2: 1 without rotary embeddings. Over ever more offsets
    (`offsets=None`) the mean keeps the unrotated dimensions alone, so it is 0 for a head that is
    rotated whole. Over a context's offsets slow planes count as constant too.

    A share means something beside `null_mean`, which grows with the base, the unrotated part and
    the QK-norm gains g of slow planes. It is the ratio of what both squared norms are expected to
    be with independent Gaussian weights: ||diag(g_Q) R diag(g_K)||^2 with R the mean of R(t), over
    the mean of ||diag(g_Q) R(t) diag(g_K)||^2.

    **What it does not show.** How attention depends on position on real text: rotated planes that
    queries and keys hardly use do nothing, and the softmax weighs the largest scores.

    Args:
        weights: one layer's heads, or a sequence (layers, or one layer at several steps).
        offsets: to average over, such as `range(128)`; None for ever more of them.
        biases, frequencies: as for `qk_svd`.

    Returns:
        A `PositionShare`; computed in float64 throughout.

    Raises:
        InputError: as `qk_svd`; no offsets.

    References:
        Su et al. 2021, "RoFormer", arXiv:2104.09864.

    Example:
        >>> import torch, headspec as hs
        >>> W = torch.eye(4)[None]
        >>> rotary = hs.Rotary(dim=2)
        >>> heads = hs.HeadWeights(W_Q=W, W_K=W, W_V=W, W_O=W, rotary=rotary)
        >>> hs.position_share(heads).share.tolist()  # two of four dimensions stay
        [0.5]
    """
    layers, given = as_layers(weights), as_offset(offsets)
    places = (given,) if isinstance(given, int) else given
    shares, nulls = [], []
    for layer in layers:
        left, right = qk_factors(layer, biases=biases, dtype=torch.float64)
        right = right.repeat_interleave(layer.group_size, 0)
        turns = (layer.rotary, places, frequencies)
        shares.append(_constant_share(left, right, *turns))
        nulls.append(_null_share(layer, *turns))
    models, one = {w.model for w in layers}, isinstance(weights, HeadWeights)
    return PositionShare(
        share=shares[0] if one else np.stack(shares),
        null_mean=nulls[0] if one else np.stack(nulls),
        offsets=places,
        layers=tuple(w.layer for w in layers),
        steps=tuple(w.step for w in layers),
        model=models.pop() if len(models) == 1 else "",
        processing=",".join(dict.fromkeys(w.processing for w in layers)),
    )


def _constant_share(
    left: Float[Tensor, "head d_in d_head"],
    right: Float[Tensor, "head d_in d_head"],
    rotary: Rotary | None,
    places: tuple[int, ...] | None,
    frequencies: Float[Tensor, " pair"] | None,
) -> Float[np.ndarray, " head"]:
    """||M||^2 / mean ||M(t)||^2 of M(t) = left R(t) right^T; nan where a factor is zero."""
    # Squares of squares of weights leave float64 where the weights themselves do not.
    left, right = (part / _largest(part) for part in (left, right))
    mean = query_factor(left, rotary, places, frequencies)
    constant = mean_square(mean, right, None, None)
    whole = mean_square(left, right, rotary, places, frequencies)
    return (constant / whole).clamp(max=1).cpu().numpy()


def _null_share(
    layer: HeadWeights,
    rotary: Rotary | None,
    places: tuple[int, ...] | None,
    frequencies: Float[Tensor, " pair"] | None,
) -> Float[np.ndarray, " head"]:
    """The share of diag(g_Q) R(t) diag(g_K), g the gains of QK-norm."""
    unit = torch.eye(layer.d_head, dtype=torch.float64, device=layer.W_Q.device)[None]
    if layer.q_norm is None and layer.k_norm is None:  # turns keep the norm
        mean = query_factor(unit, rotary, places, frequencies)
        return np.full(layer.n_heads, float(mean.square().sum() / layer.d_head))
    left = with_gain(unit.repeat(layer.n_heads, 1, 1), layer.q_norm)
    right = with_gain(unit.repeat(layer.n_kv_heads, 1, 1), layer.k_norm)
    right = right.repeat_interleave(layer.group_size, 0)
    return _constant_share(left, right, rotary, places, frequencies)


def _largest(part: Tensor) -> Tensor:
    """Largest absolute entry of each head, 1 for a head of zeros."""
    size = part.abs().amax((1, 2), keepdim=True)
    return torch.where(size > 0, size, torch.ones_like(size))
