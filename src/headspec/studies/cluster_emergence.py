"""When do clusters of attention heads emerge? The study's questions, asked of a sweep's frame.

The study ("Pythia weight clustering dynamics") reads silhouettes against fixed thresholds. Here
every silhouette is read against its null, and its hypotheses are judged from the adjusted p-values.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from headspec.errors import InputError
from headspec.stats import false_discovery_rate
from headspec.studies.hypotheses import SPECIALISATION, HypothesisVerdict, Verdict
from headspec.weights.cluster_result import study_separation_word, study_word

# The study calls steps below 10,000 of 143,000 early and above 80,000 late.
EARLY, LATE = 10_000 / 143_000, 80_000 / 143_000

_UNDECIDED = HypothesisVerdict(
    SPECIALISATION,
    "not decided",
    "Weights alone cannot tell: it takes ablations and swaps, against random head sets (the "
    "mechanistic half of the study).",
)


def add_q_values(frame: pd.DataFrame, *, metric: str = "silhouette") -> pd.DataFrame:
    """Adjust the p-values of one metric for all layers and steps looked at.

    Benjamini and Hochberg's procedure (1995); rows of other metrics get NaN.

    Args:
        frame: tidy frame of a sweep with `metric` and `p`.
        metric: whose p-values to adjust.

    Returns:
        A copy with the column `q`.

    What it does not show: neighbouring steps share most of their weights, so that a run of small
    q-values over steps is one observation seen several times, not several.
    """
    tested = (frame["metric"] == metric) & frame["p"].notna()
    if not np.any(tested):
        raise InputError(
            expected=f"rows of metric {metric!r} with p-values",
            got=f"metrics {sorted(frame['metric'].unique())}, none of these with a p-value",
            fix="Run the sweep with a null, for instance ClusterMeasure(null='norm_matched').",
        )
    least = 1 / (1 + frame.loc[tested, "n_null"].min()) if "n_null" in frame else 0.0
    if least * np.sum(tested) > 0.05:
        warnings.warn(
            f"{np.sum(tested)} tests with p-values of at least {least:.2g} cannot single out one "
            f"of them at .05: draw n_null = {int(np.sum(tested) / 0.05)} or more",
            stacklevel=2,
        )
    q = pd.Series(np.nan, index=frame.index)
    q[tested] = false_discovery_rate(frame.loc[tested, "p"].to_numpy())
    return frame.assign(q=q)


def emergence_by_layer(
    frame: pd.DataFrame,
    *,
    metric: str = "silhouette",
    alpha: float = 0.05,
    final_step: int | None = None,
) -> pd.DataFrame:
    """From which step on each layer's heads are clustered more clearly than their null.

    Args:
        frame: as `add_q_values` returns it, several steps of one suite.
        metric: which metric is tested.
        alpha: false discovery rate to accept.
        final_step: where training ended; None: the last step of the frame.

    Returns:
        One row a layer: `layer`, `first_step` (first step with q <= alpha), `lasting_step` (first
        of two or more measured steps up to the last that all have q <= alpha, else NaN),
        `first_share` and `lasting_share` (these over `final_step`), and of the last step `value`,
        `null_mean`, `null_sd`, `q` and `smallest_cluster`.

    Raises:
        InputError: for several values of one layer and step, such as two features in one frame.

    What it does not show: when the clusters began. A faint effect passes some tests and fails
    others, so that the truth lies between `first_step` and `lasting_step`, or before.
    """
    tested = frame.loc[frame["metric"] == metric]
    if tested.duplicated(["layer", "step"]).any():
        raise InputError(
            expected=f"one {metric} a layer and step",
            got="several",
            fix="Keep one model, feature and null: frame[frame['feature'] == 'qk'].",
        )
    rows = []
    for layer, part in tested.groupby("layer"):
        part = part.sort_values(by="step")
        clear, steps = (part["q"] <= alpha).to_numpy(bool), part["step"].to_numpy(int)
        unclear = np.flatnonzero(~clear)
        start = unclear[-1] + 1 if len(unclear) else 0
        first = steps[clear][0] if clear.any() else np.nan
        lasting = steps[start] if start < len(steps) - 1 else np.nan
        end = max(final_step or steps[-1], 1)
        last = part.iloc[-1]
        at_last = (frame["step"] == last["step"]) & (frame["layer"] == layer)
        sizes = frame.loc[at_last & (frame["metric"] == "smallest_cluster"), "value"]
        rows.append(
            {
                "layer": layer,
                "first_step": first,
                "lasting_step": lasting,
                "first_share": first / end,
                "lasting_share": lasting / end,
                "smallest_cluster": sizes.iloc[0] if len(sizes) else np.nan,
            }
            | {name: last[name] for name in ("value", "null_mean", "null_sd", "q")}
        )
    return pd.DataFrame(rows)


def judge_hypotheses(
    layers: pd.DataFrame,
    transitions: pd.DataFrame,
    *,
    specialisation: HypothesisVerdict | None = None,
) -> tuple[HypothesisVerdict, ...]:
    """Judge the study's three hypotheses.

    Args:
        layers: of `emergence_by_layer`.
        transitions: of `headspec.series.transition_tables.find_transitions` on the silhouette.
        specialisation: the verdict on the third hypothesis by interventions, of
            `cluster_mechanism.judge_specialisation`, where it is there.

    Returns:
        Early bias, late optimisation and task-specific specialisation, each supported, not
        supported or not decided. Early: more than half of all layers have lasting clusters from
        before the study's share of training, and rise gradually. Late: more than half have their
        first and lasting clusters after the study's share, and rise in a sudden jump there. Not
        decided: only the steps or only the manner fit, for most of the layers that end clustered.
        The third needs interventions and is never decided by weights: without `specialisation` it
        is not decided.
    """
    found = layers.dropna(subset=["lasting_step"])
    changes = transitions.set_index("layer").reindex(found["layer"])
    sudden = (changes["kind"] == "sudden").to_numpy(bool)
    gradual = (changes["kind"] == "gradual").to_numpy(bool)
    rising_here = (
        (changes["jump_size"] > 0).to_numpy(bool)
        & (changes["jump_after"].to_numpy(float) >= found["first_step"].to_numpy(float))
        & (changes["jump_before"].to_numpy(float) <= found["lasting_step"].to_numpy(float))
    )
    first, lasting = (found[f"{name}_share"].to_numpy(float) for name in ("first", "lasting"))

    def judge(certain: np.ndarray, possible: np.ndarray, manner: np.ndarray) -> Verdict:
        if (certain & manner).sum() * 2 > len(layers):
            return "supported"
        return "not decided" if possible.sum() * 2 > len(found) else "not supported"

    detail = _evidence(layers, found, sudden)
    return (
        HypothesisVerdict(
            f"Early architectural bias: clusters are visible within the first {EARLY:.0%} of "
            "training and are refined gradually.",
            judge(lasting < EARLY, first < EARLY, gradual),
            detail,
        ),
        HypothesisVerdict(
            f"Late-stage optimisation: clusters emerge after {LATE:.0%} of training, in a sudden "
            "transition.",
            judge(first > LATE, lasting > LATE, sudden & rising_here),
            detail,
        ),
        specialisation or _UNDECIDED,
    )


def _evidence(layers: pd.DataFrame, found: pd.DataFrame, sudden: np.ndarray) -> str:
    count = f"{len(found)} of {len(layers)} layers end clustered more clearly than the null"
    if found.empty:
        return f"{count}."
    when = ", ".join(
        f"layer {layer} from step {step}" + (" (before training)" if step == 0 else "")
        for layer, step in found[["layer", "lasting_step"]].astype(int).to_numpy()
    )
    return f"{count} ({when}); {sudden.sum()} of these silhouettes change suddenly."


def describe_findings(layers: pd.DataFrame, transitions: pd.DataFrame) -> list[str]:
    """Plain sentences on each layer: the silhouette at the last step, its null, and when it rose.

    The layer that stands highest above its null comes first.

    Args:
        layers: of `emergence_by_layer`.
        transitions: of `find_transitions`.
    """
    changes = {row["layer"]: row for row in transitions.to_dict("records")}
    rows = layers.to_dict("records")
    sentences = []
    for row in sorted(rows, key=lambda row: row["null_mean"] - row["value"]):
        sentence = (
            f"Layer {int(row['layer'])}: silhouette {row['value']:.3f} at the last step, its null "
            f"{row['null_mean']:.3f} ± {row['null_sd']:.3f} (q = {row['q']:.2g}): "
        )
        if np.isnan(row["lasting_step"]):
            sentence += "not distinguishable from the null."
        else:
            sentence += f"clearer than the null from step {int(row['lasting_step'])} on."
        if row["smallest_cluster"] == 1:
            sentence += " One cluster is a single head."
        change = changes[row["layer"]]
        manner = change["reason"] if change["kind"] == "none" else change["kind"]
        rule = "sudden" if change["exceeds_threshold"] else "not sudden"
        sentence += (
            f" Its largest change is at steps {change['step_before']} to {change['step_after']}: "
            f"{manner} (by the study's rule of {change['threshold']:g}: {rule})."
        )
        sentences.append(sentence)
    return sentences


def compare_verdicts(frame: pd.DataFrame, *, alpha: float = 0.05) -> pd.DataFrame:
    """The study's words for every silhouette and separation ratio, next to the null's verdict.

    Args:
        frame: as `add_q_values` returns it.
        alpha: false discovery rate to accept.

    Returns:
        One row a layer and step: `layer`, `step`, `silhouette`, `study_silhouette`,
        `separation_ratio`, `study_separation`, `null_mean`, `q`, `null_verdict`.
    """
    tested = frame[frame["metric"] == "silhouette"].set_index(["layer", "step"]).sort_index()
    ratios = frame[frame["metric"] == "separation_ratio"].set_index(["layer", "step"])["value"]
    ratios = ratios.reindex(tested.index)
    clear = tested["q"] <= alpha
    return pd.DataFrame(
        {
            "silhouette": tested["value"],
            "study_silhouette": tested["value"].map(study_word),
            "separation_ratio": ratios,
            "study_separation": ratios.map(study_separation_word),
            "null_mean": tested["null_mean"],
            "q": tested["q"],
            "null_verdict": np.where(clear, "clustered", "not distinguishable"),
        }
    ).reset_index()
