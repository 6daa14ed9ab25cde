"""What happens inside a network when the dimensionality of its representations jumps?

The study of dimensionality jumps: a transformer, a CNN and an MLP on images, with several seeds.
A first pass finds jumps with calibrated thresholds, a second one, from the same seed, keeps
checkpoints around them, and what changes there is compared with matched steps without a jump.

    python examples/dimensionality_jumps.py                  # digits, minutes on a CPU
    python examples/dimensionality_jumps.py --scale study    # 2,000 updates, MNIST if it is there
"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import headspec as hs
from headspec.studies.jump_published_review import review_published_jumps
from headspec.studies.jump_runs import run_jump_study
from headspec.studies.jump_scales import jump_scale
from headspec.studies.jump_study import analyse_jump_study
from headspec.studies.jump_study_figures import figure_inputs
from headspec.studies.jump_study_parts import PARTS, TITLES, section_text
from headspec.studies.option_lists import parse_names, parse_seeds

PUBLISHED = Path(__file__).parents[2] / "shared" / "data" / "ndt-phase1"
PLOTS: dict[str, Any] = {
    "transformer_jump_overview": hs.plot_jump_overview,
    "transformer_early_vs_late": hs.plot_early_late,
    "cnn_mlp_comprehensive_comparison": hs.plot_jump_rates,
    "cnn_mlp_layer_analysis": hs.plot_jump_overview,
    "early_late_comprehensive": hs.plot_early_late,
    "early_late_by_architecture": hs.plot_early_late,
    "dimensionality_transformer": hs.plot_dimensionality,
    "dimensionality_cnn": hs.plot_dimensionality,
    "dimensionality_mlp": hs.plot_dimensionality,
    "coordination": hs.plot_jump_coordination,
    "losses": hs.plot_loss_around_jumps,
    "types": hs.plot_jump_types,
    "class_accuracy": hs.plot_class_accuracy,
    "effects": hs.plot_jump_effects,
    "similarity": hs.plot_similarity_across,
    "attention": hs.plot_attention_pattern,
    "attention_heads": hs.plot_attention_heads_comparison,
    "entropy_evolution": hs.plot_entropy_evolution,
    "filters": hs.plot_filters,
    "activations": hs.plot_activation_heatmap,
    "published_early_late": hs.plot_early_late,
    "published_stable_rank": hs.plot_dimensionality,
}
"""Figures by file name, the study's first."""


def main(
    scale: Annotated[str, typer.Option(help="debug or study.")] = "debug",
    seeds: Annotated[str, typer.Option(help="Parted by commas; three at least.")] = "0,1,2",
    models: Annotated[str, typer.Option(help="Of transformer,cnn,mlp; all.")] = "",
    data: Annotated[str, typer.Option(help="digits, mnist, torchvision:... or a folder.")] = "",
    steps: Annotated[int, typer.Option(help="Updates, instead of the scale's.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Images of an update.")] = 0,
    measure_every: Annotated[int, typer.Option(help="Updates between measurements.")] = 0,
    n_jumps: Annotated[int, typer.Option(help="Jumps of a run that are looked into.")] = 0,
    published: Annotated[str, typer.Option(help="Folder of the published data.")] = "",
    device: Annotated[str, typer.Option(help="CUDA where there is one.")] = "",
    threads: Annotated[int, typer.Option(help="Of torch; 0: one for each core.")] = 0,
    jobs: Annotated[int, typer.Option(help="Trainings at a time.")] = 1,
    out: Annotated[Path, typer.Option(help="A rerun goes on.")] = Path("out/dimensionality_jumps"),
    png: Annotated[bool, typer.Option(help="Figures as PNG too (headspec[png]).")] = False,
) -> dict[str, Any]:
    """Find jumps, train again with checkpoints around them, look inside; write a report."""
    if threads:
        torch.set_num_threads(threads)
    chosen = jump_scale(scale).change(
        steps=steps,
        batch_size=batch_size,
        measure_every=measure_every,
        n_jumps=n_jumps,
        data=data,
        models=parse_names(models),
    )
    folder = out / scale
    known = published or (PUBLISHED if PUBLISHED.is_dir() else "")
    review = review_published_jumps(known) if known else None
    study = run_jump_study(
        chosen, seeds=parse_seeds(seeds), out=folder, device=device or None, jobs=jobs
    )
    found = analyse_jump_study(study, review)
    provenance = hs.Provenance.collect(seeds=study.seeds, arguments={"scale": asdict(chosen)})
    found.write(folder, provenance=provenance)
    inputs = figure_inputs(study, found, review)
    figures: dict[str, Any] = {name: PLOTS[name](**data) for name, data in inputs.items()}
    sections = [
        hs.ReportSection(
            title,
            text=section_text(title, found.tables),
            figures=[hs.ReportFigure(figures[name]) for name in shown if name in figures],
            tables=[
                hs.ReportTable(found.report_table(name), TITLES[name])
                for name in listed
                if name in found.tables
            ],
        )
        for title, (shown, listed) in PARTS.items()
    ]
    content: dict[str, Any] = {
        "title": f"Jumps of dimensionality in a transformer, a CNN and an MLP: {scale}",
        "lead": found.lead,
        "findings": list(found.findings),
        "hypotheses": list(found.verdicts),
        "sections": sections,
        "provenance": provenance,
    }
    page = hs.write_report(folder / "report.html", **content)
    hs.save_figures(figures, folder / "figures", formats=("html", "png") if png else ("html",))
    print("\n".join([found.lead, *(f"- {sentence}" for sentence in found.findings)]))
    for one in found.verdicts:
        print(f"{one.verdict.upper()}: {one.hypothesis} {one.evidence}")
    print(found.tables["runs"].to_string(index=False))
    print(f"Report: {page}")
    return content


if __name__ == "__main__":
    try:
        typer.run(main)
    except hs.HeadspecError as error:
        raise SystemExit(f"Error: {error}") from None
