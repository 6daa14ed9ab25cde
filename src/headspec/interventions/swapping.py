"""Swap two clusters of heads one to one, against random swaps and swaps inside a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from headspec.errors import InputError, check_choice
from headspec.heads import Head, check_layer
from headspec.interventions.positions import PositionsLike
from headspec.interventions.replay import MEMORY_BUDGET
from headspec.interventions.swap_divergence import rounding_divergence, swap_divergences
from headspec.interventions.swap_pairs import (
    HeadSet,
    Pairing,
    draw_pairings,
    head_sets_of,
    match_pairing,
    pairings_within,
    random_sets,
)
from headspec.interventions.swap_result import ClusterSwap, WithinSwap
from headspec.interventions.weight_swaps import SwapKind
from headspec.lens.processing import origin_of
from headspec.lens.weights import head_weights
from headspec.stats import summarise_null
from headspec.weights.cluster_result import HeadClustering
from headspec.weights.similarity import HeadSimilarity, head_similarity

Unequal = Literal["repeat", "match"]
"""How heads of the two clusters find partners."""


def swap_clusters(
    model: Any,
    clustering: HeadClustering | Iterable[Any],
    tokens: Int[Tensor, "batch pos"],
    *,
    layer: int | None = None,
    how: SwapKind = "outputs",
    n_random: int = 100,
    unequal: Unequal = "repeat",
    n_pairings: int = 5,
    similarity: HeadSimilarity | None = None,
    positions: PositionsLike = None,
    read_positions: Literal["last", "all"] | Int[Tensor, "batch read"] = "last",
    attention_mask: Int[Tensor, "batch pos"] | None = None,
    memory_budget: int = MEMORY_BUDGET,
    seed: int = 0,
) -> ClusterSwap:
    r"""How much the output changes when heads of two clusters change places, and random heads.

    min(|A|, |B|) heads of one cluster change places with as many of the other, one to one. The
    measure is KL(base \|\| swapped) of the next-token distributions in nats, averaged over read
    positions, prompts and pairings. Since *any* swap changes the output, it is compared with swaps
    of random disjoint sets of the same sizes, paired by the same rule: if cluster labels mean
    nothing, p is uniform (exact where all sets can be enumerated within `n_random`). Swaps inside
    a cluster stand beside.

    **What is one and the same.** Inside a layer all heads read the same input, and renaming heads
    (`"all"`) changes nothing: a built-in negative control. Hence exchanging some of W_Q, W_K, W_V,
    W_O equals exchanging the others: `"qk"` = `"pattern"` = `"ov"` exactly, and `"outputs"` =
    exchanging W_Q, W_K and W_V. Agreement of these is arithmetic, not four pieces of evidence.

    **What depends on coordinates.** `"qk"`, `"ov"` and `"pattern"` exchange whole circuits. The
    others take one half of a circuit out of its basis: W_V -> W_V A, W_O -> A^-1 W_O leaves the
    model alone and changes the KL of `"outputs"` and `"values"` (queries and keys alike, where
    rotary embeddings allow an A). Folding of value biases (`processing`) moves them, too.

    Args:
        model: a hooked model of either class.
        clustering: a `HeadClustering` with two clusters, one label for each head (two labels;
            negative: in neither), or a pair of head sets.
        tokens: prompts, token ids, padded on the left.
        layer: of the heads, where plain labels do not say it.
        how: what changes places: `"outputs"` z, what each head read, written through the
            partner's W_O; `"queries"`, `"keys"`, `"values"`; `"qk"`, `"pattern"`, `"ov"`;
            `"all"`.
        n_random: pairs of random sets.
        unequal: `"repeat"`: `n_pairings` random pairings are averaged (all pairings where there
            are no more); where sizes differ, each takes other heads of the larger cluster.
            `"match"`: one pairing, of the greatest summed similarity.
        n_pairings: pairings averaged for the clusters and for each pair of random sets.
        similarity: for `"match"`; None: cosine similarity of the W_Q W_K^T products.
        positions: where heads are swapped, as in `patch_heads`: columns of every row, an Int
            tensor of one column a row, or a mask; None: all.
        read_positions: where distributions are compared: the last column, all tokens, or columns
            of each row (negative ones from the end).
        attention_mask: 1 for tokens, 0 for padding on the left.
        memory_budget: bytes for stacked forward passes, and about as much for the heads' parts.
        seed: of pairings and random sets.

    Returns:
        A `ClusterSwap`. What it does not show: a small p says that these heads are further from
        interchangeable across clusters than random groups are, on these prompts; not that
        either cluster does any one thing (see `cluster_effects`), nor which head of it matters. A
        large KL without its null shows nothing.

    Raises:
        InputError: other than two clusters, heads that do not exist, a mask or positions that do
            not fit, a choice that does not exist, or a swap that this model does not allow.

    References:
        Interchange interventions: Geiger et al. 2021, arXiv 2106.02997. Random permutations:
        Phipson and Smyth 2010.

    Example:
        >>> import headspec as hs
        >>> suite = hs.open_suite("micro")                                    # doctest: +SKIP
        >>> clusters = hs.cluster_heads(suite.head_weights(6144, 2))          # doctest: +SKIP
        >>> swap = swap_clusters(suite.model(6144), clusters, tokens)         # doctest: +SKIP
        >>> print(swap.summary())                                             # doctest: +SKIP
    """
    check_choice("how", how, get_args(SwapKind))
    check_choice("unequal", unequal, get_args(Unequal))
    n_heads = model.cfg.n_heads
    layer, sets = head_sets_of(clustering, layer=layer, n_heads=n_heads)
    _check_numbers(model, layer, sets, n_random=n_random, n_pairings=n_pairings)
    rng = np.random.default_rng(seed)
    cosines = None
    if unequal == "match":
        cosines = _cosines(model, layer, similarity)
    sizes = (len(sets[0]), len(sets[1]))
    observed = _pairings(sets[0], sets[1], cosines, n_pairings, rng)
    others, exact = random_sets(sizes, n_heads=n_heads, n_random=n_random, rng=rng)
    random_pairings = [
        observed  # one of all the sets: it keeps its pairings
        if exact and {one, other} == set(sets)
        else _pairings(one, other, cosines, n_pairings, rng)
        for one, other in others
    ]
    inside = [_inside(sets, which, n_draws=n_pairings, rng=rng) for which in (0, 1)]
    groups = [observed, *random_pairings, *(draws for _, *both in inside for draws in both)]
    unique = list(dict.fromkeys(pairing for group in groups for pairing in group))
    divergences = swap_divergences(
        model,
        tokens,
        unique,
        layer=layer,
        how=how,
        positions=positions,
        read_positions=read_positions,
        attention_mask=attention_mask,
        memory_budget=memory_budget,
    )
    row = {pairing: i for i, pairing in enumerate(unique)}

    def means(group: Sequence[Pairing]) -> Float[np.ndarray, " pairing"]:
        return np.array([divergences[row[pairing]].mean() for pairing in group])

    def by_prompt(group: Sequence[Pairing]) -> Float[np.ndarray, " example"]:
        found = divergences[[row[pairing] for pairing in group]].mean(0)
        return np.where(found > noise, found, 0.0)

    noise = rounding_divergence(model)
    kl = by_prompt(observed)
    null_draws = np.array([means(group).mean() for group in random_pairings])
    origin = origin_of(model)
    return ClusterSwap(
        kl=kl,
        pairing_kl=means(observed),
        pairings=tuple(observed),
        null_draws=null_draws,
        null=summarise_null(
            _above(float(kl.mean()), noise),
            [_above(draw, noise) for draw in null_draws],
            exact=exact,
        ),
        exact=exact,
        within=tuple(  # type: ignore[arg-type]
            WithinSwap(_named(layer, sets[which]), n_pairs, means(within), means(between))
            for which, (n_pairs, within, between) in enumerate(inside)
        ),
        clusters=(_named(layer, sets[0]), _named(layer, sets[1])),
        how=how,
        unequal=unequal,
        n_random=n_random,
        seed=seed,
        n=len(torch.unique(_visible(tokens, attention_mask), dim=0)),
        layer=layer,
        model=origin.model,
        step=origin.step,
        processing=origin.processing,
        null_kl=np.stack([by_prompt(group) for group in random_pairings]),
    )


def _pairings(
    one: HeadSet,
    other: HeadSet,
    cosines: np.ndarray | None,
    n_pairings: int,
    rng: np.random.Generator,
) -> list[Pairing]:
    """The pairings of two sets by the stated rule, for observed and random sets alike."""
    if cosines is not None:
        return [match_pairing(one, other, similarity=cosines)]
    n_pairs = min(len(one), len(other))
    return draw_pairings(one, other, n_pairs=n_pairs, n_draws=n_pairings, rng=rng)


def _inside(
    sets: Sequence[HeadSet], which: int, *, n_draws: int, rng: np.random.Generator
) -> tuple[int, list[Pairing], list[Pairing]]:
    """Number of pairs, pairings inside one cluster, pairings of as many pairs between the two."""
    n_pairs = min(*(len(one) for one in sets), len(sets[which]) // 2)
    if not n_pairs:
        return 0, [], []
    within = pairings_within(sets[which], n_pairs=n_pairs, n_draws=n_draws, rng=rng)
    between = draw_pairings(sets[0], sets[1], n_pairs=n_pairs, n_draws=n_draws, rng=rng)
    return n_pairs, within, between


def _cosines(
    model: Any, layer: int, similarity: HeadSimilarity | None
) -> Float[np.ndarray, "head head"]:
    if similarity is None:
        similarity = head_similarity(head_weights(model, layer), feature="qk", unit_norm=True)
    n_heads = model.cfg.n_heads
    if len(similarity.heads) != n_heads or set(similarity.layers) != {layer}:
        raise InputError(
            expected=f"similarities of the {n_heads} heads of layer {layer}",
            got=f"{len(similarity.heads)} heads of layers {sorted(set(similarity.layers))}",
            fix="Use head_similarity(head_weights(model, layer), feature='qk').",
        )
    return similarity.cosines


def _above(value: float, noise: float) -> float:
    return value if value > noise else 0.0


def _visible(tokens: Tensor, mask: Tensor | None) -> Tensor:
    return tokens if mask is None else torch.where(mask.to(tokens.device) > 0, tokens, -1)


def _named(layer: int, heads: HeadSet) -> tuple[Head, ...]:
    return tuple(Head(layer, head) for head in heads)


def _check_numbers(
    model: Any, layer: int, sets: Sequence[HeadSet], *, n_random: int, n_pairings: int
) -> None:
    check_layer(layer, n_layers=model.cfg.n_layers)
    if len(sets) != 2:
        raise InputError(
            expected="two clusters",
            got=f"{len(sets)}, of {', '.join(str(len(one)) for one in sets) or 'no'} heads",
            fix="Use n_clusters=2, or pass the two sets of heads to compare.",
        )
    if n_random < 1 or n_pairings < 1:
        raise InputError(
            expected="at least one random draw and one pairing",
            got=f"n_random={n_random}, n_pairings={n_pairings}",
            fix="A swap without random swaps beside it shows nothing.",
        )
