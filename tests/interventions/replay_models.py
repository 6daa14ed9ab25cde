"""Models, tokens and masks that the tests of replays share."""

from __future__ import annotations

from importlib.metadata import version

import torch
from zoo import tiny_model

from headspec.lens.models import wrap_model

OLDEST = version("transformer-lens").startswith("3.")
CLASSES = ("bridge", "hooked_transformer") if OLDEST else ("bridge",)
MODELS = {
    "parallel": ("gpt_neox", {}),
    "sequential": ("gpt_neox_sequential", {}),
    "learned_positions": ("gpt2", {}),
    "grouped": ("llama", {}),
    "grouped_biased": ("qwen2", {}),
    "qk_norm": ("qwen3", {}),
    "no_positions": ("gpt_neox", {"rotary_pct": 0.0}),
    "clipped": ("olmo", {"clip_qkv": 0.7}),
    "window_longer_than_text": ("mistral", {"sliding_window": 32}),
}
N, T = 3, 11


def build(kind: str, model_class: str, *, processing: str = "none", dtype=torch.float32, layers=3):
    name, overrides = MODELS[kind]
    count = "n_layer" if name == "gpt2" else "num_hidden_layers"
    hf_model = tiny_model(name, **{**overrides, count: layers})
    return wrap_model(hf_model, model_class=model_class, processing=processing, dtype=dtype)


def left_padding() -> torch.Tensor:
    mask = torch.ones(N, T, dtype=torch.long)
    mask[0, :3] = 0
    mask[1, :1] = 0
    return mask
