"""The published setting of the parity study, against a Hub on the loopback with small weights."""

from example_runs import run_example
from hub_server import FakeHub

import headspec as hs
from headspec.checkpoints.micro import STEPS, micro_path

EXISTING = (1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000, 143_000)


def test_steps_that_do_not_exist_are_replaced_and_said(tmp_path):
    files = {"config.json": (micro_path("micro") / "config.json").read_bytes()}
    for path in (micro_path("") / "tokenizer").iterdir():
        files[path.name] = path.read_bytes()
    weights = {step: micro_path("micro") / f"step{step}" / "model.safetensors" for step in STEPS}
    with FakeHub() as hub:
        for step, shipped in zip((0, *EXISTING, 10_000), STEPS[-11:], strict=True):
            here = files | {"model.safetensors": weights[shipped].read_bytes()}
            hub.add("EleutherAI/pythia-160m", f"step{step}", here)
        flags = ("--suite", "EleutherAI/pythia-160m", "--layer", "3", "--wording", "micro")
        done = run_example(
            "parity_emergence",
            *flags,
            "--n-pairs",
            "4",
            "--out",
            str(tmp_path / "out"),
            HF_ENDPOINT=hub.url,
            HF_HOME=str(tmp_path / "cache"),
        )
    assert done.returncode == 0, done.stderr
    assert "(256000 → 143000, 512000 → 143000, 1000000 → 143000)" in done.stdout
    assert "9 different steps are left of eleven" in done.stdout
    frame = hs.results.load(tmp_path / "out" / "parity.json")
    assert tuple(frame["step"].unique()) == EXISTING
    assert set(frame["model"]) == {"EleutherAI/pythia-160m"}
    table = hs.results.load(tmp_path / "out" / "published_steps.json")
    assert table["step"].tolist() == [*EXISTING, 143_000, 143_000]
    assert "H7" in done.stdout
    assert "no such curve" in done.stdout  # the suite has no loss of its own
