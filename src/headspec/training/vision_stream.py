"""Batches of labelled images, as a function of the step alone."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from headspec.training.vision_data import ImageData


class ImageStream:
    """An endless stream of batches of training images; batch number `step` is always the same.

    Images are numbered on from epoch to epoch, each epoch in an order of its own that holds every
    image once; a batch may hold the end of one epoch and the beginning of the next.

    Args:
        data: the images.
        batch_size: images a batch.
        seed: of the orders.

    Example:
        >>> from headspec.training.vision_data import open_images
        >>> stream = ImageStream(open_images("digits"), batch_size=32, seed=1)
        >>> images, labels = stream.batch(1000)
        >>> list(images.shape), list(labels.shape)
        ([32, 1, 8, 8], [32])
    """

    def __init__(self, data: ImageData, *, batch_size: int, seed: int = 0) -> None:
        self.data, self.batch_size = data, batch_size
        n_images = len(data.train_images)

        @lru_cache(maxsize=2)
        def order(epoch: int) -> Tensor:
            drawn = np.random.default_rng([seed, 1, epoch]).permutation(n_images)
            return torch.from_numpy(drawn)

        self._order = order

    def rows(self, step: int) -> Int64[Tensor, " batch"]:
        """Which training images make up a batch.

        Args:
            step: number of the batch, from 0 on.
        """
        n_images, first = len(self.data.train_images), step * self.batch_size
        places = torch.arange(first, first + self.batch_size)
        epochs, within = places // n_images, places % n_images
        if epochs[0] == epochs[-1]:
            return self._order(int(epochs[0]))[within]
        parts = [
            self._order(epoch)[within[epochs == epoch]]
            for epoch in range(int(epochs[0]), int(epochs[-1]) + 1)
        ]
        return torch.cat(parts)

    def batch(
        self, step: int
    ) -> tuple[Float[Tensor, "batch 1 height width"], Int64[Tensor, " batch"]]:
        """Images and labels of a batch.

        Args:
            step: number of the batch, from 0 on.
        """
        rows = self.rows(step)
        return self.data.train_images[rows], self.data.train_labels[rows]
