"""Everything that decides what a training run computes, as one frozen object."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from headspec.training.config_files import FileConfig, check_field, check_types
from headspec.training.mini_qwen import MiniQwenConfig
from headspec.training.schedule import checkpoint_steps, warmup_steps
from headspec.training.token_stream import Ordering

Precision = Literal["bf16", "fp32"]
Compile = Literal["auto", "on", "off"]


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Muon for the hidden matrices, AdamW for everything else, one schedule for both.

    Attributes:
        muon_lr: peak learning rate of the hidden matrices. The update is orthogonalised, so this
            is a step in spectral norm: .02 here says nothing about .02 in AdamW.
        adamw_lr: peak learning rate of embeddings, unembedding, norms and biases.
        muon_momentum: momentum (Nesterov's) of Muon.
        muon_weight_decay: decoupled, times the learning rate, as in `torch.optim.Muon`.
        adamw_weight_decay: likewise; of embeddings and unembedding. Norms and biases have none.
        adamw_betas: decay rates of AdamW's two moments.
        muon_scale: how Muon's rate depends on a matrix of d_out x d_in: "original" is
            sqrt(max(1, d_out / d_in)), "match_rms_adamw" is .2 sqrt(max(d_out, d_in)), with which
            rates tuned for AdamW can be used.
        final: share of the peak rates that is left at the last update.

    Example:
        >>> OptimizerConfig(muon_lr=0.01).adamw_lr
        0.0003
    """

    muon_lr: float | int = 0.02
    adamw_lr: float | int = 3e-4
    muon_momentum: float | int = 0.95
    muon_weight_decay: float | int = 0.01
    adamw_weight_decay: float | int = 0.01
    adamw_betas: tuple[float, float] = (0.9, 0.95)
    muon_scale: Literal["original", "match_rms_adamw"] = "original"
    final: float | int = 0.0

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("muon_lr", "adamw_lr"):
            check_field(self, name, "a positive number", lambda value: 0 < value < math.inf)
        for name in ("muon_weight_decay", "adamw_weight_decay"):
            check_field(self, name, "0 or a positive number", lambda value: 0 <= value < math.inf)
        check_field(self, "muon_momentum", "a number from 0 up to 1", lambda value: 0 <= value < 1)
        check_field(self, "final", "a share from 0 to 1", lambda value: 0 <= value <= 1)
        inside = all(0 <= beta < 1 for beta in self.adamw_betas)
        check_field(self, "adamw_betas", "two numbers from 0 up to 1", lambda _: inside)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(FileConfig):
    """A training run: model, data, optimisers, length, and what is kept of it.

    Two runs with equal configs on the same machine and number of threads give the same bits.

    Attributes:
        model: sizes of the model.
        data: folder of token data, as `write_token_data` leaves it.
        steps: number of updates.
        batch_size: sequences in an update, over all devices and accumulated parts.
        ordering: of the sequences: "shuffled", or "topic_ordered" (sorted by dominant topic).
        last_epoch: what is read of an epoch that the run does not finish: "sampled": the same
            sequences whatever the ordering; "cut": the beginning of it, which in topic-ordered data
            lacks whole topics.
        seed: of the initial weights, and of the order of the data unless `data_seed` is given.
        data_seed: of the order of the data alone.
        accumulation: parts into which a batch is cut, for memory; the result is the same up to
            rounding.
        optimizer: rates and decays.
        warmup: before the peak of the learning rates: a number of updates (whole number), or a
            share of them (.05).
        clip: largest norm of the gradient over all parameters; 0: not clipped.
        precision: "bf16" computes matrix products in bfloat16 under autocast (weights, optimiser
            and loss stay in float32); "fp32" everything in float32.
        compile: whether `torch.compile` is used: "auto" where it pays for a run of this length
            (`headspec.training.compiling`).
        checkpoints: how many checkpoints, log-spaced, or the steps themselves. 0 and the last
            step are always among them.
        validate_every: updates between two measurements of the validation loss; it is also
            measured before the first and after the last update. 0: only then.
        validation_sequences: how many sequences of the validation split; 0: all.
        save_every: updates between two resume points.
        save_seconds: seconds after which a resume point is written anyway.
        initial: folder of a checkpoint to start from instead of random weights.
        drop_rope: False; True: rotary embeddings are removed from every layer before training;
            or the layers, for some of them.

    Raises:
        InputError: for a wrong type or an impossible value, naming the field.

    Example:
        >>> config = TrainConfig(
        ...     model=MiniQwenConfig.preset("debug"), data="tokens", steps=100, batch_size=8)
        >>> config.checkpoint_steps
        (0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 22, 28, 36, 46, 60, 77, 100)
        >>> TrainConfig.from_dict(config.to_dict()) == config
        True
    """

    model: MiniQwenConfig
    data: str
    steps: int
    batch_size: int = 64
    ordering: Ordering = "shuffled"
    last_epoch: Literal["sampled", "cut"] = "sampled"
    seed: int = 0
    data_seed: int | None = None
    accumulation: int = 1
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    warmup: float | int = 0.05
    clip: float | int = 1.0
    precision: Precision = "bf16"
    compile: Compile = "auto"
    checkpoints: int | tuple[int, ...] = 18
    validate_every: int = 250
    validation_sequences: int = 1024
    save_every: int = 500
    save_seconds: float | int = 300
    initial: str | None = None
    drop_rope: bool | tuple[int, ...] = False

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("steps", "batch_size", "accumulation", "save_every"):
            check_field(self, name, "a whole number from 1", lambda value: value >= 1)
        for name in ("seed", "validate_every", "validation_sequences"):
            check_field(self, name, "a whole number from 0", lambda value: value >= 0)
        check_field(self, "data", "the folder of the token data", bool)
        check_field(
            self, "data_seed", "a whole number from 0", lambda seed: seed is None or seed >= 0
        )
        check_field(self, "clip", "0 or a positive number", lambda value: 0 <= value < math.inf)
        check_field(self, "save_seconds", "a positive number", lambda value: value > 0)
        check_field(self, "warmup", "0 or more", lambda value: value >= 0)
        parts = self.batch_size % self.accumulation == 0
        check_field(
            self, "accumulation", f"a divisor of batch_size = {self.batch_size}", lambda _: parts
        )
        warm = warmup_steps(self.warmup, self.steps)
        check_field(
            self, "warmup", f"less than the {self.steps} steps", lambda _: warm < self.steps
        )
        if isinstance(self.drop_rope, tuple):
            n_layers = self.model.n_layers
            known = self.drop_rope and all(0 <= layer < n_layers for layer in self.drop_rope)
            check_field(
                self, "drop_rope", f"layers from 0 to {n_layers - 1}", lambda _: bool(known)
            )
        _ = self.checkpoint_steps

    @property
    def checkpoint_steps(self) -> tuple[int, ...]:
        """The steps at which a checkpoint is written."""
        return checkpoint_steps(self.checkpoints, self.steps)

    @property
    def n_tokens(self) -> int:
        """Tokens read in the whole run, at the model's longest sequence."""
        return self.steps * self.batch_size * self.model.max_positions
