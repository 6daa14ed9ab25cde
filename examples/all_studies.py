"""Every study on one suite, and one page that holds them all: what `make studies` runs.

python examples/all_studies.py                       # embedded suite
python examples/all_studies.py --suite micro-small
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import cluster_emergence
import cluster_mechanism
import dimensionality_jumps
import parity_emergence
import topic_ordering
import typer
import weight_statistics

import headspec as hs
from headspec.checkpoints.micro import SIZES

STUDIES = {
    "Clusters over training": cluster_emergence,
    "What clusters do": cluster_mechanism,
    "Even against odd": parity_emergence,
    "Weights and capabilities": weight_statistics,
    "Order of training data": topic_ordering,
    "Jumps of dimensionality": dimensionality_jumps,
}


def main(
    suite: Annotated[str, typer.Option(help="Hub name, folder, or an embedded suite.")] = "micro",
    seed: int = 0,
    evals: Annotated[str, typer.Option(help="Of a Hub model: results of lm-eval.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for results.")] = Path("out"),
) -> None:
    """Run the studies one after the other; each also writes a page of its own."""
    contents = {}
    for title, study in STUDIES.items():
        print(f"\n{title}", flush=True)
        options: dict[str, Any] = {"suite": suite, "seed": seed}
        if study is weight_statistics:
            options |= {"evals": evals}
            if not evals and suite not in SIZES:
                print("left out: without --evals there are no capabilities to compare with")
                continue
        if study in (topic_ordering, dimensionality_jumps):  # train models of their own
            options = {"seeds": ",".join(str(seed + i) for i in range(3)), "jobs": 2}
        contents[title] = study.main(out=out / study.__name__, **options)
    # A later study may decide what an earlier one left open: the last verdict of each counts.
    verdicts = {each.hypothesis: each for one in contents.values() for each in one["hypotheses"]}
    page = hs.write_report(
        out / "report.html",
        title=f"When heads specialise, what differs, whether it matters: {suite}",
        lead="\n\n".join(f"{title}. {one['lead']}" for title, one in contents.items()),
        findings=[
            f"{title}. {finding}"
            for title, one in contents.items()
            for finding in one["findings"][:3]
        ],
        hypotheses=list(verdicts.values()),
        sections=[
            replace(part, title=f"{title}: {part.title}", folded=part is not one["sections"][0])
            for title, one in contents.items()
            for part in one["sections"]
        ],
        provenance={title: vars(one["provenance"]) for title, one in contents.items()},
    )
    print(f"\nReport: {page}")


if __name__ == "__main__":
    try:
        typer.run(main)
    except hs.HeadspecError as error:
        raise SystemExit(f"Error: {error}") from None
