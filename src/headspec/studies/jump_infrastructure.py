"""The study's infrastructure for its second phase: a run at a glance, two checkpoints compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from headspec.activations.dimensionality import dimensionality_stats
from headspec.activations.representation_result import SimilarityKind
from headspec.activations.representations import representation_similarity
from headspec.activations.sparsity import activation_sparsity
from headspec.errors import InputError
from headspec.results import tidy
from headspec.series.jump_result import Jumps
from headspec.series.jumps import detect_jumps
from headspec.studies.hypotheses import HypothesisVerdict
from headspec.training.vision_data import ImageData
from headspec.training.vision_run import VisionRun
from headspec.weights.drift import weight_change

_SIMILARITIES: dict[str, SimilarityKind] = {
    "cka": "debiased_cka",
    "procrustes": "procrustes",
    "cosine": "cosine",
}
_DIMENSIONS = ("stable_rank", "participation_ratio", "effective_rank")
_OF_WEIGHTS = ("relative_change", "cosine", "left_angle", "right_angle")


def experiment_summary(
    run: VisionRun,
    *,
    jumps: Jumps | None = None,
    verdicts: Sequence[HypothesisVerdict] = (),
) -> pd.DataFrame:
    """A run at a glance, as one tidy frame.

    | metric | |
    |---|---|
    | `parameters`, `updates`, `layers`, `checkpoints`, `measurements` | counts |
    | `first_loss`, `last_loss` | validation, nats per image, all validation images |
    | `first_accuracy`, `last_accuracy` | share of the measured images |
    | a measure of dimensionality, by layer | last value; `least` and `most` over training |
    | `jumps`, by layer and measure (`of`) | detected; missing where the curve was refused |
    | `supported`, `not supported`, `not decided` | verdicts |

    Args:
        run: of `train_vision`.
        jumps: of `detect_jumps`; None: detected here in all that was logged.
        verdicts: of `judge_jump_hypotheses`, to be counted.

    Returns:
        Tidy rows with `layer_name`, `of`, `least`, `most`. Loss and accuracy before training tell
        what an untrained model has.

    Example:
        >>> import tempfile
        >>> from headspec.training.vision import train_vision
        >>> from headspec.training.vision_config import VisionConfig
        >>> config = VisionConfig(model="mlp", steps=40, width=8)
        >>> run = train_vision(config, out=tempfile.mkdtemp() + "/mlp", progress=False)
        >>> summary = experiment_summary(run).set_index("metric")["value"]
        >>> int(summary["parameters"]), int(summary["updates"]), int(summary["measurements"])
        (826, 40, 9)
    """
    log: Any = run.log["validation_loss"].dropna()
    logged: Any = run.dimensionality
    n_parameters = sum(p.numel() for p in run.model(run.config.steps).parameters())
    rows: list[dict[str, Any]] = [
        {"metric": "parameters", "value": n_parameters},
        {"metric": "updates", "value": run.config.steps},
        {"metric": "layers", "value": len(run.layer_names)},
        {"metric": "checkpoints", "value": len(run.steps)},
        {"metric": "measurements", "value": logged["step"].nunique()},
        {"metric": "first_loss", "value": log.iloc[0]},
        {"metric": "last_loss", "value": log.iloc[-1]},
        *_accuracies(run.accuracy),
    ]
    names = ["layer", "layer_name", "metric"]
    for (layer, name, metric), curve in logged.groupby(names, sort=False):
        values = curve.sort_values("step")["value"].to_numpy(float)
        where = {"layer": layer, "layer_name": name, "metric": metric, "n": len(values)}
        rows.append({**where, "value": values[-1], "least": values.min(), "most": values.max()})
    if jumps is None and len(logged):
        jumps = detect_jumps(logged, n_steps=run.config.steps)
    for curve in [] if jumps is None else jumps.curves.to_dict("records"):
        examined = curve["verdict"] == "examined"
        where = {"layer": curve["layer"], "layer_name": curve["layer_name"], "of": curve["metric"]}
        count = curve["n_jumps"] if examined else np.nan
        rows.append({**where, "metric": "jumps", "value": count, "n": curve["n"]})
    said = [each.verdict for each in verdicts]
    rows += [{"metric": name, "value": said.count(name)} for name in dict.fromkeys(said)]
    frame = pd.DataFrame(rows)
    for column in ("layer_name", "of", "least", "most"):
        frame[column] = frame.get(column, None)
    return tidy(frame, model=run.config.model, step=run.config.steps, seed=run.config.seed)


def compare_representations(
    run: VisionRun,
    before: int,
    after: int,
    *,
    controls: Sequence[tuple[int, int]] = (),
    images: ImageData | None = None,
    n_images: int = 512,
    n_null: int = 99,
    seed: int = 0,
) -> pd.DataFrame:
    """What changed between two checkpoints, by layer, beside pairs of other checkpoints.

    | metric | |
    |---|---|
    | `cka` (debiased), `procrustes`, `cosine` | similarity of activations of the same images;
      null: images shuffled |
    | `stable_rank`, `participation_ratio`, `effective_rank` | change: after less before |
    | `treves_rolls`, `inactive_share` | change of sparseness of the outputs, and of the share of
      them at or below 0 |
    | `weight_relative_change`, `weight_cosine`, `weight_left_angle`, `weight_right_angle` | of the
      layer's matrix (filters as rows), see `weight_change`; null of angles: random subspaces |

    Args:
        run: of `train_vision`.
        before, after: two of `run.steps`.
        controls: other pairs of steps, such as the windows of control moments.
        images: other images than those of the run; validation images are used.
        n_images: how many, the first.
        n_null: shuffles.
        seed: of the shuffles.

    Returns:
        Tidy rows with `layer_name`, `kind` ("pair" or "control"), `before`, `after` and
        `n_controls`, `control_mean`, `control_low`, `control_high` (mean, least and largest of the
        controls; rows of controls have none); `step` is `after`.

    Raises:
        StepNotFoundError: a step without a checkpoint.
        InputError: steps that do not ascend.

    **What it does not show.** A similarity far above shuffled images is the rule for any two
    checkpoints of one training: what speaks of a jump is the difference from controls of the same
    length, as far into training. One pair is one observation; see `jump_effects`.

    Example:
        >>> import tempfile
        >>> from headspec.training.vision import train_vision
        >>> from headspec.training.vision_config import VisionConfig
        >>> config = VisionConfig(model="mlp", steps=30, width=8, checkpoints=(10, 20))
        >>> run = train_vision(config, out=tempfile.mkdtemp() + "/mlp", progress=False)
        >>> frame = compare_representations(run, 10, 20, controls=[(20, 30)], n_images=60)
        >>> cka = frame[(frame["metric"] == "cka") & (frame["kind"] == "pair")]
        >>> len(cka), bool((cka["value"] > cka["null_mean"]).all())
        (5, True)
    """
    pairs = [(before, after), *controls]
    if any(first >= last for first, last in pairs):
        raise InputError(
            expected="steps in order, (earlier, later)",
            got=f"{[pair for pair in pairs if pair[0] >= pair[1]]}",
            fix="compare_representations(run, 100, 120, controls=[(200, 220)]).",
        )
    data = run.images if images is None else images
    few = data.validation_images[:n_images]
    models = {step: run.model(step) for step in sorted({each for pair in pairs for each in pair})}
    outputs = {step: model.activations(few) for step, model in models.items()}
    parts = []
    for number, (first, last) in enumerate(pairs):
        rows = [
            {"layer": layer, "layer_name": name, **row}
            for layer, name in enumerate(run.layer_names)
            for row in (
                *_compared(outputs[first][name], outputs[last][name], n_null, seed),
                *_moved(models[first], models[last], name, (first, last)),
            )
        ]
        kind = "control" if number else "pair"
        parts.append(pd.DataFrame(rows).assign(kind=kind, before=first, after=last, step=last))
    frame: Any = pd.concat(parts, ignore_index=True)
    frame = _beside_controls(frame.assign(pair=np.repeat(range(len(parts)), [*map(len, parts)])))
    return tidy(frame, model=run.config.model, seed=run.config.seed, n=len(few))


def _accuracies(accuracy: Any) -> list[dict[str, Any]]:
    """Over all classes, at the first and the last measurement."""
    rows = []
    for name, step in (("first_accuracy", accuracy["step"].min()),
                       ("last_accuracy", accuracy["step"].max())):  # fmt: skip
        here = accuracy.loc[accuracy["step"] == step]
        if len(here):
            n = int(here["n"].sum())
            right = float((here["value"] * here["n"]).sum()) / n
            rows.append({"metric": name, "value": right, "n": n})
    return rows


def _compared(
    first: torch.Tensor, last: torch.Tensor, n_null: int, seed: int
) -> list[dict[str, Any]]:
    """Similarities of two layers' activations, and changes of their shape."""
    rows: list[dict[str, Any]] = []
    for metric, kind in _SIMILARITIES.items():
        found = representation_similarity(first, last, kind=kind, n_null=n_null, seed=seed)
        null = {"null_mean": found.null.mean, "null_sd": found.null.sd, "p": found.null.p_value}
        rows.append({"metric": metric, "value": found.value, **null})
    stats = dimensionality_stats(torch.stack([first, last]), metrics=_DIMENSIONS)
    for metric in _DIMENSIONS:
        rows.append({"metric": metric, "value": float(np.diff(getattr(stats, metric))[0])})
    sparse = [activation_sparsity(each) for each in (first, last)]
    for metric, name in (
        ("treves_rolls", "population_treves_rolls"),
        ("inactive_share", "overall_inactive_share"),
    ):
        rows.append(
            {"metric": metric, "value": getattr(sparse[1], name) - getattr(sparse[0], name)}
        )
    return rows


def _moved(first: Any, last: Any, name: str, steps: tuple[int, int]) -> list[dict[str, Any]]:
    """How the layer's own matrix moved."""
    weights = [model.get_submodule(name).weight.detach().flatten(1) for model in (first, last)]
    found = weight_change(*weights, steps=steps)
    nulls = {"left_angle": found.left_random, "right_angle": found.right_random}
    return [
        {
            "metric": f"weight_{metric}",
            "value": float(getattr(found, metric)),
            "null_mean": nulls.get(metric, np.nan),
        }
        for metric in _OF_WEIGHTS
    ]


def _beside_controls(frame: Any) -> pd.DataFrame:
    """The pair's rows with mean, least and largest of the controls."""
    about = ["layer", "metric"]
    controls = frame.loc[frame["kind"] == "control"].groupby(about)["value"]
    found = controls.agg(
        n_controls="count", control_mean="mean", control_low="min", control_high="max"
    ).reset_index()
    merged = frame.drop(columns="pair").merge(found, on=about, how="left")
    columns = ["n_controls", "control_mean", "control_low", "control_high"]
    merged.loc[merged["kind"] == "control", columns] = np.nan
    return merged.astype({"n_controls": "Int64", "before": "Int64", "after": "Int64"})
