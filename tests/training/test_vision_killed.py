"""kill -9 at any moment, and Ctrl-C between two measurements: the same bits everywhere."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from killed_vision import config
from tiny_training import one_thread

from headspec import train_vision
from headspec.training import session
from headspec.training.train_log import TrainLog

SCRIPT = Path(__file__).with_name("killed_vision.py")
FILES = ("dimensionality.csv", "accuracy.csv")


@pytest.fixture(autouse=True, scope="module")
def threads():
    with one_thread():
        yield


def contents(folder):
    """Every file of a run but the times in its log."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    found = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    lines = found.pop("log.csv").splitlines()
    return found | {"log": [line.rsplit(b",", 1)[0] for line in lines]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    with one_thread():
        runs = {
            model: train_vision(config(model), out=folder / model, progress=False)
            for model in ("mlp", "cnn")
        }
    return {model: contents(run.folder) for model, run in runs.items()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_moment_all_files_have_the_same_bits(tmp_path, whole):
    done = subprocess.run(
        [sys.executable, SCRIPT, "cnn", tmp_path / "run"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(json.loads(done.stdout.splitlines()[-1])) == 5
    assert contents(tmp_path / "run") == whole["cnn"]


def train_until(folder, step, monkeypatch):
    """Ctrl-C is noted during one update."""
    update = session.Session.update

    def stopped(self, at):
        if at == step - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return update(self, at)

    with monkeypatch.context() as patched:
        patched.setattr(session.Session, "update", stopped)
        with pytest.raises(KeyboardInterrupt):
            train_vision(config("mlp"), out=folder, progress=False)


@pytest.mark.parametrize("step", [9, 10, 17, 39])
def test_stopped_between_measurements(tmp_path, whole, monkeypatch, step):
    train_until(tmp_path / "run", step, monkeypatch)
    last = (tmp_path / "run" / FILES[0]).read_text().splitlines()[-1]
    assert int(last.split(",")[0]) == step - step % 2  # all that was measured is on the disk
    run = train_vision(config("mlp"), out=tmp_path / "run", progress=False)
    assert contents(run.folder) == whole["mlp"]


def test_without_cutting_back_measurements_would_stand_twice(tmp_path, monkeypatch):
    """Negative control: rows written after the resume point, and then again."""
    train_until(tmp_path / "run", 9, monkeypatch)
    for name in FILES:  # as a kill after later measurements leaves them
        path = tmp_path / "run" / name
        path.write_text(
            path.read_text() + path.read_text().splitlines()[-1].replace("8,", "10,", 1)
        )
    monkeypatch.setattr(TrainLog, "_lines_up_to", naive_lines)
    run = train_vision(config("mlp"), out=tmp_path / "run", progress=False)
    assert run.accuracy.duplicated(["step", "class"]).any()


def naive_lines(self, step):
    return self.path.read_text().splitlines()[1:]
