"""Learning rates and checkpoint steps."""

import doctest
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headspec.errors import InputError
from headspec.training import schedule
from headspec.training.schedule import checkpoint_steps, warmup_cosine, warmup_steps


def rates(steps, **kwargs):
    return [warmup_cosine(step, steps=steps, **kwargs) for step in range(steps)]


def test_warmup_and_cosine_by_hand():
    assert rates(5, warmup=2) == pytest.approx([1 / 3, 2 / 3, 1, 0.5, 0])
    assert rates(5, warmup=2, final=0.1)[2:] == pytest.approx([1, 0.55, 0.1])
    assert rates(1, warmup=0) == [1.0]
    assert rates(3, warmup=2) == pytest.approx([1 / 3, 2 / 3, 1])


def test_the_cosine_is_torchs():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=49, eta_min=0.05)
    values = []
    for _ in range(50):
        values.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    np.testing.assert_allclose(rates(50, warmup=0, final=0.05), values, atol=1e-12)


@given(st.integers(1, 2000), st.data())
def test_rates_rise_then_fall_and_stay_between_zero_and_one(steps, data):
    warmup = data.draw(st.integers(0, steps - 1))
    found = rates(steps, warmup=warmup)
    assert np.all(np.diff(found[: warmup + 1]) > 0)
    assert np.all(np.diff(found[warmup:]) <= 0)
    assert found[warmup] == 1
    assert min(found) >= 0
    assert found[0] > 0


def test_a_warmup_is_a_number_or_a_share():
    assert warmup_steps(7, 100) == 7
    assert warmup_steps(0.05, 100) == 5
    assert warmup_steps(1, 100) == 1


@given(st.integers(2, 60), st.integers(1, 10**6))
def test_as_many_checkpoints_as_asked_for_first_and_last_among_them(n, steps):
    found = checkpoint_steps(n, steps)
    assert len(found) == min(n, steps + 1)
    assert found[0] == 0
    assert found[-1] == steps
    assert np.all(np.diff(found) > 0)


def test_checkpoints_are_log_spaced():
    found = np.array(checkpoint_steps(20, 100_000))
    ratios = found[8:] / found[7:-1]
    assert ratios.max() / ratios.min() < 1.1
    assert math.isclose(np.log(ratios).mean() * 18, math.log(100_000), rel_tol=0.05)


def test_explicit_checkpoints_get_both_ends_and_must_lie_inside():
    assert checkpoint_steps((50, 10, 50), 100) == (0, 10, 50, 100)
    assert checkpoint_steps((), 100) == (0, 100)
    with pytest.raises(InputError, match="between 0 and steps = 100; got 101, 200"):
        checkpoint_steps((101, 200), 100)
    with pytest.raises(InputError, match="2 checkpoints or more"):
        checkpoint_steps(1, 100)


def test_examples_run():
    assert doctest.testmod(schedule).failed == 0
