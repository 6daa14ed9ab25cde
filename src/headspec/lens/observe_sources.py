"""Where the figures of a batch come from: layers run by blocks of scores, or whole patterns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headspec.activations.attention_blocks import AttendedQueries, attend_in_blocks, read_pattern
from headspec.errors import InputError
from headspec.lens.block_parts import UnsupportedBlocks
from headspec.lens.blocks import Blocks, open_blocks
from headspec.lens.capture import capture
from headspec.lens.hooks import evaluating, has_caller_hooks, hook_name, run_to_layer

Take = Callable[[int, AttendedQueries], None]
"""Is given each layer's figures, in order."""

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""What attention of a layer does with its queries, keys and values; see `walk_layers`."""

Columns = Float[Tensor, "batch pos topic"] | None

_WIDTH = 2048  # positions of one pass through embeddings and MLPs
_PROBE = 24  # positions on which blocks are compared with the model
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}  # of half precision: .05
_NAME = "headspec_statistics"
_attend: ContextVar[Callable[..., Tensor]] = ContextVar("attend")


def open_checked(model: Any, tokens: Int[Tensor, "batch pos"]) -> Blocks:
    """The layers of a hooked model as functions, if they compute what the model computes.

    Raises:
        UnsupportedBlocks: they cannot be taken apart, hooks of the caller change what they do,
            or they give another output of the last layer's heads on a short prompt.
    """
    if has_caller_hooks(model):
        raise UnsupportedBlocks("hooks stand on it")
    blocks = open_blocks(model, n_pos=tokens.shape[1])
    prompt, last = tokens[:1, :_PROBE], blocks.n_layers - 1
    expected = capture(model, prompt, [(last, "z")])[last, "z"]
    found: list[Tensor] = []
    run_blocks(model, blocks, prompt, None, lambda _, figures: found.append(figures.z))
    off = (found[-1].transpose(1, 2) - expected).abs().max()
    allowed = _TOLERANCE.get(blocks.dtype, 0.05) * expected.abs().max()
    if not bool(off <= allowed):
        raise UnsupportedBlocks("its layers, taken apart, give something else than the model")
    return blocks


@torch.no_grad()
def run_blocks(
    model: Any, blocks: Blocks, tokens: Int[Tensor, "batch pos"], columns: Columns, take: Take
) -> None:
    """Run a hooked model layer by layer; what is held at a time is one layer's blocks of scores.

    Args:
        model: the hooked model, for its embeddings.
        blocks: its layers.
        tokens: token ids on the model's device.
        columns: `topics` of `attend_in_blocks`.
        take: is given the figures of each layer.
    """

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        figures = attend_in_blocks(q, k, v, scale=blocks.scores_scale(layer), topics=columns)
        take(layer, figures)
        return figures.z

    walk_layers(model, blocks, tokens, attend)


@torch.no_grad()
def walk_layers(
    model: Any, blocks: Blocks, tokens: Int[Tensor, "batch pos"], attend: Attend
) -> None:
    """Run a hooked model layer by layer with attention of one's own; nothing is kept.

    Args:
        model, blocks, tokens: as in `run_blocks`.
        attend: is given the layer and its queries, keys and values `batch head pos d_head`, placed,
            keys and values with the model's key-value heads; gives `z`, `batch head pos d_head`.
    """
    resid = _embedded(model, tokens)
    positions = torch.arange(tokens.shape[1], device=resid.device)
    for layer in range(blocks.n_layers):
        z = attend(
            layer,
            *(
                blocks.position(layer, x, positions, role).transpose(1, 2)
                for x, role in zip(blocks.project(layer, resid), "qkv", strict=True)
            ),
        )
        if layer + 1 == blocks.n_layers:
            return
        attn_out = blocks.write(layer, z.to(resid.dtype).transpose(1, 2))
        del z
        before = resid if blocks.is_parallel(layer) else resid + attn_out
        mlp_out = [blocks.mlp(layer, part) for part in before.split(_WIDTH, 1)]
        resid = resid + attn_out + torch.cat(mlp_out, 1)


def _embedded(model: Any, tokens: Tensor) -> Tensor:
    """What enters layer 0. Without learned positions it depends on each token alone, so that it
    comes in parts: a Bridge would make a mask of all positions by all for the whole row."""
    width = tokens.shape[1] if hasattr(model, "pos_embed") else _WIDTH
    with evaluating(model):
        parts = [
            model(part, return_type=None, stop_at_layer=0) for part in tokens.split(width, dim=1)
        ]
    return torch.cat(parts, 1)


@torch.no_grad()
def run_patterns(
    model: Any, tokens: Int[Tensor, "batch pos"], columns: Columns, take: Take, *, causal: bool
) -> None:
    """Run a hooked model whole and read each layer's pattern as its hook sees it.

    Args:
        model, tokens, columns, take: as in `run_blocks`.
        causal: of the model's attention.
    """

    def reader(layer: int) -> Callable[[Tensor], None]:
        return lambda found: take(layer, read_pattern(found, topics=columns, causal=causal))

    n_layers = model.cfg.n_layers
    functions = {hook_name(layer, "pattern"): reader(layer) for layer in range(n_layers)}
    run_to_layer(model, tokens, functions, layer=n_layers)


@torch.no_grad()
def run_module(model: Any, tokens: Int[Tensor, "batch pos"], columns: Columns, take: Take) -> None:
    """Run a Hugging Face model with attention by blocks in place of its own.

    Args:
        model: a causal Hugging Face model; its attention implementation is put back.
        tokens, columns, take: as in `run_blocks`.

    Raises:
        UnsupportedBlocks: attention that is more than a causal softmax, perhaps in a window.
    """
    seen = 0

    def attend(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, **more: Any) -> Tensor:
        nonlocal seen
        odd = [name for name in ("softcap", "s_aux", "position_bias") if more.get(name) is not None]
        if odd or not getattr(module, "is_causal", True):
            what = f"uses {', '.join(odd)}" if odd else "is not causal"
            raise UnsupportedBlocks(f"its attention {what}")
        if mask is not None and mask.dtype != torch.bool:
            raise UnsupportedBlocks("its attention adds a bias to scores")
        scale = more.get("scaling")
        scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
        figures = attend_in_blocks(q, k, v, scale=scale, topics=columns, mask=mask)
        take(seen, figures)
        seen += 1
        return figures.z.transpose(1, 2).contiguous()

    token = _attend.set(attend)
    try:
        with evaluating(model), _attention(model, _NAME):
            model.base_model(tokens, use_cache=False)
    finally:
        _attend.reset(token)
    if seen != model.config.num_hidden_layers:
        raise UnsupportedBlocks("not all of its layers have attention of the usual interface")


@torch.no_grad()
def run_module_patterns(
    model: Any, tokens: Int[Tensor, "batch pos"], columns: Columns, take: Take, *, causal: bool
) -> None:
    """Run a Hugging Face model with eager attention, which returns its patterns.

    Args:
        model, tokens, columns, take, causal: as in `run_patterns`.
    """
    with evaluating(model), _attention(model, "eager"):
        extra = {"use_cache": False} if causal else {}
        found = model.base_model(tokens, output_attentions=True, **extra).attentions
    if not found or len(found) != model.config.num_hidden_layers:
        raise InputError(
            expected="a model that returns the attention pattern of every layer",
            got=f"{len(found or ())} patterns of {model.config.num_hidden_layers} layers",
            fix="Attention of other kinds (linear, state-space) has no pattern.",
        )
    for layer, pattern in enumerate(found):
        take(layer, read_pattern(pattern, topics=columns, causal=causal))


@contextmanager
def _attention(model: Any, name: str) -> Iterator[None]:
    """Another attention implementation for the time of a block."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(_NAME, _registered)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        if model.config._attn_implementation != name:
            raise UnsupportedBlocks("transformers cannot replace its attention")
        yield
    finally:
        model.set_attn_implementation(before)


def _registered(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **more: Any
) -> tuple[Tensor, None]:
    """What transformers calls in place of its attention, while `run_module` runs."""
    return _attend.get()(module, query, key, value, attention_mask, **more), None
