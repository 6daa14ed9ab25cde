"""When do clusters of attention heads emerge during training, how suddenly, and against what?

The training-dynamics half of the study "Pythia weight clustering dynamics", with a null for every
number. On the embedded suite:      python examples/cluster_emergence.py
The published setting (downloads):  python examples/cluster_emergence.py \
                                        --suite EleutherAI/pythia-160m --layer 6
"""

from pathlib import Path
from typing import Annotated

import typer

import headspec as hs
from headspec.studies import cluster_emergence as study

PUBLISHED_STEPS = (1000, 5000, 10000, 20000, 40000, 80000, 120000, 143000)


def main(
    suite: Annotated[str, typer.Option(help="Hub name, folder, or an embedded suite.")] = "micro",
    layer: Annotated[list[int] | None, typer.Option(help="Repeatable; default: all.")] = None,
    steps: Annotated[str, typer.Option(help="As in 0,128,4000; default: all.")] = "",
    feature: Annotated[str, typer.Option(help="q, k, v, o, qk or ov.")] = "qk",
    clusters: Annotated[int, typer.Option(help="Number of clusters.")] = 2,
    unit_norm: Annotated[bool, typer.Option(help="Cluster directions, not lengths.")] = False,
    null: Annotated[str, typer.Option(help="norm_matched, initialisation, permuted.")] = (
        "norm_matched"
    ),
    n_null: Annotated[int, typer.Option(help="Draws of the null.")] = 2000,
    seed: int = 0,
    out: Annotated[Path, typer.Option(help="Folder for results.")] = Path("out/cluster_emergence"),
    png: Annotated[bool, typer.Option(help="Figures as PNG too (headspec[png]).")] = False,
) -> None:
    """Cluster the heads at every step, test each clustering, and write a report."""
    opened = hs.open_suite(suite)
    chosen = chosen_steps(opened, steps)
    checked = opened.verify(steps=chosen)
    measure = hs.ClusterMeasure(
        layers=tuple(layer) if layer else None,
        feature=feature,  # type: ignore[arg-type]
        n_clusters=clusters,
        null=null,  # type: ignore[arg-type]
        n_null=n_null,
        seed=seed,
        unit_norm=unit_norm,
    )
    frame = study.add_q_values(hs.sweep(opened, measure, steps=chosen, out=out / "steps"))
    layers = study.emergence_by_layer(frame)
    transitions = hs.find_transitions(frame, "silhouette", seed=seed)
    findings = study.describe_findings(layers, transitions)
    hypotheses = study.judge_hypotheses(layers, transitions)
    provenance = hs.Provenance.collect(
        opened, steps=chosen, seeds=seed, processing="none", arguments=vars(measure)
    )
    for suffix in ("json", "parquet"):
        hs.results.save(frame, out / f"clusters.{suffix}", provenance=provenance)
        hs.results.save(transitions, out / f"transitions.{suffix}", provenance=provenance)
    figures, sections = draw(frame, transitions, layers, None)
    hs.save_figures(figures, out / "figures", formats=("html", "png") if png else ("html",))
    page = hs.write_report(
        out / "report.html",
        title=f"Head clusters over training: {suite}",
        lead="Whether, when and how suddenly attention heads form clusters, against random heads.",
        findings=findings,
        hypotheses=hypotheses,
        sections=sections,
        tables=[hs.ReportTable(checked, "Checkpoints, verified")],
        provenance=provenance,
    )
    for sentence in findings:
        print(f"- {sentence}")
    for one in hypotheses:
        print(f"{one.verdict.upper()}: {one.hypothesis} {one.evidence}")
    print(f"Report: {page}")


def chosen_steps(suite: hs.CheckpointSuite, text: str) -> tuple[int, ...]:
    """Steps of the command line, else the study's eight where the suite has them, else all."""
    if text:
        return suite.resolve_steps([int(part) for part in text.split(",")])
    published = set(PUBLISHED_STEPS) <= set(suite.steps)
    return PUBLISHED_STEPS if published else suite.steps


def draw(frame, transitions, layers, capabilities):
    """Figures of the report by file name, and the sections they stand in."""
    figures = {"emergence_map": hs.plot_emergence_map(frame)}
    overview = [hs.ReportFigure(figures["emergence_map"])]
    if capabilities is not None:
        figures["capabilities"] = hs.plot_capability_curves(capabilities)
        overview.append(hs.ReportFigure(figures["capabilities"]))
    sections = [
        hs.ReportSection(
            "All layers",
            figures=overview,
            tables=[
                hs.ReportTable(layers, "Emergence by layer"),
                hs.ReportTable(transitions, "Largest change of the silhouette by layer"),
            ],
        )
    ]
    for row in transitions.itertuples():
        layer = int(row.layer)
        drawn = {
            "timeline": hs.plot_metric_timeline(frame, layer=layer, transition=row),
            "similarity": hs.plot_similarity_heatmaps(frame, layer=layer),
            "pca": hs.plot_head_projection(frame, layer=layer, method="pca"),
            "tsne": hs.plot_head_projection(frame, layer=layer, method="tsne"),
        }
        figures |= {f"layer{layer}_{name}": figure for name, figure in drawn.items()}
        sections.append(
            hs.ReportSection(
                f"Layer {layer}", figures=[hs.ReportFigure(figure) for figure in drawn.values()]
            )
        )
    verdicts = study.compare_verdicts(frame)
    text = (
        "The study calls a silhouette above .5 strong and a separation ratio above 2 well "
        "separated. The ratio has no scale, and one long head alone makes a strong silhouette."
    )
    table = hs.ReportTable(verdicts, "Each clustering in the study's words and by its null")
    sections.append(hs.ReportSection("The study's thresholds", text, tables=[table], folded=True))
    return figures, sections


if __name__ == "__main__":
    typer.run(main)
