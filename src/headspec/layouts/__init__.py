"""Tensor names and shapes of each architecture: how they become heads and matrices."""

from headspec.layouts.configs import (
    Dimensions,
    architecture,
    dimensions,
    n_heads,
    n_layers,
    rotary,
)
from headspec.layouts.matrices import (
    EMBEDDINGS,
    MATRICES,
    embedding_matrices_from_tensors,
    embedding_names,
    layer_matrices_from_tensors,
    layer_matrix_names,
)
from headspec.layouts.reading import head_tensor_names, head_weights_from_tensors
from headspec.layouts.table import LAYOUTS, Layout

__all__ = [
    "EMBEDDINGS",
    "LAYOUTS",
    "MATRICES",
    "Dimensions",
    "Layout",
    "architecture",
    "dimensions",
    "embedding_matrices_from_tensors",
    "embedding_names",
    "head_tensor_names",
    "head_weights_from_tensors",
    "layer_matrices_from_tensors",
    "layer_matrix_names",
    "n_heads",
    "n_layers",
    "rotary",
]
