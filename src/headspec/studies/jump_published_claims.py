"""Claims of the published study about counts and phases, recomputed from its own table of jumps."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd

Status = Literal["confirmed", "corrected", "refuted", "cannot be decided"]
FAMILIES = {"transformer": "Transformer", "cnn": "CNN", "mlp": "MLP"}
FLOAT32 = float(np.finfo(np.float32).eps)
_TOTALS = {"transformer": "1,598", "cnn": "297", "mlp": "1,096"}
_PHASES = {
    "transformer": "1,023 / 478 / 0 (64.0 / 29.9 / 0 %)",
    "cnn": "270 / 0 / 0 (90.9 / 0 / 0 %)",
    "mlp": "948 / 20 / 0 (86.5 / 1.8 / 0 %)",
}
_INDEX = (
    "The phase divides the number of the measurement by the number of updates, and every fifth "
    "update was measured: it ends at .1995."
)


def claim(
    text: str, published: str, recomputed: str, *, corrected: str, reason: str, status: Status
) -> dict[str, str]:
    """A published claim and what became of it: a row of the table.

    Args:
        text: what was claimed.
        published: its numbers, as published.
        recomputed: what the published arithmetic gives on the published data.
        corrected: what these data give when it is computed right.
        reason: why both differ, or why the claim stands.
        status: "confirmed": the arithmetic reproduces and the meaning stands; "corrected": another
            number, the same meaning; "refuted"; "cannot be decided" from the published data.
    """
    return {
        "claim": text,
        "published": published,
        "recomputed": recomputed,
        "corrected": corrected,
        "status": status,
        "reason": reason,
    }


def count_claims(jumps: pd.DataFrame) -> list[dict[str, str]]:
    """Claims about how many jumps there are, and where.

    Args:
        jumps: of `load_published_jumps`.
    """
    rows: Any = jumps
    by_family = rows.groupby("architecture").size()
    runs = rows.groupby("architecture")["model"].nunique()
    largest, below = rows["magnitude"].max(), (rows["magnitude"] < 1e-9).mean()
    one_bit = int((rows["magnitude"] <= np.finfo(float).eps).sum())
    meaning = (
        f"What jumped is 1e-10 / |A|², added to a denominator. The largest is {largest:.1e}, "
        f"{below:.1%} are under 1e-9, {one_bit} are one bit of float64: none reaches the "
        f"{FLOAT32:.1e} that float32 activations resolve. No count of them has a meaning."
    )
    counts = ", ".join(f"{FAMILIES[f]} {by_family[f]:,}" for f in FAMILIES)
    per_run = {name: by_family[name] / runs[name] for name in FAMILIES}
    pair = [int((rows["model"] == run).sum()) for run in ("cnn_deep_mnist", "mlp_narrow_mnist")]
    same = rows.loc[rows["dataset"] == "mnist"].groupby("architecture")
    on_mnist = same.size() / same["model"].nunique()
    layers = rows.drop_duplicates(["model", "layer_name"]).groupby("architecture").size()
    each = ", ".join(f"{FAMILIES[name]} {by_family[name] / layers[name]:.1f}" for name in FAMILIES)
    return [
        claim(
            f"There are 2,991 jumps of dimensionality in {rows['model'].nunique()} trainings.",
            ", ".join(f"{FAMILIES[f]} {_TOTALS[f]}" for f in FAMILIES),
            f"{len(rows):,}: {counts}",
            corrected="0 above the resolution of the data",
            reason=meaning,
            status="refuted",
        ),
        claim(
            "CNNs have 2.50 times the jumps of MLPs.",
            "45 against 18",
            f"{pair[0]} against {pair[1]} ({pair[0] / pair[1]:.2f} times)",
            corrected=f"{per_run['cnn']:.1f} against {per_run['mlp']:.1f} a training "
            f"({per_run['cnn'] / per_run['mlp']:.2f} times); on MNIST alone "
            f"{on_mnist['cnn']:.1f} against {on_mnist['mlp']:.1f}",
            reason=f"One training of each was compared; the table has {runs['cnn']} and "
            f"{runs['mlp']}, and more jumps of MLPs than of CNNs.",
            status="refuted",
        ),
        claim(
            "Architecture determines the frequency of jumps: transformer, MLP, CNN.",
            "1,598 > 1,096 > 297",
            " > ".join(f"{by_family[f]:,}" for f in ("transformer", "mlp", "cnn")),
            corrected=f"in a layer of a training: {each}",
            reason=f"Totals of {runs['transformer']}, {runs['mlp']} and {runs['cnn']} trainings, "
            "of 3 to 16 layers each. |z| > 2 marks 4.6 % of the differences of normal noise, 18 of "
            "the 399 of a layer, and fewer where a few differences are very large: it measures the "
            "tails of their distribution, and counts no events.",
            status="refuted",
        ),
    ]


def phase_claims(jumps: pd.DataFrame) -> list[dict[str, str]]:
    """Claims about when jumps happen.

    Args:
        jumps: of `load_published_jumps`.
    """
    rows: Any = jumps
    published, phase = rows["published_phase"], rows["phase"]
    lost = int((published == 0).sum())
    found = [
        claim(
            "Early (up to 10 % of training), mid (to 50 %), late.",
            "2,241 / 498 / 0 (74.9 / 16.7 / 0.0 %)",
            _thirds(published, strict=True),
            corrected=_thirds(phase),
            reason=f"{_INDEX} {lost} jumps at phase 0 fell out of the binning.",
            status="refuted",
        )
    ]
    for family, name in FAMILIES.items():
        chosen = rows["architecture"] == family
        found.append(
            claim(
                f"{name}: early, mid, late.",
                _PHASES[family],
                _thirds(published[chosen], strict=True),
                corrected=_thirds(phase[chosen]),
                reason=f"The same; {int((published[chosen] == 0).sum())} jumps at phase 0.",
                status="refuted" if family == "transformer" else "corrected",
            )
        )
    late = rows.loc[phase > 0.5, "architecture"].value_counts()
    means = {
        name: rows.loc[rows["model"] == run, ["published_phase", "phase"]].mean()
        for name, run in (
            ("transformer", "transformer_deep_mnist"),
            ("CNN", "cnn_deep_mnist"),
            ("MLP", "mlp_narrow_mnist"),
        )
    }
    last = rows["published_phase"].max()
    return [
        *found,
        claim(
            "All jumps occur in the first 50 % of training; none is late.",
            "2,991 of 2,991",
            f"largest published phase {last:.4f}",
            corrected=f"{int(late.sum())} in the second half, {late.get('transformer', 0)} of them "
            f"the transformers' ({late.get('transformer', 0) / 1598:.1%} of theirs); the last at "
            f"{phase.max():.1%} of training",
            reason=f"{_INDEX} It could not have been otherwise.",
            status="refuted",
        ),
        claim(
            "Mean phases of the three runs: transformer, CNN, MLP.",
            ".098, .014, .001",
            ", ".join(f"{one['published_phase']:.4f}" for one in means.values()),
            corrected=", ".join(f"{one['phase']:.4f}" for one in means.values()),
            reason="Five times as late; the transformer's .098 is not the mean of its jumps.",
            status="corrected",
        ),
        claim(
            "CNNs stabilise first, then MLPs, then transformers.",
            "90.9, 86.5, 64.0 % early",
            _early(rows, "published_phase", strict=True),
            corrected=_early(rows, "phase"),
            reason="Counted in updates, and with the jumps at phase 0, MLPs are first.",
            status="refuted",
        ),
        _cluster_claim(rows),
    ]


def _thirds(phase: Any, *, strict: bool = False) -> str:
    """Counts at up to 10 %, up to 50 %, later; `strict` leaves out phase 0, as published."""
    early = (phase <= 0.1) & ((phase > 0) if strict else True)
    counts = [
        int(early.sum()),
        int(((phase > 0.1) & (phase <= 0.5)).sum()),
        int((phase > 0.5).sum()),
    ]
    shares = " / ".join(f"{100 * count / len(phase):.1f}" for count in counts)
    return f"{' / '.join(f'{count:,}' for count in counts)} ({shares} %)"


def _early(jumps: Any, column: str, *, strict: bool = False) -> str:
    early = (jumps[column] <= 0.1) & ((jumps[column] > 0) if strict else True)
    shares = early.groupby(jumps["architecture"]).mean()
    return ", ".join(
        f"{FAMILIES[name]} {shares[name]:.1%}" for name in ("cnn", "mlp", "transformer")
    )


def _cluster_claim(jumps: Any) -> dict[str, str]:
    phase = jumps["published_phase"]

    def shares(chosen: Any) -> str:
        counted = jumps.loc[chosen, "cluster"].value_counts(normalize=True)
        return ", ".join(f"cluster {i} {share:.1%}" for i, share in counted.items() if share > 0.01)

    first, mid = (phase > 0) & (phase <= 0.1), phase > 0.1
    spans = jumps.groupby("cluster")["published_phase"].agg(["min", "max"]).loc[[0, 2, 4]]
    ranges = ", ".join(f"{low:.3f}-{high:.3f}" for low, high in spans.to_numpy())
    return claim(
        "Clusters of early and mid jumps are distributed alike: no qualitative difference.",
        "early 82.6 % cluster 0, 16.5 % cluster 2; mid similar",
        f"early {shares(first)}; mid {shares(mid)}",
        corrected=f"the clusters are bins of the phase: 0, 2 and 4 span {ranges}",
        reason="Mid jumps have no cluster 0, early ones no cluster 4.",
        status="refuted",
    )
