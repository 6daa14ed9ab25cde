"""How strongly earlier heads write into what later heads read: Q-, K- and V-composition."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headspec.errors import check_choice
from headspec.head_tensors import HeadWeights
from headspec.weights import orientation_null
from headspec.weights.composition_result import CompositionScores
from headspec.weights.head_pairs import (
    CompositionKind,
    as_layers,
    earlier_pairs,
    heads_of,
    processing_of,
    reading_factors,
    shared,
)


def composition_scores(
    upstream: HeadWeights | Sequence[HeadWeights],
    downstream: HeadWeights | Sequence[HeadWeights],
    *,
    kind: Literal["q", "k", "v"],
    null: Literal["orientation", "gaussian"] = "orientation",
    offset: int = 0,
    frequencies: Float[Tensor, " plane"] | None = None,
    seed: int = 0,
) -> CompositionScores:
    """Q-, K- or V-composition of all pairs of an earlier and a later head, with its null.

    With x a row of the residual stream, a head writes x M1, M1 = W_V W_O, and a later one reads it:

        score = ||M1 M2||_F / (||M1||_F ||M2||_F)

    with M2 = W_Q W_K^T (`"q"`: what M1 writes is the query), W_K W_Q^T (`"k"`: the key), or W_V W_O
    (`"v"`: the value). Only thin factors are multiplied: R (QR of W_V) times W_O, and the like.

    **Null.** Heads with the same singular values but unrelated (Haar-random) directions have
    E score^2 = 1 / d_model exactly; variance and skewness of score^2 are closed forms too
    (`orientation_null`), and p comes from the law with these moments. `"gaussian"` is the usual
    baseline, heads of Gaussian weights of the same shape: the same E score^2, and a spread that is
    too small for trained heads, whose few large singular values make large scores by chance.

    **What it does not show.** Whether a head uses what another wrote: that takes a path patch.
    Attention patterns, biases, the MLPs between and the layer norms' scale are not in it; gains of
    layer norm are in only where `processing` says so (a model loaded with
    `processing="compatibility"`, or `HeadWeights` with the gains multiplied in). The null rejects
    directions that are shared for any reason, such as one large direction of the stream: compare
    with other pairs of the same heads.

    Args:
        upstream, downstream: layers, such as all layers of a model twice; pairs within a layer or
            against the order are nan. Under grouped-query attention every query head is taken
            with the keys and values it uses, so rows or columns of one group are alike.
        kind: which input of the downstream head.
        null: what the scores are held against.
        offset: query position minus key position at which the QK form of rotary heads is taken
            (for `"q"` and `"k"`); other offsets give other scores.
        frequencies: of scaled rotary embeddings, for an offset; see `rotate`.
        seed: of the simulated spectra of `"gaussian"`.

    Returns:
        A `CompositionScores`, one row an upstream head and one column a downstream head. Half and
        bfloat16 weights are computed in float32 or better. nan for a head of zeros.

    Raises:
        InputError: an unknown choice, weights that are not finite, layers that do not fit, are not
            in order or of two checkpoints, an offset under scaled rotary embeddings without
            `frequencies`.

    References:
        Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".

    Example:
        >>> import headspec as hs
        >>> suite = hs.open_suite("micro")
        >>> layers = [suite.head_weights(6144, layer) for layer in (1, 2)]
        >>> found = hs.composition_scores(layers[0], layers[1], kind="k")
        >>> row, column = divmod(int(found.scores.argmax()), 12)
        >>> str(found.upstream[row]), str(found.downstream[column])
        ('L1H5', 'L2H9')
    """
    check_choice("kind", kind, get_args(CompositionKind))
    check_choice("null", null, get_args(orientation_null.NullKind))
    first, second = as_layers(upstream), as_layers(downstream)
    earlier = earlier_pairs(first, second)
    with torch.no_grad():
        writers = [_writer(*reading_factors(w, "v")) for w in first]
        turn = partial(reading_factors, kind=kind, offset=offset, frequencies=frequencies)
        readers = [_reader(*turn(w)) for w in second]
        scores = np.block(
            [
                [
                    _pair_norms(write, read)
                    if ordered
                    else np.full((len(write), len(read)), np.nan)
                    for (read, _), ordered in zip(readers, row, strict=True)
                ]
                for (write, _), row in zip(writers, earlier, strict=True)
            ]
        )
    d_model = first[0].d_model
    if null == "gaussian":
        ratios = [
            np.concatenate([_gaussian_ratios(w, seed) for w in layers])
            for layers in (first, second)
        ]
    else:
        ratios = [np.concatenate([ratio for _, ratio in made]) for made in (writers, readers)]
    mean, sd, skew = orientation_null.alignment_moments(
        ratios[0][:, None], ratios[1][None, :], d_model
    )
    root_mean, root_sd = orientation_null.root_moments(mean, sd)
    every = first + second
    step = shared(every, "step")
    return CompositionScores(
        scores=scores,
        null_mean=root_mean,
        null_sd=root_sd,
        p_values=orientation_null.alignment_p(scores**2, mean, sd, skew),
        metric=f"{kind}_composition",
        null=null,
        upstream=heads_of(first),
        downstream=heads_of(second),
        d_model=d_model,
        seed=seed,
        model=str(shared(every, "model") or ""),
        step=step if isinstance(step, int) else None,
        processing=processing_of(every),
    )


def _writer(left: Tensor, right: Tensor) -> tuple[Tensor, np.ndarray]:
    """`head rank d_model` with the Gram matrix of the rows of A B^T, norm 1; its power ratios."""
    outer = torch.linalg.qr(left, mode="r").R
    core = outer @ torch.linalg.qr(right, mode="r").R.mT
    return _unit(outer @ right.mT, core), orientation_null.power_ratios(core)


def _reader(left: Tensor, right: Tensor) -> tuple[Tensor, np.ndarray]:
    """`head rank d_model` with the Gram matrix of the columns of A B^T; as `_writer`."""
    return _writer(right, left)


def _unit(matrix: Tensor, core: Tensor) -> Tensor:
    """Divided by the norm (nan for zeros); in float32, where norm 1 makes overflow impossible."""
    return (matrix / torch.linalg.matrix_norm(core)[:, None, None]).float()


def _pair_norms(write: Tensor, read: Tensor) -> np.ndarray:
    """||write_i read_j^T||_F of all pairs, by one matrix product."""
    product = (write.flatten(0, 1) @ read.flatten(0, 1).mT).view(
        len(write), write.shape[1], len(read), read.shape[1]
    )
    return torch.linalg.vector_norm(product, dim=(1, 3)).double().cpu().numpy()


def _gaussian_ratios(weights: HeadWeights, seed: int) -> np.ndarray:
    ratios = orientation_null.gaussian_power_ratios(weights.d_model, weights.d_head, seed=seed)
    return np.tile(ratios, (weights.n_heads, 1))
