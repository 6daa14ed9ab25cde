"""Which weight processing a hooked model went through, and whether it still is the same model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headspec.errors import CheckpointError, UnsupportedArchitectureError
from headspec.lens.protocols import Processing

_MARK = "headspec_origin"
_STEPS = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")
_LAYER_NORM = ("LN", "LNPre")


@dataclass(frozen=True)
class Origin:
    """Where a hooked model came from; rides on the model, through copies and pickles.

    Attributes:
        model: name or path.
        step: training step, None where unknown.
        processing: as in `HeadWeights.processing`.
    """

    model: str = ""
    step: int | None = None
    processing: str = "none"


def processing_flags(
    processing: Processing, *, normalization: str, folds: bool, centers: bool, softcapped: bool
) -> dict[str, bool]:
    """The processing steps that take effect, by the names transformer-lens gives them.

    Layer norm cannot be folded where it stands behind the attention (BERT, OLMo2). Centring what
    is written to the residual stream is exact only under layer norm, not under RMS norm.

    Args:
        processing: `"none"` or `"compatibility"`.
        normalization: transformer-lens's `normalization_type`.
        folds: whether layer norm stands before attention and MLP.
        centers: whether centring what is written is sound for the architecture.
        softcapped: whether logits go through a soft cap, which centring would shift.
    """
    wanted = processing == "compatibility"
    return {
        "fold_ln": wanted and folds,
        "center_writing_weights": wanted and centers and normalization in _LAYER_NORM,
        "center_unembed": wanted and not softcapped,
        "fold_value_biases": wanted,
    }


def describe_flags(flags: dict[str, bool]) -> str:
    """Flags as the text that results carry: `"none"` or a comma list."""
    return ",".join(step for step in _STEPS if flags.get(step)) or "none"


def record_origin(model: Any, origin: Origin) -> None:
    """Write the origin on a model that headspec built."""
    object.__setattr__(model, _MARK, origin)


def origin_of(model: Any) -> Origin:
    """Origin of a hooked model: what was recorded, else what can be seen.

    On a model that headspec did not build, name and step are transformer-lens's own, and the
    processing is read off the weights: a Bridge says whether its weights were processed; then, as
    for every HookedTransformer, gains that are one, writing weights whose mean is zero and value
    biases that are zero are signs of folding and centring. If processed weights show no such
    sign the answer is `"unknown"`. A freshly initialised HookedTransformer can look folded.
    """
    if (mark := vars(model).get(_MARK)) is not None:
        return mark
    return Origin(
        model=str(getattr(model.cfg, "model_name", None) or ""),
        step=getattr(model.cfg, "checkpoint_value", None),
        processing=_visible_processing(model),
    )


@torch.no_grad()
def _visible_processing(model: Any) -> str:
    processed = getattr(model, "_weights_processed", None)
    if processed is False:  # a Bridge that was never processed
        return "none"
    block = model.blocks[0]
    W_O, b_V = block.attn.W_O.float(), _zero_biases(block.attn)
    centred = W_O.mean(-1).abs().max() <= 1e-4 * W_O.abs().max()
    unembed = model.unembed.W_U.float()
    flags = {
        "fold_ln": model.cfg.normalization_type in ("LNPre", "RMSPre") or _unit_gain(block),
        "center_writing_weights": bool(centred),
        "center_unembed": bool(unembed.mean(-1).abs().max() <= 1e-4 * unembed.abs().max()),
    }
    flags["fold_value_biases"] = b_V and any(flags.values())
    if processed and not any(flags.values()):
        return "unknown"
    return describe_flags(flags)


def _unit_gain(block: Any) -> bool:
    norm = getattr(block, "ln1", None)
    gain = getattr(norm, "w", None)
    gain = getattr(norm, "weight", None) if gain is None else gain
    return isinstance(gain, Tensor) and bool((gain == 1).all())


def _zero_biases(attention: Any) -> bool:
    try:
        bias = attention.b_V
    except (AttributeError, TypeError):
        return False
    return isinstance(bias, Tensor) and not bool(bias.any())


@torch.no_grad()
def probe_log_probs(
    model: Any, tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch pos d_vocab"]:
    """Log-probabilities of a Hugging Face or hooked model, in float32."""
    out = model(tokens)
    return getattr(out, "logits", out).float().log_softmax(-1)


def probe_tokens(vocabulary: int, *, n_ctx: int, device: Any) -> Int[Tensor, "batch pos"]:
    """A fixed sequence of up to 48 scattered token ids to compare two models on."""
    ids = (torch.arange(min(48, n_ctx)) * 7919 + vocabulary // 3) % vocabulary
    return ids[None].to(device)


def check_same_function(
    before: Float[Tensor, "batch pos d_vocab"],
    after: Float[Tensor, "batch pos d_vocab"],
    *,
    dtype: torch.dtype,
    what: str,
) -> None:
    """Refuse a converted or processed model that computes something else.

    Both conversion to HookedTransformer and weight processing must leave log-probabilities alone,
    and silently do not for some models (biases a converter drops, a rotary base it ignores, an
    MLP as wide as the residual stream). The root-mean-square difference, relative to the spread
    of the log-probabilities over the vocabulary, must stay below 2e-4 (0.1 in half precision).

    Raises:
        CheckpointError: the difference is larger.
    """
    spread = before.std(-1).pow(2).mean().sqrt().clamp_min(1e-3)
    difference = ((after - before).pow(2).mean().sqrt() / spread).item()
    allowed = 2e-4 if dtype in (torch.float32, torch.float64) else 0.1
    if not difference <= allowed:
        raise CheckpointError(
            expected=f"{what} to give the log-probabilities of the Hugging Face model "
            f"(relative difference up to {allowed:g})",
            got=f"a relative difference of {difference:.2g}",
            fix="transformer-lens gets this model wrong here: use model_class='bridge' with "
            "processing='none', which runs the Hugging Face modules themselves.",
        )


@contextmanager
def explain_failures(hf_model: Any, model_class: str) -> Iterator[None]:
    """Turn transformer-lens's bare assertions about unusual models into a clear error.

    Raises:
        UnsupportedArchitectureError: transformer-lens failed; its own error is the cause.
    """
    try:
        yield
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UnsupportedArchitectureError(
            expected=f"a model that transformer-lens can hold as {model_class}",
            got=f"{type(hf_model).__name__}, on which it fails: {type(error).__name__} {error}",
            fix="Use the Bridge, or the Hugging Face model itself: headspec.head_weights takes it.",
        ) from error
