"""Checks of every checkpoint of a suite before anything is averaged over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch

from headspec.checkpoints import readers
from headspec.checkpoints.hub import HubSource
from headspec.checkpoints.hub_repo import content_of
from headspec.checkpoints.source import Source
from headspec.checkpoints.trajectory import (
    Sampler,
    detours,
    find_misplaced,
    orderliness,
    path_distances,
)
from headspec.errors import CheckpointError, HubUnreachableError

COLUMNS = (
    "model",
    "step",
    "revision",
    "ok",
    "problems",
    "content_hash",
    "duplicate_of",
    "missing",
    "truncated",
    "n_nan",
    "n_inf",
    "distance_previous",
    "distance_next",
    "detour",
    "order",
    "n_files",
    "n_bytes",
)

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass
class _Inspection:
    """What was found out about one step."""

    step: int
    content_hash: str | None = None
    other_format: str | None = None
    missing: list[str] = field(default_factory=list)
    truncated: bool = False
    n_nan: int | None = None
    n_inf: int | None = None
    n_files: int = 0
    n_bytes: int = 0
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    sample: np.ndarray | None = None
    problems: list[str] = field(default_factory=list)


def verify_source(source: Source, *, steps: Sequence[int], deep: bool) -> pd.DataFrame:
    """Check the checkpoints of a source; see `CheckpointSuite.verify`."""
    if isinstance(source, HubSource) and not deep:  # waiting for answers, not for the processor
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda step: _inspect(source, step, deep=False), steps))
    else:
        found = [_inspect(source, step, deep=deep) for step in steps]
    duplicates = _find_duplicates(found)
    _compare_shapes(found)
    geometry = _compare_neighbours(found)
    rows = [
        {
            "model": source.name,
            "step": one.step,
            "revision": source.revisions[one.step],
            "ok": not one.problems,
            "problems": "; ".join(one.problems),
            "content_hash": one.content_hash,
            "duplicate_of": duplicates.get(one.step),
            "missing": ", ".join(one.missing),
            **{name: getattr(one, name) for name in ("truncated", "n_nan", "n_inf")},
            **geometry.get(one.step, {}),
            "n_files": one.n_files,
            "n_bytes": one.n_bytes,
        }
        for one in found
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    whole = dict.fromkeys(("duplicate_of", "n_nan", "n_inf"), "Int64")
    real = dict.fromkeys(("distance_previous", "distance_next", "detour", "order"), "float64")
    return frame.astype({**whole, **real})


def _inspect(source: Source, step: int, *, deep: bool) -> _Inspection:
    one = _Inspection(step)
    try:
        files = source.files(step)
        source.config(step)
        names = source.weight_files(step)
        one.missing = [name for name in names if name not in files]
        if one.missing:
            one.problems.append(f"missing files: {', '.join(one.missing)}")
        present = [name for name in names if name in files]
        one.n_files, one.n_bytes = len(present), sum(files[name].size for name in present)
        _inspect_headers(source, one, present)
        if not one.missing:
            one.content_hash = source.fingerprint(step)
        if "pytorch_model.bin" in files and "pytorch_model.bin" not in names:
            one.other_format = files["pytorch_model.bin"].content
        if deep and not one.missing and not one.truncated:
            _inspect_values(source, one, names)
    except HubUnreachableError:
        raise  # says nothing about the checkpoint
    except CheckpointError as error:
        one.problems.append(f"cannot be read: expected {error.expected}, got {error.got}")
    return one


def _inspect_headers(source: Source, one: _Inspection, names: Iterable[str]) -> None:
    """Do safetensors files have the length that their header says, and the index's tensors?"""
    where = None
    for name in names:
        if not name.endswith(".safetensors"):
            continue
        header, size = source.header(one.step, name), source.files(one.step)[name].size
        one.shapes.update({tensor: spec.shape for tensor, spec in header.tensors.items()})
        if header.n_bytes != size:
            one.truncated = one.truncated or header.n_bytes > size
            one.problems.append(
                f"{name} is {'truncated' if header.n_bytes > size else 'too long'}: {size:,} "
                f"bytes instead of {header.n_bytes:,}"
            )
        where = where if where is not None else source.weight_map(one.step)
        lost = [t for t, file in where.items() if file == name and t not in header.tensors]
        if lost:
            one.problems.append(f"{name} lacks {len(lost)} tensors of the index: {lost[0]} ...")


