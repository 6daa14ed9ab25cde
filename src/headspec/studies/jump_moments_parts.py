"""What is looked at inside one checkpoint of a vision model, and between two of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from headspec.activations.filters import filter_orthogonality
from headspec.activations.gabor import fit_gabor
from headspec.activations.head_specialisation import attention_specialisation
from headspec.activations.representation_result import SimilarityKind
from headspec.activations.representations import representation_similarity
from headspec.activations.selectivity import class_selectivity
from headspec.activations.sparsity import activation_sparsity
from headspec.training.dimension_log import class_rows
from headspec.training.vision_models import VisionModel

Row = dict[str, Any]
GABOR_SIDE = 5
"""Filters with shorter sides are fitted well by a Gabor function whatever they are."""
_ATTENDED = 128  # images whose attention is read: a second pass, and its mean is precise
_SIMILARITIES: dict[str, SimilarityKind] = {"cka": "debiased_cka", "procrustes": "procrustes"}


@dataclass(frozen=True)
class CheckpointView:
    """What is kept of a checkpoint for comparisons with others.

    Attributes:
        activations: of each measured layer, a row an image (mean over positions).
        weights: matrices and filters by the name of their module or parameter.
        class_accuracy: class -> share right.
        layers: name of a measured layer -> its index.
    """

    activations: Mapping[str, Float[Tensor, "image feature"]]
    weights: Mapping[str, Tensor]
    class_accuracy: Mapping[int, float]
    layers: Mapping[str, int]


def view_checkpoint(
    model: VisionModel,
    images: Float[Tensor, "image 1 height width"],
    labels: Int64[Tensor, " image"],
    *,
    n_images: int,
    n_null: int = 0,
    n_gabor: int = 6,
    seed: int = 0,
) -> tuple[CheckpointView, list[Row]]:
    """Every measure of one checkpoint.

    | metric | of | what |
    |---|---|---|
    | `validation_loss`, `accuracy` | the model | on all images; nats, share |
    | `class_accuracy` | a class | share of its images |
    | `inactive_share` | a layer with a ReLU | share of its outputs that the ReLU silences |
    | `treves_rolls` | the same | population sparseness after the ReLU |
    | `class_selectivity` | the same | mean index over units; null: labels shuffled |
    | `attention_entropy`, `normalised_entropy` | a head | nats; share of ln(tokens) |
    | `entropy_range`, `entropy_variance` | a block | over its heads |
    | `head_divergence` | a block | mean Jensen-Shannon divergence of heads, nats |
    | `filter_orthogonality` | a convolution | 1 - mean absolute cosine; null: random filters |
    | `gabor_r2` | the first convolution | mean R^2 of some filters; null: fits to noise |

    Args:
        model: in evaluation mode.
        images, labels: validation images, standardised.
        n_images: how many of them everything but loss and accuracy is measured on, the first;
            attention on the first 128 of these.
        n_null: shuffles for the null of class selectivity.
        n_gabor: filters to which Gabor functions are fitted, evenly chosen; 0: none.
        seed: of the nulls.

    Returns:
        What comparisons need, and rows `metric value` with `layer layer_name head class null_mean
        null_sd n` where they apply.
    """
    few = images[:n_images]
    outputs = {
        name: rows.reshape(len(few), -1, rows.shape[-1])
        for name, rows in model.activations(few, samples="positions").items()
    }
    layers = {name: i for i, name in enumerate(model.layer_names)}
    with torch.no_grad():
        rest = [model(part) for part in images[n_images:].split(500) if len(part)]
    logits = torch.cat([outputs[model.layer_names[-1]][:, 0], *rest])
    rows = _behaviour(logits, labels)
    accuracy = {row["class"]: row["value"] for row in rows if "class" in row}
    for name in rectified_layers(model):
        where = {"layer": layers[name], "layer_name": name}
        rows += [{**where, **row} for row in _units(outputs[name], labels[:n_images], n_null, seed)]
    rows += list(_attention(model, few[:_ATTENDED]))
    rows += list(_filters(model, layers, n_gabor, seed))
    weights = {
        name.removesuffix(".weight"): value.detach()
        for name, value in model.named_parameters()
        if value.ndim > 1
    }
    means = {name: output.mean(1) for name, output in outputs.items()}
    return CheckpointView(means, weights, accuracy, layers), rows


def compare_views(before: CheckpointView, after: CheckpointView) -> list[Row]:
    """What changed between two checkpoints, by layer.

    `cka` (debiased) and `procrustes` are similarities, 1 where nothing changed but rotation and
    scale; `weight_change` is |B - A| / |A| of each matrix; `largest_class_gain` the largest gain
    of accuracy of a class.

    Args:
        before, after: of the same images.

    Returns:
        Rows `metric value`, with `layer layer_name` where they apply.
    """
    rows: list[Row] = []
    for name, first in before.activations.items():
        where = {"layer": before.layers[name], "layer_name": name}
        for metric, kind in _SIMILARITIES.items():
            found = representation_similarity(first, after.activations[name], kind=kind, n_null=0)
            rows.append({**where, "metric": metric, "value": found.value})
    for name, weight in before.weights.items():
        moved = torch.linalg.vector_norm((after.weights[name] - weight).double())
        share = float(moved / torch.linalg.vector_norm(weight.double()))
        where = {"layer": before.layers.get(name), "layer_name": name}
        rows.append({**where, "metric": "weight_change", "value": share})
    gains = [after.class_accuracy[each] - old for each, old in before.class_accuracy.items()]
    return [*rows, {"metric": "largest_class_gain", "value": max(gains)}]


def rectified_layers(model: VisionModel) -> tuple[str, ...]:
    """Measured layers whose outputs go through a ReLU."""
    if hasattr(model, "attention_patterns"):
        return tuple(name for name in model.layer_names if name.endswith(".linear1"))
    return model.layer_names[:-1]


def _behaviour(logits: Tensor, labels: Tensor) -> list[Row]:
    counts = torch.bincount(labels, minlength=logits.shape[-1])
    classes = class_rows(logits, labels, counts)
    n = sum(int(row["n"]) for row in classes)
    totals = {
        metric: sum(row[column] * row["n"] for row in classes) / n
        for metric, column in (("validation_loss", "loss"), ("accuracy", "value"))
    }
    rows: list[Row] = [{"metric": name, "value": value, "n": n} for name, value in totals.items()]
    for row in classes:
        named = {"metric": "class_accuracy", "class": int(row["class"])}
        rows.append({**named, "value": row["value"], "n": int(row["n"])})
    return rows


def _units(output: Tensor, labels: Tensor, n_null: int, seed: int) -> Iterator[Row]:
    """Sparseness and selectivity of a layer before its ReLU, `image position unit`."""
    yield {"metric": "inactive_share", "value": float((output <= 0).double().mean())}
    responses = output.relu().mean(1)
    sparsity = activation_sparsity(responses)
    yield {"metric": "treves_rolls", "value": sparsity.population_treves_rolls}
    found = class_selectivity(responses, labels, n_null=n_null, seed=seed).overall
    named = {"metric": "class_selectivity", "value": found.observed}
    yield {**named, "null_mean": found.mean, "null_sd": found.sd, "n": len(output)}


def _attention(model: VisionModel, images: Tensor) -> Iterator[Row]:
    look: Any = getattr(model, "attention_patterns", None)
    if look is None:
        return
    found = attention_specialisation(look(images), causal=False, kept=1)
    for layer in range(len(found.entropy)):
        where = {"layer": layer, "layer_name": f"transformer.layers.{layer}", "n": found.n}
        for metric in ("entropy", "normalised_entropy"):
            name = "attention_entropy" if metric == "entropy" else metric
            for head, value in enumerate(getattr(found, metric)[layer].tolist()):
                yield {**where, "head": head, "metric": name, "value": value}
        for metric in ("entropy_range", "entropy_variance", "head_divergence"):
            yield {**where, "metric": metric, "value": float(getattr(found, metric)[layer])}


def _filters(
    model: VisionModel, layers: Mapping[str, int], n_gabor: int, seed: int
) -> Iterator[Row]:
    first = True
    for name, part in model.named_modules():
        if not isinstance(part, nn.Conv2d):
            continue
        weight = part.weight.detach()
        where = {"layer": layers.get(name), "layer_name": name}
        found = filter_orthogonality(weight, seed=seed)
        null = found.null["mean_abs_cosine"]
        yield {
            **where,
            "metric": "filter_orthogonality",
            "value": 1 - found.mean_abs_cosine,
            "null_mean": 1 - null.mean,
            "null_sd": null.sd,
            "n": found.n_filters,
        }
        if first and n_gabor and min(weight.shape[-2:]) >= GABOR_SIDE:
            chosen = np.unique(np.linspace(0, len(weight) - 1, n_gabor).round().astype(int))
            fits = fit_gabor(weight[torch.from_numpy(chosen)], seed=seed)
            yield {
                **where,
                "metric": "gabor_r2",
                "value": fits.overall.observed,
                "null_mean": fits.overall.mean,
                "null_sd": fits.overall.sd,
                "n": len(chosen),
            }
        first = False
