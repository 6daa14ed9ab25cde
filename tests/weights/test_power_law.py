"""Power-law tails: hand-computed fits, powerlaw and brute force as oracles, calibration, nulls."""

import doctest
import warnings

import jaxtyping
import numpy as np
import powerlaw
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headspec import results
from headspec.errors import InputError
from headspec.weights import power_law
from headspec.weights.gaussian_spectra import gaussian_spectra
from headspec.weights.power_law import fit_power_law
from headspec.weights.tail_scan import scan_tails


def pareto(alpha, size, seed=0):
    return (1 - np.random.default_rng(seed).random(size)) ** (-1 / (alpha - 1))


def peer(values, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return powerlaw.Fit(values, verbose=0, **options)


def brute_force(values, min_tail=2):
    """Every tail, every place, one at a time."""
    values = np.sort(values)
    best = (np.inf, np.nan, np.nan)
    for xmin in np.unique(values):
        tail = values[values >= xmin]
        total = np.log(tail / xmin).sum()
        if len(tail) < min_tail or total <= 0:
            continue
        slope = len(tail) / total
        apart = [abs(1 - (x / xmin) ** -slope - np.mean(tail < x)) for x in tail]
        if max(apart) < best[0] - 1e-13:
            best = (max(apart), 1 + slope, xmin)
    return best


def test_golden_by_hand():
    """Above 1: logs 0, ln 2, ln 4 sum to 3 ln 2, alpha = 1 + 1/ln 2; P(X > 2) fitted 1/e."""
    fit = fit_power_law(np.array([4.0, 1.0, 2.0]), xmin=1)
    assert fit.alpha == pytest.approx(1 + 1 / np.log(2))
    assert fit.ks == pytest.approx(max(2 / 3 - np.exp(-1), 1 / 3 - np.exp(-2)))
    assert (int(fit.n_tail), int(fit.n)) == (3, 3)
    assert fit.se == pytest.approx(1 / np.log(2) / np.sqrt(3))
    assert fit.weighted_alpha == pytest.approx((1 + 1 / np.log(2)) * np.log10(4))
    chosen = fit_power_law(np.array([4.0, 1.0, 2.0]))
    assert chosen.ks == pytest.approx(2 / 3 - np.exp(-1))  # both tails: .2988 beside .3647
    assert chosen.xmin == 1.0


@pytest.mark.parametrize("alpha", [1.7, 2.5, 4.5])
@pytest.mark.parametrize("body", [0, 60])
def test_agrees_with_powerlaw(alpha, body):
    values = np.concatenate([np.linspace(0.1, 0.98, body), pareto(alpha, 150, seed=body)])
    fit, other = fit_power_law(values), peer(values, parameter_ranges={"alpha": [1, 100]})
    assert fit.xmin == other.xmin
    assert fit.alpha == pytest.approx(other.alpha, rel=1e-9)
    assert fit.ks == pytest.approx(other.D, abs=1e-10)
    fixed = fit_power_law(values, xmin=1.3)
    other = peer(values, xmin=1.3, parameter_ranges={"alpha": [1, 100]}).power_law
    assert fixed.alpha == pytest.approx(other.alpha, rel=1e-9)
    assert fixed.ks == pytest.approx(other.D, abs=1e-10)


def test_powerlaw_clamps_alpha_by_default():
    """The peer's default range is 0 to 3: it reports 3 whatever the data, here 4.72 and more."""
    values = pareto(4.8, 300, seed=1)
    fit = fit_power_law(values)
    assert peer(values).alpha == pytest.approx(3, abs=0.02)  # the naive way
    right = peer(values, parameter_ranges={"alpha": [1, 100]})
    assert fit.alpha == pytest.approx(right.alpha, rel=1e-9)
    assert abs(fit.alpha - 4.8) < 3 * fit.se


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(3, 70),
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["pareto", "uniform", "lognormal", "repeated", "spread"]),
    min_tail=st.sampled_from([2, 5]),
)
def test_the_scan_finds_the_exact_minimum(n, seed, kind, min_tail):
    rng = np.random.default_rng(seed)
    values = {
        "pareto": lambda: pareto(2.5, n, seed),
        "uniform": lambda: rng.random(n),
        "lognormal": lambda: np.exp(rng.normal(0, 2, n)),
        "repeated": lambda: rng.integers(1, 8, n).astype(float),
        "spread": lambda: np.exp(rng.normal(0, 30, n)),
    }[kind]()
    fit = fit_power_law(values, min_tail=min_tail, drop_below=0)
    distance, alpha, xmin = brute_force(values, min_tail)
    if np.isinf(distance):
        assert np.isnan(fit.alpha)
        return
    assert fit.ks == pytest.approx(distance, abs=1e-11)
    assert fit.alpha == pytest.approx(alpha, rel=1e-9)
    assert fit.xmin == xmin