def _inspect_values(source: Source, one: _Inspection, names: Sequence[str]) -> None:
    """Count NaN and Inf, and take the sample that distances are computed from."""
    one.n_nan = one.n_inf = 0
    paths = [source.fetch(one.step, name) for name in names]
    for path, name in zip(paths, names, strict=True):
        listed = source.file_hash(one.step, name)
        if isinstance(source, HubSource) and content_of(path, listed) != listed:
            one.problems.append(f"other content in the cache than the Hub lists: {path}")
    for path in paths:
        if path.suffix != ".safetensors":
            one.shapes.update(readers.tensor_shapes(path))
    sampler, parts = Sampler(one.shapes), {}
    for path in paths:
        for name, tensor in readers.iterate_tensors(path):
            if not tensor.is_floating_point() or tensor.numel() < 2:
                continue  # masks and scalar constants: Pythia's fp16 masked_bias is -inf
            values = tensor if tensor.dtype in _FLOATS else tensor.float()
            if not all(bound.isfinite() for bound in torch.aminmax(values)):  # NaN passes through
                one.n_nan += int(torch.isnan(values).sum())
                one.n_inf += int(torch.isinf(values).sum())
            parts[name] = sampler.take(name, values)
    if one.n_nan or one.n_inf:
        one.problems.append(f"{one.n_nan} NaN and {one.n_inf} infinite entries")
    elif parts:
        one.sample = np.concatenate([parts[name] for name in sorted(parts)])


def _find_duplicates(found: Sequence[_Inspection]) -> dict[int, int]:
    """step -> earliest other step with identical weights."""
    groups: dict[str, list[_Inspection]] = {}
    for one in found:
        if one.content_hash is not None:
            groups.setdefault(one.content_hash, []).append(one)
    duplicates: dict[int, int] = {}
    for group in (group for group in groups.values() if len(group) > 1):
        for one in group:
            others = [other for other in group if other is not one]
            duplicates[one.step] = others[0].step
            same = ", ".join(str(other.step) for other in others[:3])
            text = f"identical to step {same}" + (" ..." if len(others) > 3 else "")
            if {one.step, *(other.step for other in others)} == {0, 1}:
                text += " (usual where the first update has learning rate 0, as in Pythia)"
            kinds = {other.other_format for other in others} - {None, one.other_format}
            if one.other_format is not None and kinds:
                text += ", while pytorch_model.bin differs: one of the two formats is wrong"
            one.problems.append(text)
    _find_shared_files(found)
    return duplicates


def _find_shared_files(found: Sequence[_Inspection]) -> None:
    """Name the steps that have some, not all, of their files of weights in common with another."""
    holders: dict[str, list[_Inspection]] = {}
    for one in found:
        parts = (one.content_hash or "").split("+")
        for part in set(parts) if len(parts) > 1 else ():
            holders.setdefault(part, []).append(one)
    for one in found:
        others = {
            other.step
            for part in (one.content_hash or "").split("+")
            for other in holders.get(part, ())
            if other.content_hash != one.content_hash
        }
        if others:
            named = ", ".join(map(str, sorted(others)[:3])) + (" ..." if len(others) > 3 else "")
            one.problems.append(f"has a file of weights in common with step {named}")


def _compare_shapes(found: Sequence[_Inspection]) -> None:
    """Name the steps whose tensors are not those of most steps."""
    keys = {one.step: tuple(sorted(one.shapes.items())) for one in found if one.shapes}
    if len(set(keys.values())) < 2:
        return
    usual = Counter(keys.values()).most_common(1)[0][0]
    for one in found:
        if one.shapes and keys[one.step] != usual:
            name, shape = sorted(set(usual) ^ set(keys[one.step]))[0]
            one.sample = None
            one.problems.append(f"other tensors than most steps have, such as {name} {list(shape)}")


def _compare_neighbours(found: Sequence[_Inspection]) -> dict[int, dict[str, float]]:
    """Distances between neighbouring steps; flags steps that are out of line."""
    line = [one for one in found if one.sample is not None]
    samples = [one.sample for one in line if one.sample is not None]
    if len({len(sample) for sample in samples}) != 1:
        return {}
    distances = path_distances(samples)
    table = pd.DataFrame(
        {
            "distance_previous": np.r_[np.nan, np.diag(distances, 1)],
            "distance_next": np.r_[np.diag(distances, 1), np.nan],
            "detour": detours(distances),
            "order": orderliness(distances),
        },
        index=[one.step for one in line],
    )
    for position in find_misplaced(distances):
        beside = line[max(0, position - 1) : position] + line[position + 1 : position + 2]
        others = np.where(np.arange(len(line)) == position, np.inf, distances[position])
        line[position].problems.append(
            "distance out of line with its neighbours, step "
            f"{' and step '.join(str(one.step) for one in beside)}; the weights lie nearest to "
            f"those of step {line[int(np.argmin(others))].step}"
        )
    return {int(step): row for step, row in table.to_dict("index").items()}  # pyright: ignore
