"""The log's file, and files that are there whole or not at all."""

import math
import struct

import pytest

from headspec.training.atomic_files import (
    remove_leftovers,
    write_file,
    write_folder,
    write_text,
)
from headspec.training.train_log import LOG_COLUMNS, TrainLog, read_log


def row(step, loss=1 / 3, **more):
    return {"step": step, "tokens": 10 * step, "loss": loss, **more}


def test_floats_read_back_as_the_same_bits(tmp_path):
    log = TrainLog(tmp_path / "log.csv", resume_step=None)
    losses = [1 / 3, 0.1 + 0.2, 2.0**-1060, 5.70704984664917]
    log.append([{"step": 0, "tokens": 0, "validation_loss": 6.0}])
    log.append([row(i + 1, loss) for i, loss in enumerate(losses)])
    frame = read_log(tmp_path / "log.csv")
    assert tuple(frame.columns) == LOG_COLUMNS
    found = [struct.pack("d", value) for value in frame["loss"].iloc[1:]]
    assert found == [struct.pack("d", value) for value in losses]
    assert math.isnan(frame["loss"][0])
    assert frame["validation_loss"][0] == 6.0


def test_resuming_cuts_rows_back_and_drops_a_torn_line(tmp_path):
    path = tmp_path / "log.csv"
    TrainLog(path, resume_step=None).append([row(i) for i in range(1, 8)])
    with path.open("a") as file:
        file.write("8,0.33")  # the process was killed here
    assert read_log(path)["step"].tolist() == list(range(1, 8))
    log = TrainLog(path, resume_step=5)
    log.append([row(6, 0.5)])
    frame = read_log(path)
    assert frame["step"].tolist() == list(range(1, 7))
    assert frame["loss"].tolist() == [1 / 3] * 5 + [0.5]


def test_appending_alone_would_leave_rows_twice(tmp_path):
    """Negative control: what a log that is not cut back looks like."""
    path = tmp_path / "log.csv"
    TrainLog(path, resume_step=None).append([row(i) for i in range(1, 8)])
    TrainLog(path, resume_step=7).append([row(i) for i in range(6, 9)])
    assert not read_log(path)["step"].is_unique


def test_a_new_run_starts_an_empty_log(tmp_path):
    path = tmp_path / "log.csv"
    TrainLog(path, resume_step=None).append([row(1)])
    TrainLog(path, resume_step=None)
    assert read_log(path).empty


def test_a_file_that_fails_while_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "state"
    write_text(path, "old")

    def half(partial):
        partial.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_file(path, half)
    assert path.read_text() == "old"
    remove_leftovers(tmp_path)
    assert [item.name for item in tmp_path.iterdir()] == ["state"]


def test_a_folder_appears_whole_and_replaces_an_old_one(tmp_path):
    path = tmp_path / "step3"
    write_folder(path, lambda folder: write_text(folder / "a", "1"))

    def half(folder):
        (folder / "b").write_text("2")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_folder(path, half)
    assert [item.name for item in path.iterdir()] == ["a"]
    write_folder(path, lambda folder: write_text(folder / "b", "2"))
    assert [item.name for item in path.iterdir()] == ["b"]
    assert [item.name for item in tmp_path.iterdir()] == ["step3"]
