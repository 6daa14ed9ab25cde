"""Do checkpoints lie on one path: closed forms, false alarms, and checkpoints out of place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from run_files import PYTHIA_STEPS

from headspec.checkpoints.trajectory import (
    SAMPLE,
    Sampler,
    detours,
    find_misplaced,
    orderliness,
    path_distances,
)

LOG_STEPS = (0, *(2**i for i in range(15)))


def walk(steps: tuple[int, ...], *, seed: int, kind: str, size: int = 2000) -> np.ndarray:
    """Weights along training: a random walk whose speed depends on the kind."""
    rng = np.random.default_rng(seed)
    time = np.array(steps, dtype=float)
    if kind == "log":
        time = np.log1p(time)
    pace = np.sqrt(np.diff(time) / time[-1])
    if kind == "cosine":
        pace *= 0.55 + 0.5 * np.cos(np.pi * time[1:] / time[-1])
    moves = rng.normal(size=(len(steps) - 1, size)) * pace[:, None]
    return rng.normal(size=size) + np.vstack([np.zeros(size), np.cumsum(moves, axis=0)])


def on_a_line(*places: float) -> np.ndarray:
    return np.abs(np.subtract.outer(np.array(places, float), np.array(places, float)))


def test_detours_by_hand() -> None:
    """On a line every detour is 1 however uneven the steps; at 2, 8, 4 it is (6 + 4) / 2."""
    assert detours(on_a_line(0, 1, 2, 4, 8, 1000))[1:-1] == pytest.approx(1.0)
    assert detours(on_a_line(0, 2, 8, 4, 10))[2] == pytest.approx((6 + 4) / 2)
    assert np.isnan(detours(on_a_line(0, 1, 2))[[0, 2]]).all()
    random = detours(path_distances(list(walk(tuple(range(60)), seed=0, kind="even", size=20000))))
    assert np.nanmedian(random) == pytest.approx(np.sqrt(2), abs=0.02)
    unrelated = np.random.default_rng(0).normal(size=(20, 20000))
    assert detours(path_distances(list(unrelated)))[1:-1] == pytest.approx(2.0, abs=0.05)


def test_orderliness_by_hand() -> None:
    assert orderliness(on_a_line(0, 2, 5, 8, 11)) == pytest.approx(1.0)
    # 2 % of the largest distance count as no difference: at 100, 0 and 1 are equally far.
    assert orderliness(on_a_line(0, 1, 5, 9, 100))[4] == pytest.approx(5 / 6)
    # 9 stands first and belongs last: seen from it, distances to 1, 2, 3, 4 are 8, 7, 6, 5.
    assert orderliness(on_a_line(9, 1, 2, 3, 4))[0] == pytest.approx(-1.0)
    assert np.isnan(orderliness(on_a_line(0, 1))).all()


@pytest.mark.parametrize("steps", [PYTHIA_STEPS, LOG_STEPS], ids=["pythia", "log"])
@pytest.mark.parametrize("kind", ["log", "even", "cosine"])
def test_no_false_alarms(steps: tuple[int, ...], kind: str) -> None:
    for seed in range(3 if len(steps) > 100 else 10):
        assert find_misplaced(path_distances(list(walk(steps, seed=seed, kind=kind)))) == []


@pytest.mark.parametrize("kind", ["log", "even", "cosine"])
def test_checkpoints_out_of_place(kind: str) -> None:
    weights = walk(PYTHIA_STEPS, seed=0, kind=kind)
    for wrong, original in ((20, 120), (120, 20), (0, 150), (153, 40), (50, 54)):
        moved = weights.copy()
        moved[wrong] = weights[original] + 1e-3
        assert find_misplaced(path_distances(list(moved))) == [wrong]


def test_a_run_of_late_checkpoints() -> None:
    """Twenty neighbouring steps that hold the last twenty's weights hide each other's detours."""
    weights = walk(PYTHIA_STEPS, seed=1, kind="log")
    moved = weights.copy()
    moved[40:60] = weights[-20:] + 1e-3
    distances = path_distances(list(moved))
    assert np.nanmax(detours(distances)[41:59]) < 1.6
    assert find_misplaced(distances) == list(range(40, 60))


def test_too_few_to_judge() -> None:
    assert find_misplaced(np.zeros((0, 0))) == []
    assert find_misplaced(on_a_line(3, 1)) == []


def test_samples_are_the_same_entries() -> None:
    shapes = {"a": (300, 200), "b": (40,), "c": (1000, 1000)}
    sampler = Sampler(shapes)
    a = torch.arange(60000.0).reshape(300, 200)
    before = torch.get_rng_state()
    assert np.array_equal(sampler.take("a", a), Sampler(shapes).take("a", a))
    assert torch.equal(torch.get_rng_state(), before)
    assert len(np.unique(sampler.take("a", a))) > 0.95 * len(sampler.take("a", a))
    sizes = [len(sampler.take(name, torch.zeros(shape))) for name, shape in shapes.items()]
    assert sizes[1] == 16
    assert sum(sizes) == pytest.approx(SAMPLE, rel=0.01)
    assert not np.array_equal(sampler.take("a", a), sampler.take("c", torch.arange(1e6))[:1131])
