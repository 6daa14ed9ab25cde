"""Results of taking QK and OV circuits apart: singular values, and with them their vectors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from headspec.errors import InputError
from headspec.results import tidy

Circuit = Literal["qk", "ov"]


@dataclass(frozen=True)
class CircuitSpectrum:
    """Singular values of every head's circuit, W_QK = W_Q W_K^T or W_OV = W_V W_O.

    Attributes:
        S: singular values, descending; those that are kept. `layer head rank`, or `head rank`
            where one layer was given rather than a sequence.
        norm: Frobenius norm of the whole circuit: of all singular values, kept or not.
        circuit: `"qk"` or `"ov"`.
        offset: of the QK form under rotary embeddings: query position minus key position; several:
            the mean of the forms at them; None: the part that no offset moves. 0 elsewhere.
        biases: whether the biases are in it, as the last row of the residual space.
        d_model, d_head: widths of the heads.
        layers, steps: where each entry of the `layer` axis comes from.
        model, processing: as in the weights.
        notes: what the model does and the circuit does not say.
    """

    S: Float[Tensor, "*layer head rank"]
    norm: Float[Tensor, "*layer head"]
    circuit: Circuit
    offset: int | tuple[int, ...] | None
    biases: bool
    d_model: int
    d_head: int
    layers: tuple[int, ...]
    steps: tuple[int | None, ...]
    model: str = ""
    processing: str = "none"
    notes: tuple[str, ...] = ()

    @property
    def step(self) -> int | None:
        """The step that all layers share; None for several."""
        return self.steps[0] if len(set(self.steps)) == 1 else None

    @property
    def variance_shares(self) -> Float[np.ndarray, "*layer head rank"]:
        """Each squared singular value as a share of the circuit's squared norm; 0 for zeros."""
        squares = self.S.double().cpu().numpy() ** 2
        whole = self.norm.double().cpu().numpy()[..., None] ** 2
        return np.divide(squares, whole, out=np.zeros_like(squares), where=whole > 0)

    @property
    def form(self) -> str:
        """Which form of the circuit, in words: `"offset 1"`, `"mean over 64 offsets"`, ..."""
        if self.circuit == "ov":
            return "W_V W_O"
        if self.offset is None:
            return "position-independent"
        if isinstance(self.offset, int):
            return f"offset {self.offset}"
        return f"mean over {len(self.offset)} offsets"

    def to_frame(self) -> pd.DataFrame:
        """One row a singular value: metric `"qk.singular_value"` or `"ov.singular_value"`.

        Extra columns: `matrix`, `statistic`, `rank` (from 1), `variance_share`, `form`, `offset`
        (missing where it is not one number), `biases`, `processing`.
        """
        values = self.S.double().cpu().numpy().reshape(len(self.layers), -1, self.S.shape[-1])
        layer, head, rank = (index.ravel() for index in np.indices(values.shape))
        steps = pd.array([self.steps[i] for i in layer], dtype="Int64")
        one = self.circuit == "qk" and isinstance(self.offset, int)
        frame = pd.DataFrame(
            {
                "step": steps,
                "layer": np.array(self.layers)[layer],
                "head": head,
                "metric": f"{self.circuit}.singular_value",
                "value": values.ravel(),
                "matrix": self.circuit,
                "statistic": "singular_value",
                "rank": rank + 1,
                "variance_share": self.variance_shares.ravel(),
                "form": self.form,
                "offset": pd.array([self.offset if one else None] * len(rank), dtype="Int64"),
                "biases": self.biases,
                "processing": self.processing,
            }
        )
        return tidy(frame, model=self.model)

    def summary(self) -> str:
        """The largest value, how much of the circuits one direction holds, and the notes."""
        values = self.S.double().cpu().numpy().reshape(len(self.layers), -1, self.S.shape[-1])
        shares = self.variance_shares.reshape(values.shape)
        place, head = divmod(int(values[..., 0].argmax()), values.shape[1])
        if len(set(self.steps)) == 1:
            when = "" if self.step is None else f" at step {self.step}"
        else:
            when = f" at {len(set(self.steps))} steps"
        biased = ", with biases" if self.biases else ""
        named = sorted(set(self.layers))
        where = f"layer {named[0]}" if len(named) == 1 else f"each of {len(named)} layers"
        first, every = shares[..., 0], shares.sum(-1)
        kept = values.shape[2] < min(self.d_head, self.d_model)
        lines = [
            f"{self.circuit.upper()} circuits of {self.model or 'a model'}{when} "
            f"({self.form}{biased}; processing {self.processing}): {values.shape[1]} heads in "
            f"{where}, {values.shape[2]} singular values each.",
            f"Largest: {values[..., 0].max():.4g} (L{self.layers[place]}H{head}); median over "
            f"heads {np.median(values[..., 0]):.4g}.",
            f"Share of the squared norm in the first direction: median {np.median(first):.3f}, "
            f"range {first.min():.3f} to {first.max():.3f}"
            + (f"; in the {values.shape[2]} kept: at least {every.min():.3f}." if kept else "."),
        ]
        return "\n".join([*lines, *(f"Note: {note}" for note in self.notes)])


@dataclass(frozen=True, kw_only=True)
class CircuitSVD(CircuitSpectrum):
    """Singular values and vectors of every head's circuit: circuit = U diag(S) Vh.

    The residual stream is a row vector x: a QK score is x_q U diag(S) Vh x_k^T (before it is
    divided by sqrt(d_head)), so columns of U are what queries look with and rows of Vh what keys
    are looked up by; an OV circuit reads columns of U and writes rows of Vh.

    **Signs.** Of each pair (u, -u), u is the one with sum_i cos(i) u_i >= 0, i = 1, 2, ...; v goes
    along. A fixed direction flips less often between checkpoints than the largest entry does, and
    is not lost, as the sum is, where weights are centred. Vectors of equal or close singular values
    mix freely, and no rule mends that; `signs_like` matches another checkpoint's signs.

    Attributes:
        U: left vectors, orthonormal. With `biases` the last row stands for the constant 1.
        Vh: right vectors, orthonormal rows. `d_in` and `d_out` are `d_model`, and one more where
            the biases are in it (on the right of QK alone).
    """

    U: Float[Tensor, "*layer head d_in rank"]
    Vh: Float[Tensor, "*layer head rank d_out"]

    def signs_like(self, other: CircuitSVD) -> CircuitSVD:
        """The same vectors, each pair (u, v) with the sign nearer to its pair in `other`.

        Args:
            other: the same heads, such as those of the checkpoint before.

        Raises:
            InputError: another shape.
        """
        if (self.U.shape, self.Vh.shape) != (other.U.shape, other.Vh.shape):
            raise InputError(
                expected=f"vectors of the same heads: U {list(self.U.shape)}",
                got=f"U {list(other.U.shape)}",
                fix="Compare the same layers and the same k.",
            )
        near = (self.U * other.U).sum(-2) + (self.Vh * other.Vh).sum(-1)
        signs = torch.where(near < 0, -1, 1).to(self.U)
        return replace(self, U=self.U * signs[..., None, :], Vh=self.Vh * signs[..., :, None])
