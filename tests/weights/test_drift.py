"""Changes of matrices: by hand, against scipy on full SVDs, and where subspaces are undefined."""

import doctest
import math

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from scipy.stats import ortho_group

from headspec import InputError, WeightChange, open_suite, results, weight_change
from headspec.weights import drift

FIELDS = (
    *("cosine", "relative_change", "norm_growth", "gap"),
    *("left_angle", "right_angle", "left_angle_max", "right_angle_max"),
)


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(size, angle):
    """Turns the first axis towards the last."""
    turn = torch.eye(size, dtype=torch.float64)
    turn[0, 0] = turn[-1, -1] = math.cos(angle)
    turn[0, -1], turn[-1, 0] = -math.sin(angle), math.sin(angle)
    return turn


def test_by_hand():
    before = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    found = weight_change(before, torch.tensor([[3.0, 0.0], [0.0, 0.0]]), k=1)
    assert found.cosine == pytest.approx(9 / (5 * 3))
    assert found.relative_change == pytest.approx(4 / 5)
    assert found.norm_growth == pytest.approx(math.log(3 / 5))
    assert found.left_angle == found.right_angle == pytest.approx(math.pi / 2)  # axis 2 to axis 1
    assert found.gap == pytest.approx(1 / 4)


@pytest.mark.parametrize("angle", [1e-9, 1e-4, 0.3, math.pi / 2])
def test_a_known_rotation_of_the_leading_direction(angle):
    """Also tiny angles, which arccos of a cosine would give as 0."""
    before = torch.diag(torch.tensor([5.0, 2.0, 1.0, 0.5], dtype=torch.float64))
    turn = rotation(4, angle)
    left = weight_change(before, turn @ before, k=1)
    assert left.left_angle == pytest.approx(angle, rel=1e-6)
    assert left.right_angle == pytest.approx(0, abs=1e-14)
    right = weight_change(before, before @ turn, k=1)
    assert right.right_angle == pytest.approx(angle, rel=1e-6)
    assert right.left_angle == pytest.approx(0, abs=1e-14)
    two = weight_change(before, turn @ before, k=2)  # one of two directions turns
    assert two.left_angle == pytest.approx(angle / 2, rel=1e-6)
    assert two.left_angle_max == pytest.approx(angle, rel=1e-6)


@pytest.mark.parametrize("shape", [(9, 9), (40, 7), (7, 40)])
@pytest.mark.parametrize("k", [1, 3, 7])
def test_against_scipy_on_full_decompositions(shape, k):
    before = gaussian(*shape)
    after = before + 0.2 * gaussian(*shape, seed=1)
    found = weight_change(before, after, k=k)
    (u, s, v), (x, t, y) = (torch.linalg.svd(m, full_matrices=False) for m in (before, after))
    for side, a, b in (("left", u[:, :k], x[:, :k]), ("right", v[:k].T, y[:k].T)):
        right = subspace_angles(a.numpy(), b.numpy())
        assert getattr(found, f"{side}_angle") == pytest.approx(right.mean(), abs=1e-8)
        assert getattr(found, f"{side}_angle_max") == pytest.approx(right.max(), abs=1e-8)
    gaps = [float(1 - z[k] / z[k - 1]) if k < len(z) else 1.0 for z in (s, t)]
    assert found.gap == pytest.approx(min(gaps))
    flat = torch.stack([before.ravel(), after.ravel()])
    assert found.cosine == pytest.approx(float(torch.corrcoef(flat)[0, 1]), abs=0.01)
    assert found.cosine == pytest.approx(float(torch.cosine_similarity(flat[0], flat[1], dim=0)))
    assert found.relative_change == pytest.approx(float((after - before).norm() / before.norm()))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 8), st.integers(2, 8), st.floats(0.01, 100), st.integers(0, 1000))
def test_scaling_turns_nothing(rows, cols, factor, seed):
    before = gaussian(rows, cols, seed=seed)
    found = weight_change(before, factor * before, k=1)
    assert found.cosine == pytest.approx(1)
    assert found.norm_growth == pytest.approx(math.log(factor), abs=1e-12)
    assert found.relative_change == pytest.approx(abs(factor - 1), abs=1e-12)
    assert found.left_angle == pytest.approx(0, abs=1e-6 / float(found.gap) ** 2)
    assert (weight_change(before, -before, k=1).cosine + 1) == pytest.approx(0, abs=1e-12)


def test_growth_adds_up_and_rotations_keep_it():
    a, b, c = (gaussian(5, 6, seed=seed) for seed in range(3))
    steps = [float(weight_change(x, y).norm_growth) for x, y in ((a, b), (b, c), (a, c))]
    assert steps[0] + steps[1] == pytest.approx(steps[2])
    turn = torch.from_numpy(ortho_group.rvs(5, random_state=0))
    plain, turned = weight_change(a, b, k=2), weight_change(turn @ a, turn @ b, k=2)
    for name in FIELDS:
        assert getattr(turned, name) == pytest.approx(float(getattr(plain, name)), abs=1e-9)


