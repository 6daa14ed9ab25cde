"""The three architectures: shapes, initial weights, activations by name, attention."""

import doctest

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from headspec import InputError, VisionConfig, build_vision_model
from headspec.training import idx_files, vision_config, vision_models, vision_stream

SMALL = {
    "transformer": {"width": 16, "depth": 2, "heads": 4},
    "cnn": {"width": 4},
    "mlp": {"width": 8},
}


def build(model, *, size=(8, 8), seed=0, **sizes):
    config = VisionConfig(model=model, seed=seed, **(SMALL[model] | sizes))
    return build_vision_model(config, image_size=size, n_classes=10)


def images_of(n=6, size=(8, 8)):
    return torch.randn(n, 1, *size, generator=torch.Generator().manual_seed(1))


def test_the_studys_sizes():
    """Its transformer has 1,199,370 parameters, its MLP 28,618 on 28 x 28 pixels."""
    whole = {
        name: build_vision_model(VisionConfig(model=name), image_size=(28, 28), n_classes=10)
        for name in SMALL
    }
    count = {name: sum(p.numel() for p in model.parameters()) for name, model in whole.items()}
    assert count["mlp"] == 28_618
    inner = [p.numel() for p in whole["transformer"].transformer["layers"].parameters()]
    assert sum(inner) == 6 * (4 * 128 * 128 + 4 * 128 + 2 * 128 * 512 + 512 + 128 + 4 * 128)
    assert len(whole["cnn"].layer_names) == len(whole["mlp"].layer_names) == 5
    assert whole["cnn"].layer_names == (*(f"conv_layers.{i}" for i in (0, 3, 6, 9)), "fc")
    assert whole["cnn"].first_filters().shape == (32, 5, 5)
    assert whole["transformer"].grid == (7, 7)
    assert "transformer.layers.5.linear2" in whole["transformer"].layer_names
    assert len(whole["transformer"].layer_names) == 2 + 6 * 3


@pytest.mark.parametrize("model", SMALL)
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (16, 8)])
def test_any_image_size(model, size):
    built = build(model, size=size)
    logits = built(images_of(size=size))
    assert logits.shape == (6, 10)
    logits.sum().backward()
    assert all(p.grad is not None for p in built.parameters())
    found = built.activations(images_of(size=size))
    assert tuple(found) == built.layer_names
    assert all(len(part) == 6 for part in found.values())
    assert torch.equal(found[built.layer_names[-1]], built(images_of(size=size)).detach())


@pytest.mark.parametrize("model", SMALL)
def test_initial_weights_follow_from_the_seed_alone(model):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = build(model, seed=1).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again, other = build(model, seed=1).state_dict(), build(model, seed=2).state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_activations_of_the_mlp_by_hand():
    model, x = build("mlp"), images_of()
    found = model.activations(x)
    hidden = x.flatten(1)
    for i in range(5):
        layer = model.get_submodule(f"network.{2 * i}")
        hidden = (hidden if i == 0 else hidden.relu()) @ layer.weight.T + layer.bias
        torch.testing.assert_close(found[f"network.{2 * i}"], hidden.detach())


def test_positions_are_averaged_or_samples_of_their_own():
    model, x = build("cnn"), images_of()
    raw = F.conv2d(x, model.conv_layers[0].weight, model.conv_layers[0].bias, padding=2).detach()
    torch.testing.assert_close(model.activations(x)["conv_layers.0"], raw.mean((2, 3)))
    rows = model.activations(x, samples="positions")["conv_layers.0"]
    assert rows.shape == (6 * 64, 4)
    torch.testing.assert_close(rows[64 * 2 + 8 * 3 + 5], raw[2, :, 3, 5])


def test_averaging_over_features_would_limit_dimensions_to_the_number_of_tokens():
    """What the study did for its transformer: a matrix of images by tokens, not by features."""
    model, x = build("transformer", width=64), images_of(200)
    found = model.activations(x, samples="positions")["transformer.layers.0.linear1"]
    naive = found.unflatten(0, (200, 17)).mean(2)
    assert naive.shape == (200, 17)  # no dimension above 17, whatever the layer
    assert torch.linalg.matrix_rank(model.activations(x)["transformer.layers.0.linear1"]) > 17


