"""Random tokens that come again: what induction is measured on."""

from __future__ import annotations

import numpy as np
from jaxtyping import Integer

from headspec.errors import InputError


def repeated_tokens(
    symbols: Integer[np.ndarray, " symbol"],
    n: int,
    *,
    period: int,
    length: int,
    bos: int | None = None,
    seed: int = 0,
) -> Integer[np.ndarray, "n length"]:
    """Random sequences of distinct symbols, each repeated until ``length`` tokens are filled.

    Inside a period no symbol occurs twice, so what follows an earlier occurrence of the current
    token is unambiguous. The first period cannot be predicted: its best loss is close to
    ``log(len(symbols))`` nats.

    Args:
        symbols: token ids to draw from.
        n: number of sequences.
        period: tokens before the sequence repeats; at most ``len(symbols)``.
        length: tokens per sequence, the leading ``bos`` included.
        bos: id to begin every sequence with, if any.
        seed: of the draw.

    Raises:
        InputError: when ``period`` exceeds the number of symbols, or symbols come twice.
    """
    symbols = np.asarray(symbols)
    if len(np.unique(symbols)) < len(symbols):
        raise InputError(
            expected="different symbols",
            got=f"{len(symbols)} of which {len(np.unique(symbols))} differ",
            fix="Pass numpy.unique(symbols): none may recur inside a period.",
        )
    if not 0 < period <= len(symbols):
        raise InputError(
            expected=f"a period from 1 to {len(symbols)}",
            got=str(period),
            fix="Symbols do not recur inside a period: shorten it or pass more symbols.",
        )
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.tile(symbols, (n, 1)), axis=1)[:, :period]
    body = np.tile(order, (1, -(-length // period)))
    if bos is None:
        return body[:, :length]
    return np.concatenate([np.full((n, 1), bos, dtype=body.dtype), body], axis=1)[:, :length]
