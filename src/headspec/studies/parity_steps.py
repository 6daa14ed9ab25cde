"""The steps of the parity study, and what stands for them in a suite that lacks some."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from headspec.checkpoints.steps import nearest_steps

PUBLISHED_STEPS = (
    *(1000, 2000, 4000, 8000, 16_000, 32_000, 64_000),
    *(128_000, 256_000, 512_000, 1_000_000),
)
"""The study's eleven steps. Pythia ends at 143,000: the last three do not exist."""

_FEWEST = 6  # different steps, below which there is no timeline to speak of


def match_published_steps(available: Sequence[int]) -> pd.DataFrame:
    """Which step of a suite stands for each of the study's eleven.

    Where at least six different steps of the suite are nearest to them, steps are matched by
    number: on Pythia 1,000 to 128,000 exist and the last three fall together on 143,000. A suite
    much shorter than that (the embedded one) is matched by share of training instead.

    Args:
        available: the steps of the suite, ascending.

    Returns:
        One row a published step: `published_step`, `published_share` (of 1,000,000), `step`,
        `share` (of the suite's last step), `matched_by` (`"step"` or `"share"`), `exact`.
    """
    end = available[-1]
    by_step = [nearest_steps(step, available, n=1)[0] for step in PUBLISHED_STEPS]
    long = len(set(by_step)) >= _FEWEST
    shares = np.array(PUBLISHED_STEPS) / PUBLISHED_STEPS[-1]
    by_share = [nearest_steps(round(share * end), available, n=1)[0] for share in shares]
    steps = np.array(by_step if long else by_share)
    return pd.DataFrame(
        {
            "published_step": PUBLISHED_STEPS,
            "published_share": shares,
            "step": steps,
            "share": steps / max(end, 1),
            "matched_by": "step" if long else "share",
            "exact": steps == np.array(PUBLISHED_STEPS),
        }
    )


def choose_study_steps(available: Sequence[int]) -> tuple[tuple[int, ...], str]:
    """The steps to measure, and a sentence on how they stand to the study's eleven.

    Args:
        available: the steps of the suite, ascending.

    Returns:
        The matched steps, each once, of a suite that is long enough (see
        `match_published_steps`); all its steps otherwise.
    """
    matched = match_published_steps(available)
    if "share" in set(matched["matched_by"]):
        words = (
            f"The suite ends at step {available[-1]}, far before the study's 1,000,000: all its "
            f"{len(available)} steps are used, and parts of training stand for the study's steps."
        )
        return tuple(available), words
    inexact = matched.loc[~matched["exact"]]
    steps = tuple(sorted(set(matched["step"].tolist())))
    if inexact.empty:
        return steps, "All eleven steps of the study exist and are used."
    pairs = ", ".join(
        f"{row['published_step']} → {row['step']}" for row in inexact.to_dict("records")
    )
    words = f"Steps of the study that do not exist were replaced by the nearest ones ({pairs}): "
    return steps, words + f"{len(steps)} different steps are left of eleven."
