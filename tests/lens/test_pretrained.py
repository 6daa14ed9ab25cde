"""Loading Hugging Face models: folders of steps, a Hub cache, and what goes wrong."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from zoo import save_tiny, tiny_model, tiny_tokenizer

from headspec.errors import (
    CheckpointError,
    HubUnreachableError,
    StepNotFoundError,
    UnsupportedArchitectureError,
)
from headspec.lens.pretrained import load_pretrained


def weights_of(model) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> Path:
    """Steps 0 and 8 of one model (other weights each), the second as the Trainer names it."""
    folder = tmp_path_factory.mktemp("suite")
    save_tiny("gpt_neox", folder / "step0", seed=1)
    save_tiny("gpt_neox", folder / "checkpoint-8", seed=2)
    return folder


def hub_cache(folder: Path, name: str, revisions: dict[str, Path]) -> Path:
    """A cache as the Hub's client writes it, with one snapshot for each revision."""
    repository = folder / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    for number, (revision, source) in enumerate(revisions.items()):
        commit = f"{number:040x}"
        shutil.copytree(source, repository / "snapshots" / commit)
        (repository / "refs" / revision).write_text(commit)
    return folder


@pytest.mark.parametrize(("step", "seed"), [(0, 1), (8, 2)])
def test_steps_of_a_folder(suite, step, seed):
    model, tokenizer = load_pretrained(str(suite), step=step)
    assert torch.equal(weights_of(model), weights_of(tiny_model("gpt_neox", seed=seed)))
    assert tokenizer("w5 w9")["input_ids"] == [5, 9]


def test_a_missing_step_names_those_there_are(suite):
    with pytest.raises(StepNotFoundError, match=r"step4 or checkpoint-4.*got steps 0, 8"):
        load_pretrained(str(suite), step=4)


@pytest.mark.parametrize(
    ("name", "revision"),
    [("someone/pythia-tiny", "step8"), ("stanford-crfm/alias-gpt2-tiny", "checkpoint-8")],
)
def test_steps_are_revisions_on_the_hub(suite, tmp_path, name, revision):
    cache = hub_cache(tmp_path, name, {"main": suite / "step0", revision: suite / "checkpoint-8"})
    model, tokenizer = load_pretrained(name, step=8, cache_dir=str(cache), offline=True)
    assert torch.equal(weights_of(model), weights_of(tiny_model("gpt_neox", seed=2)))
    assert tokenizer is not None
    model, _ = load_pretrained(name, cache_dir=str(cache), offline=True)
    assert torch.equal(weights_of(model), weights_of(tiny_model("gpt_neox", seed=1)))


def test_offline_without_cache_says_what_is_missing(tmp_path):
    with pytest.raises(HubUnreachableError, match=r"someone/absent at revision step3"):
        load_pretrained("someone/absent", step=3, cache_dir=str(tmp_path), offline=True)


def test_a_missing_tensor_is_an_error_and_not_random(suite, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(suite / "step0", folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["gpt_neox.layers.1.attention.dense.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 missing.*layers\.1\.attention\.dense\.weight"):
        load_pretrained(str(folder))


def test_a_folder_without_weights(suite, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    with pytest.raises(CheckpointError, match=r"config.json and weights of a model"):
        load_pretrained(str(folder))
    shutil.copy(suite / "step0" / "config.json", folder)
    with pytest.raises(CheckpointError, match=r"as save_pretrained writes it"):
        load_pretrained(str(folder))


def test_a_folder_without_tokenizer(tmp_path):
    tiny_model("llama").save_pretrained(tmp_path)
    model, tokenizer = load_pretrained(str(tmp_path))
    assert tokenizer is None
    assert type(model).__name__ == "LlamaForCausalLM"


def test_masked_language_models(tmp_path):
    model, _ = load_pretrained(str(save_tiny("bert", tmp_path)))
    assert type(model).__name__ == "BertForMaskedLM"


def test_models_without_a_language_model_head(tmp_path):
    tiny_model("bert").bert.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedArchitectureError, match=r"'BertModel'.*AutoModel"):
        load_pretrained(str(tmp_path))


def test_the_stored_dtype_does_not_decide(tmp_path):
    """Published Pythia weights are float16; the default is float32 all the same."""
    save_tiny("gpt_neox", tmp_path)
    tensors = {k: v.half() for k, v in load_file(tmp_path / "model.safetensors").items()}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "dtype": "float16"}))
    model, _ = load_pretrained(str(tmp_path))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    model, _ = load_pretrained(str(tmp_path), dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_the_tokenizer_of_the_zoo_is_word_level():
    assert tiny_tokenizer().decode([3, 4]) == "w3 w4"
