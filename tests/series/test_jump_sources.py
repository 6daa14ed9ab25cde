"""What `detect_jumps` returns goes into every analysis as it is, also when it is empty."""

import numpy as np
import pandas as pd
import pytest

import headspec as hs

STEPS = np.arange(0, 2001, 5)


def curves(*, jump: float, seed=0) -> pd.DataFrame:
    """Three layers of one run, noise .01, each with jumps at updates 600 and 1500."""
    rng = np.random.default_rng(seed)
    frames = []
    for i in range(3):
        value = 2 + jump * ((600 + 50 * i <= STEPS).astype(float) + (STEPS >= 1500))
        frames.append(
            pd.DataFrame(
                {
                    "model": "mlp",
                    "step": STEPS,
                    "layer": i,
                    "layer_name": f"network.{i}",
                    "metric": "stable_rank",
                    "value": value + rng.normal(0, 0.01, len(STEPS)),
                    "seed": 0,
                    "resolution": 1e-6,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def jumps():
    return hs.detect_jumps(curves(jump=0.5))


def test_planted_jumps_go_through_everything(jumps):
    assert set(jumps.to_frame()["step"]) >= {600, 650, 700, 1500}
    plan = hs.plan_checkpoints(jumps, controls=1)
    assert plan.n_steps == 2000  # of the curves
    assert plan.n_measured == 401
    assert (plan.moments["kind"] == "jump").sum() == 5
    assert hs.classify_jumps(jumps).n_types == 1
    shares = hs.phase_shares(jumps).set_index("part")
    assert shares.loc["mid", "count"] >= 3
    together = hs.jump_coordination(jumps, n_null=99, steps=STEPS)
    assert together.share >= 0.4
    losses = pd.DataFrame({"step": STEPS, "loss": np.exp(-STEPS / 500)})
    found = hs.loss_around_jumps(jumps, losses, steps=STEPS)
    assert len(found.moments) >= 4
    assert (hs.control_steps(jumps, steps=STEPS) > 0).all()


def test_the_frame_gives_the_same(jumps):
    frame = jumps.to_frame()
    assert hs.plan_checkpoints(frame).steps == hs.plan_checkpoints(jumps).steps


def test_a_run_without_jumps_still_has_a_plan():
    none = hs.detect_jumps(curves(jump=0.0))
    assert len(none) == 0
    plan = hs.plan_checkpoints(none, controls=1)
    assert plan.n_steps == 2000
    assert plan.moments["kind"].value_counts().to_dict() == {"control": 5, "landmark": 3}
