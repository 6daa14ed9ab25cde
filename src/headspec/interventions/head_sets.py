"""Which heads, sets of heads or layers an intervention takes, each as one row of its result."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from headspec.errors import InputError
from headspec.heads import Head, check_heads, layer_heads
from headspec.interventions.edits import HEAD_SITES, Site
from headspec.interventions.effects import Kind
from headspec.lens.hooks import heads_of_site

HeadsLike: TypeAlias = Iterable[Head] | Iterable[Iterable[Head]] | None
"""None: every head, each alone. Heads: each alone. Iterables of heads: sets."""


@dataclass(frozen=True)
class HeadSets:
    """Rows of an intervention before positions are chosen.

    Attributes:
        kind: what a row is.
        sets: heads of each row; `()` for whole layers.
        layers: layer of each row; None where a set spans several.
        n_layers, n_heads: of the model; heads as the site has them.
    """

    kind: Kind
    sets: tuple[tuple[Head, ...], ...]
    layers: tuple[int | None, ...]
    n_layers: int
    n_heads: int

    def by_layer(self, row: int) -> dict[int, tuple[int, ...] | None]:
        """Head indices of a row, layer by layer; None: the site of the whole layer."""
        if self.kind == "layer":
            layer = self.layers[row]
            assert layer is not None
            return {layer: None}
        found: dict[int, list[int]] = {}
        for head in sorted(self.sets[row]):
            found.setdefault(head.layer, []).append(head.index)
        return {layer: tuple(indices) for layer, indices in found.items()}

    @property
    def used_layers(self) -> tuple[int, ...]:
        """Layers that any row touches."""
        return tuple(
            sorted({layer for row in range(len(self.sets)) for layer in self.by_layer(row)})
        )


def resolve_heads(model: Any, heads: Any, *, site: Site, layers: Iterable[int] | None) -> HeadSets:
    """The rows that `heads` and `layers` ask for.

    Args:
        model: a hooked model.
        heads: `HeadsLike`: None, heads, or sets of heads, which may span layers. For `k` and `v`
            under grouped-query attention these are key-value heads (query heads where the model
            was told to repeat keys and values for each).
        site: what will be replaced; sites of whole layers take no heads.
        layers: without `heads`, the layers to take; None: all.

    Raises:
        InputError: heads or layers that the model does not have, or that exclude each other.
    """
    n_layers, n_heads = model.cfg.n_layers, heads_of_site(model.cfg, site)
    chosen = _check_layers(layers, n_layers)
    if site not in HEAD_SITES:
        if heads is not None:
            raise InputError(
                expected=f"no heads for site {site!r}, which belongs to whole layers",
                got="heads=",
                fix="Choose layers=, or a site of heads: z, q, k, v, pattern.",
            )
        return HeadSets("layer", ((),) * len(chosen), chosen, n_layers, n_heads)
    if heads is None:
        singles = [head for layer in chosen for head in layer_heads(layer, n_heads=n_heads)]
        return _singles(singles, n_layers, n_heads)
    if layers is not None:
        raise InputError(
            expected="heads= or layers=",
            got="both",
            fix="layers= restricts the sweep over every head; heads name their layers themselves.",
        )
    given = _listed(heads)
    if all(isinstance(item, Head) for item in given):
        singles = check_heads(given, n_heads=n_heads, n_layers=n_layers)
        return _singles(singles, n_layers, n_heads)
    sets = tuple(check_heads(_listed(item), n_heads=n_heads, n_layers=n_layers) for item in given)
    of_rows = [{head.layer for head in row} for row in sets]
    row_layers = tuple(found.pop() if len(found) == 1 else None for found in of_rows)
    return HeadSets("set", sets, row_layers, n_layers, n_heads)


def _singles(heads: Iterable[Head], n_layers: int, n_heads: int) -> HeadSets:
    sets = tuple((head,) for head in heads)
    return HeadSets("head", sets, tuple(row[0].layer for row in sets), n_layers, n_heads)


def _listed(heads: Any) -> list[Any]:
    items = [] if isinstance(heads, Head | str) else list(heads)
    kinds = {isinstance(item, Head) for item in items}
    if isinstance(heads, Head | str) or len(kinds) > 1 or any(isinstance(x, str) for x in items):
        raise InputError(
            expected="an iterable of Head, or an iterable of such iterables",
            got=repr(heads),
            fix="Write [Head(2, 3)] for one head, [[Head(2, 3), Head(2, 5)]] for one set of two, "
            "Head.parse('L2H3') for a head from its name.",
        )
    return items


def _check_layers(layers: Iterable[int] | None, n_layers: int) -> tuple[int, ...]:
    chosen = tuple(range(n_layers) if layers is None else layers)
    if any(not 0 <= layer < n_layers for layer in chosen) or len(set(chosen)) < len(chosen):
        raise InputError(
            expected=f"layers from 0 to {n_layers - 1}, each once",
            got=f"{list(chosen)}",
            fix="Layers are counted from 0.",
        )
    return chosen
