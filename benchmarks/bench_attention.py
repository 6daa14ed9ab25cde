"""Attention statistics of a whole model: blocks of queries against cached patterns.

A random GPT-NeoX of 12 layers x 12 heads of 64, float32. The peer is what is commonly written:
transformer-lens's `run_with_cache` with a filter for patterns, then the entropy of each. Entropies
must agree to 1e-4 nats. With `--length 16384` only ours runs, with its memory: the patterns of one
layer alone would be 13 GB.

    python benchmarks/bench_attention.py [--length 2048] [--layers 12] [--labels] [--device cuda]
"""

from __future__ import annotations

import argparse
import copy
from typing import Any

import numpy as np
import torch
from harness import _peak, _seconds, compare, print_header
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import headspec as hs

VOCABULARY, HEADS = 4096, 12


def build_module(n_layers: int, length: int, device: str) -> Any:
    """Random weights, large enough that attention is not uniform."""
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=64 * HEADS,
        num_hidden_layers=n_layers,
        num_attention_heads=HEADS,
        intermediate_size=256 * HEADS,
        max_position_embeddings=length,
        initializer_range=0.05,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GPTNeoXForCausalLM(config).eval().to(device)


def cached_entropy(model: Any, tokens: Tensor, n_layers: int) -> np.ndarray:
    """Patterns of all layers, then - sum p ln p: `layer head`."""
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(n_layers)]
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=names, return_type=None)
        patterns = (cache[name] for name in names)
        entropies = [-(p * (p + 1e-12).log()).sum(-1).mean((0, 2)) for p in patterns]
    return torch.stack(entropies).cpu().numpy()


def agree(ours: hs.AttentionStatistics, peer: np.ndarray) -> bool:
    """Mean entropies of all heads, to 1e-4 nats; heads must differ."""
    assert np.ptp(peer) > 1e-3, "the peer's entropies are all alike"
    return bool(np.abs(ours.entropy - peer).max() < 1e-4)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--labels", action="store_true", help="5 topics and 19 exchanges as well")
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    module = build_module(chosen.layers, chosen.length, chosen.device)
    bridge = hs.wrap_model(copy.deepcopy(module), device=chosen.device)
    generator = torch.Generator().manual_seed(0)
    n = 2 if chosen.labels else 1
    tokens = torch.randint(0, VOCABULARY, (n, chosen.length), generator=generator)
    labels = torch.arange(chosen.length).mul(5).div(chosen.length, rounding_mode="floor")
    options: Any = {"labels": labels.expand(n, -1)} if chosen.labels else {}
    on_cpu = chosen.device == "cpu"
    cases = {"Bridge": bridge, "Hugging Face model": module}
    if chosen.length > 4096:
        for name, model in cases.items():
            found, size = _peak(lambda m=model: hs.attention_statistics(m, tokens, **options))
            seconds = _seconds(lambda m=model: hs.attention_statistics(m, tokens, **options))
            megabytes = (size or 0) / 1e6
            print(f"{name}, {chosen.length} tokens: {seconds:.1f} s, peak {megabytes:,.0f} MB")
            assert found.method == "blockwise"
        return
    print_header()
    for name, model in cases.items():
        compare(
            f"entropy of {chosen.layers * HEADS} heads, {n} x {chosen.length} tokens, {name}"
            + (", topics" if chosen.labels else ""),
            lambda m=model: hs.attention_statistics(m, tokens, **options),
            lambda: cached_entropy(bridge, tokens.to(chosen.device), chosen.layers),
            agree=agree,
            memory=on_cpu,
        )


if __name__ == "__main__":
    main()
