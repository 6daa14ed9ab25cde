"""How alike two representations of the same samples are: CKA, cosine, Procrustes."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headspec.activations.representation_result import (
    KINDS,
    RepresentationSimilarity,
    SimilarityKind,
)
from headspec.activations.samples import check_samples
from headspec.errors import InputError, check_choice
from headspec.stats import NullSummary, summarise_null

_CHUNK = 4_000_000  # numbers of shuffled copies held at a time: 32 MB


def representation_similarity(
    first: Float[Tensor, "sample d1"],
    second: Float[Tensor, "sample d2"],
    *,
    kind: SimilarityKind = "cka",
    n_null: int = 199,
    seed: int = 0,
) -> RepresentationSimilarity:
    """How alike two representations of the same samples are, beside samples shuffled.

    With X and Y the representations, every column less its mean:

    - `"cka"`: linear CKA, |X^T Y|^2 / (|X^T X| |Y^T Y|) (Frobenius norms), which is the RV
      coefficient; by the products of features or, where there are fewer samples than features, of
      samples. Blind to rotation and to one scale factor, not to stretching. Shuffled samples give
      sqrt(P_X P_Y) / (n - 1) on average, P the participation ratio of the covariance: not 0, and
      near 1 for wide representations of few samples.
    - `"debiased_cka"`: the same from unbiased products; 0 on average for independent
      representations, and may be below.
    - `"procrustes"`: with both of unit norm, |X^T Y|_* (the sum of its singular values): 1 less
      half the squared distance 2 - 2 |X^T Y|_* after the best rotation. Blind as CKA, but small
      directions count for more.
    - `"cosine"`: mean over samples of cos(x_i, y_i), as they are and not centred. For the same
      units at two times; a rotation changes it, and a mean that all samples share makes it large.

    The null shuffles the samples of one side: what is left is alike for any two representations
    of that shape and spectrum.

    Args:
        first, second: the same samples in the same order; any floating dtype and device (the
            first's), computed in float64. `"cosine"` needs the same width.
        kind: as above.
        n_null: shuffles; 0: none.
        seed: of the shuffles.

    Returns:
        A `RepresentationSimilarity`.

    What it does not show: that the same is computed. CKA is ruled by the directions of most
    variance: it can miss what decides the classes, and one far sample can make it large.
    All change when samples are added; compare on the same samples.

    Raises:
        InputError: different numbers of samples, fewer than two (four for `"debiased_cka"`),
            different widths with `"cosine"`, or entries that are not finite.

    References:
        Kornblith et al. 2019, arXiv:1905.00414 (CKA). Song et al. 2012, JMLR 13:1393, and Murphy
        et al. 2024, arXiv:2405.01012 (debiased). Ding et al. 2021, arXiv:2108.01661 (Procrustes).
        Kazi-Aoual et al. 1995 (the mean of the null). Davari et al. 2022, arXiv:2210.16156.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
        >>> turned = representation_similarity(x, x.flip(1), kind="procrustes", n_null=0)
        >>> round(turned.value, 6), round(turned.distance, 6)
        (1.0, 0.0)
        >>> representation_similarity(x, x.flip(1), kind="cosine", n_null=0).value
        0.0
    """
    check_choice("kind", kind, KINDS)
    least = 4 if kind == "debiased_cka" else 2
    with torch.no_grad():
        x = check_samples(first, name="first", least=least)
        y = check_samples(second, name="second", least=least).to(x.device)
        _check_pair(x, y, kind, n_null)
        x, y = _prepared(x, kind), _prepared(y, kind)
        order = torch.arange(len(x), device=x.device)
        value = float(_similarities(x, y, order[None], kind))
        rng, draws = np.random.default_rng(seed), []
        at_once = max(1, _CHUNK // max(y.numel(), x.shape[1] * y.shape[1]))
        for start in range(0, n_null, at_once):
            rows = [rng.permutation(len(x)) for _ in range(min(at_once, n_null - start))]
            shuffled = torch.from_numpy(np.stack(rows)).to(x.device)
            draws.append(_similarities(x, y, shuffled, kind).cpu().numpy())
    null = summarise_null(value, np.concatenate(draws)) if draws else NullSummary.bare(value)
    return RepresentationSimilarity(
        kind=kind,
        value=value,
        distance=2 - 2 * value if kind == "procrustes" else 1 - value,
        null=null,
        n_samples=len(x),
        widths=(first.shape[1], second.shape[1]),
        n_null=n_null,
        seed=seed,
    )


def _check_pair(x: Tensor, y: Tensor, kind: str, n_null: int) -> None:
    if len(x) != len(y) or (kind == "cosine" and x.shape[1] != y.shape[1]) or n_null < 0:
        raise InputError(
            expected="the same samples in both"
            + (", of the same width for the cosine" if kind == "cosine" else "")
            + ", and n_null of 0 or more",
            got=f"shapes {list(x.shape)} and {list(y.shape)}, n_null={n_null}",
            fix="Pass the same inputs through both; kind='cka' compares different widths.",
        )


def _prepared(values: Tensor, kind: str) -> Tensor:
    """Rows of unit norm for the cosine; else centred, of unit norm, no wider than the samples.

    Rotations do not matter to the others, so a wide one is exchanged for the triangular factor of
    its transpose: the same Gram matrix of samples, in as many columns as samples. nan where
    nothing varies.
    """
    if kind == "cosine":
        peaks = values.abs().amax(1, keepdim=True)  # squares neither overflow nor vanish
        values = values / torch.where(peaks > 0, peaks, torch.nan)
        return values / torch.linalg.vector_norm(values, dim=1, keepdim=True)
    values = values / values.abs().max()
    centred = values - values.mean(0)
    if not float(centred.abs().max()) > 1e-14:
        return torch.full_like(values, torch.nan)
    if values.shape[1] > len(values):
        centred = torch.linalg.qr(centred.mT, mode="r").R.mT
    return centred / torch.linalg.vector_norm(centred)


def _similarities(x: Tensor, y: Tensor, order: Tensor, kind: str) -> Tensor:
    """The similarity for each order of y's samples."""
    if kind == "cosine":
        return (x * y[order]).sum(-1).nanmean(-1)
    if kind == "procrustes":
        cross = x.mT @ y[order]
        if bool(cross.isnan().any()):
            return torch.full_like(cross[:, 0, 0], torch.nan)
        return torch.linalg.svdvals(cross).sum(-1).clamp(max=1)
    products = _products(x, y, order)
    own = [_products(one, one, torch.arange(len(one))[None])[0] for one in (x, y)]
    if kind == "cka":
        return (products / (own[0] * own[1]).sqrt()).clamp(max=1)
    of_x, of_y = x.square().sum(-1), y.square().sum(-1)
    products = _unbiased(products, (of_x * of_y[order]).sum(-1), len(x))
    own = [_unbiased(o, (r * r).sum(), len(x)) for o, r in zip(own, (of_x, of_y), strict=True)]
    scale = own[0] * own[1]
    return products / torch.where((own[0] > 0) & (own[1] > 0), scale, torch.nan).sqrt()


def _products(x: Tensor, y: Tensor, order: Tensor) -> Tensor:
    """|X^T Y|^2 for each order of y's samples: by features or by samples, whichever are fewer."""
    if len(x) ** 2 > x.shape[1] * y.shape[1]:
        return (x.mT @ y[order]).square().sum((-2, -1))
    of_x, of_y = x @ x.mT, y @ y.mT
    return (of_x * of_y[order[:, :, None], order[:, None]]).sum((-2, -1))


def _unbiased(product: Tensor, of_rows: Tensor, n: int) -> Tensor:
    """|X^T Y|^2 freed of its bias, for X and Y of unit norm (Song et al.; linear kernels).

    `of_rows` is the sum over samples of |x_i|^2 |y_i|^2.
    """
    return product - n / (n - 2) * of_rows + 1 / ((n - 1) * (n - 2))
