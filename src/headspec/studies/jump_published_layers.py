"""Claims of the published study about layers, magnitudes and coordination, recomputed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from headspec.studies.jump_published_claims import FLOAT32, claim

TRANSFORMER, CNN, MLP = "transformer_deep_mnist", "cnn_deep_mnist", "mlp_narrow_mnist"
_NORMS = (
    "The differences of 1e-10 / |A|² are largest where activations are smallest; no activation of "
    "these layers was compared with another."
)


def layer_claims(jumps: pd.DataFrame) -> list[dict[str, str]]:
    """Claims about the layers in which jumps happen.

    Args:
        jumps: of `load_published_jumps`.
    """
    rows: Any = jumps
    family = rows["architecture"]
    one, every = rows["model"] == TRANSFORMER, family == "transformer"
    ends = rows["layer_name"].str.rsplit(".", n=1).str[-1]
    shares = ", ".join(
        f"{name} {(ends[one] == name).mean():.0%} ({(ends[every] == name).mean():.0%})"
        for name in ("linear2", "linear1", "input_proj", "fc")
    )
    by_block = rows.loc[one & (ends == "linear2"), "layer_name"].value_counts().sort_index()
    cnn = _layer_shares(rows.loc[rows["model"] == CNN])
    mlp = _layer_shares(rows.loc[rows["model"] == MLP])
    other = rows.loc[(family == "cnn") & (rows["model"] != CNN)]
    others = (other["layer_name"] == "conv_layers.0").groupby(other["model"]).mean()
    covered = rows.loc[rows["model"].isin([CNN, MLP])].groupby("model")["layer_name"].nunique()
    return [
        claim(
            "All jumps of the transformer are in attention output layers (linear2), none in "
            "linear1.",
            "100 % and 0 % of 5 chosen jumps",
            "100 % and 0 % of the 5",
            corrected=f"of the {int(one.sum())} of this training (of all transformers): {shares}",
            reason="linear1 and linear2 are the two feed-forward layers of PyTorch's encoder; no "
            "attention layer was measured, and the five were chosen by magnitude, in norms that "
            "are smallest at linear2.",
            status="refuted",
        ),
        claim(
            "transformer.layers.5.linear2 is the most active.",
            "3 of 5, layers 3 and 2 one each",
            "3 of 5, layers 3 and 2 one each",
            corrected=f"linear2 of layers 0 to 5: {', '.join(map(str, by_block))}",
            reason="25 against 17 to 24: the five chosen ones do not show it.",
            status="corrected",
        ),
        claim(
            "The first convolution dominates in the CNN.",
            "conv_layers.0 23 (51 %), conv_layers.3 14 (31 %), later 8 (18 %)",
            cnn,
            corrected="conv_layers.0 in the other eight CNNs: "
            f"{others.min():.0%} to {others.max():.0%}",
            reason=f"The shares are those of the table. {_NORMS}",
            status="cannot be decided",
        ),
        claim(
            "Jumps of the MLP are distributed over its layers.",
            "network.8 5 (28 %), network.6 4 (22 %), network.0 to 4 9 (50 %)",
            mlp,
            corrected="18 jumps in 5 layers: 3.6 each are expected of even shares",
            reason=f"The shares are those of the table. {_NORMS}",
            status="cannot be decided",
        ),
        claim(
            "All five layers of CNN and MLP jump.",
            "5 of 5 and 5 of 5",
            " and ".join(f"{covered[run]} of 5" for run in (CNN, MLP)),
            corrected="5 of 5 in white noise as well",
            reason="|z| > 2 marks differences in every series that varies.",
            status="refuted",
        ),
        _magnitude_claim(rows),
    ]


def coordination_claim(observed: float, null: float, p: float) -> dict[str, str]:
    """What became of "mean coordination: 0.0 %".

    Args:
        observed: share of the transformer's jumps that meet a jump of another layer.
        null: the same when the layers' jumps are shifted against each other.
        p: how often the null reaches what was observed.
    """
    return claim(
        "Jumps of the transformer's layers are not coordinated.",
        "mean coordination 0.0 %",
        "of the five chosen jumps, two meet another layer's at the same measurement (index 111: "
        "layers 3 and 4; 343: layers 2 and 5)",
        corrected=f"{observed:.1%} of all jumps meet another layer's; {null:.1%} by chance, "
        f"p = {p:.3f}",
        reason="Five jumps were looked at, and two of them do. Layers of a network see the same "
        "batch and the same update.",
        status="refuted",
    )


def _magnitude_claim(jumps: Any) -> dict[str, str]:
    means = jumps.groupby("model")["magnitude"].mean()
    largest = jumps.groupby("architecture")["magnitude"].max()
    return claim(
        "Mean magnitudes are alike; architectures differ in frequency, not size.",
        "CNN 2.28e-13, MLP 1.95e-13",
        f"CNN {means[CNN]:.2e}, MLP {means[MLP]:.2e}",
        corrected=f"at most {largest.max() / FLOAT32:.1%} of what float32 resolves at 1 "
        f"({FLOAT32:.1e}); means of trainings range from {means.min():.1e} to {means.max():.1e}",
        reason="A magnitude of 2e-13 in a rank of 1 is no size of anything; it scales with the "
        "inverse square of the activations.",
        status="refuted",
    )


def _layer_shares(jumps: Any) -> str:
    counts = jumps["layer_name"].value_counts()
    return ", ".join(
        f"{name} {count} ({count / np.sum(counts):.0%})" for name, count in counts.items()
    )
