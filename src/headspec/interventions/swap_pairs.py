"""Which heads change places: pairs between two sets, inside one, and between random sets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations, permutations
from math import comb, factorial
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from headspec.errors import InputError
from headspec.heads import Head, check_heads
from headspec.weights.cluster_result import HeadClustering

Pairing: TypeAlias = tuple[tuple[int, int], ...]
"""Pairs of head indices that change places, no head twice; sorted, the smaller head first."""

HeadSet: TypeAlias = tuple[int, ...]


def pairing_of(pairs: Iterable[tuple[int, int]]) -> Pairing:
    """Pairs in the one order that makes equal swaps equal."""
    return tuple(sorted((min(pair), max(pair)) for pair in pairs))


def head_sets_of(
    clustering: Any, *, layer: int | None, n_heads: int
) -> tuple[int, tuple[HeadSet, ...]]:
    """The layer and the head sets that a clustering, labels or sets of heads stand for.

    Args:
        clustering: a `HeadClustering` of one layer, one label for each head (negative: in no
            set), or sets of heads of one layer.
        layer: needed with plain labels; otherwise it must agree.
        n_heads: heads in a layer of the model.

    Returns:
        The layer, and head indices of each set, in the order of labels.

    Raises:
        InputError: labels that are not one a head, sets that share heads, heads of several layers.
    """
    if isinstance(clustering, HeadClustering):
        if len(set(clustering.layers)) != 1:
            raise InputError(
                expected="a clustering of the heads of one layer",
                got=f"heads of layers {sorted(set(clustering.layers))}",
                fix="Cluster the layers one by one.",
            )
        layer = _same_layer(clustering.layers[0], layer)
        return layer, _sets_of_labels(np.asarray(clustering.labels), n_heads=n_heads)
    listed = list(clustering)
    if all(np.ndim(label) == 0 and not isinstance(label, (Head, str)) for label in listed):
        if layer is None:
            raise InputError(
                expected="layer= with plain labels",
                got="labels alone",
                fix="Say of which layer's heads they are.",
            )
        return layer, _sets_of_labels(np.array([int(label) for label in listed]), n_heads=n_heads)
    sets = [check_heads([_as_head(head) for head in one], n_heads=n_heads) for one in listed]
    layers = sorted({head.layer for one in sets for head in one})
    if len(layers) != 1 or not all(sets):
        raise InputError(
            expected="sets of heads of one layer, none of them empty",
            got=f"{len(sets)} sets in layers {layers}",
            fix="Heads are compared within a layer: elsewhere they read another residual stream.",
        )
    check_heads([head for one in sets for head in one], n_heads=n_heads)
    layer = _same_layer(layers[0], layer)
    return layer, tuple(tuple(sorted(head.index for head in one)) for one in sets)


def _as_head(head: Head | str) -> Head:
    return Head.parse(head) if isinstance(head, str) else head


def _same_layer(found: int, layer: int | None) -> int:
    if layer is not None and layer != found:
        raise InputError(
            expected=f"the layer of the heads, {found}", got=f"layer={layer}", fix="Leave it out."
        )
    return found


def _sets_of_labels(labels: np.ndarray, *, n_heads: int) -> tuple[HeadSet, ...]:
    if len(labels) != n_heads:
        raise InputError(
            expected=f"one label for each of the layer's {n_heads} heads",
            got=f"{len(labels)}",
            fix="Under grouped-query attention cluster by 'q', 'qk' or 'ov', which have a row for "
            "every query head.",
        )
    kinds = [label for label in np.unique(labels) if label >= 0]
    return tuple(tuple(int(head) for head in np.flatnonzero(labels == label)) for label in kinds)


def count_pairings(n_one: int, n_other: int, n_pairs: int) -> int:
    """How many ways there are to pair `n_pairs` heads of one set with heads of another."""
    return comb(n_one, n_pairs) * comb(n_other, n_pairs) * factorial(n_pairs)


def draw_pairings(
    one: Sequence[int],
    other: Sequence[int],
    *,
    n_pairs: int,
    n_draws: int,
    rng: np.random.Generator,
) -> list[Pairing]:
    """Pairings between two disjoint sets: all of them where there are few, else random ones.

    Which procedure is taken depends on sizes alone, so that observed and random sets go through
    the same one.
    """
    if count_pairings(len(one), len(other), n_pairs) <= n_draws:
        return [
            pairing_of(zip(mine, theirs, strict=True))
            for mine in combinations(one, n_pairs)
            for theirs in permutations(other, n_pairs)
        ]
    return [
        pairing_of(
            zip(
                rng.choice(one, n_pairs, replace=False).tolist(),
                rng.choice(other, n_pairs, replace=False).tolist(),
                strict=True,
            )
        )
        for _ in range(n_draws)
    ]


def match_pairing(
    one: Sequence[int], other: Sequence[int], *, similarity: Float[np.ndarray, "head head"]
) -> Pairing:
    """The pairing of greatest summed similarity; heads of the larger set without a partner stay.

    References:
        Jonker and Volgenant 1987, by `scipy.optimize.linear_sum_assignment`.
    """
    rows, columns = linear_sum_assignment(similarity[np.ix_(one, other)], maximize=True)
    return pairing_of((one[i], other[j]) for i, j in zip(rows, columns, strict=True))


def pairings_within(
    heads: Sequence[int], *, n_pairs: int, n_draws: int, rng: np.random.Generator
) -> list[Pairing]:
    """Pairings of heads of one set among themselves: all where there are few, else random ones."""
    count = comb(len(heads), 2 * n_pairs) * factorial(2 * n_pairs)
    count //= 2**n_pairs * factorial(n_pairs)
    if count <= n_draws:
        chosen = combinations(heads, 2 * n_pairs)
        return [pairing for one in chosen for pairing in _perfect_pairings(one)]
    shuffled = (rng.permutation(heads)[: 2 * n_pairs].tolist() for _ in range(n_draws))
    return [pairing_of(zip(draw[::2], draw[1::2], strict=True)) for draw in shuffled]


def _perfect_pairings(heads: Sequence[int]) -> list[Pairing]:
    if not heads:
        return [()]
    first, rest = heads[0], heads[1:]
    return [
        pairing_of([(first, partner), *others])
        for partner in rest
        for others in _perfect_pairings([head for head in rest if head != partner])
    ]


def random_sets(
    sizes: tuple[int, int], *, n_heads: int, n_random: int, rng: np.random.Generator
) -> tuple[list[tuple[HeadSet, HeadSet]], bool]:
    """Random disjoint sets of given sizes out of a layer's heads, or all of them if they are few.

    A swap does not tell its two sets apart, so that sets of equal size count once.

    Returns:
        The sets, and whether they are all that there are (the observed ones among them).
    """
    a, b = sizes
    count = comb(n_heads, a) * comb(n_heads - a, b) // (2 if a == b else 1)
    if count <= n_random:
        every = range(n_heads)
        sets = [
            (one, other)
            for one in combinations(every, a)
            for other in combinations([head for head in every if head not in one], b)
            if a != b or one < other
        ]
        return sets, True
    draws = (rng.permutation(n_heads).tolist() for _ in range(n_random))
    return [(tuple(sorted(d[:a])), tuple(sorted(d[a : a + b]))) for d in draws], False
