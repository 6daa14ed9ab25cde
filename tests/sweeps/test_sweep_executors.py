"""Sweeps in other processes: a process pool, a dask cluster, and kill -9."""

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from sweep_stubs import Logged, StubSuite, dies_at_four, fails_at_four, finished

from headspec.errors import InputError
from headspec.sweeps import SweepError, sweep

SUITE = StubSuite()


def equal(one, other):
    pd.testing.assert_frame_equal(one, other, check_exact=True)


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


def test_a_process_pool_gives_the_same_frame_and_workers_write(tmp_path, pool):
    measure = Logged(str(tmp_path / "log"))
    frame = sweep(SUITE, measure, out=tmp_path / "out", executor=pool)
    equal(frame, sweep(SUITE, measure))
    assert finished(tmp_path / "out") == set(SUITE.steps)
    (tmp_path / "log").write_text("")
    equal(frame, sweep(SUITE, measure, out=tmp_path / "out"))
    assert (tmp_path / "log").read_text() == ""


def test_failures_in_workers_carry_step_and_traceback(tmp_path, pool):
    with pytest.raises(SweepError, match="at step 4: ArithmeticError: four is bad") as caught:
        sweep(SUITE, fails_at_four, executor=pool)
    assert "sweep_stubs.py" in caught.value.__notes__[0]
    frame = sweep(SUITE, fails_at_four, executor=pool, on_error="record")
    equal(frame, sweep(SUITE, fails_at_four, on_error="record"))


def local_measures():
    @dataclass
    class Local:
        def __call__(self, checkpoint):
            return {}

    return [lambda checkpoint: {}, Local()]


@pytest.mark.parametrize("which", [0, 1])
def test_measures_that_a_pool_cannot_take_are_refused(pool, which):
    message = r"expected a measure .* pickled.*Use a function at the top of a module"
    with pytest.raises(InputError, match=message):
        sweep(SUITE, local_measures()[which], executor=pool)
    assert pool.submit(len, "ok").result() == 2


def test_a_killed_worker_is_said_and_finished_steps_are_kept(tmp_path):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        message = r"a worker process that ended \(killed, or out of memory\).*steps \[4, 8, 16\]"
        with pytest.raises(SweepError, match=message):
            sweep(SUITE, dies_at_four, out=tmp_path, executor=executor, on_error="record")
    assert finished(tmp_path) == {0, 1, 2}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:distributed.*")
def test_a_dask_cluster_gives_the_same_frame(tmp_path):
    distributed = pytest.importorskip("distributed")
    measure = Logged(str(tmp_path / "log"))
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        executor = client.get_executor()
        frame = sweep(SUITE, measure, out=tmp_path / "out", executor=executor)
        assert len((tmp_path / "log").read_text().split()) == len(SUITE.steps)
        equal(frame, sweep(SUITE, measure, out=tmp_path / "out", executor=executor))
        assert len((tmp_path / "log").read_text().split()) == len(SUITE.steps)
        failed = sweep(SUITE, fails_at_four, executor=executor, on_error="record")
        offset = 0.5
        shifted = sweep(SUITE, lambda c: {"a": c.step + offset}, executor=executor)
        with pytest.raises(SweepError, match="step 4"):
            sweep(SUITE, fails_at_four, executor=executor)
        pids = {client.submit(os.getpid, pure=False).result() for _ in range(8)}
    assert os.getpid() not in pids
    equal(frame, sweep(SUITE, measure))
    equal(failed, sweep(SUITE, fails_at_four, on_error="record"))
    assert shifted["value"].tolist() == [step + 0.5 for step in SUITE.steps]


@pytest.mark.parametrize("workers", [0, 2])
def test_twenty_kills_lose_no_finished_step_and_change_no_bit(tmp_path, workers, monkeypatch):
    """SIGKILL for the sweep and its workers at random moments, twenty times, then to the end."""
    out, log = tmp_path / "out", tmp_path / "log"
    arguments = f"{str(out)!r}, {str(log)!r}, kills=20, workers={workers}, n_steps=100"
    report = subprocess.run(
        [sys.executable, "-c", f"import sweep_stubs as s; s.kill_again_and_again({arguments})"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    identity, *complaints = report.stdout.splitlines()[::-1]
    assert (report.returncode, complaints) == (0, []), report.stderr
    monkeypatch.setattr("headspec.sweeps.store.headspec_identity", lambda: identity)
    done = finished(out)
    log.write_text("")
    suite, measure = StubSuite(tuple(range(100))), Logged(str(log), 0.004)
    frame = sweep(suite, measure, out=out)
    assert not done & set(map(int, log.read_text().split()))
    equal(frame, sweep(suite, measure, out=tmp_path / "uninterrupted"))
