"""Where a path ends: queries, keys or values of a head, an MLP, the logits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from headspec.errors import InputError
from headspec.heads import Head, check_heads
from headspec.lens.hooks import heads_of_site

ReceiversLike: TypeAlias = str | Iterable[str | Sequence[str]]
"""Receivers by name, each alone; sequences of names: received together."""

_NAME = re.compile(r"(?P<head>L\d+H\d+)\.(?P<input>[qkv])|L(?P<layer>\d+)\.mlp|logits")


@dataclass(frozen=True)
class Receiver:
    """One end of a path.

    Attributes:
        kind: an input of a head, an MLP, or the logits.
        layer: layer index; that after the last one for the logits.
        head: head index (key-value head for `k` and `v`); None for others.
    """

    kind: Literal["q", "k", "v", "mlp", "logits"]
    layer: int
    head: int | None = None

    def hears(self, sender_layer: int, *, parallel: bool) -> bool:
        """Whether a head of that layer writes before the receiver reads."""
        same = self.kind == "mlp" and not parallel
        return self.layer > sender_layer or (same and self.layer == sender_layer)


def resolve_receivers(model: Any, receivers: ReceiversLike) -> dict[str, tuple[Receiver, ...]]:
    """Receivers by name, each a tuple of those that receive together.

    Args:
        model: a hooked model.
        receivers: `"L5H1.q"`, `"L5H1.k"`, `"L5H1.v"` (key-value heads for k and v), `"L5.mlp"`,
            `"logits"`, or sequences of these.

    Raises:
        InputError: another name, a layer or head that does not exist, or logits with others.
    """
    given = [receivers] if isinstance(receivers, str) else list(receivers)
    found: dict[str, tuple[Receiver, ...]] = {}
    for item in given:
        names = [item] if isinstance(item, str) else list(item)
        ends = tuple(_parse(model, name) for name in names)
        if not ends or (len(ends) > 1 and any(end.kind == "logits" for end in ends)):
            raise InputError(
                expected="one receiver or more to receive together, the logits alone",
                got=repr(item),
                fix="Name the logits as a receiver of their own.",
            )
        found[" ".join(names)] = ends
    if not found:
        raise InputError(expected="one receiver or more", got="none", fix="'logits', for example.")
    return found


def _parse(model: Any, name: str) -> Receiver:
    match = _NAME.fullmatch(name)
    if match is None:
        raise InputError(
            expected="a receiver such as 'L5H1.q', 'L5H1.k', 'L5H1.v', 'L5.mlp' or 'logits'",
            got=repr(name),
            fix="Layers and heads are counted from 0.",
        )
    n_layers = model.cfg.n_layers
    if match["head"]:
        kind = match["input"]
        head = Head.parse(match["head"])
        check_heads([head], n_heads=heads_of_site(model.cfg, kind), n_layers=n_layers)
        return Receiver(kind, head.layer, head.index)  # type: ignore[arg-type]
    if match["layer"] is None:
        return Receiver("logits", n_layers)
    layer = int(match["layer"])
    if layer >= n_layers:
        raise InputError(
            expected=f"layers 0 to {n_layers - 1}", got=name, fix="Layers are counted from 0."
        )
    return Receiver("mlp", layer)
