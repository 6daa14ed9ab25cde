"""A small vision transformer: patches and a class token, pre-norm, attention on request."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from headspec.errors import InputError
from headspec.training.vision_config import VisionConfig
from headspec.training.vision_models import VisionModel

_INIT_SD = 0.02  # of positions and class token


class VisionBlock(nn.Module):
    """x + attention(norm(x)), then x + linear2(relu(linear1(norm(x)))).

    Args:
        width: of the residual stream.
        heads: of attention.
        mlp_width: between `linear1` and `linear2`.
    """

    def __init__(self, width: int, *, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attn_out = nn.Linear(width, width)
        self.linear1 = nn.Linear(width, mlp_width)
        self.linear2 = nn.Linear(mlp_width, width)

    def forward(self, x: Tensor, patterns: list[Tensor] | None = None) -> Tensor:
        """The stream after the block; the attention is appended to `patterns`, if given."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if patterns is None:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            pattern = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
            patterns.append(pattern)
            mixed = pattern @ v
        x = x + self.attn_out(mixed.transpose(1, 2).flatten(2))
        return x + self.linear2(F.relu(self.linear1(self.norm2(x))))


class VisionTransformer(VisionModel):
    """The study's sizes (6 blocks, width 128, MLP 512, 4 heads) in the usual ViT form.

    Patches are projected, a class token is put before them, learned positions are added; after
    the blocks and a last norm the class token gives the logits. Every token sees every other.
    (The study's own model had no class token, took the mean over tokens, and normed after each
    part instead of before.)

    Args:
        config: its `layer_width`, `n_layers`, `heads`, `mlp_width` and `patch` count.
        image_size: height and width.
        n_classes: number of logits.

    Attributes:
        patch: side of a patch in pixels.
        grid: patches per column and row; token 0 is the class token, then the patches row by row.

    Raises:
        InputError: the images do not divide into patches.

    References:
        Dosovitskiy et al. 2021, "An image is worth 16x16 words" (arXiv 2010.11929).
    """

    def __init__(
        self, config: VisionConfig, *, image_size: tuple[int, int], n_classes: int
    ) -> None:
        super().__init__()
        height, width = image_size
        self.patch = config.patch or (2 if max(height, width) <= 14 else 4)
        if height % self.patch or width % self.patch:
            raise InputError(
                expected=f"images that divide into patches of {self.patch} pixels a side",
                got=f"{height} x {width} pixels",
                fix="Set VisionConfig.patch to a divisor of both.",
            )
        self.grid = height // self.patch, width // self.patch
        d = config.layer_width
        self.input_proj = nn.Linear(self.patch**2, d)
        self.class_token = nn.Parameter(_INIT_SD * torch.randn(d))
        self.positions = nn.Parameter(_INIT_SD * torch.randn(self.grid[0] * self.grid[1] + 1, d))
        blocks = (
            VisionBlock(d, heads=config.heads, mlp_width=config.mlp_width or 4 * d)
            for _ in range(config.n_layers)
        )
        self.transformer = nn.ModuleDict({"layers": nn.ModuleList(blocks)})
        self.norm = nn.LayerNorm(d)
        self.fc = nn.Linear(d, n_classes)
        inner = (
            f"transformer.layers.{layer}.{part}"
            for layer in range(config.n_layers)
            for part in ("attn_out", "linear1", "linear2")
        )
        self.layer_names = ("input_proj", *inner, "fc")

    def forward(self, images: Tensor, patterns: list[Tensor] | None = None) -> Tensor:
        """Logits of images `n 1 height width`; attention is appended to `patterns`, if given."""
        patches = F.unfold(images, self.patch, stride=self.patch).mT
        tokens = self.input_proj(patches)
        x = torch.cat([self.class_token.expand(len(images), 1, -1), tokens], 1) + self.positions
        for block in self.transformer["layers"]:  # pyright: ignore[reportGeneralTypeIssues]
            x = block(x, patterns)
        return self.fc(self.norm(x[:, 0]))

    def attention_patterns(
        self, images: Float[Tensor, "image 1 height width"]
    ) -> Float[Tensor, "layer image head query key"]:
        """Probabilities of attention: rows sum to one, nothing is masked. No gradients.

        Args:
            images: standardised, on the model's device.
        """
        patterns: list[Tensor] = []
        with torch.no_grad():
            self(images, patterns)
        return torch.stack(patterns)