def test_near_copies_keep_their_digits():
    """|A|^2 + |B|^2 - 2 <A, B> in float32 gives nonsense; the difference gives the change."""
    before = gaussian(50, 50).float()
    after = before * (1 + 1e-6)
    naive = before.square().sum() + after.square().sum() - 2 * (before * after).sum()
    right = float((after.double() - before.double()).norm() / before.double().norm())
    assert abs(float(naive.clamp(min=0).sqrt() / before.norm()) / right - 1) > 0.1
    assert weight_change(before, after).relative_change == pytest.approx(right, rel=1e-9)


def test_cosine_distances_of_near_copies_keep_their_digits():
    """1 - cosine in float64 has no digits below 1e-16; the change has."""
    before, noise = gaussian(30, 20).double(), gaussian(30, 20, seed=5).double()
    noise -= before * (noise * before).sum() / before.square().sum()  # across: tan(angle)
    for size in (1e-9, 1e-5, 1e-2, 1.0):
        change = weight_change(before, before + size * noise, steps=(1, 2))
        angle = math.atan(size * float(noise.norm() / before.norm()))
        right = 2 * math.sin(angle / 2) ** 2
        assert change.rates("step")["cosine_distance"] == pytest.approx(right, rel=1e-6)
        if size < 1e-8:
            assert abs((1 - change.cosine) / right - 1) > 0.1
    batch = torch.stack([before, 0 * before, before])
    moved = torch.stack([3 * before, before, before])
    rates = weight_change(batch, moved, steps=(1, 2)).rates("step")["cosine_distance"]
    np.testing.assert_allclose(rates, [0, np.nan, 0], atol=1e-15)


def test_pitfall_rates_per_step_compare_intervals_of_1_and_10000_steps():
    """A change even in log steps looks 4,000 times faster early on, per step."""
    matrix = gaussian(6, 6)
    per_step, per_log = [], []
    for steps in ((1, 3), (4095, 8191), (8191, 16383)):
        change = weight_change(matrix, 1.1 * matrix, k=1, steps=steps)
        per_step.append(float(change.rates("step")["norm_growth"]))
        per_log.append(float(change.rates("log_step")["norm_growth"]))
    assert per_step[0] / per_step[1] == pytest.approx(2048)
    assert per_step[0] == pytest.approx(math.log(1.1) / 2)
    assert per_log == pytest.approx([math.log(1.1) / math.log(2)] * 3)
    assert set(change.rates()) == {
        *("cosine_distance", "relative_change", "norm_growth", "left_angle", "right_angle")
    }


@pytest.mark.parametrize(
    ("matrix", "k"),
    [
        (torch.eye(5), 2),  # equal values
        (torch.diag(torch.tensor([2.0, 1.0, 0.0, 0.0])), 3),  # rank below k
        (torch.zeros(4, 4), 1),
    ],
)
def test_undefined_subspaces_are_nan(matrix, k):
    other = gaussian(*matrix.shape)
    for pair in ((matrix, other), (other, matrix)):
        found = weight_change(*pair, k=k)
        assert np.isnan([found.left_angle, found.right_angle, found.left_angle_max]).all()
        assert found.gap == pytest.approx(0, abs=1e-6)
        assert f"The gap below s_{k} is under 1 % in 1 of 1" in found.summary()
    whole = weight_change(torch.eye(3, dtype=torch.float64), gaussian(3, 3), k=3)
    assert whole.left_angle == pytest.approx(0, abs=1e-9)  # all of the space
    assert whole.gap == 1


def test_zeros():
    zero, one = torch.zeros(2, 3), torch.ones(2, 3)
    grown = weight_change(zero, one)
    assert np.isnan(grown.cosine)
    assert grown.relative_change == grown.norm_growth == np.inf
    gone = weight_change(one, zero)
    assert (gone.relative_change, gone.norm_growth) == (1, -np.inf)
    still = weight_change(zero, zero)
    assert np.isnan([still.cosine, still.relative_change, still.norm_growth]).all()


