"""What each figure of the jumps study is drawn from."""

from __future__ import annotations

from typing import Any

from headspec.studies.jump_published_layers import CNN
from headspec.studies.jump_published_review import PublishedReview
from headspec.studies.jump_runs import JumpStudy
from headspec.studies.jump_study import JumpAnalysis
from headspec.studies.jump_study_views import (
    accuracy_means,
    class_means,
    entropy_rows,
    first_filters,
    largest_moment,
    mean_patterns,
    patch_grid,
)
from headspec.studies.jump_tables import with_several_jumps

Inputs = dict[str, dict[str, Any]]
_METRIC = "effective_rank"


def figure_inputs(
    study: JumpStudy, found: JumpAnalysis, review: PublishedReview | None = None
) -> Inputs:
    """Arguments of the plot functions, by the file name of the figure.

    Only of figures that have something to show: those of shares, types, coordination, losses and
    effects need jumps, those of an architecture its runs, those of the published data the data.

    Args:
        study: of `run_jump_study`.
        found: of `analyse_jump_study`.
        review: of the published data, if they are there.
    """
    inputs = {
        **_overviews(study),
        **_shares(found),
        **_curves(study),
        **_results(found),
        **_moments(study, found),
    }
    if "transformer" in study.scale.models:
        inputs |= _attention(study)
    if "cnn" in study.scale.models:
        view = largest_moment(study, "cnn")
        inputs["filters"] = {**first_filters(view), "title": view.title}
    if "mlp" in study.scale.models:
        view = largest_moment(study, "mlp")
        inputs["activations"] = {**class_means(view), "title": view.title}
    if review is not None:
        inputs["published_early_late"] = {"shares": review.shares}
        inputs["published_stable_rank"] = {
            "frame": review.runs.loc[review.runs["model"] == CNN],
            "jumps": review.jumps.loc[review.jumps["model"] == CNN],
            "metric": "published_stable_rank",
        }
    return inputs


def _overviews(study: JumpStudy) -> Inputs:
    jumps, curves = study.jumps.to_frame(), study.jumps.curves
    inputs: Inputs = {}
    for name, models in (
        ("transformer_jump_overview", ["transformer"]),
        ("cnn_mlp_layer_analysis", ["cnn", "mlp"]),
    ):
        here = curves.loc[curves["model"].isin(models)]
        if len(here):
            shown: Any = jumps.loc[jumps["model"].isin(models)]
            inputs[name] = {"jumps": shown, "curves": here}
            if len(shown):  # sizes of one measure alone can be compared: the one that jumps most
                inputs[name]["metric"] = str(shown["metric"].mode().iloc[0])
    return inputs


def _shares(found: JumpAnalysis) -> Inputs:
    if "shares" not in found.parts:
        return {}
    shares: Any = found.parts["shares"]
    several = (shares["model"] == "all").any()
    inputs: Inputs = {
        "early_late_comprehensive": {
            "shares": shares.loc[shares["model"] == "all"] if several else shares
        },
        "early_late_by_architecture": {"shares": shares.loc[shares["by"] == "step"]},
    }
    if (shares["model"] == "transformer").any():
        rows = shares.loc[shares["model"] == "transformer"]
        inputs["transformer_early_vs_late"] = {"shares": rows}
    return inputs


def _curves(study: JumpStudy) -> Inputs:
    rows, jumps = study.dimensionality, study.jumps.to_frame()
    return {
        f"dimensionality_{model}": {
            "frame": rows.loc[rows["model"] == model],
            "jumps": jumps.loc[jumps["model"] == model],
            "metric": _METRIC,
        }
        for model in study.scale.models
    }


def _results(found: JumpAnalysis) -> Inputs:
    inputs: Inputs = {
        name: {name: found.parts[name]}
        for name in ("coordination", "types", "losses")
        if name in found.tables
    }
    if "coordination" in inputs:
        rows = with_several_jumps(found.tables["coordination"])
        inputs["coordination"] = {"coordination": rows, "by": ("model", "seed", "of")}
    return inputs


def _moments(study: JumpStudy, found: JumpAnalysis) -> Inputs:
    jumps, seed = study.jumps.to_frame(), study.seeds[0]
    inputs: Inputs = {
        "cnn_mlp_comprehensive_comparison": {
            "frame": found.tables["rates"],
            "accepted": float(study.scale.false_positives),
        },
        "class_accuracy": {
            "frame": accuracy_means(study.accuracy.loc[study.accuracy["seed"] == seed]),
            "jumps": jumps.loc[jumps["seed"] == seed],
        },
    }
    if "effects" in found.tables:
        inputs["effects"] = {"frame": found.tables["effects"]}
    across: Any = study.moments.loc[study.moments["place"] == "across"]
    if (across["kind"] == "jump").any():
        inputs["similarity"] = {"frame": across}
    return inputs


def _attention(study: JumpStudy) -> Inputs:
    view = largest_moment(study, "transformer")
    before, after, block = mean_patterns(view)
    jumps = study.jumps.to_frame()
    return {
        "attention": {
            "patterns": {f"head {head}": pattern for head, pattern in enumerate(after)},
            "grid": patch_grid(view),
            "causal": False,
            "query": "class",
            "title": f"{view.title}: block {block} after",
        },
        "attention_heads": {
            "before": before,
            "after": after,
            "title": f"{view.title}: block {block}",
        },
        "entropy_evolution": {
            "frame": entropy_rows(study),
            "jumps": jumps.loc[jumps["model"] == "transformer"],
        },
    }
