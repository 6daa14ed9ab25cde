"""Interleaved timing of headspec against the naive way, with their agreement asserted.

    from harness import compare, print_header

    print_header()
    compare("sum", ours, peer, agree=lambda a, b: np.allclose(a, b))

prints a markdown row: median times, their ratio, and (with `memory=True`) peak memory.
"""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_COLUMNS = ("what", "ours", "naive way", "ratio", "peak ours", "peak naive way", "note")


@dataclass(frozen=True)
class Comparison:
    """Medians of one comparison; seconds and bytes (None where memory was not measured)."""

    name: str
    ours_seconds: float
    peer_seconds: float
    ours_bytes: int | None
    peer_bytes: int | None
    repeats: int
    note: str = ""

    @property
    def ratio(self) -> float:
        """How many times faster ours is."""
        return self.peer_seconds / self.ours_seconds

    @property
    def row(self) -> str:
        """The comparison as a row of the markdown table."""
        cells = (
            self.name,
            _time(self.ours_seconds),
            _time(self.peer_seconds),
            f"{self.ratio:,.1f}x" if self.ratio < 100 else f"{self.ratio:,.0f}x",
            _size(self.ours_bytes),
            _size(self.peer_bytes),
            f"median of {self.repeats}" + (f"; {self.note}" if self.note else ""),
        )
        return "| " + " | ".join(cells) + " |"


def print_header() -> None:
    """Print the head of the markdown table that `compare` adds rows to."""
    print("| " + " | ".join(_COLUMNS) + " |")
    print("|" + "---|" * len(_COLUMNS))


def compare(
    name: str,
    ours: Callable[[], Any],
    peer: Callable[[], Any],
    *,
    agree: Callable[[Any, Any], Any],
    repeats: int = 5,
    memory: bool = False,
    peer_scale: float = 1.0,
    note: str = "",
) -> Comparison:
    """Time two ways of computing the same thing in turns and print a markdown row.

    The runs alternate (ours, peer, ours, peer, ...), so that a busy machine slows both. Before
    timing, one run of each warms up and is checked for agreement.

    Args:
        name: what is computed.
        ours, peer: functions without arguments.
        agree: given both results, returns False or raises when they do not agree.
        repeats: timed runs of each, at least 5.
        memory: also measure the growth of peak resident memory during the warm-up runs.
        peer_scale: the peer does only 1/`peer_scale` of the work and its time is multiplied by
            this number; the row says so.
        note: added to the row.

    Raises:
        AssertionError: when the results do not agree.
    """
    if repeats < 5:
        raise ValueError(f"expected at least 5 repeats; got {repeats}. Medians of fewer mislead.")
    our_result, our_bytes = _peak(ours) if memory else (ours(), None)
    peer_result, peer_bytes = _peak(peer) if memory else (peer(), None)
    if agree(our_result, peer_result) is False:
        raise AssertionError(f"{name}: the two results do not agree")
    del our_result, peer_result
    our_times, peer_times = [], []
    for _ in range(repeats):
        our_times.append(_seconds(ours))
        peer_times.append(_seconds(peer))
    if peer_scale != 1:
        note = f"naive time extrapolated x{peer_scale:g}" + (f"; {note}" if note else "")
    result = Comparison(
        name=name,
        ours_seconds=statistics.median(our_times),
        peer_seconds=statistics.median(peer_times) * peer_scale,
        ours_bytes=our_bytes,
        peer_bytes=peer_bytes,
        repeats=repeats,
        note=note,
    )
    print(result.row, flush=True)
    return result


def _seconds(function: Callable[[], Any]) -> float:
    gc.collect()
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _peak(function: Callable[[], Any]) -> tuple[Any, int | None]:
    """Run `function`; also the growth of this process's peak resident memory (Linux only)."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        before = _status("VmRSS")
    except OSError:
        return function(), None
    result = function()
    return result, max(0, _status("VmHWM") - before)


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")


def _time(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:,.2f} s"
    return f"{seconds * 1e3:.3g} ms"


def _size(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:,.0f} MB"
