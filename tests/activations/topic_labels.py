"""Topic labels as the micro-languages of the topic-ordering study have them."""

from itertools import pairwise

import numpy as np
import torch


def segment_labels(n, *, n_pos=512, n_topics=5, min_segments=2, max_segments=5, seed=0):
    """Sequences of a few segments of equal length, each of a topic drawn on its own."""
    rng = np.random.default_rng(seed)
    labels = np.empty((n, n_pos), dtype=np.int64)
    for row in labels:
        n_segments = rng.integers(min_segments, max_segments + 1)
        bounds = np.linspace(0, n_pos, n_segments + 1).astype(int)
        for start, stop in pairwise(bounds):
            row[start:stop] = rng.integers(n_topics)
    return torch.from_numpy(labels)


def random_pattern(*shape, seed=0, sharpness=2.0, causal=True, dtype=torch.float64):
    """Softmax of Gaussian scores, `... q_pos k_pos`."""
    generator = torch.Generator().manual_seed(seed)
    scores = sharpness * torch.randn(*shape, generator=generator, dtype=torch.float64)
    if causal:
        scores = scores.masked_fill(torch.ones(shape[-2:]).triu(1).bool(), -torch.inf)
    return scores.softmax(-1).to(dtype)
