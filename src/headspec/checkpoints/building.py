"""A step of a suite as a hooked model."""

from __future__ import annotations

from typing import Any

import torch

from headspec.checkpoints import readers
from headspec.checkpoints.source import Source
from headspec.errors import CheckpointError


def build_model(
    source: Source, step: int, tokenizer: Any, *, dtype: torch.dtype | None = None, **kwargs: Any
) -> Any:
    """Load all weights of a step into a fresh Hugging Face model and wrap it.

    Every tensor of the model must be in the checkpoint: nothing is silently left at its random
    initialisation.

    Args:
        source: where the checkpoints lie.
        step: training step.
        tokenizer: of the run; None for a model that is only given token ids.
        dtype: of the model; None: float32, whatever the checkpoint stores.
        **kwargs: of `headspec.lens.models.wrap_model`.

    Raises:
        CheckpointError: the checkpoint lacks tensors, or has them in other shapes.
    """
    import transformers

    from headspec.lens.models import wrap_model
    from headspec.lens.pretrained import without_bars

    config = transformers.AutoConfig.from_pretrained(
        source.config_folder(step), local_files_only=True
    )
    named = getattr(transformers, (config.architectures or ["none"])[0], None)
    model_class = named or transformers.AutoModelForCausalLM
    with readers.explained(source.label(step)):
        folder = source.model_folder(step)
    with readers.explained(source.label(step)), without_bars():
        loaded: Any = model_class.from_pretrained(
            folder,
            config=config,
            dtype=dtype if dtype is not None else torch.float32,
            attn_implementation="eager",
            local_files_only=True,
            output_loading_info=True,
        )
    model, info = loaded
    lacking = sorted(str(key) for key in (*info["missing_keys"], *info["mismatched_keys"]))
    if lacking:
        raise CheckpointError(
            expected=f"every tensor of {model_class.__name__} in {source.label(step)}",
            got=f"{len(lacking)} missing or of another shape, such as {lacking[0]}",
            fix="The checkpoint is incomplete or its config.json is another model's: run "
            "suite.verify().",
        )
    return wrap_model(model.eval(), tokenizer, name=source.name, step=step, **kwargs)
