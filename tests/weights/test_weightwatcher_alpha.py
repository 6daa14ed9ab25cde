"""weightwatcher on the same matrices, in its own process, under its own conventions."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from headspec.weights.marchenko_pastur import marchenko_pastur
from headspec.weights.power_law import fit_power_law

SCRIPT = Path(__file__).with_name("weightwatcher_run.py")


@pytest.fixture(scope="module")
def matrices():
    rng = np.random.default_rng(0)
    return {
        "gaussian": rng.standard_normal((96, 64)),
        "square": 0.02 * rng.standard_normal((64, 64)),
        "heavy": 0.1 * rng.standard_t(2.5, (80, 160)),
        "low_rank": rng.standard_normal((60, 30)) @ rng.standard_normal((30, 50)),
        "small": rng.standard_normal((64, 16)),
    }


@pytest.fixture(scope="module")
def theirs(matrices, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weightwatcher")
    np.savez(folder / "matrices.npz", **matrices)
    command = [sys.executable, str(SCRIPT), "matrices.npz", "results.json"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return json.loads((folder / "results.json").read_text())


def ours(matrix, **options):
    return fit_power_law(np.linalg.svd(matrix, compute_uv=False) ** 2, **options)


@pytest.mark.parametrize("name", ["gaussian", "square", "heavy", "low_rank"])
def test_same_alpha_and_weighted_alpha(name, matrices, theirs):
    """Its fit to 1e-8; its analysis, which works in float32, to 1e-5."""
    fit, other = ours(matrices[name], drop_below=1e-5), theirs[name]
    np.testing.assert_allclose([fit.alpha, fit.xmin, fit.ks], other["fit"], rtol=1e-8)
    for key, value in {
        "alpha": fit.alpha,
        "alpha_weighted": fit.weighted_alpha,
        "log_spectral_norm": fit.log_spectral_norm,
        "xmin": fit.xmin,
        "D": fit.ks,
        "sigma": fit.se,
    }.items():
        assert value == pytest.approx(other[key], rel=1e-5), key


def test_its_fixed_threshold_depends_on_the_scale(matrices, theirs):
    """Its 1e-5 drops real eigenvalues of small weights; ours is relative."""
    small = 1e-3 * matrices["square"]
    kept = int(ours(small, drop_below=1e-5).n)
    assert kept < 64
    assert ours(small).n == 64
    assert ours(small).alpha == pytest.approx(ours(matrices["square"]).alpha, rel=1e-9)


def test_it_fits_fewer_than_twenty_values_another_way(matrices, theirs):
    """Bias-corrected, and xmin by another target: documented, not copied."""
    fit = ours(matrices["small"])
    assert fit.alpha != pytest.approx(theirs["small"]["alpha"], rel=1e-3)
    corrected = ours(matrices["small"], xmin=theirs["small"]["xmin"] * (1 - 1e-6))
    n = int(corrected.n_tail)
    slope = (corrected.alpha - 1) * (n - 1) / n
    assert theirs["small"]["alpha"] == pytest.approx(1 + slope, rel=1e-4)


def test_same_bulk_edge(matrices, theirs):
    """Its lambda_plus is of W^T W over the larger side."""
    for name, matrix in matrices.items():
        values = np.linalg.svd(matrix, compute_uv=False)
        found = marchenko_pastur(values, matrix.shape, sigma=0.5)
        assert found.edge**2 / max(matrix.shape) == pytest.approx(theirs[name]["lambda_plus"])
