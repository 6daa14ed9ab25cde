"""Do clusters of attention heads differ in what they do, and does it matter?

The mechanistic half of the study "Pythia weight clustering dynamics": statistical comparison,
projections, swaps and functional specialisation, each in front of its null.

    python examples/cluster_mechanism.py                                        # embedded suite
    python examples/cluster_mechanism.py --suite EleutherAI/pythia-160m --layer 6   # as published
"""

from pathlib import Path
from typing import Annotated, Any

import typer

import headspec as hs
from headspec.checkpoints.micro import SIZES
from headspec.interventions.weight_swaps import SwapKind
from headspec.studies import cluster_layers, cluster_mechanism, cluster_swaps, cluster_tasks
from headspec.weights.features import Feature

ABLATED = (
    "The heads of a cluster are replaced by their means. Any six heads matter for something; "
    "specialised clusters matter for different tasks, more than relabelled heads do."
)
SWAPPED = (
    "Heads of the clusters change places, one to one. Any such swap changes the output, so the "
    "study's words (from 0.1 and 1 nat on) stand beside swaps of random sets of the same sizes."
)
COMPARED = (
    "The study's KS and t tests take every weight for an observation; here the head is the unit. "
    "Weights that the clusters were found by (not independent) differ by construction."
)
OUTPUTS = (
    "Here a head's output is written through its partner's W_O. That takes half a circuit out of "
    "its basis, between clusters and inside them alike, and so says little of clusters."
)


def main(
    suite: Annotated[str, typer.Option(help="Hub name, folder, or an embedded suite.")] = "micro",
    step: Annotated[int | None, typer.Option(help="Default: the last.")] = None,
    layer: Annotated[int | None, typer.Option(help="Default: the most clearly clustered.")] = None,
    feature: Annotated[Feature, typer.Option(help="What stands for a head.")] = "qk",
    how: Annotated[SwapKind, typer.Option(help="What clusters exchange; it decides.")] = "qk",
    n_random: Annotated[int, typer.Option(help="Random sets and relabellings.", min=1)] = 199,
    n_prompts: Annotated[int, typer.Option(help="Pairs of prompts a task.", min=5)] = 32,
    seed: int = 0,
    out: Annotated[Path, typer.Option(help="Folder for results.")] = Path("out/cluster_mechanism"),
    png: Annotated[bool, typer.Option(help="Figures as PNG too (headspec[png]).")] = False,
) -> dict[str, Any]:
    """Compare, project, swap and ablate two clusters of heads, and write a report."""
    opened = hs.open_suite(suite)
    (at,) = opened.resolve_steps(opened.steps[-1:] if step is None else [step])
    if layer is not None and not 0 <= layer < opened.n_layers:
        raise typer.BadParameter(f"{suite} has layers 0 to {opened.n_layers - 1}, got {layer}")
    named = {"how": how, "feature": feature, "n_random": n_random, "n_prompts": n_prompts}
    provenance = hs.Provenance.collect(
        opened, steps=[at], seeds=seed, processing="none", arguments=named
    )
    layers = range(opened.n_layers) if layer is None else [layer]
    found = cluster_layers.cluster_layers(
        opened, step=at, layers=layers, feature=feature, seed=seed
    )
    chosen = cluster_layers.clearest_layer(found)
    weights, clustering, model = opened.head_weights(at, chosen), found[chosen], opened.model(at)
    families = cluster_tasks.build_families(embedded=suite in SIZES, n=n_prompts, seed=seed)
    tasks = cluster_tasks.tokenise_families(families, model.tokenizer)
    kinds: tuple[SwapKind, ...] = (how, "outputs")
    drawn = {"n_random": n_random, "seed": seed}
    swaps = {
        name: cluster_swaps.swap_on_tasks(model, clustering, tasks, how=kind, **drawn)
        for name, kind in zip(("swaps", "outputs"), kinds, strict=True)
    }
    effects = hs.cluster_effects(model, clustering, tasks, n_random=1000, seed=seed)
    heads = cluster_tasks.ablate_on_tasks(model, tasks)
    tables = {
        "layers": cluster_layers.tabulate_layers(found),
        "abilities": cluster_tasks.measure_abilities(model, tasks),
        "comparison": cluster_layers.compare_weights(
            weights, clustering.labels, found_by=feature, seed=seed
        ),
        "effects": effects.to_frame(),
        **{name: cluster_swaps.tabulate_swaps(one) for name, one in swaps.items()},
    }
    for name, table in tables.items():
        for suffix in ("json", "parquet"):
            hs.results.save(table, out / f"{name}.{suffix}", provenance=provenance)
    verdict = cluster_mechanism.judge_specialisation(
        tables["layers"], tables["swaps"], effects, tables["abilities"]
    )
    findings = cluster_mechanism.describe_mechanism(tables["swaps"], effects)
    points = cluster_layers.project_clusters(weights, clustering, seed=seed)
    figures = {
        "effects": hs.plot_cluster_effects(effects),
        **{name: hs.plot_swap_null(one) for name, one in swaps.items()},
        "pca": hs.plot_head_projection(points, layer=chosen, method="pca"),
        "tsne": hs.plot_head_projection(points, layer=chosen, method="tsne"),
        **{
            f"heads_{name.split()[0]}": hs.plot_head_effects(one, title=f"Heads ablated, {name}")
            for name, one in heads.items()
        },
    }
    content: dict[str, Any] = {
        "title": f"What clusters of heads do: {opened.name}, step {at}",
        "lead": f"What swapping and ablating clusters of layer {chosen} does, against random sets.",
        "findings": findings,
        "hypotheses": [verdict],
        "sections": lay_out(figures, tables),
        "provenance": provenance,
    }
    page = hs.write_report(out / "report.html", **content)
    hs.save_figures(figures, out / "figures", formats=("html", "png") if png else ("html",))
    print("\n".join(f"- {sentence}" for sentence in findings))
    print(f"{verdict.verdict.upper()}: {verdict.hypothesis} {verdict.evidence}")
    print(f"Report: {page}")
    return content


def lay_out(figures: dict[str, Any], tables: dict[str, Any]) -> list[hs.ReportSection]:
    """The report's sections, from figures and tables by name."""
    named = {
        "abilities": "Whether the model can do the tasks",
        "layers": "Clusters by direction, layer by layer",
        "comparison": "Weights of the two clusters",
    }

    def section(title: str, text: str, shown: list[str], listed: list[str], folded: bool):
        drawn = [hs.ReportFigure(figures[name]) for name in shown]
        rows = [
            hs.ReportTable(tables[name], named.get(name, "By the study and by the null"))
            for name in listed
        ]
        return hs.ReportSection(title, text=text, figures=drawn, tables=rows, folded=folded)

    heads = [name for name in figures if name.startswith("heads_")]
    return [
        section("What the clusters matter for", ABLATED, ["effects"], ["abilities"], False),
        section("Swapping the clusters", SWAPPED, ["swaps"], ["swaps"], False),
        section("How they differ", COMPARED, ["pca", "tsne"], ["layers", "comparison"], False),
        section("Swapping outputs", OUTPUTS, ["outputs"], ["outputs"], True),
        section("Head by head", "Every head ablated alone.", heads, [], True),
    ]


if __name__ == "__main__":
    try:
        typer.run(main)
    except hs.HeadspecError as error:
        raise SystemExit(f"Error: {error}") from None
