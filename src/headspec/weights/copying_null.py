"""Eigenvalue scores of heads whose tokens, or directions, are paired at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import wishart
from torch import Tensor

_CHUNK = 8192  # tokens multiplied at a time


@dataclass(frozen=True)
class Vocabulary:
    """What eigenvalue scores and their null need to know of the embeddings, float64.

    Attributes:
        pairing: W_U W_E.
        mean: what random pairings of the tokens have in common, d_vocab mean(W_U) mean(W_E)^T.
        unembed_spread, embed_spread: Gram matrices over tokens of W_U and W_E less their means.
        n_tokens: size of the vocabulary.
    """

    pairing: Float[Tensor, "d_model d_model"]
    mean: Float[Tensor, "d_model d_model"]
    unembed_spread: Float[Tensor, "d_model d_model"]
    embed_spread: Float[Tensor, "d_model d_model"]
    n_tokens: int


def vocabulary_of(
    embed: Float[Tensor, "d_vocab d_model"], unembed: Float[Tensor, "d_model d_vocab"]
) -> Vocabulary:
    """Products over all tokens, in chunks: float32 (float64 for such input), summed in float64."""
    size, width = embed.shape
    dtype = embed.dtype if embed.dtype == torch.float64 else torch.float32
    sums = torch.zeros(3, width, width, dtype=torch.float64, device=embed.device)
    means = [matrix.double().mean(dim) for matrix, dim in ((unembed, 1), (embed, 0))]
    for start in range(0, size, _CHUNK):
        stop = min(start + _CHUNK, size)
        reads = embed[start:stop].detach().to(dtype) - means[1].to(dtype)
        writes = unembed[:, start:stop].detach().to(dtype) - means[0].to(dtype)[:, None]
        for i, product in enumerate((writes @ reads, writes @ writes.mT, reads.mT @ reads)):
            sums[i] += product
    common = size * torch.outer(means[0], means[1])
    return Vocabulary(sums[0] + common, common, sums[1], sums[2], size)


def null_scores(
    writes: Float[Tensor, "head d_head d_model"],
    reads: Float[Tensor, "head d_model d_head"],
    vocabulary: Vocabulary | None,
    n_null: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "head null"]:
    """Scores of each head under random pairings.

    With a permutation P of the tokens W_U P W_E has the mean `vocabulary.mean` and entries with
    covariance unembed_spread x embed_spread / (n_tokens - 1): between a head's W_O and W_V that is
    L Z R^T with L, R square roots of two `d_head d_head` matrices and Z of normal numbers.
    Without a vocabulary Z is the corner of a random rotation between the bases of W_O and W_V.
    """
    n_heads, rank, width = writes.shape
    if vocabulary is None:
        left = torch.linalg.qr(writes.mT, mode="r").R.mT
        right = torch.linalg.qr(reads, mode="r").R.mT
        base = torch.zeros(n_heads, rank, rank, dtype=reads.dtype, device=reads.device)
    else:
        left = _root(writes @ vocabulary.unembed_spread @ writes.mT)
        right = _root(reads.mT @ vocabulary.embed_spread @ reads)
        right = right / np.sqrt(max(vocabulary.n_tokens - 1, 1))
        base = writes @ vocabulary.mean @ reads
    scores = np.empty((n_heads, n_null))
    for head in range(n_heads if n_null else 0):
        rows, columns = left.shape[2], right.shape[2]
        if vocabulary is None:
            between = _corners(n_null, width, min(rows, width), rng)
        else:
            between = rng.standard_normal((n_null, rows, columns))
        turned = torch.from_numpy(between).to(left)
        cores = base[head] + left[head] @ turned @ right[head].mT
        scores[head] = positivity(torch.linalg.eigvals(cores).cpu().numpy())
    return scores


def positivity(eigenvalues: np.ndarray) -> Float[np.ndarray, " *batch"]:
    """sum(Re) / sum(| |) over the last axis; nan where all are 0."""
    total = np.abs(eigenvalues).sum(-1)
    real = np.real(eigenvalues).sum(-1)
    return np.divide(real, total, out=np.full(total.shape, np.nan), where=total > 0)


def _root(square: Tensor) -> Tensor:
    """A square root of a positive semidefinite matrix: root @ root.mT == square."""
    values, vectors = torch.linalg.eigh(square)
    return vectors * values.clamp(min=0).sqrt()[..., None, :]


def _corners(n: int, width: int, rank: int, rng: np.random.Generator) -> np.ndarray:
    """`n rank rank` corners of random rotations of R^width.

    A random frame is Q of the QR (R with a positive diagonal) of Gaussian numbers, `width rank`.
    Its first `rank` rows are Z R^-1, Z the first rows of those numbers, and R needs only the Gram
    matrix of all: that of Z plus a Wishart matrix of width - rank degrees of freedom.
    """
    top = rng.standard_normal((n, rank, rank))
    below = width - rank
    if below >= rank:
        rest = wishart.rvs(below, np.eye(rank), size=n, random_state=rng).reshape(n, rank, rank)
    else:
        rows = rng.standard_normal((n, below, rank))
        rest = rows.swapaxes(1, 2) @ rows
    gram = top.swapaxes(1, 2) @ top + rest
    upper = np.linalg.cholesky(gram).swapaxes(1, 2)
    return np.linalg.solve(upper.swapaxes(1, 2), top.swapaxes(1, 2)).swapaxes(1, 2)
