"""Mini-Qwen3: small transformers of Qwen3's architecture, to train from nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import torch

from headspec.errors import InputError, check_choice

Attention = Literal["mha", "gqa"]
Preset = Literal["run1", "v2", "sanity", "debug"]


@dataclass(frozen=True, kw_only=True)
class MiniQwenConfig:
    """Sizes of a Mini-Qwen3; every field is a plain number, so that it fits a TOML or JSON file.

    The architecture is transformers' `Qwen3ForCausalLM`: RMS norms before attention and MLP,
    SwiGLU, no biases, rotary embeddings over whole heads, and QK-norm: queries and keys are
    normed head by head before they are rotated, so that scores are cosine similarities up to
    gains.

    Attributes:
        hidden_size: width of the residual stream (`d_model`).
        n_layers: number of blocks.
        n_heads: query heads of a layer.
        n_kv_heads: key-value heads: `n_heads` for multi-head attention, a divisor of it for
            grouped-query attention.
        d_head: width of one head; even, since dimensions rotate in pairs.
        d_mlp: width inside the MLP.
        vocab_size: number of tokens.
        max_positions: longest sequence, in tokens.
        rope_theta: base of the rotary frequencies.
        norm_eps: added to the mean square in every norm.
        init_std: standard deviation of the initial matrices and embeddings (gains start at 1).
        tie_embeddings: the unembedding is the embedding, transposed.
    """

    hidden_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_mlp: int
    vocab_size: int
    max_positions: int
    rope_theta: float | int = 1e6
    norm_eps: float | int = 1e-6
    init_std: float | int = 0.02
    tie_embeddings: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "tie_embeddings":
                continue
            whole = "float" not in str(field.type)
            kinds = (int,) if whole else (int, float)
            if type(value) not in kinds or not 0 < value < math.inf:
                raise InputError(
                    expected=f"{field.name} to be a positive {'whole ' if whole else ''}number",
                    got=repr(value),
                    fix="MiniQwenConfig.preset('run1') shows a complete config.",
                )
        if self.n_heads % self.n_kv_heads:
            raise InputError(
                expected="n_heads to be a multiple of n_kv_heads",
                got=f"{self.n_heads} query heads for {self.n_kv_heads} key-value heads",
                fix="Take n_kv_heads = n_heads (multi-head) or a divisor of it (grouped-query).",
            )
        if self.d_head % 2:
            raise InputError(
                expected="an even d_head",
                got=str(self.d_head),
                fix="Rotary embeddings turn dimensions in pairs.",
            )

    @classmethod
    def preset(
        cls,
        name: Preset,
        *,
        attention: Attention = "mha",
        vocab_size: int | None = None,
        seq_len: int | None = None,
    ) -> MiniQwenConfig:
        """One of the sizes of the topic-ordering study.

        Parameters in millions, multi-head / grouped-query; the study's log says about 27 / 24 for
        run1, 98 to 100 for v2 and 3.8 for sanity. Halving the key-value heads of run1 saves 2.1
        million, so that its grouped-query model has 25.3, not 24; v2 is slightly below the log's.
        The log does not give sanity's MLP; 864 is the width that has 3.8 million.

        | preset | hidden | layers | heads x width | MLP | vocabulary | positions | parameters |
        |---|---|---|---|---|---|---|---|
        | run1 | 512 | 8 | 8 x 64 | 1376 | 4096 | 512 | 27.4 / 25.3 |
        | v2 | 768 | 12 | 12 x 64 | 2048 | 16000 | 512 | 97.2 / 90.2 |
        | sanity | 256 | 4 | 4 x 64 | 864 | 512 | 256 | 3.8 / 3.6 |
        | debug | 64 | 3 | 4 x 16 | 176 | 128 | 64 | 0.16 / 0.15 |

        Args:
            name: "run1", "v2", "sanity", or "debug" (trains in a minute on two CPU cores).
            attention: "mha" has a key-value head for each query head, "gqa" one for two.
            vocab_size: instead of the preset's.
            seq_len: `max_positions` instead of the preset's.

        Raises:
            InputError: an unknown name or kind of attention.

        Example:
            >>> MiniQwenConfig.preset("run1", attention="gqa").n_parameters
            25306624
        """
        check_choice("name", name, get_args(Preset))
        check_choice("attention", attention, get_args(Attention))
        sizes: dict[str, int] = dict(zip(_COLUMNS, _PRESETS[name], strict=True))
        sizes["n_kv_heads"] = sizes["n_heads"] // (2 if attention == "gqa" else 1)
        if vocab_size is not None:
            sizes["vocab_size"] = vocab_size
        if seq_len is not None:
            sizes["max_positions"] = seq_len
        return cls.from_dict(sizes)

    @property
    def attention(self) -> Attention:
        """`"mha"`, or `"gqa"` where query heads share keys and values."""
        return "mha" if self.n_kv_heads == self.n_heads else "gqa"

    @property
    def n_parameters(self) -> int:
        """Number of trained values; a tied embedding counts once."""
        per_head = self.hidden_size * self.d_head
        attention = 2 * (self.n_heads + self.n_kv_heads) * per_head + 2 * self.d_head
        mlp = 3 * self.hidden_size * self.d_mlp
        block = attention + mlp + 2 * self.hidden_size
        tables = (1 if self.tie_embeddings else 2) * self.vocab_size * self.hidden_size
        return self.n_layers * block + tables + self.hidden_size

    def to_dict(self) -> dict[str, int | float | bool]:
        """All fields, for a TOML or JSON file; `from_dict` reads them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MiniQwenConfig:
        """The config that `to_dict` gave.

        Raises:
            InputError: fields that are missing, unknown or out of range.

        Example:
            >>> config = MiniQwenConfig.preset("debug")
            >>> MiniQwenConfig.from_dict(config.to_dict()) == config
            True
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise InputError(
                expected=f"the fields {', '.join(field.name for field in fields(cls))}",
                got=str(error).split("__init__() ")[-1],
                fix="MiniQwenConfig.preset('run1').to_dict() shows a complete config.",
            ) from error


_COLUMNS: tuple[str, ...] = (
    "hidden_size",
    "n_layers",
    "n_heads",
    "d_head",
    "d_mlp",
    "vocab_size",
    "max_positions",
)
_PRESETS: dict[str, tuple[int, ...]] = {
    "run1": (512, 8, 8, 64, 1376, 4096, 512),
    "v2": (768, 12, 12, 64, 2048, 16_000, 512),
    "sanity": (256, 4, 4, 64, 864, 512, 256),
    "debug": (64, 3, 4, 16, 176, 128, 64),
}


def mini_qwen_settings(config: MiniQwenConfig) -> dict[str, Any]:
    """The settings of transformers' `Qwen3Config` that a config stands for."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.d_head,
        "intermediate_size": config.d_mlp,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_positions,
        "rope_parameters": {"rope_type": "default", "rope_theta": float(config.rope_theta)},
        "rms_norm_eps": float(config.norm_eps),
        "initializer_range": float(config.init_std),
        "tie_word_embeddings": config.tie_embeddings,
        "dtype": "float32",
    }