@pytest.mark.parametrize("model", SMALL)
def test_activations_leave_the_model_as_it_was(model):
    built = build(model).train()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    found = built.activations(images_of())
    assert all(not part.requires_grad for part in found.values())
    assert torch.equal(torch.get_rng_state(), state)
    assert built.training
    assert torch.is_grad_enabled()
    assert all(not module._forward_hooks for module in built.modules())
    with pytest.raises(RuntimeError):
        built.activations(torch.randn(2, 1, 3, 3))
    assert all(not module._forward_hooks for module in built.modules())


def test_attention_returned_and_fused_give_the_same():
    model, x = build("transformer"), images_of()
    patterns = model.attention_patterns(x)
    assert patterns.shape == (2, 6, 4, 17, 17)
    torch.testing.assert_close(patterns.sum(-1), torch.ones(2, 6, 4, 17))
    assert not patterns.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(model(x, []), model(x), rtol=1e-5, atol=1e-6)


def test_a_block_is_torchs_own_pre_norm_layer():
    """Oracle: nn.TransformerEncoderLayer(norm_first=True) with the same weights."""
    block = build("transformer").transformer["layers"][0]
    theirs = nn.TransformerEncoderLayer(16, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(block.qkv.weight)
        theirs.self_attn.in_proj_bias.copy_(block.qkv.bias)
        for mine, its in (
            (block.attn_out, theirs.self_attn.out_proj),
            (block.linear1, theirs.linear1),
            (block.linear2, theirs.linear2),
            (block.norm1, theirs.norm1),
            (block.norm2, theirs.norm2),
        ):
            its.load_state_dict(mine.state_dict())
        x = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(block(x), theirs.train()(x), rtol=1e-5, atol=1e-6)
        _, pattern = theirs.self_attn(
            *[theirs.norm1(x)] * 3, need_weights=True, average_attn_weights=False
        )
        kept = []
        block(x, kept)
        torch.testing.assert_close(kept[0], pattern, rtol=1e-5, atol=1e-6)


def test_patches_are_read_row_by_row():
    model = build("transformer", width=4, heads=1)
    image = torch.arange(64.0).reshape(1, 1, 8, 8)
    with torch.no_grad():
        model.input_proj.weight.copy_(torch.eye(4))
        model.input_proj.bias.zero_()
    found = model.activations(image, samples="positions")["input_proj"]
    assert found[0].tolist() == [0, 1, 8, 9]
    assert found[1].tolist() == [2, 3, 10, 11]
    assert found[4].tolist() == [16, 17, 24, 25]


def test_what_does_not_fit_is_said():
    with pytest.raises(InputError, match="patches of 4 pixels a side; got 30 x 30"):
        build("transformer", size=(30, 30))
    assert build("transformer", size=(30, 30), patch=5).grid == (6, 6)
    with pytest.raises(InputError, match=r"VisionConfig\.heads to be a divisor of the width 16"):
        build("transformer", heads=3)
    with pytest.raises(InputError, match="model as one of"):
        VisionConfig.from_dict({"model": "rnn"})
    with pytest.raises(InputError, match=r"VisionConfig\.measured_images to be 2 or more"):
        VisionConfig(measured_images=1)
    with pytest.raises(InputError, match="checkpoints between 0 and steps"):
        VisionConfig(steps=10, checkpoints=(11,))


def test_configs_survive_toml(tmp_path):
    config = VisionConfig(model="cnn", width=8, checkpoints=(3, 5), steps=9, measured_images=64)
    for name in ("c.toml", "c.json"):
        config.to_file(tmp_path / name)
        assert VisionConfig.from_file(tmp_path / name) == config
    assert config.n_measured == 64
    assert VisionConfig(batch_size=32).n_measured == 32
    assert VisionConfig(batch_size=64, measure_every=10).n_measured == 128


@pytest.mark.parametrize("module", [idx_files, vision_config, vision_models, vision_stream])
def test_examples_run(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("model", SMALL)
def test_a_device_gives_the_same(model):
    built, x = build(model), images_of(64)
    here = built.activations(x)
    there = built.to("cuda").activations(x.to("cuda"))
    for name, part in here.items():
        np.testing.assert_allclose(there[name].cpu(), part, rtol=2e-2, atol=2e-3)
