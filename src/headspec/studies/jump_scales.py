"""Sizes at which the study of dimensionality jumps runs: its own, and one for minutes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from headspec.errors import InputError, check_choice
from headspec.training.vision_config import Architecture, VisionConfig
from headspec.training.vision_data import open_images

JumpScaleName = Literal["debug", "study"]
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)
MNIST = ("data/MNIST/raw", "torchvision:MNIST")
"""Where MNIST is looked for: torchvision's usual folder, with the package and without it."""


@dataclass(frozen=True, kw_only=True)
class JumpScale:
    """How large a run of the study is.

    Attributes:
        data: as `open_images` takes it; `"mnist"`: MNIST where it lies in `data/`, else digits.
        steps, batch_size: of each training.
        measure_every: updates between two measurements of dimensionality.
        measured_images: on which it is measured, always the same.
        models: architectures that are trained.
        width, depth: of all of them; None: the study's, as in `VisionConfig`.
        n_jumps: jumps of a run that are looked into.
        controls: matched windows without a jump beside each.
        candidates: where a run has fewer jumps than `n_jumps`, its largest changes are looked
            into as well, up to that many.
        n_images: validation images on which the models around a moment are compared.
        n_gabor: filters of the first convolution to which Gabor functions are fitted.
        false_positives: accepted by the detector, per 1,000 points of curves without jumps.
    """

    data: str
    steps: int
    batch_size: int
    measure_every: int
    measured_images: int
    models: tuple[Architecture, ...] = ARCHITECTURES
    width: int | None = None
    depth: int | None = None
    n_jumps: int = 5
    controls: int = 2
    candidates: bool = True
    n_images: int = 256
    n_gabor: int = 8
    false_positives: float | int = 1.0

    def change(
        self,
        *,
        steps: int = 0,
        batch_size: int = 0,
        measure_every: int = 0,
        n_jumps: int = 0,
        data: str = "",
        models: tuple[str, ...] = (),
    ) -> JumpScale:
        """The scale with other settings; 0 and nothing keep its own.

        Raises:
            InputError: an unknown architecture.
        """
        for model in models:
            check_choice("models", model, ARCHITECTURES)
        return replace(
            self,
            steps=steps or self.steps,
            batch_size=batch_size or self.batch_size,
            measure_every=measure_every or self.measure_every,
            n_jumps=n_jumps or self.n_jumps,
            data=data or self.data,
            models=models or self.models,  # type: ignore[arg-type]
        )

    def config(
        self,
        model: Architecture,
        *,
        seed: int,
        checkpoints: tuple[int, ...] = (),
    ) -> VisionConfig:
        """How a model is trained, in the first pass or, with checkpoints, in the second.

        The first pass measures and keeps its two ends alone; the second keeps the checkpoints and
        measures nothing. Neither changes a number of the training.

        Args:
            model: architecture.
            seed: of the initial weights and the order of the images.
            checkpoints: steps of the second pass.
        """
        return VisionConfig(
            model=model,
            data=resolve_data(self.data),
            steps=self.steps,
            batch_size=self.batch_size,
            seed=seed,
            width=self.width,
            depth=self.depth,
            checkpoints=checkpoints or 2,
            measure_every=0 if checkpoints else self.measure_every,
            measured_images=self.measured_images,
        )


SCALES: dict[str, JumpScale] = {
    "debug": JumpScale(
        data="digits",
        steps=300,
        batch_size=32,
        measure_every=2,
        measured_images=100,
        n_images=128,
        n_gabor=4,
    ),
    "study": JumpScale(
        data="mnist", steps=2000, batch_size=64, measure_every=5, measured_images=512, controls=3
    ),
}
"""The scales by name. `study` has the study's 2,000 updates, measured every five. Both have its
transformer (six layers of width 128), a CNN and an MLP of five layers."""


def jump_scale(name: str) -> JumpScale:
    """A scale by its name.

    Raises:
        InputError: an unknown name.

    Example:
        >>> jump_scale("study").steps
        2000
    """
    check_choice("scale", name, get_args(JumpScaleName))
    return SCALES[name]


def resolve_data(name: str) -> str:
    """The data to train on: `"mnist"` is MNIST where it is found, else the bundled digits.

    Args:
        name: as `open_images` takes it, or `"mnist"`.

    Example:
        >>> resolve_data("digits")
        'digits'
    """
    if name != "mnist":
        return name
    for place in MNIST:
        try:
            open_images(place)
        except InputError:
            continue
        return place
    return "digits"
