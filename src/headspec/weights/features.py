"""What stands for a head: its flattened weights, or the gauge-invariant products QK and OV.

A head is a vector here. For `"q" "k" "v" "o"` it is the flattened weight matrix. For `"qk"` and
`"ov"` it is the product W_Q W_K^T or W_V W_O, `d_model d_model`, which is kept as two thin factors
and never held for all heads at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headspec.errors import InputError
from headspec.head_tensors import HeadWeights

Feature = Literal["q", "k", "v", "o", "qk", "ov"]
FEATURES = ("q", "k", "v", "o", "qk", "ov")


@dataclass(frozen=True)
class HeadFactors:
    """Heads as vectors: `left` alone, or the products `left @ right.mT`, one row a head.

    Attributes:
        parts: one `(left, right)` per layer, views of the weights where possible: left is
            `head d_model d_head` (for `"o"` `head d_head d_model`), right `head d_model d_head`,
            or None for a feature that is not a product.
        feature: which weights.
        layers, heads: where each row comes from.
        groups: rows with the same number share one factor (a key-value head under
            grouped-query attention); all different otherwise.
    """

    parts: tuple[tuple[Tensor, Tensor | None], ...]
    feature: Feature
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    groups: tuple[int, ...]

    @property
    def n_rows(self) -> int:
        """Number of heads."""
        return len(self.heads)

    @property
    def n_features(self) -> int:
        """Length of a head's vector."""
        left, right = self.parts[0]
        return left[0].numel() if right is None else left.shape[1] * right.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """What the vectors are computed in."""
        return self.parts[0][0].dtype

    def factors(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Each head's own left and right factor, in float64."""
        return (self.factor(row) for row in range(self.n_rows))

    def factor(self, row: int) -> tuple[Tensor, Tensor | None]:
        """One head's left and right factor, in float64."""
        for left, right in self.parts:
            if row < len(left):
                return left[row].double(), None if right is None else right[row].double()
            row -= len(left)
        raise IndexError(f"no row {row} beyond the last of {self.n_rows}")

    def blocks(self, values: int = 4_000_000) -> Iterator[Float[Tensor, "row block"]]:
        """The vectors, in blocks of coordinates with about `values` numbers each.

        A block's memory is used again for the next one.
        """
        left, right = self.parts[0]
        product = right is not None
        depth = left.shape[1] if product else 1
        total = self.n_features // depth
        width = min(total, max(1, values // (self.n_rows * depth)))
        memory = torch.empty(self.n_rows * depth * width, dtype=self.dtype)
        for start in range(0, total, width):
            stop = min(total, start + width)
            size = depth * (stop - start)
            block = memory[: self.n_rows * size].view(self.n_rows, size)
            row = 0
            for left, right in self.parts:
                out = block[row : row + len(left)]
                row += len(left)
                if right is None:
                    out.copy_(left.reshape(len(left), -1)[:, start:stop])
                else:
                    shape = (len(left), depth, stop - start)
                    torch.bmm(left, right[:, start:stop].mT, out=out.view(shape))
            yield block

    def astype(self, dtype: torch.dtype) -> HeadFactors:
        """The same heads in another dtype."""
        parts = tuple((a.to(dtype), None if b is None else b.to(dtype)) for a, b in self.parts)
        return replace(self, parts=parts)

    def scaled(self, factors: Sequence[float] | np.ndarray) -> HeadFactors:
        """Every head's vector times a number, in float64."""
        scale, parts, row = torch.as_tensor(factors, dtype=torch.float64), [], 0
        for left, right in self.parts:
            by = scale[row : row + len(left), None, None]
            parts.append((left.double() * by, None if right is None else right.double()))
            row += len(left)
        return replace(self, parts=tuple(parts))


def head_factors(weights: HeadWeights | Sequence[HeadWeights], feature: Feature) -> HeadFactors:
    """The vectors that stand for the heads of one or more layers.

    Biases are left out of every feature. `"q" "k" "v" "o"` are the matrices as given. `"qk"` folds
    the gains of QK-norm into W_Q and W_K (they act on the `d_head` axis); the normalisation itself
    is not linear and is not in the product. Half and bfloat16 weights are used as float32.

    Args:
        weights: one layer's heads, or several layers of one model shape.
        feature: `"k"` and `"v"` have one row per native key-value head; `"qk"` and `"ov"` one per
            query head.

    Raises:
        InputError: unknown feature, layers of different shape, weights that are not finite.
    """
    layers = [weights] if isinstance(weights, HeadWeights) else list(weights)
    if feature not in FEATURES or not layers:
        raise InputError(
            expected=f"one of {', '.join(map(repr, FEATURES))} and at least one layer",
            got=f"feature {feature!r} and {len(layers)} layers",
            fix="Use 'qk' or 'ov' for products that do not depend on the basis inside a head.",
        )
    shapes = {(w.d_model, w.d_head) for w in layers}
    if len(shapes) > 1:
        raise InputError(
            expected="layers with the same d_model and d_head",
            got=f"(d_model, d_head) of {sorted(shapes)}",
            fix="Compare heads of one model size at a time.",
        )
    parts, where, groups = [], [], []
    for number, layer in enumerate(layers):
        left, right = _layer_factors(layer, feature)
        left = _working(left, layer, feature)
        right = None if right is None else _working(right, layer, feature)
        parts.append((left, right))
        where += [(layer.layer, row) for row in range(len(left))]
        size = layer.group_size if right is not None else 1
        groups += [(number, row // size) for row in range(len(left))]
    order = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    found = HeadFactors(
        parts=tuple(parts),
        feature=feature,
        layers=tuple(layer for layer, _ in where),
        heads=tuple(head for _, head in where),
        groups=tuple(order[group] for group in groups),
    )
    dtypes = {matrix.dtype for part in parts for matrix in part if matrix is not None}
    return found if len(dtypes) == 1 else found.astype(torch.float64)


def coordinates(factors: HeadFactors) -> Float[np.ndarray, "row n_features"]:
    """All vectors at once; as large as that says."""
    return torch.cat([block.clone() for block in factors.blocks()], dim=1).numpy()


def _layer_factors(weights: HeadWeights, feature: str) -> tuple[Tensor, Tensor | None]:
    if feature in ("q", "k", "v", "o"):
        return getattr(weights, f"W_{feature.upper()}"), None
    grown = weights.expand_kv()
    if feature == "ov":
        return grown.W_V, grown.W_O.mT
    return _with_gain(grown.W_Q, grown.q_norm), _with_gain(grown.W_K, grown.k_norm)


def _with_gain(matrix: Tensor, gain: Tensor | None) -> Tensor:
    if gain is None:
        return matrix
    gain = _at_least_single(gain)
    return _at_least_single(matrix) * (gain if gain.ndim == 1 else gain[:, None, :])


def _at_least_single(numbers: Tensor) -> Tensor:
    """Half precision as float32, before anything is computed."""
    numbers = numbers.detach().cpu()
    return numbers if numbers.dtype in (torch.float32, torch.float64) else numbers.float()


def _working(matrix: Tensor, weights: HeadWeights, feature: str) -> Tensor:
    matrix = _at_least_single(matrix)
    bad = torch.tensor([not bool(torch.isfinite(head).all()) for head in matrix])
    if bad.any():
        raise InputError(
            expected=f"finite weights for feature {feature!r}",
            got=f"NaN or infinity in heads {torch.nonzero(bad).flatten().tolist()} of layer "
            f"{weights.layer}",
            fix="Check the checkpoint (`suite.verify()` names damaged ones).",
        )
    return matrix
