"""The embedded suite: three small language models with their training checkpoints, in the package.

Pythia's architecture (GPT-NeoX), trained on docstrings mixed with the behaviours of `micro_tasks`,
saved in half precision at the steps of `STEPS`. ``open_suite("micro")`` opens it; this module knows
where it lies and reads what is shipped beside the weights. `tools/micro_suite.md` in the repository
says how it was made and what was tried.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import UInt16

from headspec.errors import InputError, StepNotFoundError
from headspec.results import tidy

MicroSize = Literal["micro", "micro-small", "micro-tiny"]
SIZES: tuple[str, ...] = get_args(MicroSize)
"""Names of the embedded suites, largest first."""

STEPS = (0, 1, 4, 16, 64, 128, 256, 384, 512, 768, 1024, 1280, 1536, 2048, 3072, 4096, 6144)
"""Optimiser updates done at each checkpoint; the same for all sizes, on the same batches."""


def micro_path(name: str = "micro") -> Path:
    """Folder of one embedded suite: ``config.json`` and ``step{N}/model.safetensors``.

    Args:
        name: one of `SIZES`, or ``""`` for the folder that holds all of them, the tokenizer
            (``tokenizer/``), the held-out text and the capability table.

    Raises:
        InputError: for another name.
    """
    if name and name not in SIZES:
        raise InputError(
            expected=f"one of {', '.join(SIZES)}",
            got=repr(name),
            fix="Choose an embedded suite by its name.",
        )
    return Path(str(files("headspec.checkpoints"))) / "data" / "micro" / name


def capability_curve(name: str = "micro") -> pd.DataFrame:
    """What every checkpoint of one size can do, as measured on the shipped weights.

    Args:
        name: one of `SIZES`.

    Returns:
        Tidy rows of the metrics that `micro_capabilities.measure_capabilities` describes, all on
        data that was not trained on, with standard errors in ``se``.

    Example:
        >>> curve = capability_curve("micro")
        >>> bool(curve.query("metric == 'decimal_accuracy'")["value"].iloc[-1] > 0.9)
        True
    """
    micro_path(name)  # a wrong name is an error here
    return _table("capabilities.csv", name)


def head_score_curve(name: str = "micro") -> pd.DataFrame:
    """Previous-token and induction attention of every head at every checkpoint of one size.

    Args:
        name: one of `SIZES`.

    Returns:
        Tidy rows with metrics ``previous_token`` and ``induction`` (mean attention, 0 to 1);
        ``null_mean`` of the latter is what uniform attention would give. See
        `micro_capabilities.head_attention_scores`.
    """
    micro_path(name)  # a wrong name is an error here
    return _table("head_scores.csv", name)


def _table(file: str, name: str) -> pd.DataFrame:
    frame = pd.read_csv(micro_path("") / file)
    return tidy(frame[frame["model"] == name].reset_index(drop=True))


def held_out_tokens() -> UInt16[np.ndarray, "row pos"]:
    """Prose that no model of the suite was trained on: rows of 128 tokens, the first of each `bos`.

    Docstrings of whole modules of the Python standard library, NumPy, SciPy, pandas, scikit-learn,
    SymPy, NetworkX and PyTorch (BSD-style and PSF licences), kept out by a hash of the module name.
    """
    return np.load(micro_path("") / "held_out.npy", allow_pickle=False)


def micro_tokenizer() -> Any:
    """The tokenizer of all sizes: 512 entries, digits one by one, beginning-of-text token 0."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(micro_path("") / "tokenizer")


def micro_model(name: str = "micro", step: int = STEPS[-1], *, attention: str = "sdpa") -> Any:
    """A plain Hugging Face model of one checkpoint, in float32 and evaluation mode.

    For hooks, take ``open_suite(name).model(step)`` instead.

    Args:
        name: one of `SIZES`.
        step: one of `STEPS`.
        attention: "eager" makes attention weights available.

    Raises:
        StepNotFoundError: for a step that the suite does not hold.
    """
    if step not in STEPS:
        raise StepNotFoundError(
            expected=f"one of the steps {', '.join(map(str, STEPS))}",
            got=str(step),
            fix="Take one of these.",
        )
    folder = micro_path(name)
    return read_model(folder, folder / f"step{step}" / "model.safetensors", attention=attention)


def read_model(folder: Path, weights: Path, *, attention: str = "sdpa") -> Any:
    """`micro_model` for weights anywhere: ``config.json`` in one folder, a file of tensors."""
    import torch
    from safetensors.torch import load_file
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig.from_pretrained(folder, dtype=torch.float32)
    config._attn_implementation = attention
    with torch.random.fork_rng(devices=[]):  # the initialisation, replaced at once, draws numbers
        model = GPTNeoXForCausalLM(config)
    model.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
    return model.eval()
