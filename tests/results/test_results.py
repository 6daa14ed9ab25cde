"""Tidy frames, and result files that give back exactly what was saved."""

import json
import os
import sys
import types
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from headspec.errors import CheckpointError, InputError
from headspec.head_tensors import HeadWeights, Rotary
from headspec.results import TIDY_COLUMNS, load, load_provenance, save, tidy
from headspec.results import files as result_files
from headspec.results.provenance import Provenance


@dataclass(frozen=True)
class Inner:
    label: str
    weights: torch.Tensor | None = None


@dataclass(frozen=True)
class Outcome:
    tensor: torch.Tensor | None
    array: np.ndarray
    inner: Inner | None = None
    pair: tuple = ()
    table: dict = field(default_factory=dict)
    value: float = 0.0
    doubled: float = field(init=False, default=0.0)

    def to_frame(self):
        return tidy([{"metric": "value", "value": self.value}])


@pytest.fixture(autouse=True)
def results_module(monkeypatch):
    """Puts the classes of this file where files may name them: inside headspec."""
    module = types.ModuleType("headspec.made_for_tests")
    for kind in (Inner, Outcome):
        monkeypatch.setattr(kind, "__module__", module.__name__)
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def same(a, b):
    """Equal in type, dtype, shape and every bit but the payload of NaN."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        return torch.equal(torch.nan_to_num(a, 7.5), torch.nan_to_num(b, 7.5)) and torch.equal(
            a.isnan(), b.isnan()
        )
    if isinstance(a, np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        return all(x is y or same(x, y) for x, y in zip(a.ravel(), b.ravel(), strict=True))
    if isinstance(a, Outcome | Inner | HeadWeights):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, complex | np.complexfloating):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, float | np.floating):
        return (a == b and np.signbit(a) == np.signbit(b)) or (a != a and b != b)
    return a == b


ROWS = [
    {"head": 0, "metric": "norm", "value": 0.1 + 0.2},
    {"head": 1, "metric": "norm", "value": float("nan"), "null_mean": float("inf"), "p": 0.5},
    {"metric": "silhouette", "value": -0.0, "n": 12, "seed": 3},
]
SUFFIXES = pytest.mark.parametrize("suffix", [".json", ".parquet"])


def outcome():
    weights = torch.tensor([[1.5, float("nan")], [float("-inf"), 1e-40]])
    return Outcome(
        tensor=weights.to(torch.float64) / 3,
        array=np.array([[np.nan, -0.0, np.inf]], dtype=np.float32),
        inner=Inner("heads 1–3 \u2028", weights),
        pair=(1, 2.5, None, (True, "x"), frozenset({3, 1})),
        table={
            "float('nan')": float("nan"),
            "scalar": np.float32(0.1),
            "complex": np.array([1 + 2j, complex("nan")]),
            "by step": {0: torch.arange(3), 512: torch.tensor(True)},
            "$tricky": {"$tuple": 1},
            "words": np.array(["a", "bcd"]),
            "things": np.array([None, "a", (1, 2)], dtype=object),
            "half": torch.tensor([0.1, 65504.0], dtype=torch.float16),
            "bf16": torch.tensor([0.1, 3e38, float("nan")], dtype=torch.bfloat16),
            "complex tensor": torch.tensor([1 + 2j]).conj(),
            "none": torch.empty(0, 3),
            "number": np.int64(2**62),
            "big": 10**30,
        },
        value=float("-inf"),
    )


# --- tidy frames -----------------------------------------------------------------------------


def test_tidy_has_the_columns_in_order_with_fixed_types():
    frame = tidy(ROWS, model="micro", step=512)
    assert tuple(frame.columns) == TIDY_COLUMNS
    assert frame["model"].tolist() == ["micro"] * 3
    for name in ("step", "layer", "head", "n", "seed"):
        assert frame[name].dtype == "Int64"
    for name in ("value", "null_mean", "null_sd", "p"):
        assert frame[name].dtype == np.float64
    assert frame["head"].isna().tolist() == [False, False, True]
    assert frame["layer"].isna().all()


def test_tidy_types_do_not_depend_on_what_is_missing():
    full = tidy({name: ["a"] if name in ("model", "metric") else [1] for name in TIDY_COLUMNS})
    assert (tidy([]).dtypes == full.dtypes).all()
    assert (tidy([{"metric": "a"}]).dtypes == full.dtypes).drop("model").all()


def test_tidy_takes_columns_of_tensors_and_repeats_single_values():
    frame = tidy(
        {"head": torch.arange(3), "value": torch.tensor([1.0, 2.0, 3.0]), "n": torch.tensor(7)},
        metric="norm",
    )
    assert frame["value"].tolist() == [1.0, 2.0, 3.0]
    assert frame["n"].tolist() == [7, 7, 7]
    assert tidy({"metric": "a", "value": 2.0})["value"].tolist() == [2.0]
    assert tidy([{"value": torch.tensor(2.5)}])["value"].tolist() == [2.5]


def test_rows_win_over_constants_and_extra_columns_follow():
    rows = [{"step": 8, "note": "x", "value": 1}, {"value": 2}]
    frame = tidy(rows, step=16, colour="red")
    assert frame["step"].tolist() == [8, 16]
    assert list(frame.columns) == [*TIDY_COLUMNS, "note", "colour"]
    again = tidy(frame)
    pd.testing.assert_frame_equal(again, frame)


def test_tidy_leaves_the_callers_frame_alone():
    mine = pd.DataFrame({"value": [1, 2]}, index=[5, 6])
    before = mine.copy()
    tidy(mine, step=3)
    pd.testing.assert_frame_equal(mine, before)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"step": 1.5}, r"whole numbers in the column 'step'; got \[1.5\]"),
        ({"value": "high"}, r"numbers in the column 'value'; got \['high'\]"),
    ],
)
def test_tidy_refuses_what_a_column_cannot_hold(row, message):
    with pytest.raises(InputError, match=message):
        tidy([row])


# --- round trips -----------------------------------------------------------------------------


@SUFFIXES
def test_frames_come_back_exactly(tmp_path, suffix):
    frame = tidy(ROWS, model="micro", step=512, note=["a", None][1])
    frame["kind"] = pd.Categorical(["b", "a", "b"], categories=["b", "a"])
    frame["flag"] = [True, False, True]
    path = save(frame, tmp_path / f"frame{suffix}")
    back = load(path)
    pd.testing.assert_frame_equal(back, frame, check_exact=True)
    assert np.signbit(back["value"].iloc[2])


@SUFFIXES
def test_selected_rows_keep_their_index(tmp_path, suffix):
    frame = tidy(ROWS)
    part = frame[frame["metric"] == "silhouette"]
    pd.testing.assert_frame_equal(load(save(part, tmp_path / f"a{suffix}")), part)


@SUFFIXES
def test_empty_frames_come_back(tmp_path, suffix):
    pd.testing.assert_frame_equal(load(save(tidy([]), tmp_path / f"a{suffix}")), tidy([]))


@SUFFIXES
def test_results_come_back_exactly(tmp_path, suffix):
    result = outcome()
    object.__setattr__(result, "doubled", 4.5)
    assert same(load(save(result, tmp_path / f"deep/er/result{suffix}")), result)


@SUFFIXES
def test_head_weights_come_back(tmp_path, suffix):
    generator = torch.Generator().manual_seed(0)
    shapes = {"W_Q": (4, 6, 2), "W_K": (2, 6, 2), "W_V": (2, 6, 2), "W_O": (4, 2, 6)}
    tensors = {k: torch.randn(s, generator=generator).half() for k, s in shapes.items()}
    weights = HeadWeights(**tensors, rotary=Rotary(2), model="micro", step=8, layer=1)
    back = load(save(weights, tmp_path / f"weights{suffix}"))
    assert same(back, weights)
    assert back.rotary == Rotary(2)


def test_a_comparison_that_would_miss_a_difference_does_not_pass():
    result = outcome()
    assert not same(result, replace(result, value=1.0))
    assert not same(torch.tensor([float("nan")]), torch.tensor([7.5]))


@settings(max_examples=60, deadline=None)
@given(
    arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.uint64, np.bool_]),
        array_shapes(min_dims=0, min_side=0, max_side=4),
    )
)
def test_any_array_and_tensor_comes_back(array):
    from headspec.results.encoding import decode, encode

    text = json.dumps(encode(array), allow_nan=False)
    assert same(decode(json.loads(text)), array)
    tensor = torch.from_numpy(array)
    assert same(decode(json.loads(json.dumps(encode(tensor), allow_nan=False))), tensor)


def test_parquet_is_a_table_for_other_tools(tmp_path):
    path = save(outcome(), tmp_path / "result.parquet")
    assert pd.read_parquet(path)["metric"].tolist() == ["value"]


def test_json_is_standard(tmp_path):
    path = save(outcome(), tmp_path / "result.json")

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    data = json.loads(path.read_text(), parse_constant=refuse)
    assert data["content"]["result"]["$class"]["fields"]["array"]["$array"]["shape"] == [1, 3]


# --- provenance ------------------------------------------------------------------------------


class StubSuite:
    name = "/home/someone/runs/tiny"

    def fingerprint(self, step):
        return f"sha256:{step}"


@SUFFIXES
@pytest.mark.parametrize("what", ["frame", "result"])
def test_provenance_travels_along(tmp_path, suffix, what):
    arguments = {"command": ["/usr/bin/x/study.py", "--out=/home/me/out"], "feature": "qk"}
    noted = Provenance.collect(
        StubSuite(), steps=(0, 8), seeds=0, processing="none", arguments=arguments
    )
    result = tidy(ROWS) if what == "frame" else outcome()
    path = save(result, tmp_path / f"a{suffix}", provenance=noted)
    assert load_provenance(path) == noted
    assert load_provenance(save(result, tmp_path / f"b{suffix}")) is None
    assert noted.suite == "tiny"
    assert noted.hashes == {0: "sha256:0", 8: "sha256:8"}
    assert noted.arguments == {"command": ["study.py", "--out=out"], "feature": "qk"}
    assert noted.seeds == (0,)


def test_provenance_names_versions_but_no_machine(tmp_path):
    noted = Provenance.collect(
        arguments={"a": Path.cwd() / "x.json", "b": str(tmp_path), "c": os.path.expanduser("~/a/b")}
    )
    text = repr(noted)
    assert {"headspec", "torch", "transformers", "transformer-lens"} <= set(noted.versions)
    for private in (os.uname().nodename, str(Path.cwd()), str(tmp_path), str(Path.home()) + "/"):
        assert private not in text
    assert noted.arguments["a"] == "x.json"
    assert noted.created.endswith("+00:00")


def test_provenance_keeps_what_only_looks_like_a_path():
    kept = {"hub": "EleutherAI/pythia-160m", "url": "https://example.org/a/b", "out": "out/x"}
    assert Provenance.collect(arguments=kept).arguments == kept


# --- what is refused, and damage -------------------------------------------------------------


def test_other_suffixes_are_refused(tmp_path):
    for call in (lambda p: save(tidy(ROWS), p), load, load_provenance):
        with pytest.raises(InputError, match=r"ending in \.json or \.parquet; got 'a\.csv'"):
            call(tmp_path / "a.csv")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.json, which cannot be read"):
        load(tmp_path / "nothing.json")


def test_only_frames_and_results_are_saved(tmp_path):
    with pytest.raises(InputError, match="got an object of type dict"):
        save({"a": 1}, tmp_path / "a.json")


@SUFFIXES
def test_a_field_of_another_kind_is_named(tmp_path, suffix):
    result = replace(outcome(), table={"where": [Path("x")]})
    with pytest.raises(InputError, match=r"result\.table\['where'\]\[0\] of type pathlib"):
        save(result, tmp_path / f"a{suffix}")
    assert not list(tmp_path.iterdir())


def test_columns_that_parquet_would_change_are_refused(tmp_path):
    frame = tidy(ROWS).assign(pair=[(1, 2), (3, 4), (5, 6)])
    with pytest.raises(InputError, match="Parquet gives back unchanged"):
        save(frame, tmp_path / "a.parquet")
    mixed = tidy(ROWS).assign(mixed=[1, "a", None])
    with pytest.raises(InputError, match="one kind each"):
        save(mixed, tmp_path / "a.parquet")
    for held in (frame, mixed):
        pd.testing.assert_frame_equal(load(save(held, tmp_path / "a.json")), held)


def test_classes_outside_headspec_are_never_written_nor_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Outcome, "__module__", "elsewhere")
    with pytest.raises(InputError, match="class elsewhere:Outcome"):
        save(outcome(), tmp_path / "a.json")
    monkeypatch.setattr(Outcome, "__module__", "headspec.made_for_tests")
    (tmp_path / "harm.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    path = save(outcome(), tmp_path / "a.json")
    for name in (
        "harm:X",
        "headspec.made_for_tests:types.SimpleNamespace",
        "headspec.results:Path",
        "headspec.results:save",
        "headspec.gone:Y",
        "headspecs:Z",
    ):
        content = json.loads(path.read_text())["content"]
        content["result"]["$class"]["name"] = name
        (tmp_path / "b.json").write_bytes(result_files.seal(content))
        with pytest.raises(CheckpointError, match=r"b\.json: the class"):
            load(tmp_path / "b.json")


def test_a_class_that_has_changed_is_said(tmp_path, results_module):
    path = save(outcome(), tmp_path / "a.json")
    results_module.Outcome = dataclass(frozen=True)(
        type(
            "Outcome",
            (),
            {"__annotations__": {"other": int}, "__module__": results_module.__name__},
        )
    )
    with pytest.raises(CheckpointError, match=r"Outcome does not take"):
        load(path)


@SUFFIXES
@pytest.mark.parametrize("what", ["frame", "result"])
def test_damage_is_noticed_or_harmless(tmp_path, suffix, what):
    """Every truncation and every flipped bit tried: an error that names the file, or no change."""
    result = tidy(ROWS, model="micro") if what == "frame" else outcome()
    path = save(result, tmp_path / f"a{suffix}")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    broken = [whole[:cut] for cut in rng.integers(0, len(whole) - 2, 20)]
    for place in rng.integers(0, len(whole), 150):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.integers(8)
        broken.append(bytes(flipped))
    noticed = unnoticed = 0
    for content in broken:
        path.write_bytes(content)
        try:
            back = load(path)
        except CheckpointError as error:
            noticed += path.name in str(error)
        else:
            unnoticed += 1
            if what == "frame":
                pd.testing.assert_frame_equal(back, result, check_exact=True)
            else:
                assert same(back, result)
    assert noticed + unnoticed == len(broken)
    assert noticed > 20


@SUFFIXES
def test_an_interrupted_save_leaves_the_old_file(tmp_path, suffix, monkeypatch):
    path = save(tidy(ROWS), tmp_path / f"a{suffix}")

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(KeyboardInterrupt):
        save(tidy([]), path)
    assert len(load(path)) == 3
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
