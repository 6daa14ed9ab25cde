"""The resolution of dimensionality, against rounding itself: never too small, rarely too large."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from headspec import dimensionality_stats
from headspec.activations.dimensionality_result import METRICS

SMOOTH = [name for name in METRICS if name != "components_90"]
PUBLISHED = Path(__file__).parents[2].parent / "shared/data/ndt-phase1"
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def student(*shape):
    return torch.from_numpy(np.random.default_rng(0).standard_t(2, size=shape))


def scaled_column(factor):
    matrix = gaussian(200, 30)
    matrix[:, 3] *= factor
    return matrix


SPECTRA = {
    "gaussian": gaussian(200, 30),
    "relu": (gaussian(200, 30) @ gaussian(30, 30, seed=1)).relu(),
    "falling": gaussian(200, 30) * torch.arange(1, 31).double() ** -1.5,
    "three large": gaussian(200, 30) * torch.cat([torch.full((3,), 30), torch.ones(27)]),
    "outlier feature": scaled_column(100),
    "outlier sample": scaled_column(100).T.contiguous(),
    "heavy tails": student(200, 30),
    "heavy samples": gaussian(200, 30) * student(200, 1),
    "sparse": gaussian(200, 30) * (gaussian(200, 30, seed=1) > 1.6),
    "wide": gaussian(30, 200),
    "many samples": gaussian(1000, 60),
}
ALWAYS = {  # what rounding does always dominates: values that would be 0, or equal
    "low rank": gaussian(200, 5) @ gaussian(5, 30, seed=1),
    "one direction": gaussian(200, 1) @ gaussian(1, 30, seed=1),
    "orthogonal": torch.linalg.qr(gaussian(200, 30))[0],
    "square orthogonal": torch.linalg.qr(gaussian(48, 48))[0],
}


def rounded(matrix, dtype, *, centred, draws=40):
    """Measures of a matrix rounded to a dtype at random scales, less those of the matrix."""
    scales = 1 + torch.rand(draws, 1, 1, generator=torch.Generator().manual_seed(0)).double()
    exact = dimensionality_stats(matrix, centred=centred, dtype=dtype)
    noisy = dimensionality_stats((matrix * scales).to(dtype), centred=centred)
    errors = {name: noisy.named()[name] - exact.named()[name] for name in METRICS}
    return exact, errors


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("name", SPECTRA)
def test_rounding_stays_below_the_resolution(name, centred, dtype):
    exact, errors = rounded(SPECTRA[name], dtype, centred=centred)
    for metric in SMOOTH:
        resolution = float(exact.resolution[metric])
        changes = np.abs(errors[metric][:20] - errors[metric][20:])
        assert np.abs(errors[metric]).max() < resolution, metric
        assert changes.max() < 1.3 * resolution, metric  # 1 in 370 beyond 3 standard deviations
        times = resolution / errors[metric].std()
        assert 3 < times < 15, (metric, times)  # documented: 4 to 13
    assert np.abs(errors["components_90"]).max() <= exact.resolution["components_90"] == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ALWAYS)
def test_what_rounding_does_always_is_part_of_it(name, dtype):
    exact, errors = rounded(ALWAYS[name], dtype, centred=False)
    for metric in SMOOTH:
        resolution = float(exact.resolution[metric])
        assert np.abs(errors[metric]).max() < resolution, metric
    largest = np.abs(errors["nuclear_ratio"]).max() / exact.resolution["nuclear_ratio"]
    assert largest > 0.2  # not over-cautious about the size of it
    if name == "low rank":  # first order alone would have said less than a tenth of what happens
        bias = np.abs(errors["nuclear_ratio"].mean())
        assert bias > 10 * errors["nuclear_ratio"].std()


def test_it_follows_the_dtype_and_the_number_of_roundings():
    matrix = gaussian(100, 20)
    by_dtype = {
        dtype: dimensionality_stats(matrix, dtype=dtype).resolution["participation_ratio"]
        for dtype in (torch.float64, torch.float32, torch.bfloat16)
    }
    assert by_dtype[torch.float32] / by_dtype[torch.float64] > 1e4
    ratio = by_dtype[torch.bfloat16] / by_dtype[torch.float32]
    assert ratio == pytest.approx(2.0**16, rel=0.02)
    ten = dimensionality_stats(matrix.float(), roundings=10)
    one = dimensionality_stats(matrix.float())
    assert ten.resolution["participation_ratio"] == pytest.approx(
        10 * one.resolution["participation_ratio"], rel=1e-3
    )
    assert one.participation_ratio == ten.participation_ratio


def test_float64_has_the_limit_of_its_own_arithmetic():
    matrix = gaussian(300, 40) * torch.logspace(0, -5, 40).double()
    right = torch.linalg.svdvals(matrix).numpy()
    found = dimensionality_stats(matrix, centred=False)
    error = abs(found.nuclear_ratio - right.sum() / right[0])
    assert error <= found.resolution["nuclear_ratio"] < 1e-6


def test_a_grid_coarser_than_the_spread_has_no_resolution_left():
    """At 1,000 bfloat16 steps by 4 or 8: what varies by 1 there is gone, and the limit says so."""
    matrix = gaussian(200, 30) + 1000
    stats = dimensionality_stats(matrix.to(torch.bfloat16))
    for metric in SMOOTH:
        assert stats.resolution[metric] > 0.5 * (stats.named()[metric] - 1), metric


def test_errors_larger_than_the_values_leave_a_number():
    """Equal values driven apart by more than their size are 0 at the least; below, no logarithm."""
    matrix = gaussian(30, 30) + 30
    stats = dimensionality_stats(matrix, dtype=torch.bfloat16, roundings=10)
    for metric in SMOOTH:
        assert stats.resolution[metric] > 0.5 * (stats.named()[metric] - 1), metric


@pytest.mark.parametrize("depth", [1, 5])
def test_networks_round_more_than_once(depth):
    """Errors of a float32 network beside float64: 10 roundings hold them, 1 does not."""
    largest = {1: 0.0, 10: 0.0}
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(200, 128, generator=generator)
        y = x.double()
        for _ in range(depth):
            weight = torch.randn(128, 128, generator=generator) / 128**0.5
            x, y = (x @ weight).tanh(), (y @ weight.double()).tanh()
        exact = dimensionality_stats(y)
        for roundings in largest:
            found = dimensionality_stats(x, roundings=roundings)
            shares = [
                abs(found.named()[m] - exact.named()[m]) / found.resolution[m] for m in SMOOTH
            ]
            largest[roundings] = max(largest[roundings], *map(float, shares))
    assert largest[10] < 1
    if depth == 5:
        assert largest[1] > 1  # storage alone would have called rounding a change


def published_stable_rank(matrix):
    """The study's: torch.norm(p=2) of a matrix is its Frobenius norm."""
    return float(torch.norm(matrix) ** 2 / (torch.norm(matrix, p=2) ** 2 + 1e-10))


