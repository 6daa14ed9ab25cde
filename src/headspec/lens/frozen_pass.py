"""A forward pass with its patterns, norm scales and gates frozen: an affine map, and its adjoint.

Tensors inside are `many row pos width`: `row` are the inputs that were frozen, each with factors of
its own, `many` are vectors that go through all of them. A product costs about as much as a forward
pass without its queries, keys and softmax; no matrix over positions and dimensions is formed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from headspec.lens.block_parts import Layer, Parts, rotate
from headspec.lens.block_weights import Affine, LayerWeights, MlpWeights, Norm, cast_weights


@dataclass(frozen=True)
class FrozenLayer:
    """One block and what is frozen in it.

    Attributes:
        parallel: the MLP reads the same residual stream as attention.
        weights: of the block, in the operator's dtype.
        pattern: attention, `row kv_head group q_pos k_pos`; query heads of a group share values.
        scale, mlp_scale: what the norms multiply each position with, `row pos 1`.
        clip: what clipping multiplies values with, `row pos kv_head d_head` (OLMo), else None.
        gate: activation / input, or activation of the gate, `row pos d_mlp`.
    """

    parallel: bool
    weights: LayerWeights
    pattern: Tensor
    scale: Tensor | None
    clip: Tensor | None
    mlp_scale: Tensor | None
    gate: Tensor | None


@dataclass(frozen=True)
class FrozenPass:
    """Frozen layers, and the final norm and unembedding where the output is logits."""

    layers: tuple[FrozenLayer, ...]
    final_norm: Norm | None = None
    final_scale: Tensor | None = None
    unembedding: Affine | None = None

    def up_to(self, stop: int) -> FrozenPass:
        """The same for the first `stop` positions alone, as views: nothing later is read there."""

        def first(factor: Tensor | None) -> Tensor | None:
            return None if factor is None else factor[:, :stop]

        layers = tuple(
            replace(
                layer,
                pattern=layer.pattern[..., :stop, :stop],
                scale=first(layer.scale),
                clip=first(layer.clip),
                mlp_scale=first(layer.mlp_scale),
                gate=first(layer.gate),
            )
            for layer in self.layers
        )
        return replace(self, layers=layers, final_scale=first(self.final_scale))

    def without_unembedding(self) -> FrozenPass:
        """The same to the normed residual stream."""
        return replace(self, unembedding=None)

    def tensors(self) -> list[Tensor]:
        """The frozen factors (not the weights)."""
        found = [self.final_scale]
        for layer in self.layers:
            found += [layer.pattern, layer.scale, layer.clip, layer.mlp_scale, layer.gate]
        return [tensor for tensor in found if tensor is not None]


def freeze(
    parts: Parts, resid: Float[Tensor, "row pos d_model"], *, n_layers: int, logits: bool
) -> FrozenPass:
    """Run a forward pass in the dtype of `resid` and keep every factor that is not linear.

    Args:
        parts: of the model.
        resid: what enters layer 0.
        n_layers: how many layers to run.
        logits: whether the final norm and the unembedding follow.
    """
    layers = []
    with torch.no_grad():
        for part in parts.layers[:n_layers]:
            frozen = _freeze_layer(part, resid)
            layers.append(frozen)
            resid = forward_product(FrozenPass((frozen,)), resid[None], bias=True)[0]
        if not logits:
            return FrozenPass(tuple(layers))
        norm = cast_weights(parts.final_weights(), resid.dtype)
        scale = None if norm is None else norm.inverse_scale(resid)
        weight, bias = parts.unembedding()
    return FrozenPass(tuple(layers), norm, scale, cast_weights(Affine(weight, bias), resid.dtype))


def _freeze_layer(part: Layer, resid: Tensor) -> FrozenLayer:
    weights = cast_weights(part.weights(), resid.dtype)
    scale = None if weights.norm is None else weights.norm.inverse_scale(resid)
    normed = _norm(weights.norm, scale, resid, bias=True)
    d_head = part.W_O().shape[1]
    heads = {
        role: _linear(getattr(weights, role), normed, bias=True).unflatten(-1, (-1, d_head))
        for role in "qkv"
    }
    query, key = (_placed(part, weights, heads[role], role) for role in "qk")
    group = query.shape[-2] // key.shape[-2]
    query = query.unflatten(-2, (-1, group))
    scores = torch.einsum("rqgsd,rkgd->rgsqk", query, key) * part.scale
    hidden = scores.new_ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    frozen = FrozenLayer(
        parallel=part.parallel,
        weights=weights,
        pattern=scores.masked_fill_(hidden, -torch.inf).softmax(-1),
        scale=scale,
        clip=None if part.clip is None else _clip_factor(heads["v"], part.clip),
        mlp_scale=None,
        gate=None,
    )
    if weights.mlp is None:
        return frozen
    if not part.parallel:
        resid = resid + _attend(frozen, resid[None], None, bias=True)[0]
    mlp_scale = None if weights.mlp.norm is None else weights.mlp.norm.inverse_scale(resid)
    normed = _norm(weights.mlp.norm, mlp_scale, resid, bias=True)
    return replace(frozen, mlp_scale=mlp_scale, gate=_gate(weights.mlp, normed))


def _placed(part: Layer, weights: LayerWeights, x: Tensor, role: str) -> Tensor:
    """QK-norm, clipping and rotation of queries or keys: all inside the frozen pattern."""
    norm = weights.q_norm if role == "q" else weights.k_norm
    if norm is not None:
        x = _norm(norm, norm.inverse_scale(x), x, bias=True)
    if part.clip is not None:
        x = x.clamp(-part.clip, part.clip)
    if part.rotary is None:
        return x
    cos, sin = (table[: x.shape[-3]].detach().to(x.dtype) for table in part.rotary())
    return rotate(x, cos, sin, adjacent=part.adjacent)


def _gate(mlp: MlpWeights, normed: Tensor) -> Tensor:
    if mlp.gate is not None:
        return mlp.activation(_linear(mlp.gate, normed, bias=True))
    hidden = _linear(mlp.into, normed, bias=True)
    hidden = torch.where(hidden == 0, torch.full_like(hidden, 1e-6), hidden)
    return mlp.activation(hidden) / hidden


def _clip_factor(value: Tensor, clip: float) -> Tensor:
    return (clip / value.abs()).clamp(max=1)  # 0 gives infinity, then 1


def forward_product(
    frozen: FrozenPass,
    x: Float[Tensor, "many row pos d_model"],
    keep: Float[Tensor, "layer head"] | None = None,
    *,
    bias: bool = False,
) -> Float[Tensor, "many row pos width"]:
    """A x, and with `bias` A x + b.

    Args:
        frozen: the frozen pass.
        x: what enters layer 0.
        keep: factor on what each head reads (values mixed by its pattern); None: ones.
        bias: add the biases of norms, projections and MLPs where they stand.
    """
    for index, layer in enumerate(frozen.layers):
        middle = x + _attend(layer, x, None if keep is None else keep[index], bias=bias)
        mlp = layer.weights.mlp
        if mlp is not None and layer.gate is not None:
            read = x if layer.parallel else middle
            hidden = _linear(mlp.into, _norm(mlp.norm, layer.mlp_scale, read, bias=bias), bias=bias)
            middle = middle + _linear(mlp.out, hidden * layer.gate, bias=bias)
        x = middle
    x = _norm(frozen.final_norm, frozen.final_scale, x, bias=bias)
    return x if frozen.unembedding is None else _linear(frozen.unembedding, x, bias=bias)


def adjoint_product(
    frozen: FrozenPass,
    y: Float[Tensor, "many row pos width"],
    keep: Float[Tensor, "layer head"] | None = None,
) -> Float[Tensor, "many row pos d_model"]:
    """A^T y: layers in reverse, each product transposed.

    Args:
        frozen: the frozen pass.
        y: in the space of the output.
        keep: as in `forward_product`.
    """
    if frozen.unembedding is not None:
        y = y @ frozen.unembedding.weight
    y = _norm_adjoint(frozen.final_norm, frozen.final_scale, y)
    for index, layer in reversed(list(enumerate(frozen.layers))):
        after, mlp = y, layer.weights.mlp
        if mlp is not None and layer.gate is not None:
            hidden = ((after @ mlp.out.weight) * layer.gate) @ mlp.into.weight
            y = y + _norm_adjoint(mlp.norm, layer.mlp_scale, hidden)
        written = after if layer.parallel else y
        y = y + _attend_adjoint(layer, written, None if keep is None else keep[index])
    return y


def _attend(layer: FrozenLayer, x: Tensor, keep: Tensor | None, *, bias: bool) -> Tensor:
    weights = layer.weights
    kv_heads, group = layer.pattern.shape[1:3]
    normed = _norm(weights.norm, layer.scale, x, bias=bias)
    value = _linear(weights.v, normed, bias=bias).unflatten(-1, (kv_heads, -1))
    if layer.clip is not None:
        value = value * layer.clip
    z = torch.einsum("rgsqk,mrkgd->mrqgsd", layer.pattern, value)
    if keep is not None:
        z = z * keep.view(kv_heads, group, 1)
    return _linear(weights.out, z.flatten(-3), bias=bias)


def _attend_adjoint(layer: FrozenLayer, y: Tensor, keep: Tensor | None) -> Tensor:
    weights = layer.weights
    kv_heads, group = layer.pattern.shape[1:3]
    z = (y @ weights.out.weight).unflatten(-1, (kv_heads, group, -1))
    if keep is not None:
        z = z * keep.view(kv_heads, group, 1)
    value = torch.einsum("rgsqk,mrqgsd->mrkgd", layer.pattern, z)
    if layer.clip is not None:
        value = value * layer.clip
    return _norm_adjoint(weights.norm, layer.scale, value.flatten(-2) @ weights.v.weight)


def _linear(linear: Affine, x: Tensor, *, bias: bool) -> Tensor:
    return torch.nn.functional.linear(x, linear.weight, linear.bias if bias else None)


def _norm(norm: Norm | None, scale: Tensor | None, x: Tensor, *, bias: bool) -> Tensor:
    if norm is None or scale is None:
        return x
    x = norm.centre(x) * scale
    if norm.gain is not None:
        x = x * norm.gain
    return x + norm.bias if bias and norm.bias is not None else x


def _norm_adjoint(norm: Norm | None, scale: Tensor | None, y: Tensor) -> Tensor:
    if norm is None or scale is None:
        return y
    if norm.gain is not None:
        y = y * norm.gain
    return norm.centre(y * scale)
