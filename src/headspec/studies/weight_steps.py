"""Which checkpoints the study of weight statistics looks at, and how much they are to read."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from headspec.checkpoints.micro import SIZES
from headspec.checkpoints.suite import CheckpointSuite
from headspec.errors import InputError

PUBLISHED_STEPS = (
    *(0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000),
    *(2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000, 143_000),
)
"""The study's twenty log-spaced steps of Pythia."""

_FEWEST = 5
_SIZE = re.compile(r"\d[\d.]*[mbk](-[\w-]+)?", re.IGNORECASE)  # 70m, 1.4b, 160m-deduped


def choose_common_steps(
    available: Sequence[int], measured: Sequence[int]
) -> tuple[tuple[int, ...], str]:
    """Steps that have both weights and capabilities, and a sentence on how they were chosen.

    A suite as long as Pythia is looked at on the study's twenty log-spaced steps. Where one of them
    has no weights or no capabilities, the common step nearest on the log axis takes its place, so
    that no capability is interpolated; two steps may share a stand-in. A suite that ends earlier
    (the embedded one) is looked at on all common steps.

    Args:
        available: steps with weights, ascending.
        measured: steps with capabilities.

    Returns:
        The steps, ascending, and the sentence.

    Raises:
        InputError: fewer than five steps have both.

    Example:
        >>> choose_common_steps((0, 1, 2, 4, 8, 16), (0, 1, 4, 8, 16, 64))[0]
        (0, 1, 4, 8, 16)
    """
    common = sorted(set(available) & set(measured))
    if len(common) < _FEWEST:
        raise InputError(
            expected=f"{_FEWEST} steps or more with both weights and capabilities",
            got=f"{common} of weights at {list(available)[:6]} ... and capabilities at "
            f"{list(measured)[:6]} ...",
            fix="Evaluate more checkpoints, or give the evaluations of this suite.",
        )
    if common[-1] < PUBLISHED_STEPS[-1] / 2:
        return tuple(common), f"All {len(common)} steps with weights and capabilities are used."
    logs = np.log1p(common)
    chosen = {
        step: common[int(np.abs(logs - math.log1p(step)).argmin())] for step in PUBLISHED_STEPS
    }
    steps = tuple(sorted(set(chosen.values())))
    inexact = {step: stand_in for step, stand_in in chosen.items() if step != stand_in}
    words = f"{len(chosen) - len(inexact)} of the study's {len(chosen)} steps are in both"
    if inexact:
        pairs = ", ".join(f"{step} → {stand_in}" for step, stand_in in inexact.items())
        words += f"; the nearest common ones stand for the others ({pairs})"
    return steps, f"{words}: {len(steps)} different steps."


def matrix_bytes(suite: CheckpointSuite, step: int) -> int:
    """Bytes of all matrices of one step, read from the files' headers alone.

    What a sweep of `WeightMeasure` reads of every step, about: from the Hub the first time, from
    the cache afterwards. Buffers (masks) and vectors are not read.

    Args:
        suite: the checkpoints.
        step: one of its steps.
    """
    source = suite.source
    total = 0
    for file in source.weight_files(step):
        if not file.endswith(".safetensors"):  # read whole, whatever is asked for
            total += source.files(step)[file].size
            continue
        specs = source.header(step, file).tensors.values()
        total += sum(spec.stop - spec.start for spec in specs if len(spec.shape) == 2)
    return total


def suite_names(text: str) -> tuple[str, ...]:
    """Names of suites out of one line, parted by commas.

    `"micro"` stands for the embedded suite in all its sizes. After a name with an owner, a size
    alone takes the place of what follows the last hyphen.

    Args:
        text: such as `"micro"`, `"micro-small,micro-tiny"` or `"EleutherAI/pythia-70m,410m"`.

    Example:
        >>> suite_names("EleutherAI/pythia-70m,410m")
        ('EleutherAI/pythia-70m', 'EleutherAI/pythia-410m')
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if parts == ["micro"]:
        return SIZES
    stem = parts[0].rpartition("-")[0] if parts and "/" in parts[0] else ""
    names = [f"{stem}-{part}" if stem and _SIZE.fullmatch(part) else part for part in parts]
    return tuple(dict.fromkeys(names))
