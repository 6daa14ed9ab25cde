"""How attention heads of a layer differ: entropy per head, its spread, and head divergence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from headspec.activations.attention import attention_entropy, check_pattern
from headspec.errors import InputError
from headspec.results import tidy
from headspec.weights.batch_frames import batch_frame, spread

_CHUNK = 2_000_000  # probabilities made float64 at a time
SPREADS = ("entropy_range", "entropy_variance")


@dataclass(frozen=True, kw_only=True)
class AttentionSpecialisation:
    """Entropy of heads, how it spreads over the heads of a layer, and how heads diverge.

    `kept` stands for the leading axes that were not averaged (none, or layers).

    Attributes:
        entropy: nats, mean over queries and patterns.
        normalised_entropy: entropy over ln of the number of keys the query may attend to, mean
            over the queries with at least two keys: 1 for uniform attention, 0 for one key. nan
            where no query has two.
        entropy_range: largest less smallest `entropy` of the heads.
        entropy_variance: variance of `entropy` over the heads (mean square, n and not n - 1).
        divergences: mean Jensen-Shannon divergence of each pair of heads, nats, 0 on the diagonal.
        head_divergence: mean of the pairs: 0 where all heads attend alike, at most ln 2 = .693;
            nan for a single head.
        null_mean, null_sd, p: of `"entropy_range"` and `"entropy_variance"` where heads are
            exchanged at random within each pattern; empty without a null.
        causal: whether keys after the query were forbidden.
        n: patterns averaged over.
        n_null, seed: exchanges and their seed.
    """

    entropy: Float[np.ndarray, "*kept head"]
    normalised_entropy: Float[np.ndarray, "*kept head"]
    entropy_range: Float[np.ndarray, "*kept"]
    entropy_variance: Float[np.ndarray, "*kept"]
    divergences: Float[np.ndarray, "*kept head head"]
    head_divergence: Float[np.ndarray, "*kept"]
    causal: bool
    n: int
    null_mean: dict[str, Float[np.ndarray, "*kept"]] = field(default_factory=dict)
    null_sd: dict[str, Float[np.ndarray, "*kept"]] = field(default_factory=dict)
    p: dict[str, Float[np.ndarray, "*kept"]] = field(default_factory=dict)
    n_null: int = 0
    seed: int = 0

    def to_frame(self, *, dims: Sequence[str] | None = None) -> pd.DataFrame:
        """One row a head (`entropy`, `normalised_entropy`), then one a layer for the others.

        Args:
            dims: names of the kept axes; None: `layer` for one, `index_0`, ... for several.
        """
        kept = self.entropy.ndim - 1
        if dims is None:
            dims = ("layer",) if kept == 1 else tuple(f"index_{i}" for i in range(kept))
        heads = {name: getattr(self, name) for name in ("entropy", "normalised_entropy")}
        frames = [batch_frame(heads, (*dims, "head"))]
        for name in (*SPREADS, "head_divergence"):
            nulls = {
                column: known[name]
                for column, known in (
                    ("null_mean", self.null_mean), ("null_sd", self.null_sd), ("p", self.p)
                )
                if name in known
            }  # fmt: skip
            frames.append(batch_frame({name: getattr(self, name)}, dims, **nulls))
        frame = pd.concat(frames, ignore_index=True)
        return tidy(frame, n=self.n, seed=self.seed if self.n_null else None)

    def summary(self) -> str:
        """The figures in words; of several layers their ranges."""
        null = ""
        if self.n_null:
            null = f" (heads exchanged: {spread(self.null_mean['entropy_range'])})"
        return (
            f"{self.entropy.shape[-1]} heads, {self.n} pattern(s): entropy {spread(self.entropy)} "
            f"nats, of the logarithm of the keys {spread(self.normalised_entropy)}; largest less "
            f"smallest head {spread(self.entropy_range)}{null}; mean Jensen-Shannon divergence "
            f"of heads {spread(self.head_divergence)} of at most 0.693."
        )


def attention_specialisation(
    pattern: Float[Tensor, "*batch head q_pos k_pos"],
    *,
    causal: bool = True,
    kept: int = 0,
    n_null: int = 0,
    seed: int = 0,
) -> AttentionSpecialisation:
    """How focused the heads of a layer are and how far they differ from each other.

    Entropy is `attention_entropy`, H = - sum_k p_k ln p_k. The divergence of heads p and q at a
    query is Jensen and Shannon's, H((p + q) / 2) - (H(p) + H(q)) / 2, averaged over queries and
    patterns, then over pairs of heads.

    Two heads may have the same entropy and attend to different keys: the range and the variance
    of entropy are then 0, the divergence is not. All heads differ a little by chance, so the
    spread of entropy has a null: within each pattern the heads' entropies are exchanged at random,
    which leaves what the input does to all of them and removes what is particular to a head.

    Takes probabilities, never scores or logits, and does not apply a softmax: one more softmax
    makes almost uniform attention of anything (6.24 nats at 512 keys where the truth is 0).

    Args:
        pattern: attention probabilities, every query to every key. bfloat16 and float16 are read
            as float32 and divided by their row sums; divergences are computed in float64.
        causal: whether keys after the query are forbidden; False for models that attend both
            ways, such as vision transformers.
        kept: leading axes that are not averaged: 1 for `layer batch head q_pos k_pos`.
        n_null: exchanges for the null; 0: none. It needs several patterns (`batch`).
        seed: of the exchanges.

    Returns:
        An `AttentionSpecialisation`.

    What it does not show: what heads are specialised for, or that it matters (ablate them). Causal
    entropy grows with the position; and heads that differ by their position pattern alone diverge.

    Raises:
        InputError: rows that do not sum to one, mass above the diagonal of causal attention, no
            pattern, or `kept` beyond the leading axes.

    References:
        Lin 1991, IEEE Trans. Inf. Theory 37:145 (the divergence). Clark et al. 2019,
        arXiv:1906.04341 (of attention heads).

    Example:
        >>> import torch
        >>> first, own = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.eye(2)
        >>> found = attention_specialisation(torch.stack([first, own]))
        >>> float(found.entropy_range), round(float(found.head_divergence), 4)  # (0 + ln 2) / 2
        (0.0, 0.3466)
    """
    shape = list(pattern.shape) if isinstance(pattern, Tensor) else []
    if not 0 <= kept <= len(shape) - 3 or 0 in shape or n_null < 0:
        raise InputError(
            expected="a tensor `*batch head q_pos k_pos` with kept no more than its leading axes, "
            "and n_null of 0 or more",
            got=f"{type(pattern).__name__} of shape {shape}, kept={kept}, n_null={n_null}",
            fix="kept=1 for `layer batch head q_pos k_pos`.",
        )
    with torch.no_grad():
        by_query = attention_entropy(pattern, causal=causal)
        checked = check_pattern(pattern, causal=causal)
        keys = _keys(by_query, causal)
        n_heads, outer = pattern.shape[-3], (*pattern.shape[:kept], -1)
        entropies = by_query.mean(-1).reshape(*outer, n_heads)
        normalised = (by_query / keys).nanmean(-1).reshape(entropies.shape)
        pairs = _divergences(checked).reshape(*outer, n_heads, n_heads).mean(kept)
    entropies, pairs = entropies.cpu().numpy(), pairs.cpu().numpy()
    null = _exchanged(entropies, n_null, seed)
    means = entropies.mean(kept)
    spreads = _spreads(means)
    upper = np.triu_indices(n_heads, 1)
    alone = np.full(pairs.shape[:-2], np.nan)
    return AttentionSpecialisation(
        entropy=means,
        normalised_entropy=normalised.mean(kept).cpu().numpy(),
        **spreads,
        divergences=pairs,
        head_divergence=np.asarray(pairs[..., *upper].mean(-1)) if n_heads > 1 else alone,
        causal=causal,
        n=entropies.shape[kept],
        null_mean={name: np.asarray(draws.mean(0)) for name, draws in null.items()},
        null_sd={name: _sd(draws) for name, draws in null.items()},
        p={name: _p_values(spreads[name], draws) for name, draws in null.items()},
        n_null=n_null,
        seed=seed,
    )


def _keys(by_query: Tensor, causal: bool) -> Tensor:
    """ln of the number of keys of each query; nan for a single one."""
    n_pos = by_query.shape[-1]
    counts = torch.arange(1, n_pos + 1) if causal else torch.full((n_pos,), n_pos)
    logs = counts.to(by_query).log()
    return torch.where(counts.to(logs.device) > 1, logs, torch.nan)


def _divergences(pattern: Tensor) -> Tensor:
    """Jensen-Shannon divergence of each pair of heads of each pattern, mean over queries."""
    rows = pattern.flatten(0, -4) if pattern.ndim > 3 else pattern[None]
    n_heads = rows.shape[1]
    found = rows.new_zeros(len(rows), n_heads, n_heads, dtype=torch.float64)
    at_once = max(1, _CHUNK // rows[0].numel())
    for start in range(0, len(rows), at_once):
        some = rows[start : start + at_once].double()
        some = some / some.sum(-1, keepdim=True)
        own = torch.special.entr(some).sum(-1).mean(-1)
        for head in range(n_heads - 1):
            mixed = (some[:, head, None] + some[:, head + 1 :]) / 2
            joint = torch.special.entr(mixed).sum(-1).mean(-1)
            gap = (joint - (own[:, head, None] + own[:, head + 1 :]) / 2).clamp(min=0)
            found[start : start + at_once, head, head + 1 :] = gap
    return found + found.mT


def _spreads(entropies: np.ndarray) -> dict[str, np.ndarray]:
    """Range and variance over heads."""
    return {
        "entropy_range": np.asarray(entropies.max(-1) - entropies.min(-1)),
        "entropy_variance": np.asarray(entropies.var(-1)),
    }


def _exchanged(entropies: np.ndarray, n_null: int, seed: int) -> dict[str, np.ndarray]:
    """Spreads (`draw *kept`) where heads are exchanged within each pattern."""
    if not n_null:
        return {}
    rng, axis = np.random.default_rng(seed), entropies.ndim - 2
    draws = [_spreads(rng.permuted(entropies, axis=-1).mean(axis)) for _ in range(n_null)]
    return {name: np.stack([draw[name] for draw in draws]) for name in SPREADS}


def _sd(draws: np.ndarray) -> np.ndarray:
    return np.asarray(draws.std(0, ddof=1)) if len(draws) > 1 else np.full(draws.shape[1:], np.nan)


def _p_values(observed: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Share of the draws that are at least as large, the observed number among them."""
    return np.asarray((1 + (draws >= observed - 1e-12).sum(0)) / (1 + len(draws)))
