"""Measures computed while training, against an SVD, and the page that describes them."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_training import one_thread
from tiny_vision import tiny_vision

from headspec import results, train_vision
from headspec.activations.dimensionality_result import METRICS
from headspec.training.dimension_log import class_rows, measure_layers, resolve_layers

PAGE = Path(__file__).parents[2] / "docs" / "vision.md"


@pytest.fixture(autouse=True, scope="module")
def threads():
    with one_thread():
        yield


def by_svd(matrix):
    """Every measure from its formula, in float64."""
    x = matrix.double()
    s = torch.linalg.svdvals(x - x.mean(0)).numpy()
    p = s[s > 0] / s.sum()
    share = np.cumsum(s**2) / (s**2).sum()
    return {
        "stable_rank": (s**2).sum() / s[0] ** 2,
        "participation_ratio": (s**2).sum() ** 2 / (s**4).sum(),
        "participation_ratio_sigma": s.sum() ** 2 / (s**2).sum(),
        "effective_rank": np.exp(-(p * np.log(p)).sum()),
        "components_90": 1 + (share < 0.9).sum(),
        "nuclear_ratio": s.sum() / s[0],
    }


def random_matrix(seed, rows, columns, decay):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, columns, generator=generator)
    return 3 + x * torch.arange(1, columns + 1) ** -decay


@pytest.mark.parametrize("shape", [(20, 60), (20, 20), (20, 19)])
def test_centring_takes_one_direction(shape):
    """One of n centred singular values is 0; the root of a rounding error adds 1e-8 of s_1."""
    matrix = random_matrix(0, *shape, 0.0).double()
    found, expected = measure_layers([matrix])[0], by_svd(matrix)
    for name in METRICS:
        assert found[name] == pytest.approx(expected[name], rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(3, 60),
    columns=st.integers(2, 60),
    decay=st.floats(0, 2),
)
def test_every_measure_is_that_of_an_svd(seed, rows, columns, decay):
    matrix = random_matrix(seed, rows, columns, decay)
    found, expected = measure_layers([matrix])[0], by_svd(matrix)
    assert tuple(found) == METRICS
    for name in METRICS:
        assert found[name] == pytest.approx(expected[name], rel=1e-6)


def test_by_hand():
    """Four points at the ends of two axes of length 1: two equal directions."""
    square = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    line = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    two, one = measure_layers([square, line])
    assert all(value == pytest.approx(2, rel=1e-12) for value in two.values())
    assert all(value == pytest.approx(1, rel=1e-6) for value in one.values())


def test_fewer_directions_than_features_stay_below_the_resolution_of_an_svd():
    """Squaring leaves 1e-8 where a singular value is 0; rounding of the entries does far worse."""
    matrix = random_matrix(0, 50, 4, 0.5) @ random_matrix(1, 4, 40, 0.0)
    found, expected = measure_layers([matrix])[0], by_svd(matrix)
    limits = resolve_layers([matrix])[0]
    for name in METRICS:
        assert abs(found[name] - expected[name]) <= limits[f"{name}_resolution"]


def test_the_studys_stable_rank_is_one_whatever_the_layer(tmp_path):
    """torch.norm(A, p=2) of a matrix is its Frobenius norm, so that its ratio is only rounding."""
    run = train_vision(tiny_vision("mlp"), out=tmp_path / "run", progress=False)
    images = run.images.validation_images[:40]
    naive = [
        (torch.norm(part, p="fro") ** 2 / (torch.norm(part, p=2) ** 2 + 1e-10)).item()
        for step in run.steps
        for part in run.model(step).activations(images).values()
    ]
    assert np.abs(np.array(naive) - 1).max() < 1e-6
    ours = run.dimensionality.query("metric == 'stable_rank'")
    spread = ours.groupby("layer")["value"].agg(np.ptp)
    assert (spread > 100 * ours.groupby("layer")["resolution"].max()).all()


def test_accuracy_by_hand():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [3.0, 0.0, 0.0]])
    labels = torch.tensor([0, 0, 2])
    rows = class_rows(logits, labels, torch.bincount(labels, minlength=3))
    assert [(row["class"], row["value"], row["n"]) for row in rows] == [(0, 0.5, 2), (2, 0.0, 1)]
    assert rows[1]["loss"] == pytest.approx(np.log(np.exp(3) + 2), rel=1e-6)


def test_the_frames_survive_saving(tmp_path):
    run = train_vision(tiny_vision("mlp"), out=tmp_path / "run", progress=False)
    for name in ("dimensionality", "accuracy"):
        frame = getattr(run, name)
        for suffix in (".parquet", ".json"):
            again = results.load(results.save(frame, tmp_path / f"{name}{suffix}"))
            assert again.equals(frame)


def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)), names)
    assert names["second"].steps == (0, 35, 40, 45, 100)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_device_measures_the_same():
    matrix = random_matrix(0, 64, 32, 0.5)
    here, there = measure_layers([matrix])[0], measure_layers([matrix.cuda()])[0]
    assert there == pytest.approx(here, rel=1e-9)
