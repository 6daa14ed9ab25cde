"""A zoo of tiny random Hugging Face models, one per architecture, for tests of every part.

Norm gains and biases are perturbed: at their initial values (ones and zeros) a wrong fold or a
forgotten bias would go unseen. Weights are larger than usual so that attention is not uniform.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    OlmoConfig,
    OlmoForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCAB = 61
CONTEXT = 64

_COMMON: dict[str, Any] = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "vocab_size": VOCAB,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_GQA = {**_COMMON, "num_key_value_heads": 2}

ZOO: dict[str, tuple[type, type, dict[str, Any]]] = {
    "gpt_neox": (GPTNeoXConfig, GPTNeoXForCausalLM, {**_COMMON, "rotary_pct": 0.25}),
    "gpt_neox_sequential": (
        GPTNeoXConfig,
        GPTNeoXForCausalLM,
        {**_COMMON, "rotary_pct": 0.5, "use_parallel_residual": False, "rotary_emb_base": 500.0},
    ),
    "gpt2": (
        GPT2Config,
        GPT2LMHeadModel,
        {
            "n_embd": 64,
            "n_head": 4,
            "n_layer": 2,
            "n_positions": CONTEXT,
            "vocab_size": VOCAB,
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
    ),
    "llama": (LlamaConfig, LlamaForCausalLM, {**_GQA, "rope_theta": 5000.0}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {**_GQA, "rope_theta": 3000.0}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {**_GQA, "head_dim": 24, "rope_theta": 2000.0}),
    "mistral": (MistralConfig, MistralForCausalLM, {**_GQA, "head_dim": 8, "sliding_window": 8}),
    "olmo": (OlmoConfig, OlmoForCausalLM, dict(_COMMON)),
    "olmo2": (Olmo2Config, Olmo2ForCausalLM, dict(_GQA)),
    "bert": (BertConfig, BertForMaskedLM, dict(_COMMON)),
}
"""Name to (config class, model class, config arguments). 4 heads, 2 layers, width 64."""

CAUSAL = tuple(name for name in ZOO if name != "bert")
"""Zoo members that are causal language models."""


def tiny_model(name: str, *, seed: int = 0, **overrides: Any) -> Any:
    """A fresh random model of the zoo in eval mode, with perturbed norms and biases.

    Args:
        name: a key of `ZOO`.
        seed: seed of all weights; the global generator is left as it was.
        **overrides: config arguments to replace.
    """
    config_class, model_class, arguments = ZOO[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # Hooked models are compared with eager attention, which they are built from.
        model = model_class._from_config(
            config_class(**{**arguments, **overrides}), attn_implementation="eager"
        )
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                if parameter.ndim == 2:
                    parameter.normal_(std=0.15)
                elif parameter_name.endswith("bias"):
                    parameter.normal_(std=0.1)
                else:
                    parameter.normal_(mean=1.0, std=0.2)
        model.tie_weights()
    return model.eval()


@cache
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer over `VOCAB` words: `w0` is also begin, end and padding."""
    words = {f"w{i}": i for i in range(VOCAB)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w1"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="w0",
        eos_token="w0",
        pad_token="w0",
        unk_token="w1",
        model_max_length=CONTEXT,
    )


def save_tiny(name: str, folder: Path, **overrides: Any) -> Path:
    """Write a zoo model and its tokenizer to a folder as `save_pretrained` does."""
    tiny_model(name, **overrides).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def config_dict(model: Any) -> dict[str, Any]:
    """The config.json of a model, as a dict that went through JSON."""
    return json.loads(model.config.to_json_string(use_diff=False))


def random_tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    """Random token ids of the zoo's vocabulary, without token 0 (padding)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, VOCAB, shape, generator=generator)


PYTHIA_160M: dict[str, Any] = {
    "architectures": ["GPTNeoXForCausalLM"],
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "gelu",
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "model_type": "gpt_neox",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.24.0",
    "use_cache": True,
    "use_parallel_residual": True,
    "vocab_size": 50304,
}
"""config.json as published with the Pythia suite, in the keys of transformers 4."""
