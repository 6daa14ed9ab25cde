"""Attention patterns of example heads, to be looked at."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Integer

from headspec.lens.capture import capture
from headspec.studies.topic_published import unmasked_patterns
from headspec.studies.topic_runs import TopicStudy
from headspec.training.token_data import open_token_data

Patterns = dict[str, Float[np.ndarray, "q_pos k_pos"]]


def example_patterns(
    study: TopicStudy, *, n_tokens: int = 96
) -> tuple[Patterns, Patterns, Integer[np.ndarray, " pos"]]:
    """What the most topical head of each condition attends to, in the first validation sequence.

    The head is the one with the largest `topic_excess` with RoPE in a training of the first seed
    and the first kind of attention, and the same head after DroPE. Chosen for being extreme: not
    a sample.

    Args:
        study: finished.
        n_tokens: how much of the sequence.

    Returns:
        Causal patterns by order, position and head; of the first one the pattern as it is and with
        the mask dropped, as the published analysis had it; topics of the tokens.
    """
    scale, seed = study.scale, study.seeds[0]
    data = open_token_data(f"{study.folder}/data", split="validation")
    part = slice(0, min(n_tokens, data.seq_len))
    tokens = torch.from_numpy(np.asarray(data.tokens[:1, part]).astype(np.int64))
    patterns: Patterns = {}
    compared: Patterns = {}
    for condition in scale.conditions:
        if condition.attention != scale.conditions[0].attention:
            continue
        layer, head = _most_topical(study, f"{condition.run}_rope", seed)
        suite = study.suite(condition.name, seed)
        model = suite.model(suite.steps[-1])
        name = f"{condition.ordering}_{condition.position}_L{layer}H{head}"
        patterns[name] = capture(model, tokens, [(layer, "pattern")])[layer, "pattern"][
            0, head
        ].numpy()
        if not compared:
            compared["as trained"] = patterns[name]
            free = unmasked_patterns(model, tokens)[layer][0, head]
            compared["mask dropped"] = free.numpy()
    return patterns, compared, np.asarray(data.labels[0, part]).astype(np.int64)


def _most_topical(study: TopicStudy, condition: str, seed: int) -> tuple[int, int]:
    rows = study.frame
    rows = rows.loc[(rows["condition"] == condition) & (rows["seed"] == seed)]
    rows = rows.loc[rows["metric"] == "topic_excess"]
    best = rows.iloc[int(np.argmax(rows["value"].to_numpy(float)))]
    return int(best["layer"]), int(best["head"])
