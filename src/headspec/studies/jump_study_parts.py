"""Sections of the jumps study's page: which figures and tables each shows, and their headings."""

import re
from collections.abc import Container

from headspec.studies.jump_hypotheses import RULES

TITLES = {
    "runs": "Means over seeds ± half of a 95 % interval (t)",
    "metrics": "Jumps by measure of dimensionality, all seeds",
    "layers": "Jumps by layer, all measures and seeds",
    "shares": "Early, mid and late jumps, and how many an even spread would have",
    "types": "Types of jumps",
    "coordination": "Jumps that meet a jump of another layer",
    "losses": "The loss across jumps, beside matched steps without a jump",
    "effects": "Change across jumps less change across their controls",
    "candidates": "The same for the largest changes that are no jumps",
    "representatives": "Moments that the second passes looked into",
    "claims": "Every published claim",
    "published_metrics": "Jumps of the published runs by the published and the calibrated rule",
    "published_plan": "The jumps behind the published checkpoints",
}
"""Tables that a report shows, and their headings."""

PARTS = {
    "Jumps": (("transformer_jump_overview", "cnn_mlp_layer_analysis"), ("runs", "metrics")),
    "Architectures": (("cnn_mlp_comprehensive_comparison",), ("layers",)),
    "When": (
        ("early_late_comprehensive", "early_late_by_architecture", "transformer_early_vs_late"),
        ("shares",),
    ),
    "Curves": (("dimensionality_transformer", "dimensionality_cnn", "dimensionality_mlp"), ()),
    "Layers together": (("coordination",), ("coordination",)),
    "The loss": (("losses", "class_accuracy"), ("losses",)),
    "Types": (("types",), ("types",)),
    "At jumps": (("effects", "similarity"), ("effects", "candidates")),
    "Inside": (
        ("attention", "attention_heads", "entropy_evolution", "filters", "activations"),
        ("representatives",),
    ),
    "Published claims": (
        ("published_early_late", "published_stable_rank"),
        ("claims", "published_metrics", "published_plan"),
    ),
}
"""Sections of the page: figures and tables of each, shown as far as there are any."""

TEXTS = {
    "At jumps": re.sub(r"\n(?=\d\. )", "\n\n", RULES),  # a paragraph a hypothesis
    "Inside": "The largest jump that the second passes looked into; where none was detected, the "
    "largest change, which is no jump. One example each: what differs across all of them is in the "
    "section before.",
    "Published claims": "Every claim recomputed from the published data. published_claims.csv also "
    "has what the published arithmetic gives, and the reason for each status.",
}
"""What stands above the figures of a section."""

_LEFT_OUT = "Left out: the published data are not here. --published FOLDER names them."


def section_text(title: str, tables: Container[str]) -> str:
    """What stands above the figures of a section.

    Args:
        title: one of `PARTS`.
        tables: names of the tables there are.
    """
    if title == "Published claims" and "claims" not in tables:
        return _LEFT_OUT
    return TEXTS.get(title, "")
