"""Plans of checkpoints: the study's 34, coverage, controls, JSON, and runs without jumps."""

import doctest
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_jumps import GRID, jumps_at, needs_published, published_jumps

import headspec as hs
from headspec import results
from headspec.errors import InputError
from headspec.series import checkpoint_plan, checkpoint_plan_result
from headspec.series.checkpoint_plan_selection import (
    _quota,
    relative_magnitude,
    select_as_study,
    select_by_coverage,
)
from headspec.series.jump_rows import jump_rows, phase_stratum
from headspec.training.schedule import checkpoint_steps

NOTHING = jumps_at([])


def spread_jumps(n=60, seed=0, n_layers=6):
    """Three quarters early, in six layers, magnitudes over decades."""
    rng = np.random.default_rng(seed)
    phase = np.where(rng.random(n) < 0.75, rng.uniform(0, 0.1, n), rng.uniform(0.1, 1, n))
    step = np.maximum(1, np.round(400 * phase)).astype(int) * 5
    layers = [f"layer{i}" for i in rng.integers(0, n_layers, n)]
    return jumps_at(step).assign(layer_name=layers, magnitude=10 ** rng.normal(size=n))


@pytest.mark.parametrize("module", [checkpoint_plan, checkpoint_plan_result])
def test_examples(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("middles", "published"),
    [
        (
            [111, 343, 367, 395, 396],
            [101, 111, 121, 333, 343, 353, 357, 367, 377, 385, 386, 395, 396, 405, 406],
        ),
        ([0, 6, 16, 82, 84], [0, 6, 10, 16, 26, 72, 74, 82, 84, 92, 94]),
        ([0, 1, 3, 4], [0, 1, 3, 4, 10, 11, 13, 14]),
    ],
)
def test_the_study_s_34_checkpoints(middles, published):
    plan = hs.plan_checkpoints(
        NOTHING, n_steps=2000, candidates=middles, spacing=10, landmarks=(), n_jumps=0
    )
    assert list(plan.steps) == published
    assert not plan.notes


def test_geometry_by_hand():
    plan = hs.plan_checkpoints(jumps_at([500]), n_steps=2000, landmarks=())
    assert plan.moments[["before", "during", "after"]].to_numpy().tolist() == [[487, 497, 507]]
    assert plan.steps == (487, 497, 507)
    two = hs.plan_checkpoints(jumps_at([500]), n_steps=2000, landmarks=(), per_jump=2)
    assert two.steps == (487, 507)
    assert two.moments["during"].isna().all()
    five = hs.plan_checkpoints(jumps_at([500]), n_steps=2000, landmarks=(), per_jump=5)
    assert five.steps == (487, 492, 497, 502, 507)
    assert five.moments["during"].tolist() == [497]
    assert five.moment_steps == (five.steps,)


def test_a_jump_lies_between_before_and_after():
    """Pitfall: `step` is the first measurement after the jump, no checkpoint during it."""
    jumps = spread_jumps()
    plan = hs.plan_checkpoints(jumps, n_steps=2000, n_jumps=20)
    rows = plan.moments[plan.moments["kind"] == "jump"]
    steps = {(r.layer_name, r.magnitude): (r.step_before, r.step) for r in jumps.itertuples()}
    for row in rows.itertuples():
        first, last = steps[row.layer_name, row.magnitude]
        assert row.before <= first <= row.during <= last <= row.after


def test_long_jumps_are_bracketed_closely():
    """A jump that may lie anywhere in 10 updates, measured every 2: not 20 updates around it."""
    jumps = pd.DataFrame({"step": [136], "step_before": [126], "magnitude": [1.0]})
    plan = hs.plan_checkpoints(jumps, n_steps=300, landmarks=(), steps=np.arange(0, 301, 2))
    assert plan.steps == (124, 131, 138)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 400), max_size=12),
    st.integers(2, 6),
    st.integers(1, 300),
    st.integers(0, 2),
)
def test_steps_are_those_of_the_moments(places, per_jump, spacing, controls):
    plan = hs.plan_checkpoints(
        jumps_at(5 * np.array(places, dtype=int)),
        n_steps=2000,
        per_jump=per_jump,
        spacing=spacing,
        controls=controls,
        steps=np.arange(0, 2001, 5),
    )
    assert list(plan.steps) == sorted(set(plan.steps))
    assert set(plan.steps) == {step for own in plan.moment_steps for step in own}
    assert 0 <= plan.steps[0] <= plan.steps[-1] <= 2000
    assert all(type(step) is int for step in plan.steps)
    assert (plan.moments["kind"] == "jump").sum() == min(5, len(places))
    assert set(checkpoint_steps(plan.steps, 2000)) == {0, 2000, *plan.steps}  # training takes it
    assert plan.n_checkpoints == len(checkpoint_steps(plan.steps, 2000))


