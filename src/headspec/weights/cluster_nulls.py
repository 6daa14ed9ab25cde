"""Distances between heads under the nulls a clustering is tested against.

None of them draws raw weights where it need not: the Gram matrix of n random directions has a known
distribution (Wishart), and n(n+1)/2 numbers stand for n times 589,824.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Real
from torch import Tensor

from headspec.errors import InputError
from headspec.head_tensors import HeadWeights
from headspec.weights.similarity import HeadSimilarity

Null = Literal["norm_matched", "initialisation", "permuted"]
NULLS = ("norm_matched", "initialisation", "permuted")
Draws = Float[np.ndarray, "draw head head"]
_CACHED = 1_100_000  # most numbers of one null that are kept: 1,000 draws of 32 heads, 9 MB


def norm_matched_distances(similarity: HeadSimilarity, *, n_draws: int, seed: int) -> Draws:
    """Distances between random directions that keep each head's norm.

    Null hypothesis: heads differ in length as they do, and their directions are unrelated and
    isotropic. Independent heads with one anisotropic covariance in common (all reading the same
    outlier dimensions, or layer-norm gains folded in) are not of this null and reject it without
    any clusters: always with column scales lognormal(1) at d_model 64, by a mean excess of .016 to
    .079 of silhouette. A small p asks for a look at the excess.

    Flattened weights: directions uniform in `n_features` dimensions. Products: the same with
    d_model^2 dimensions, which gives the cosine of two products with randomly rotated singular
    vectors its exact variance 1/d_model^2, whatever their rank. Where query heads share a
    key-value head, their products are alike by construction, and more so the fewer singular
    values carry them; there every factor keeps its own R (`HeadSimilarity.cores`) and only its
    frame, the Q of its QR, is drawn anew, one for each query head and one for each key-value
    head. (A `HeadSimilarity` without cores gets Gaussian factors, whose spectrum is too flat for
    trained heads or QK-norm gains: it rejects too often.)

    Args:
        similarity: of the heads.
        n_draws: number of draws.
        seed: of the draws.
    """
    n = len(similarity.norms)
    if len(set(similarity.groups)) < n:
        if similarity.cores is None:
            gram = shared_product_grams(similarity, n_draws=n_draws, seed=seed)
        else:
            gram = _turned_product_grams(similarity, n_draws=n_draws, seed=seed)
        scale = np.sqrt(np.einsum("dii->di", gram))
        scale = np.where(scale > 0, scale, 1)
        cosines = gram / (scale[:, :, None] * scale[:, None, :])
    else:
        cosines = random_cosines(n, similarity.n_features, n_draws=n_draws, seed=seed)
    norms = np.ones(n) if similarity.unit_norm else similarity.norms
    return gram_to_distances(cosines * np.outer(norms, norms), unit_norm=False)


def random_cosines(n: int, dimensions: int, *, n_draws: int, seed: int) -> Draws:
    """Cosines between n directions drawn uniformly in so many dimensions."""
    rows = _random_rows(n, dimensions, n_draws=n_draws, seed=seed)
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    return rows @ rows.swapaxes(1, 2)


def initialisation_distances(
    similarity: HeadSimilarity,
    *,
    n_draws: int,
    seed: int,
    reference: HeadWeights | float | int | None,
) -> Draws:
    """Distances between heads of the same architecture, initialised anew.

    Null hypothesis: the heads are independent Gaussian matrices, as at step 0. Draws for products
    are exact (Gaussian factors, key-value heads shared as in the model; QK-norm gains are 1 at
    initialisation). Shape alone decides the draws, so they are computed once for all steps.

    Args:
        similarity: of the heads.
        n_draws, seed: number of draws and their seed.
        reference: standard deviation of the initial weights, such as sqrt(2 / (5 d_model)) for
            Pythia, or heads to take it from, such as those of step 0 (each matrix its own).

    Raises:
        InputError: no `reference`, or its standard deviation is not positive.
    """
    left_std, right_std = _init_stds(similarity.feature, reference)
    if similarity.feature in ("qk", "ov"):
        gram = shared_product_grams(similarity, n_draws=n_draws, seed=seed)
        gram = gram * (left_std * right_std) ** 2
    else:
        n = len(similarity.norms)
        rows = _random_rows(n, similarity.n_features, n_draws=n_draws, seed=seed)
        gram = rows @ rows.swapaxes(1, 2) * left_std**2
    return gram_to_distances(gram, unit_norm=similarity.unit_norm)


def permuted_distances(
    blocks: Iterable[Real[np.ndarray, "head block"]], *, unit_norm: bool, n_draws: int, seed: int
) -> Draws:
    """Distances after every coordinate's values are permuted over the heads, each by itself.

    Null hypothesis: coordinates are exchangeable over heads. The distribution of every coordinate
    is kept, what holds a head together is not: norms too are mixed, so a head that is merely
    longer than the others rejects this null (use `"norm_matched"` to look past norms). Products
    have low rank, which no permuted head has, and may reject it at initialisation already.

    Args:
        blocks: the heads' vectors in blocks of coordinates (of unit norm with `unit_norm`).
        unit_norm: give permuted heads unit norm again.
        n_draws, seed: number of draws and their seed; the cost grows as n_draws * n_features.
    """
    rng = np.random.default_rng(seed)
    gram = np.zeros(())
    for block in blocks:
        numbers = np.array(block)
        if gram.ndim == 0:
            gram = np.zeros((n_draws, len(numbers), len(numbers)))
        for draw in range(n_draws):  # permuting again what is permuted is as good as afresh
            _permute_columns(numbers, rng)
            gram[draw] += numbers @ numbers.T
    return gram_to_distances(gram, unit_norm=unit_norm)


def gram_to_distances(gram: Draws, *, unit_norm: bool) -> Draws:
    """Distances from Gram matrices, after normalising the vectors where asked."""
    if unit_norm:
        scale = np.sqrt(np.einsum("dii->di", gram))
        gram = gram / (scale[:, :, None] * scale[:, None, :])
    squares = np.einsum("dii->di", gram)
    distances = np.sqrt(np.maximum(squares[:, :, None] + squares[:, None, :] - 2 * gram, 0))
    index = np.arange(gram.shape[1])
    distances[:, index, index] = 0
    return distances


def shared_product_grams(similarity: HeadSimilarity, *, n_draws: int, seed: int) -> Draws:
    """Gram matrices of products of standard Gaussian factors; rows of a group share the right.

    (For `"ov"` the shared factor is W_V, on the left; the Gram matrix is the same either way.)
    """
    large = n_draws * len(similarity.groups) ** 2 > _CACHED
    draw = _product_grams.__wrapped__ if large else _product_grams
    return draw(similarity.groups, similarity.d_model, similarity.d_head, n_draws, seed).copy()


@lru_cache(maxsize=64)  # a sweep has one seed a layer
def _product_grams(
    groups: tuple[int, ...], d_model: int, d_head: int, n_draws: int, seed: int
) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    n, kept = len(groups), max(groups) + 1
    index = torch.tensor(groups)
    found = np.empty((n_draws, n, n))
    for draw in range(n_draws):
        own = torch.randn(n, d_model, d_head, generator=generator)
        shared = torch.randn(kept, d_model, d_head, generator=generator)
        found[draw] = _product_gram(own, shared, index)
    found.setflags(write=False)
    return found


def _turned_product_grams(similarity: HeadSimilarity, *, n_draws: int, seed: int) -> np.ndarray:
    """Gram matrices of the heads' products after their factors' frames are drawn anew."""
    assert similarity.cores is not None
    generator = torch.Generator().manual_seed(seed)
    index = torch.tensor(similarity.groups)
    own, shared = torch.from_numpy(similarity.cores)
    shared = shared[[similarity.groups.index(group) for group in range(max(similarity.groups) + 1)]]
    n = len(own)
    found = np.empty((n_draws, n, n))
    for draw in range(n_draws):
        turned_own = _turned(own, similarity.d_model, generator)
        found[draw] = _product_gram(
            turned_own, _turned(shared, similarity.d_model, generator), index
        )
    return found


def _turned(cores: Tensor, d_model: int, generator: torch.Generator) -> Tensor:
    """`head d_model d_head`: a random orthonormal frame times each core.

    The frame is the Q of a Gaussian matrix, which is G L^-T for the Cholesky factor L of G^T G.
    """
    rank = cores.shape[1]
    exact = d_model < 2 * rank  # G^T G of a nearly square G is ill-conditioned
    dtype = torch.float64 if exact else torch.float32
    draw = torch.randn(len(cores), d_model, rank, dtype=dtype, generator=generator)
    lower = torch.linalg.cholesky((draw.mT @ draw).double())
    inside = torch.linalg.solve_triangular(lower.mT, cores, upper=True)
    return draw @ inside.to(dtype)


def _product_gram(own: Tensor, shared: Tensor, index: Tensor) -> np.ndarray:
    """Gram matrix of products of factors `head d_model d_head`, the shared one by `index`."""
    own_gram, shared_gram = _all_inner(own), _all_inner(shared)[index][:, :, index]
    return torch.einsum("iajb,iajb->ij", own_gram, shared_gram).numpy()


def _all_inner(factors: Tensor) -> Tensor:
    """`i a j b`: inner products of all columns of all factors."""
    heads, _, columns = factors.shape
    flat = factors.movedim(0, 1).reshape(-1, heads * columns)
    return (flat.mT @ flat).view(heads, columns, heads, columns)


def _random_rows(n: int, dimensions: int, *, n_draws: int, seed: int) -> np.ndarray:
    """`draw n min(n, dimensions)`: rows whose Gram matrix is that of n standard Gaussians.

    Bartlett's decomposition of the Wishart distribution: a lower triangular matrix with
    chi-distributed diagonal and Gaussian entries below it.
    """
    rng = np.random.default_rng(seed)
    if dimensions < n:
        return rng.standard_normal((n_draws, n, dimensions))
    rows = np.tril(rng.standard_normal((n_draws, n, n)), -1)
    index = np.arange(n)
    rows[:, index, index] = np.sqrt(rng.chisquare(dimensions - index, size=(n_draws, n)))
    return rows


def _permute_columns(numbers: np.ndarray, rng: np.random.Generator) -> None:
    """Permute every column of `row column` by itself, in place (Fisher-Yates over all columns)."""
    rows, columns = numbers.shape
    flat, place = numbers.reshape(-1), np.arange(columns)
    kind = np.uint8 if rows <= 256 else np.uint32
    for row in range(rows - 1, 0, -1):
        other = rng.integers(0, row + 1, size=columns, dtype=kind) * np.int64(columns) + place
        held = numbers[row].copy()
        numbers[row] = flat[other]
        flat[other] = held


def _init_stds(feature: str, reference: HeadWeights | float | int | None) -> tuple[float, float]:
    if isinstance(reference, HeadWeights):
        matrices = [getattr(reference, f"W_{letter.upper()}").double() for letter in feature]
        stds = [float(matrix.std(correction=0)) for matrix in matrices]
    else:
        stds = [float("nan") if reference is None else float(reference)]
    if not all(np.isfinite(stds)) or min(stds) <= 0:
        raise InputError(
            expected="reference= for the initialisation null: heads of step 0, or the positive "
            "standard deviation of the initial weights",
            got="none" if reference is None else f"standard deviations {stds}",
            fix="Pass reference=suite.head_weights(0, layer), or for instance "
            "reference=(2 / (5 * d_model)) ** 0.5 for Pythia.",
        )
    return stds[0], stds[-1]
