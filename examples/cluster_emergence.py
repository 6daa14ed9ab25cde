"""When do clusters of attention heads emerge during training, how suddenly, and against what?

The training-dynamics half of the study "Pythia weight clustering dynamics", with a null for every
number. Heads are clustered by direction, and as the study did it, by their weights as given.

    python examples/cluster_emergence.py                                        # embedded suite
    python examples/cluster_emergence.py --suite EleutherAI/pythia-160m --layer 6   # as published
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

import headspec as hs
from headspec.checkpoints.micro import SIZES
from headspec.studies import cluster_behaviour, cluster_emergence
from headspec.weights.cluster_nulls import Null
from headspec.weights.features import Feature

PUBLISHED_STEPS = (1000, 5000, 10000, 20000, 40000, 80000, 120000, 143000)
CAPABILITIES = ("decimal_accuracy", "version_accuracy", "addition_accuracy", "induction_gain")


def main(
    suite: Annotated[str, typer.Option(help="Hub name, folder, or an embedded suite.")] = "micro",
    layer: Annotated[list[int] | None, typer.Option(help="Repeatable; default: all.")] = None,
    steps: Annotated[str, typer.Option(help="As in 0,128,4096; default: all.")] = "",
    feature: Annotated[Feature, typer.Option(help="What stands for a head.")] = "qk",
    clusters: Annotated[int, typer.Option(help="Number of clusters.", min=2)] = 2,
    null: Annotated[Null, typer.Option(help="What clusters are tested against.")] = "norm_matched",
    n_null: Annotated[int, typer.Option(help="Draws of the null.")] = 2000,
    seed: int = 0,
    out: Annotated[Path, typer.Option(help="Folder for results.")] = Path("out/cluster_emergence"),
    png: Annotated[bool, typer.Option(help="Figures as PNG too (headspec[png]).")] = False,
) -> dict[str, Any]:
    """Cluster the heads at every step, test each clustering, and write a report."""
    opened = hs.open_suite(suite)
    chosen = chosen_steps(opened, steps)
    if layer and not 0 <= min(layer) <= max(layer) < opened.n_layers:
        raise typer.BadParameter(f"{suite} has layers 0 to {opened.n_layers - 1}, got {layer}")
    checked = opened.verify(steps=chosen)
    measure = hs.ClusterMeasure(
        layers=tuple(dict.fromkeys(layer)) if layer else None,
        feature=feature,
        n_clusters=clusters,
        null=null,
        n_null=n_null,
        seed=seed,
        unit_norm=True,
    )
    as_given = replace(measure, unit_norm=False, positions=False)
    provenance = hs.Provenance.collect(
        opened, steps=chosen, seeds=seed, processing="none", arguments=vars(measure)
    )
    results = {}
    for name, variant in {"directions": measure, "as_given": as_given}.items():
        frame = hs.sweep(opened, variant, steps=chosen, out=out / "steps" / name)
        results[name] = cluster_emergence.add_q_values(frame)
    frame = results["directions"]
    results["transitions"] = transitions = hs.find_transitions(frame, "silhouette", seed=seed)
    layers = cluster_emergence.emergence_by_layer(frame, final_step=opened.steps[-1])
    results["layers"] = layers
    findings = cluster_emergence.describe_findings(layers, transitions)
    if suite in SIZES and opened.steps[-1] in chosen:
        results["behaviour"] = cluster_behaviour.relate_clusters(frame, hs.head_score_curve(suite))
        findings += cluster_behaviour.describe_behaviour(results["behaviour"])
    hypotheses = cluster_emergence.judge_hypotheses(layers, transitions)
    for name in results:
        for suffix in ("json", "parquet"):
            hs.results.save(results[name], out / f"{name}.{suffix}", provenance=provenance)
    figures, sections = draw(results, suite)
    table = hs.ReportTable(checked.filter(["step", "ok", "problems", "content_hash"]), "Verified")
    sections.append(hs.ReportSection("Checkpoints", tables=[table], folded=True))
    content: dict[str, Any] = {
        "title": f"Head clusters over training: {opened.name}",
        "lead": "Whether, when and how suddenly heads form clusters, against random heads.",
        "findings": findings,
        "hypotheses": hypotheses,
        "sections": sections,
        "provenance": provenance,
    }
    page = hs.write_report(out / "report.html", **content)
    hs.save_figures(figures, out / "figures", formats=("html", "png") if png else ("html",))
    print("\n".join(f"- {sentence}" for sentence in findings))
    for one in hypotheses:
        print(f"{one.verdict.upper()}: {one.hypothesis} {one.evidence}")
    print(f"Report: {page}")
    return content


def chosen_steps(suite: hs.CheckpointSuite, text: str) -> tuple[int, ...]:
    """Steps of the command line, else the study's eight where the suite has them, else all."""
    published = set(PUBLISHED_STEPS) <= set(suite.steps)
    if not text:
        return PUBLISHED_STEPS if published else suite.steps
    parts = text.split(",")
    if len(parts) < 3 or not all(part.strip().isdigit() for part in parts):
        raise typer.BadParameter(f"three steps or more, as in 0,128,4096; got {text!r}")
    return suite.resolve_steps([int(part) for part in parts])


def draw(results: dict[str, pd.DataFrame], suite: str):
    """Figures by file name, and the sections of the report they stand in."""
    frame, transitions = results["directions"], results["transitions"]
    figures = {"emergence_map": hs.plot_emergence_map(frame)}
    if suite in SIZES:
        curves = hs.capability_curve(suite)
        figures["capabilities"] = hs.plot_capability_curves(curves, metrics=CAPABILITIES)
    named = {"layers": "Emergence", "transitions": "Largest change", "behaviour": "Behaviour"}
    tables = [hs.ReportTable(results[key], named[key]) for key in named if key in results]
    sections = [section("All layers", figures, tables=tables)]
    layers = results["layers"]
    clearest = layers["layer"][(layers["value"] - layers["null_mean"]).idxmax()]
    rows: Any = transitions.itertuples()
    for row in rows:
        layer = int(row.layer)
        drawn = {
            f"layer{layer}_timeline": hs.plot_metric_timeline(frame, layer=layer, transition=row),
            f"layer{layer}_similarity": hs.plot_similarity_heatmaps(frame, layer=layer),
            f"layer{layer}_pca": hs.plot_head_projection(frame, layer=layer, method="pca"),
            f"layer{layer}_tsne": hs.plot_head_projection(frame, layer=layer, method="tsne"),
        }
        sections.append(section(f"Layer {layer}", drawn, folded=layer != clearest))
        figures |= drawn
    as_given = {"as_given_map": hs.plot_emergence_map(results["as_given"])}
    text = "The study clusters weights as given, where the longest head decides. Its separation \
ratio has no scale, and one long head alone makes a silhouette that it calls strong."
    words = cluster_emergence.compare_verdicts(results["as_given"])
    table = hs.ReportTable(words, "Each clustering in the study's words and by its null")
    sections.append(section("As the study measured", as_given, text=text))
    sections.append(hs.ReportSection("The study's words", tables=[table], folded=True))
    return figures | as_given, sections


def section(title: str, figures: dict[str, Any], **rest: Any) -> hs.ReportSection:
    """A section with these figures."""
    shown = [hs.ReportFigure(figure) for figure in figures.values()]
    return hs.ReportSection(title, figures=shown, **rest)


if __name__ == "__main__":
    try:
        typer.run(main)
    except hs.HeadspecError as error:
        raise SystemExit(f"Error: {error}") from None
