"""Gabor fits: planted functions come back, noise gives the null, small filters are refused."""

import doctest
import math
import time

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime, least_squares
from scipy.stats import multivariate_normal

import headspec as hs
from headspec import results
from headspec.activations import gabor
from headspec.activations.gabor_model import (
    N_PARAMETERS,
    fit_image,
    gabor_gradients,
    gabor_values,
    pixel_grid,
)
from headspec.activations.gabor_null import neighbour_correlation

PLANTED = {"x0": 0.3, "y0": -0.5, "angle": 0.7, "s": 1.6, "t": 2.2, "f": 0.2, "phase": 0.9}


def planted(size, *, x0, y0, angle, s, t, f, phase, amplitude=1.0, offset=0.0):
    """As the docstring has it, written anew."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    across = (x - x0) * math.cos(angle) + (y - y0) * math.sin(angle)
    along = -(x - x0) * math.sin(angle) + (y - y0) * math.cos(angle)
    envelope = np.exp(-(across**2) / (2 * s**2) - along**2 / (2 * t**2))
    return torch.from_numpy(amplitude * envelope * np.cos(2 * np.pi * f * across + phase) + offset)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("size", [7, 9, 11])
@pytest.mark.parametrize("angle", [0.0, 0.7, 1.6, 2.9])
def test_planted_functions_come_back(size, angle):
    options = PLANTED | {"angle": angle}
    image = planted(size, **options, amplitude=3.0, offset=0.4)
    found = hs.fit_gabor(image[None], n_null=0)
    assert found.r_squared[0] == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(found.fits[0], image, atol=1e-2)
    np.testing.assert_allclose(found.centre[0], [0.3, -0.5], atol=0.02)
    turned = abs(found.orientation[0] - angle)  # 0 and pi are one direction
    assert min(turned, math.pi - turned) < 0.01
    assert found.frequency[0] == pytest.approx(0.2, abs=0.005)
    assert found.width_across[0] == pytest.approx(1.6, abs=0.05)
    assert found.width_along[0] == pytest.approx(2.2, abs=0.05)
    assert found.amplitude[0] == pytest.approx(3, abs=0.1)
    assert found.offset[0] == pytest.approx(0.4, abs=0.05)
    assert abs(found.phase[0]) == pytest.approx(0.9, abs=0.05)  # its sign turns with the direction


def test_what_is_reported_is_what_was_fitted():
    """Also for orientations whose half turns were taken off."""
    images = noise(12, 6, 6)
    found = hs.fit_gabor(images, n_null=0)
    assert ((found.orientation >= 0) & (found.orientation < math.pi)).all()
    for i in range(12):
        again = planted(
            6, x0=found.centre[i, 0], y0=found.centre[i, 1], angle=found.orientation[i],
            s=found.width_across[i], t=found.width_along[i], f=found.frequency[i],
            phase=found.phase[i], amplitude=found.amplitude[i], offset=found.offset[i],
        )  # fmt: skip
        np.testing.assert_allclose(again, found.fits[i], atol=1e-9)
        left = np.square(images[i].numpy() - found.fits[i]).sum()
        right = 1 - left / np.square(images[i].numpy() - images[i].numpy().mean()).sum()
        assert found.r_squared[i] == pytest.approx(right, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_gradients_are_scipys(seed):
    rng, grid = np.random.default_rng(seed), pixel_grid(4, 6)
    parameters = rng.uniform(-1, 1, N_PARAMETERS)
    parameters[5] = abs(parameters[5])
    right = approx_fprime(parameters, lambda p: gabor_values(p, grid), 1e-7)
    np.testing.assert_allclose(gabor_gradients(parameters, grid), right, atol=1e-4)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(-30, 30), shift=st.floats(-5, 5))
def test_scale_offset_and_reflections_hardly_matter(seed, scale, shift):
    image = noise(5, 5, seed=seed)
    plain = fit_image(image.numpy())[1]
    assert 0 <= plain <= 1
    moved = fit_image((image.numpy() + shift) * -(10.0**scale))[1]
    assert moved == pytest.approx(plain, abs=0.02)
    for same in (image.T, image.flip(0), image.flip(1)):
        assert fit_image(same.numpy())[1] == pytest.approx(plain, abs=0.15)


def test_hardly_worse_than_many_random_starts():
    """The oracle: 25 random starts of SciPy, without our candidates."""
    rng, grid, gaps = np.random.default_rng(0), pixel_grid(5, 5), []
    for image in noise(4, 5, 5).numpy():
        target = (image.ravel() - image.mean()) / image.std()
        best = 0.0
        for _ in range(25):
            start = [
                *rng.uniform(grid.low[:2], grid.high[:2]), rng.uniform(0, np.pi),
                *rng.uniform(grid.low[3:5], 1.0), rng.uniform(grid.low[5], 0.5),
                *rng.standard_normal(2), 0.0,
            ]  # fmt: skip
            fit = least_squares(
                lambda p, target=target: gabor_values(p, grid) - target,
                start,
                bounds=(grid.low, grid.high),
                jac=lambda p: gabor_gradients(p, grid),
                max_nfev=60,
            )
            best = max(best, 1 - 2 * fit.cost / target.size)
        gaps.append(best - fit_image(image)[1])
    assert np.mean(gaps) < 0.02
    assert max(gaps) < 0.1


def test_noise_is_fitted_well_and_only_the_null_tells():
    """R^2 of .5 on 5 x 5 looks like half a Gabor; it is what noise gives."""
    images = noise(30, 5, 5, seed=5)
    found = hs.fit_gabor(images)
    assert 0.4 < found.r_squared.mean() < 0.65
    assert found.overall.p_value > 0.01
    assert found.overall.mean == pytest.approx(found.r_squared.mean(), abs=0.1)
    assert found.p.min() >= 0.01
    assert found.p.mean() == pytest.approx(0.5, abs=4 * (1 / 12 / 30) ** 0.5 + 0.05)
    planted_too = torch.stack(
        [planted(5, **(PLANTED | {"angle": 0.3 * i})) + 0.02 * image
         for i, image in enumerate(images[:8])]
    )  # fmt: skip
    filters = hs.fit_gabor(planted_too)
    assert filters.p.max() == 0.01
    assert filters.p_fdr.max() <= 0.011
    assert filters.overall.p_value == 0.001
    assert "8 better than noise" in filters.summary()
    larger = hs.fit_gabor(noise(10, 11, 11), n_null=0)
    assert larger.r_squared.mean() < 0.25  # 121 values, nine parameters


@pytest.mark.parametrize("size", [(3, 3), (4, 4), (1, 30)])
def test_small_filters_are_refused_since_anything_fits(size):
    with pytest.raises(hs.InputError, match="at least 18 values, twice as many as parameters"):
        hs.fit_gabor(noise(2, *size))
    if size == (3, 3):
        assert min(fit_image(image)[1] for image in noise(5, 3, 3).numpy()) > 0.8


def test_channels():
    grey = planted(7, **PLANTED)
    colour = torch.stack([grey * weight for weight in (0.2, -1.0, 0.5)])[None]
    first = hs.fit_gabor(colour, n_null=0)
    assert first.colour == "first_component"
    assert first.colour_share[0] == pytest.approx(1)
    assert first.r_squared[0] == pytest.approx(1, abs=1e-6)
    assert first.amplitude[0] == pytest.approx(math.sqrt(0.04 + 1 + 0.25), rel=0.02)
    summed = hs.fit_gabor(colour, colour="sum", n_null=0)
    assert summed.amplitude[0] == pytest.approx(0.3, rel=0.02)
    assert summed.colour_share[0] == pytest.approx(0.09 / 3 / 1.29)
    single = hs.fit_gabor(grey[None, None], n_null=0)
    np.testing.assert_allclose(single.fits, hs.fit_gabor(grey[None], n_null=0).fits, atol=1e-6)
    assert hs.fit_gabor(grey[None], n_null=0).colour is None
    opponent = torch.stack([grey, -grey])[None]  # red against green: the sum sees nothing
    assert np.isnan(hs.fit_gabor(opponent, colour="sum", n_null=0).r_squared[0])


def test_the_null_holds_for_components_of_colour_noise():
    """The first component of Gaussian noise is Gaussian noise up to a factor."""
    found = hs.fit_gabor(noise(30, 3, 5, 5, seed=3))
    sd = found.null_r_squared.std() * (1 / 30 + 1 / 99) ** 0.5
    assert found.r_squared.mean() == pytest.approx(found.null_r_squared.mean(), abs=4 * sd)


def smooth_noise(n, size, correlation, seed=0):
    """Drawn from the covariance of all pixels, as SciPy does."""
    y, x = np.mgrid[:size, :size].reshape(2, -1)
    squared = (x[:, None] - x) ** 2 + (y[:, None] - y) ** 2
    drawn = multivariate_normal(cov=correlation**squared, allow_singular=True).rvs(
        n, random_state=seed
    )
    return torch.from_numpy(drawn.reshape(n, size, size))


def test_smooth_noise_passes_for_gabor_beside_white_noise_and_not_beside_its_own():
    images = smooth_noise(24, 5, 0.7)
    white = hs.fit_gabor(images)
    assert white.overall.p_value == 0.001
    assert white.r_squared.mean() > white.overall.mean + 0.1
    smooth = hs.fit_gabor(images, noise="smooth", n_null=60)
    assert smooth.noise_correlation == pytest.approx(0.7, abs=0.11)
    sd = smooth.null_r_squared.std() * (1 / 24 + 1 / 60) ** 0.5
    assert smooth.overall.mean == pytest.approx(smooth.r_squared.mean(), abs=4 * sd)
    assert "smooth noise of that size" in smooth.summary()


def test_the_mean_is_calibrated_also_for_as_many_filters_as_draws():
    """The draws scatter as the filters do: beside their mean alone, 1 in 8 sets would pass."""
    rng, found, naive = np.random.default_rng(0), [], []
    for seed in range(400):
        filters, null = rng.beta(10, 10, 96), rng.beta(10, 10, 99)
        found.append(gabor._overall(filters, null, seed).p_value)
        means = rng.choice(null, (199, 96)).mean(1)
        naive.append((1 + (means >= filters.mean()).sum()) / 200)
    assert 0.025 < np.mean(np.array(found) <= 0.05) < 0.08
    assert np.mean(np.array(naive) <= 0.05) > 0.09  # negative control


def test_white_filters_have_uncorrelated_neighbours():
    assert neighbour_correlation(noise(200, 5, 5).numpy()) == 0
    assert neighbour_correlation(np.zeros((3, 5, 5))) == 0
    assert neighbour_correlation(np.ones((3, 5, 5))) == 0.95
    for right in (0.2, 0.7, 0.9):
        assert neighbour_correlation(smooth_noise(3000, 5, right).numpy()) == right
    weighted = noise(200, 5, 5).numpy() * np.logspace(-20, 20, 200)[:, None, None]
    assert neighbour_correlation(weighted) == 0


def test_constant_filters_are_not_defined():
    found = hs.fit_gabor(torch.cat([torch.full((1, 5, 5), 0.3), noise(1, 5, 5)]), n_null=9)
    assert np.isnan(found.r_squared).tolist() == [True, False]
    assert np.isnan(found.p[0])
    assert "1 constant" in found.summary()
    none = hs.fit_gabor(torch.zeros(2, 5, 5), n_null=9)
    assert np.isnan(none.overall.observed)


def test_32_filters_of_5_by_5_take_seconds_and_the_null_is_kept():
    start = time.process_time()
    hs.fit_gabor(noise(32, 1, 5, 5), n_null=0)
    assert time.process_time() - start < 8  # about 1.2 s on an idle core, shapes checked
    hs.fit_gabor(noise(1, 5, 5))
    start = time.process_time()
    hs.fit_gabor(noise(1, 5, 5, seed=1))
    assert time.process_time() - start < 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_lower_precision_is_computed_in_float64(dtype):
    images = noise(2, 5, 5).to(dtype).requires_grad_()
    found, right = hs.fit_gabor(images, n_null=0), hs.fit_gabor(images.double(), n_null=0)
    np.testing.assert_array_equal(found.r_squared, right.r_squared)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: hs.fit_gabor(w[0]), r"`filter height width` or .*shape \[5, 5\]"),
        (lambda w: hs.fit_gabor(w.numpy()), "got ndarray"),
        (lambda w: hs.fit_gabor(w / 0), "50 of 50 entries NaN"),
        (lambda w: hs.fit_gabor(w, colour="mean"), "colour out of 'sum'"),
        (lambda w: hs.fit_gabor(w, noise="pink"), "noise out of 'white'"),
        (lambda w: hs.fit_gabor(w, n_null=-1), "n_null of 0 or more"),
    ],
)
def test_misuse(call, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(hs.InputError, match=message):
        call(torch.ones(2, 5, 5))


def test_frames_and_files(tmp_path):
    found = hs.fit_gabor(noise(3, 1, 5, 5), n_null=9, seed=2)
    frame = found.to_frame()
    assert len(frame) == 7 * 3 + 1
    squares = frame[frame["metric"] == "gabor_r_squared"].set_index("filter")
    np.testing.assert_array_equal(squares["value"], found.r_squared)
    np.testing.assert_array_equal(squares["p"], found.p)
    assert set(frame["n"]) == {25}
    assert set(frame["seed"]) == {2}
    again = results.load(results.save(found, tmp_path / "gabor.json"))
    assert again.to_frame().equals(frame)
    assert again.summary() == found.summary()
    bare = hs.fit_gabor(noise(3, 1, 5, 5), n_null=0).to_frame()
    assert bare["p"].isna().all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_on_a_gpu():
    images = noise(2, 1, 5, 5)
    found, right = hs.fit_gabor(images.cuda(), n_null=0), hs.fit_gabor(images, n_null=0)
    np.testing.assert_allclose(found.r_squared, right.r_squared, atol=1e-9)


def test_examples_run():
    assert doctest.testmod(gabor).failed == 0
