"""Whether tokens, masks and edits fit the model, before anything is run."""

from __future__ import annotations

from typing import Any

from jaxtyping import Bool, Int, Integer
from torch import Tensor

from headspec.errors import InputError
from headspec.interventions.edits import Edit
from headspec.lens.hooks import heads_of_site


def check_edit(edit: Edit, cfg: Any, tokens: Int[Tensor, "batch pos"]) -> None:
    """Raise unless the model has what is edited and the values have its shape.

    Raises:
        InputError: for another layer, head or shape.
    """
    n_heads = heads_of_site(cfg, edit.site)
    heads = edit.heads or ()
    if not 0 <= edit.layer < cfg.n_layers or any(not 0 <= head < n_heads for head in heads):
        kind = "key-value heads" if n_heads < cfg.n_heads else "heads"
        raise InputError(
            expected=f"layers 0 to {cfg.n_layers - 1} and {kind} 0 to {n_heads - 1}",
            got=f"an edit of layer {edit.layer}" + (f", heads {heads}" if heads else ""),
            fix="Layers and heads are counted from 0.",
        )
    if edit.where is not None and edit.where.shape != tokens.shape:
        raise InputError(
            expected=f"`where` of the tokens' shape {list(tokens.shape)}",
            got=f"{list(edit.where.shape)}",
            fix="Say for every row and column whether it is replaced.",
        )
    batch, pos = tokens.shape
    if edit.site == "pattern":
        shape = (batch, n_heads, pos, pos)
    elif edit.site in ("mlp_out", "resid_pre"):
        shape = (batch, pos, cfg.d_model)
    else:
        shape = (batch, pos, n_heads, cfg.d_head)
    try:
        edit.values.expand(shape)
    except RuntimeError:
        raise InputError(
            expected=f"values for site {edit.site!r} that expand to {list(shape)}",
            got=f"{list(edit.values.shape)}",
            fix="Values hold all heads and positions; `heads` and `where` choose of them.",
        ) from None


def check_tokens(tokens: Int[Tensor, "batch pos"], cfg: Any) -> None:
    """Raise unless the model can read rows of this length.

    Raises:
        InputError: for rows that are empty or longer than the model's context.
    """
    n_ctx = getattr(cfg, "n_ctx", None) or tokens.shape[1]
    if not tokens.numel() or tokens.shape[1] > n_ctx:
        raise InputError(
            expected=f"rows of 1 to {n_ctx} tokens, the model's context",
            got=f"shape {list(tokens.shape)}",
            fix="Cut or split the texts.",
        )


def checked_mask(
    mask: Integer[Tensor, "batch pos"] | Bool[Tensor, "batch pos"] | None,
    tokens: Int[Tensor, "batch pos"],
) -> Tensor | None:
    """The attention mask on the tokens' device, or None where it hides nothing.

    Raises:
        InputError: for another shape, or padding that is not on the left.
    """
    if mask is None:
        return None
    mask = mask.long()  # differences of bool and unsigned numbers are never negative
    if mask.shape != tokens.shape or not (mask[:, -1].all() and (mask.diff(dim=1) >= 0).all()):
        raise InputError(
            expected=f"an attention mask of shape {list(tokens.shape)}, zeros on the left only",
            got=f"shape {list(mask.shape)}" + ("" if mask.shape != tokens.shape else ", other"),
            fix="Pad on the left, so that all rows end in one column.",
        )
    return None if mask.all() else mask.to(tokens.device)
