"""Patching every head: only what can change, against transformer-lens's own `patching` functions.

A random GPT-NeoX of the shape of pythia-160m (12 layers x 12 heads, vocabulary 50,304), float32, 8
pairs of 32 tokens. Both ways patch `z` of clean runs into corrupt ones and read a logit difference
at the last position. The peer runs one forward pass a patch, so it patches one head of each layer
and its time is multiplied by 12; on these heads the two must agree to 1e-5 of the logits' scale.
Ours is timed with both runs of the prompts and the intervals, the peer without its cache of the
clean run.

    python benchmarks/bench_interventions.py [--model-class hooked_transformer] [--device cuda]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from itertools import combinations, islice
from typing import Any

import pandas as pd
import torch
from harness import compare, print_header
from torch import Tensor
from transformer_lens import patching
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import headspec as hs

LAYERS, HEADS, BATCH, LENGTH, VOCABULARY = 12, 12, 8, 32, 50304
SPLITS = 20


def build_model(model_class: Any, device: str) -> Any:
    """Random weights, large enough that patches have effects."""
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=768,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=3072,
        initializer_range=0.04,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPTNeoXForCausalLM(config)
    return hs.wrap_model(model, model_class=model_class, device=device)


def token_pairs(first: int, device: str) -> tuple[Tensor, Tensor]:
    """Clean and corrupt prompts that differ from column `first` on."""
    generator = torch.Generator().manual_seed(first)
    clean, other = torch.randint(0, VOCABULARY, (2, BATCH, LENGTH), generator=generator)
    corrupt = torch.cat([clean[:, :first], other[:, first:]], 1)
    return clean.to(device), corrupt.to(device)


class LogitDifference:
    """Of two vocabulary entries at the last position."""

    name, unit = "logit_difference", "logits"

    def read(self, tokens: Tensor) -> hs.LogitRead:
        """The last position, two columns."""
        rows = len(tokens)
        return hs.LogitRead(
            positions=torch.full((rows, 1), tokens.shape[1] - 1),
            columns=torch.tensor([[[3, 9]]]).expand(rows, 1, 2),
        )

    def __call__(self, logits: Tensor) -> Tensor:
        return logits[:, 0, 0] - logits[:, 0, 1]


def peer_metric(logits: Tensor) -> Tensor:
    """The same from whole logits, mean over examples, as transformer-lens wants it."""
    return (logits[:, -1, 3] - logits[:, -1, 9]).mean()


def clean_cache(model: Any, clean: Tensor) -> Any:
    """What every head reads on the clean prompts."""
    with torch.no_grad():
        names = [f"blocks.{layer}.attn.hook_z" for layer in range(LAYERS)]
        return model.run_with_cache(clean, names_filter=names)[1]


def peer_patch(model: Any, cache: Any, corrupt: Tensor, position: int | None) -> Tensor:
    """transformer-lens's patching of head 0 of every layer: one value a layer."""
    index = {"layer": range(LAYERS)}
    if position is None:
        setter = patching.layer_head_vector_patch_setter
    else:
        setter = patching.layer_pos_head_vector_patch_setter
        index["pos"] = [position] * LAYERS
    index["head"] = [0] * LAYERS
    with torch.no_grad():
        return patching.generic_activation_patch(
            model=model,
            corrupted_tokens=corrupt,
            clean_cache=cache,
            patching_metric=peer_metric,
            patch_setter=setter,
            activation_name="z",
            index_df=pd.DataFrame(index),
        )


def peer_splits(model: Any, cache: Any, corrupt: Tensor, layer: int) -> Tensor:
    """Twenty splits of a layer's heads at the last position, one forward pass with a hook each."""
    name = f"blocks.{layer}.attn.hook_z"

    def patch(activation: Tensor, hook: Any, heads: tuple[int, ...]) -> Tensor:
        activation[:, -1, list(heads)] = cache[name][:, -1, list(heads)]
        return activation

    values = []
    with torch.no_grad():
        for heads in islice(combinations(range(HEADS), HEADS // 2), SPLITS):
            hook = partial(patch, heads=heads)
            values.append(peer_metric(model.run_with_hooks(corrupt, fwd_hooks=[(name, hook)])))
    return torch.stack(values)


def agree(head_of_layers: Callable[[Any], Any], scale: float) -> Callable[[Any, Tensor], bool]:
    """Agreement of our effects with the peer's values, to 1e-5 of the logits' scale."""

    def check(ours: hs.HeadEffects, peer: Tensor) -> bool:
        values = torch.as_tensor(head_of_layers(ours)) + float(ours.base.mean())
        error = (values - peer.cpu()).abs().max().item()
        spread = peer.std().item()
        assert spread > 1e-3 * scale, f"the peer's effects are all alike ({spread:.2g})"
        return error <= 1e-5 * scale

    return check


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-class", default="bridge")
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    model = build_model(chosen.model_class, chosen.device)
    with torch.no_grad():
        scale = model(token_pairs(0, chosen.device)[0])[:, -1].std().item()
    print_header()
    cases = [
        ("z of 144 heads, all positions", 0, None),
        ("z of 144 heads, pairs that differ from the middle on", LENGTH // 2, None),
        ("z of 144 heads, last position", 0, -1),
    ]
    for name, first, position in cases:
        clean, corrupt = token_pairs(first, chosen.device)
        cache = clean_cache(model, clean)
        compare(
            name,
            lambda c=clean, d=corrupt, p=position: hs.patch_heads(
                model, c, d, LogitDifference(), positions=p
            ),
            lambda c=cache, d=corrupt, p=position: peer_patch(
                model, c, d, None if p is None else LENGTH - 1
            ),
            agree=agree(lambda ours: ours.effect[:, 0], scale),
            peer_scale=HEADS,
            memory=chosen.device == "cpu",
        )
    clean, corrupt = token_pairs(0, chosen.device)
    cache, layer = clean_cache(model, clean), LAYERS // 2
    splits = list(hs.equal_splits(layer, n_heads=HEADS))
    compare(
        f"all {len(splits)} splits of layer {layer}, last position (naive: {SPLITS} of them)",
        lambda: hs.patch_heads(
            model, clean, corrupt, LogitDifference(), heads=splits, positions=-1
        ),
        lambda: peer_splits(model, cache, corrupt, layer),
        agree=agree(lambda ours: ours.effect[:SPLITS], scale),
        peer_scale=len(splits) / SPLITS,
        memory=chosen.device == "cpu",
    )


if __name__ == "__main__":
    main()
