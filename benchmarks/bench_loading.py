"""Attention weights out of a checkpoint: only their tensors, against `from_pretrained`.

A random GPT-NeoX of the shape of pythia-160m (325 MB in float16) is written to a temporary folder.
Both ways give the norm of every head's W_Q, W_K, W_V and W_O; the norms must agree. Peak memory is
measured in processes of their own, above what they hold once everything is imported. Both ways run
on one thread, with the file in the system's cache.

    python benchmarks/bench_loading.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from harness import compare, print_header
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from headspec import open_suite

SHAPE = {
    "vocab_size": 50304,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "tie_word_embeddings": False,
}
LAYERS = range(12)


def write_checkpoint(folder: Path) -> None:
    """A suite of one random step in float16."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE))
    model.half().save_pretrained(folder / "step0")


def stream_norms(folder: Path, layers: Iterable[int]) -> Tensor:
    """`layer 4 head`: Frobenius norms of W_Q, W_K, W_V, W_O, reading only those tensors."""
    suite = open_suite(folder)
    rows = []
    for layer in layers:
        weights = suite.head_weights(0, layer)
        matrices = (weights.W_Q, weights.W_K, weights.W_V, weights.W_O)
        rows.append(torch.stack([norms(matrix) for matrix in matrices]))
    return torch.stack(rows)


def load_norms(folder: Path, layers: Iterable[int]) -> Tensor:
    """The same from the whole model in float32."""
    model = GPTNeoXForCausalLM.from_pretrained(folder / "step0", dtype=torch.float32)
    rows = []
    for layer in layers:
        attention = model.gpt_neox.layers[layer].attention
        fused = attention.query_key_value.weight.detach().view(12, 3, 64, 768)
        out = attention.dense.weight.detach().view(768, 12, 64).permute(1, 2, 0)
        matrices = (fused[:, 0], fused[:, 1], fused[:, 2], out)
        rows.append(torch.stack([norms(matrix) for matrix in matrices]))
    return torch.stack(rows)


def norms(matrices: Tensor) -> Tensor:
    """Frobenius norm of every head's matrix, summed in float32."""
    return torch.linalg.vector_norm(matrices, dim=(1, 2), dtype=torch.float32)


def agree(ours: Tensor, peer: Tensor) -> bool:
    """Whether the norms are the same, up to the rounding of sums."""
    return torch.allclose(ours, peer, rtol=1e-5)


def peak_bytes(way: str, folder: Path, layers: list[int]) -> int:
    """Growth of peak resident memory in a fresh process that runs one of the two ways.

    (ru_maxrss would not do: a new process inherits the mark of the one that started it.)
    """
    code = (
        "import json, sys, bench_loading, harness\n"
        "from pathlib import Path\n"
        "from headspec.checkpoints import suite\n"
        "way, folder, layers = json.loads(sys.argv[1])\n"
        "run = lambda: getattr(bench_loading, way)(Path(folder), layers)\n"
        "print(harness._peak(run)[1])\n"
    )
    return int(
        subprocess.run(
            [sys.executable, "-c", code, json.dumps([way, str(folder), layers])],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )


def main() -> None:
    """Print the table."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(1)  # threads of small operations wait for each other on a busy machine
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoint(folder)
        print_header()
        for what, layers in (("all attention weights", [*LAYERS]), ("layer 6", [6])):
            ours, peer = (peak_bytes(w, folder, layers) for w in ("stream_norms", "load_norms"))
            compare(
                f"{what} of a 325 MB fp16 checkpoint, against from_pretrained in float32",
                lambda layers=layers: stream_norms(folder, layers),
                lambda layers=layers: load_norms(folder, layers),
                agree=agree,
                repeats=7,
                note=f"peak {ours / 1e6:.0f} MB, naive {peer / 1e6:.0f} MB: {peer / ours:.0f}x",
            )


if __name__ == "__main__":
    main()
