"""What guessing scores on common evaluation tasks: one over the number of choices."""

from __future__ import annotations

import fnmatch
import math
from types import MappingProxyType

CHANCE: MappingProxyType[str, float] = MappingProxyType(
    {
        "lambada*": 0.0,  # the last word, out of the whole vocabulary (Paperno et al. 2016)
        "piqa": 1 / 2,  # two solutions (Bisk et al. 2020)
        "winogrande": 1 / 2,  # two referents (Sakaguchi et al. 2020)
        "wsc": 1 / 2,  # yes or no; one constant answer scores .635, the other .365 (SuperGLUE)
        "wsc273": 1 / 2,  # two referents (Levesque et al. 2012)
        "arc_easy": 1 / 4,  # nearly always four choices (Clark et al. 2018)
        "arc_challenge": 1 / 4,
        "sciq": 1 / 4,  # one answer and three distractors (Welbl et al. 2017)
        "logiqa": 1 / 4,  # four choices (Liu et al. 2020)
        "hendrycksTest-*": 1 / 4,  # MMLU, four choices (Hendrycks et al. 2021)
        "mmlu_pro*": math.nan,  # up to ten choices, fewer in some questions (Wang et al. 2024)
        "mmlu*": 1 / 4,
        "hellaswag": 1 / 4,  # four endings (Zellers et al. 2019)
        "openbookqa": 1 / 4,  # four choices (Mihaylov et al. 2018)
        "commonsense_qa": 1 / 5,  # five choices (Talmor et al. 2019)
        "mathqa": 1 / 5,  # five options (Amini et al. 2019)
        "race": 1 / 4,  # four options (Lai et al. 2017)
        "social_iqa": 1 / 3,  # three answers (Sap et al. 2019)
        "anli_r*": 1 / 3,  # entailed, neutral or contradicted (Nie et al. 2020)
        "wic": 1 / 2,  # the same sense or not (SuperGLUE)
        "boolq": 1 / 2,  # yes or no (Clark et al. 2019)
        "rte": 1 / 2,  # entailed or not (SuperGLUE)
        "copa": 1 / 2,  # two alternatives (Roemmele et al. 2011)
        "blimp*": 1 / 2,  # the better of two sentences (Warstadt et al. 2020)
        "swag": 1 / 4,  # four endings (Zellers et al. 2018)
        "crows_pairs*": 1 / 2,  # the stereotyped of two sentences (Nangia et al. 2020)
    }
)
"""Accuracy of guessing, by pattern of the task's name; of several that fit, the first."""

_ACCURACIES = ("acc", "acc_norm", "acc_bytes", "pct_stereotype")


def chance_level(task: str, measure: str = "acc") -> float:
    """Value of a measure for random guessing.

    Args:
        task: name as lm-eval has it, such as `"hendrycksTest-anatomy"`.
        measure: `"acc"`, `"acc_norm"` (answers compared per character) or `"pct_stereotype"`.

    Returns:
        One over the number of choices, 0 where the answer is free text; NaN for other tasks and
        for measures such as `"ppl"`, where guessing has no fixed value: take the first checkpoint.

    What it does not show: what an untrained model scores. It does not guess at random: it prefers
    some answers by length or wording on every question, and the right answers need not be balanced.
    Pythia-70m scores .272 on arc_easy and .194 on sciq at step 0, where chance is .25.

    Example:
        >>> from headspec.checkpoints.chance_levels import chance_level
        >>> chance_level("piqa"), chance_level("hendrycksTest-anatomy", "acc_norm")
        (0.5, 0.25)
    """
    if measure.partition(",")[0] not in _ACCURACIES:
        return math.nan
    if task in CHANCE:
        return CHANCE[task]
    return next((CHANCE[name] for name in CHANCE if fnmatch.fnmatchcase(task, name)), math.nan)
