"""How attention divides among topics: within-topic mass, the topic ratio, specialisation.

Labels are whole numbers from 0, one a position. A negative label is a position without a topic
(special tokens, padding): as a query it is left out, and mass on it as a key counts neither as
within nor as cross.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Integer
from scipy.special import entr
from torch import Tensor

from headspec.activations.attention import check_pattern
from headspec.activations.attention_shapes import shape_masses, topic_columns
from headspec.errors import InputError


def within_topic_mass(
    pattern: Float[Tensor, "*batch head q_pos k_pos"],
    labels: Integer[Tensor, "*batch q_pos"],
    *,
    causal: bool = True,
) -> Float[Tensor, "*batch head q_pos"]:
    """Attention mass that each query puts on keys of its own topic, itself among them.

    **It has a large baseline.** Where text keeps to a topic for a while, attention that knows
    nothing of topics stays inside one: on sequences of 512 tokens in 2 to 5 segments of 5 topics
    uniform causal attention has .58 and a window of 32 tokens .94. Read it beside
    `attention_baselines`, or as `topic_ratio`.

    Args:
        pattern: attention probabilities.
        labels: topic of each position; negative: none.
        causal: as in `attention_entropy`.

    Returns:
        Probability, float64; nan for queries without a topic. Mass on keys without a topic is in
        neither part, so the rest, 1 - within, is cross-topic mass only where all have labels.

    What it does not show: that a head reads topics. A local head is within its topic by position
    alone.

    Raises:
        InputError: as `attention_entropy`, or no label at all.

    Example:
        >>> import torch
        >>> pattern = torch.tensor([[[1.0, 0, 0], [0.5, 0.5, 0], [0.5, 0.25, 0.25]]])
        >>> within_topic_mass(pattern, torch.tensor([0, 1, 0])).tolist()
        [[1.0, 0.5, 0.75]]
    """
    masses = topic_masses(pattern, labels, causal=causal)
    own = labels.to(masses.device).long()[..., None, :, None].expand(*masses.shape[:-1], 1)
    within = masses.gather(-1, own.clamp(min=0))
    return within.masked_fill(own < 0, torch.nan)[..., 0]


def topic_ratio(
    pattern: Float[Tensor, "*batch head q_pos k_pos"],
    labels: Integer[Tensor, "*batch q_pos"],
    *,
    causal: bool = True,
) -> Float[Tensor, " head"]:
    """Odds of attending within the topic, against those of uniform attention on the same labels.

        ratio = (W / C) / (W_uniform / C_uniform)

    with W and C the mass on keys of the query's topic and of other topics, summed over queries and
    sequences. 1: as attention without any preference. `attention_statistics` gives it with
    intervals and the figures of the other baselines.

    Args:
        pattern, labels, causal: as in `within_topic_mass`.

    Returns:
        One number a head, float64; nan where no query can attend across topics, or none does.

    What it does not show: topics rather than closeness. A window of 32 tokens has a ratio of 11 on
    the sequences above; what topics add is what exceeds a head of the same reach.

    Raises:
        InputError: as `within_topic_mass`.

    Example:
        >>> import torch
        >>> pattern = torch.tensor([[[1.0, 0, 0], [0.5, 0.5, 0], [0.5, 0.25, 0.25]]])
        >>> topic_ratio(pattern, torch.tensor([0, 1, 0])).round(decimals=3).tolist()
        [1.154]
    """
    found = ratio_of_totals(_totals(pattern, labels, causal=causal))
    return torch.from_numpy(found).to(pattern.device)


def topic_specialisation(
    pattern: Float[Tensor, "*batch head q_pos k_pos"],
    labels: Integer[Tensor, "*batch q_pos"],
    *,
    causal: bool = True,
) -> Float[Tensor, " head"]:
    """How unevenly a head's preference for its own topic is spread over the topics, 0 to 1.

    With r_k the `topic_ratio` of the queries of topic k alone, and s_k = r_k / sum r:

        specialisation = 1 - H(s) / ln K

    0: all topics are treated alike, however strongly. 1: only one topic's queries stay within.
    Topics that the labels give no choice (no key of another topic before them) are left out.

    Args:
        pattern, labels, causal: as in `within_topic_mass`.

    Returns:
        One number a head, float64; nan with fewer than two topics that have a ratio.

    What it does not show: significance. With few sequences topics differ by chance;
    `attention_statistics` puts the same figure with labels of other sequences beside it.

    Raises:
        InputError: as `within_topic_mass`.

    Example:
        >>> import torch
        >>> uniform = torch.tril(torch.ones(1, 8, 8)) / torch.arange(1, 9)[:, None]
        >>> labels = torch.tensor([0, 0, 1, 1, 0, 1, 0, 1])
        >>> topic_specialisation(uniform, labels).abs().round(decimals=6).tolist()
        [0.0]
    """
    found = specialisation_of_totals(_totals(pattern, labels, causal=causal))
    return torch.from_numpy(found).to(pattern.device)


def topic_masses(
    pattern: Float[Tensor, "*batch head q_pos k_pos"],
    labels: Integer[Tensor, "*batch q_pos"],
    *,
    causal: bool = True,
) -> Float[Tensor, "*batch head q_pos topic"]:
    """Attention mass of each query on the keys of each topic, float64."""
    checked = check_pattern(pattern, causal=causal)
    rows, shape = checked.shape[:-3], tuple(labels.shape)
    fits = labels.ndim and shape[-1] == checked.shape[-1] and shape[:-1] in ((), tuple(rows))
    if not fits or labels.is_floating_point():
        raise InputError(
            expected=f"whole numbers, one label a position: {[*rows, checked.shape[-1]]}",
            got=f"{labels.dtype} of shape {list(shape)} for a pattern {list(pattern.shape)}",
            fix="Give the labels of the tokens that gave the pattern; negative for none.",
        )
    columns = topic_columns(labels.to(checked.device)).to(checked.dtype)
    return (checked @ columns.unsqueeze(-3)).double()


@dataclass(frozen=True)
class TopicTotals:
    """Mass of many queries, summed by the query's topic; leading axes broadcast.

    Attributes:
        within: on keys of the query's topic.
        cross: on keys of other topics.
        uniform_within, uniform_cross: the same for uniform attention of the same queries.
    """

    within: Float[np.ndarray, "*rows topic"]
    cross: Float[np.ndarray, "*rows topic"]
    uniform_within: Float[np.ndarray, "*#rows topic"]
    uniform_cross: Float[np.ndarray, "*#rows topic"]


def ratio_of_totals(totals: TopicTotals) -> Float[np.ndarray, "*rows"]:
    """`topic_ratio` from masses by the query's topic."""
    with np.errstate(divide="ignore", invalid="ignore"):
        base = totals.uniform_within.sum(-1) / totals.uniform_cross.sum(-1)
        return _finite(totals.within.sum(-1) / totals.cross.sum(-1) / base)