def test_json_round_trip(tmp_path):
    jumps = spread_jumps().assign(magnitude=np.linspace(1e-13, 1 / 3, 60))
    plan = hs.plan_checkpoints(
        jumps, n_steps=2000, controls=1, candidates=[700], checkpoint_bytes=10**6, select="study"
    )
    plan.to_json(tmp_path / "deep" / "plan.json")
    back = hs.load_checkpoint_plan(tmp_path / "deep" / "plan.json")
    pd.testing.assert_frame_equal(back.moments, plan.moments, check_exact=True)
    for name in ("steps", "moment_steps", "n_steps", "n_measured", "n_bytes", "select", "notes"):
        assert getattr(back, name) == getattr(plan, name)
    content = json.loads((tmp_path / "deep" / "plan.json").read_text())
    assert tuple(content["steps"]) == plan.steps
    assert content["moments"][0]["steps"] == list(plan.moment_steps[0])
    for suffix in ("json", "parquet"):
        results.save(plan, tmp_path / f"result.{suffix}")
        again = results.load(tmp_path / f"result.{suffix}")
        pd.testing.assert_frame_equal(again.moments, plan.moments)
        assert again.steps == plan.steps


def test_whole_numbers_of_numpy_are_written(tmp_path):
    """In a fresh process: the types that are checked while tests run would refuse them."""
    code = f"""
import numpy as np, pandas as pd, headspec as hs
jumps = pd.DataFrame({{"step": [500], "step_before": [495], "magnitude": [1.0]}})
plan = hs.plan_checkpoints(jumps, n_steps=np.int64(2000), spacing=np.int64(7),
    per_jump=np.int64(5), candidates=np.array([700]), checkpoint_bytes=np.int64(9))
plan.to_json({str(tmp_path / "plan.json")!r})
assert {{type(step) for step in plan.steps}} == {{int}}, plan.steps
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert hs.load_checkpoint_plan(tmp_path / "plan.json").steps[:3] == (490, 494, 497)


@pytest.mark.parametrize("at", [5, 500, 1995])
def test_during_lies_in_the_jump_also_where_the_window_is_clipped(at):
    plan = hs.plan_checkpoints(jumps_at([at]), n_steps=2000, landmarks=(), per_jump=5, spacing=30)
    (row,) = plan.moments.to_dict("records")
    assert at - 5 <= row["during"] <= at
    assert plan.steps[0] == row["before"] == max(0, at - 33)
    assert plan.steps[-1] == row["after"] == min(2000, at + 27)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": [1, 2]}, "not those of its moments"),
        ({"n_steps": 100}, "outside 0 to n_steps"),
        ({"format": "else"}, "no 'headspec checkpoint plan 1'"),
        ({"moments": [{"kind": "jump"}]}, "cannot be read"),
        ({"moments": 3}, "cannot be read"),
        ({"steps": [487.5, 497, 507, 1000, 1500, 2000]}, "487.5 is no whole number"),
        ({"checkpoint_bytes": "many"}, "'many' is no whole number"),
        ({"n_measured": -1}, "-1 is no whole number"),
        ({"notes": "a text"}, "no list of texts"),
    ],
)
def test_damaged_files(tmp_path, change, message):
    path = tmp_path / "plan.json"
    hs.plan_checkpoints(jumps_at([500]), n_steps=2000).to_json(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        hs.load_checkpoint_plan(path)


def test_moments_that_contradict_their_steps(tmp_path):
    path = tmp_path / "plan.json"
    hs.plan_checkpoints(jumps_at([500]), n_steps=2000).to_json(path)
    content = json.loads(path.read_text())
    content["moments"][0]["after"] = 1999
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="a moment at"):
        hs.load_checkpoint_plan(path)
    content["moments"][1]["moment"] = 0
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="not numbered"):
        hs.load_checkpoint_plan(path)
    with pytest.raises(InputError, match="No such file"):
        hs.load_checkpoint_plan(tmp_path / "nothing.json")
    path.write_text("{")
    with pytest.raises(InputError, match="expected a plan"):
        hs.load_checkpoint_plan(path)


def test_controls_hold_no_jump():
    jumps = spread_jumps(20)
    plan = hs.plan_checkpoints(jumps, n_steps=2000, controls=2, steps=np.arange(0, 2001, 5))
    moments = plan.moments.set_index("moment")
    controls = moments[moments["kind"] == "control"]
    assert len(controls) + sum(int(note.split()[0]) for note in plan.notes) == 10
    for row in controls.itertuples():
        inside = (jumps["step"] > row.before) & (jumps["step_before"] < row.after)
        assert not inside.any()
        jump = moments.loc[row.matched]
        assert row.layer_name == jump["layer_name"]
        strata = phase_stratum(np.array([row.phase, jump["phase"]]))
        assert abs(strata[0] - strata[1]) == 0
        assert row.after - row.before == pytest.approx(jump["after"] - jump["before"], abs=1)


def test_without_jumps():
    plan = hs.plan_checkpoints(NOTHING, n_steps=2000, controls=1, steps=GRID)
    assert plan.moments["kind"].value_counts().to_dict() == {"control": 5, "landmark": 3}
    assert plan.notes == ("0 jumps, 5 asked for",)
    middles = plan.moments["during"][:5].to_numpy(float)
    assert np.ptp(np.diff(np.log1p(middles))) < 0.35  # even on a log axis
    bare = hs.plan_checkpoints(NOTHING, n_steps=2000, landmarks=(), n_jumps=0)
    assert bare.steps == ()
    assert "no moments" in bare.summary()
    asked = hs.plan_checkpoints(NOTHING, n_steps=2000, candidates=[100], controls=1, steps=GRID)
    assert asked.moments["kind"].tolist()[:2] == ["candidate", "control"]


def test_storage():
    plan = hs.plan_checkpoints(
        jumps_at([500]), n_steps=2000, landmarks=(1.0,), checkpoint_bytes=1000
    )
    assert plan.n_checkpoints == 5  # three, the last, and step 0 which training always keeps
    assert (plan.n_bytes, plan.n_bytes_measured) == (5000, 401_000)
    assert "0.0 MB" in plan.summary()
    assert hs.plan_checkpoints(jumps_at([500]), n_steps=2000).n_bytes is None


def coverage(rows):
    size = np.minimum((3 * relative_magnitude(rows)).astype(int), 2)
    stratum = phase_stratum(rows["phase"].to_numpy())
    return lambda own: sum(
        len(set(np.asarray(x)[own])) for x in (rows["layer_name"], size, stratum)
    )


def test_coverage_beats_the_largest_and_random_ones():
    for seed in range(5):
        rows = jump_rows(spread_jumps(seed=seed))
        covered = coverage(rows)
        chosen = select_by_coverage(rows, 6)
        assert covered(chosen) == 6 + 3 + 3  # all layers, thirds and strata
        largest = np.argsort(-rows["magnitude"].to_numpy())[:6]
        rng = np.random.default_rng(seed)
        at_random = [covered(rng.permutation(60)[:6]) for _ in range(200)]
        assert covered(largest) < 12
        assert np.mean(np.array(at_random) >= 12) < 0.05


def test_greedy_is_near_the_best_of_all_sets():
    from itertools import combinations

    rows = jump_rows(spread_jumps(14, seed=3, n_layers=4))
    covered = coverage(rows)
    best = max(covered(list(own)) for own in combinations(range(14), 4))
    assert covered(select_by_coverage(rows, 4)) >= (1 - 1 / np.e) * best


def test_study_selection_by_hand():
    types = np.array([1, 1, 2, 2, 2, 3, 3, 3])
    magnitude = [1, 2, 7, 9, 8, 3, 5, 4]
    rows = jump_rows(
        jumps_at([100, 105, 200, 205, 210, 1500, 1505, 1510]).assign(magnitude=magnitude)
    )
    # late: 3; early: the largest of the others, 2; mid: what is left, 1
    chosen, notes = select_as_study(rows, types, 5)
    assert [magnitude[i] for i in chosen] == [9, 8, 5, 4, 2]
    assert notes == []
    one_type, notes = select_as_study(rows, np.ones(8, dtype=int), 5)
    assert len(set(one_type)) == 5
    assert any("early type has too few" in note for note in notes)
    assert [_quota(n) for n in (5, 1, 10)] == [
        {"early": 2, "late": 2, "mid": 1},
        {"early": 1, "late": 0, "mid": 0},
        {"early": 4, "late": 4, "mid": 2},
    ]


@needs_published
def test_study_roles_on_the_published_clusters():
    """The study's words fit clusters 3 (early, largest), 4 (late) and 2 (mid) of its five."""
    jumps = published_jumps()
    rows = jump_rows(jumps)
    chosen, notes = select_as_study(rows, jumps["cluster"].to_numpy(), 5)
    assert jumps["cluster"].to_numpy()[chosen].tolist() == [3, 3, 4, 4, 2]
    assert notes == []
    own = jumps[jumps["experiment"] == "transformer_deep_mnist"]
    plan = hs.plan_checkpoints(
        own, n_steps=2000, select="study", types=own["cluster"].to_numpy(), steps=GRID
    )
    assert (plan.moments["kind"] == "jump").sum() == 5
    late = plan.moments[plan.moments["type"] == 4]
    # its two largest are the two "Type 5" jumps of the study, at index 343 and 367
    assert (late["during"].to_numpy(int) // 5).tolist() == [343, 367]


def test_errors():
    with pytest.raises(InputError, match="jumps of one run"):
        hs.plan_checkpoints(pd.concat([jumps_at([5]), jumps_at([5], seed=1)]), n_steps=10)
    with pytest.raises(InputError, match="per_jump of 2"):
        hs.plan_checkpoints(jumps_at([5]), n_steps=10, per_jump=1)
    with pytest.raises(InputError, match="spacing of 1"):
        hs.plan_checkpoints(jumps_at([5]), n_steps=10, spacing=0)
    with pytest.raises(InputError, match="landmarks from 0 to 1"):
        hs.plan_checkpoints(jumps_at([5]), n_steps=10, landmarks=(1.5,))
    with pytest.raises(InputError, match="a type for each"):
        hs.plan_checkpoints(jumps_at([5]), n_steps=10, types=np.array([1, 2]))
    with pytest.raises(InputError, match="Pass n_steps"):
        hs.plan_checkpoints(NOTHING)
    for select, wrong in (("coverage", "big"), ("study", "big"), ("study", None)):
        odd = jumps_at([5, 50]).assign(type=[1, wrong])
        with pytest.raises(InputError, match="types that are whole numbers"):
            hs.plan_checkpoints(odd, n_steps=100, select=select)
    some = jumps_at([5, 50]).assign(type=[1, None])
    assert hs.plan_checkpoints(some, n_steps=100).moments["type"].count() == 1


def test_the_example_of_the_page_runs(capsys):
    page = (Path(__file__).parents[2] / "docs" / "checkpoint_plans.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.S)
    assert code is not None
    exec(code[1], {})
    said = capsys.readouterr().out
    assert "30 jumps in 2 types" in said
    assert "29 checkpoints for 5 jumps, 5 controls, 3 landmarks" in said


def test_the_file_of_the_page_is_what_is_written(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "checkpoint_plans.md").read_text()
    code = re.search(r"```json\n(.*?)```", page, re.S)
    assert code is not None
    (tmp_path / "plan.json").write_text(code[1])
    jumps = jumps_at([500], layer="network.0", model="mlp", metric="stable_rank")
    plan = hs.plan_checkpoints(jumps.assign(magnitude=1.2), n_steps=2000, landmarks=(0.5,))
    shown = hs.load_checkpoint_plan(tmp_path / "plan.json")
    assert shown.steps == plan.steps
    assert shown.notes == plan.notes
    columns = [name for name in shown.moments if name != "phase"]
    pd.testing.assert_frame_equal(shown.moments[columns], plan.moments[columns])
    pd.testing.assert_series_equal(shown.moments["phase"], plan.moments["phase"])
