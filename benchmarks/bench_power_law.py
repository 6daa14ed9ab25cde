"""Power-law tails of spectra of 768 values, against weightwatcher's fit and `powerlaw.Fit`.

    .venv/bin/python benchmarks/bench_power_law.py

Eigenvalues of W^T W of 72 matrices (12 layers of six) with heavy-tailed entries. alpha, xmin and
the KS distance of all fits are asserted to agree to 1e-8. `powerlaw` fits one spectrum only.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings

import numpy as np
import torch
from harness import compare, print_header

from headspec import fit_power_law

N_SPECTRA, SIZE = 72, 768


def spectra() -> np.ndarray:
    """Squared singular values of random matrices with Student-t entries, ascending."""
    rng = np.random.default_rng(0)
    matrices = torch.from_numpy(rng.standard_t(3.0, (N_SPECTRA, SIZE, SIZE)))
    return torch.linalg.svdvals(matrices).flip(1).square().numpy()


def weightwatcher_fits(values: np.ndarray) -> np.ndarray:
    """alpha, xmin and D of each spectrum by weightwatcher's own method."""
    fits = [WW_POWERLAW.pl_fit(one) for one in values]
    return np.array([(fit.alpha, fit.xmin, fit.D) for fit in fits])


def powerlaw_fits(values: np.ndarray) -> np.ndarray:
    """alpha, xmin and D of each spectrum by `powerlaw`, with alpha allowed above 3."""
    ranges = {"alpha": [1, 100]}
    fits = [powerlaw.Fit(one, verbose=0, parameter_ranges=ranges) for one in values]
    return np.array([(fit.alpha, fit.xmin, fit.D) for fit in fits])


def our_fits(values: np.ndarray) -> np.ndarray:
    """alpha, xmin and D of all spectra at once."""
    fit = fit_power_law(values)
    return np.stack([fit.alpha, fit.xmin, fit.ks], axis=1)


def agree(ours: np.ndarray, peer: np.ndarray) -> None:
    """Same alpha, xmin and D."""
    np.testing.assert_allclose(ours, peer, rtol=1e-8)


if __name__ == "__main__":
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        import powerlaw
        from weightwatcher import WW_powerlaw as WW_POWERLAW
    logging.getLogger("weightwatcher").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    count = 4 if "--small" in sys.argv else N_SPECTRA
    values, note = spectra()[:count], f"{torch.get_num_threads()} threads"
    one = values[:1]
    print_header()
    compare(
        "power law of a spectrum of 768 values, against `powerlaw.Fit`",
        lambda: our_fits(one),
        lambda: powerlaw_fits(one),
        agree=agree,
        note=note,
    )
    compare(
        "the same, against weightwatcher's own fit",
        lambda: our_fits(one),
        lambda: weightwatcher_fits(one),
        agree=agree,
        repeats=15,
        note=note,
    )
    compare(
        f"power laws of {count} spectra of 768 values, against weightwatcher's own fit",
        lambda: our_fits(values),
        lambda: weightwatcher_fits(values),
        agree=agree,
        note=note,
    )
