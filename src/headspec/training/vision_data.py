"""Images with labels, in a training and a validation set, as tensors in memory."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from headspec.errors import InputError
from headspec.training.idx_files import read_idx

_SPLIT_SEED = 0
_SHARE = 0.3


@dataclass(frozen=True, eq=False)
class ImageData:
    """Grey images and their classes; `open_images` makes it.

    Pixels are standardised: less the mean, over the standard deviation of all pixels of the
    training set (two numbers, so that strokes keep their shape).

    Attributes:
        train_images: `n 1 height width`.
        train_labels: class of each, from 0.
        validation_images: images that are not trained on. Classes take turns in them as far as
            they go, so that the first k are spread evenly over the classes.
        validation_labels: class of each.
        n_classes: number of classes.
        info: `name`, and `mean` and `sd` of the raw pixels.
    """

    train_images: Float[Tensor, "train 1 height width"]
    train_labels: Int64[Tensor, " train"]
    validation_images: Float[Tensor, "validation 1 height width"]
    validation_labels: Int64[Tensor, " validation"]
    n_classes: int
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.train_images.shape[-2], self.train_images.shape[-1]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all images and labels."""
        digest = hashlib.sha256()
        for part in (
            self.train_images,
            self.train_labels,
            self.validation_images,
            self.validation_labels,
        ):
            digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def summary(self) -> str:
        """A line of plain text."""
        height, width = self.image_size
        return (
            f"{self.info.get('name', 'images')}: {len(self.train_images):,} training and "
            f"{len(self.validation_images):,} validation images of {height} x {width} pixels, "
            f"{self.n_classes} classes"
        )


def open_images(
    name: str | os.PathLike[str] = "digits",
    *,
    root: str | os.PathLike[str] = "data",
    download: bool = False,
) -> ImageData:
    """Open a set of labelled grey images.

    Args:
        name: one of:
            "digits": scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, which come with it;
            1,257 to train on and 540 to validate, split evenly over classes, always the same.
            A folder of IDX files under MNIST's names (`train-images-idx3-ubyte`,
            `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`, plain or
            with `.gz`); its test set is the validation set here.
            "torchvision:MNIST", or another of torchvision's sets of grey images such as
            "torchvision:FashionMNIST", where torchvision is installed.
        root: folder in which torchvision looks for its data.
        download: let torchvision download them.

    Returns:
        The images, standardised, on the CPU.

    Raises:
        InputError: no such set or folder, or torchvision or its data are missing.
        CheckpointError: an IDX file is damaged.

    References:
        Alpaydin and Kaynak 1998, Optical recognition of handwritten digits (UCI).

    Example:
        >>> data = open_images("digits")
        >>> print(data.summary())
        digits: 1,257 training and 540 validation images of 8 x 8 pixels, 10 classes
    """
    name = os.fspath(name)
    if name == "digits":
        return _digits()
    if name.startswith("torchvision:"):
        return _torchvision(name, os.fspath(root), download)
    if Path(name).is_dir():
        return _idx_folder(Path(name))
    raise InputError(
        expected='"digits", the folder of IDX files, or "torchvision:MNIST"',
        got=repr(name),
        fix="Correct the name: no folder is called so.",
    )


def _digits() -> ImageData:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = (np.asarray(part) for part in load_digits(return_X_y=True))
    images = pixels.reshape(-1, 8, 8).astype(np.float32)
    train, held_out = train_test_split(
        np.arange(len(labels)), test_size=_SHARE, stratify=labels, random_state=_SPLIT_SEED
    )
    return _standardised("digits", images[train], labels[train], images[held_out], labels[held_out])


def _idx_folder(folder: Path) -> ImageData:
    parts = []
    for what in ("train-images.idx3", "train-labels.idx1", "t10k-images.idx3", "t10k-labels.idx1"):
        stems = (what.replace(".", "-"), what)
        names = [f"{stem}-ubyte{end}" for stem in stems for end in ("", ".gz")]
        found = next((folder / name for name in names if (folder / name).is_file()), None)
        if found is None:
            raise InputError(
                expected=f"{names[0]} (or .gz) in {folder}",
                got="no such file",
                fix="Give the folder that holds MNIST's four IDX files.",
            )
        parts.append(read_idx(found))
    return _standardised(folder.name, *parts)


def _torchvision(name: str, root: str, download: bool) -> ImageData:
    try:
        from torchvision import datasets  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            expected=f"the package torchvision for {name!r}",
            got="none installed",
            fix='Run `pip install torchvision`, or take "digits" or a folder of IDX files.',
        ) from error
    kind = getattr(datasets, name.partition(":")[2], None)
    if kind is None:
        raise InputError(expected="a dataset of torchvision", got=name, fix="Correct the name.")
    try:
        sets = [kind(root, train=train, download=download) for train in (True, False)]
    except RuntimeError as error:
        raise InputError(
            expected=f"the data of {name} in {root!r}",
            got=str(error),
            fix="Call open_images(name, root=..., download=True) once.",
        ) from error
    arrays = [np.asarray(part) for one in sets for part in (one.data, one.targets)]
    return _standardised(name, *arrays)


def _standardised(
    name: str,
    train: np.ndarray,
    train_labels: np.ndarray,
    validation: np.ndarray,
    validation_labels: np.ndarray,
) -> ImageData:
    """Checked, standardised by the training set, as tensors."""
    for images, labels in ((train, train_labels), (validation, validation_labels)):
        if images.ndim != 3 or labels.shape != images.shape[:1] or 0 in images.shape:
            raise InputError(
                expected=f"grey images [n, height, width] with a label each in {name}",
                got=f"images {list(images.shape)}, labels {list(labels.shape)}",
                fix="Only sets of grey images with one label each can be read.",
            )
    if train.shape[1:] != validation.shape[1:]:
        raise InputError(
            expected=f"images of one size in {name}",
            got=f"{list(train.shape[1:])} and {list(validation.shape[1:])}",
            fix="Put files of the same set together.",
        )
    mean, sd = float(train.mean(dtype=np.float64)), float(train.std(dtype=np.float64))
    turns = _in_turns(validation_labels)

    def images_of(images: np.ndarray) -> Tensor:
        return torch.from_numpy(((images - mean) / (sd or 1.0)).astype(np.float32))[:, None]

    def labels_of(labels: np.ndarray) -> Tensor:
        return torch.from_numpy(labels.astype(np.int64))

    return ImageData(
        images_of(train),
        labels_of(train_labels),
        images_of(validation[turns]),
        labels_of(validation_labels[turns]),
        n_classes=int(max(train_labels.max(), validation_labels.max())) + 1,
        info={"name": name, "mean": mean, "sd": sd},
    )


def _in_turns(labels: np.ndarray) -> np.ndarray:
    """An order in which the classes take turns: first each one's first image, and so on."""
    place = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        here = labels == label
        place[here] = np.arange(here.sum())
    return np.lexsort((labels, place))
