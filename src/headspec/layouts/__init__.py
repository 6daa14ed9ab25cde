"""Tensor names and shapes of each architecture, and how they become `HeadWeights`."""

from headspec.layouts.configs import (
    Dimensions,
    architecture,
    dimensions,
    n_heads,
    n_layers,
    rotary,
)
from headspec.layouts.reading import head_tensor_names, head_weights_from_tensors
from headspec.layouts.table import LAYOUTS, Layout

__all__ = [
    "LAYOUTS",
    "Dimensions",
    "Layout",
    "architecture",
    "dimensions",
    "head_tensor_names",
    "head_weights_from_tensors",
    "n_heads",
    "n_layers",
    "rotary",
]
