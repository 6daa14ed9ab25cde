"""Output directions of a linear operator pulled back to the embeddings, in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from headspec.errors import InputError
from headspec.lens.frozen_pass import FrozenPass
from headspec.lens.operator_products import LinearOperator

Direction: TypeAlias = Tensor | int | tuple[int, int]
"""A vector of the output space (`d_out`, or `row d_out`); of logits also a vocabulary entry, or
two: the logit of the first minus that of the second."""

_CHUNK_BYTES = 64 * 2**20


def chosen_queries(operator: LinearOperator, queries: Sequence[int] | None) -> list[int]:
    """Positions counted from 0; all where None.

    Raises:
        InputError: positions that do not exist.
    """
    n_pos = operator.inputs.shape[1]
    given = list(range(n_pos) if queries is None else queries)
    if not given or any(not -n_pos <= query < n_pos for query in given):
        raise InputError(
            expected=f"query positions from 0 to {n_pos - 1}, or from the end, {-n_pos} to -1",
            got=str(given),
            fix="Leave queries out for all of them.",
        )
    return [query % n_pos for query in given]


def direction_vector(
    operator: LinearOperator, direction: Direction
) -> tuple[Float[Tensor, "row d_out"], str]:
    """The direction for every row, and its name.

    Raises:
        InputError: another width, or vocabulary entries for an operator to a residual stream.
    """
    rows, _, width = operator.output.shape
    if isinstance(direction, Tensor):
        if direction.shape not in ((width,), (rows, width)):
            raise InputError(
                expected=f"a direction of {width} numbers, or one for each of {rows} rows",
                got=f"shape {tuple(direction.shape)}",
                fix=f"Give a vector of the output space of this operator ({operator.to}).",
            )
        return direction.to(operator.inputs).expand(rows, width), "a given direction"
    entries = (direction,) if isinstance(direction, int) else tuple(direction)
    known = len(entries) in (1, 2) and all(0 <= entry < width for entry in entries)
    if operator.to != "logits" or not known:
        raise InputError(
            expected="a vector, or (of an operator to the logits) an entry of the vocabulary or "
            f"two, from 0 to {width - 1}",
            got=f"{direction!r} for an operator to {operator.to}",
            fix="Build the operator with to='logits', or give the direction as a tensor.",
        )
    if len(set(entries)) < len(entries):
        raise InputError(
            expected="two different entries of the vocabulary",
            got=repr(direction),
            fix="A tokenizer may put a beginning-of-text token before each text: take the last.",
        )
    vector = operator.inputs.new_zeros(width)
    vector[entries[0]] += 1
    for entry in entries[1:]:
        vector[entry] -= 1
    name = " minus ".join(f"logit {entry}" for entry in entries)
    return vector.expand(rows, width), name


def body_and_factor(operator: LinearOperator) -> tuple[FrozenPass, Float[Tensor, "d_out d_model"]]:
    """The pass without its unembedding, and a matrix after it that keeps norms of blocks."""
    frozen, d_model = operator.frozen, operator.inputs.shape[-1]
    if frozen.unembedding is None:
        return frozen, torch.eye(
            d_model, dtype=operator.inputs.dtype, device=operator.inputs.device
        )
    factor = torch.linalg.qr(frozen.unembedding.weight.double(), mode="r").R
    return frozen.without_unembedding(), factor.to(operator.inputs)


def pulled_back(
    operator: LinearOperator, body: FrozenPass, vectors: Tensor, query: int
) -> Iterator[Float[Tensor, "many row k_pos d_model"]]:
    """`vectors`, `many d_model`, at one query pulled back to the embeddings, in chunks."""
    rows, _, d_model = operator.inputs.shape
    part = body.up_to(query + 1)
    with torch.no_grad():
        for chunk in vectors.split(_chunk(operator, query + 1)):
            y = chunk.new_zeros(len(chunk), rows, query + 1, d_model)
            y[:, :, query] = chunk[:, None]
            yield operator.pull(y, part)


def direction_readings(
    operator: LinearOperator, vector: Float[Tensor, "row d_out"], queries: Sequence[int]
) -> Iterator[Float[Tensor, "query row k_pos d_model"]]:
    """d^T A_q for each query, over all positions, a chunk of queries at a time."""
    rows, n_pos, d_model = operator.inputs.shape
    body = operator.frozen
    if body.unembedding is not None:
        vector, body = vector @ body.unembedding.weight, body.without_unembedding()
    size = _chunk(operator, n_pos)
    with torch.no_grad():
        for start in range(0, len(queries), size):
            chunk = queries[start : start + size]
            stop = max(chunk) + 1
            y = vector.new_zeros(len(chunk), rows, stop, d_model)
            y[range(len(chunk)), :, chunk] = vector
            found = operator.pull(y, body.up_to(stop))
            yield torch.nn.functional.pad(found, (0, 0, 0, n_pos - stop))


def _chunk(operator: LinearOperator, n_pos: int) -> int:
    """Vectors at once, so that intermediate results stay near `_CHUNK_BYTES`."""
    rows, _, d_model = operator.inputs.shape
    layer = operator.frozen.layers[0]
    width = 4 * d_model + (0 if layer.gate is None else 2 * layer.gate.shape[-1])
    return max(1, _CHUNK_BYTES // (rows * n_pos * width * operator.inputs.element_size()))
