"""Token ids, labels and masks from tensors, arrays and lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from headspec.errors import InputError


def whole_numbers(values: Any) -> Tensor:
    """The same as int64 on the CPU; never a view of the caller's array.

    Args:
        values: tensor on any device, array (memory-mapped, of any integer type) or nested list.

    Raises:
        InputError: values that are no whole numbers by their type.
    """
    found = values.detach().cpu() if isinstance(values, Tensor) else np.asarray(values)
    whole = (
        not (found.is_floating_point() or found.is_complex())
        if isinstance(found, Tensor)
        else found.dtype.kind in "iub"
    )
    if not whole:
        raise InputError(
            expected="whole numbers",
            got=f"a {type(values).__name__} of {found.dtype}",
            fix="Pass token ids (model.to_tokens gives them for text), labels and masks as "
            "integers.",
        )
    return found.long() if isinstance(found, Tensor) else torch.from_numpy(found.astype(np.int64))


def check_vocabulary(ids: Tensor, model: Any) -> None:
    """Raise unless the model has an embedding for every token id.

    Args:
        ids: whole numbers of any shape.
        model: hooked, or a Hugging Face model.

    Raises:
        InputError: an id is negative or beyond the vocabulary.
    """
    size = model.cfg.d_vocab if hasattr(model, "cfg") else model.config.vocab_size
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < size:
        raise InputError(
            expected=f"token ids from 0 to {size - 1}, the model's vocabulary",
            got=f"{int(ids.min())} to {int(ids.max())}",
            fix="Take the tokenizer that belongs to this model.",
        )
