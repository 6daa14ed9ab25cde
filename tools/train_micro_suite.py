"""Train one size of the embedded suite: seeded, resumable, with snapshots at fixed steps.

    python tools/train_micro_suite.py --size micro --out runs/micro

A killed run goes on where it stopped and ends in the same weights. `finish_micro_suite.py` measures
the snapshots and puts them into the package.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from micro_data import KINDS, Mixture, Pools, batch, cached_pools
from micro_optim import SplitMuon
from safetensors.torch import save
from torch.nn import functional
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

STEPS = (0, 1, 4, 16, 64, 128, 256, 384, 512, 768, 1024, 1280, 1536, 2048, 3072, 4096, 6144)
LENGTH = 128


@dataclass(frozen=True)
class Size:
    """Shape of one size."""

    layers: int
    heads: int
    d_model: int
    mlp: int


SIZES = {
    "micro": Size(4, 12, 120, 240),
    "micro-small": Size(3, 8, 64, 128),
    "micro-tiny": Size(2, 6, 48, 96),
}


@dataclass(frozen=True)
class Recipe:
    """Everything beside shape and mixture that decides the weights."""

    rows: int = 32
    muon_lr: float = 0.02
    adam_lr: float = 3e-3
    weight_decay: float = 0.01
    warm_up: int = 50
    last_lr: float = 0.05
    seed: int = 0

    def scale(self, step: int) -> float:
        """Learning-rate factor: linear warm-up, then linear decay to `last_lr`."""
        decay = 1 - (1 - self.last_lr) * step / STEPS[-1]
        return min(1.0, (step + 1) / self.warm_up) * decay


def build_model(size: Size, *, vocab: int, end: int, seed: int) -> GPTNeoXForCausalLM:
    """A freshly initialised model: Pythia's architecture with all of each head rotary."""
    torch.manual_seed(seed)
    config = GPTNeoXConfig(
        vocab_size=vocab,
        hidden_size=size.d_model,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=size.mlp,
        max_position_embeddings=LENGTH,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 1.0,
        },
        use_parallel_residual=True,
        tie_word_embeddings=False,
        bos_token_id=end,
        eos_token_id=end,
    )
    return GPTNeoXForCausalLM(config)


def write_atomically(path: Path, data: bytes) -> None:
    """Nothing half-written is ever found under `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    os.replace(partial, path)


def snapshot(model: GPTNeoXForCausalLM, out: Path, step: int) -> None:
    """The weights in half precision, under Hugging Face's names."""
    tensors = {name: t.detach().half().contiguous() for name, t in model.state_dict().items()}
    write_atomically(out / f"step{step}" / "model.safetensors", save(tensors, {"format": "pt"}))


class Log:
    """Appends one line each `every` steps: losses by kind, learning rate, speed."""

    def __init__(self, path: Path, *, every: int = 32) -> None:
        self.path, self.every = path, every
        self.sums = np.zeros((len(KINDS), 2))
        self.since = time.monotonic()

    def add(self, step: int, losses: torch.Tensor, kinds: np.ndarray, *, lr: float) -> None:
        """Take in one batch's losses ``row pos``; ``step`` counts updates done."""
        per_row = losses.detach().mean(1).numpy()
        for kind, loss in zip(kinds, per_row, strict=True):
            self.sums[kind] += loss, 1
        if step % self.every:
            return
        seconds = time.monotonic() - self.since
        tokens = self.sums[:, 1].sum() * LENGTH
        with np.errstate(invalid="ignore"):
            by_kind = self.sums[:, 0] / self.sums[:, 1]
        row = {
            "step": step,
            "loss": f"{self.sums[:, 0].sum() / self.sums[:, 1].sum():.4f}",
            **{kind: f"{value:.4f}" for kind, value in zip(KINDS, by_kind, strict=True)},
            "muon_lr": f"{lr:.6f}",
            "tokens_per_second": round(tokens / seconds),
        }
        fresh = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            if fresh:
                writer.writeheader()
            writer.writerow(row)
        left = (STEPS[-1] - step) * seconds / self.every / 60
        print(f"step {step} loss {row['loss']} {seconds:.0f} s, {left:.0f} min left", flush=True)
        self.sums[:] = 0
        self.since = time.monotonic()

    def cut(self, step: int) -> None:
        """Drop lines beyond ``step``, written before a kill and about to be written again."""
        if self.path.exists():
            lines = self.path.read_text().splitlines(keepends=True)
            kept = [line for line in lines[1:] if int(line.split(",")[0]) <= step]
            write_atomically(self.path, "".join(lines[:1] + kept).encode())


def train(
    size: str, pools: Pools, *, out: Path, recipe: Recipe, mixture: Mixture, every: int = 256
) -> None:
    """Train to the last step, going on from ``out/resume.pt``, written `every` so many steps."""
    shape = SIZES[size]
    model = build_model(shape, vocab=len(pools.tokenizer), end=pools.end, seed=recipe.seed)
    optimizer = SplitMuon(
        model,
        muon_lr=recipe.muon_lr,
        adam_lr=recipe.adam_lr,
        weight_decay=recipe.weight_decay,
    )
    out.mkdir(parents=True, exist_ok=True)
    resume, log, start = out / "resume.pt", Log(out / "log.csv"), 0
    if resume.exists():
        state = torch.load(resume, weights_only=True)
        start = state["step"]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        log.cut(start)
    else:
        snapshot(model, out, 0)
    for step in range(start, STEPS[-1]):
        rows, kinds = batch(
            pools, mixture, step=step, rows=recipe.rows, length=LENGTH, seed=recipe.seed
        )
        tokens = torch.from_numpy(rows)
        logits = model(tokens, use_cache=False).logits[:, :-1]
        flat = functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), tokens[:, 1:].reshape(-1), reduction="none"
        )
        losses = flat.view(recipe.rows, -1)
        losses.mean().backward()
        optimizer.step(recipe.scale(step))
        done = step + 1
        log.add(done, losses, kinds, lr=recipe.muon_lr * recipe.scale(step))
        if done in STEPS:
            snapshot(model, out, done)
        if done % every == 0:
            state = {"step": done, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state, resume.with_suffix(".partial"))
            os.replace(resume.with_suffix(".partial"), resume)


def describe(size: str, pools: Pools, *, recipe: Recipe, mixture: Mixture) -> dict:
    """What the run was made of, for the log: no paths, no times, no machine names."""
    tokenizer = pools.tokenizer.backend_tokenizer.to_str()
    return {
        "size": asdict(SIZES[size]),
        "steps": list(STEPS),
        "recipe": asdict(recipe),
        "mixture": asdict(mixture),
        "corpus": pools.record,
        "tokenizer_sha256": hashlib.sha256(tokenizer.encode()).hexdigest(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="micro")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--pools", type=Path, help="file that keeps the encoded data")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe, mixture = Recipe(), Mixture()
    arguments.out.mkdir(parents=True, exist_ok=True)
    pools = cached_pools(arguments.pools or arguments.out / "pools.pkl", seed=recipe.seed)
    record = describe(arguments.size, pools, recipe=recipe, mixture=mixture)
    text = json.dumps(record, indent=1) + "\n"
    write_atomically(arguments.out / "record.json", text.encode())
    train(arguments.size, pools, out=arguments.out, recipe=recipe, mixture=mixture)


if __name__ == "__main__":
    main()
