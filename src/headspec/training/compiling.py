"""`torch.compile` where it pays, and never a run that fails because of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

from headspec.errors import check_choice

# Compiling takes a minute or more and then saves 40 % of the time (measured on a CPU, 3.8 million
# parameters): it pays from about four minutes of uncompiled training on. For CUDA an estimate.
_WORTH_CPU_FLOPS = 6e13
_WORTH_CUDA_FLOPS = 2e16


class CompileWarning(UserWarning):
    """torch.compile did not work; the run goes on without it."""


def choose_compile(choice: str, *, device: torch.device, flops: float | int) -> bool:
    """Whether to compile.

    A rule on the size of the run and not on timings, so that a run and its resumption, or two
    conditions of one study, never differ in it.

    Args:
        choice: "on", "off", or "auto".
        device: where the run computes.
        flops: floating-point operations of the whole run, about 6 x parameters x tokens.
    """
    check_choice("compile", choice, ("auto", "on", "off"))
    if choice != "auto":
        return choice == "on"
    return flops >= (_WORTH_CUDA_FLOPS if device.type == "cuda" else _WORTH_CPU_FLOPS)


def compile_loss(loss_function: Callable[..., Any]) -> Callable[..., Any]:
    """The loss function, model included, compiled on its first call."""
    return torch.compile(loss_function)


def warn_uncompiled(error: Exception) -> None:
    """Say that the run goes on uncompiled, and why."""
    lines = str(error).strip().splitlines() or [""]
    warnings.warn(
        f"torch.compile failed ({type(error).__name__}: {lines[0][:200]}); training goes on "
        "without it. Set compile='off' to silence this.",
        CompileWarning,
        stacklevel=2,
    )
