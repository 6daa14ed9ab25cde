"""Hooked models of both classes, and Hugging Face's own numbers beside them."""

from __future__ import annotations

from importlib.metadata import version

import torch
from zoo import tiny_model, tiny_tokenizer

from headspec.lens.models import wrap_model

OLDEST = version("transformer-lens").startswith("3.")
CLASSES = ("bridge", "hooked_transformer") if OLDEST else ("bridge",)


def hooked(architecture, kind, **kwargs):
    return wrap_model(tiny_model(architecture), tiny_tokenizer(), model_class=kind, **kwargs)


@torch.no_grad()
def reference_log_probs(name, ids):
    """log p of each token but the first, one row at a time, without padding."""
    logits = tiny_model(name)(torch.tensor([ids])).logits[0, :-1].double()
    chosen = logits.log_softmax(-1).gather(-1, torch.tensor(ids)[1:, None])[:, 0]
    return chosen.numpy()


def sentence(rng, n):
    """Words the tokenizer keeps: `w1` is special, and found in `w10` too."""
    return " ".join(f"w{i}" for i in rng.integers(20, 61, size=n))


def ids_of(text):
    return [0, *(int(word[1:]) for word in text.split())]