def test_the_published_stable_rank_lies_below_resolution():
    """Pitfall 20: |A|_F^2 / (|A|_F^2 + 1e-10) is 1 whatever the matrix; the measure is not."""
    matrices = [gaussian(200, 30, seed=i) * (i + 1) ** -torch.arange(30.0) for i in range(5)]
    naive = [published_stable_rank(matrix) for matrix in matrices]
    stats = dimensionality_stats(torch.stack(matrices).float(), centred=False)
    assert np.ptp(naive) < stats.resolution["stable_rank"].min()
    assert np.ptp(stats.stable_rank) > 1e6 * stats.resolution["stable_rank"].max()


def test_no_published_jump_of_stable_rank_is_one():
    if not PUBLISHED.exists():
        pytest.skip(f"the published measurements are not at {PUBLISHED}")
    floor = dimensionality_stats(gaussian(512, 128).float(), centred=False).resolution
    for file in sorted(PUBLISHED.glob("*.json")):
        rows = json.loads(file.read_text())["measurements"]
        for layer in rows[0]["layer_metrics"]:
            series = [row["layer_metrics"][layer]["stable_rank"] for row in rows]
            assert np.abs(np.diff(series)).max() < floor["stable_rank"]
            other = [row["layer_metrics"][layer]["participation_ratio"] for row in rows]
            assert np.ptp(other) > floor["participation_ratio"]  # the others did vary


@pytest.mark.parametrize("name", [*SPECTRA, *ALWAYS])
def test_without_it_the_measures_are_the_same(name):
    matrix = (SPECTRA | ALWAYS)[name].float()
    with_it, without = (dimensionality_stats(matrix, resolution=asked) for asked in (True, False))
    for metric in METRICS:
        found = float(without.named()[metric])
        slack = float(with_it.resolution[metric])  # both within a tenth of it of an SVD
        assert found == pytest.approx(float(with_it.named()[metric]), rel=2e-8, abs=slack / 5)
        assert np.isnan(without.resolution[metric])
