"""One process or several under `torchrun`: who writes, who reads which rows, what is shared."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from headspec.errors import InputError


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        device: where this process computes.
        rank: number of this process.
        count: number of processes.
    """

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def mean(self, value: Tensor) -> Tensor:
        """Mean of a tensor over all processes."""
        if self.count == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total / self.count

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.count == 1:
            return flag
        total = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(total)
        return bool(total > 0)

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, in order of rank."""
        values: list[Any] = [value] * self.count
        if self.count > 1:
            dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def joined_processes(device: str | torch.device | None = None) -> Iterator[Processes]:
    """Join the processes that `torchrun` started, or be the only one.

    A process group that exists already is used and left; otherwise one is made (NCCL on CUDA,
    Gloo on the CPU) and taken down at the end.

    Args:
        device: where to compute; None: CUDA if there is one (`cuda:LOCAL_RANK` under torchrun),
            else the CPU.

    Raises:
        InputError: no such device.
    """
    several = dist.is_available() and (
        dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) > 1
    )
    if device is None:
        local = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if several else "cuda"
        device = local if torch.cuda.is_available() else "cpu"
    device = _existing(device)
    if not several:
        yield Processes(device)
        return
    mine = not dist.is_initialized()
    if mine:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            yield Processes(device, dist.get_rank(), dist.get_world_size())
    finally:
        if mine:
            dist.destroy_process_group()


def _existing(device: str | torch.device) -> torch.device:
    """A device that is here."""
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        there = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        raise InputError(
            expected=f"a device of this machine: {', '.join(['cpu', *there])}",
            got=f"{str(device)!r}",
            fix="Leave device=None to take CUDA where there is one, else the CPU.",
        ) from error
    return found