@pytest.mark.parametrize(("dim", "k"), [(6, 1), (12, 4), (12, 8), (768, 10), (50304, 10)])
def test_angles_of_random_subspaces(dim, k):
    """The mean squared cosine is k / dim; angles agree with subspaces drawn in full."""
    rng = np.random.default_rng(1)
    squares = [np.square(drift.random_cosines(rng, dim, k)).mean() for _ in range(600)]
    assert np.mean(squares) == pytest.approx(k / dim, abs=4 * np.std(squares) / 600**0.5)
    if dim < 1000:
        draws = 1 if dim > 100 else 300
        full = [
            subspace_angles(rng.standard_normal((dim, k)), rng.standard_normal((dim, k))).mean()
            for _ in range(draws)
        ]
        assert drift.random_angle(dim, k) == pytest.approx(np.mean(full), abs=0.05)
    assert drift.random_angle(k, k) == 0


def test_independent_matrices_turn_as_random_subspaces():
    batch = gaussian(20, 30, 20)
    found = weight_change(batch, gaussian(20, 30, 20, seed=5), k=4)
    error = found.left_angle.std() / 20**0.5
    assert found.left_angle.mean() == pytest.approx(found.left_random, abs=4 * error)
    assert found.right_angle.mean() == pytest.approx(found.right_random, abs=4 * error)
    assert found.left_random > found.right_random  # more room in 30 dimensions


def test_batches_and_dtypes():
    before, after = gaussian(2, 3, 8, 5), gaussian(2, 3, 8, 5, seed=1)
    found = weight_change(before, after, k=2)
    for index in np.ndindex(2, 3):
        one = weight_change(before[index], after[index], k=2)
        for name in FIELDS:
            assert getattr(found, name)[index] == getattr(one, name)
    half = weight_change(before.half(), after.float(), k=2)
    np.testing.assert_allclose(half.left_angle, found.left_angle, atol=0.01)
    right = weight_change(before.half().double(), after.float().double(), k=2)
    np.testing.assert_allclose(half.cosine, right.cosine, rtol=1e-12)


def test_tall_matrices_go_through_blocks(monkeypatch):
    before, after = gaussian(300, 6), gaussian(300, 6, seed=1)
    whole = weight_change(before, after, k=3)
    monkeypatch.setattr("headspec.weights.singular_values._BLOCK", 100)
    blocked = weight_change(before, after, k=3)
    for name in FIELDS:
        assert getattr(blocked, name) == pytest.approx(float(getattr(whole, name)), rel=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: weight_change(a, a[:2]), r"shapes \[3, 3\] and \[2, 3\]"),
        (lambda a: weight_change(a, a, k=0), "k of at least 1"),
        (lambda a: weight_change(a, a, k=1.5), "k of at least 1; got 1.5"),
        (lambda a: weight_change(a[0], a[0]), r"\[... rows cols\]"),
        (lambda a: weight_change(a, a, steps=(4, 4)), r"steps=\(earlier, later\)"),
        (lambda a: weight_change(a, a, steps=(-1, 4)), "from 0"),
        (lambda a: weight_change(a, a / 0), "9 of 9 NaN or infinite"),
        (lambda a: weight_change(a, a).rates(), r"steps=\(1000, 2000\)"),
        (lambda a: weight_change(a, a, steps=(1, 2)).rates("epoch"), "axis out of 'step'"),
    ],
)
def test_misuse(call, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # let wrong shapes through
    matrix = torch.arange(9.0).reshape(3, 3) + torch.eye(3)
    with pytest.raises(InputError, match=message):
        call(matrix)


def test_frames_summaries_and_files(tmp_path):
    suite = open_suite("micro")
    before, after = (suite.head_weights(step, 1).W_Q for step in (64, 256))
    found = weight_change(before, after, k=2, steps=(64, 256))
    frame = found.to_frame(dims=("head",))
    assert len(frame) == 12 * (8 + 2 * 5)
    assert set(frame["step"]) == {256}
    assert set(frame["step_before"]) == {64}
    angles = frame[frame["metric"] == "left_angle"]
    assert (angles["null_mean"] == found.left_random).all()
    assert frame[frame["metric"] == "cosine"]["null_mean"].isna().all()
    rate = frame[frame["metric"] == "relative_change_per_step"].set_index("head")["value"]
    assert rate[3] == pytest.approx(found.relative_change[3] / 192)
    assert found.summary().startswith("12 matrices from step 64 to 256: cosine ")
    assert "random ones: " in found.summary()
    again = results.load(results.save(found, tmp_path / "change.json"))
    assert isinstance(again, WeightChange)
    assert again.steps == (64, 256)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    plain = weight_change(before, after, k=2).to_frame()
    assert len(plain) == 12 * 8
    assert plain["step"].isna().all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_same_on_the_gpu():
    before, after = gaussian(3, 40, 20), gaussian(3, 40, 20, seed=1)
    ours, right = weight_change(before.cuda(), after.cuda(), k=3), weight_change(before, after, k=3)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(ours, name), getattr(right, name), rtol=1e-8)


def test_examples_run():
    assert doctest.testmod(drift).failed == 0
