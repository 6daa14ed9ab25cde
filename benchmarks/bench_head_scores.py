"""Scores of heads on repeated random tokens, against caching the patterns of all layers.

    python benchmarks/bench_head_scores.py [--layers 12 --sequences 32 --period 50]

A random GPT-NeoX with the heads and width of pythia-160m, as a TransformerBridge. The usual way
runs the model once with its cache, filtered to the patterns, and takes the means of each layer.
Ours runs layer by layer; its control, attention to positions of other sequences, is not part of the
peer, so that kinds with and without one are timed apart. Scores must agree within 1e-4.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import torch
from harness import compare, print_header
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import headspec as hs
from headspec.activations.target_positions import HEAD_KINDS, attention_on, head_targets

VOCAB = 2000


def build_model(n_layers: int):
    """12 heads of 64 dimensions; a small vocabulary, which scores do not need."""
    config = GPTNeoXConfig(
        vocab_size=VOCAB,
        hidden_size=768,
        num_hidden_layers=n_layers,
        num_attention_heads=12,
        intermediate_size=3072,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return hs.wrap_model(GPTNeoXForCausalLM(config).eval())


def from_cache(model, tokens, kinds):
    """`kind layer head` from the cached patterns of all layers."""
    with torch.no_grad():
        _, cache = model.run_with_cache(
            tokens, names_filter=lambda name: name.endswith("hook_pattern"), return_type=None
        )
    targets = {kind: head_targets(tokens, kind) for kind in kinds}
    layers = range(model.cfg.n_layers)
    return np.stack(
        [
            torch.stack([attention_on(cache["pattern", i], at).mean(0) for i in layers]).numpy()
            for at in targets.values()
        ]
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[6, 12])
    parser.add_argument("--sequences", type=int, default=32)
    parser.add_argument("--period", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    symbols = np.arange(1, VOCAB)
    drawn = hs.repeated_tokens(
        symbols, args.sequences, period=args.period, length=2 * args.period, seed=0
    )
    tokens = torch.as_tensor(drawn).long()
    positional = ("previous_token", "first_token")
    print_header()
    for n_layers in args.layers:
        model = build_model(n_layers)
        for kinds, note in ((positional, "one pass"), (HEAD_KINDS, "with its control")):
            compare(
                f"{len(kinds)} kinds, {n_layers} layers, {len(tokens)} x {tokens.shape[1]} tokens",
                lambda model=model, kinds=kinds: (
                    hs.head_scores(model, kinds=kinds, tokens=tokens).scores
                ),
                partial(from_cache, model, tokens, kinds),
                agree=lambda a, b: np.allclose(a, b, atol=1e-4),
                repeats=args.repeats,
                memory=True,
                note=note,
            )


if __name__ == "__main__":
    main()
