"""A Hub that misbehaves: clear errors, and nothing half-read is ever used later."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from hub_server import FakeHub
from huggingface_hub import constants
from run_files import as_bin, assert_same_heads, folder_files

from headspec.checkpoints import hub_client
from headspec.checkpoints.suite import CheckpointSuite, open_suite
from headspec.errors import CheckpointError, HubUnreachableError, InputError

API, RESOLVE, DATA = "/api/models/", "/resolve/", "^GET /cdn/"


@pytest.fixture
def right(neox_steps: Path):
    """What layer 1 of step 4 holds."""
    return open_suite(neox_steps).head_weights(4, 1)


@pytest.fixture
def suite(neox_hub: FakeHub, tmp_path: Path, waits: list[float]) -> CheckpointSuite:
    """The suite, opened while the Hub behaves."""
    return open_suite("lab/neox", cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("kind", ["truncate", "short", "reset"])
@pytest.mark.parametrize("match", [DATA, "config.json"])
def test_broken_bodies_are_asked_for_again(neox_hub, suite, right, waits, kind, match) -> None:
    neox_hub.misbehave(kind, match, times=2)
    assert_same_heads(suite.head_weights(4, 1), right)
    assert waits == [1.0, 2.0]


@pytest.mark.parametrize("kind", ["truncate", "short", "reset"])
@pytest.mark.parametrize("match", [DATA, "config.json"])
def test_nothing_of_a_broken_body_is_kept(neox_hub, suite, right, kind, match, tmp_path) -> None:
    neox_hub.misbehave(kind, match)
    for _ in range(2):
        with pytest.raises(CheckpointError):
            suite.head_weights(4, 1)
    assert len(neox_hub.requests(match)) <= 2 * hub_client.ATTEMPTS
    neox_hub.behave()
    assert_same_heads(suite.head_weights(4, 1), right)
    assert_same_heads(offline(tmp_path).head_weights(4, 1), right)


@pytest.mark.parametrize("match", [DATA, "config.json"])
def test_flipped_bits_in_what_can_be_checked(neox_hub, suite, right, match) -> None:
    """The config is checked against its hash, a header against the format."""
    neox_hub.misbehave("corrupt", match)
    with pytest.raises(CheckpointError, match="other content than the Hub lists"):
        suite.head_weights(4, 1)
    neox_hub.behave()
    assert_same_heads(suite.head_weights(4, 1), right)


def test_flipped_bits_in_whole_files(neox_hub, neox_steps, tmp_path, right) -> None:
    """huggingface_hub checks the length of a download; the hash is ours to check."""
    files = as_bin(folder_files(neox_steps / "step4"), tmp_path / "bin")
    neox_hub.add("lab/bin", "step4", files)
    suite = open_suite("lab/bin", cache_dir=tmp_path / "cache")
    neox_hub.misbehave("corrupt", DATA)
    with pytest.raises(CheckpointError, match=r"with the hash sha256:.*twice"):
        suite.head_weights(4, 1)
    neox_hub.behave()
    assert suite.source.local_path(4, "pytorch_model.bin") is None
    assert_same_heads(suite.head_weights(4, 1), right)


@pytest.mark.parametrize("kind", ["truncate", "reset", "short"])
def test_broken_downloads_of_whole_files(neox_hub, neox_steps, tmp_path, right, waits, kind):
    files = as_bin(folder_files(neox_steps / "step4"), tmp_path / "bin")
    neox_hub.add("lab/bin", "step4", files)
    suite = open_suite("lab/bin", cache_dir=tmp_path / "cache")
    neox_hub.misbehave(kind, DATA, times=40)
    with pytest.raises(CheckpointError, match=r"expected lab/bin pytorch_model\.bin"):
        suite.head_weights(4, 1)
    neox_hub.behave()
    assert_same_heads(suite.head_weights(4, 1), right)


@pytest.mark.parametrize("match", [API, RESOLVE, DATA])
@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [(429, {"Retry-After": "7"}, 7.0), (503, {"Retry-After": "3"}, 3.0), (502, {}, 1.0)],
)
def test_busy_hubs_are_waited_for(
    neox_hub, tmp_path, right, waits, match, status, headers, expected
) -> None:
    neox_hub.misbehave("status", match, status=status, headers=headers, times=1)
    suite = open_suite("lab/neox", cache_dir=tmp_path / "cache")
    assert_same_heads(suite.head_weights(4, 1), right)
    assert waits == [expected]


def test_answers_that_are_not_the_hubs(neox_hub, suite, right, tmp_path) -> None:
    """A proxy's log-in page with status 200."""
    for where in ("refs", "/tree/"):
        neox_hub.behave()
        neox_hub.misbehave("status", where, status=200)
        with pytest.raises(HubUnreachableError, match=r"not the Hub's.*such as a proxy"):
            open_suite("lab/neox", cache_dir=tmp_path / "other").head_weights(4, 1)
    neox_hub.behave()
    assert_same_heads(
        open_suite("lab/neox", cache_dir=tmp_path / "other").head_weights(4, 1), right
    )


