"""The published data of the jumps study, and what its claims are when computed right."""

from pathlib import Path

import numpy as np
import pytest

from headspec.errors import InputError
from headspec.series.jumps import detect_jumps
from headspec.studies.jump_published import (
    GUARD,
    PUBLISHED_RUNS,
    load_ndt_log,
    load_ndt_run,
    load_published_jumps,
)
from headspec.studies.jump_published_claims import count_claims, phase_claims
from headspec.studies.jump_published_layers import layer_claims
from headspec.studies.jump_published_losses import neighbour_shares
from headspec.studies.jump_published_plan import (
    CHOSEN,
    PUBLISHED_PLAN,
    plan_claims,
    plan_table,
    planned_steps,
)
from headspec.studies.jump_published_review import review_published_jumps

DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "ndt-phase1"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the published data are not here")


@pytest.fixture(scope="module")
def jumps():
    return load_published_jumps(DATA / "all_jumps_detailed.csv")


def by_claim(rows, start):
    return next(row for row in rows if row["claim"].startswith(start))


def test_the_jumps_table(jumps):
    assert len(jumps) == 2991
    counts = jumps["architecture"].value_counts().to_dict()
    assert counts == {"transformer": 1598, "mlp": 1096, "cnn": 297}
    assert jumps["model"].nunique() == 55
    np.testing.assert_allclose(jumps["published_phase"], jumps["index"] / 2000)
    assert (jumps["step"] - jumps["step_before"] == 5).all()


def test_pitfall_21_late_jumps_exist_when_updates_are_counted(jumps):
    for phase, counts in (("published_phase", (2493, 498, 0)), ("phase", (1879, 614, 498))):
        values = jumps[phase]
        early, late = values <= 0.1, values > 0.5
        assert (early.sum(), (~early & ~late).sum(), late.sum()) == counts
    assert (jumps["published_phase"] == 0).sum() == 252
    late = jumps.loc[jumps["phase"] > 0.5, "architecture"].value_counts()
    assert late["transformer"] / 1598 == pytest.approx(0.299, abs=5e-4)


def test_pitfall_20_no_published_jump_reaches_the_resolution_of_float32(jumps):
    assert jumps["magnitude"].max() == pytest.approx(8.478e-9, rel=1e-3)
    assert (jumps["magnitude"] < 1e-9).mean() == pytest.approx(0.993, abs=5e-4)
    assert jumps["magnitude"].max() < np.finfo(np.float32).eps
    assert (jumps["magnitude"] <= np.finfo(float).eps).sum() == 155


@pytest.mark.parametrize("run", PUBLISHED_RUNS)
def test_a_published_run(run, jumps):
    frame = load_ndt_run(DATA / f"{run}.json")
    assert set(frame["metric"]) == {
        "published_stable_rank", "participation_ratio_sigma", "components_90", "nuclear_ratio",
    }  # fmt: skip
    assert sorted(set(frame["step"])) == list(range(0, 2000, 5))
    assert set(frame["model"]) == {run}
    log = load_ndt_log(DATA / f"{run}.json")
    assert len(log) == 400
    assert log["loss"].iloc[-1] < 0.2 < 2 < log["loss"].iloc[0]
    stable = frame.loc[frame["metric"] == "published_stable_rank"]
    assert stable["value"].between(1 - 1e-8, 1).all()
    # the study's rule on this series gives its published jumps, exactly
    for name, curve in stable.groupby("layer_name"):
        change = np.diff(curve["value"])
        found = np.flatnonzero(np.abs(change - change.mean()) > 2 * change.std())
        here = jumps.loc[(jumps["model"] == run) & (jumps["layer_name"] == name)]
        assert found.tolist() == here["index"].tolist()
        np.testing.assert_array_equal(np.abs(change[found]), here["magnitude"])
    # and the detector refuses it: nothing in it is above the resolution of float32
    kept = detect_jumps(frame, n_steps=2000).curves
    kept = kept.loc[kept["metric"] == "published_stable_rank"]
    assert len(kept) == stable["layer_name"].nunique()
    assert (kept["verdict"] == "below resolution").all()
    with pytest.raises(InputError, match="resolution"):
        detect_jumps(stable.loc[stable["layer"] == 0], n_steps=2000)


def test_the_published_stable_rank_is_a_norm():
    """Whatever the rank: 1e-10 / |A|^2 away from 1, since torch.norm(A, p=2) is Frobenius."""
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    for rank in (1, 5, 30):
        left, right = (torch.randn(40, rank, generator=generator).double() for _ in range(2))
        matrix = left @ right.T
        published = matrix.norm(p="fro") ** 2 / (matrix.norm(p=2) ** 2 + GUARD)
        expected = GUARD / matrix.square().sum().item()
        assert 1 - published.item() == pytest.approx(expected, rel=0.1, abs=0)


