"""The published setting, end to end, against a Hub on the loopback that serves small weights."""

from example_runs import run_example
from hub_server import FakeHub

import headspec as hs
from headspec.checkpoints.micro import STEPS, micro_path

PUBLISHED = (1000, 5000, 10000, 20000, 40000, 80000, 120000, 143000)


def test_its_eight_steps_are_read_from_the_hub_tensor_by_tensor(tmp_path):
    config = (micro_path("micro") / "config.json").read_bytes()
    weights = {step: micro_path("micro") / f"step{step}" / "model.safetensors" for step in STEPS}
    with FakeHub() as hub:
        for step, shipped in zip((0, *PUBLISHED), STEPS[-9:], strict=True):
            files = {"config.json": config, "model.safetensors": weights[shipped].read_bytes()}
            hub.add("EleutherAI/pythia-160m", f"step{step}", files)
        flags = ("--suite", "EleutherAI/pythia-160m", "--layer", "2", "--n-null", "199")
        done = run_example(
            "cluster_emergence",
            *flags,
            "--out",
            str(tmp_path / "out"),
            HF_ENDPOINT=hub.url,
            HF_HOME=str(tmp_path / "cache"),
        )
        served = hub.n_bytes("^GET /cdn")
    assert done.returncode == 0, done.stderr
    frame = hs.results.load(tmp_path / "out" / "directions.json")
    assert tuple(frame["step"].unique()) == PUBLISHED
    assert set(frame["model"]) == {"EleutherAI/pythia-160m"}
    whole = len(PUBLISHED) * weights[STEPS[-1]].stat().st_size
    assert served < whole / 2  # most of a file this small is the first read of its header
