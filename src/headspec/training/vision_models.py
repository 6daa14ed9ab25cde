"""A convolutional network and an MLP, and what all models of images have in common."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headspec.errors import InputError
from headspec.training.surroundings import own_randomness
from headspec.training.vision_config import Samples, VisionConfig


class VisionModel(nn.Module):
    """A classifier of images whose layers can be measured by name.

    `model(images)` gives the logits, the output of the last layer in `layer_names`. There is no
    dropout and no batch norm: training and evaluation mode compute the same.

    Attributes:
        layer_names: the modules that are measured, from input to output.
    """

    layer_names: tuple[str, ...] = ()

    def activations(
        self, images: Float[Tensor, "image 1 height width"], *, samples: Samples = "images"
    ) -> dict[str, Float[Tensor, "sample feature"]]:
        """The output of every measured layer, before the non-linearity that follows it.

        Args:
            images: standardised, on the model's device.
            samples: "images": a row for each image, the mean over the positions of a feature map
                or over tokens (what the study did for convolutions). "positions": a row for each
                position of each image, image by image; dimensions then count differences inside
                images too. Layers after pooling have one row an image either way.

        Returns:
            Layer name -> rows; no gradients. The last is the logits.

        What it does not show: negative values of these outputs are cut off by the ReLU that
        follows convolutions and hidden linear layers (`.relu()` gives what the next layer sees).
        """
        found: dict[str, Tensor] = {}

        def keep(name: str) -> Any:
            return lambda module, given, output: found.__setitem__(name, _rows(output, samples))

        hooks = [
            self.get_submodule(name).register_forward_hook(keep(name)) for name in self.layer_names
        ]
        try:
            with torch.no_grad():
                self(images)
        finally:
            for hook in hooks:
                hook.remove()
        return found


def _rows(output: Tensor, samples: Samples) -> Tensor:
    """Outputs [image, token, feature] or [image, feature, height, width] as a matrix."""
    if output.ndim == 4:
        output = output.flatten(2).mT
    if output.ndim == 2:
        return output
    return output.mean(1) if samples == "images" else output.flatten(0, 1)


class VisionCNN(VisionModel):
    """Convolutions with ReLU, pooling by two while the map has four pixels a side, and a layer.

    The first layer has filters of 5 x 5 pixels, on which a fit of a wave says something, the
    others of 3 x 3; each has twice the filters of the one before. On 8 x 8 images maps are of 8,
    4, 2 and 2 pixels a side, on 28 x 28 of 28, 14, 7 and 3.

    Args:
        config: its `layer_width` and `n_layers` count.
        image_size: height and width.
        n_classes: number of logits.
    """

    def __init__(
        self, config: VisionConfig, *, image_size: tuple[int, int], n_classes: int
    ) -> None:
        super().__init__()
        height, width = image_size
        layers: list[nn.Module] = []
        channels = 1
        for layer in range(config.n_layers):
            n_filters, side = config.layer_width * 2**layer, 3 if layer else 5
            pooled = min(height, width) >= 4
            layers += [
                nn.Conv2d(channels, n_filters, side, padding=side // 2),
                nn.ReLU(),
                nn.MaxPool2d(2) if pooled else nn.Identity(),
            ]
            channels = n_filters
            if pooled:
                height, width = height // 2, width // 2
        self.conv_layers = nn.Sequential(*layers)
        self.fc = nn.Linear(channels * height * width, n_classes)
        convolutions = (f"conv_layers.{3 * layer}" for layer in range(config.n_layers))
        self.layer_names = (*convolutions, "fc")

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images `n 1 height width`."""
        return self.fc(self.conv_layers(images).flatten(1))

    def first_filters(self) -> Float[Tensor, "filter height width"]:
        """A copy of the filters of the first layer, on the CPU."""
        weight: Any = self.conv_layers[0].weight
        return weight.detach()[:, 0].cpu().clone()


class VisionMLP(VisionModel):
    """Linear layers with ReLU between them, on all pixels.

    Args:
        config: its `layer_width` and `n_layers` count.
        image_size: height and width.
        n_classes: number of logits.
    """

    def __init__(
        self, config: VisionConfig, *, image_size: tuple[int, int], n_classes: int
    ) -> None:
        super().__init__()
        sizes = [image_size[0] * image_size[1], *[config.layer_width] * config.n_layers]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.network = nn.Sequential(*layers, nn.Linear(sizes[-1], n_classes))
        self.layer_names = tuple(f"network.{2 * i}" for i in range(config.n_layers + 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images `n 1 height width`."""
        return self.network(images.flatten(1))


def build_vision_model(
    config: VisionConfig, *, image_size: tuple[int, int], n_classes: int
) -> VisionModel:
    """A model with initial weights that follow from `config.seed` alone.

    Args:
        config: which architecture, and its sizes.
        image_size: height and width of the images in pixels.
        n_classes: number of logits.

    Returns:
        A `VisionTransformer`, `VisionCNN` or `VisionMLP` on the CPU.

    Raises:
        InputError: the images do not divide into patches.

    Example:
        >>> model = build_vision_model(VisionConfig(model="mlp"), image_size=(8, 8), n_classes=10)
        >>> model.layer_names
        ('network.0', 'network.2', 'network.4', 'network.6', 'network.8')
        >>> list(model.activations(torch.zeros(3, 1, 8, 8))["network.2"].shape)
        [3, 32]
    """
    from headspec.training.vision_transformer import VisionTransformer

    if min(image_size) < 1 or n_classes < 2:
        raise InputError(
            expected="images of at least one pixel and two classes or more",
            got=f"image_size={image_size}, n_classes={n_classes}",
            fix="Correct the data.",
        )
    kinds: dict[str, Any] = {"transformer": VisionTransformer, "cnn": VisionCNN, "mlp": VisionMLP}
    with own_randomness(config.seed, torch.device("cpu")):
        return kinds[config.model](config, image_size=image_size, n_classes=n_classes)
