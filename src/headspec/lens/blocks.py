"""The layers of a hooked model as plain functions of tensors, to recompute only some of them.

A hooked forward pass always runs every layer at every position. Here the projections, rotary
embeddings, output projection, MLP and unembedding of a layer are functions of any rows and any
positions, so that what lies before an intervention can be kept. They give what the model's
hooks would hold, with the model's own parameters, read at every call.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from headspec.lens.block_bridge import read_bridge
from headspec.lens.block_hooked import read_hooked
from headspec.lens.block_parts import Parts, UnsupportedBlocks, check_plain, in_rows, rotate

__all__ = ["Blocks", "UnsupportedBlocks", "open_blocks", "read_parts"]


def open_blocks(model: Any, *, n_pos: int) -> Blocks:
    """Take a model's layers apart, if they are of a known kind.

    Known are GPT-NeoX, GPT-2, Llama, Mistral, Qwen2, Qwen3 and OLMo on every hooked class, and
    HookedTransformers of one's own config with learned or rotary positions: norms before
    attention and MLP, causal attention over all tokens, nothing capped.

    Args:
        model: a HookedTransformer or TransformerBridge in evaluation mode, without hooks.
        n_pos: the most tokens that will be in one row.

    Raises:
        UnsupportedBlocks: anything else; its `reason` says what.

    Example:
        >>> blocks = open_blocks(model, n_pos=20)                     # doctest: +SKIP
        >>> q, k, v = blocks.project(0, resid_pre)                    # doctest: +SKIP
    """
    return Blocks(read_parts(model, n_pos))


def read_parts(model: Any, n_pos: int) -> Parts:
    """What `open_blocks` is made of.

    Raises:
        UnsupportedBlocks: as there.
    """
    check_plain(model)
    kinds = {kind.__name__ for kind in type(model).__mro__}
    if "TransformerBridge" in kinds:
        return read_bridge(model, n_pos)
    if "HookedTransformer" in kinds:
        return read_hooked(model, n_pos)
    raise UnsupportedBlocks(
        f"it is a {type(model).__name__}, not a HookedTransformer or TransformerBridge"
    )


class Blocks:
    """A model's layers as functions; tensors may have any leading axes, gradients flow.

    Attributes:
        n_layers, n_heads, n_kv_heads, d_head, d_model: of the model; `n_kv_heads` is the axis
            that `hook_k` and `hook_v` have.
        dtype, device: of the weights.
    """

    def __init__(self, parts: Parts) -> None:
        self._layers = parts.layers
        self._final_norm = parts.final_norm
        self._unembedding = parts.unembedding
        weight = parts.layers[0].W_O()
        self.n_layers = len(parts.layers)
        self.n_heads, self.d_head, self.d_model = weight.shape
        self.n_kv_heads = parts.n_kv_heads
        self.dtype, self.device = weight.dtype, weight.device

    def is_parallel(self, layer: int) -> bool:
        """Whether the MLP reads `resid_pre`, as attention does (GPT-NeoX)."""
        return self._layers[layer].parallel

    def has_mlp(self, layer: int) -> bool:
        """Whether there is an MLP; `mlp` gives zeros without."""
        return self._layers[layer].mlp is not None

    def project(
        self, layer: int, resid_pre: Float[Tensor, "*rows pos d_model"], which: str = "qkv"
    ) -> tuple[Tensor, ...]:
        """What `hook_q`, `hook_k`, `hook_v` hold for a residual stream: `*rows pos head d_head`.

        Args:
            layer: layer index from 0.
            resid_pre: what enters the block.
            which: letters of `"qkv"`; only these are computed, and given in this order.
        """
        part = self._layers[layer]
        normed = part.norm(resid_pre.reshape(-1, *resid_pre.shape[-2:]))
        rows = resid_pre.shape[:-2]
        heads = [part.heads[name](normed) for name in which]
        return tuple(head.reshape(*rows, *head.shape[1:]) for head in heads)

    def position(
        self,
        layer: int,
        x: Float[Tensor, "*rows pos head d_head"],
        positions: Int[Tensor, "*#rows pos"],
        role: str,
    ) -> Float[Tensor, "*rows pos head d_head"]:
        """What attention makes of queries, keys and values between their hook and the scores.

        QK-norm and clipping where the architecture has them, then the rotary embedding at
        absolute positions, counted from the first column. Values are clipped at most (OLMo).

        Args:
            layer: layer index from 0.
            x: as `project` gives it, edited or not.
            positions: column of each position.
            role: `"q"`, `"k"` or `"v"`.
        """
        part = self._layers[layer]
        if role in part.head_norms:
            x = part.head_norms[role](x)
        if part.clip is not None:
            x = x.clamp(-part.clip, part.clip)
        if part.rotary is None or role == "v":
            return x
        cos, sin = part.rotary()
        return rotate(x, cos[positions], sin[positions], adjacent=part.adjacent)

    def clips_values(self, layer: int) -> bool:
        """Whether `position` with role `"v"` does anything."""
        return self._layers[layer].clip is not None

    def scores_scale(self, layer: int) -> float:
        """Factor on the product of query and key, before the softmax."""
        return self._layers[layer].scale

    def write(
        self, layer: int, z: Float[Tensor, "*rows pos head d_head"]
    ) -> Float[Tensor, "*rows pos d_model"]:
        """What attention writes, with its bias: what `hook_attn_out` holds."""
        return in_rows(self._layers[layer].out, z.flatten(-2))

    def W_O(self, layer: int) -> Float[Tensor, "head d_head d_model"]:
        """The output projection of each head, a view of the model's weights."""
        return self._layers[layer].W_O()

    def mlp(
        self, layer: int, resid: Float[Tensor, "*rows pos d_model"]
    ) -> Float[Tensor, "*rows pos d_model"]:
        """What the MLP writes, its norm included: what `hook_mlp_out` holds.

        Args:
            layer: layer index from 0.
            resid: `resid_pre` in parallel blocks, else `resid_pre` plus the attention's output.
        """
        function = self._layers[layer].mlp
        return torch.zeros_like(resid) if function is None else in_rows(function, resid)

    def logits(
        self,
        resid: Float[Tensor, "*rows d_model"],
        columns: Int[Tensor, "*#rows column"] | None = None,
    ) -> Float[Tensor, "*rows column"]:
        """Logits of the residual stream after the last layer, in float32.

        The unembedding runs in the model's dtype, as the model's own does.

        Args:
            resid: `hook_resid_post` of the last layer, any positions.
            columns: vocabulary entries of each row; broadcasts over leading axes. Only the
                columns of the unembedding that occur are multiplied. None: all.
        """
        weight, bias = self._unembedding()
        normed = self._final_norm(resid.reshape(-1, 1, resid.shape[-1])).reshape(resid.shape)
        if columns is None:
            return F.linear(normed, weight, bias).float()
        columns = columns.to(weight.device)
        used, index = columns.unique(return_inverse=True)
        chosen = None if bias is None else bias[used]
        if len(used) <= max(64, 8 * columns.shape[-1]):
            logits = F.linear(normed, weight[used], chosen).float()
            return logits.gather(-1, index.expand(*normed.shape[:-1], -1))
        # Each row has columns of its own: one small product per row of `columns`.
        logits = torch.einsum("...cd,...d->...c", weight[columns], normed)
        return (logits if bias is None else logits + bias[columns]).float()
