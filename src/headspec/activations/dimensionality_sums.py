"""What dimensionality needs of the data: a Gram matrix in float64, summed over blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from headspec.activations.dimensionality_rows import KeptRows

_BLOCK = 250_000  # numbers made float64 at a time: 2 MB, which stays in the cache
_STRIP = 64  # least width of a strip of columns
_CONSTANT = 8 * torch.finfo(torch.float64).eps  # of its size: a column that only rounding moves


def _nothing() -> Tensor:
    return torch.empty(0)


@dataclass
class GramSums:
    """Sums over the rows of a batch of matrices of equal shape; `add` takes blocks of rows.

    A row is a sample, or a feature where those are more (`sum_features`).

    Attributes:
        centred: whether the mean sample is taken out.
        by_feature: rows are features, not samples.
        n: rows so far.
        gram: sum of x x^T over rows x, `matrix col col`, its upper triangle alone.
        mean: of the rows, `matrix col`, where samples are centred.
        squares: sum of squares of all entries as they are, uncentred, `matrix`.
        kept: some of the rows as they are; None where none are wanted.
    """

    centred: bool
    by_feature: bool = False
    n: int = 0
    gram: Tensor = field(default_factory=_nothing)
    mean: Tensor = field(default_factory=_nothing)
    squares: Tensor = field(default_factory=_nothing)
    kept: KeptRows | None = field(default_factory=KeptRows)

    def add(self, samples: Tensor) -> None:
        """Add samples, `matrix sample feature` in float64, which are overwritten.

        With `centred` the block is centred by itself and joined by the rule of Chan, Golub and
        LeVeque (1983), so that a mean that is large beside the spread costs no digits.
        """
        self._look_at(samples)
        if self.centred:
            count, mean = samples.shape[-2], samples.mean(-2)
            samples -= mean[:, None]
            difference = mean - self.mean
            pull = difference * (self.n * count / (self.n + count)) ** 0.5
            self.gram += pull[:, :, None] * pull[:, None, :]
            self.mean += difference * (count / (self.n + count))
        self._add_gram(samples)

    def add_features(self, features: Tensor) -> None:
        """Add features, `matrix feature sample` in float64, which are overwritten."""
        self._look_at(features)
        if self.centred:
            features -= features.mean(-1, keepdim=True)
        self._add_gram(features)

    def _look_at(self, rows: Tensor) -> None:
        matrices, _, side = rows.shape
        if self.n == 0:
            self.gram = rows.new_zeros(matrices, side, side)
            self.mean = rows.new_zeros(matrices, side)
            self.squares = rows.new_zeros(matrices)
        norms = torch.linalg.vector_norm(rows, dim=-1)
        self.squares += norms.square().sum(-1)
        if self.kept is not None:
            self.kept.add(rows, norms)

    def _add_gram(self, rows: Tensor) -> None:
        """Strips of the upper triangle are all that `eigh` reads, and 5/8 of the work."""
        self.n += rows.shape[-2]
        side = rows.shape[-1]
        width = max(_STRIP, -(-side // 4))
        for start in range(0, side, width):
            strip = slice(start, start + width)
            left, right = rows[:, :, strip].mT, rows[:, :, start:]
            self.gram[:, strip, start:].baddbmm_(left, right)

    @property
    def rank(self) -> Tensor:
        """What the rank of each matrix cannot exceed: dead and constant features count nothing.

        Of rows that are features, only whether all are constant is known.
        """
        diagonal = self.gram.diagonal(dim1=-2, dim2=-1)
        if self.by_feature:
            vary = diagonal.sum(-1) > _CONSTANT**2 * self.squares
            return vary * diagonal.shape[-1]
        return (diagonal > _CONSTANT**2 * self.n * self.mean.square()).sum(-1)


def sum_gram(
    matrices: Tensor, *, scale: Tensor | None, centred: bool, keep: bool = True
) -> GramSums:
    """Sums over the longer side, in blocks.

    Args:
        matrices: `matrix sample feature`, any floating dtype.
        scale: divides each matrix first, where given; a power of two changes no digit.
        centred: whether the mean sample is taken out.
        keep: also keep some rows, for the resolution.
    """
    _, samples, features = matrices.shape
    wide = samples < features
    sums = GramSums(centred, by_feature=wide, kept=KeptRows() if keep else None)
    for block in blocks(matrices, scale=scale, dim=-1 if wide else -2):
        if wide:
            sums.add_features(block.mT)
        else:
            sums.add(block)
    return sums


def blocks(matrices: Tensor, *, scale: Tensor | None, dim: int) -> Iterator[Tensor]:
    """Blocks of `matrix sample feature` along one side, scaled, as new float64 tensors."""
    rest = matrices.shape[0] * (matrices.shape[-1] if dim == -2 else matrices.shape[-2])
    for block in matrices.split(max(1, _BLOCK // rest), dim=dim):
        block = block.to(torch.float64, copy=True)
        yield block if scale is None else block.div_(scale[:, None, None])


def exact_values(matrix: Tensor, *, scale: Tensor | None, centred: bool) -> Tensor:
    """Singular values of one matrix without squaring it: a QR over blocks, then an SVD.

    Args:
        matrix: `1 sample feature`.
        scale, centred: as in `sum_gram`.
    """
    _, samples, features = matrix.shape
    divisor = 1.0 if scale is None else scale
    mean = torch.zeros(1, features, dtype=torch.float64, device=matrix.device)
    if centred:
        first = matrix[0, :1].to(torch.float64) / divisor  # constant features: exactly zero
        parts = blocks(matrix, scale=scale, dim=-2)
        mean = first + sum((part[0] - first).sum(0) for part in parts) / samples
    if samples < 2 * features:
        return torch.linalg.svdvals(matrix[0].to(torch.float64) / divisor - mean)
    core = torch.zeros(0, features, dtype=torch.float64, device=matrix.device)
    for block in blocks(matrix, scale=scale, dim=-2):
        core = torch.linalg.qr(torch.cat([core, block[0] - mean]), mode="r").R
    return torch.linalg.svdvals(core)
