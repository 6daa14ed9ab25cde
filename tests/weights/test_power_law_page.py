"""What docs/power_law.md says about the embedded suite."""

import numpy as np
import pytest
import torch

import headspec as hs


@pytest.fixture(scope="module")
def found():
    suite, rows = hs.open_suite("micro"), {}
    for step in (0, 6144):
        for layer in range(3):
            for name, matrix in suite.layer_matrices(step, layer).items():
                values, shape = torch.linalg.svdvals(matrix.double()), tuple(matrix.shape)
                fit = hs.fit_power_law(values**2, null="gaussian", shape=shape)
                rows[step, layer, name] = fit, hs.marchenko_pastur(values, shape)
    return rows


def test_alpha_does_not_leave_its_null(found):
    assert len(found) == 36
    assert all(fit.null_p >= 0.05 for fit, _ in found.values())
    fit, _ = found[6144, 2, "q"]
    assert fit.alpha == pytest.approx(2.83, abs=0.01)
    assert fit.null_mean == pytest.approx(5.9, abs=0.05)
    assert fit.null_sd == pytest.approx(3, abs=0.05)


def test_spikes_do(found):
    spikes = {key: int(bulk.n_spikes) for key, (_, bulk) in found.items()}
    assert all(spikes[key] == 0 for key in spikes if key[0] == 0)
    assert max(spikes.values()) == spikes[6144, 2, "q"] == 31
    assert sum(spikes[key] > 0 for key in spikes if key[0] == 6144) == 16
    _, bulk = found[6144, 2, "q"]
    assert bulk.spike_variance == pytest.approx(0.77, abs=0.005)
    assert np.isclose(found[6144, 1, "v"][1].n_spikes, 1)
