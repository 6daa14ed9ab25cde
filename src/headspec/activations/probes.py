"""Linear probes for a stack of layers, split by group, beside their control task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from headspec.activations.probe_fitting import answer_question, pose_question
from headspec.activations.probe_kinds import ProbeKind
from headspec.activations.probe_result import Probes, collect_probes
from headspec.errors import InputError, check_choice

L2_GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Penalties tried by default."""


def fit_probes(
    activations: Float[Tensor, "*stack sample d_model"],
    labels: Integer[Tensor | np.ndarray, " sample"],
    *,
    groups: Integer[Tensor | np.ndarray, " sample"],
    token_types: Integer[Tensor | np.ndarray, " sample"] | None = None,
    kind: ProbeKind = "logistic",
    control: bool = True,
    l2: Sequence[float] = L2_GRID,
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
    level: float | int = 0.95,
    n_bootstrap: int = 1000,
    seed: int = 0,
    device: torch.device | str | None = None,
    layers: Sequence[int] | None = None,
    site: str = "",
    model: str = "",
    step: int | None = None,
    processing: str = "none",
) -> Probes:
    """Linear probes of the same labels for every layer (and head), with controls and intervals.

    Samples of a group (the tokens of a sequence) are never on two sides of the split: they share
    more than their labels, and a probe tested on other tokens of training sequences reads that.
    Features are standardised by the training samples. The penalty of each probe is the one whose
    loss on validation is lowest; all numbers are of test groups, used once.

    Kinds: `"logistic"`, multinomial logistic regression at its optimum (see `solve_logistic` for
    scikit-learn's C); `"ridge"`, least squares on one-hot labels; `"mean_difference"`, the nearest
    class mean, whose directions are differences of means. The last two give probabilities by a
    temperature fitted on validation. Computed in float32 with statistics in float64, all in float64
    for float64 input; bfloat16 and float16 are converted.

    Args:
        activations: any float dtype, on the CPU or a GPU; `stack` is nothing, `layer`, or
            `layer head`.
        labels: class of each sample; -1 leaves it out.
        groups: group (sequence) of each sample.
        token_types: type of each sample, such as its token id: the control task then gives each
            type a random class (Hewitt and Liang 2019). Without: each group gets another's labels.
        kind: see above.
        control: whether to fit the control task too, at little cost.
        l2: penalties to choose from, in mean loss + l2/2 |W|².
        fractions: shares of groups for train, validation and test.
        level, n_bootstrap: of the intervals, resampled over test groups.
        seed: of split, control and resampling.
        device: where to compute; where the activations are by default.
        layers: numbers of the layers of the first axis; from 0 by default.
        site, model, step, processing: what the result says of the activations.

    Returns:
        Arrays over `stack`. What they do not show: that the model uses what a probe reads. High
        accuracy with low selectivity is memory of token types. The control drawn is one of many.

    Raises:
        InputError: shapes that do not fit, values that are not finite, one class only, too few
            groups, or a class that no split brings into every part.

    References:
        Alain and Bengio 2016; Hewitt and Liang 2019, "Designing and interpreting probes with
        control tasks"; Belinkov 2022, "Probing classifiers".

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> labels = torch.arange(400) % 2
        >>> activations = torch.randn(3, 400, 8, generator=generator)
        >>> activations[2, :, 0] += 4 * labels
        >>> probes = fit_probes(activations, labels, groups=torch.arange(400) // 10)
        >>> bool(probes.accuracy[2] > 0.9), bool(probes.accuracy[0] < 0.7)
        (True, True)
    """
    check_choice("kind", kind, get_args(ProbeKind))
    stack = tuple(activations.shape[:-2])
    n = activations.shape[-2]
    given = {"labels": labels, "groups": groups, "token_types": token_types}
    arrays = {name: integer_array(name, one, n) for name, one in given.items() if one is not None}
    if len(stack) > 2 or (layers is not None and (not stack or len(layers) != stack[0])):
        raise InputError(
            expected="activations `sample d_model`, `layer sample d_model` or `layer head sample "
            "d_model`, and as many numbers in layers= as there are layers",
            got=f"shape {list(activations.shape)}, layers={layers}",
            fix="Reshape the activations, or give one number a layer.",
        )
    numbers = tuple(range(stack[0] if stack else 0)) if layers is None else tuple(layers)
    question = pose_question(
        arrays["labels"],
        arrays["groups"],
        token_types=arrays.get("token_types"),
        control=control,
        kind=kind,
        l2=l2,
        fractions=fractions,
        level=level,
        n_bootstrap=n_bootstrap,
        seed=seed,
    )
    fitted = [
        answer_question(
            question,
            activations[place].detach(),
            device=None if device is None else torch.device(device),
            what=f"activations{list(place)}" if place else "the activations",
        )
        for place in np.ndindex(stack)
    ]
    return collect_probes(
        question,
        fitted,
        stack=stack,
        layers=numbers,
        site=site,
        model=model,
        step=step,
        processing=processing,
    )


def integer_array(name: str, values: Any, n: int) -> np.ndarray:
    """Whole numbers, one a sample, as an array.

    Raises:
        InputError: for anything else.
    """
    array = values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)
    if array.shape != (n,) or array.dtype.kind not in "iu":
        raise InputError(
            expected=f"{name} of whole numbers, one for each of {n} samples",
            got=f"shape {list(array.shape)}, {array.dtype}",
            fix="Flatten batch and positions alike in activations, labels and groups.",
        )
    return array.astype(np.int64)
