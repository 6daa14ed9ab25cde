"""Images: the bundled digits, IDX folders, torchvision, and batches by step."""

import gzip
import sys
import types

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from test_idx_files import idx_bytes

from headspec import InputError, open_images
from headspec.training.vision_stream import ImageStream


@pytest.fixture(scope="module")
def digits():
    return open_images("digits")


def write_folder(folder, *, n=30, names="dashes", packed=False, height=6, width=5):
    """A small set under MNIST's names."""
    rng = np.random.default_rng(0)
    made = {}
    for split, count in (("train", n), ("t10k", n // 2)):
        made[f"{split}-images-idx3-ubyte"] = rng.integers(0, 256, (count, height, width))
        made[f"{split}-labels-idx1-ubyte"] = np.arange(count) % 3
    for name, array in made.items():
        name = name.replace("-idx", ".idx") if names == "dots" else name
        content = idx_bytes(array)
        path = folder / (name + (".gz" if packed else ""))
        path.write_bytes(gzip.compress(content) if packed else content)
    return made


def test_the_digits_are_scikit_learns(digits):
    raw = load_digits()
    assert digits.train_images.shape == (1257, 1, 8, 8)
    assert digits.validation_images.shape == (540, 1, 8, 8)
    both = torch.cat([digits.train_images, digits.validation_images]).flatten(1).numpy()
    back = both * digits.info["sd"] + digits.info["mean"]
    theirs = {row.astype(np.float32).tobytes() for row in raw.data}
    assert {np.round(row).astype(np.float32).tobytes() for row in back} == theirs
    assert digits.n_classes == 10
    assert digits.image_size == (8, 8)
    assert "1,257 training and 540 validation images of 8 x 8 pixels" in digits.summary()


def test_the_split_is_even_over_classes_and_always_the_same(digits):
    share = torch.bincount(digits.validation_labels) / 540
    whole = np.bincount(load_digits().target) / 1797
    np.testing.assert_allclose(share, whole, atol=2e-3)
    assert open_images("digits").fingerprint == digits.fingerprint


def test_standardised_by_the_training_set_alone(digits):
    assert abs(float(digits.train_images.double().mean())) < 1e-6
    assert abs(float(digits.train_images.double().std(correction=0)) - 1) < 1e-6
    assert abs(float(digits.validation_images.double().mean())) > 1e-4  # not by itself


@pytest.mark.parametrize("n", [20, 50, 100, 500])
def test_the_first_validation_images_are_spread_over_classes(digits, n):
    counts = torch.bincount(digits.validation_labels[:n], minlength=10)
    assert counts.min() == counts.max() == n // 10


@pytest.mark.parametrize(
    ("names", "packed"), [("dashes", False), ("dots", False), ("dashes", True)]
)
def test_a_folder_of_idx_files(tmp_path, names, packed):
    made = write_folder(tmp_path, names=names, packed=packed)
    data = open_images(tmp_path)
    raw = made["train-images-idx3-ubyte"]
    expected = (raw - raw.mean()) / raw.std()
    np.testing.assert_allclose(data.train_images[:, 0], expected, rtol=1e-6, atol=1e-6)
    assert data.train_labels.tolist() == made["train-labels-idx1-ubyte"].tolist()
    assert data.validation_images.shape == (15, 1, 6, 5)
    assert data.n_classes == 3
    turned = np.lexsort((made["t10k-labels-idx1-ubyte"], np.arange(15) // 3))
    assert data.validation_labels.tolist() == made["t10k-labels-idx1-ubyte"][turned].tolist()


def test_what_is_wrong_with_a_folder_is_said(tmp_path):
    with pytest.raises(InputError, match="no folder is called so"):
        open_images(tmp_path / "nothing")
    write_folder(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(7)))
    with pytest.raises(InputError, match=r"a label each .* images \[15, 6, 5\], labels \[7\]"):
        open_images(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError, match="t10k-labels-idx1-ubyte"):
        open_images(tmp_path)


def test_images_without_pixels_are_refused(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((15, 0, 5))))
    with pytest.raises(InputError, match=r"images \[15, 0, 5\]"):
        open_images(tmp_path)


def test_images_of_two_sizes_are_refused(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((15, 4, 4))))
    with pytest.raises(InputError, match="images of one size"):
        open_images(tmp_path)


def test_torchvision_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(InputError, match="pip install torchvision"):
        open_images("torchvision:MNIST")


def test_torchvisions_sets_are_read_and_never_downloaded_unasked(monkeypatch, tmp_path):
    """Against a stand-in with torchvision's interface, which is no dependency."""
    asked = []

    class MNIST:
        def __init__(self, root, *, train, download):
            asked.append((root, train, download))
            if not download and root == "empty":
                raise RuntimeError("Dataset not found.")
            count = 8 if train else 4
            self.data = torch.arange(count * 9, dtype=torch.uint8).reshape(count, 3, 3)
            self.targets = torch.arange(count) % 2

    datasets = types.SimpleNamespace(MNIST=MNIST)
    module = types.ModuleType("torchvision")
    module.datasets = datasets
    monkeypatch.setitem(sys.modules, "torchvision", module)
    data = open_images("torchvision:MNIST", root=tmp_path)
    assert data.train_images.shape == (8, 1, 3, 3)
    assert asked == [(str(tmp_path), True, False), (str(tmp_path), False, False)]
    with pytest.raises(InputError, match="download=True"):
        open_images("torchvision:MNIST", root="empty")
    with pytest.raises(InputError, match="a dataset of torchvision"):
        open_images("torchvision:Nothing")


@pytest.mark.parametrize("batch_size", [32, 100, 1257, 3000])
def test_each_epoch_holds_every_image_once_in_an_order_of_its_own(digits, batch_size):
    stream = ImageStream(digits, batch_size=batch_size, seed=3)
    steps = -(-3 * 1257 // batch_size)
    rows = torch.cat([stream.rows(step) for step in range(steps)])
    epochs = [rows[1257 * i : 1257 * (i + 1)] for i in range(3)]
    assert all(epoch.sort().values.tolist() == list(range(1257)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[1], epochs[2])


def test_a_batch_follows_from_the_step_alone(digits):
    stream = ImageStream(digits, batch_size=48, seed=1)
    forward = [stream.rows(step) for step in range(80)]
    again = ImageStream(digits, batch_size=48, seed=1)
    for step in (79, 3, 26, 0):  # in any order, from a fresh stream
        assert torch.equal(again.rows(step), forward[step])
    other = ImageStream(digits, batch_size=48, seed=2)
    assert not torch.equal(other.rows(0), forward[0])
    images, labels = stream.batch(26)
    assert torch.equal(images, digits.train_images[forward[26]])
    assert torch.equal(labels, digits.train_labels[forward[26]])
