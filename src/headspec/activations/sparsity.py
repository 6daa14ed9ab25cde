"""How sparse activations are: shares of silence, Hoyer, Treves and Rolls, dead units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headspec.activations.samples import check_samples
from headspec.errors import InputError
from headspec.results import tidy
from headspec.weights.batch_frames import spread

PER_UNIT = ("inactive_share", "hoyer", "treves_rolls")
OVERALL = ("overall_inactive_share", "population_hoyer", "population_treves_rolls", "dead_share")


@dataclass(frozen=True, kw_only=True)
class ActivationSparsity:
    """How sparsely units respond, each over the samples and all of them to one sample.

    For n responses r with mean absolute value m1 and mean square m2, both indices are 0 where all
    are equally strong and 1 where a single one is not 0:

    - Hoyer: (sqrt n - sum |r| / sqrt(sum r^2)) / (sqrt n - 1) = (1 - m1 / sqrt m2) scaled.
    - Treves and Rolls (as Vinje and Gallant turned it): (1 - m1^2 / m2) / (1 - 1 / n).

    Attributes:
        inactive_share: share of the samples for which a unit is at or below `threshold`.
        hoyer, treves_rolls: over samples, one number a unit ("lifetime sparseness"); nan for a
            unit that is 0 throughout, and with a single sample.
        dead: units that no sample brings above `threshold`.
        overall_inactive_share: share of all entries at or below `threshold`.
        population_hoyer, population_treves_rolls: over units, mean of the samples for which any
            unit responds.
        threshold: what counts as silent.
        n_samples: rows.
    """

    inactive_share: Float[np.ndarray, " unit"]
    hoyer: Float[np.ndarray, " unit"]
    treves_rolls: Float[np.ndarray, " unit"]
    dead: Bool[np.ndarray, " unit"]
    overall_inactive_share: float
    population_hoyer: float
    population_treves_rolls: float
    threshold: float
    n_samples: int

    @property
    def dead_share(self) -> float:
        """Share of the units that are dead."""
        return float(self.dead.mean())

    def to_frame(self) -> pd.DataFrame:
        """One row a unit and metric, then the overall ones; extra columns `unit`, `threshold`."""
        units = np.arange(len(self.dead))
        frames = [
            pd.DataFrame({"unit": units, "metric": name, "value": getattr(self, name)})
            for name in PER_UNIT
        ]
        overall = {"metric": OVERALL, "value": [getattr(self, name) for name in OVERALL]}
        frames.append(pd.DataFrame(overall))
        frame = pd.concat(frames, ignore_index=True).astype({"unit": "Int64"})
        return tidy(frame, n=self.n_samples).assign(threshold=self.threshold)

    def summary(self) -> str:
        """The shares in words."""
        return (
            f"{len(self.dead)} units, {self.n_samples} samples: "
            f"{self.overall_inactive_share:.1%} of the activations at or below "
            f"{self.threshold:g}, {int(self.dead.sum())} units dead. Over samples: Hoyer "
            f"{spread(self.hoyer)}, Treves-Rolls {spread(self.treves_rolls)}. Over units: Hoyer "
            f"{self.population_hoyer:.3f}, Treves-Rolls {self.population_treves_rolls:.3f}."
        )


def activation_sparsity(
    activations: Float[Tensor, "sample unit"], *, threshold: float | int = 0.0
) -> ActivationSparsity:
    """How sparse activations are, per unit over samples and over units per sample.

    Formulas are with `ActivationSparsity`. References to hold the figures against: units whose
    input is Gaussian around 0 have, after a ReLU, a share of .5, Hoyer 1 - 1/sqrt(pi) = .436 and
    Treves-Rolls 1 - 1/pi = .682 (many samples); before it, .202 and 1 - 2/pi = .363.

    Args:
        activations: any floating dtype and device, computed in float64. Of convolution maps give
            each position as a sample, `maps.movedim(1, -1).flatten(0, 2)`.
        threshold: at or below counts as silent. 0 suits a ReLU; a GELU dips to -.17 and rests
            near 0, and without a nonlinearity the share at or below 0 says nothing of sparsity.

    Returns:
        An `ActivationSparsity`.

    What it does not show: that a sparse unit is selective for anything (`class_selectivity`), or
    that a silent unit is useless. Both indices read absolute values: signs do not enter. A unit
    counts as dead for these samples only.

    Raises:
        InputError: not `sample unit`, or NaN or infinite entries.

    References:
        Hoyer 2004, JMLR 5:1457. Treves and Rolls 1991, Network 2:371. Vinje and Gallant 2000,
        Science 287:1273.

    Example:
        >>> import torch
        >>> found = activation_sparsity(torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 0.0]]))
        >>> found.inactive_share.round(3).tolist(), found.dead.tolist()
        ([1.0, 0.333], [True, False])
        >>> found.treves_rolls.round(3).tolist()
        [nan, 0.5]
    """
    if not np.isfinite(threshold):
        raise InputError(expected="a finite threshold", got=f"{threshold}", fix="0 for a ReLU.")
    with torch.no_grad():
        values = check_samples(activations)
        silent = values <= threshold
        over_samples = _indices(values, 0)
        over_units = [_mean_defined(index) for index in _indices(values, 1)]
        return ActivationSparsity(
            inactive_share=silent.double().mean(0).cpu().numpy(),
            hoyer=over_samples[0].cpu().numpy(),
            treves_rolls=over_samples[1].cpu().numpy(),
            dead=silent.all(0).cpu().numpy(),
            overall_inactive_share=float(silent.double().mean()),
            population_hoyer=over_units[0],
            population_treves_rolls=over_units[1],
            threshold=float(threshold),
            n_samples=values.shape[0],
        )


def _indices(values: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Hoyer and Treves-Rolls along an axis; nan where all is 0 or nothing is to compare."""
    n = values.shape[axis]
    sizes = values.abs()
    peak = sizes.amax(axis, keepdim=True)
    sizes = sizes / torch.where(peak > 0, peak, torch.nan)  # squares neither overflow nor vanish
    first, second = sizes.mean(axis), sizes.square().mean(axis)
    if n == 1:
        return torch.full_like(first, torch.nan), torch.full_like(first, torch.nan)
    hoyer = (1 - first / second.sqrt()) * n**0.5 / (n**0.5 - 1)
    return hoyer.clamp(0, 1), ((1 - first.square() / second) / (1 - 1 / n)).clamp(0, 1)


def _mean_defined(values: Tensor) -> float:
    known = values[~values.isnan()]
    return float(known.mean()) if known.numel() else float("nan")