def specialisation_of_totals(totals: TopicTotals) -> Float[np.ndarray, "*rows"]:
    """`topic_specialisation` from masses by the query's topic."""
    ratios = ratios_by_topic(totals)
    defined = (~np.isnan(ratios)).sum(-1)
    total = np.nansum(ratios, -1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = np.nansum(entr(ratios / total), -1) / np.log(defined)
        return np.where((defined > 1) & (total[..., 0] > 0), np.clip(1 - entropy, 0, 1), np.nan)


def ratios_by_topic(totals: TopicTotals) -> Float[np.ndarray, "*rows topic"]:
    """`topic_ratio` of the queries of each topic; nan where there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        base = totals.uniform_within / totals.uniform_cross
        return _finite(totals.within / totals.cross / base)


def _finite(ratios: np.ndarray) -> np.ndarray:
    """nan for infinity: no mass across topics gives no odds."""
    return np.where(np.isfinite(ratios), ratios, np.nan)


def _totals(pattern: Tensor, labels: Tensor, *, causal: bool) -> TopicTotals:
    """Mass by topic of the query, `head topic`, over all queries of all sequences."""
    masses = topic_masses(pattern, labels, causal=causal)
    rows = labels.cpu().reshape(-1, labels.shape[-1])
    within, cross = by_query_topic(masses.reshape(-1, *masses.shape[-3:]), rows)
    uniform = by_query_topic(shape_masses(rows, "uniform", causal=causal)[:, None], rows)
    return TopicTotals(*(part.sum(0).cpu().numpy() for part in (within, cross, *uniform)))


def by_query_topic(
    masses: Float[Tensor, "row head q_pos topic"], labels: Integer[Tensor, "row q_pos"]
) -> tuple[Tensor, Tensor]:
    """Mass within and across topics, summed over the queries of each topic: `row head topic`."""
    if masses.shape[-1] < int(labels.max()) + 1:
        raise InputError(
            expected=f"labels below {masses.shape[-1]}",
            got=f"{int(labels.max())}",
            fix="Masses and labels must be of the same topics.",
        )
    queries = topic_columns(labels.to(masses.device), masses.shape[-1]).double()
    all_keys = torch.einsum("rqt,rhqk->rhtk", queries, masses.double())
    within = all_keys.diagonal(dim1=-2, dim2=-1)
    off = 1 - torch.eye(masses.shape[-1], dtype=torch.float64, device=masses.device)
    return within, (all_keys * off).sum(-1)
