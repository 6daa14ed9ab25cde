"""Virtual weights: two heads in series as one map, held as thin factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from headspec.errors import InputError, check_choice
from headspec.head_tensors import HeadWeights
from headspec.heads import Head
from headspec.results import tidy
from headspec.weights.head_pairs import (
    CompositionKind,
    as_layers,
    earlier_pairs,
    processing_of,
    reading_factors,
    shared,
)


@dataclass(frozen=True)
class VirtualWeights:
    """Products of two heads, `left @ right`, one a pair.

    Attributes:
        left: `pair d_model d_head`, float64, on the weights' device.
        right: `pair d_head d_model`.
        singular_values: `pair rank`, descending; rank = min(d_head, d_model).
        pairs: the upstream and the downstream head of each.
        kind: `"q"`, `"k"` or `"v"`.
        model, step, processing: as in the weights.
    """

    left: Float[Tensor, "pair d_model d_head"]
    right: Float[Tensor, "pair d_head d_model"]
    singular_values: Float[Tensor, "pair rank"]
    pairs: tuple[tuple[Head, Head], ...]
    kind: str
    model: str = ""
    step: int | None = None
    processing: str = "none"

    @property
    def matrices(self) -> Float[Tensor, "pair d_model d_model"]:
        """The products themselves; as large as that says."""
        return self.left @ self.right

    def to_frame(self) -> pd.DataFrame:
        """One row a singular value. `layer` and `head` name the upstream head.

        Extra columns: `layer_2`, `head_2` (the downstream head), `rank` (from 1), `processing`.
        """
        rows = [
            {
                "layer": first.layer,
                "head": first.index,
                "value": float(value),
                "layer_2": second.layer,
                "head_2": second.index,
                "rank": rank,
            }
            for (first, second), values in zip(self.pairs, self.singular_values, strict=True)
            for rank, value in enumerate(values, start=1)
        ]
        return tidy(
            rows,
            model=self.model,
            step=self.step,
            metric=f"virtual_{self.kind}.singular_value",
            processing=self.processing,
        )

    def summary(self) -> str:
        """The largest singular value of every pair, as text."""
        lines = [f"Virtual weights ({self.kind}-composition), largest singular value:"]
        for (first, second), values in zip(self.pairs, self.singular_values, strict=True):
            lines.append(f"  {first} -> {second}: {float(values[0]):.4g}")
        return "\n".join(lines)


def virtual_weights(
    weights: Sequence[HeadWeights],
    pairs: Sequence[tuple[Head | str, Head | str]],
    *,
    kind: Literal["q", "k", "v"],
    offset: int = 0,
    frequencies: Float[Tensor, " plane"] | None = None,
) -> VirtualWeights:
    """The maps that pairs of heads make in series, as factors.

    With x a row of the stream before the upstream head, its output x W_V W_O is read as

        `"v"`: x W_V W_O W_V' W_O', what reaches the stream through both heads (per attended pair);
        `"k"`: x W_V W_O W_K' W_Q'^T y^T, a score where x feeds the key and y is the query's input;
        `"q"`: x W_V W_O W_Q' W_K'^T y^T, a score where x feeds the query and y is the key's input.

    Never more than `d_model d_head` numbers are held for a factor.

    **What it does not show.** What either head attends to. Layer norm stands between the heads: its
    scale depends on the input, its gains are in only where `processing` says so.

    Args:
        weights: layers that hold the heads.
        pairs: upstream and downstream head, as `Head` or by name (`"L1H5"`).
        kind: which input of the downstream head.
        offset: query position minus key position, for rotary heads.
        frequencies: of scaled rotary embeddings, for an offset; see `rotate`.

    Raises:
        InputError: a head that is not there, a pair not in order, and as `composition_scores`.

    Example:
        >>> import headspec as hs
        >>> suite = hs.open_suite("micro")
        >>> layers = [suite.head_weights(6144, layer) for layer in (1, 2)]
        >>> hs.virtual_weights(layers, [("L1H5", "L2H9")], kind="k").left.shape
        torch.Size([1, 120, 10])
    """
    check_choice("kind", kind, get_args(CompositionKind))
    layers = {w.layer: w for w in as_layers(weights)}
    named = tuple((_find(first, layers), _find(second, layers)) for first, second in pairs)
    if not named:
        raise InputError(
            expected="at least one pair of heads", got="none", fix='Give [("L1H5", "L2H9")], say.'
        )
    left, right = [], []
    with torch.no_grad():
        for first, second in named:
            up, down = layers[first.layer], layers[second.layer]
            earlier_pairs([up], [down])
            outer, inner = (side[first.index] for side in reading_factors(up, "v"))
            reads, other = (
                side[second.index]
                for side in reading_factors(down, kind, offset=offset, frequencies=frequencies)
            )
            left.append(outer @ (inner.mT @ reads))
            right.append(other.mT)
        lefts, rights = torch.stack(left), torch.stack(right)
        cores = [torch.linalg.qr(side, mode="r").R for side in (lefts, rights.mT)]
        values = torch.linalg.svdvals(cores[0] @ cores[1].mT)
    every = list(layers.values())
    step = shared(every, "step")
    return VirtualWeights(
        left=lefts,
        right=rights,
        singular_values=values,
        pairs=named,
        kind=kind,
        model=str(shared(every, "model") or ""),
        step=step if isinstance(step, int) else None,
        processing=processing_of(every),
    )


def _find(head: Head | str, layers: dict[int, HeadWeights]) -> Head:
    found = Head.parse(head) if isinstance(head, str) else head
    if found.layer not in layers or found.index >= layers[found.layer].n_heads:
        there = ", ".join(f"layer {i} with {w.n_heads} heads" for i, w in layers.items())
        raise InputError(
            expected=f"a head of {there}",
            got=str(found),
            fix="Pass the layer of every head in `weights`.",
        )
    return found
