"""Which sentence of a minimal pair a model finds more probable, and by how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headspec.lens.processing import origin_of
from headspec.results.capability_rows import capability_rows
from headspec.tasks.minimal_pairs import MinimalPairs
from headspec.tasks.scored_tokens import (
    encode_texts,
    mean_and_error,
    token_log_probs,
    without_rounding,
)

_MEASURES = {"acc": 0.5, "acc_norm": 0.5, "margin": 0.0, "margin_norm": 0.0}


@dataclass(frozen=True, eq=False)
class MinimalPairScores:
    """Log-probabilities of both sentences of each pair.

    Attributes:
        name: of the collection.
        uid: the paradigm of each pair.
        log_prob_good, log_prob_bad: of the whole sentence, nats.
        n_good, n_bad: tokens of either.
        model, step, processing: of the model.
    """

    name: str
    uid: tuple[str, ...]
    log_prob_good: Float[np.ndarray, " pair"]
    log_prob_bad: Float[np.ndarray, " pair"]
    n_good: Int[np.ndarray, " pair"]
    n_bad: Int[np.ndarray, " pair"]
    model: str
    step: int | None
    processing: str

    @property
    def n(self) -> int:
        """How many pairs."""
        return len(self.log_prob_good)

    @property
    def margin(self) -> Float[np.ndarray, " pair"]:
        """log p(good) - log p(bad), nats; 0 where the two differ by less than float32 rounding."""
        return self._difference(self.log_prob_good, self.log_prob_bad)

    @property
    def margin_norm(self) -> Float[np.ndarray, " pair"]:
        """The same of the log-probabilities per token, nats per token."""
        return self._difference(self.log_prob_good / self.n_good, self.log_prob_bad / self.n_bad)

    @property
    def acc(self) -> Float[np.ndarray, " pair"]:
        """1 where the good sentence is the more probable one, 1/2 for a tie, else 0."""
        return (np.sign(self.margin) + 1) / 2

    @property
    def acc_norm(self) -> Float[np.ndarray, " pair"]:
        """The same by log-probability per token."""
        return (np.sign(self.margin_norm) + 1) / 2

    def to_frame(self) -> pd.DataFrame:
        """Tidy rows `{task}.acc`, `.acc_norm`, `.margin`, `.margin_norm`.

        One task for all pairs together, `name`, and with several paradigms one for each,
        `{name}_{uid}`. Standard errors are over pairs.
        """
        uids = np.array(self.uid)
        groups = {self.name: np.ones(self.n, dtype=bool)}
        distinct = list(dict.fromkeys(self.uid))
        if len(distinct) > 1:
            groups |= {f"{self.name}_{uid}": uids == uid for uid in distinct}
        rows = []
        for task, where in groups.items():
            for measure, chance in _MEASURES.items():
                value, se = mean_and_error(getattr(self, measure)[where])
                row = {"task": task, "measure": measure, "value": value, "se": se}
                rows.append(row | {"chance": chance, "n": int(where.sum())})
        return capability_rows(
            rows, model=self.model or None, step=self.step, shots=0, processing=self.processing
        )

    def summary(self) -> str:
        """One or two plain sentences."""
        (acc, acc_se), (norm, norm_se), (margin, se) = (
            mean_and_error(values) for values in (self.acc, self.acc_norm, self.margin)
        )
        text = (
            f"{self.name}: the good sentence is more probable in {acc:.3f} ± {acc_se:.2g} of "
            f"{self.n} pairs (chance 0.5), per token in {norm:.3f} ± {norm_se:.2g}; margin "
            f"{margin:.3g} ± {se:.2g} nats."
        )
        if unequal := int((self.n_good != self.n_bad).sum()):
            text += f" {unequal} pairs differ in their number of tokens."
        return text

    @staticmethod
    def _difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return without_rounding(one - other, one)


def score_minimal_pairs(
    model: Any, pairs: MinimalPairs, *, memory_budget: int = 2**28
) -> MinimalPairScores:
    """Compare the log-probabilities of the sentences of minimal pairs.

    Each sentence stands behind the beginning-of-text token (else the end-of-text one), as in
    lm-eval, so its first token counts. A tie counts half: a model that does not distinguish
    scores chance and not 0.

    Args:
        model: a hooked model of either class, causal; left as it is.
        pairs: from `load_minimal_pairs` or `MinimalPairs.from_pairs`.
        memory_budget: bytes for the logits of a batch and their normalisation.

    Returns:
        `MinimalPairScores`: accuracy (thresholded) and margin in nats (continuous), both also by
        token.

    Raises:
        InputError: a sentence longer than the model's context, or no tokenizer.

    What it does not show: knowledge of the rule. A rarer word makes a sentence less probable
    whatever its grammar; BLiMP keeps words alike within a pair, other collections may not. Where
    the sentences differ in tokens, the whole log-probability favours the shorter and the one per
    token the longer: look at both. All paradigms together are a mixture: standard errors are over
    pairs, not over paradigms.

    Example:
        >>> model = hs.load_model("EleutherAI/pythia-70m", step=1000)     # doctest: +SKIP
        >>> pairs = hs.load_minimal_pairs("blimp/data")                   # doctest: +SKIP
        >>> hs.score_minimal_pairs(model, pairs).acc.mean()               # doctest: +SKIP
    """
    rows = encode_texts(model.tokenizer, [text for p in pairs.pairs for text in (p.good, p.bad)])
    sums = np.array([v.sum() for v in token_log_probs(model, rows, memory_budget=memory_budget)])
    lengths = np.array([len(row) - 1 for row in rows], dtype=np.int64)
    origin = origin_of(model)
    return MinimalPairScores(
        name=pairs.name,
        uid=tuple(pair.uid for pair in pairs.pairs),
        log_prob_good=sums[::2],
        log_prob_bad=sums[1::2],
        n_good=lengths[::2],
        n_bad=lengths[1::2],
        model=origin.model,
        step=origin.step,
        processing=origin.processing,
    )