def test_waiting_is_bounded(neox_hub, suite, right, waits) -> None:
    neox_hub.misbehave("status", DATA, status=429, headers={"Retry-After": "0"})
    with pytest.raises(HubUnreachableError, match="too many requests"):
        suite.head_weights(4, 1)
    assert len(waits) == hub_client.ATTEMPTS - 1
    waits.clear()
    neox_hub.behave()
    neox_hub.misbehave("status", DATA, status=429, headers={"Retry-After": "3600"})
    with pytest.raises(HubUnreachableError, match="wait 3600 s"):
        suite.head_weights(4, 1)
    assert waits == []
    neox_hub.behave()
    assert_same_heads(suite.head_weights(4, 1), right)


def test_no_such_model(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(HubUnreachableError, match=r"no such model, or a private one \(404\)"):
        open_suite("lab/absent", cache_dir=tmp_path)
    with pytest.raises(InputError, match="a model on the Hub"):
        open_suite("not a name", cache_dir=tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        open_suite("./not-there", cache_dir=tmp_path)
    assert len(hub.requests()) == 1


def test_no_steps(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("lab/final", "main", {"config.json": b"{}"})
    with pytest.raises(InputError, match=r"step1000.*got main.*revision_format="):
        open_suite("lab/final", cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("status", "headers", "match"),
    [
        (403, {"X-Error-Code": "GatedRepo"}, r"gated model \(403\).*Accept its terms"),
        (401, {}, r"access refused \(401\).*hf auth login"),
        (403, {}, r"access refused \(403\)"),
    ],
)
@pytest.mark.parametrize("where", ["refs", RESOLVE])
def test_no_access(neox_hub, tmp_path, status, headers, match, where, waits) -> None:
    neox_hub.misbehave("status", where, status=status, headers=headers)
    with pytest.raises(HubUnreachableError, match=match):
        open_suite("lab/neox", cache_dir=tmp_path).head_weights(4, 1)
    assert waits == []  # asking again would not help


def test_a_deleted_revision(neox_hub, suite) -> None:
    del neox_hub.commits["lab/neox", suite.source.commits[4]]
    with pytest.raises(HubUnreachableError, match=r"no such revision.*open the suite again"):
        suite.head_weights(4, 1)


def test_a_missing_file(neox_hub, neox_steps, tmp_path) -> None:
    files = folder_files(neox_steps / "step4")
    weights = {name: data for name, data in files.items() if name != "config.json"}
    config = {"config.json": files["config.json"]}
    neox_hub.add("lab/parts", "step1", weights)
    neox_hub.add("lab/parts", "step2", config)
    suite = open_suite("lab/parts", cache_dir=tmp_path)
    with pytest.raises(CheckpointError, match=r"a file config\.json of lab/parts"):
        suite.head_weights(1, 1)
    with pytest.raises(CheckpointError, match=r"one of model\.safetensors.*got config\.json"):
        suite.head_weights(2, 1)


def test_a_file_that_is_incomplete_on_the_hub(neox_hub, neox_steps, tmp_path, waits) -> None:
    files = folder_files(neox_steps / "step4")
    files["model.safetensors"] = files["model.safetensors"][:60_000]
    neox_hub.add("lab/cut", "step4", files)
    suite = open_suite("lab/cut", cache_dir=tmp_path)
    with pytest.raises(CheckpointError, match="60,000 bytes that should have"):
        suite.head_weights(4, 1)
    assert "truncated: 60,000 bytes" in suite.verify().problems[0]
    files["model.safetensors"] = files["model.safetensors"][:500]  # within the header
    neox_hub.add("lab/cut", "step4", files)
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        open_suite("lab/cut", cache_dir=tmp_path).head_weights(4, 1)


def test_a_server_that_ignores_ranges(neox_hub, suite, right) -> None:
    """The whole file is downloaded once, with a warning, and read from the cache."""
    neox_hub.misbehave("ignore_range", DATA)
    with pytest.warns(UserWarning, match="ignores ranged requests: downloading all of"):
        assert_same_heads(suite.head_weights(4, 1), right)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same_heads(suite.head_weights(4, 1), right)


def test_a_server_that_begins_to_ignore_ranges(neox_hub, suite, right) -> None:
    suite.head_weights(4, 0)
    neox_hub.misbehave("ignore_range", DATA)
    with pytest.warns(UserWarning, match="ignores ranged requests"):
        assert_same_heads(suite.head_weights(4, 1), right)


def offline(tmp_path: Path) -> CheckpointSuite:
    return open_suite("lab/neox", cache_dir=tmp_path / "cache", offline=True)


def test_offline_with_a_cache(neox_hub, suite, right, tmp_path, monkeypatch) -> None:
    suite.head_weights(4, 1)
    before = len(neox_hub.log)
    assert_same_heads(offline(tmp_path).head_weights(4, 1), right)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # as HF_HUB_OFFLINE=1 sets it
    again = open_suite("lab/neox", cache_dir=tmp_path / "cache")
    assert again.steps == suite.steps
    assert_same_heads(again.head_weights(4, 1), right)
    for asked in (lambda: again.head_weights(4, 0), lambda: again.head_weights(2, 1)):
        with pytest.raises(HubUnreachableError, match=r"offline.*unset HF_HUB_OFFLINE"):
            asked()
    assert len(neox_hub.log) == before


def test_offline_without_a_cache(neox_hub, tmp_path) -> None:
    with pytest.raises(HubUnreachableError, match=r"no cached list, offline.*open_suite\(\"micro"):
        offline(tmp_path)
    assert neox_hub.log == []


def test_offline_with_what_others_downloaded(neox_hub, tmp_path, right) -> None:
    """A cache filled by huggingface_hub alone, without lists of ours."""
    from huggingface_hub import snapshot_download

    cache = tmp_path / "cache"
    snapshot_download("lab/neox", revision="step4", cache_dir=cache, endpoint=neox_hub.url)
    before = len(neox_hub.log)
    suite = offline(tmp_path)
    assert suite.steps == (4,)
    assert_same_heads(suite.head_weights(4, 1), right)
    assert suite.verify().ok.all()
    assert len(neox_hub.log) == before


def test_no_connection(neox_hub, suite, right, tmp_path, monkeypatch, waits) -> None:
    """With the server gone, the list of steps comes from the cache, with a warning."""
    suite.head_weights(4, 1)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.warns(UserWarning, match=r"no connection.*Using the 6 revisions"):
        away = open_suite("lab/neox", cache_dir=tmp_path / "cache")
    assert_same_heads(away.head_weights(4, 1), right)
    with pytest.raises(HubUnreachableError, match="Check the network and HF_ENDPOINT"):
        away.head_weights(4, 0)
    with pytest.raises(HubUnreachableError, match="no connection"):
        open_suite("lab/other", cache_dir=tmp_path / "cache")


def test_a_refusal_is_not_covered_up_by_the_cache(neox_hub, suite, tmp_path) -> None:
    neox_hub.misbehave("status", "refs", status=403, headers={"X-Error-Code": "GatedRepo"})
    with pytest.raises(HubUnreachableError, match="gated"):
        open_suite("lab/neox", cache_dir=tmp_path / "cache")
