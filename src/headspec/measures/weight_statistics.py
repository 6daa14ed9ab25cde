"""Statistics of every weight matrix of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from headspec.checkpoints.checkpoint import Checkpoint
from headspec.errors import InputError
from headspec.layouts.matrices import MATRICES
from headspec.results import tidy
from headspec.weights.circuits import ov_spectrum, qk_spectrum
from headspec.weights.drift import weight_change
from headspec.weights.marchenko_pastur import marchenko_pastur
from headspec.weights.power_law import fit_power_law
from headspec.weights.singular_values import singular_values
from headspec.weights.spectra import spectral_stats

OUTSIDE_LAYERS = ("embed", "unembed")
_CHANGES = ("cosine", "relative_change", "norm_growth", "left_angle", "right_angle")
_N_RANKS = 32


@dataclass(frozen=True)
class WeightMeasure:
    """Spectral statistics, tail exponents and change of every matrix, one layer in memory at once.

    Attributes:
        matrices: which, out of `"q" "k" "v" "o" "mlp_in" "mlp_gate" "mlp_out" "embed" "unembed"`;
            None: all that the model has (an unembedding tied to the embedding counts once).
        layers: which layers; None: all.
        per_head: also the QK and OV circuit of every head, through their low-rank factors.
        spectra: also singular values themselves, at about 32 log-spaced ranks.
        power_law: also the tail exponent of the eigenvalues of W^T W, and the number of singular
            values above the Marchenko-Pastur edge.
        changes: also the change since the previous checkpoint of the sweep, if there is one.

    Called with a checkpoint it gives a tidy frame. `metric` is `"{matrix}.{statistic}"`, also in
    the columns `matrix` and `statistic`; `n` is the number of singular values. Statistics: the
    fields of `spectral_stats` (`top_1_variance`, `top_10_variance`); `alpha`, `n_tail`, `ks`,
    `weighted_alpha` (alpha log10 of the largest eigenvalue) and `mp_spikes`; `cosine`,
    `relative_change`, `norm_growth`, `left_angle`, `right_angle` of `weight_change`. Rows of heads
    (matrix `"qk"` or `"ov"`) carry `head`; rows of `"singular_value"` carry `rank`, from 1.

    Each matrix is decomposed once, in float64, whatever its dtype, and all statistics share the
    values. Embeddings have no layer.

    What it does not show: norm gains and biases, which are not part of any matrix, scale what a
    matrix does; a statistic of a whole matrix can stay while its heads change places.

    Example:
        >>> import headspec as hs
        >>> measure = hs.WeightMeasure(matrices=("q", "o"), layers=(0,), per_head=False)
        >>> frame = measure(hs.open_suite("micro-tiny").checkpoint(0))
        >>> bool((frame["metric"] == "q.stable_rank").any())
        True
    """

    matrices: tuple[str, ...] | None = None
    layers: tuple[int, ...] | None = None
    per_head: bool = True
    spectra: bool = True
    power_law: bool = True
    changes: bool = True

    def __post_init__(self) -> None:
        known = (*MATRICES, *OUTSIDE_LAYERS)
        for name, chosen in (("matrices", self.matrices), ("layers", self.layers)):
            if chosen is None:
                continue
            if not isinstance(chosen, tuple) or len(set(chosen)) != len(chosen):
                raise InputError(
                    expected=f"{name} as a tuple of different ones, or None for all",
                    got=f"{name}={chosen!r}",
                    fix="For one: layers=(6,) or matrices=('q',).",
                )
        if unknown := [name for name in self.matrices or () if name not in known]:
            raise InputError(
                expected=f"matrices out of {', '.join(known)}",
                got=", ".join(map(str, unknown)),
                fix="Circuits of heads (qk, ov) come with per_head=True.",
            )

    def __call__(self, checkpoint: Checkpoint) -> pd.DataFrame:
        layers = range(checkpoint.n_layers) if self.layers is None else self.layers
        parts = [row for layer in layers for row in self._layer(checkpoint, layer)]
        parts += self._embeddings(checkpoint)
        if not parts:
            raise InputError(
                expected=f"matrices that {checkpoint.suite.name} has",
                got=f"matrices={self.matrices!r}",
                fix="mlp_gate exists in gated MLPs only; unembed only where it is not tied.",
            )
        frame = pd.concat(parts, ignore_index=True)
        frame["metric"] = frame["matrix"] + "." + frame["statistic"]
        if self.spectra:
            frame["rank"] = frame["rank"].astype("Int64")
        return tidy(frame, model=checkpoint.suite.name, step=checkpoint.step, processing="none")

    def _layer(self, checkpoint: Checkpoint, layer: int) -> Iterator[pd.DataFrame]:
        if self._wants(*MATRICES):
            before = self._before(checkpoint)
            earlier = {} if before is None else before.layer_matrices(layer)
            for name, matrix in checkpoint.layer_matrices(layer).items():
                if self._wants(name):
                    yield self._matrix(name, matrix, earlier.get(name)).assign(layer=layer)
        if self.per_head:
            heads = checkpoint.head_weights(layer)
            for name, spectrum in (("qk", qk_spectrum), ("ov", ov_spectrum)):
                yield _heads(name, spectrum(heads, dtype=torch.float64).S).assign(layer=layer)

    def _embeddings(self, checkpoint: Checkpoint) -> Iterator[pd.DataFrame]:
        if not self._wants(*OUTSIDE_LAYERS):
            return
        before = self._before(checkpoint)
        earlier = {} if before is None else before.embedding_matrices()
        found = checkpoint.embedding_matrices()
        if "unembed" in found and found["embed"].data_ptr() == found["unembed"].data_ptr():
            del found["unembed"]  # tied
        for name in OUTSIDE_LAYERS:
            if name in found and self._wants(name):
                yield self._matrix(name, found[name], earlier.get(name))

    def _wants(self, *names: str) -> bool:
        return self.matrices is None or any(name in self.matrices for name in names)

    def _before(self, checkpoint: Checkpoint) -> Checkpoint | None:
        return checkpoint.previous if self.changes else None

    def _matrix(self, name: str, matrix: Tensor, before: Tensor | None) -> pd.DataFrame:
        values = singular_values(matrix).cpu().numpy()
        rows = dict(spectral_stats(singular_values=values).named())
        if self.power_law:
            fit = fit_power_law(values**2)
            rows |= {"alpha": fit.alpha, "weighted_alpha": fit.weighted_alpha, "ks": fit.ks}
            rows["n_tail"] = fit.n_tail
            rows["mp_spikes"] = marchenko_pastur(
                values, (matrix.shape[0], matrix.shape[1])
            ).n_spikes
        if before is not None:
            change = weight_change(before, matrix)
            rows |= {key: getattr(change, key) for key in _CHANGES}
        columns = {"statistic": list(rows), "value": [float(value) for value in rows.values()]}
        frame = pd.DataFrame(columns)
        if self.spectra:
            ranks = _log_ranks(len(values))
            spectrum = {"statistic": "singular_value", "value": values[ranks - 1], "rank": ranks}
            frame = pd.concat([frame, pd.DataFrame(spectrum)], ignore_index=True)
        return frame.assign(matrix=name, n=len(values))


def _heads(name: str, values: Float[Tensor, "head rank"]) -> pd.DataFrame:
    """Spectral statistics of one circuit of every head."""
    found = spectral_stats(singular_values=values).named()
    columns = {
        "head": np.tile(np.arange(len(values)), len(found)),
        "statistic": np.repeat(list(found), len(values)),
        "value": np.concatenate(list(found.values())),
    }
    return pd.DataFrame(columns).assign(matrix=name, n=values.shape[1])


def _log_ranks(n: int) -> np.ndarray:
    """About 32 ranks from 1 to n, evenly spread over log rank."""
    return np.unique(np.geomspace(1, n, _N_RANKS).round().astype(int))
