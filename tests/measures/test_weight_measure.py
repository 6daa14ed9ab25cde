"""Statistics of all matrices of a checkpoint: against NumPy, shared values, options, errors."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from zoo import save_tiny, tiny_model

import headspec as hs
from headspec.errors import InputError
from headspec.measures import weight_statistics
from headspec.measures.weight_statistics import WeightMeasure
from headspec.weights import singular_values as svd


@pytest.fixture(scope="module")
def suite():
    return hs.open_suite("micro-tiny")


@pytest.fixture(scope="module")
def frame(suite):
    return WeightMeasure()(suite.checkpoint(6144, previous=suite.checkpoint(4096)))


def value(frame, metric, *, layer=None, head=None):
    rows = frame[frame["metric"] == metric]
    for name, wanted in (("layer", layer), ("head", head)):
        rows = rows[rows[name].isna() if wanted is None else (rows[name] == wanted).fillna(False)]
    assert len(rows) == 1
    return rows["value"].iloc[0]


def test_every_matrix_of_every_layer_and_the_embeddings(frame, suite):
    whole = frame[frame["head"].isna()]
    found = set(zip(whole["matrix"], whole["layer"].fillna(-1), strict=True))
    inside = {(m, x) for m in ("q", "k", "v", "o", "mlp_in", "mlp_out") for x in (0, 1)}
    assert found == inside | {("embed", -1), ("unembed", -1)}
    assert set(frame["model"]) == {"micro-tiny"}
    assert set(frame["step"]) == {6144}
    assert (frame["metric"] == frame["matrix"] + "." + frame["statistic"]).all()
    keys = ["layer", "head", "metric", "rank"]
    assert not frame.duplicated(keys).any()


def test_numbers_are_those_of_numpy_on_split_matrices(frame, suite):
    """Q is not the first third of the fused matrix, and has other statistics than all of it."""
    for name in ("q", "v", "mlp_out"):
        matrix = suite.layer_matrices(6144, 1)[name].double().numpy()
        s = np.linalg.svd(matrix, compute_uv=False)
        p = s / s.sum()
        expected = {
            "spectral_norm": s[0],
            "frobenius_norm": np.linalg.norm(matrix),
            "stable_rank": (s**2).sum() / s[0] ** 2,
            "effective_rank": np.exp(-(p * np.log(p)).sum()),
            "top_10_variance": (s[:10] ** 2).sum() / (s**2).sum(),
        }
        for statistic, number in expected.items():
            assert value(frame, f"{name}.{statistic}", layer=1) == pytest.approx(number, rel=1e-9)
    (fused,) = suite.matrices(6144, "*layers.1*query_key_value.weight").values()
    whole = np.linalg.svd(fused.double().numpy(), compute_uv=False)
    assert value(frame, "q.spectral_norm", layer=1) != pytest.approx(whole[0], rel=0.01)


def test_heads_are_circuits(frame, suite):
    heads = suite.head_weights(6144, 0)
    product = (heads.W_V[3] @ heads.W_O[3]).double()
    s = torch.linalg.svdvals(product)
    assert value(frame, "ov.spectral_norm", layer=0, head=3) == pytest.approx(float(s[0]), rel=1e-3)
    assert set(frame.loc[frame["matrix"] == "qk", "head"]) == set(range(6))
    assert set(frame.loc[frame["matrix"] == "qk", "n"]) == {heads.d_head}


def test_change_since_the_step_before(frame, suite):
    new, old = (suite.layer_matrices(step, 0)["o"].double() for step in (6144, 4096))
    expected = float((new - old).norm() / old.norm())
    assert value(frame, "o.relative_change", layer=0) == pytest.approx(expected)
    cosine = float((new * old).sum() / new.norm() / old.norm())
    assert value(frame, "o.cosine", layer=0) == pytest.approx(cosine)
    alone = WeightMeasure()(suite.checkpoint(6144))
    assert "cosine" not in set(alone["statistic"])


def test_singular_values_at_log_spaced_ranks(frame, suite):
    rows = frame[(frame["metric"] == "q.singular_value") & (frame["layer"] == 0)]
    s = torch.linalg.svdvals(suite.layer_matrices(6144, 0)["q"].double()).numpy()
    ranks = rows["rank"].to_numpy(int)
    assert rows["value"].to_numpy(float) == pytest.approx(s[ranks - 1], rel=1e-6)
    assert (ranks[0], ranks[-1]) == (1, len(s))
    assert 16 <= len(ranks) <= 32
    assert frame.loc[frame["statistic"] != "singular_value", "rank"].isna().to_numpy().all()


def test_each_matrix_is_decomposed_once(suite, monkeypatch):
    calls = []

    def counted(matrix):
        calls.append(tuple(matrix.shape))
        return svd.singular_values(matrix)

    monkeypatch.setattr(weight_statistics, "singular_values", counted)
    monkeypatch.setattr(torch.linalg, "svd", None)
    WeightMeasure(per_head=False)(suite.checkpoint(512))
    assert len(calls) == 6 * suite.n_layers + 2


def test_options(suite):
    one = suite.checkpoint(0)
    small = WeightMeasure(
        matrices=("q", "embed"), layers=(1,), per_head=False, spectra=False, power_law=False
    )(one)
    assert set(small["matrix"]) == {"q", "embed"}
    assert set(small["layer"].dropna()) == {1}
    assert {"alpha", "mp_spikes", "singular_value"} & set(small["statistic"]) == set()
    heads = WeightMeasure(matrices=(), spectra=False)(one)
    assert set(heads["matrix"]) == {"qk", "ov"}


def test_a_tied_unembedding_counts_once(tmp_path):
    save_tiny("gpt2", tmp_path / "step0")
    frame = WeightMeasure(per_head=False)(hs.open_suite(tmp_path).checkpoint(0))
    assert "unembed" not in set(frame["matrix"])
    assert {"embed", "mlp_in"} <= set(frame["matrix"])


def test_a_base_model_has_no_unembedding(tmp_path):
    tiny_model("gpt_neox").base_model.save_pretrained(tmp_path / "step0")
    suite = hs.open_suite(tmp_path)
    assert list(suite.embedding_matrices(0)) == ["embed"]
    frame = WeightMeasure(per_head=False)(suite.checkpoint(0))
    assert {"embed", "mlp_in"} <= set(frame["matrix"])
    assert "unembed" not in set(frame["matrix"])
    with pytest.raises(InputError, match="unembed only where it is not tied"):
        WeightMeasure(matrices=("unembed",), per_head=False)(suite.checkpoint(0))


def test_gated_mlps_and_grouped_heads(tmp_path):
    save_tiny("qwen3", tmp_path / "step0")
    frame = WeightMeasure()(hs.open_suite(tmp_path).checkpoint(0))
    assert "mlp_gate" in set(frame["matrix"])
    assert set(frame.loc[frame["matrix"] == "ov", "head"]) == set(range(4))  # query heads


def test_it_goes_through_a_sweep(suite, tmp_path):
    measure = WeightMeasure(matrices=("o",), per_head=False, spectra=False)
    suite.verify(steps=[0, 512, 6144])
    frame = hs.sweep(suite, measure, steps=[0, 512, 6144], out=tmp_path, progress=False)
    assert sorted(frame.loc[frame["metric"] == "o.cosine", "step"].unique()) == [512, 6144]
    assert pickle.loads(pickle.dumps(measure)) == measure


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"matrices": ("qkv",)}, "matrices out of q, k"),
        ({"matrices": ("q", "q")}, "tuple"),
        ({"layers": (1, 1)}, "tuple"),
        ({"matrices": ("mlp_gate",), "per_head": False}, "gated"),
    ],
)
def test_errors_say_what_to_do(suite, options, message):
    with pytest.raises(InputError, match=message):
        WeightMeasure(**options)(suite.checkpoint(0))


def test_half_precision_is_computed_in_double(suite):
    """The shipped weights are float16; their squares would underflow."""
    matrix = suite.layer_matrices(0, 0)["q"]
    assert matrix.dtype == torch.float16
    measured = WeightMeasure(matrices=("q",), layers=(0,), per_head=False)(suite.checkpoint(0))
    exact = float(matrix.double().norm())
    assert value(measured, "q.frobenius_norm", layer=0) == pytest.approx(exact, rel=1e-12)


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        WeightMeasure().layers = (0,)  # pyright: ignore[reportAttributeAccessIssue]
