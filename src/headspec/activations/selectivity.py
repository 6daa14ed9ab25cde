"""Class selectivity of units, with labels shuffled as the null, all shuffles at once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from headspec.activations.samples import check_samples
from headspec.activations.selectivity_result import MEASURES, ClassSelectivity, SelectivityMeasure
from headspec.errors import InputError, check_choice
from headspec.stats import NullSummary, summarise_null

_CHUNK = 4_000_000  # numbers of indicator columns held at a time: 32 MB
_ROUNDING = 1e-12


def class_selectivity(
    activations: Float[Tensor, "sample unit"],
    labels: Integer[Tensor, " sample"] | Integer[np.ndarray, " sample"],
    *,
    measure: SelectivityMeasure = "index",
    n_null: int = 999,
    seed: int = 0,
) -> ClassSelectivity:
    """How far each unit tells its preferred class from the others, beside shuffled labels.

    With mu_c a unit's mean over the samples of class c, mu_max the largest and mu_rest the mean
    of the other classes' means:

    - `"index"`: (mu_max - mu_rest) / (mu_max + mu_rest), from 0 to 1 (only one class is answered).
      For activations that are not negative, such as after a ReLU.
    - `"eta_squared"`: between-class share of the variance, 0 to 1; any sign. Shuffled labels give
      (classes - 1) / (samples - 1) on average.
    - `"d_prime"`: (mu_max - mu_rest) / sd within classes; any sign, no upper end.

    The largest of several noisy means is never small by itself: with few samples a class, an
    index of .2 can be chance. So labels are shuffled `n_null` times, alike for all units, and
    all class means of all shuffles come from products with indicator matrices.

    Args:
        activations: any floating dtype and device, computed in float64. Samples must be
            independent: of convolution maps take `maps.mean((2, 3))`, as the papers do, not
            positions of one image.
        labels: class of each sample, any whole numbers.
        measure: as above.
        n_null: shuffles; 0: none. p cannot be below 1 / (n_null + 1), which the correction for
            many units needs to be small.
        seed: of the shuffles.

    Returns:
        A `ClassSelectivity`.

    What it does not show: that the network uses the unit, or that others do not carry the class
    (selectivity is of single units; information may lie across them: `fit_probes`). Morcos et al.
    found that selective units matter no more when ablated. `"index"` grows when a constant is
    taken off all activations: compare like with like.

    Raises:
        InputError: negative activations with `"index"`, fewer than two classes, labels of another
            length or not whole numbers, or activations that are not finite `sample unit`.

    References:
        Morcos et al. 2018, arXiv:1803.06959. Leavitt and Morcos 2020, arXiv:2003.01262.

    Example:
        >>> import torch
        >>> activations = torch.tensor([[3.0, 1.0], [3.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
        >>> found = class_selectivity(activations, torch.tensor([0, 0, 1, 1]), n_null=99)
        >>> found.value.tolist(), found.preferred.tolist()
        ([0.5, 0.0], [0, 0])
    """
    check_choice("measure", measure, MEASURES)
    if not isinstance(n_null, int) or n_null < 0:
        raise InputError(expected="n_null of 0 or more", got=repr(n_null), fix="999, say.")
    with torch.no_grad():
        values = check_samples(activations, least=2)
        classes, codes = _classes(labels, values.shape[0])
        counts = torch.from_numpy(np.bincount(codes)).to(values)
        raw_means = _group_means(codes[None], counts, values)[0]
        if measure == "index":
            _refuse_negative(values)
        else:
            values = _centred(values)
        orders = _shuffles(codes, n_null, seed, len(classes) * max(values.shape))
        means = (_group_means(part, counts, values) for part in chain([codes[None]], orders))
        scores = [_scores(part, values, counts, measure).cpu().numpy() for part in means]
    return _result(
        scores[0][0],
        np.concatenate([np.empty((0, values.shape[1])), *scores[1:]]),
        raw_means.cpu().numpy(),
        classes=classes,
        measure=measure,
        n_samples=values.shape[0],
        seed=seed,
    )


def _classes(labels: Tensor | np.ndarray, n_samples: int) -> tuple[tuple[int, ...], np.ndarray]:
    """The classes, and each sample's place among them."""
    plain = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if plain.shape != (n_samples,) or plain.dtype.kind not in "iub":
        raise InputError(
            expected=f"one whole number for each of {n_samples} samples",
            got=f"labels of shape {list(plain.shape)}, {plain.dtype}",
            fix="Give class numbers in the order of the samples.",
        )
    classes, codes = np.unique(plain, return_inverse=True)
    if len(classes) < 2:
        raise InputError(
            expected="at least two classes among the labels",
            got=f"only {classes.tolist()}",
            fix="Take samples of several classes.",
        )
    return tuple(int(label) for label in classes), codes.reshape(-1)


def _refuse_negative(values: Tensor) -> None:
    low = float(values.min())
    if low < 0:
        raise InputError(
            expected="activations that are not negative, for the index (a - b) / (a + b)",
            got=f"{float((values < 0).double().mean()):.1%} below 0, the least {low:.3g}",
            fix='Take activations after the ReLU, or measure="eta_squared" or "d_prime".',
        )


def _centred(values: Tensor) -> Tensor:
    """Less their mean, in units of the largest; exactly 0 where nothing but rounding is left."""
    peak = values.abs().amax(0)
    shares = values / torch.where(peak > 0, peak, 1.0)  # squares neither overflow nor vanish
    centred = shares - shares.mean(0)
    return centred.masked_fill(centred.abs().amax(0) <= _ROUNDING, 0.0)


def _shuffles(codes: np.ndarray, n_null: int, seed: int, size: int) -> Iterator[np.ndarray]:
    """Shuffled labels, `shuffle sample`, as many at a time as fit."""
    rng = np.random.default_rng(seed)
    at_once = max(1, _CHUNK // size)
    for start in range(0, n_null, at_once):
        rows = min(at_once, n_null - start)
        yield rng.permuted(np.tile(codes, (rows, 1)), axis=1)


def _group_means(codes: np.ndarray, counts: Tensor, values: Tensor) -> Tensor:
    """Class means of each unit, `shuffle class unit`, for `shuffle sample` codes."""
    rows = torch.from_numpy(codes).to(values.device)
    members = values.new_zeros(len(codes), len(counts), codes.shape[1])
    members.scatter_(1, rows[:, None], 1.0).div_(counts[:, None])
    return (members.flatten(0, 1) @ values).unflatten(0, members.shape[:2])


def _scores(means: Tensor, values: Tensor, counts: Tensor, measure: str) -> Tensor:
    """The measure, `shuffle unit`, from class means (of centred values unless `"index"`)."""
    top = means.amax(-2)
    rest = (means.sum(-2) - top) / (means.shape[-2] - 1)
    if measure == "index":
        total = top + rest
        return ((top - rest) / torch.where(total > 0, total, torch.nan)).clamp(0, 1)
    spread = values.square().sum(0)
    spread = torch.where(spread > 0, spread, torch.nan)
    between = (counts[:, None] * means.square()).sum(-2)
    if measure == "eta_squared":
        return (between / spread).clamp(0, 1)
    within = spread - between
    within = torch.where(within > _ROUNDING * spread, within, 0 * spread)
    freedom = len(values) - len(counts)
    return (top - rest) / (within / freedom).sqrt() if freedom else top * torch.nan


def _result(
    observed: np.ndarray, null: np.ndarray, means: np.ndarray, **fields
) -> ClassSelectivity:
    """Values beside their null draws (`shuffle unit`)."""
    blank = np.full(observed.shape, np.nan)
    null_mean = null_sd = p = blank
    known = ~np.isnan(observed)
    mean = float(observed[known].mean()) if known.any() else float("nan")
    overall = NullSummary.bare(mean)
    n_null = len(null)
    if n_null:
        null_mean = null.mean(0)
        null_sd = null.std(0, ddof=1) if n_null > 1 else blank
        slack = _ROUNDING * np.maximum(1, np.abs(observed))
        p = (1 + (null >= observed - slack).sum(0)) / (1 + n_null)
        p = np.where(known, p, np.nan)
        if known.any():
            overall = summarise_null(mean, null[:, known].mean(1))
    classes = np.array(fields["classes"])
    return ClassSelectivity(
        value=observed,
        null_mean=null_mean,
        null_sd=null_sd,
        p=p,
        preferred=classes[means.argmax(0)],
        class_means=means,
        overall=overall,
        n_null=n_null,
        **fields,
    )
