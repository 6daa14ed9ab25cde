"""What headspec needs of a hooked model: HookedTransformer and TransformerBridge both give it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

ModelClass: TypeAlias = Literal["auto", "bridge", "hooked_transformer"]
"""`"auto"` is the Bridge, which every supported release of transformer-lens has."""

Processing: TypeAlias = Literal["none", "compatibility"]
"""`"none"`: weights as stored. `"compatibility"`: transformer-lens's classic defaults."""


@runtime_checkable
class HookedModel(Protocol):
    """A transformer-lens model of either class, as far as headspec uses it.

    Attributes:
        cfg: configuration with `n_layers`, `n_heads`, `d_model`, `d_head`, `n_ctx`, `device`.
        blocks: the layers.
        tokenizer: the tokenizer, or None.
    """

    cfg: Any
    blocks: Any
    tokenizer: Any
    run_with_cache: Callable[..., Any]
    run_with_hooks: Callable[..., Any]
    hooks: Callable[..., Any]
    to_tokens: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
