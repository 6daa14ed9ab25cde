"""The result of swapping two clusters of heads, beside random swaps and swaps inside a cluster."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from headspec.heads import Head
from headspec.interventions.swap_pairs import Pairing
from headspec.results import tidy
from headspec.stats import NullSummary

TAIL = 0.025
"""Level of each of the two tests behind a verdict, of more and of less than random sets."""


def swap_word(kl: float) -> str:
    """The study's word for a divergence: strong above 1 nat, moderate from .1, else minimal.

    The word of the study (seed 000's interpretation guide), not a finding: see the share of
    random swaps that deserve it too.
    """
    return "strong" if kl > 1 else "moderate" if kl >= 0.1 else "minimal"


@dataclass(frozen=True)
class WithinSwap:
    """Swaps among the heads of one cluster, beside as many pairs between the two clusters.

    Attributes:
        heads: of the cluster.
        n_pairs: pairs swapped at a time; fewer than between the clusters where the cluster is too
            small (a cluster of n heads has at most n // 2 pairs).
        draws: mean KL of each swap inside the cluster; empty if it has a single head.
        between: mean KL of swaps of `n_pairs` pairs between the clusters.
    """

    heads: tuple[Head, ...]
    n_pairs: int
    draws: Float[np.ndarray, " draw"]
    between: Float[np.ndarray, " between"]


@dataclass(frozen=True)
class ClusterSwap:
    """KL(base || swapped) of a swap of two clusters, against random swaps of the same sizes.

    Attributes:
        kl: nats for each prompt, averaged over pairings and read positions; 0 at rounding.
        pairing_kl: nats for each pairing, averaged over prompts.
        pairings: the pairs of heads that changed places, one entry a pairing.
        null_draws: mean KL of each pair of random sets, through the same pairing rule.
        null: `swap_kl` against them; `p_value` is the share of random sets whose swap changes as
            much.
        exact: the null holds every pair of sets of these sizes.
        within: swaps inside the first and inside the second cluster.
        clusters: the two sets of heads.
        how, unequal: what was exchanged, and how heads were paired.
        n_random, seed: as asked for.
        n: distinct prompts.
        layer, model, step, processing: where the heads are.
        null_kl: nats for each pair of random sets and prompt; None: not kept.
    """

    kl: Float[np.ndarray, " example"]
    pairing_kl: Float[np.ndarray, " pairing"]
    pairings: tuple[Pairing, ...]
    null_draws: Float[np.ndarray, " null"]
    null: NullSummary
    exact: bool
    within: tuple[WithinSwap, WithinSwap]
    clusters: tuple[tuple[Head, ...], tuple[Head, ...]]
    how: str
    unequal: str
    n_random: int
    seed: int
    n: int
    layer: int
    model: str = ""
    step: int | None = None
    processing: str = "none"
    null_kl: Float[np.ndarray, "null example"] | None = None

    @property
    def mean_kl(self) -> float:
        """Mean over prompts and pairings, in nats."""
        return self.null.observed

    @property
    def p_value(self) -> float:
        """Share of random sets of the same sizes whose swap changes the output as much."""
        return self.null.p_value

    @property
    def n_pairs(self) -> int:
        """Pairs of heads swapped at a time."""
        return len(self.pairings[0])

    @property
    def sizes(self) -> tuple[int, int]:
        """Heads in the two clusters."""
        return len(self.clusters[0]), len(self.clusters[1])

    @property
    def word(self) -> str:
        """The study's word for the mean KL, see `swap_word`."""
        return swap_word(self.mean_kl)

    @property
    def null_word_share(self) -> float:
        """Share of random swaps that deserve the same word of the study, or a stronger one."""
        words = ["minimal", "moderate", "strong"]
        ranks = [words.index(swap_word(draw)) for draw in self.null_draws]
        return float(np.mean(np.array(ranks) >= words.index(self.word)))

    @property
    def null_quantiles(self) -> Float[np.ndarray, " example"]:
        """Where each prompt's KL stands among those of random sets on the same prompt, 0 to 1.

        The share of random sets below it, ties by half; nan where `null_kl` was not kept. No test:
        prompts share their heads, so that all of them can stand high by one chance.
        """
        if self.null_kl is None:
            return np.full(len(self.kl), np.nan)
        same = np.isclose(self.null_kl, self.kl, rtol=1e-9, atol=0)
        below = (self.null_kl < self.kl) & ~same
        return below.mean(0) + same.mean(0) / 2

    def to_frame(self) -> pd.DataFrame:
        """`swap_kl` with its null, the controls within the clusters, and `prompt_kl` per prompt.

        Extra columns: how, unequal, n_pairs, null_q95, word (the study's, see `swap_word`),
        null_quantile (see `null_quantiles`), prompt, processing.
        """
        observed = {
            "metric": "swap_kl",
            "value": self.mean_kl,
            "null_mean": self.null.mean,
            "null_sd": self.null.sd,
            "p": self.p_value,
            "null_q95": self.null.q95,
            "word": self.word,
            "n_pairs": self.n_pairs,
        }
        controls = [
            {"metric": f"{name}_{label}_kl", "value": draws.mean(), "n_pairs": one.n_pairs}
            for label, one in zip("ab", self.within, strict=True)
            for name, draws in (("within", one.draws), ("between", one.between))
            if len(draws)
        ]
        nulls = self._prompt_nulls()
        prompts = [
            {
                "metric": "prompt_kl",
                "value": value,
                "word": swap_word(value),
                "prompt": prompt,
                "n_pairs": self.n_pairs,
                **{name: column[prompt] for name, column in nulls.items()},
            }
            for prompt, value in enumerate(self.kl)
        ]
        return tidy(
            [observed, *controls, *prompts],
            model=self.model,
            step=self.step,
            layer=self.layer,
            n=self.n,
            seed=self.seed,
            how=self.how,
            unequal=self.unequal,
            processing=self.processing,
        )

    def _prompt_nulls(self) -> dict[str, np.ndarray]:
        """Random sets on each prompt: mean, standard deviation, 95 %, and the KL's place."""
        null = np.full((2, len(self.kl)), np.nan) if self.null_kl is None else self.null_kl
        sd = null.std(0, ddof=1) if len(null) > 1 else np.full(len(self.kl), np.nan)
        return {
            "null_mean": null.mean(0),
            "null_sd": sd,
            "null_q95": np.quantile(null, 0.95, axis=0),
            "null_quantile": self.null_quantiles,
        }

    def summary(self) -> str:
        """The divergence, the study's word, the null and the controls in plain sentences."""
        step = "" if self.step is None else f", step {self.step}"
        start = f"{self.model}{step}, " if self.model else ""
        pairs = "pair" if self.n_pairs == 1 else "pairs"
        lines = [
            f"{start}layer {self.layer}: swapping {self.how} of {self.n_pairs} {pairs} of heads "
            f"between clusters of {self.sizes[0]} and {self.sizes[1]} changes the next-token "
            f"distribution by {self.mean_kl:.3g} nats (KL, {self.n} distinct prompts), in the "
            f"study's word {self.word}.",
            f"{'All' if self.exact else 'Random'} sets of the same sizes "
            f"({len(self.null_draws)}): {self.null.mean:.3g} on average, 95 % below "
            f"{self.null.q95:.3g}; {self.null_word_share:.0%} of them are {self.word} or more. "
            f"p = {self.p_value:.2g} of as much, {self.null.p_below:.2g} of as little; with "
            f"{TAIL:g} for each: {self.verdict}.",
            f"No p below {self.p_least:.2g} is possible." if self.p_least > TAIL else "",
            *self._within_words(),
        ]
        return " ".join(line for line in lines if line)

    @property
    def p_least(self) -> float:
        """The smallest p that so many random sets allow."""
        return 1 / (len(self.null_draws) + (0 if self.exact else 1))

    @property
    def verdict(self) -> str:
        """What the null says: whether these clusters differ from any sets of the same sizes.

        Two tests, of more and of less, each at .025: 5 % in all say one of the two by chance.
        """
        if self.how == "all":
            return "a check only, since renaming heads changes nothing"
        if self.p_value <= TAIL:
            return "more than swaps of random sets"
        if self.null.p_below <= TAIL:
            return "less than swaps of random sets"
        return "not distinguishable from swaps of random sets"

    def _within_words(self) -> list[str]:
        return [
            f"Inside cluster {label} ({one.n_pairs} of its pairs at a time): "
            f"{one.draws.mean():.3g}; as many pairs between the clusters: {one.between.mean():.3g}."
            for label, one in zip("AB", self.within, strict=True)
            if len(one.draws)
        ]
