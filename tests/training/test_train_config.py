"""Configs: files and back, and errors that name the field."""

from dataclasses import FrozenInstanceError, replace

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_training import MODEL

from headspec import InputError, OptimizerConfig, TrainConfig
from headspec.training.config_files import differing_fields

CONFIG = TrainConfig(model=MODEL, data="tokens", steps=100, batch_size=8)

optimizers = st.fixed_dictionaries(
    {
        "muon_lr": st.floats(1e-9, 1e3) | st.integers(1, 5),
        "adamw_betas": st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
        "muon_scale": st.sampled_from(["original", "match_rms_adamw"]),
    }
)
fields = st.fixed_dictionaries(
    {
        "data": st.text(min_size=1).filter(lambda text: text.isprintable()),
        "steps": st.integers(10, 10**6),
        "batch_size": st.sampled_from([8, 64]),
        "ordering": st.sampled_from(["shuffled", "topic_ordered"]),
        "seed": st.integers(0, 2**31),
        "data_seed": st.none() | st.integers(0, 2**31),
        "accumulation": st.sampled_from([1, 2, 8]),
        "warmup": st.integers(0, 9) | st.floats(0, 0.9),
        "clip": st.floats(0, 100) | st.integers(0, 3),
        "checkpoints": st.integers(2, 40) | st.lists(st.integers(0, 10), max_size=4).map(tuple),
        "initial": st.none() | st.just("runs/a/step10"),
        "drop_rope": st.booleans() | st.sampled_from([(0,), (0, 1)]),
    }
)


@settings(max_examples=40)
@given(fields, optimizers)
def test_dictionaries_and_files_give_the_config_back(tmp_path_factory, fields, optimizer):
    config = TrainConfig(model=MODEL, optimizer=OptimizerConfig(**optimizer), **fields)
    assert TrainConfig.from_dict(config.to_dict()) == config
    folder = tmp_path_factory.mktemp("config")
    for name in ("run.toml", "run.json"):
        config.to_file(folder / name)
        back = TrainConfig.from_file(folder / name)
        assert back == config
        assert type(back.warmup) is type(config.warmup)  # 1 is a number of updates, 1.0 a share


def write(tmp_path, **changes):
    data = CONFIG.to_dict()
    for key, value in changes.items():
        *tables, name = key.split("__")
        table = data
        for part in tables:
            table = table[part]
        table[name] = value
    path = tmp_path / "run.toml"
    path.write_text(tomli_w.dumps(data))
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stepz": 3}, "unknown stepz"),
        ({"optimizer__mu_lr": 0.1}, "unknown optimizer.mu_lr"),
        ({"steps": "many"}, "steps as a whole number; got 'many'"),
        ({"steps": True}, "steps as a whole number; got True"),
        ({"steps": 10.0}, "steps as a whole number; got 10.0"),
        ({"optimizer__muon_lr": "fast"}, "optimizer.muon_lr as a number"),
        ({"model__n_layers": "two"}, "model.n_layers as a whole number"),
        ({"precision": "fp16"}, "precision as one of 'bf16', 'fp32'; got 'fp16'"),
        ({"ordering": "sorted"}, "ordering as one of"),
        ({"drop_rope": "yes"}, "drop_rope as true or false or a list of a whole number"),
        ({"steps": 0}, "TrainConfig.steps to be a whole number from 1; got 0"),
        ({"batch_size": -8}, "TrainConfig.batch_size"),
        ({"accumulation": 3}, "TrainConfig.accumulation to be a divisor of batch_size = 8"),
        ({"clip": -1.0}, "TrainConfig.clip"),
        ({"clip": float("inf")}, "TrainConfig.clip"),
        ({"warmup": 100}, "TrainConfig.warmup to be less than the 100 steps"),
        ({"warmup": 1.0}, "TrainConfig.warmup to be less than the 100 steps"),
        ({"data": ""}, "TrainConfig.data"),
        ({"drop_rope": [7]}, "TrainConfig.drop_rope to be layers from 0 to 1"),
        ({"checkpoints": 1}, "2 checkpoints or more"),
        ({"checkpoints": [200]}, "checkpoints between 0 and steps = 100; got 200"),
        ({"optimizer__muon_lr": 0.0}, "OptimizerConfig.muon_lr to be a positive number"),
        ({"optimizer__adamw_lr": float("nan")}, "OptimizerConfig.adamw_lr"),
        ({"optimizer__muon_momentum": 1.0}, "OptimizerConfig.muon_momentum"),
        ({"optimizer__adamw_betas": [0.9]}, "optimizer.adamw_betas as a list of a number"),
        ({"optimizer__adamw_betas": [0.9, 1.5]}, "OptimizerConfig.adamw_betas"),
        ({"optimizer__final": 2.0}, "OptimizerConfig.final"),
        ({"model__n_heads": -2}, "n_heads"),
        ({"optimizer": 3}, "expected optimizer as a table"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, change, words):
    with pytest.raises(InputError) as caught:
        TrainConfig.from_file(write(tmp_path, **change))
    assert words.split(";")[0] in str(caught.value)


def test_values_of_a_wrong_type_are_named_in_python_too():
    with pytest.raises(Exception, match="steps"):  # the shape checker of tests is first, here
        TrainConfig(model=MODEL, data="tokens", steps="10")  # pyright: ignore[reportArgumentType]


def test_missing_fields_and_files_are_named(tmp_path):
    with pytest.raises(InputError, match="a value for data, steps"):
        TrainConfig.from_dict({"model": MODEL.to_dict()})
    with pytest.raises(InputError, match=r"gone\.toml"):
        TrainConfig.from_file(tmp_path / "gone.toml")
    (tmp_path / "broken.toml").write_text("steps = = 3")
    with pytest.raises(InputError, match="TOMLDecodeError"):
        TrainConfig.from_file(tmp_path / "broken.toml")
    with pytest.raises(InputError, match=r"ends in \.toml or \.json"):
        CONFIG.to_file(tmp_path / "run.yaml")


def test_configs_are_frozen_and_differences_are_named():
    with pytest.raises(FrozenInstanceError):
        CONFIG.steps = 3  # pyright: ignore[reportAttributeAccessIssue]
    other = replace(CONFIG, steps=50, optimizer=OptimizerConfig(muon_lr=0.1))
    found = differing_fields(CONFIG, other)
    assert found == {"steps": (100, 50), "optimizer.muon_lr": (0.02, 0.1)}
    assert differing_fields(CONFIG, replace(CONFIG)) == {}
