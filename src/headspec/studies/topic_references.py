"""What the data of the topic-ordering study allow: the numbers that a model's stand beside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from headspec.results import tidy
from headspec.studies.topic_scales import TopicScale
from headspec.training.token_data import open_token_data


def reference_rows(scale: TopicScale, folder: str | Path) -> pd.DataFrame:
    """Losses and accuracies that need no model, on the validation sequences that are measured.

    | metric | what |
    |---|---|
    | `ln_vocab` | loss of a uniform guess over the vocabulary, nats per token |
    | `bayes_loss` | least loss that any reader who knows the languages can have |
    | `unigram_loss` | the same for a reader who ignores which token follows which |
    | `entropy_rate` | mean entropy of the next token where the topic is known |
    | `ideal_topic_accuracy` | how often that reader's best guess of a token's topic is right |
    | `unigram_topic_accuracy` | the same without the order of tokens |
    | `largest_topic` | share of the most frequent topic |

    A corpus of text has `ln_vocab` and `largest_topic` alone. The accuracies bound what a probe
    of a causal model can read.

    Args:
        scale: of the run.
        folder: of the token data.

    Returns:
        Tidy rows; `n` counts sequences.
    """
    data = open_token_data(folder, split="validation")
    tokens = np.asarray(data.tokens[: scale.n_measured]).astype(np.int64)
    labels = np.asarray(data.labels[: scale.n_measured]).astype(np.int64)
    found = {
        "ln_vocab": float(np.log(data.vocab_size)),
        "largest_topic": float(np.bincount(labels.ravel()).max() / labels.size),
    }
    languages = scale.languages
    if languages is not None:
        found |= {
            "entropy_rate": languages.entropy_rate(),
            "bayes_loss": float(languages.bayes_loss(tokens)[:, 1:].mean()),
            "unigram_loss": float(languages.bayes_loss(tokens, evidence="unigrams")[:, 1:].mean()),
        }
        ideal = languages.topic_posterior(tokens).argmax(-1)
        alone = languages.topic_posterior(tokens, evidence="unigrams").argmax(-1)
        found["ideal_topic_accuracy"] = float((ideal == labels).mean())
        found["unigram_topic_accuracy"] = float((alone == labels).mean())
    rows = [{"metric": name, "value": value} for name, value in found.items()]
    return tidy(rows, model=str(data.info.get("source", "")), n=len(tokens))
