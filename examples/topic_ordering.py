"""Does the order of training data leave a mark in attention heads?

The study of topic-ordered training and DroPE: small Qwen3-style models trained on micro-languages,
2 (attention) x 2 (order of the data) x 2 (rotary embeddings kept or dropped), with several seeds.

    python examples/topic_ordering.py                             # all eight, minutes on a CPU
    python examples/topic_ordering.py --scale sanity --steps 600  # the study's check, shortened
    python examples/topic_ordering.py --scale run1                # its first run: on a GPU
"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import headspec as hs
from headspec.studies.option_lists import parse_names, parse_seeds
from headspec.studies.topic_analysis import TITLES, TopicAnalysis, analyse_topic_study
from headspec.studies.topic_examples import example_patterns
from headspec.studies.topic_runs import TopicStudy, run_topic_study
from headspec.studies.topic_scales import topic_scale
from headspec.studies.topic_verdicts import RULES

CHANGES = ("entropy", "within_topic_mass", "topic_excess")
PROBES = ("accuracy", "selectivity")
PARTS = {
    "Conditions": ((), ("conditions", "baselines")),
    "Effects": (("effects",), ("after_drope",)),
    "Before and after DroPE": (tuple(f"change_{name}" for name in CHANGES), ()),
    "Probes": (("probes",), ("probes_after_drope",)),
    "As published, as corrected": (("published", "mask"), ()),
    "Heads": (("patterns",), ("circuits",)),
}
"""Sections of the report: figures and tables of each."""


def main(
    scale: Annotated[str, typer.Option(help="debug, sanity, run1 or v2.")] = "debug",
    seeds: Annotated[str, typer.Option(help="Parted by commas; three at least.")] = "0,1,2",
    attention: Annotated[str, typer.Option(help="mha, gqa or both; the scale's own.")] = "",
    steps: Annotated[int, typer.Option(help="Updates, instead of the scale's.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Sequences of an update.")] = 0,
    recalibration_steps: Annotated[int, typer.Option(help="Updates after DroPE.")] = 0,
    recalibration: Annotated[str, typer.Option(help="shuffled; published: topic_ordered.")] = "",
    boost: Annotated[str, typer.Option(help="own or rotated; see MicroLanguages.")] = "",
    sequences: Annotated[int, typer.Option(help="Validation sequences measured.")] = 0,
    precision: Annotated[str, typer.Option(help="bf16 or fp32.")] = "",
    device: Annotated[str, typer.Option(help="CUDA where there is one.")] = "",
    threads: Annotated[int, typer.Option(help="Of torch; 0: one for each core.")] = 0,
    jobs: Annotated[int, typer.Option(help="Trainings at a time.")] = 1,
    out: Annotated[Path, typer.Option(help="A rerun goes on.")] = Path("out/topic_ordering"),
    png: Annotated[bool, typer.Option(help="Figures as PNG too (headspec[png]).")] = False,
) -> dict[str, Any]:
    """Train, drop rotary embeddings, recalibrate and measure; write tables and a report."""
    if threads:
        torch.set_num_threads(threads)
    chosen = topic_scale(scale).change(
        steps=steps,
        batch_size=batch_size,
        attention=parse_names(attention),
        precision=precision,
        recalibration_steps=recalibration_steps,
        recalibration_ordering=recalibration,
        boost=boost,
        n_measured=sequences,
    )
    folder = out / scale
    study = run_topic_study(
        chosen, seeds=parse_seeds(seeds), out=folder, device=device or None, jobs=jobs
    )
    found = analyse_topic_study(study)
    provenance = hs.Provenance.collect(seeds=study.seeds, arguments={"scale": asdict(chosen)})
    for name, table in found.tables.items():
        hs.results.save(table, folder / f"{name}.parquet", provenance=provenance)
    figures = draw(study, found)
    sections = [
        hs.ReportSection(
            title,
            text=RULES if title == "Effects" else "",
            figures=[hs.ReportFigure(figures[name]) for name in shown],
            tables=[hs.ReportTable(found.report_table(name), TITLES[name]) for name in listed],
        )
        for title, (shown, listed) in PARTS.items()
    ]
    content: dict[str, Any] = {
        "title": f"Order of training data, attention heads and DroPE: {scale}",
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
    print(found.tables["conditions"].to_string(index=False))
    print(f"Report: {page}")
    return content


def draw(study: TopicStudy, found: TopicAnalysis) -> dict[str, Any]:
    """Figures by file name."""
    frame = study.frame
    patterns, unmasked, topics = example_patterns(study)
    probes = frame.loc[frame["kind"].notna()].assign(
        training=frame["attention"] + "_" + frame["ordering"]
    )
    return {
        "effects": hs.plot_factorial_effects(found.tables["effects"]),
        **{f"change_{name}": hs.plot_attention_change(frame, metric=name) for name in CHANGES},
        "probes": hs.plot_probe_curves(probes, metrics=PROBES, by="training", panel="position"),
        "published": hs.plot_correction(found.tables["corrections"]),
        "mask": hs.plot_attention_heatmaps(
            unmasked, topics, title="A head with its mask and without"
        ),
        "patterns": hs.plot_attention_heatmaps(patterns, topics, title="The most topical heads"),
    }


if __name__ == "__main__":
    try:
        typer.run(main)
    except hs.HeadspecError as error:
        raise SystemExit(f"Error: {error}") from None
