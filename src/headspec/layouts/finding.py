"""Finding a layout's tensors in a checkpoint, under whatever prefix, and checking them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from numbers import Integral
from typing import Any

from torch import Tensor

from headspec.errors import CheckpointError, InputError
from headspec.layouts.configs import dimensions
from headspec.layouts.table import Layout


def model_prefix(row: Layout, layer: int, available: Collection[str]) -> str:
    """The model's own prefix, such as `"gpt_neox."`, found by the layer's first matrix."""
    anchor = f"{row.module.format(layer=layer)}.{next(iter(row.names.values()))}.weight"
    return find_tensor(anchor, available).removesuffix(anchor)


def find_tensor(ending: str, available: Collection[str], *others: str) -> str:
    """The one tensor of that name, or of another spelling of it, under any prefix.

    Raises:
        CheckpointError: there is none, or several.
    """
    endings = (ending, *others)
    called = " or ".join(endings)
    found = [n for n in available if any(n == end or n.endswith(f".{end}") for end in endings)]
    if len(found) == 1:
        return found[0]
    if found:
        raise CheckpointError(
            expected=f"one tensor called {called}, under any prefix",
            got=", ".join(sorted(found)),
            fix="Give the tensors of one model only.",
        )
    some = ", ".join(sorted(available)[:3])
    raise CheckpointError(
        expected=f"a tensor called {called}, under any prefix",
        got=f"{len(available)} tensors without it, such as {some}" if some else "no tensors",
        fix="Check that all shards are there and that config.json belongs to these weights.",
    )


def check_layer(config: Mapping[str, Any], layer: int) -> None:
    """Raise `InputError` unless the model has this layer."""
    n_layers = dimensions(config).n_layers
    if not isinstance(layer, Integral) or not 0 <= layer < n_layers:
        raise InputError(
            expected=f"a layer from 0 to {n_layers - 1}",
            got=f"layer {layer!r}",
            fix="Layers are counted from 0.",
        )


def check_present(names: Collection[str], available: Collection[str], *, hint: str = "") -> None:
    """Raise `CheckpointError` with the names of tensors that are not there."""
    missing = [name for name in names if name not in available]
    if missing:
        raise CheckpointError(
            expected=f"tensors {', '.join(names)}",
            got=f"a checkpoint without {', '.join(missing)}",
            fix="Check that all shards are there and that config.json belongs to these weights"
            f"{hint}.",
        )


def check_shape(name: str, tensor: Tensor, shape: tuple[int, ...], *, sizes: object) -> None:
    """Raise `CheckpointError` unless a tensor has the shape that the config's sizes ask for."""
    if tuple(tensor.shape) != shape:
        raise CheckpointError(
            expected=f"{name} of shape {list(shape)}",
            got=f"shape {list(tensor.shape)}",
            fix=f"The config says {sizes}; check that it belongs to these weights.",
        )
