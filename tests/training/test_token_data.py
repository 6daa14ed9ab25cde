"""Token-data folders: whole or absent, shared, and opened without reading."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from headspec.errors import CheckpointError, InputError
from headspec.training import token_folder
from headspec.training.micro_languages import MicroLanguages
from headspec.training.token_data import LabelledTokens, open_token_data
from headspec.training.token_folder import write_token_data

LANGUAGES = MicroLanguages(n_topics=3, vocab_size=63, seq_len=16, concentration=10.0)


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_what_a_folder_holds(tmp_path):
    train = LANGUAGES.write(tmp_path / "data", n_train=50, n_validation=20)
    validation = open_token_data(tmp_path / "data", split="validation")
    assert sorted(content(tmp_path / "data")) == [
        "data.json",
        "train.labels.npy",
        "train.tokens.npy",
        "validation.labels.npy",
        "validation.tokens.npy",
    ]
    assert isinstance(train.tokens, np.memmap)
    assert train.tokens.dtype == np.uint16
    assert train.labels.dtype == np.uint8
    assert train.tokens.shape == train.labels.shape == (50, 16)
    assert validation.tokens.shape == (20, 16)
    assert (train.vocab_size, train.n_topics, train.seq_len, len(train)) == (63, 3, 16, 50)
    assert train.info["source"] == "micro_languages"
    assert train.info["entropy_rate"] == LANGUAGES.entropy_rate()
    assert train.info["concentration"] == 10.0
    assert not any(
        (train.tokens == row).all(axis=1).any() for row in validation.tokens
    )  # the same languages, other sequences
    losses = LANGUAGES.bayes_loss(validation.tokens)
    assert losses.shape == (20, 16)
    assert np.isfinite(losses).all()


def test_the_same_settings_give_the_same_bytes_and_others_do_not(tmp_path):
    for name in ("one", "two"):
        LANGUAGES.write(tmp_path / name, n_train=30, n_validation=10, seed=4)
    LANGUAGES.write(tmp_path / "three", n_train=30, n_validation=10, seed=5)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    one, three = content(tmp_path / "one"), content(tmp_path / "three")
    assert one["train.tokens.npy"] != three["train.tokens.npy"]


def test_pieces_do_not_show(tmp_path, monkeypatch):
    from headspec.training import micro_sequences

    monkeypatch.setattr(micro_sequences, "_CHUNK", 7)
    data = LANGUAGES.write(tmp_path / "data", n_train=20, n_validation=5)
    assert data.tokens.min() >= 3
    assert len(np.unique(data.tokens, axis=0)) == 20  # no piece repeats another


def test_data_are_made_once_and_shared(tmp_path, monkeypatch):
    first = LANGUAGES.write(tmp_path / "data", n_train=30, n_validation=10)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()}
    monkeypatch.setattr(MicroLanguages, "_draw", lambda *args, **kwargs: pytest.fail("drawn anew"))
    again = LANGUAGES.write(tmp_path / "data", n_train=30, n_validation=10)
    np.testing.assert_array_equal(first.tokens, again.tokens)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()}


def test_a_folder_with_other_settings_is_an_error_that_names_them(tmp_path):
    LANGUAGES.write(tmp_path / "data", n_train=30, n_validation=10)
    kept = content(tmp_path / "data")
    other = MicroLanguages(n_topics=3, vocab_size=63, seq_len=16, concentration=5.0)
    with pytest.raises(InputError, match=r"concentration is 10.0 and not 5.0"):
        other.write(tmp_path / "data", n_train=30, n_validation=10)
    with pytest.raises(InputError, match="n_train is 30 and not 31"):
        LANGUAGES.write(tmp_path / "data", n_train=31, n_validation=10)
    with pytest.raises(InputError, match="sequences_seed is 0 and not 2"):
        LANGUAGES.write(tmp_path / "data", n_train=30, n_validation=10, seed=2)
    assert content(tmp_path / "data") == kept


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        LANGUAGES.write(tmp_path, n_train=3, n_validation=3)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_failure_half_way_leaves_nothing(tmp_path):
    def broken():
        yield LANGUAGES.sample(5, seed=0)
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="disk is full"):
        write_token_data(
            tmp_path / "data",
            train=(10, broken),
            validation=LANGUAGES.sample(5, seed=1),
            vocab_size=63,
            n_topics=3,
            seq_len=16,
            settings={"source": "test"},
        )
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"token-data folder with data.json"):
        open_token_data(tmp_path / "data")


def test_a_killed_process_leaves_nothing_that_looks_whole(tmp_path):
    script = (
        "import sys, time\n"
        "from headspec.training.micro_languages import MicroLanguages\n"
        "from headspec.training.token_folder import write_token_data\n"
        "languages = MicroLanguages(n_topics=3, vocab_size=63, seq_len=16)\n"
        "def slow():\n"
        "    yield languages.sample(5, seed=0)\n"
        "    print('half', flush=True)\n"
        "    time.sleep(60)\n"
        "write_token_data(sys.argv[1], train=(10, slow), validation=languages.sample(5, seed=1),\n"
        "    vocab_size=63, n_topics=3, seq_len=16, settings={'source': 'test'})\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "data")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "half"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "data").exists()
    (left,) = tmp_path.iterdir()  # under a temporary name, without data.json
    assert not (left / "data.json").exists()
    with pytest.raises(InputError):
        open_token_data(left)
    LANGUAGES.write(tmp_path / "data", n_train=6, n_validation=4)  # a new run is not disturbed
    old = time.time() - 2 * token_folder._STALE
    os.utime(left, (old, old))
    LANGUAGES.write(tmp_path / "data", n_train=6, n_validation=4)
    MicroLanguages(n_topics=3, vocab_size=63, seq_len=16).write(
        tmp_path / "other", n_train=6, n_validation=4
    )
    assert left.exists()  # folders of other names are nobody's business
    (tmp_path / "data").rename(tmp_path / "moved")
    LANGUAGES.write(tmp_path / "data", n_train=6, n_validation=4)
    assert not left.exists()  # after a day it is swept


def test_whoever_is_first_wins(tmp_path):
    """Another process finishes the same data while we write."""

    def overtaken():
        LANGUAGES.write(tmp_path / "data", n_train=8, n_validation=4)
        yield from LANGUAGES._draw(8, seed=0, split="train")

    settings = {**LANGUAGES.write(tmp_path / "settings", n_train=8, n_validation=4).settings}
    data = write_token_data(
        tmp_path / "data",
        train=(8, overtaken),
        validation=(4, lambda: LANGUAGES._draw(4, seed=0, split="validation")),
        vocab_size=63,
        n_topics=3,
        seq_len=16,
        settings=settings,
    )
    assert data.info["entropy_rate"] == LANGUAGES.entropy_rate()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "settings"]


def test_damaged_folders_are_named(tmp_path):
    folder = tmp_path / "data"
    LANGUAGES.write(folder, n_train=30, n_validation=10)
    whole = (folder / "train.tokens.npy").read_bytes()
    (folder / "train.tokens.npy").write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match=r"train.tokens.npy"):
        open_token_data(folder)
    (folder / "train.tokens.npy").unlink()
    with pytest.raises(CheckpointError, match=r"train.tokens.npy"):
        open_token_data(folder)
    np.save(folder / "train.tokens.npy", np.zeros((3, 16), np.uint16))
    with pytest.raises(CheckpointError, match=r"shape \(30, 16\)"):
        open_token_data(folder)
    (folder / "data.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"data.json"):
        open_token_data(folder)
    (folder / "data.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(CheckpointError, match="another format"):
        open_token_data(folder)
    (folder / "data.json").write_text(json.dumps({"format": 1, "n": {"train": 30}}))
    with pytest.raises(CheckpointError, match="without seq_len, vocab_size"):
        open_token_data(folder)


def test_arrays_of_ones_own(tmp_path):
    rows = LabelledTokens(np.array([[70_000, 1], [2, 3]]), np.array([[0, 1], [1, 1]]))
    data = write_token_data(
        tmp_path / "data", train=rows, validation=rows, vocab_size=70_001, n_topics=2
    )
    assert data.tokens.dtype == np.uint32
    np.testing.assert_array_equal(data.tokens, rows.tokens)
    assert data.topic_counts.tolist() == [[1, 1], [0, 2]]
    assert data.dominant_topics.tolist() == [0, 1]
    other = LabelledTokens(rows.tokens, 1 - rows.labels)
    with pytest.raises(InputError, match="train_labels_sha256"):
        write_token_data(
            tmp_path / "data", train=other, validation=rows, vocab_size=70_001, n_topics=2
        )
    for changes, words in (
        ({"vocab_size": 50}, "tokens from 0 to 49"),
        ({"n_topics": 1}, "labels from 0 to 0"),
    ):
        sizes = {"vocab_size": 70_001, "n_topics": 2} | changes
        with pytest.raises(InputError, match=words):
            write_token_data(tmp_path / "wrong", train=rows, validation=rows, **sizes)
    assert not (tmp_path / "wrong").exists()
