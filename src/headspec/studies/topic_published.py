"""The figures of the topic-ordering study as it published them: kept to be compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from headspec.errors import InputError
from headspec.lens.capture import capture
from headspec.lens.hooks import hook_name, hooked
from headspec.results import tidy

_TEST_SHARE = 0.2


@dataclass(frozen=True)
class PublishedFigures:
    """What the study reported of a model, by its own methods. Do not use them for anything else.

    Attributes:
        entropy: entropy of attention in nats, mean over queries, with no causal mask in the
            analysis. It can exceed what causal attention can reach (`ceiling`).
        within_topic_mass: attention to keys of the query's topic, mean over queries, with no mask
            and no baseline.
        probe_accuracy: share of test tokens whose topic a linear probe reads from the residual
            stream after a layer; train and test tokens come from the same sequences.
        ceiling: mean over queries of ln(t + 1): the entropy of uniform causal attention.
        uniform_within: within-topic mass of uniform attention over all keys, without a mask.
        largest_topic: share of the most frequent topic.
        n_sequences, n_pos: what was measured.
        seed: of the split of tokens.
        model, step: of the model.
    """

    entropy: Float[np.ndarray, "layer head"]
    within_topic_mass: Float[np.ndarray, "layer head"]
    probe_accuracy: Float[np.ndarray, " layer"]
    by_sequence_accuracy: Float[np.ndarray, " layer"]
    ceiling: float
    uniform_within: float
    largest_topic: float
    n_sequences: int
    n_pos: int
    seed: int
    model: str = ""
    step: int | None = None

    def to_frame(self) -> pd.DataFrame:
        """One row a head (`published_entropy`, `published_within_topic_mass`) or layer
        (`published_probe_accuracy`, `published_probe_accuracy_by_sequence`).

        `null_mean` is what the same way gives for uniform attention without a mask, and the share
        of the largest topic; the study gave none of them. `n` counts sequences.
        """
        nulls = {"entropy": float(np.log(self.n_pos)), "within_topic_mass": self.uniform_within}
        rows = [
            {"layer": layer, "head": head, "metric": f"published_{name}", "value": value}
            | {"null_mean": null}
            for name, null in nulls.items()
            for (layer, head), value in np.ndenumerate(getattr(self, name))
        ]
        rows += [
            {"layer": layer, "metric": f"published_{name}", "value": value}
            | {"null_mean": self.largest_topic}
            for name, column in (
                ("probe_accuracy", self.probe_accuracy),
                ("probe_accuracy_by_sequence", self.by_sequence_accuracy),
            )
            for layer, value in enumerate(column)
        ]
        return tidy(rows, model=self.model, step=self.step, n=self.n_sequences, seed=self.seed)

    def summary(self) -> str:
        """The figures, and how many of them no causal model can have."""
        impossible = int((self.entropy > self.ceiling).sum())
        return (
            f"As published: entropy {self.entropy.mean():.2f} nats ({impossible} of "
            f"{self.entropy.size} heads above the causal ceiling of {self.ceiling:.2f}), "
            f"{self.within_topic_mass.mean():.1%} of attention within the topic, probes right for "
            f"{self.probe_accuracy[len(self.probe_accuracy) // 2]:.1%} of tokens at layer "
            f"{len(self.probe_accuracy) // 2}."
        )


def published_figures(
    model: Any,
    tokens: Integer[Tensor, "sequence pos"],
    labels: Integer[Tensor, "rows columns"],
    *,
    seed: int = 0,
    batch_size: int = 16,
) -> PublishedFigures:
    """Entropy, within-topic mass and probe accuracy by the methods of the published study.

    Three errors are repeated on purpose, each of which the corrected analysis avoids:

    - **No causal mask** where attention is returned: every query sees every later token, in all
      layers (`attention_statistics` refuses such patterns).
    - **No baseline** for within-topic mass: uniform attention over all keys already has the share
      of the sequence that its topic fills, and a local window nearly all.
    - **Probes split by token**: neighbours of a test token, from the same segment of the same
      sequence, are in the training set (`probe_model` splits by sequence). One logistic
      regression of scikit-learn on standardised features, 80 % of tokens to train.

    Args:
        model: a TransformerBridge.
        tokens: token ids.
        labels: topic of each token.
        seed: of the split.
        batch_size: sequences at a time.

    Returns:
        A `PublishedFigures`.

    Raises:
        InputError: another kind of model, or labels that do not fit.

    **What it does not show.** What the model does: it never attends without its mask. The study's
    code is not run; these are its methods as described, on whatever model is given.
    """
    if not hasattr(model, "original_model"):
        raise InputError(
            expected="a TransformerBridge, whose mask can be replaced",
            got=type(model).__name__,
            fix="Open the checkpoint with model_class='bridge'.",
        )
    if tokens.shape != labels.shape or tokens.ndim != 2:
        raise InputError(
            expected="tokens and labels of shape sequence pos",
            got=f"{list(tokens.shape)} and {list(labels.shape)}",
            fix="Give the topic of every token.",
        )
    rows = tokens.long().to(next(model.parameters()).device)
    entropy, within = _unmasked_attention(model, rows, labels, batch_size)
    accuracy = [
        [_split_accuracy(stream, labels, seed, by_sequence=how) for how in (False, True)]
        for stream in _streams(model, rows, batch_size)
    ]
    n_sequences, n_pos = (int(size) for size in tokens.shape)
    shares = torch.stack([(labels == topic).double().mean(1) for topic in labels.unique()])
    return PublishedFigures(
        entropy=entropy,
        within_topic_mass=within,
        probe_accuracy=np.array(accuracy)[:, 0],
        by_sequence_accuracy=np.array(accuracy)[:, 1],
        ceiling=float(np.log(np.arange(1, n_pos + 1)).mean()),
        uniform_within=float(shares.square().sum(0).mean()),
        largest_topic=float(shares.mean(1).max()),
        n_sequences=n_sequences,
        n_pos=n_pos,
        seed=seed,
        model=str(getattr(model.cfg, "model_name", "") or ""),
    )


def unmasked_patterns(
    model: Any, tokens: Integer[Tensor, "sequence pos"]
) -> list[Float[Tensor, "sequence head q_pos k_pos"]]:
    """Attention of every layer when the whole forward pass runs without its causal mask.

    Args:
        model: a TransformerBridge.
        tokens: token ids, on the model's device.

    Returns:
        Patterns of each layer, float64.
    """
    kept: dict[int, Tensor] = {}

    def keep(layer: int):
        def store(pattern: Tensor) -> None:
            kept[layer] = pattern.detach().double()

        return store

    n_sequences, n_pos = tokens.shape
    nothing = next(model.parameters()).new_zeros(n_sequences, 1, n_pos, n_pos)
    functions = {hook_name(i, "pattern"): keep(i) for i in range(model.cfg.n_layers)}
    with torch.no_grad(), hooked(model, functions):
        model.original_model(tokens, attention_mask=nothing, use_cache=False)
    return [kept[layer] for layer in range(model.cfg.n_layers)]


def _unmasked_attention(
    model: Any, tokens: Tensor, labels: Tensor, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Entropy and within-topic mass by layer and head."""
    totals = np.zeros((2, model.cfg.n_layers, model.cfg.n_heads))
    for start in range(0, len(tokens), batch_size):
        topics = labels[start : start + batch_size].to(tokens.device)
        same = (topics[:, None, :, None] == topics[:, None, None, :]).double()
        patterns = unmasked_patterns(model, tokens[start : start + batch_size])
        for layer, pattern in enumerate(patterns):
            entropy = torch.special.entr(pattern).sum(-1).mean(-1).sum(0)
            within = (pattern * same).sum(-1).mean(-1).sum(0)
            totals[:, layer] += torch.stack([entropy, within]).cpu().numpy()
    entropy, within = totals / len(tokens)
    return entropy, within


def _streams(model: Any, tokens: Tensor, batch_size: int) -> list[np.ndarray]:
    """The residual stream after every layer, `token d_model`, with the mask in its place."""
    sites = [(layer, "resid_post") for layer in range(model.cfg.n_layers)]
    found = capture(model, tokens, sites, batch_size=batch_size)
    return [found[site].float().cpu().flatten(0, 1).numpy() for site in sites]


def _split_accuracy(stream: np.ndarray, labels: Tensor, seed: int, *, by_sequence: bool) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    topics = labels.cpu().numpy()
    places = np.arange(topics.size).reshape(topics.shape if by_sequence else (-1, 1))
    order = np.random.default_rng(seed).permutation(places)
    n_test = max(1, round(_TEST_SHARE * len(order)))
    test, train = order[:n_test].ravel(), order[n_test:].ravel()
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    probe.fit(stream[train], topics.ravel()[train])
    return float((probe.predict(stream[test]) == topics.ravel()[test]).mean())
