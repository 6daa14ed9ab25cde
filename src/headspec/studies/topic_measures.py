"""What the topic-ordering study measures of one trained model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Integer
from scipy.stats import t as student
from torch import Tensor

from headspec.head_tensors import HeadWeights
from headspec.lens.observe import attention_statistics
from headspec.lens.probe_streaming import probe_model
from headspec.lens.weights import head_weights
from headspec.results import tidy
from headspec.studies.topic_published import published_figures
from headspec.weights.circuits import ov_spectrum, qk_spectrum
from headspec.weights.clustering import cluster_heads
from headspec.weights.spectra import spectral_stats

_SPECTRAL = ("effective_rank", "stable_rank", "participation_ratio", "spectral_norm")
_FEATURES = ("qk", "ov")


def measure_topic_model(
    model: Any,
    tokens: Integer[Tensor, "sequence pos"],
    labels: Integer[Tensor, "sequence pos"],
    *,
    n_published: int = 32,
    n_null: int = 200,
    seed: int = 0,
    batch_size: int = 32,
) -> pd.DataFrame:
    """Losses, attention, probes, circuits and clusters of a model, as tidy rows.

    | metric | of | what |
    |---|---|---|
    | `validation_loss` | the model | nats per token, with an interval over sequences |
    | `entropy`, `within_topic_mass`, ... | heads | `attention_statistics`, with baselines |
    | `accuracy`, `selectivity`, ... | layers | `probe_model` of the topic; -1: embeddings |
    | `qk.effective_rank`, `ov.stable_rank`, ... | heads | circuits; QK at offset 0 |
    | `qk.silhouette`, `ov.silhouette` | layers | two clusters of heads, with their null |
    | `published_...` | heads, layers | the study's own methods, see `published_figures` |

    QK circuits are taken at offset 0, where rotary embeddings turn nothing: the same form with and
    without them.

    Args:
        model: a TransformerBridge.
        tokens, labels: validation sequences and the topic of each token.
        n_published: sequences of them for the published figures.
        n_null: draws of the clusters' null.
        seed: of probes, nulls and splits: the same in all conditions.
        batch_size: sequences in a forward pass.

    Returns:
        Tidy rows; intervals in `low` and `high` where there are any.

    **What it does not show.** Whether any of it would be the same in another training run: that is
    what seeds are for.
    """
    few = slice(0, n_published)
    layers = range(-1, model.cfg.n_layers)  # -1: what tokens tell by themselves
    frames = [
        _loss_rows(sequence_losses(model, tokens, batch_size=batch_size)),
        attention_statistics(model, tokens, labels=labels).to_frame(),
        probe_model(model, tokens, labels, layers=layers, seed=seed).to_frame(),
        weight_rows(
            [head_weights(model, layer) for layer in range(model.cfg.n_layers)],
            n_null=n_null,
            seed=seed,
        ),
        published_figures(model, tokens[few], labels[few], seed=seed).to_frame(),
    ]
    frames = [frame.dropna(axis="columns", how="all") for frame in frames]
    return tidy(pd.concat(frames, ignore_index=True))


def sequence_losses(
    model: Any, tokens: Integer[Tensor, "sequence pos"], *, batch_size: int = 32
) -> Float[np.ndarray, " sequence"]:
    """Mean next-token loss of each sequence in nats per token, all but the first token.

    Args:
        model: a hooked model.
        tokens: token ids.
        batch_size: sequences in a forward pass.
    """
    device = next(model.parameters()).device
    found = []
    with torch.no_grad():
        for start in range(0, len(tokens), batch_size):
            rows = tokens[start : start + batch_size].long().to(device)
            logits = model(rows)[:, :-1].float()
            losses = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none"
            )
            found.append(losses.view(len(rows), -1).double().mean(1).cpu())
    return torch.cat(found).numpy()


def mean_interval(
    values: Float[np.ndarray, " sample"], *, level: float = 0.95
) -> tuple[float, float, float]:
    """Mean and the ends of its t interval; nan with one value."""
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return mean, float("nan"), float("nan")
    half = float(student.ppf((1 + level) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return mean, mean - half, mean + half


def _loss_rows(losses: np.ndarray) -> pd.DataFrame:
    value, low, high = mean_interval(losses)
    row = {"metric": "validation_loss", "value": value, "n": len(losses), "low": low, "high": high}
    return tidy([row])


def weight_rows(layers: list[HeadWeights], *, n_null: int, seed: int) -> pd.DataFrame:
    """Spectra of every head's circuits, and clusters of each layer's heads with their null.

    Args:
        layers: weights of all layers.
        n_null: draws of the clusters' null.
        seed: of them.
    """
    rows = []
    for feature, spectrum in (("qk", qk_spectrum(layers)), ("ov", ov_spectrum(layers))):
        found = spectral_stats(singular_values=spectrum.S, stats=_SPECTRAL)
        rows += [
            {"layer": layer, "head": head, "metric": f"{feature}.{name}", "value": value}
            for name in _SPECTRAL
            for (layer, head), value in np.ndenumerate(getattr(found, name))
        ]
    for layer, weights in enumerate(layers):
        if weights.n_heads < 3:
            continue
        for feature in _FEATURES:
            found = cluster_heads(
                weights, feature=feature, n_null=n_null, seed=seed, unit_norm=True
            )
            rows.append(
                {
                    "layer": layer,
                    "metric": f"{feature}.silhouette",
                    "value": found.silhouette,
                    "null_mean": found.null_mean,
                    "null_sd": found.null_sd,
                    "p": found.p_value,
                    "n": weights.n_heads,
                }
            )
    return tidy(rows)
