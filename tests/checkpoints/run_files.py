"""Training runs of tiny random models, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from zoo import tiny_model

STEPS = (0, 1, 2, 4, 1000)

PYTHIA_STEPS = (0, *(2**i for i in range(10)), *range(1000, 144000, 1000))
"""The 154 steps of every Pythia model."""

HEAD_FIELDS = ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O", "q_norm", "k_norm")


def folder_files(folder: Path) -> dict[str, bytes]:
    """name -> content of the files in a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def as_bin(files: dict[str, bytes], folder: Path) -> dict[str, bytes]:
    """The same checkpoint with `pytorch_model.bin` instead of safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(load(files["model.safetensors"]), folder / "pytorch_model.bin")
    kept = {name: data for name, data in files.items() if name != "model.safetensors"}
    return {**kept, "pytorch_model.bin": (folder / "pytorch_model.bin").read_bytes()}


def save_run(root: Path, weights: dict[int, dict[str, torch.Tensor]], config: str) -> Path:
    """A local suite out of tensors."""
    for step, tensors in weights.items():
        folder = root / f"step{step}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(config)
        (folder / "model.safetensors").write_bytes(save(tensors))
    return root


def drifting_run(steps: tuple[int, ...], *, seed: int = 0) -> dict[int, dict[str, torch.Tensor]]:
    """Weights of a zoo model on a random walk in log steps, as training makes them."""
    generator = torch.Generator().manual_seed(seed)
    weights = dict(tiny_model("gpt_neox", seed=seed).state_dict())
    run: dict[int, dict[str, torch.Tensor]] = {}
    for step in steps:
        weights = {
            name: tensor + 0.05 * torch.randn(tensor.shape, generator=generator)
            for name, tensor in weights.items()
        }
        run[step] = {name: tensor.clone() for name, tensor in weights.items()}
    return run


def assert_same_heads(ours: Any, theirs: Any) -> None:
    """Bit for bit."""
    for name in HEAD_FIELDS:
        one, other = getattr(ours, name), getattr(theirs, name)
        assert (one is None) == (other is None), name
        if one is not None:
            assert one.dtype == other.dtype, name
            assert torch.equal(one, other), name
    assert ours.rotary == theirs.rotary
