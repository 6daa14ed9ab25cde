"""An update of a 3.5-million-parameter Qwen3 against plain float32 loops.

    .venv/bin/python benchmarks/bench_training.py [--threads 2] [--batch 64] [--no-compile]

All loops start from the same weights, read the same batches and train every parameter with the
same optimisers (Muon and AdamW), except where the row says AdamW: a HookedTransformer keeps its
matrices as `head d_model d_head`, which Muon does not take. It needs transformer-lens 3.9; the row
is left out elsewhere. Compilation is warmed up before anything is timed; its time is printed.
On CUDA, a last line gives the share of the chip's peak (`--peak` TFLOP/s) at the size `--preset`.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from harness import compare, print_header
from torch import Tensor, nn

from headspec import MiniQwenConfig, OptimizerConfig, build_mini_qwen
from headspec.training.language_models import next_token_loss
from headspec.training.optimizers import build_optimizers
from headspec.training.processes import Processes
from headspec.training.recorder import Recorder
from headspec.training.session import Session, autocast
from headspec.training.task import LoopSettings, Task

STEPS = 10**6


def batches(config: MiniQwenConfig, batch_size: int) -> Callable[[int], Tensor]:
    """Random tokens with a structure that can be learned: each row repeats four of them."""

    def batch(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        rows = torch.randint(config.vocab_size, (batch_size, 4), generator=generator)
        return rows.repeat(1, config.max_positions // 4)

    return batch


def our_loop(model: Any, batch: Any, *, precision: str, compiled: bool) -> Callable[[], float]:
    """An update of headspec's loop; each call is the next one and gives its loss."""
    device = next(model.parameters()).device
    tokens = batch(0).numel()
    task = Task(
        model=model,
        batch=batch,
        loss=next_token_loss,
        optimizers=build_optimizers(model, OptimizerConfig()),
        write=lambda folder: None,
    )
    settings = LoopSettings(
        steps=STEPS, checkpoints=(), batch_tokens=tokens, precision=precision, compile=compiled
    )
    folder = Path(tempfile.mkdtemp())
    recorder = Recorder(folder, start=None, steps=STEPS, batch_tokens=tokens, progress=False)
    session = Session(task, settings, folder, processes=Processes(device), recorder=recorder)
    if compiled:
        began = time.perf_counter()
        with autocast(precision, device):
            loss = session.loss(model, batch(0).to(device))
        loss.backward()
        model.zero_grad()
        print(f"(compiled in {time.perf_counter() - began:.0f} s)")
    counted = iter(range(STEPS))
    return lambda: session.update(next(counted)).item()


def plain_loop(
    model: nn.Module, batch: Any, loss_of: Callable[[nn.Module, Tensor], Tensor], *, muon: bool
) -> Callable[[], float]:
    """An update as one writes it: float32, `loss.backward()`, clip, step."""
    device = next(model.parameters()).device
    if muon:
        optimizers = [*build_optimizers(model, OptimizerConfig()).values()]
    else:
        optimizers = [torch.optim.AdamW(model.parameters(), lr=3e-4)]
    counted = iter(range(STEPS))

    def update() -> float:
        loss = loss_of(model, batch(next(counted)).to(device))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return loss.item()

    return update


def agree(ours: float, peer: float) -> None:
    """The first loss to four digits; bfloat16 has three for a single number, a mean has more."""
    assert abs(ours - peer) < 5e-4 * peer, (ours, peer)


def compare_loops(config: MiniQwenConfig, *, batch_size: int, device: str, compiles: bool) -> None:
    """A row for each way of training."""
    start = build_mini_qwen(config).to(device)
    batch = batches(config, batch_size)

    def plain() -> Callable[[], float]:
        model = copy.deepcopy(start)
        return plain_loop(
            model, batch, lambda model, rows: model(input_ids=rows, labels=rows).loss, muon=True
        )

    def ours(precision: str, compiled: bool) -> Callable[[], float]:
        return our_loop(copy.deepcopy(start), batch, precision=precision, compiled=compiled)

    what = f"update of {config.n_parameters / 1e6:.1f} M parameters, {batch_size} x "
    what += str(config.max_positions)
    ways = [("fp32", False), ("bf16", False)] + ([("bf16", True)] if compiles else [])
    for precision, compiled in ways:
        name = f"{what}, {precision}{', compiled' if compiled else ''}, against plain fp32"
        compare(name, ours(precision, compiled), plain(), agree=agree, memory=True)
    hooked = hooked_loop(start, batch)
    if hooked is not None:
        name = f"{what}, {ways[-1][0]}{', compiled' if compiles else ''}, against HookedTransformer"
        compare(name, ours(*ways[-1]), hooked, agree=agree, note="AdamW alone for the peer")


def hooked_loop(start: nn.Module, batch: Any) -> Callable[[], float] | None:
    """The same model as a HookedTransformer; None where the installed release has none."""
    from headspec.errors import InputError
    from headspec.lens.models import wrap_model

    try:
        model: Any = wrap_model(copy.deepcopy(start), model_class="hooked_transformer")
    except InputError:
        return None
    model.train()
    return plain_loop(model, batch, lambda model, rows: model(rows, return_type="loss"), muon=False)


def flops_per_token(config: MiniQwenConfig) -> float:
    """Forward and backward: 6 for each weight of a product, and causal attention."""
    embeddings = config.vocab_size * config.hidden_size
    weights = config.n_parameters - (0 if config.tie_embeddings else embeddings)
    attention = 12 * config.n_layers * config.n_heads * config.d_head * config.max_positions / 2
    return 6.0 * weights + attention


def print_utilisation(config: MiniQwenConfig, *, batch_size: int, peak: float) -> None:
    """Tokens a second and the share of the chip's peak, in bf16, compiled."""
    model = build_mini_qwen(config).to("cuda")
    update = our_loop(model, batches(config, batch_size), precision="bf16", compiled=True)
    for _ in range(10):
        update()
    began = time.perf_counter()
    for _ in range(50):
        update()
    speed = 50 * batch_size * config.max_positions / (time.perf_counter() - began)
    share = speed * flops_per_token(config) / (peak * 1e12)
    print(
        f"\n{config.n_parameters / 1e6:.1f} M parameters, {batch_size} x {config.max_positions}: "
        f"{speed:,.0f} tokens/s, {share:.0%} of {peak:g} TFLOP/s"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--preset", default="run1")
    parser.add_argument("--peak", type=float, default=790.0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = replace(MiniQwenConfig.preset("sanity"), d_mlp=752)  # 3.5 million parameters
    print(f"{options.device}, {options.threads} threads\n")
    print_header()
    compare_loops(config, batch_size=options.batch, device=options.device, compiles=options.compile)
    if options.device.startswith("cuda"):
        print_utilisation(
            MiniQwenConfig.preset(options.preset), batch_size=options.batch, peak=options.peak
        )


if __name__ == "__main__":
    main()
