"""Naming attention heads, and sets of heads of one layer: parity, complements, all splits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Literal

from headspec.errors import InputError

_NAME = re.compile(r"L(\d+)H(\d+)|(\d+)\.(\d+)", flags=re.IGNORECASE)


@dataclass(frozen=True, order=True)
class Head:
    """One attention head: its layer and its index in the layer, both from 0.

    Heads sort by layer, then index, and print as `L6H3`.

    Args:
        layer: layer index from 0.
        index: head index in the layer from 0.

    Raises:
        InputError: a negative number.

    Example:
        >>> str(Head(6, 3))
        'L6H3'
        >>> Head.parse("L6H3") == Head(6, 3)
        True
    """

    layer: int
    index: int

    def __post_init__(self) -> None:
        if self.layer < 0 or self.index < 0:
            raise InputError(
                expected="a layer and a head index counted from 0",
                got=f"layer {self.layer}, head {self.index}",
                fix="Negative indices do not count from the end here; give the index itself.",
            )

    @classmethod
    def parse(cls, text: str) -> Head:
        """A head from its name: `"L6H3"`, or `"6.3"` as papers write it.

        Raises:
            InputError: the text is neither.
        """
        match = _NAME.fullmatch(text.strip())
        if match is None:
            raise InputError(
                expected="a head such as 'L6H3' or '6.3' (layer 6, head 3)",
                got=repr(text),
                fix="Write the layer and the head, both counted from 0.",
            )
        layer, index = (int(number) for number in match.groups() if number is not None)
        return cls(layer, index)

    def __str__(self) -> str:
        return f"L{self.layer}H{self.index}"


def layer_heads(layer: int, *, n_heads: int) -> tuple[Head, ...]:
    """All heads of one layer, in order.

    Example:
        >>> [str(head) for head in layer_heads(6, n_heads=2)]
        ['L6H0', 'L6H1']
    """
    _require_heads(n_heads)
    return tuple(Head(layer, index) for index in range(n_heads))


def parity_heads(layer: int, parity: Literal["even", "odd"], *, n_heads: int) -> tuple[Head, ...]:
    """The heads of one layer with even (0, 2, ...) or odd (1, 3, ...) index.

    An index is an accident of initialisation: an effect of parity means something only beside
    the same effect of every other set of that size (`equal_splits`).

    Raises:
        InputError: another parity, or no heads.

    Example:
        >>> [str(head) for head in parity_heads(0, "odd", n_heads=4)]
        ['L0H1', 'L0H3']
    """
    if parity not in ("even", "odd"):
        raise InputError(expected="parity 'even' or 'odd'", got=repr(parity), fix="Choose one.")
    return layer_heads(layer, n_heads=n_heads)[parity == "odd" :: 2]


def complement(heads: Iterable[Head], *, n_heads: int) -> tuple[Head, ...]:
    """The heads of the same layers that are not in `heads`, in order.

    Layers that `heads` does not touch stay out of it, so the complement of no heads is empty.

    Raises:
        InputError: a head that a layer of `n_heads` does not have.

    Example:
        >>> [str(head) for head in complement([Head(0, 1)], n_heads=3)]
        ['L0H0', 'L0H2']
    """
    given = set(check_heads(heads, n_heads=n_heads))
    layers = sorted({head.layer for head in given})
    everything = (head for layer in layers for head in layer_heads(layer, n_heads=n_heads))
    return tuple(head for head in everything if head not in given)


def equal_splits(
    layer: int, *, n_heads: int, size: int | None = None
) -> Iterator[tuple[Head, ...]]:
    """Every set of `size` heads of one layer, one half of each split, in lexicographic order.

    Both halves of a split come up, each as a set of its own: even against odd heads of 12 is one
    of 924 ordered (462 unordered) splits.

    Args:
        layer: layer index from 0.
        n_heads: heads in the layer.
        size: heads in a set; half of them by default.

    Raises:
        InputError: an odd number of heads without `size`, or a size outside 0 .. n_heads.

    Example:
        >>> [[head.index for head in half] for half in equal_splits(0, n_heads=3, size=2)]
        [[0, 1], [0, 2], [1, 2]]
    """
    size = _split_size(n_heads, size)
    return combinations(layer_heads(layer, n_heads=n_heads), size)


def count_equal_splits(*, n_heads: int, size: int | None = None) -> int:
    """How many sets `equal_splits` gives: the binomial coefficient C(n_heads, size).

    Raises:
        InputError: as `equal_splits`.

    Example:
        >>> count_equal_splits(n_heads=12)
        924
    """
    return comb(n_heads, _split_size(n_heads, size))


def check_heads(
    heads: Iterable[Head], *, n_heads: int, n_layers: int | None = None
) -> tuple[Head, ...]:
    """The heads as a tuple, after a check that the model has them and that none comes twice.

    Args:
        heads: any heads.
        n_heads: heads in a layer of the model.
        n_layers: layers of the model; not checked when None.

    Raises:
        InputError: heads that do not exist, or come twice; the message names them.
    """
    _require_heads(n_heads)
    given = tuple(heads)
    absent = [
        head
        for head in given
        if head.index >= n_heads or (n_layers is not None and head.layer >= n_layers)
    ]
    if absent:
        layers = "" if n_layers is None else f"layers 0 to {n_layers - 1} and "
        raise InputError(
            expected=f"heads within {layers}head indices 0 to {n_heads - 1}",
            got=", ".join(map(str, absent)),
            fix="Layers and heads are counted from 0.",
        )
    twice = sorted({head for head in given if given.count(head) > 1})
    if twice:
        raise InputError(
            expected="every head at most once",
            got=f"{', '.join(map(str, twice))} more than once",
            fix="Drop the repetitions.",
        )
    return given


def check_layer(layer: int, *, n_layers: int) -> None:
    """Raise unless the model has the layer.

    Raises:
        InputError: for a layer outside 0 .. n_layers - 1.
    """
    if not 0 <= layer < n_layers:
        raise InputError(
            expected=f"a layer from 0 to {n_layers - 1}",
            got=f"layer {layer}",
            fix="Layers are counted from 0.",
        )


def _require_heads(n_heads: int) -> None:
    if n_heads < 1:
        raise InputError(
            expected="at least one head in a layer",
            got=f"n_heads={n_heads}",
            fix="Give the number of query heads of the model.",
        )


def _split_size(n_heads: int, size: int | None) -> int:
    _require_heads(n_heads)
    if size is None and n_heads % 2:
        raise InputError(
            expected="an even number of heads to split into equal halves",
            got=f"{n_heads} heads",
            fix=f"Give size=, for example size={n_heads // 2}.",
        )
    size = n_heads // 2 if size is None else size
    if not 0 <= size <= n_heads:
        raise InputError(
            expected=f"a size from 0 to {n_heads}",
            got=f"size={size}",
            fix="A set cannot hold more heads than the layer has.",
        )
    return size