@pytest.mark.parametrize("kind", ["pareto", "gaussian", "lognormal"])
def test_the_scan_is_exact_on_large_spectra(kind):
    """Against all pairs at once: where pruning matters."""
    rng = np.random.default_rng(3)
    values = {
        "pareto": pareto(2.7, (3, 500)),
        "gaussian": gaussian_spectra((500, 500), n_draws=3),
        "lognormal": np.exp(rng.normal(size=(3, 500))),
    }[kind]
    fit = fit_power_law(values)
    for row, one in enumerate(np.sort(values, axis=1)):
        logs, n = np.log(one), len(one)
        size = n - np.arange(n - 1)
        slope = np.array([size[i] / (logs[i:] - logs[i]).sum() for i in range(n - 1)])
        apart = np.abs(
            1
            - np.exp(-slope[:, None] * np.maximum(logs - logs[:-1, None], 0))
            - (np.arange(n) - np.arange(n - 1)[:, None]) / size[:, None]
        )
        distance = np.where(np.arange(n) >= np.arange(n - 1)[:, None], apart, 0).max(1)
        at = distance.argmin()
        assert (fit.xmin[row], fit.n_tail[row]) == (one[at], n - at)
        assert fit.ks[row] == pytest.approx(distance[at], abs=1e-11)
        assert fit.alpha[row] == pytest.approx(1 + slope[at], rel=1e-10)


def test_a_batch_is_its_rows():
    values = np.exp(np.random.default_rng(0).normal(0, 1, (2, 3, 90)))
    values[0, 1, :40] = 0.0  # rank-deficient
    both = fit_power_law(values, n_bootstrap=20, seed=4)
    assert both.alpha.shape == (2, 3)
    for at in np.ndindex(2, 3):
        one = fit_power_law(values[at], n_bootstrap=20, seed=4)
        for name in ("alpha", "xmin", "ks", "n_tail", "p_value", "n", "n_dropped"):
            assert getattr(both, name)[at] == getattr(one, name), name
    assert both.n_dropped.tolist() == [[0, 40, 0], [0, 0, 0]]


def test_scale_order_and_power():
    """alpha is blind to scale and order; of sigma the same tail has exponent 2 alpha - 1."""
    values = pareto(2.2, 200)
    fit = fit_power_law(values)
    other = fit_power_law(7.5 * values[::-1].copy())
    assert other.alpha == pytest.approx(fit.alpha, rel=1e-12)
    assert other.xmin == pytest.approx(7.5 * fit.xmin)
    roots = fit_power_law(np.sqrt(values))
    assert roots.alpha == pytest.approx(2 * fit.alpha - 1, rel=1e-10)
    assert roots.ks == pytest.approx(fit.ks, abs=1e-12)


def test_repeated_values_as_powerlaw():
    values = np.round(pareto(2.5, 200), 1)
    fit, other = fit_power_law(values), peer(values, parameter_ranges={"alpha": [1, 100]})
    assert (fit.xmin, fit.n_tail) == (other.xmin, other.n_tail)
    assert fit.ks == pytest.approx(other.D, abs=1e-10)


def test_zeros_are_left_out_and_said():
    """Rank 20 of 50: rounding leaves eigenvalues of 1e-30, whose tail is no tail."""
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((50, 20)) @ rng.standard_normal((20, 60))
    values = np.linalg.svd(matrix, compute_uv=False) ** 2
    fit = fit_power_law(values)
    assert (int(fit.n), int(fit.n_dropped)) == (20, 30)
    assert "30 values left out as zero" in fit.summary()
    assert fit.alpha == fit_power_law(values[:20]).alpha
    gram = np.linalg.eigvalsh(matrix @ matrix.T)  # with small negative ones
    assert gram.min() < 0
    assert fit_power_law(gram).alpha == pytest.approx(fit.alpha, rel=1e-6)
    assert fit_power_law(values, drop_below=float(values[9])).n == 9


