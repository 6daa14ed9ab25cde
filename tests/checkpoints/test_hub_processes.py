"""Several processes read one suite through one cache, and most of them are killed."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

from hub_server import FakeHub
from run_files import STEPS, assert_same_heads

from headspec.checkpoints.suite import open_suite

READERS = """
import os, pickle, random, signal, sys, time
import torch
torch.set_num_threads(1)
remote, local = pickle.load(open(sys.argv[1], "rb"))
expected = {(s, i): local.head_weights(s, i) for s in local.steps for i in (0, 1)}

def start(seed):
    # A process that reads everything in an order of its own; exit status 0 if all is right.
    pid = os.fork()
    if pid:
        return pid
    try:
        places = sorted(expected)
        random.Random(seed).shuffle(places)
        for step, layer in places:
            read, right = remote.head_weights(step, layer), expected[step, layer]
            for name in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_O"):
                assert torch.equal(getattr(read, name), getattr(right, name))
        os._exit(0)
    finally:
        os._exit(1)

moments = random.Random(0)
killed = 0
for turn in range(5):
    pair = [start(10 * turn + i) for i in range(2)]
    for pid in pair:
        time.sleep(moments.uniform(0.0, 0.04))
        os.kill(pid, signal.SIGKILL)
    endings = [os.waitpid(pid, 0)[1] for pid in pair]
    assert set(endings) <= {0, signal.SIGKILL}, endings
    killed += endings.count(signal.SIGKILL)
final = [start(1000 + i) for i in range(2)]
assert [os.waitpid(pid, 0)[1] for pid in final] == [0, 0]
print(killed)
"""


OFFLINE = """
import sys
from headspec.checkpoints.suite import open_suite
from headspec.errors import HubUnreachableError
suite = open_suite("lab/neox", cache_dir=sys.argv[1])
suite.head_weights(4, 1)
for missing in (lambda: suite.head_weights(4, 0), lambda: open_suite("lab/other")):
    try:
        missing()
    except HubUnreachableError as error:
        print(error.got)
"""


def test_hf_hub_offline_in_the_environment(neox_hub: FakeHub, tmp_path: Path) -> None:
    """HF_HUB_OFFLINE=1 as a user sets it: before Python starts."""
    cache = tmp_path / "cache"
    open_suite("lab/neox", cache_dir=cache).head_weights(4, 1)
    before = len(neox_hub.log)
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(cache)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
    )
    assert done.stdout == "nothing cached, offline\nno cached list, offline\n", done.stderr
    assert len(neox_hub.log) == before


def test_killed_and_concurrent_readers(neox_hub: FakeHub, neox_steps: Path, tmp_path: Path) -> None:
    """Pairs of readers, ten killed at random moments: the cache stays right throughout."""
    local = open_suite(neox_steps)
    remote = open_suite("lab/neox", cache_dir=tmp_path / "cache")
    suites = tmp_path / "suites.pickle"
    suites.write_bytes(pickle.dumps((remote, local)))
    done = subprocess.run(
        [sys.executable, "-c", READERS, str(suites)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 5
    before = len(neox_hub.log)
    for step in STEPS:
        assert_same_heads(remote.head_weights(step, 1), local.head_weights(step, 1))
    assert len(neox_hub.log) == before  # everything is cached, and right
