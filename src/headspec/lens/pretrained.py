"""Loading a Hugging Face model whole: nothing left at random, and clear errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from headspec.errors import (
    CheckpointError,
    HeadspecError,
    HubUnreachableError,
    StepNotFoundError,
    UnsupportedArchitectureError,
)
from headspec.lens.rope import restore_dropped_rope

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
)


def load_pretrained(
    name_or_path: str,
    *,
    step: int | None = None,
    dtype: torch.dtype = torch.float32,
    cache_dir: str | None = None,
    offline: bool = False,
) -> tuple[Any, Any]:
    """A Hugging Face language model and its tokenizer (None if a folder holds none).

    Tensors that the checkpoint lacks are an error: transformers would fill them with random
    numbers and a warning. Rotary embeddings that were dropped stay dropped (`drop_rope`).

    Args:
        name_or_path: a local folder or a Hub name.
        step: sub-folder or revision, as in `load_model`.
        dtype: dtype of the weights.
        cache_dir: the Hub's cache, if not the usual one.
        offline: use only what the cache holds.

    Raises:
        StepNotFoundError, CheckpointError, HubUnreachableError: as `load_model`.
        UnsupportedArchitectureError: not a causal or masked language model.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

    local = Path(name_or_path).is_dir()
    if local:
        source, options = str(_step_folder(Path(name_or_path), step)), {}
    else:
        source = name_or_path
        options = {
            "revision": _revision(name_or_path, step),
            "cache_dir": cache_dir,
            "local_files_only": offline,
        }
    try:
        config = AutoConfig.from_pretrained(source, **options)
        kind = _language_model_kind(config)
        auto = AutoModelForMaskedLM if kind == "masked" else AutoModelForCausalLM
        loaded: Any = auto.from_pretrained(
            source,
            config=config,
            dtype=dtype,
            attn_implementation="eager",
            output_loading_info=True,
            **options,
        )
        has_tokenizer = not local or any((Path(source) / f).is_file() for f in _TOKENIZER_FILES)
        tokenizer = AutoTokenizer.from_pretrained(source, **options) if has_tokenizer else None
    except (OSError, ValueError) as error:  # transformers raises either for missing files
        if isinstance(error, HeadspecError):
            raise
        raise _explain(error, name_or_path, step=step, local=local) from error
    model, info = loaded
    absent = sorted(str(key) for key in (*info["missing_keys"], *info["mismatched_keys"]))
    if absent:
        raise CheckpointError(
            expected=f"all weights of {type(model).__name__} in {source}",
            got=f"{len(absent)} missing or of the wrong shape, such as {', '.join(absent[:3])}",
            fix="Check that all shards are there. For the head weights alone of a checkpoint "
            "without language-model head, load it with transformers.AutoModel.",
        )
    restore_dropped_rope(model)
    return model, tokenizer


def _step_folder(folder: Path, step: int | None) -> Path:
    if step is None:
        return folder
    for name in (f"step{step}", f"checkpoint-{step}"):
        if (folder / name).is_dir():
            return folder / name
    found = [re.fullmatch(r"(?:step|checkpoint-)(\d+)", item.name) for item in folder.iterdir()]
    steps = sorted(int(match[1]) for match in found if match)
    raise StepNotFoundError(
        expected=f"a sub-folder step{step} or checkpoint-{step} in {folder}",
        got=f"steps {', '.join(map(str, steps))}" if steps else "no such sub-folders",
        fix="Give one of those steps, or step=None for the folder itself.",
    )


def _revision(name: str, step: int | None) -> str:
    if step is None:
        return "main"
    return f"checkpoint-{step}" if name.startswith("stanford-crfm/") else f"step{step}"


def _language_model_kind(config: Any) -> str:
    named = (getattr(config, "architectures", None) or [""])[0]
    if named.endswith("ForMaskedLM"):
        return "masked"
    if named.endswith(("ForCausalLM", "LMHeadModel")):
        return "causal"
    raise UnsupportedArchitectureError(
        expected="a causal or masked language model",
        got=f"architectures={config.architectures!r} in config.json",
        fix="For head weights alone, pass transformers.AutoModel.from_pretrained(...) to "
        "headspec.head_weights.",
    )


def _explain(error: Exception, name: str, *, step: int | None, local: bool) -> Exception:
    from huggingface_hub.errors import RevisionNotFoundError

    first = str(error).strip().splitlines()[0]
    if local:
        return CheckpointError(
            expected=f"config.json and weights of a model in {name}",
            got=first,
            fix="Give a folder as save_pretrained writes it; for a folder of steps, give step=.",
        )
    if step is not None and isinstance(error.__cause__, RevisionNotFoundError):
        return StepNotFoundError(
            expected=f"a revision {_revision(name, step)} of {name}",
            got="no such revision on the Hub",
            fix="headspec.open_suite(name).steps lists the steps there are.",
        )
    return HubUnreachableError(
        expected=f"{name} at revision {_revision(name, step)}, from the Hub or its cache",
        got=first,
        fix="Check the name and the network, or give the path of a local folder.",
    )


@contextmanager
def without_bars() -> Iterator[None]:
    """None of transformers' own bars: sweeps and trainings show one of theirs.

    Set by hand, since `disable_progress_bar` also changes the Hub's setting.
    """
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    setattr(logging, "_tqdm_active", False)  # noqa: B010
    try:
        yield
    finally:
        setattr(logging, "_tqdm_active", shown)  # noqa: B010
