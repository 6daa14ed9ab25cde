"""Capabilities by sweep: one table of everything, as evaluation files give one."""

import pickle

import numpy as np
import pytest

import headspec as hs
from headspec.checkpoints import micro
from headspec.errors import InputError
from headspec.measures.capabilities import CapabilityMeasure
from headspec.results.capability_rows import CAPABILITY_COLUMNS
from headspec.tasks.minimal_pairs import MinimalPairs

pytestmark = pytest.mark.models

STEPS = (0, 256, 1024, 6144)


@pytest.fixture(scope="module")
def measure():
    pairs = MinimalPairs.from_pairs(
        [("Return the sum of all elements.", "Return the sums of all element.")], name="number"
    )
    task = hs.build_task("decimal_comparison", n=30, wording="micro")
    prose = micro.held_out_tokens()[:20]
    texts = {"prose": prose, "docstring": ["Return the mean of an array.", "Raises an error."]}
    return CapabilityMeasure(tasks=(task,), texts=texts, minimal_pairs=(pairs,))


@pytest.fixture(scope="module")
def suite():
    opened = hs.open_suite("micro-tiny")
    opened.verify(steps=STEPS)
    return opened


@pytest.fixture(scope="module")
def frame(measure, suite):
    return hs.sweep(suite, measure, steps=STEPS, progress=False)


def test_one_table(frame):
    assert set(CAPABILITY_COLUMNS) <= set(frame.columns)
    assert set(frame["model"]) == {"micro-tiny"}
    assert frame["task"].unique().tolist() == ["decimal_comparison", "prose", "docstring", "number"]
    assert len(frame) == len(STEPS) * (4 + 2 + 4 + 4)
    assert not frame.duplicated(["step", "metric"]).any()
    assert (frame["metric"] == frame["task"] + "." + frame["measure"]).all()


def test_numbers_are_those_of_the_scorers(frame, measure):
    model = hs.open_suite("micro-tiny").model(1024)
    at = frame[frame["step"] == 1024].set_index("metric")["value"]
    scores = hs.score_task(model, measure.tasks[0])
    assert at["decimal_comparison.log_prob_difference"] == pytest.approx(
        scores.log_prob_difference.mean()
    )
    prose = hs.perplexity(model, measure.texts["prose"])
    assert at["prose.nats_per_token"] == pytest.approx(prose.nats_per_token)
    pairs = hs.score_minimal_pairs(model, measure.minimal_pairs[0])
    assert at["number.margin"] == pytest.approx(pairs.margin.mean())


def test_an_untrained_model_is_near_chance_in_nats(frame):
    first = frame[frame["step"] == 0].set_index("metric")
    loss = first.loc["prose.nats_per_token"]
    assert loss["value"] == pytest.approx(loss["chance"], abs=0.5)
    assert loss["chance"] == pytest.approx(np.log(512))
    last = frame[frame["step"] == 6144].set_index("metric")
    assert last.loc["prose.nats_per_token", "value"] < loss["value"] - 2


def test_it_can_be_sent_to_another_process(measure):
    again = pickle.loads(pickle.dumps(measure))
    assert again.tasks == measure.tasks
    assert again.minimal_pairs == measure.minimal_pairs


def test_resumes_from_files(measure, tmp_path, suite):
    first = hs.sweep(suite, measure, steps=STEPS[:2], out=tmp_path, progress=False)
    again = hs.sweep(suite, measure, steps=STEPS[:2], out=tmp_path, progress=False)
    assert again.equals(first)


def test_something_to_measure_with_names_of_its_own():
    task = hs.build_task("decimal_comparison", n=5, wording="micro")
    with pytest.raises(InputError, match="each with a name of its own"):
        CapabilityMeasure()
    with pytest.raises(InputError, match="each with a name of its own"):
        CapabilityMeasure(tasks=(task,), texts={task.name: "a"})


def test_the_contrast_asked_for_is_passed_on():
    """At step 0 the sum over whole answers prefers the shorter one on every prompt."""
    task = hs.build_task("decimal_comparison", n=20, wording="micro")
    checkpoint = hs.open_suite("micro-small").checkpoint(0)
    shares = [
        CapabilityMeasure(tasks=(task,), contrast=contrast)(checkpoint).set_index("measure")
        for contrast in ("whole", "first_token")
    ]
    assert [frame.loc["preference", "value"] == 1 for frame in shares] == [True, False]
