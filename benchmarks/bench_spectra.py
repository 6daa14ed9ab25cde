"""Spectral statistics of weight matrices against an SVD with vectors for each.

    .venv/bin/python benchmarks/bench_spectra.py [--layers 12] [--vocabulary 50304]

The naive way is the usual starter code: `torch.linalg.svd` in float32 with vectors, then
statistics of the values. Random weights of the shape of Pythia-160m: 12 layers of Q, K, V, O
(768 x 768) and an MLP (768 x 3072), vocabulary 50,304. The last rows read a checkpoint of that
shape in float16 (325 MB, in the system's cache) from a temporary folder, embeddings included:
naively with `from_pretrained` in float32.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from harness import compare, print_header
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, logging

from headspec import open_suite, spectral_stats


def starter_statistics(matrix: Tensor) -> dict[str, float]:
    """What the usual starter code computes for a matrix."""
    _, values, _ = torch.linalg.svd(matrix.detach().float(), full_matrices=False)
    s = values.numpy()
    frobenius = np.sqrt(np.sum(s**2))
    p = s / s.sum()
    p = p[p > 0]
    return {
        "spectral_norm": s[0],
        "frobenius_norm": frobenius,
        "stable_rank": frobenius**2 / s[0] ** 2,
        "effective_rank": np.exp(-np.sum(p * np.log(p))),
        "top_10_variance": np.sum(s[:10] ** 2) / np.sum(s**2),
        "participation_ratio": np.sum(s**2) ** 2 / np.sum(s**4),
    }


def our_statistics(matrix: Tensor, stats: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
    """The same (and with `stats=None` more) from headspec."""
    return spectral_stats(matrix, stats=stats).named()


def agree(ours: dict | list[dict], peer: dict | list[dict]) -> None:
    """The same numbers to 1e-4, which is what sums in float32 allow."""
    pairs = [(ours, peer)] if isinstance(ours, dict) else zip(ours, peer, strict=False)
    for one, other in pairs:
        shared = set(one) & set(other)
        assert shared
        for name in shared:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-4, err_msg=name)


def random_layer(generator: torch.Generator) -> list[Tensor]:
    """Q, K, V, O, MLP in and out of a layer, `[d_in d_out]`."""
    shapes = [(768, 768)] * 4 + [(768, 3072), (3072, 768)]
    return [0.02 * torch.randn(shape, generator=generator) for shape in shapes]


def write_checkpoint(folder: Path, *, layers: int, vocabulary: int) -> None:
    """A suite of one random step in float16."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPTNeoXConfig(
            vocab_size=vocabulary,
            hidden_size=768,
            num_hidden_layers=layers,
            num_attention_heads=12,
            intermediate_size=3072,
            tie_word_embeddings=False,
        )
        model = GPTNeoXForCausalLM(config)
    model.half().save_pretrained(folder / "step0")


def our_model(folder: Path) -> list[dict]:
    """All statistics of every matrix of the checkpoint, embeddings included."""
    checkpoint = open_suite(folder).checkpoint(0)
    found = []
    for layer in range(checkpoint.n_layers):
        found += [our_statistics(matrix) for matrix in checkpoint.layer_matrices(layer).values()]
    return found + [our_statistics(table) for table in checkpoint.embedding_matrices().values()]


def starter_model(folder: Path) -> list[dict]:
    """The starter code's statistics of the same matrices, from the whole model."""
    model = GPTNeoXForCausalLM.from_pretrained(folder / "step0", dtype=torch.float32)
    found = []
    for layer in model.gpt_neox.layers:
        fused = layer.attention.query_key_value.weight.view(12, 3, 64, 768)
        matrices = [fused[:, part].reshape(768, 768) for part in range(3)]
        matrices += [layer.attention.dense.weight]
        matrices += [layer.mlp.dense_h_to_4h.weight, layer.mlp.dense_4h_to_h.weight]
        found += [starter_statistics(matrix) for matrix in matrices]
    tables = (model.get_input_embeddings().weight, model.get_output_embeddings().weight)
    return found + [starter_statistics(table) for table in tables]


def compare_matrices(layers: int) -> None:
    """A matrix alone, in three depths, then all matrices of a model in memory."""
    generator = torch.Generator().manual_seed(0)
    model = [random_layer(generator) for _ in range(layers)]
    for matrix in (model[0][0], model[0][4]):
        shape = " x ".join(map(str, matrix.shape))
        for what, stats in (
            ("all statistics", None),
            ("Frobenius norm and participation ratio", ("frobenius_norm", "participation_ratio")),
            ("spectral norm", ("spectral_norm",)),
        ):
            compare(
                f"{what} of one matrix, {shape}",
                lambda matrix=matrix, stats=stats: our_statistics(matrix, stats),
                lambda matrix=matrix: starter_statistics(matrix),
                agree=agree,
            )
    compare(
        f"all statistics of {6 * layers} matrices of {layers} layers",
        lambda: [our_statistics(matrix) for layer in model for matrix in layer],
        lambda: [starter_statistics(matrix) for matrix in model[0]],
        agree=agree,
        peer_scale=layers,
    )


def compare_checkpoint(*, layers: int, vocabulary: int) -> None:
    """A checkpoint on disk, reading included; then everything that `WeightMeasure` computes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoint(folder, layers=layers, vocabulary=vocabulary)
        compare(
            f"all statistics of every matrix of a checkpoint, {layers} layers, read from disk",
            lambda: our_model(folder),
            lambda: starter_model(folder),
            agree=agree,
            memory=True,
        )
        seconds = statistics.median(measure_seconds(folder) for _ in range(5))
        print(f"\nWeightMeasure on the same checkpoint: {seconds:.2f} s (median of 5)")


def measure_seconds(folder: Path) -> float:
    """Wall time of the ready measure: also circuits of heads, tail exponents and spectra."""
    from headspec import WeightMeasure

    start = time.perf_counter()
    frame = WeightMeasure()(open_suite(folder).checkpoint(0))
    assert frame["value"].notna().any()
    return time.perf_counter() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--vocabulary", type=int, default=50304)
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    print(f"{torch.get_num_threads()} threads\n")
    print_header()
    compare_matrices(arguments.layers)
    compare_checkpoint(layers=arguments.layers, vocabulary=arguments.vocabulary)
