"""Sweeps: what comes out, resuming, failing, warnings."""

import functools
import gc
import logging
import pickle
import re
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sweep_stubs import Logged, StubSuite, fails_at_four, finished, square

from headspec.errors import InputError, StepNotFoundError
from headspec.results import TIDY_COLUMNS, load_provenance, tidy
from headspec.sweeps import SweepError, UnverifiedSuiteWarning, sweep
from headspec.sweeps.store import SweepWarning

SUITE = StubSuite()
quiet = functools.partial(sweep, progress=False)


def files(out):
    return sorted(out.rglob("step*.json"))


def calls(measure):
    with open(measure.log, "a+") as file:
        file.seek(0)
        steps = [int(line) for line in file]
        file.truncate(0)
    return steps


def equal(one, other):
    pd.testing.assert_frame_equal(one, other, check_exact=True)


# --- what comes out --------------------------------------------------------------------------


def test_numbers_become_rows_by_step_then_as_given():
    frame = quiet(SUITE, square, steps=[4, 1, 2])
    assert tuple(frame.columns) == TIDY_COLUMNS
    assert frame["step"].tolist() == [1, 1, 2, 2, 4, 4]
    assert frame["metric"].tolist() == ["square", "third"] * 3
    assert frame["value"].tolist() == [1, 1 / 3, 4, 2 / 3, 16, 4 / 3]
    assert set(frame["model"]) == {"stub"}


@dataclass(frozen=True)
class Result:
    step: int

    def to_frame(self):
        return tidy([{"metric": "s", "value": self.step, "layer": 1, "colour": "red"}])


@pytest.mark.parametrize(
    "measure",
    [
        lambda c: {"s": c.step},
        lambda c: {"s": torch.tensor(float(c.step))},
        lambda c: {"s": torch.tensor([c.step])},
        lambda c: {"s": np.float32(c.step)},
        lambda c: pd.DataFrame({"metric": ["s"], "value": [c.step]}),
        lambda c: tidy([{"metric": "s", "value": c.step}], step=c.step),
        lambda c: Result(c.step),
    ],
)
def test_every_kind_of_answer(measure, tmp_path):
    for out in (None, tmp_path):
        frame = quiet(SUITE, measure, out=out)
        assert frame["value"].tolist() == list(SUITE.steps)
        assert frame["step"].tolist() == list(SUITE.steps)


def test_extra_columns_stay():
    frame = quiet(SUITE, lambda c: Result(c.step))
    assert list(frame.columns) == [*TIDY_COLUMNS, "colour"]
    assert set(frame["colour"]) == {"red"}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (3.5, "returns a mapping of names to numbers, a frame"),
        ({"a": "high"}, "one number for the metric 'a'; got str 'high'"),
        ({"a": torch.ones(2)}, "one number for the metric 'a'"),
        ({"a": [1, 2]}, "one number for the metric 'a'"),
        (tidy([{"step": 77, "value": 1}]), r"rows of step 0; got rows of \[77\]"),
    ],
)
def test_answers_that_are_no_rows_are_refused(answer, message):
    with pytest.raises(SweepError, match=message):
        quiet(SUITE, lambda c: answer)


def test_previous_is_the_step_before_in_the_sweep():
    seen = []
    quiet(
        SUITE, lambda c: seen.append((c.step, c.previous and c.previous.step)) or {}, steps=[8, 1]
    )
    assert seen == [(1, None), (8, 1)]


def test_missing_steps_and_no_steps():
    with pytest.raises(StepNotFoundError, match="3"):
        quiet(SUITE, square, steps=[3])
    empty = quiet(SUITE, square, steps=[])
    equal(empty, tidy([]))


# --- resuming --------------------------------------------------------------------------------


