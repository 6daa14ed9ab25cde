"""Suites in folders and on a Hub of our own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import FakeHub
from run_files import STEPS, folder_files
from zoo import tiny_model, tiny_tokenizer


@pytest.fixture(scope="session")
def neox_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local suite of GPT-NeoX models in float16, one folder a step; treat as read-only."""
    root = tmp_path_factory.mktemp("neox") / "neox-run"
    for step in STEPS:
        tiny_model("gpt_neox", seed=step).half().save_pretrained(root / f"step{step}")
    tiny_tokenizer().save_pretrained(root / "step1000")
    return root


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub on the loopback, and HF_ENDPOINT pointing at it."""
    with FakeHub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def neox_hub(hub: FakeHub, neox_steps: Path) -> FakeHub:
    """The Hub with the local suite's steps as branches of `lab/neox`."""
    for step in STEPS:
        hub.add("lab/neox", f"step{step}", folder_files(neox_steps / f"step{step}"))
    hub.add("lab/neox", "main", folder_files(neox_steps / "step1000"))
    return hub


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between attempts, recorded instead of waited for."""
    recorded: list[float] = []
    monkeypatch.setattr(time, "sleep", recorded.append)
    return recorded
