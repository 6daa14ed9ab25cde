"""Everything that decides what a run on images computes, as one frozen object."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from headspec.training.config_files import FileConfig, check_field, check_types
from headspec.training.schedule import checkpoint_steps, warmup_steps

Architecture = Literal["transformer", "cnn", "mlp"]
Samples = Literal["images", "positions"]


@dataclass(frozen=True, kw_only=True)
class VisionConfig(FileConfig):
    """A training run on images: model, data, length, what is kept and what is measured.

    Two runs with equal configs on the same machine and number of threads give the same bits, and
    `checkpoints`, `measure_every`, `measured_images`, `validate_every` and the like change nothing
    about them: a first run finds the steps to look at, a second one from the same seed keeps
    checkpoints there.

    Attributes:
        model: "transformer" (pre-norm, patches and a class token), "cnn" or "mlp".
        data: "digits", a folder of MNIST's IDX files, or "torchvision:MNIST" and its like; see
            `open_images`.
        steps: number of updates.
        batch_size: images of an update.
        seed: of the initial weights and of the order of the images.
        width: transformer: of the residual stream (None: 128); cnn: filters of the first layer,
            doubled in each further one (None: 32); mlp: of the hidden layers (None: 32).
        depth: transformer: blocks (None: 6); cnn: convolutions (None: 4); mlp: hidden layers
            (None: 4). The last linear layer comes on top.
        heads: of attention, a divisor of the width.
        mlp_width: inside the transformer's blocks; None: four times the width.
        patch: side of the transformer's square patches in pixels; None: 2 for images of up to 14
            pixels a side, else 4.
        lr: peak learning rate of AdamW.
        weight_decay: decoupled, times the learning rate; of matrices and filters alone.
        betas: decay rates of AdamW's two moments.
        schedule: of the learning rate after the warm-up: "cosine" down to 0, or "constant".
        warmup: before the peak: a number of updates (whole number), or a share of them (.05).
        clip: largest norm of the gradient over all parameters; 0: not clipped.
        checkpoints: how many checkpoints, log-spaced, or the steps themselves (such as
            `CheckpointPlan.steps`). 0 and the last step are always among them.
        validate_every: updates between two measurements of the loss on all validation images; it is
            also measured before the first and after the last update. 0: only then.
        measure_every: updates between two measurements of dimensionality; also before the first
            and after the last update. 0: none at all.
        measured_images: validation images on which it is measured, always the same ones (no more
            than there are); None: as many as a batch, times `measure_every / 5`, from 16 to 512,
            which costs about a tenth of the time of training.
        samples: rows of the matrix whose dimensionality is measured: "images" (a mean over the
            positions of each), or every position of every image.
        save_every: updates between two resume points.
        save_seconds: seconds after which a resume point is written anyway.

    Raises:
        InputError: for a wrong type or an impossible value, naming the field.

    Example:
        >>> config = VisionConfig(model="cnn", steps=100, checkpoints=(30, 40))
        >>> config.checkpoint_steps
        (0, 30, 40, 100)
        >>> VisionConfig.from_dict(config.to_dict()) == config
        True
    """

    model: Architecture = "transformer"
    data: str = "digits"
    steps: int = 2000
    batch_size: int = 64
    seed: int = 0
    width: int | None = None
    depth: int | None = None
    heads: int = 4
    mlp_width: int | None = None
    patch: int | None = None
    lr: float | int = 1e-3
    weight_decay: float | int = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float | int = 0.05
    clip: float | int = 1.0
    checkpoints: int | tuple[int, ...] = 2
    validate_every: int = 100
    measure_every: int = 5
    measured_images: int | None = None
    samples: Samples = "images"
    save_every: int = 500
    save_seconds: float | int = 300

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("steps", "batch_size", "heads", "save_every"):
            check_field(self, name, "a whole number from 1", lambda value: value >= 1)
        for name in ("seed", "validate_every", "measure_every"):
            check_field(self, name, "a whole number from 0", lambda value: value >= 0)
        for name in ("width", "depth", "mlp_width", "patch"):
            check_field(
                self, name, "a whole number from 1", lambda value: value is None or value >= 1
            )
        check_field(self, "measured_images", "2 or more", lambda n: n is None or n >= 2)
        check_field(self, "data", '"digits", a folder or "torchvision:..."', bool)
        check_field(self, "lr", "a positive number", lambda value: 0 < value < math.inf)
        for name in ("weight_decay", "clip"):
            check_field(self, name, "0 or a positive number", lambda value: 0 <= value < math.inf)
        inside = all(0 <= beta < 1 for beta in self.betas)
        check_field(self, "betas", "two numbers from 0 up to 1", lambda _: inside)
        check_field(self, "save_seconds", "a positive number", lambda value: value > 0)
        check_field(self, "warmup", "0 or more", lambda value: value >= 0)
        warm = warmup_steps(self.warmup, self.steps)
        check_field(
            self, "warmup", f"less than the {self.steps} steps", lambda _: warm < self.steps
        )
        fits = self.model != "transformer" or self.layer_width % self.heads == 0
        check_field(self, "heads", f"a divisor of the width {self.layer_width}", lambda _: fits)
        _ = self.checkpoint_steps

    @property
    def layer_width(self) -> int:
        """`width`, or the architecture's own where it is None."""
        return self.width or {"transformer": 128, "cnn": 32, "mlp": 32}[self.model]

    @property
    def n_layers(self) -> int:
        """`depth`, or the architecture's own where it is None."""
        return self.depth or {"transformer": 6, "cnn": 4, "mlp": 4}[self.model]

    @property
    def checkpoint_steps(self) -> tuple[int, ...]:
        """The steps at which a checkpoint is written."""
        return checkpoint_steps(self.checkpoints, self.steps)

    @property
    def n_measured(self) -> int:
        """`measured_images`, or the default where it is None."""
        return self.measured_images or default_measured_images(self)


def default_measured_images(config: VisionConfig) -> int:
    """How many images can be measured in about a tenth of the time of training.

    An update passes a batch forward and backward, at about three times the cost of a forward
    pass; measuring is a forward pass and small matrices. As many images as a batch at every fifth
    update add 1/15 for the pass alone; measured less often, they may be more.
    """
    return max(16, min(512, config.batch_size * max(1, config.measure_every) // 5))
