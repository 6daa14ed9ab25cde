"""What the singular directions of circuits mean in tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from headspec.errors import InputError
from headspec.heads import Head
from headspec.results import tidy
from headspec.weights.circuit_result import CircuitSVD

_NULL_DRAWS = 100


def top_tokens(
    svd: CircuitSVD,
    embed: Float[Tensor, "d_vocab d_model"],
    unembed: Float[Tensor, "d_model d_vocab"] | None = None,
    *,
    k: int = 10,
    n_directions: int = 1,
    heads: Sequence[Head | str] | None = None,
    tokenizer: Any | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Tokens that lie furthest along the leading singular vectors of QK or OV circuits.

    A token's value is the inner product of its row of the embedding (column of the unembedding),
    less the vocabulary's mean, with the unit vector. QK circuits are read through the embedding on
    both sides (`"query"`: U, `"key"`: Vh); OV circuits through the embedding where they read
    (`"input"`: U) and through the unembedding where they write (`"output"`: Vh).

    **Signs.** (u, v) and (-u, -v) are the same direction: both are listed, `sign` 1 and -1, always
    for both sides together. Tokens of `"input"` with a sign raise those of `"output"` with the
    same sign.

    **Null.** Large tokens lead every list. `null_mean` and `null_sd` are the value at the same
    place of the list of random unit directions (100 draws), `p` the share of those that reach
    it, as `stats.permutation_p`; it is not corrected for the number of directions.

    **What it does not show.** That the model reads tokens there: later layers see a stream that
    earlier layers have changed. The norms' gains and scales are not in it. Tokens are not the words
    for what a direction means, only its neighbours in the vocabulary.

    Args:
        svd: of `qk_svd` or `ov_svd`; rows for biases are left out.
        embed: W_E.
        unembed: W_U; needed for OV.
        k: tokens for each vector and sign.
        n_directions: leading singular vectors.
        heads: of the circuit's heads those to list, as `Head` or by name; all by default.
        tokenizer: of transformers; names the tokens in the column `text`.
        seed: of the random directions.

    Returns:
        Tidy rows, metric `"qk.top_token"` or `"ov.top_token"`; extra columns `side`, `sign`, `rank`
        (of the singular value, from 1), `singular_value`, `place` (from 1), `token`, `text`.

    Raises:
        InputError: OV without `unembed`, embeddings of another width, a head that is not there, or
            k and n_directions out of range.

    References:
        Millidge and Black 2022, "The singular value decompositions of transformer weight matrices
        are highly interpretable".

    Example:
        >>> import torch, headspec as hs
        >>> W = torch.diag(torch.tensor([3.0, 2.0]))[None]
        >>> svd = hs.qk_svd(hs.HeadWeights(W_Q=W, W_K=W, W_V=W, W_O=W))
        >>> found = hs.top_tokens(svd, torch.tensor([[5.0, 0.0], [0.0, 1.0]]), k=1)
        >>> found.query("sign == 1")["token"].tolist()
        [0, 0]
    """
    tables = _tables(svd, embed, unembed)
    n_kept, n_tokens = svd.S.shape[-1], len(embed)
    if not (1 <= n_directions <= n_kept and 1 <= k <= n_tokens):
        raise InputError(
            expected=f"n_directions from 1 to {n_kept} and k from 1 to {n_tokens}",
            got=f"n_directions={n_directions}, k={k}",
            fix="Keep more singular vectors in the SVD, or ask for fewer.",
        )
    width = svd.d_model
    n_heads = svd.S.shape[-2]
    left = svd.U[..., :width, :n_directions].mT.reshape(-1, n_heads, n_directions, width)
    right = svd.Vh[..., :n_directions, :width].reshape(-1, n_heads, n_directions, width)
    values = svd.S[..., :n_directions].reshape(-1, n_heads, n_directions)
    chosen = _chosen(svd, heads, n_heads)
    rows = []
    with torch.no_grad():
        for (side, table), vectors in zip(tables.items(), (left, right), strict=True):
            null = _random_tops(table, k, seed)
            for entry, head in chosen:
                for rank in range(n_directions):
                    along = table @ vectors[entry, head, rank].to(table)
                    for sign in (1, -1):
                        top = (sign * along).topk(k)
                        rows.append(
                            {
                                "step": svd.steps[entry],
                                "layer": svd.layers[entry],
                                "head": head,
                                "side": side,
                                "sign": sign,
                                "rank": rank + 1,
                                "singular_value": float(values[entry, head, rank]),
                                **_places(top.values.cpu().numpy(), null),
                                "token": top.indices.cpu().numpy(),
                            }
                        )
    frame = pd.concat([pd.DataFrame(row) for row in rows], ignore_index=True)
    if tokenizer is not None:
        frame["text"] = [tokenizer.decode([int(token)]) for token in frame["token"]]
    frame["step"] = pd.array(frame["step"].tolist(), dtype="Int64")
    return tidy(
        frame.assign(processing=svd.processing),
        model=svd.model,
        metric=f"{svd.circuit}.top_token",
        n=_NULL_DRAWS,
        seed=seed,
    )


