"""What figures of the jumps study look at: a model before and after one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from headspec.activations.gabor import fit_gabor
from headspec.studies.jump_runs import JumpStudy
from headspec.training.vision_models import VisionModel

_IMAGES = 200


@dataclass(frozen=True, eq=False)
class MomentView:
    """A model on both sides of a moment, and images to show it.

    Attributes:
        title: which model and moment, in words.
        layer_name: where the jump was; the middle layer for moments without one.
        before, after: the models.
        steps: of both.
        images, labels: validation images.
    """

    title: str
    layer_name: str
    before: VisionModel
    after: VisionModel
    steps: tuple[int, int]
    images: Float[Tensor, "image 1 height width"]
    labels: Int64[Tensor, " image"]


def largest_moment(study: JumpStudy, model: str) -> MomentView:
    """The largest jump that a second pass looked into, or the largest change where none jumped.

    Largest is by magnitude among the jumps of its measure, over all seeds.

    Args:
        study: of `run_jump_study`.
        model: architecture.
    """
    rows: Any = study.plans
    rows = rows.loc[(rows["model"] == model) & rows["kind"].isin(["jump", "candidate"])]
    if (rows["kind"] == "jump").any():
        rows = rows.loc[rows["kind"] == "jump"]
    rank = rows.groupby("metric")["magnitude"].rank(pct=True).fillna(0.0)
    row = rows.loc[rank.idxmax()]
    seed, first, last = int(row["seed"]), int(row["before"]), int(row["after"])
    run = study.run(model, seed)
    data = run.images
    kind = "jump" if row["kind"] == "jump" else "change, no jump"
    return MomentView(
        title=f"{model}, seed {seed}: {kind} of {str(row['metric']).replace('_', ' ')} at "
        f"{row['layer_name']}, steps {first} to {last}",
        layer_name=str(row["layer_name"]),
        before=run.model(first),
        after=run.model(last),
        steps=(first, last),
        images=data.validation_images[:_IMAGES],
        labels=data.validation_labels[:_IMAGES],
    )


def mean_patterns(view: MomentView) -> tuple[np.ndarray, np.ndarray, int]:
    """Attention of the block that jumped before and after, mean over images, `head query key`.

    Args:
        view: of a transformer.

    Returns:
        Both, and the number of the block.
    """
    both = []
    for model in (view.before, view.after):
        patterns: Any = model
        with torch.no_grad():
            both.append(patterns.attention_patterns(view.images).mean(1).numpy())
    digits = [int(part) for part in view.layer_name.split(".") if part.isdigit()]
    block = digits[0] if digits else int(np.abs(both[1] - both[0]).mean((1, 2, 3)).argmax())
    return both[0][block], both[1][block], block


def patch_grid(view: MomentView) -> tuple[int, int]:
    """Rows and columns of patches of a transformer's images."""
    model: Any = view.before
    height, width = view.images.shape[-2:]
    return height // model.patch, width // model.patch


def first_filters(view: MomentView) -> dict[str, Any]:
    """Filters of the first convolution before and after with the R^2 of their Gabor fits.

    Args:
        view: of a CNN.

    Returns:
        Arguments of `plot_filters`.
    """
    models: list[Any] = [view.before, view.after]
    filters = [model.first_filters() for model in models]
    kept = min(16, len(filters[0]))
    strength = filters[1].flatten(1).norm(dim=1).topk(kept).indices.sort().values
    before, after = (each[strength] for each in filters)
    fits = [fit_gabor(before, n_null=0), fit_gabor(after)]
    return {
        "before": before.numpy(),
        "after": after.numpy(),
        "gabor_r2": {"before": fits[0].r_squared, "after": fits[1].r_squared},
        "gabor_null": float(np.quantile(fits[1].null_r_squared, 0.95)),
    }


def class_means(view: MomentView) -> dict[str, Any]:
    """Mean activation of the units of the layer that jumped for each class, before and after.

    Units are sorted by means over other images, so that a diagonal is no work of the sorting.

    Args:
        view: of an MLP.

    Returns:
        Arguments of `plot_activation_heatmap`.
    """
    names = view.before.layer_names
    name = view.layer_name if view.layer_name in names[:-1] else names[-2]
    half = len(view.images) // 2
    tables = []
    for model in (view.before, view.after):
        outputs = model.activations(view.images)[name].relu()
        parts = ((outputs[:half], view.labels[:half]), (outputs[half:], view.labels[half:]))
        tables.append([_means(rows, labels) for rows, labels in parts])
    panels = {
        f"before ({view.steps[0]})": tables[0][0],
        f"after ({view.steps[1]})": tables[1][0],
    }
    return {"activations": panels, "sort_by": tables[1][1]}


def accuracy_means(accuracy: pd.DataFrame, together: int = 10) -> pd.DataFrame:
    """Accuracy of each class over some measurements together: of few images it wobbles.

    Args:
        accuracy: `model seed step class value`, at the same steps for all classes.
        together: measurements in a mean; its step is the last of them.
    """
    rows: Any = accuracy
    keys = ["model", "seed", "class"]
    place = rows.groupby(keys)["step"].rank(method="first").astype(int)
    means = rows.assign(part=(place - 1) // together).groupby([*keys, "part"], sort=False)
    return means.agg(step=("step", "max"), value=("value", "mean")).reset_index()


def entropy_rows(study: JumpStudy) -> pd.DataFrame:
    """Entropy of every head at every checkpoint of the transformers, each step once."""
    rows: Any = study.moments
    rows = rows.loc[(rows["metric"] == "attention_entropy") & (rows["place"] != "across")]
    return rows.drop_duplicates(["model", "seed", "step", "layer", "head"])


def _means(outputs: Tensor, labels: Tensor) -> np.ndarray:
    """Mean of each class, `class unit`."""
    n_classes = int(labels.max()) + 1
    return torch.stack([outputs[labels == i].mean(0) for i in range(n_classes)]).numpy()
