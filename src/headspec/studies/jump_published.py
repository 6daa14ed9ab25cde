"""The published data of the study of dimensionality jumps: its measurements, and its jumps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from headspec.errors import InputError
from headspec.results import tidy

METRICS = {
    "stable_rank": "published_stable_rank",
    "participation_ratio": "participation_ratio_sigma",
    "effective_rank_90": "components_90",
    "nuclear_norm_ratio": "nuclear_ratio",
}
"""Metrics as the published files name them, and what they are."""

PUBLISHED_RUNS = ("transformer_deep_mnist", "cnn_deep_mnist", "mlp_narrow_mnist")
"""The three runs whose measurements are published, of the 55 whose jumps are."""

N_STEPS = 2000
"""Updates of every training."""

MEASURED_EVERY = 5
"""Updates between two measurements: the published phase of a jump leaves this factor out."""

GUARD = 1e-10
"""The constant that the published stable rank adds to its denominator."""


def load_ndt_run(path: str | Path) -> pd.DataFrame:
    """The dimensionalities that one of the published runs logged.

    Metrics are named for what they are. The published "stable rank" divides |A|_F^2 by the square
    of `torch.norm(A, p=2)` plus 1e-10, and that norm of a matrix is the Frobenius norm again:

        published_stable_rank = |A|_F^2 / (|A|_F^2 + 1e-10)

    which is 1 less 1e-10 / |A|_F^2, whatever the rank of A. The published participation ratio is
    that of singular values, (sum s)^2 / sum s^2; effective_rank_90 counts components that hold
    90 % of the energy; nuclear_norm_ratio is sum s / s_1.

    Args:
        path: such as `ndt-phase1/cnn_deep_mnist.json`.

    Returns:
        The dimensionality frame: tidy rows with `layer_name` and `resolution`, one a measurement,
        layer and metric. `step` counts updates (the study's `step` of a jump counts measurements).
        `resolution` is the change below which nothing is meant: activations were float32, so
        1.2e-7 of the value, and 1 for counts: where 90 % of the energy lie just at the edge of a
        component, any change of the spectrum changes the count by one.

    Raises:
        InputError: no such file, or another one.

    **What it does not show.** The batches: as far as can be seen each measurement was made on the
    training batch of its update, and how much of a change is the batch's these files do not tell.
    """
    content = _read_run(path)
    names: list[str] = []
    rows = []
    for measurement in content["measurements"]:
        for layer_name, metrics in measurement["layer_metrics"].items():
            if layer_name not in names:
                names.append(layer_name)
            rows += [
                {
                    "step": measurement["step"],
                    "layer": names.index(layer_name),
                    "layer_name": layer_name,
                    "metric": METRICS.get(metric, metric),
                    "value": value,
                }
                for metric, value in metrics.items()
            ]
    frame: Any = tidy(rows, model=_run_name(content))
    counted = frame["metric"] == "components_90"
    fine = frame["value"].abs() * float(np.finfo(np.float32).eps)
    return frame.assign(resolution=fine.where(~counted, 1.0))


def load_ndt_log(path: str | Path) -> pd.DataFrame:
    """Loss and gradient norm of one of the published runs, at its measurements.

    Args:
        path: as in `load_ndt_run`.

    Returns:
        Columns `model step loss gradient_norm`. The loss is that of one training batch.

    Raises:
        InputError: no such file, or another one.
    """
    content = _read_run(path)
    return pd.DataFrame(
        {
            "model": _run_name(content),
            "step": [one["step"] for one in content["measurements"]],
            "loss": [one["loss"] for one in content["measurements"]],
            "gradient_norm": [one["grad_norm"] for one in content["measurements"]],
        }
    )


def load_published_jumps(path: str | Path) -> pd.DataFrame:
    """The 2,991 published jumps, with the phases that they have when updates are counted.

    Args:
        path: `all_jumps_detailed.csv`.

    Returns:
        One row a jump with the columns of a jumps frame (`model` is the run, `metric`
        "published_stable_rank", `step_before` and `step` the measurements on both sides of it in
        updates, `magnitude`, `direction`, `phase`, `speed`, `layer_name`), and
        `architecture` ("transformer", "cnn", "mlp"), `arch_name`, `dataset`, `index` (the
        published `step`: the number of the measurement before the jump), `published_phase`
        (`index` / 2000, at most .1995) and `cluster`. `phase` is `step_before` / 2000: the study's
        choice of the measurement, counted in updates.

    Raises:
        InputError: no such file, or one without these columns.

    **What it does not show.** Jumps of a dimensionality: see `load_ndt_run` for what jumped.
    """
    columns = {"step", "magnitude", "speed", "direction", "phase", "layer", "experiment"}
    columns |= {"arch_name", "dataset", "cluster"}
    try:
        table: Any = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(
            expected="the table of published jumps, all_jumps_detailed.csv",
            got=f"{path}, which cannot be read ({error})",
            fix="Give the path of that file.",
        ) from error
    if not columns <= set(table):
        raise InputError(
            expected=f"columns {', '.join(sorted(columns))}",
            got=f"{', '.join(map(str, table))} in {path}",
            fix="Give all_jumps_detailed.csv as it was published.",
        )
    index = table["step"].to_numpy(int)
    signs = np.where(table["direction"] == "increase", 1.0, -1.0)
    magnitude = table["magnitude"].to_numpy(float)
    rows = {
        "model": table["experiment"].to_numpy(),
        "step": (index + 1) * MEASURED_EVERY,
        "metric": ["published_stable_rank"] * len(table),
        "value": signs * magnitude,
        "layer_name": table["layer"].to_numpy(),
        "step_before": index * MEASURED_EVERY,
        "magnitude": magnitude,
        "direction": table["direction"].to_numpy(),
        "phase": index * MEASURED_EVERY / N_STEPS,
        "speed": table["speed"].to_numpy(float),
        "architecture": [name.split("_")[0] for name in table["arch_name"]],
        "arch_name": table["arch_name"].to_numpy(),
        "dataset": table["dataset"].to_numpy(),
        "index": index,
        "published_phase": table["phase"].to_numpy(float),
        "cluster": table["cluster"].to_numpy(int),
    }
    return tidy(pd.DataFrame(rows))


def _read_run(path: str | Path) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).read_text())
        known = {"measurements", "arch_name", "dataset_name"} <= set(content)
        known = known and all("layer_metrics" in one for one in content["measurements"])
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            expected="a published run, such as cnn_deep_mnist.json",
            got=f"{path}, which cannot be read ({error})",
            fix="Give the path of that file.",
        ) from error
    if not known:
        raise InputError(
            expected="a published run: measurements with layer_metrics, arch_name, dataset_name",
            got=f"other content in {path}",
            fix="Give a file such as cnn_deep_mnist.json as it was published.",
        )
    return content


def _run_name(content: dict[str, Any]) -> str:
    return f"{content['arch_name']}_{content['dataset_name']}"