def test_too_few_and_equal_values_give_nan_with_the_reason():
    values = np.array([[0.0, 0, 0, 0], [0, 0, 0, 1], [2, 2, 2, 2], [1, 2, 3, 4]])
    fit = fit_power_law(values, n_bootstrap=5)
    reasons = ["too few values", "too few values", "no two values differ", "fitted"]
    assert fit.status.tolist() == reasons
    assert np.isnan(fit.alpha).tolist() == [True, True, True, False]
    assert fit.n_tail.tolist()[:3] == [0, 0, 0]
    assert np.isnan(fit.p_value).tolist() == [True, True, True, False]
    assert fit.summary().startswith("1 of 4 spectra fitted")
    assert "too few values" in fit_power_law(values[1]).summary()
    assert fit_power_law(values[3], xmin=4).status == "too few values"
    assert fit_power_law(values[3], min_tail=5).status == "too few values"
    assert np.isnan(fit_power_law(np.zeros(4)).log_spectral_norm)


@pytest.mark.parametrize(
    ("values", "options", "match"),
    [
        ([1.0, np.nan], {}, "1 not finite"),
        ([1.0, np.inf], {}, "no spectrum"),
        ([], {}, "at least one"),
        ([-1.0, 2.0], {}, r"Pass sigma\^2"),
        ([1.0, 2.0], {"xmin": 0}, "positive, finite xmin"),
        ([1.0, 2.0], {"xmin": np.ones(3)}, r"one a spectrum: shape \[\]; got shape \[3\]"),
        ([1.0, 2.0], {"min_tail": 1}, "no exponent"),
        ([1.0, 2.0], {"null": "gaussian"}, "shape None"),
        ([1.0, 2.0], {"null": "gaussian", "shape": (3, 9)}, "smaller side is the 2"),
        ([1.0, 2.0], {"null": "gaussian", "shape": (2, 2), "xmin": 1}, "another scale"),
    ],
)
def test_what_cannot_be_fitted_is_an_error(values, options, match, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # let wrong shapes through
    with pytest.raises(InputError, match=match):
        fit_power_law(np.array(values), **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_any_dtype_is_computed_in_float64(dtype):
    values = torch.from_numpy(pareto(2.5, 120)).to(dtype).requires_grad_()
    fit = fit_power_law(values)
    assert fit.alpha == fit_power_law(values.detach().double().numpy()).alpha
    assert fit.alpha.dtype == np.float64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_device_does_not_matter():
    values = torch.from_numpy(pareto(2.5, (4, 300)))
    here = fit_power_law(values, n_bootstrap=20)
    there = fit_power_law(values.cuda(), n_bootstrap=20)
    np.testing.assert_allclose(there.alpha, here.alpha, rtol=1e-10)
    np.testing.assert_array_equal(there.p_value, here.p_value)


def test_the_standard_error_covers_for_a_known_xmin_only():
    values = pareto(2.5, (1500, 150))
    known, chosen = fit_power_law(values, xmin=1), fit_power_law(values)

    def coverage(fit):
        return np.mean(np.abs(fit.alpha - 2.5) < 1.96 * fit.se)

    assert 0.94 < coverage(known) < 0.965
    assert known.alpha.std() == pytest.approx(known.se.mean(), rel=0.05)
    assert coverage(chosen) < 0.93  # se ignores the choice of xmin
    assert chosen.alpha.std() > 1.25 * chosen.se.mean()


def test_goodness_of_fit_rejects_power_laws_at_most_at_its_level():
    rng = np.random.default_rng(0)
    tails = pareto(2.5, (250, 80))
    known = fit_power_law(tails, xmin=1, n_bootstrap=99)
    rates = [np.mean(known.p_value <= level) for level in (0.1, 0.2, 0.5)]
    np.testing.assert_allclose(rates, [0.1, 0.2, 0.5], atol=0.08)
    half = np.concatenate([rng.uniform(0.05, 1, (250, 40)), tails[:, :40]], axis=1)
    chosen = fit_power_law(half, n_bootstrap=49)
    assert np.mean(chosen.p_value <= 0.1) < 0.15


def test_goodness_of_fit_rejects_what_is_no_power_law():
    rng = np.random.default_rng(1)
    shifted = 1 + rng.exponential(size=(30, 400))
    assert np.mean(fit_power_law(shifted, xmin=1, n_bootstrap=49).p_value < 0.1) == 1
    lognormal = np.exp(np.abs(rng.normal(size=(30, 400))))
    assert np.mean(fit_power_law(lognormal, xmin=1, n_bootstrap=49).p_value < 0.1) > 0.9


def test_draws_of_the_bootstrap_choose_their_own_xmin():
    """With the xmin of the data held, their distances are larger and p flatters the law."""
    values = np.random.default_rng(2).exponential(size=(4, 300))
    chosen = fit_power_law(values, n_bootstrap=199)
    held = fit_power_law(values, xmin=chosen.xmin, n_bootstrap=199)
    np.testing.assert_allclose(held.ks, chosen.ks)
    assert (chosen.p_value < held.p_value - 0.05).all()


def test_bootstrap_is_seeded_and_leaves_global_state_alone():
    values = pareto(2.5, 80)
    before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    one, two = (fit_power_law(values, n_bootstrap=50, seed=3).p_value for _ in range(2))
    assert one == two
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(torch_before, torch.get_rng_state())


def test_a_gaussian_matrix_has_an_alpha_too():
    """Between 2 and 6 is read as well trained; noise of this shape is in there half of the time."""
    values = gaussian_spectra((64, 64), n_draws=200, seed=5)
    fit = fit_power_law(values, null="gaussian", shape=(64, 64))
    assert np.mean((fit.alpha > 2) & (fit.alpha < 6)) > 0.5
    assert np.mean(fit.null_p <= 0.1) < 0.16
    assert fit.null_mean[0] == pytest.approx(fit.alpha.mean(), rel=0.2)
    heavy = np.random.default_rng(0).standard_t(1.2, (64, 64))
    found = fit_power_law(
        np.linalg.svd(heavy, compute_uv=False) ** 2, null="gaussian", shape=(64, 64)
    )
    assert found.null_p < 0.05
    assert "Gaussian matrices of that shape" in found.summary()


def test_frame_and_file(tmp_path):
    values = gaussian_spectra((64, 128), n_draws=2)
    fit = fit_power_law(values, n_bootstrap=9, null="gaussian", shape=(128, 64), n_null=9)
    frame = fit.to_frame()
    assert list(frame.columns[:11]) == list(results.TIDY_COLUMNS)
    metrics = ["alpha", "weighted_alpha", "log_spectral_norm", "xmin", "ks", "n_tail"]
    assert frame["metric"].unique().tolist() == metrics
    first = fit.to_frame(dims=("layer",)).set_index(["layer", "metric"]).loc[1]
    assert first.loc["alpha", "value"] == fit.alpha[1]
    assert first.loc["alpha", "null_mean"] == fit.null_mean[1]
    assert first.loc["alpha", "p"] == fit.null_p[1]
    assert first.loc["ks", "p"] == fit.p_value[1]
    assert np.isnan(first.loc["ks", "null_mean"])
    results.save(fit, tmp_path / "fit.json")
    again = results.load(tmp_path / "fit.json")
    assert again.to_frame().equals(frame)
    assert (again.shape, again.status.tolist()) == ((128, 64), ["fitted", "fitted"])


def test_scan_leaves_its_input_alone():
    logs = torch.sort(torch.randn(3, 40, dtype=torch.float64)).values
    before = logs.clone()
    scan_tails(logs, torch.zeros(3, dtype=torch.long), min_tail=2)
    assert torch.equal(logs, before)


def test_docstrings():
    assert doctest.testmod(power_law).failed == 0


def test_lists_are_arrays(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    rows = (1 - np.random.default_rng(0).random((2, 50))) ** (-1 / 1.5)
    assert fit_power_law(rows.tolist()).alpha.tolist() == fit_power_law(rows).alpha.tolist()