def test_the_claims_of_counts_and_phases(jumps):
    rows = [*count_claims(jumps), *phase_claims(jumps)]
    assert by_claim(rows, "There are 2,991")["status"] == "refuted"
    assert by_claim(rows, "Early (up to")["recomputed"] == "2,241 / 498 / 0 (74.9 / 16.6 / 0.0 %)"
    assert by_claim(rows, "Early (up to")["corrected"].startswith("1,879 / 614 / 498")
    assert by_claim(rows, "Transformer: early")["recomputed"].startswith("1,023 / 478 / 0")
    assert by_claim(rows, "CNN: early")["recomputed"].startswith("270 / 0 / 0")
    assert by_claim(rows, "MLP: early")["recomputed"].startswith("948 / 20 / 0")
    ratio = by_claim(rows, "CNNs have 2.50")
    assert "(2.50 times)" in ratio["recomputed"]
    assert "(0.96 times)" in ratio["corrected"]
    clusters = by_claim(rows, "Clusters")["recomputed"]
    assert "early cluster 0 82.6%, cluster 2 16.5%" in clusters
    assert "mid cluster 4 86.5%" in clusters


def test_the_claims_of_layers(jumps):
    rows = layer_claims(jumps)
    assert "linear2 75% (66%), linear1 11% (15%)" in by_claim(rows, "All jumps")["corrected"]
    assert "conv_layers.0 23 (51%)" in by_claim(rows, "The first convolution")["recomputed"]
    assert "CNN 2.28e-13, MLP 1.95e-13" in by_claim(rows, "Mean magnitudes")["recomputed"]


def test_the_published_plan_counts_measurements_as_updates(jumps):
    assert sum(map(len, PUBLISHED_PLAN.values())) == 34
    for run, plan in PUBLISHED_PLAN.items():
        assert planned_steps(CHOSEN[run]) == plan
        found = set(jumps.loc[jumps["model"] == run, "index"])
        assert set(CHOSEN[run]) <= found
    table = plan_table(jumps)
    framed = table.groupby("model")["framed"].sum()
    assert framed["transformer_deep_mnist"] == 0
    assert table.loc[table["model"] == "transformer_deep_mnist", "distance"].min() > 100
    assert by_claim(plan_claims(jumps), "34 checkpoints catch")["status"] == "refuted"


def test_errors_say_what_to_do(tmp_path):
    other = tmp_path / "other.json"
    other.write_text("{}")
    with pytest.raises(InputError, match="cannot be read"):
        load_ndt_run(tmp_path / "none.json")
    with pytest.raises(InputError, match="layer_metrics"):
        load_ndt_log(other)
    table = tmp_path / "table.csv"
    table.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="arch_name"):
        load_published_jumps(table)


@pytest.fixture(scope="module")
def review():
    return review_published_jumps(DATA)


def test_every_published_claim_has_a_status(review):
    claims = review.claims
    assert set(claims["status"]) == {"confirmed", "corrected", "refuted", "cannot be decided"}
    assert not claims["claim"].duplicated().any()
    assert claims.map(lambda text: bool(text.strip())).all(axis=None)
    assert "All 24 published curves" in review.summary()
    hypotheses = claims.loc[claims["claim"].str.startswith("Hypothesis")]
    assert len(hypotheses) == 4


def test_shares_agree_with_the_corrected_phases(review):
    shares = review.to_frame().set_index(["by", "model", "part"])["count"]
    assert [shares["published", "all", part] for part in ("early", "mid", "late")] == [2241, 498, 0]
    assert [shares["step", "all", part] for part in ("early", "mid", "late")] == [1879, 614, 498]
    assert shares["step", "transformer", "late"] == 478


def test_the_jumps_are_coordinated_beyond_chance(review):
    """Published: 0.0 %. All layers of a run see the same batch."""
    assert review.coordination.share > 0.5
    assert review.coordination.expected.p_value < 0.01


def test_other_metrics_have_hardly_more_jumps_than_chance(review):
    metrics = review.metrics
    stable = metrics["metric"] == "published_stable_rank"
    assert (metrics.loc[stable, "refused"] == metrics.loc[stable, "curves"]).all()
    assert metrics.loc[stable, "published rule"].tolist() == [174, 45, 18]
    assert (metrics.loc[~stable, "calibrated"] < metrics.loc[~stable, "published rule"] / 3).all()


def test_jumps_do_not_go_with_the_loss_more_than_their_neighbours(review):
    shares = neighbour_shares(review.jumps, review.logs)
    assert shares["moments"].sum() == 152
    early = shares.set_index("part").loc["early"]
    assert early["jumps"] == pytest.approx(early["neighbours"], abs=0.1)
    assert early["neighbours"] > 0.6  # losses fall early, jump or no jump


def test_a_folder_without_the_files_is_named(tmp_path):
    with pytest.raises(InputError, match="all_jumps_detailed"):
        review_published_jumps(tmp_path)


def test_the_page_has_every_claim_with_its_status(review):
    page = (Path(__file__).parents[2] / "docs" / "dimensionality_jumps.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    for claim, status in review.claims[["claim", "status"]].to_numpy():
        mine = [row for row in rows if row.startswith(f"| {claim} |")]
        assert len(mine) == 1, claim
        assert mine[0].endswith(f"| {status} |")
