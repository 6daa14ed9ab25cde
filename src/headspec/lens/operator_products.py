"""A frozen forward pass as a linear operator: products, adjoint, bias, and its parts by heads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headspec.errors import InputError
from headspec.heads import Head, check_heads
from headspec.lens.frozen_pass import FrozenPass, adjoint_product, forward_product


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearOperator:
    """``out = A x + b`` for given inputs; `linear_operator` makes one and says what it means.

    A resource, not a result: it holds the model's weights. What is measured with it
    (`block_norms`, `direction_norms`, `input_contributions`) can be saved.

    Attributes:
        frozen: the factors.
        inputs: embeddings x of the tokens, `row pos d_model`.
        output: A x + b, `row pos d_out`; of the whole operator the model's own output.
        tokens: `row pos`.
        to: `"resid_post"`, `"logits"` or a layer index, as text.
        n_heads: query heads of a layer.
        rebuild_error: largest difference of the whole operator's output from the model's own,
            relative to its largest entry. In half precision that is the rounding of the model.
        keep: factor on each head, `layer head`; None: all heads carry attention.
        minus: the factors of a second operator that is taken off (`through`), or None.
        model, step, processing: where the model came from.
    """

    frozen: FrozenPass = field(repr=False)
    inputs: Float[Tensor, "row pos d_model"] = field(repr=False)
    output: Float[Tensor, "row pos d_out"] = field(repr=False)
    tokens: Int[Tensor, "row pos"]
    to: str
    n_heads: int
    rebuild_error: float
    keep: Float[Tensor, "layer head"] | None = field(default=None, repr=False)
    minus: Float[Tensor, "layer head"] | None = field(default=None, repr=False)
    model: str = ""
    step: int | None = None
    processing: str = "none"

    @property
    def n_layers(self) -> int:
        """Layers that the operator goes through."""
        return len(self.frozen.layers)

    @property
    def n_bytes(self) -> int:
        """Memory of the frozen factors, without weights."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.frozen.tensors())

    @property
    def patterns(self) -> Float[Tensor, "layer row head q_pos k_pos"]:
        """The frozen attention patterns, copied: what `attention_rollout` takes."""
        return torch.stack([layer.pattern.flatten(1, 2) for layer in self.frozen.layers])

    def apply(self, x: Float[Tensor, "*many pos d_model"]) -> Float[Tensor, "*many_row pos d_out"]:
        """A x, without the bias. Gradients flow to x.

        Args:
            x: `... row pos d_model`, any leading axes; a row axis of 1, or none, is for all rows.
                Other positions than the operator's are not possible.
        """
        return self._run(self._spread(x, self.inputs.shape[-1]))

    def transpose_apply(
        self, y: Float[Tensor, "*many pos d_out"]
    ) -> Float[Tensor, "*many_row pos d_model"]:
        """A^T y: how a weighted sum ``(y * out).sum()`` reads each embedding.

        Args:
            y: `... row pos d_out`, as in `apply`.
        """
        spread = self._spread(y, self.output.shape[-1])
        flat = spread.reshape(-1, *spread.shape[-3:])
        return self.pull(flat, self.frozen).reshape(*spread.shape[:-1], -1)

    def pull(
        self, y: Float[Tensor, "many row pos width"], frozen: FrozenPass
    ) -> Float[Tensor, "many row pos d_model"]:
        """A^T y on a view of the frozen pass: fewer positions, or no unembedding."""
        found = adjoint_product(frozen, y, self.keep)
        return found if self.minus is None else found - adjoint_product(frozen, y, self.minus)

    def bias(self) -> Float[Tensor, "row pos d_out"]:
        """b: what the output would be for embeddings of zero, patterns, scales, gates as they are.

        Of `through` the part of the biases that passes through the heads.
        """
        return self._run(torch.zeros_like(self.inputs), bias=True)

    def matrix(self, *, max_bytes: int = 2**30) -> Float[Tensor, "row q_pos d_out k_pos d_model"]:
        """A as an explicit tensor; block [:, q, :, k, :] maps the embedding at k to position q.

        Args:
            max_bytes: refuse to make a larger one.

        Raises:
            InputError: it would be larger.
        """
        rows, n_pos, d_model = self.inputs.shape
        d_out = self.output.shape[-1]
        n_bytes = rows * n_pos**2 * d_model * d_out * self.inputs.element_size()
        if n_bytes > max_bytes:
            raise InputError(
                expected=f"an operator whose matrix takes at most {max_bytes:,} bytes",
                got=f"{n_bytes:,} bytes ({rows} x {n_pos} x {d_out} x {n_pos} x {d_model})",
                fix="Take products (apply, transpose_apply) or token-to-token maps, fewer "
                "positions, to=a layer instead of logits, or raise max_bytes=.",
            )
        with torch.no_grad():
            basis = torch.eye(n_pos * d_model, dtype=self.inputs.dtype, device=self.inputs.device)
            parts = [
                self.apply(chunk.view(-1, 1, n_pos, d_model))
                for chunk in basis.split(max(1, 2**14 // (rows * n_pos)))
            ]
        found = torch.cat(parts).unflatten(0, (n_pos, d_model))
        return found.permute(2, 3, 4, 0, 1).contiguous()

    def only(self, heads: Iterable[Head | str]) -> LinearOperator:
        """The operator in which these heads alone carry attention, in all layers.

        What every other head reads is set to zero, its value bias with it; biases of output
        projections, MLPs and the residual stream stay. `only([])` moves nothing between positions.

        Raises:
            InputError: heads that the operator does not go through, or twice.
        """
        return self._kept(self._mask(heads))

    def without(self, heads: Iterable[Head | str]) -> LinearOperator:
        """The operator in which these heads carry nothing, and all others go on as frozen.

        Not what the model would do without them: later patterns, scales and gates stay as they
        were. That is `ablate_heads`.

        Raises:
            InputError: heads that the operator does not go through, or twice.
        """
        return self._kept(1 - self._mask(heads))

    def through(self, heads: Iterable[Head | str]) -> LinearOperator:
        """The part of the output that passes through at least one of these heads.

        The operator minus `without(heads)`. For all heads of **one** layer, one by one, these
        parts and `without` of them all add up to the whole, A and b alike. Parts of heads of
        different layers overlap (a path through both counts in both) and do not.

        Raises:
            InputError: heads that the operator does not go through, or twice; or an operator that
                is such a part already.
        """
        if self.minus is not None:
            raise InputError(
                expected="a whole operator, or one made by only() or without()",
                got="one made by through()",
                fix="Give all heads at once: through(heads) are the paths through any of them.",
            )
        return self._restricted(self.keep, self.without(heads).keep)

    def summary(self) -> str:
        """What is frozen, how well it rebuilds the model, and what it takes."""
        rows, n_pos, d_model = self.inputs.shape
        kind = "all heads"
        if self.minus is not None:
            kind = "paths through some heads"
        elif self.keep is not None:
            kind = f"{int((self.keep != 0).sum())} of {self.keep.numel()} heads"
        return (
            f"Linear operator from embeddings to {self.to} ({rows} rows of {n_pos} tokens, d_model "
            f"{d_model}, {self.n_layers} layers, {kind}).\n"
            f"Rebuilds the model's output to {self.rebuild_error:.1e} of its largest entry; "
            f"frozen factors take {self.n_bytes / 1e6:,.1f} MB.\n"
            "It holds for these tokens; patterns, scales and gates do not respond."
        )

    def _run(self, x: Tensor, *, bias: bool = False) -> Tensor:
        flat = x.reshape(-1, *x.shape[-3:])
        out = forward_product(self.frozen, flat, self.keep, bias=bias)
        if self.minus is not None:
            out = out - forward_product(self.frozen, flat, self.minus, bias=bias)
        return out.reshape(*x.shape[:-1], -1)

    def _spread(self, x: Tensor, width: int) -> Tensor:
        """With the row axis, in the operator's dtype, on its device."""
        rows, n_pos, _ = self.inputs.shape
        x = x.to(self.inputs)
        x = x[None] if x.ndim == 2 else x
        if x.ndim < 3 or x.shape[-2:] != (n_pos, width) or x.shape[-3] not in (1, rows):
            raise InputError(
                expected=f"vectors shaped ..., row ({rows} or 1), pos ({n_pos}), {width}",
                got=f"shape {tuple(x.shape)}",
                fix="Put zeros where there is nothing.",
            )
        return x.expand(*x.shape[:-3], rows, *x.shape[-2:])

    def _mask(self, heads: Iterable[Head | str]) -> Tensor:
        named = [Head.parse(head) if isinstance(head, str) else head for head in heads]
        chosen = check_heads(named, n_heads=self.n_heads, n_layers=self.n_layers)
        mask = self.inputs.new_zeros(self.n_layers, self.n_heads)
        for head in chosen:
            mask[head.layer, head.index] = 1
        return mask

    def _kept(self, chosen: Tensor) -> LinearOperator:
        """These factors on heads besides those there are: on both terms of a difference."""
        keep = chosen if self.keep is None else chosen * self.keep
        return self._restricted(keep, None if self.minus is None else chosen * self.minus)

    def _restricted(self, keep: Tensor | None, minus: Tensor | None) -> LinearOperator:
        made = replace(self, keep=keep, minus=minus)
        with torch.no_grad():
            return replace(made, output=made._run(made.inputs, bias=True))