def build_mini_qwen(config: MiniQwenConfig, *, seed: int = 0) -> Any:
    """A freshly initialised Mini-Qwen3 in training mode, in float32 on the CPU.

    Matrices and embeddings are normal with standard deviation `init_std`, gains are 1. The same
    config and seed give the same bits; the global random state stays as it was. Attention is
    PyTorch's fused kernel. Pass `use_cache=False` to its forward while training: transformers
    otherwise fills a cache of keys and values.

    Args:
        config: sizes.
        seed: of the initial weights.

    Returns:
        A `transformers.Qwen3ForCausalLM`; its checkpoints open as any other of that architecture
        (`open_suite`, `load_model`, `head_weights`).

    Example:
        >>> model = build_mini_qwen(MiniQwenConfig.preset("debug"), seed=1)
        >>> model.num_parameters() == MiniQwenConfig.preset("debug").n_parameters
        True
    """
    from transformers import Qwen3Config, Qwen3ForCausalLM

    hf_config = Qwen3Config(**mini_qwen_settings(config))
    with torch.random.fork_rng(devices=[]):  # transformers' own draws, replaced below
        model = Qwen3ForCausalLM._from_config(hf_config, attn_implementation="sdpa")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=float(config.init_std), generator=generator)
            else:
                parameter.fill_(1.0)
    return model.train()
