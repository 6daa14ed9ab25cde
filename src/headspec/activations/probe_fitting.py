"""One probing question (labels, split, control task), put to one set of features after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from headspec.activations.probe_controls import ControlTask, control_labels
from headspec.activations.probe_kinds import (
    ProbeKind,
    fit_candidates,
    fit_temperature,
    selection_losses,
)
from headspec.activations.probe_scores import GroupResamples, ProbeScore, score_probe
from headspec.activations.probe_splits import GroupSplit, split_by_group
from headspec.errors import InputError

_CHUNK = 8192  # rows converted at a time


@dataclass(frozen=True)
class FittedProbe:
    """A probe of one layer or head, in the original space, and its scores.

    `scores = x @ weights.T + biases`, `probabilities = softmax(scores / temperature)`.
    """

    weights: Float[np.ndarray, "class d_model"]
    biases: Float[np.ndarray, " class"]
    mean: Float[np.ndarray, " d_model"]
    scale: Float[np.ndarray, " d_model"]
    temperature: float
    l2: float
    control_l2: float
    validation_losses: Float[np.ndarray, " l2"]
    scores: dict[str, ProbeScore]


@dataclass(frozen=True)
class ProbeQuestion:
    """What is asked of every layer alike; `kept` are the samples that have a label."""

    kind: ProbeKind
    classes: tuple[int, ...]
    kept: Int[np.ndarray, " kept"]
    codes: Int[np.ndarray, " kept"]
    split: GroupSplit
    control: ControlTask | None
    control_codes: Int[np.ndarray, " kept"] | None
    l2: tuple[float, ...]
    resamples: GroupResamples
    level: float
    seed: int


def pose_question(
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    token_types: np.ndarray | None,
    control: bool,
    kind: ProbeKind,
    l2: Sequence[float],
    fractions: tuple[float, float, float],
    level: float,
    n_bootstrap: int,
    seed: int,
) -> ProbeQuestion:
    """Classes, split, control labels and test resamples, once for all layers.

    Raises:
        InputError: fewer than two classes, no penalty above 0, or groups that cannot be split.
    """
    kept = np.flatnonzero(labels >= 0)
    classes, codes = np.unique(labels[kept], return_inverse=True)
    if len(classes) < 2:
        raise InputError(
            expected="labels of at least two classes (-1 leaves a sample out)",
            got=f"classes {classes.tolist()} in {len(kept)} of {len(labels)} samples",
            fix="There is nothing to tell apart; check the labels.",
        )
    penalties = tuple(sorted(float(value) for value in l2))
    if not penalties or not 0 < penalties[0] <= penalties[-1] < float("inf"):
        raise InputError(
            expected="penalties above 0 in l2", got=str(list(l2)), fix="Give e.g. l2=(1e-4, 1e-2)."
        )
    split = split_by_group(codes, groups[kept], fractions=fractions, seed=seed)
    types = None if token_types is None else token_types[kept]
    return ProbeQuestion(
        kind=kind,
        classes=tuple(classes.tolist()),
        kept=kept,
        codes=codes,
        split=split,
        control=None if not control else "group" if types is None else "token_type",
        control_codes=control_labels(codes, groups=groups[kept], token_types=types, seed=seed)
        if control
        else None,
        l2=penalties if kind != "mean_difference" else (float("nan"),),
        resamples=GroupResamples(
            split.test_groups, n_resamples=n_bootstrap, level=level, seed=seed
        ),
        level=level,
        seed=seed,
    )


@torch.no_grad()
def answer_question(
    question: ProbeQuestion,
    activations: Float[Tensor, "sample d_model"],
    *,
    device: torch.device | None = None,
    what: str = "the activations",
) -> FittedProbe:
    """Fit, choose and score the probe of one layer or head.

    Args:
        question: what is asked.
        activations: of all samples, any float dtype, on any device; rows are moved in chunks.
        device: where to compute; where the activations are by default.
        what: name of the activations in messages.

    Raises:
        InputError: activations that are not finite.
    """
    device = activations.device if device is None else device
    split, kept = question.split, question.kept
    mean, scale = _moments(activations, kept[split.train], device, what)
    train, validation, test = (
        _standardised(activations, kept[part], mean, scale)
        for part in (split.train, split.validation, split.test)
    )
    sets = [question.codes]
    sets += [] if question.control_codes is None else [question.control_codes]
    targets = torch.from_numpy(np.stack(sets)).to(device)
    n_classes = len(question.classes)
    weights, biases = fit_candidates(
        train, targets[:, split.train], question.l2, n_classes=n_classes, kind=question.kind
    )
    chosen, losses = [], []
    for number, target in enumerate(targets[:, split.validation]):
        scores = torch.einsum("nd,ldk->nlk", validation, weights[number]) + biases[number]
        losses.append(selection_losses(scores, target, question.kind))
        chosen.append(int(losses[-1].argmin()))
    temperature = 1.0
    if question.kind != "logistic":
        scores = validation @ weights[0, chosen[0]] + biases[0, chosen[0]]
        temperature = fit_temperature(
            scores.double().cpu().numpy(), question.codes[split.validation]
        )
    test_scores = [
        (test @ weights[number, best] + biases[number, best]).double()
        for number, best in enumerate(chosen)
    ]
    scaled = weights[0, chosen[0]].double() / scale[:, None]
    return FittedProbe(
        weights=scaled.T.contiguous().cpu().numpy(),
        biases=(biases[0, chosen[0]].double() - mean @ scaled).cpu().numpy(),
        mean=mean.cpu().numpy(),
        scale=scale.cpu().numpy(),
        temperature=temperature,
        l2=question.l2[chosen[0]],
        control_l2=question.l2[chosen[-1]] if len(chosen) > 1 else float("nan"),
        validation_losses=losses[0],
        scores=_score(question, test_scores, temperature),
    )


def _score(
    question: ProbeQuestion, test_scores: list[Tensor], temperature: float
) -> dict[str, ProbeScore]:
    split, n_classes = question.split, len(question.classes)

    def shares(codes: np.ndarray) -> np.ndarray:
        return np.bincount(codes[split.train], minlength=n_classes) / len(split.train)

    control = None
    if question.control_codes is not None:
        control = (
            test_scores[1].argmax(1).cpu().numpy(),
            question.control_codes[split.test],
            shares(question.control_codes),
        )
    return score_probe(
        (test_scores[0] / temperature).softmax(1).cpu().numpy(),
        question.codes[split.test],
        shares=shares(question.codes),
        resamples=question.resamples,
        control=control,
    )


def _moments(
    activations: Tensor, rows: np.ndarray, device: torch.device, what: str
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation in float64, two passes; the deviation of constants is 1."""
    chunks = torch.from_numpy(rows).to(activations.device).split(_CHUNK)
    mean = sum(activations[part].to(device).double().sum(0) for part in chunks) / len(rows)
    assert isinstance(mean, Tensor)
    if not mean.isfinite().all():
        raise InputError(
            expected="finite activations",
            got=f"nan or infinity in {what}",
            fix="The model overflows here (half precision?) or the samples are padding.",
        )
    squares = sum((activations[part].to(device).double() - mean).square().sum(0) for part in chunks)
    assert isinstance(squares, Tensor)
    scale = (squares / len(rows)).sqrt()
    constant = scale <= 1e-12 * mean.abs()  # rounding of a constant is no signal
    return mean, scale.masked_fill(constant | (scale == 0), 1.0)


def _standardised(activations: Tensor, rows: np.ndarray, mean: Tensor, scale: Tensor) -> Tensor:
    dtype = torch.float64 if activations.dtype == torch.float64 else torch.float32
    out = torch.empty(len(rows), len(mean), dtype=dtype, device=mean.device)
    index = torch.from_numpy(rows).to(activations.device)
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        out[part] = (activations[index[part]].to(mean.device).double() - mean) / scale
    return out
