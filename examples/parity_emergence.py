"""When do even and odd attention heads specialise during training, if they do?

The study "Training dynamics: when does even/odd head specialisation emerge?", with the difference
of even and odd heads read against that of every other split of the layer into halves.

    python examples/parity_emergence.py                                         # embedded suite
    python examples/parity_emergence.py --suite EleutherAI/pythia-160m --wording qa   # as published
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import cpu_count, get_context
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from torch import set_num_threads

import headspec as hs
from headspec.checkpoints.micro import SIZES
from headspec.studies.parity_answers import answer_parity_study
from headspec.studies.parity_emergence import add_parity_q_values
from headspec.studies.parity_steps import choose_study_steps, match_published_steps
from headspec.tasks.families import Family, Wording


def main(
    suite: Annotated[str, typer.Option(help="Hub name, folder, or an embedded suite.")] = "micro",
    layer: Annotated[list[int] | None, typer.Option(help="Repeatable; default: see docs.")] = None,
    steps: Annotated[str, typer.Option(help="As in 0,128,4096; default: the study's.")] = "",
    task: Annotated[Family, typer.Option(help="Prompts.")] = "decimal_comparison",
    wording: Annotated[Wording | None, typer.Option(help="Format of the prompts.")] = None,
    n_pairs: Annotated[int, typer.Option(help="Prompt pairs.", min=2)] = 16,
    seed: int = 0,
    workers: Annotated[int, typer.Option(help="Processes.", min=1)] = min(cpu_count() or 1, 4),
    out: Annotated[Path, typer.Option(help="Folder for results.")] = Path("out/parity_emergence"),
    png: Annotated[bool, typer.Option(help="Figures as PNG too (headspec[png]).")] = False,
) -> dict[str, Any]:
    """Patch even heads, odd heads and every other half at every step, and write a report."""
    opened = hs.open_suite(suite)
    chosen, words = chosen_steps(opened, steps)
    if layer and not 0 <= min(layer) <= max(layer) < opened.n_layers:
        raise typer.BadParameter(f"{suite} has layers 0 to {opened.n_layers - 1}, got {layer}")
    wording = wording or ("micro" if suite in SIZES else "plain")
    measure = hs.ParityMeasure(None, task, wording, n_pairs=n_pairs, seed=seed)
    checked = opened.verify(steps=chosen)
    if not layer:  # the study's layer was the middle one, "known effective for final model"
        layer = [measure.effective_layer(opened.checkpoint(chosen[-1])), opened.n_layers // 2]
    layers = tuple(dict.fromkeys(layer))
    measure = replace(measure, layers=layers)
    provenance = hs.Provenance.collect(
        opened, steps=chosen, seeds=seed, processing="none", arguments=vars(measure)
    )
    context = {"mp_context": get_context("spawn"), "initializer": set_num_threads, "initargs": (1,)}
    with ProcessPoolExecutor(workers, **context) as pool:
        frame = hs.sweep(opened, measure, steps=chosen, out=out / "steps", executor=pool)
    frame = add_parity_q_values(frame)
    answers = answer_parity_study(
        frame,
        layers=layers,
        capabilities=hs.capability_curve(suite) if suite in SIZES else None,
        final_step=opened.steps[-1],
        seed=seed,
    )
    is_split = frame["metric"].str.contains("split")
    results = {
        "parity": frame.loc[~is_split],
        "splits": frame.loc[is_split].dropna(axis=1, how="all"),
        "emergence": answers.emergence,
        "verdicts": answers.verdicts,
        "published_steps": match_published_steps(opened.steps),
    }
    for name, result in results.items():
        hs.results.save(result, out / f"{name}.json", provenance=provenance)
    findings = [*answers.findings, words]
    figures, sections = draw(frame, answers.changes)
    sections.append(hs.ReportSection("Tables", tables=tables(results)))
    table = hs.ReportTable(checked.filter(["step", "ok", "problems", "content_hash"]), "Verified")
    sections.append(hs.ReportSection("Checkpoints", tables=[table], folded=True))
    content: dict[str, Any] = {
        "title": f"Even against odd heads over training: {opened.name}",
        "lead": "Whether, when and how suddenly even and odd heads come to do different work, "
        f"against all other halves. Task: {task.replace('_', ' ')}, {measure.wording} wording, "
        f"{n_pairs} prompt pairs.",
        "findings": findings,
        "hypotheses": answers.hypotheses,
        "sections": sections,
        "provenance": provenance,
    }
    page = hs.write_report(out / "report.html", **content)
    hs.save_figures(figures, out / "figures", formats=("html", "png") if png else ("html",))
    print("\n".join(f"- {sentence}" for sentence in findings))
    for one in answers.hypotheses:
        print(f"{one.verdict.upper()}: {one.hypothesis} {one.evidence}")
    print(f"Report: {page}")
    return content


def chosen_steps(suite: hs.CheckpointSuite, text: str) -> tuple[tuple[int, ...], str]:
    """Steps of the command line, else the study's, and how they stand to the study's eleven."""
    if not text:
        return choose_study_steps(suite.steps)
    parts = text.split(",")
    if len(parts) < 3 or not all(part.strip().isdigit() for part in parts):
        raise typer.BadParameter(f"three steps or more, as in 0,128,4096; got {text!r}")
    chosen = suite.resolve_steps([int(part) for part in parts])
    return chosen, f"{len(chosen)} steps of the command line were measured."


def draw(frame: pd.DataFrame, changes: dict[int, hs.Transition]):
    """Figures by file name, and the sections of the report they stand in."""
    figures, sections = {}, []
    for layer, change in changes.items():
        end = f"_layer{layer}" if len(changes) > 1 else ""
        graded = hs.plot_parity_null(frame, layer=layer, metric="graded_strength")
        drawn = {
            "emergence_timeline": hs.plot_parity_timeline(frame, layer=layer, transition=change),
            "individual_success_rates": hs.plot_success_rates(frame, layer=layer),
            "emergence_analysis": hs.plot_parity_null(frame, layer=layer),
            "emergence_analysis_graded": graded,
        }
        shown = [hs.ReportFigure(figure) for figure in drawn.values()]
        sections.append(hs.ReportSection(f"Layer {layer}", figures=shown))
        figures |= {name + end: figure for name, figure in drawn.items()}
    return figures, sections


def tables(results: dict[str, pd.DataFrame]) -> list[hs.ReportTable]:
    """Tables of the report."""
    named = {
        "verdicts": "Hypotheses, by success as in the study, and by the graded metric",
        "emergence": "Emergence",
        "published_steps": "The study's steps, and what stands for them",
    }
    hidden = ["before_step", "gone_step", "lasting_share", "final_step", "n_needed"]
    shown = {name: results[name].drop(columns=hidden, errors="ignore") for name in named}
    return [hs.ReportTable(shown[name], title) for name, title in named.items()]


if __name__ == "__main__":
    try:
        typer.run(main)
    except hs.HeadspecError as error:
        raise SystemExit(f"Error: {error}") from None
