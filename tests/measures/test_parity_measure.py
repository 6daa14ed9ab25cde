"""Even against odd at a checkpoint: the numbers of `parity_test`, and what explains them."""

import pickle

import numpy as np
import pytest

import headspec as hs
from headspec.errors import InputError
from headspec.interventions.parity import parity_test
from headspec.tasks.families import build_task

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def checkpoint():
    return hs.open_suite("micro").checkpoint(6144)


@pytest.fixture(scope="module")
def measure():
    return hs.ParityMeasure(layers=(3,), wording="micro", n_pairs=6)


@pytest.fixture(scope="module")
def frame(checkpoint, measure):
    return measure(checkpoint)


@pytest.fixture(scope="module")
def tested(checkpoint):
    model = checkpoint.model()
    task = build_task("decimal_comparison", n=6, wording="micro")
    task = task.tokenise(model.tokenizer, answers="first_token")
    return parity_test(model, task, layer=3)


def value(frame, metric, **where):
    rows = frame[frame["metric"] == metric]
    for name, each in where.items():
        rows = rows[rows[name] == each]
    assert len(rows) == 1
    return rows["value"].iloc[0]


def test_rows_are_those_of_the_parity_test(frame, tested):
    assert value(frame, "strength") == tested.strength
    assert value(frame, "graded_strength") == pytest.approx(tested.graded_strength)
    assert value(frame, "odd_success") == tested.odd_success
    assert set(frame["model"]) == {"micro"}
    assert set(frame["step"]) == {6144}
    assert set(frame["layer"]) == {3}
    assert set(frame["n"].dropna()) == {6}


def test_strongest_is_the_largest_difference_of_any_split(frame, tested):
    row = frame[frame["metric"] == "graded_strength"].iloc[0]
    assert row["strongest"] == pytest.approx(np.abs(tested.graded_null).max())
    splits = frame[frame["metric"] == "graded_split_strength"]
    assert len(splits) == 462
    assert splits["value"].abs().max() == pytest.approx(row["strongest"])
    assert splits["heads"].iloc[0] == "0 2 4 6 8 10"
    assert splits["value"].iloc[0] == pytest.approx(row["value"])
    assert splits["heads"].is_unique


def test_what_a_head_adds_is_the_difference_of_halves_with_and_without_it(frame, tested):
    means = tested.graded.set_means
    for head in (0, 3):
        holds = (tested.sets == head).any(axis=1)
        expected = means[holds].mean() - means[~holds].mean()
        assert value(frame, "graded_head", head=head) == pytest.approx(expected)


def test_one_head_of_the_last_layer_does_everything(frame):
    """Odd heads restore the answer, even ones do not: every split is as different as that."""
    assert value(frame, "strength") == -1
    assert frame.loc[frame["metric"] == "strength", "p"].iloc[0] == 1
    heads = frame[frame["metric"] == "head_success"].set_index("head")["value"]
    assert heads.idxmax() == 3
    assert heads.max() == pytest.approx(1)


def test_spread_of_any_half(frame, tested):
    row = frame[frame["metric"] == "half_success"].iloc[0]
    assert (row["null_low"], row["null_high"]) == (0, 1)
    assert row["value"] == pytest.approx(tested.success.set_means.mean())


def test_the_effective_layer_restores_most(checkpoint, measure):
    model = checkpoint.model()
    task = build_task("decimal_comparison", n=6, wording="micro")
    task = task.tokenise(model.tokenizer, answers="first_token")
    restored = [parity_test(model, task, layer=i, splits=2).graded_full for i in range(4)]
    assert measure.effective_layer(checkpoint) == int(np.argmax(restored))


def test_by_default_the_middle_layer_is_tested(checkpoint):
    frame = hs.ParityMeasure(wording="micro", n_pairs=2, splits=4)(checkpoint)
    assert set(frame["layer"]) == {2}
    assert len(frame[frame["metric"] == "split_strength"]) == 2


def test_it_can_be_sent_to_another_process(measure):
    assert pickle.loads(pickle.dumps(measure)) == measure


def test_layers_must_be_a_tuple():
    with pytest.raises(InputError, match="tuple"):
        hs.ParityMeasure(layers=(1, 1))