def test_a_rerun_takes_finished_steps_and_gives_the_same_frame(tmp_path):
    measure = Logged(str(tmp_path / "log"))
    first = quiet(SUITE, measure, out=tmp_path)
    assert calls(measure) == list(SUITE.steps)
    again = quiet(SUITE, measure, out=tmp_path)
    assert calls(measure) == []
    equal(first, again)
    equal(first, quiet(SUITE, measure))
    calls(measure)
    files(tmp_path)[2].unlink()
    equal(first, quiet(SUITE, measure, out=tmp_path))
    assert len(calls(measure)) == 1


def test_a_changed_measure_or_suite_is_computed_again(tmp_path):
    log = str(tmp_path / "log")
    measure = Logged(log)
    quiet(SUITE, measure, out=tmp_path)
    calls(measure)
    for suite, changed, expected in (
        (SUITE, Logged(log, power=3), list(SUITE.steps)),
        (StubSuite(name="other"), measure, list(SUITE.steps)),
        (StubSuite(changed=(4,)), measure, [4, 8]),  # 8 may have been compared with 4
        (SUITE, measure, []),  # the earlier results are still there
    ):
        frame = quiet(suite, changed, out=tmp_path)
        assert calls(measure) == expected
        equal(frame, quiet(suite, changed))
        calls(measure)


def test_two_measures_share_a_folder_and_do_not_undo_each_other(tmp_path):
    one, two = Logged(str(tmp_path / "log")), Logged(str(tmp_path / "log"), power=5)
    for measure in (one, two):
        quiet(SUITE, measure, out=tmp_path)
        calls(measure)
    for measure in (one, two):
        quiet(SUITE, measure, out=tmp_path)
        assert calls(measure) == []


def test_other_steps_recompute_only_where_the_step_before_has_changed(tmp_path):
    measure = Logged(str(tmp_path / "log"))
    quiet(SUITE, measure, out=tmp_path, steps=[0, 1, 4])
    calls(measure)
    quiet(SUITE, measure, out=tmp_path, steps=[0, 1, 2, 4])
    assert calls(measure) == [2, 4]
    for steps in ([0, 1, 4], [0, 1, 2, 4], [0, 1]):
        quiet(SUITE, measure, out=tmp_path, steps=steps)
    assert calls(measure) == []


def test_runs_of_the_same_name_lie_side_by_side(tmp_path):
    measure = Logged(str(tmp_path / "log"))
    for suite in (SUITE, StubSuite(changed=SUITE.steps)):
        quiet(suite, measure, out=tmp_path)
    calls(measure)
    for suite in (SUITE, StubSuite(changed=SUITE.steps)):
        quiet(suite, measure, out=tmp_path)
    assert calls(measure) == []


def test_another_release_recomputes(tmp_path, monkeypatch):
    measure = Logged(str(tmp_path / "log"))
    quiet(SUITE, measure, out=tmp_path)
    calls(measure)
    monkeypatch.setattr("headspec.sweeps.store.headspec_identity", lambda: "9.9.9+0")
    quiet(SUITE, measure, out=tmp_path)
    assert calls(measure) == list(SUITE.steps)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_file_is_named_and_computed_again(tmp_path, damage):
    measure = Logged(str(tmp_path / "log"))
    first = quiet(SUITE, measure, out=tmp_path)
    calls(measure)
    path = next(path for path in files(tmp_path) if path.name.startswith("step8-"))
    content = path.read_bytes()
    value = content.rindex(b"21.333")
    path.write_bytes(
        {
            "cut": content[:-20],
            "flipped": content[:value] + b"22.333" + content[value + 6 :],
            "empty": b"",
            "other": b"{}",
        }[damage]
    )
    with pytest.warns(SweepWarning, match=r"step8-\w{12}\.json is damaged; step 8 is computed"):
        again = quiet(SUITE, measure, out=tmp_path)
    equal(first, again)
    assert calls(measure) == [8]
    equal(first, quiet(SUITE, measure, out=tmp_path))
    assert calls(measure) == []


def test_step_files_say_where_they_come_from(tmp_path):
    quiet(SUITE, square, out=tmp_path)
    noted = load_provenance(files(tmp_path)[0])
    assert noted is not None
    assert (noted.suite, noted.steps, noted.hashes) == ("stub", (0,), {0: "content 0"})
    assert noted.arguments["measure"] == "square"
    assert "torch" in noted.versions


