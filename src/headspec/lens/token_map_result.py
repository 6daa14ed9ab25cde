"""Token-to-token maps of a linear operator: numbers per query and key position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Integer

from headspec.results import tidy

Kind = Literal["block_norm_frobenius", "block_norm_spectral", "direction_norm", "contribution"]
"""What the numbers of a map are."""


@dataclass(frozen=True, kw_only=True)
class TokenMap:
    """One number for every output position and every input token, of each input row.

    What it does not show: causal effects. Attention patterns, norm scales and gates are those of
    these tokens and do not respond; see `linear_operator`. Norms have no sign, and a large block
    may still be multiplied with an embedding that it sends to nothing.

    Attributes:
        values: `row query k_pos`; zero where the key lies behind the query. In the unit of the
            output: norms per unit of embedding, contributions of the direction's value itself.
        queries: output position of each entry of the second axis.
        kind: what the numbers are, also the metric of the frame.
        to: output of the operator: `"logits"`, `"resid_post"`, a layer.
        direction: what the output was read along, in words; "" for block norms.
        tokens: token ids, `row pos`.
        bias: the direction's part of b at each query, `row query`; contributions only.
        output: the direction's value of A x + b at each query, `row query`; contributions only.
        null_sd: standard deviation of a contribution under embeddings of the same norm in random
            directions (their mean is 0), as `values`; contributions only.
        standard_error: of norms from probes, as `values`; None where they are exact.
        n_probes: random probes; None where the numbers are exact.
        seed: of the probes.
        model, step, processing: where the model came from.
    """

    values: Float[np.ndarray, "row query k_pos"]
    queries: tuple[int, ...]
    kind: Kind
    to: str
    tokens: Integer[np.ndarray, "row pos"]
    direction: str = ""
    bias: Float[np.ndarray, "row query"] | None = None
    output: Float[np.ndarray, "row query"] | None = None
    null_sd: Float[np.ndarray, "row query k_pos"] | None = None
    standard_error: Float[np.ndarray, "row query k_pos"] | None = None
    n_probes: int | None = None
    seed: int | None = None
    model: str = ""
    step: int | None = None
    processing: str = "none"

    @property
    def completeness_gap(self) -> float:
        """Largest |sum of contributions + bias - output|, relative to the largest |output|.

        nan for norms, which do not add up.
        """
        if self.bias is None or self.output is None:
            return float("nan")
        gap = np.abs(self.values.sum(-1) + self.bias - self.output).max()
        return float(gap / np.abs(self.output).max())

    def to_frame(self) -> pd.DataFrame:
        """One row for every input row, query and key at or before it; `n` is 1, one input.

        Extra columns: row, q_pos, k_pos, k_token, standard_error, bias and output (of the query),
        to, direction, processing.
        """
        queries = np.array(self.queries)
        row, query, key = np.nonzero(
            np.broadcast_to(np.arange(self.values.shape[-1]) <= queries[:, None], self.values.shape)
        )
        columns = {
            "value": self.values[row, query, key],
            "row": row,
            "q_pos": queries[query],
            "k_pos": key,
            "k_token": self.tokens[row, key],
        }
        if self.standard_error is not None:
            columns["standard_error"] = self.standard_error[row, query, key]
        if self.null_sd is not None:
            columns |= {"null_mean": 0.0 * row, "null_sd": self.null_sd[row, query, key]}
        if self.bias is not None and self.output is not None:
            columns |= {"bias": self.bias[row, query], "output": self.output[row, query]}
        return tidy(
            columns,
            model=self.model,
            step=self.step,
            metric=self.kind,
            n=1,
            seed=self.seed,
            to=self.to,
            direction=self.direction,
            processing=self.processing,
        )

    def summary(self, *, top: int = 3) -> str:
        """The largest entries of the last query of the first row, and how they were computed."""
        q_pos = self.queries[-1]
        last = self.values[0, -1, : q_pos + 1]
        order = np.argsort(-np.abs(last), kind="stable")[:top]
        named = ", ".join(f"position {k} {last[k]:.4g}" for k in order)
        along = f" of {self.direction}" if self.direction else ""
        lines = [
            f"{self.kind}{along} from tokens to {self.to}: {len(self.values)} rows, "
            f"{len(self.queries)} query positions, {self.values.shape[-1]} tokens.",
            f"Row 0, query {q_pos}, largest: {named}.",
        ]
        if self.bias is not None and self.output is not None:
            lines.append(
                f"Tokens {last.sum():.4g} + bias {self.bias[0, -1]:.4g} = output "
                f"{self.output[0, -1]:.4g}; largest gap {self.completeness_gap:.1e} of the output."
            )
        if self.n_probes is not None:
            lines.append(f"Estimated from {self.n_probes} random probes a query.")
        lines.append("Not causal effects: patterns, scales and gates do not respond.")
        return "\n".join(lines)