def _tables(svd: CircuitSVD, embed: Tensor, unembed: Tensor | None) -> dict[str, Tensor]:
    """Name of each side -> `d_vocab d_model`, less the mean over tokens, at least float32."""
    if svd.circuit == "ov" and unembed is None:
        raise InputError(
            expected="unembed, through which an OV circuit's outputs are read",
            got="None",
            fix='Pass suite.embedding_matrices(step)["unembed"].',
        )
    if svd.circuit == "qk" or unembed is None:
        sides = {"query": embed, "key": embed}
    else:
        sides = {"input": embed, "output": unembed.mT}
    if any(table.shape[1] != svd.d_model for table in sides.values()):
        raise InputError(
            expected=f"embed `d_vocab {svd.d_model}` and unembed `{svd.d_model} d_vocab`",
            got=", ".join(f"{name} {list(table.shape)}" for name, table in sides.items()),
            fix="Transpose what PyTorch stores as [out, in].",
        )
    tables = {}
    for name, table in sides.items():
        table = table.detach().to(svd.U.device)
        table = table if table.dtype == torch.float64 else table.float()
        tables[name] = table - table.mean(0)
    return tables


def _chosen(
    svd: CircuitSVD, heads: Sequence[Head | str] | None, n_heads: int
) -> list[tuple[int, int]]:
    """Entry of the layer axis and head index of what is listed."""
    every = [(entry, head) for entry in range(len(svd.layers)) for head in range(n_heads)]
    if heads is None:
        return every
    named = [Head.parse(head) if isinstance(head, str) else head for head in heads]
    there = {Head(svd.layers[entry], head) for entry, head in every}
    if not named:
        raise InputError(
            expected="at least one head", got="heads=[]", fix="Leave heads out to list all."
        )
    if absent := [str(head) for head in named if head not in there]:
        raise InputError(
            expected=f"heads of layers {sorted(set(svd.layers))} with {n_heads} heads",
            got=", ".join(absent),
            fix="Layers and heads are counted from 0.",
        )
    return [pair for pair in every if Head(svd.layers[pair[0]], pair[1]) in named]


def _random_tops(table: Tensor, k: int, seed: int) -> Float[np.ndarray, "draw k"]:
    """The k largest values of random unit directions."""
    directions = np.random.default_rng(seed).standard_normal((_NULL_DRAWS, table.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    tops = [(table @ torch.from_numpy(one).to(table)).topk(k).values for one in directions]
    return torch.stack(tops).double().cpu().numpy()


def _places(values: np.ndarray, null: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of one list: places, values and what random directions have at the same places."""
    reached = (null >= values).sum(0)
    return {
        "place": np.arange(1, len(values) + 1),
        "value": values.astype(float),
        "null_mean": null.mean(0),
        "null_sd": null.std(0, ddof=1),
        "p": (1 + reached) / (1 + len(null)),
    }