def test_only_old_leftovers_are_removed(tmp_path):
    import os

    quiet(SUITE, square, out=tmp_path)
    folder = files(tmp_path)[0].parent
    new, old = folder / ".step1.json.00.tmp", folder / ".step1.json.11.tmp"
    for path in (new, old):
        path.write_text("half")
    os.utime(old, (0, 0))
    quiet(SUITE, square, out=tmp_path)
    assert new.exists()
    assert not old.exists()


# --- failing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [0, 2])
def test_a_failing_step_is_named_and_finished_ones_are_kept(tmp_path, threads):
    executor = ThreadPoolExecutor(threads) if threads else None
    message = (
        r"fails_at_four .* at step 4: ArithmeticError: four is bad\. \d finished steps are kept"
    )
    with pytest.raises(SweepError, match=message) as caught:
        quiet(SUITE, fails_at_four, out=tmp_path, executor=executor)
    assert "in fails_at_four" in caught.value.__notes__[0]
    if threads:
        executor.shutdown()
    else:
        assert isinstance(caught.value.__cause__, ArithmeticError)
        assert finished(tmp_path) == {0, 1, 2}


@pytest.mark.parametrize("threads", [0, 2])
def test_failing_steps_can_be_recorded_and_are_tried_again(tmp_path, threads, caplog):
    executor = ThreadPoolExecutor(threads) if threads else None
    record = functools.partial(quiet, out=tmp_path, on_error="record", executor=executor)
    frame = record(SUITE, fails_at_four)
    (row,) = frame[frame["step"] == 4].to_dict("records")
    assert row["error"] == "ArithmeticError: four is bad"
    assert np.isnan(row["value"])
    assert "step 4 failed" in caplog.text
    assert frame["error"].isna().sum() == len(frame) - 1
    assert finished(tmp_path) == {*SUITE.steps} - {4}
    equal(frame, record(SUITE, fails_at_four))
    fine = record(SUITE, square)
    assert fine["error"].isna().all()
    assert fine["error"].dtype == frame["error"].dtype
    equal(fine.drop(columns="error"), quiet(SUITE, square))
    if executor:
        executor.shutdown()


def test_unreadable_checkpoints_are_failing_steps(tmp_path):
    from headspec.errors import CheckpointError

    class Broken(StubSuite):
        def fingerprint(self, step):
            if step == 2:
                raise CheckpointError(expected="weights", got="half", fix="Download.")
            return super().fingerprint(step)

    with ThreadPoolExecutor(1) as pool:
        for executor in (None, pool):
            frame = quiet(Broken(), square, out=tmp_path, on_error="record", executor=executor)
            assert frame[frame["error"].notna()]["step"].tolist() == [2, 4]


def test_after_a_failure_waiting_steps_are_cancelled():
    started = []
    first_failed = threading.Event()

    def measure(checkpoint):
        started.append(checkpoint.step)
        if checkpoint.step == 0:
            raise ArithmeticError
        first_failed.wait(5)
        return {}

    with ThreadPoolExecutor(1) as executor:
        with pytest.raises(SweepError):
            quiet(SUITE, measure, executor=executor)
        first_failed.set()
    assert len(started) <= 2


def test_an_interrupted_sweep_is_resumed(tmp_path):
    @dataclass(frozen=True)
    class Interrupted(Logged):
        def __call__(self, checkpoint):
            if checkpoint.step == 4 and Path(self.log).read_text().count("\n") == 3:
                raise KeyboardInterrupt
            return super().__call__(checkpoint)

    measure = Interrupted(str(tmp_path / "log"))
    with pytest.raises(KeyboardInterrupt):
        quiet(SUITE, measure, out=tmp_path)
    assert calls(measure) == [0, 1, 2]
    frame = quiet(SUITE, measure, out=tmp_path)
    assert calls(measure) == [4, 8, 16]
    equal(frame, quiet(SUITE, Logged(str(tmp_path / "log"))))


