"""Do statistics of the weights say when a model comes to be able to do something?

The study "Weight statistics that predict capabilities": every matrix at every checkpoint, rates of
change correlated with those of capabilities, against a null and corrected for all that was tried.

    python examples/weight_statistics.py                                 # embedded suite, 3 sizes
    python examples/weight_statistics.py --evals pythia/evals/pythia-v1  # capabilities alone
    python examples/weight_statistics.py --suite EleutherAI/pythia-70m,160m,410m,1.4b --evals ...
"""

from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

import headspec as hs
from headspec.checkpoints.micro import SIZES
from headspec.studies import weight_capabilities as abilities
from headspec.studies.capability_words import describe_capabilities
from headspec.studies.weight_findings import conclude_links, describe_links, shorten
from headspec.studies.weight_links import link_weights
from headspec.studies.weight_steps import choose_common_steps, matrix_bytes, suite_names
from headspec.studies.weight_sweep import measure_weights
from headspec.studies.weight_verdicts import judge_links

LOSS = "prose_log_prob"
SHOWN = ("q.stable_rank", "mlp_out.alpha", "o.path_length", "qk.silhouette_excess")
TABLES = {
    "pooled_overall": "Pooled over sizes",
    "control": "What the tests can see: perfect links, and links of r = .9",
    "coincidences": "Turns of statistics near the emergence of capabilities",
}


def main(
    suite: Annotated[str, typer.Option(help="Suites, parted by commas.")] = "",
    evals: Annotated[str, typer.Option(help="Results of lm-eval: folder, archive or URL.")] = "",
    n_null: Annotated[int, typer.Option(help="Surrogates of each capability.")] = 20_000,
    seed: int = 0,
    out: Annotated[Path, typer.Option(help="Folder for results.")] = Path("out/weight_statistics"),
    png: Annotated[bool, typer.Option(help="Figures as PNG too (headspec[png]).")] = False,
) -> dict[str, Any]:
    """Measure weights and capabilities at every step, relate their changes, write a report."""
    names = suite_names(suite or ("" if evals else "micro"))
    if not evals and not set(names) <= set(SIZES):
        raise typer.BadParameter(f"--evals: where are the capabilities of {', '.join(names)}?")
    tracked = abilities.PYTHIA if evals else abilities.EMBEDDED
    if evals:
        models = [name.rpartition("/")[2] for name in names] or None
        frame = hs.load_pythia_evals(evals, shots=0, models=models)
        frame = abilities.of_models(frame, names or abilities.by_size(frame["model"].unique()))
    else:
        frame = pd.concat([hs.capability_curve(name) for name in names], ignore_index=True)
    curves = abilities.capability_curves(frame, tracked)
    results = {
        "capabilities": curves,
        "emergence": abilities.emergence_table(curves, tracked),
    }
    findings, hypotheses = describe_capabilities(results["emergence"]), []
    lead = "When each capability leaves chance, when it rises most, and whether it declines."
    suites = {name: hs.open_suite(name) for name in names}
    steps, words = {}, []
    for name, opened in suites.items():
        measured = curves.loc[curves["model"] == name, "step"].unique().tolist()
        steps[name], chosen = choose_common_steps(opened.steps, measured)
        size = matrix_bytes(opened, steps[name][-1])
        words.append(f"{name}: {chosen} {size / 1e6:,.1f} MB of matrices a step.")
        print(words[-1], flush=True)
    hashes = {name: [one.fingerprint(step) for step in steps[name]] for name, one in suites.items()}
    arguments = {"suites": names, "steps": steps, "hashes": hashes, "n_null": n_null}
    provenance = hs.Provenance.collect(seeds=seed, processing="none", arguments=arguments)
    if suites:
        results |= measure_weights(suites, steps, seed=seed, out=out / "steps")
        found = link_weights(
            results["curves"],
            curves,
            results["emergence"],
            loss=None if evals else LOSS,
            n_null=n_null,
            seed=seed,
        )
        results |= found.frames()
        lead, findings = conclude_links(found), describe_links(found) + findings + words
        hypotheses = list(judge_links(found))
    for name, result in results.items():
        hs.results.save(result, out / f"{name}.parquet", provenance=provenance)
    figures, sections = draw(results, names)
    content: dict[str, Any] = {
        "title": "Weight statistics and capabilities: " + (", ".join(names) or "Pythia"),
        "lead": lead,
        "findings": findings,
        "hypotheses": hypotheses,
        "sections": sections,
        "provenance": provenance,
    }
    page = hs.write_report(out / "report.html", **content)
    hs.save_figures(figures, out / "figures", formats=("html", "png") if png else ("html",))
    print("\n".join([lead, *(f"- {sentence}" for sentence in findings)]))
    for one in hypotheses:
        print(f"{one.verdict.upper()}: {one.hypothesis} {one.evidence}")
    print(f"Report: {page}")
    return content


def draw(results: dict[str, pd.DataFrame], names: tuple[str, ...]):
    """Figures by file name, and the sections of the report they stand in."""
    goals = dict(tuple(results["capabilities"].groupby("model", sort=False)))
    able = {f"capabilities_{i}": hs.plot_capability_curves(goals[m]) for i, m in enumerate(goals)}
    sections = [section("Capabilities", able, results, {"emergence": "Emergence and decline"})]
    if not names:
        return able, sections
    own = {key: table.loc[table["model"] == names[0]] for key, table in results.items()}
    emergence = abilities.emergence_windows(own["emergence"])
    rates = {"rates": hs.plot_rate_heatmap(results["overall"])}
    if "pooled_overall" in results:
        rates["sizes"] = hs.plot_size_forest(results["overall"], results["pooled_overall"])
    each = {"matrices": hs.plot_rate_heatmap(own["links"])}
    for metric in SHOWN:
        figure = hs.plot_weight_timeline(
            own["curves"], metric=metric, capabilities=goals[names[0]], emergence=emergence
        )
        each[metric.replace(".", "_")] = figure
    each |= {f"spectra_{m}": hs.plot_spectra(own["weights"], matrix=m) for m in ("q", "mlp_out")}
    sections.insert(0, section("Rates of change", rates, results, TABLES))
    sections.insert(1, section(f"Every matrix of {names[0]}", each, results, {}))
    return able | rates | each, sections


def section(
    title: str, figures: dict[str, Any], results: dict[str, pd.DataFrame], named: dict[str, str]
):
    """A section with these figures and tables."""
    shown = {key: shorten(results[key]) for key in named if key in results}
    tables = [
        hs.ReportTable(rows, named[key], f"{len(rows)} of {len(results[key])} in {key}.parquet.")
        for key, rows in shown.items()
    ]
    return hs.ReportSection(
        title, figures=[hs.ReportFigure(f) for f in figures.values()], tables=tables
    )


if __name__ == "__main__":
    try:
        typer.run(main)
    except hs.HeadspecError as error:
        raise SystemExit(f"Error: {error}") from None
