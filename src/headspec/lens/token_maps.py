"""Which input token reaches which output position: maps of a linear operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from headspec.errors import InputError, check_choice
from headspec.lens.operator_products import LinearOperator
from headspec.lens.operator_readings import (
    Direction,
    body_and_factor,
    chosen_queries,
    direction_readings,
    direction_vector,
    pulled_back,
)
from headspec.lens.token_map_result import TokenMap

BlockNorm = Literal["frobenius", "spectral"]
"""Root of the sum of squared entries, or largest singular value, of a block of A."""


def block_norms(
    operator: LinearOperator,
    *,
    norm: BlockNorm = "frobenius",
    n_probes: int | None = None,
    queries: Sequence[int] | None = None,
    seed: int = 0,
) -> TokenMap:
    """Size of each block A_qk, the map from the embedding at k to the output at q.

    Exact: for each query all d_model rows of its blocks, a chunk of them at a time, by products
    with the adjoint over the positions up to the query; d_model products a query. Of logits, the
    blocks have d_vocab rows: W_U is replaced by the triangular factor of its QR decomposition,
    which gives the same norms of either kind.

    With `n_probes` = m, Frobenius norms are estimated without bias in the square: for random
    signs g, E |A_qk^T g|^2 = |A_qk|_F^2; m products a query, relative standard error of the norm
    at most about 1 / sqrt(2 m), returned for every entry.

    What it does not show: which inputs arrive. The norm is over all embeddings that could stand
    at k, most of which no token has, under factors that the token at k has itself shaped. Use
    `input_contributions` for what did arrive. Residual streams make the diagonal large.

    Args:
        operator: of any output; of `through` the norms of the difference.
        norm: `"frobenius"`, or `"spectral"` (exact only; a d_model x d_model eigenvalue problem in
            float64 for every pair).
        n_probes: None for exact norms.
        queries: output positions; all by default.
        seed: of the probes.

    Raises:
        InputError: positions that do not exist, or probes with the spectral norm.

    Example:
        >>> import torch, headspec as hs
        >>> model = hs.open_suite("micro-tiny").model(6144)
        >>> operator = hs.linear_operator(model, torch.tensor([[0, 70, 71, 72]]))
        >>> hs.block_norms(operator, n_probes=16).values.shape
        (1, 4, 4)
    """
    check_choice("norm", norm, get_args(BlockNorm))
    chosen = chosen_queries(operator, queries)
    if n_probes is not None and (norm == "spectral" or n_probes < 2):
        raise InputError(
            expected="at least 2 probes, and the Frobenius norm",
            got=f"n_probes={n_probes}, norm={norm!r}",
            fix="Leave n_probes out for exact norms.",
        )
    body, head = body_and_factor(operator)
    values = torch.zeros(len(operator.inputs), len(chosen), operator.inputs.shape[1])
    values = values.to(operator.inputs.device, torch.float64)
    errors = torch.zeros_like(values)
    generator = torch.Generator().manual_seed(seed)
    width = head.shape[0]
    for place, query in enumerate(chosen):
        if n_probes is None:
            vectors = head
        else:
            signs = torch.randint(0, 2, (n_probes, width), generator=generator) * 2 - 1
            vectors = signs.to(head) @ head
        found = values[:, place, : query + 1]
        if norm == "spectral":
            rows = torch.cat(list(pulled_back(operator, body, vectors, query))).double()
            gram = torch.einsum("mrkd,mrke->rkde", rows, rows)
            found.copy_(torch.linalg.eigvalsh(gram)[..., -1].clamp_min(0).sqrt())
            continue
        squares = [
            rows.double().square().sum(-1) for rows in pulled_back(operator, body, vectors, query)
        ]
        square = torch.cat(squares)
        if n_probes is None:
            found.copy_(square.sum(0).sqrt())
        else:
            found.copy_(square.mean(0).sqrt())
            spread = square.std(0) / n_probes**0.5
            tiny = torch.finfo(torch.float64).tiny
            errors[:, place, : query + 1] = spread / (2 * found).clamp_min(tiny)
    return TokenMap(
        values=values.cpu().numpy(),
        standard_error=None if n_probes is None else errors.cpu().numpy(),
        n_probes=n_probes,
        seed=None if n_probes is None else seed,
        kind="block_norm_frobenius" if norm == "frobenius" else "block_norm_spectral",
        **_named(operator, chosen),
    )


def direction_norms(
    operator: LinearOperator, direction: Direction, *, queries: Sequence[int] | None = None
) -> TokenMap:
    """How strongly an output direction d at q reads the embedding at k: the norm of d^T A_qk.

    Args:
        operator: of any output; of `through` the norms of the difference.
        direction: a vector of the output space, a vocabulary entry, or a pair of them.
        queries: output positions; all by default.

    Returns:
        A `TokenMap`: the largest change of d^T A x by a unit change of the embedding at k, were
        patterns, scales and gates to stay. One product with the adjoint a query.

    What it does not show: whether the embedding at k has anything along that reading, and of
    which sign; and the response of what is frozen (the gradient of the model's own output has it).

    Raises:
        InputError: positions that do not exist, a direction of another width, or vocabulary
            entries for an operator to a residual stream.

    Example:
        >>> import torch, headspec as hs
        >>> model = hs.open_suite("micro-tiny").model(6144)
        >>> operator = hs.linear_operator(model, torch.tensor([[0, 70, 71, 72]]), to="logits")
        >>> hs.direction_norms(operator, (70, 71), queries=[-1]).values.shape
        (1, 1, 4)
    """
    chosen = chosen_queries(operator, queries)
    vector, name = direction_vector(operator, direction)
    values = [rows.double().norm(dim=-1) for rows in direction_readings(operator, vector, chosen)]
    return TokenMap(
        values=torch.cat(values).transpose(0, 1).cpu().numpy(),
        kind="direction_norm",
        direction=name,
        **_named(operator, chosen),
    )


def input_contributions(
    operator: LinearOperator, direction: Direction, *, queries: Sequence[int] | None = None
) -> TokenMap:
    """What each token's embedding contributes to an output direction: d^T A_qk x_k.

    Complete: over k they sum to d^T out_q - d^T b_q, for logits the logit itself minus the bias's
    part (`completeness_gap`).

    Args:
        operator: of any output; of `through` the contributions by way of those heads.
        direction: a vector of the output space, a vocabulary entry, or a pair of them.
        queries: output positions; all by default.

    Returns:
        A `TokenMap` with `bias`, `output` and `null_sd`: a vector as long as x_k in a random
        direction would contribute 0 on average, with standard deviation
        |d^T A_qk| |x_k| / sqrt(d_model). One product with the adjoint a query.

    What it does not show: what the output would be without the token. Its share in opening gates,
    in norm scales and in attention is credited to whatever passes through them; a token that only
    steers attention contributes nothing here. The split between tokens and bias moves with any
    constant in the embeddings, which zero is not a neutral value of.

    Raises:
        InputError: as `direction_norms`.

    Example:
        >>> import torch, headspec as hs
        >>> model = hs.open_suite("micro-tiny").model(6144)
        >>> operator = hs.linear_operator(model, torch.tensor([[0, 70, 71, 72]]), to="logits")
        >>> hs.input_contributions(operator, 75).completeness_gap < 1e-4
        True
    """
    chosen = chosen_queries(operator, queries)
    vector, name = direction_vector(operator, direction)
    inputs = operator.inputs.double()
    values, spreads = [], []
    for rows in direction_readings(operator, vector, chosen):
        rows = rows.double()
        values.append((rows * inputs).sum(-1))
        spreads.append(rows.norm(dim=-1) * inputs.norm(dim=-1) / inputs.shape[-1] ** 0.5)

    def along(output: Tensor) -> np.ndarray:
        return torch.einsum("rqo,ro->rq", output[:, chosen].double(), vector.double()).cpu().numpy()

    with torch.no_grad():
        bias = along(operator.bias())
    return TokenMap(
        values=torch.cat(values).transpose(0, 1).cpu().numpy(),
        null_sd=torch.cat(spreads).transpose(0, 1).cpu().numpy(),
        bias=bias,
        output=along(operator.output),
        kind="contribution",
        direction=name,
        **_named(operator, chosen),
    )


def _named(operator: LinearOperator, queries: Sequence[int]) -> dict[str, Any]:
    return {
        "queries": tuple(queries),
        "to": operator.to,
        "tokens": operator.tokens.cpu().numpy(),
        "model": operator.model,
        "step": operator.step,
        "processing": operator.processing,
    }