def test_an_interrupted_parent_cancels_what_waits(monkeypatch):
    started = []

    def measure(checkpoint):
        started.append(checkpoint.step)
        return {}

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    blocker = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        executor.submit(blocker.wait, 5)
        monkeypatch.setattr(sys.modules["headspec.sweeps.run"], "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            quiet(SUITE, measure, executor=executor)
        blocker.set()
    assert started == []


def test_a_worker_that_shares_no_disk_has_its_rows_written_here(tmp_path, monkeypatch):
    monkeypatch.setattr("headspec.sweeps.step.write_atomically", lambda *_: None)
    frame = quiet(SUITE, square, out=tmp_path)
    assert len(files(tmp_path)) == len(SUITE.steps)
    equal(frame, quiet(SUITE, square, out=tmp_path))


# --- warnings and progress -------------------------------------------------------------------


class Verified(StubSuite):
    verification = None


def test_unverified_and_failed_suites_are_warned_of(monkeypatch):
    with pytest.warns(UnverifiedSuiteWarning, match=r"stub were not verified.*suite\.verify\(\)"):
        quiet(Verified(), square)
    frame = pd.DataFrame({"step": [0, 1, 2], "ok": [True, False, True]})
    monkeypatch.setattr(Verified, "verification", frame)
    quiet(Verified(), square, steps=[0, 2])
    with pytest.warns(UnverifiedSuiteWarning, match=r"steps \[1\] failed verification\. See"):
        quiet(Verified(), square, steps=[0, 1])
    with pytest.warns(
        UnverifiedSuiteWarning, match=r"steps \[1\] failed .* steps \[4, 8\] were not"
    ):
        quiet(Verified(), square, steps=[0, 1, 4, 8])


def test_the_bar_shows_on_terminals_only(monkeypatch, capsys):
    sweep(SUITE, square)
    quiet(SUITE, square)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    quiet(SUITE, square)
    assert capsys.readouterr().err == ""
    sweep(SUITE, square)
    shown = capsys.readouterr()
    assert re.search(r"square: 100%.*6/6 \[.*<.*\]", shown.err)
    assert shown.out == ""


def test_the_log_tells_finished_steps(caplog):
    with caplog.at_level(logging.INFO, "headspec.sweep"):
        quiet(SUITE, square, steps=[0, 8])
    assert [record.getMessage() for record in caplog.records] == [
        "step 0 finished",
        "step 8 finished",
    ]


# --- memory ----------------------------------------------------------------------------------


class Large:
    """16 MB in a reference cycle, as models are."""

    def __init__(self):
        self.values = np.ones(2_000_000)
        self.me = self


def allocate(checkpoint):
    large = Large()
    if checkpoint.step % 2:
        raise ArithmeticError("with 16 MB in its frames")
    return {"sum": large.values.sum()}


def test_memory_stays_flat_over_steps(monkeypatch):
    monkeypatch.setattr("headspec.sweeps.step._COLLECTION_SHARE", 1e9)
    suite = StubSuite(tuple(range(6)))
    gc.collect()
    tracemalloc.start()
    try:
        frame = quiet(suite, allocate, on_error="record")
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(frame) == 6
    assert peak < 3 * 16e6
    assert kept < 4e6


def test_without_freeing_cycles_memory_would_grow(monkeypatch):
    """The negative control: the collection is what keeps it flat."""
    monkeypatch.setattr(sys.modules["headspec.sweeps.run"], "free_cycles", lambda seconds: None)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        quiet(StubSuite(tuple(range(0, 12, 2))), allocate)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
        gc.collect()
    assert peak > 5 * 16e6


def test_the_public_name_is_the_function_whatever_was_imported_first():
    import headspec
    import headspec.sweeps

    assert headspec.sweep is sweep
    assert headspec.SweepError is SweepError


def test_errors_survive_pickling():
    error = SweepError(expected="a", got="b", fix="c")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert isinstance(error, RuntimeError)
    assert not isinstance(error, InputError)
