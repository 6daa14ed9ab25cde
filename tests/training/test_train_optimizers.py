"""Who trains what, and what an update of Muon does."""

from collections import Counter

import pytest
import torch
from tiny_training import MODEL
from torch import nn

from headspec import OptimizerConfig, build_mini_qwen
from headspec.training.optimizers import (
    build_optimizers,
    check_owners,
    set_rates,
    split_parameters,
)


def owners(optimizers):
    return Counter(id(p) for o in optimizers.values() for g in o.param_groups for p in g["params"])


@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_of_a_mini_qwen_has_one_owner(tied):
    from dataclasses import replace

    model = build_mini_qwen(replace(MODEL, tie_embeddings=tied))
    split = split_parameters(model)
    names = {name for name, _ in model.named_parameters()}
    assert {*split.muon} | {*split.adamw_decayed} | {*split.adamw} == names
    assert {name.split(".")[-2] for name in split.muon} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }
    heads = set() if tied else {"lm_head.weight"}
    assert set(split.adamw_decayed) == {"model.embed_tokens.weight"} | heads
    assert all(name.endswith("norm.weight") for name in split.adamw)
    optimizers = build_optimizers(model, OptimizerConfig())
    assert set(owners(optimizers).values()) == {1}
    assert sum(split.count(p) for p in (split.muon, split.adamw_decayed, split.adamw)) == sum(
        p.numel() for p in model.parameters()
    )


def test_the_summary_gives_counts_and_shares():
    text = split_parameters(build_mini_qwen(MODEL)).summary()
    hidden = 2 * (4 * 16 * 16 + 3 * 16 * 32)
    assert f"Muon: 14 hidden matrices, {hidden:,} numbers" in text
    assert "AdamW: 1 embeddings, unembedding, other arrays, 512 numbers" in text


def test_other_models_convolutions_frozen_parts_and_named_outsiders():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
    )
    model[2].bias.requires_grad_(False)
    split = split_parameters(model, not_hidden=("4",))
    assert split.muon == ("2.weight",)
    assert split.adamw_decayed == ("0.weight", "4.weight")
    assert split.frozen == ("2.bias",)
    optimizers = build_optimizers(model, OptimizerConfig(), split=split)
    assert set(owners(optimizers).values()) == {1}


def test_a_parameter_without_owner_or_with_two_is_noticed():
    model = nn.Linear(4, 4)
    one = torch.optim.SGD([model.weight], lr=0.1)
    with pytest.raises(AssertionError, match="no owner"):
        check_owners(model, {"a": one})
    both = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(AssertionError, match="two owners"):
        check_owners(model, {"a": one, "b": both})


def test_norms_and_biases_do_not_decay():
    model = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, 4))
    groups = build_optimizers(model, OptimizerConfig(adamw_weight_decay=0.3))["adamw"].param_groups
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]


def test_an_update_of_muon_is_a_step_in_spectral_norm():
    """All singular values of the update lie near the rate, whatever those of the gradient."""
    model = nn.Linear(24, 48, bias=False)
    before = model.weight.detach().clone()
    optimizers = build_optimizers(model, OptimizerConfig(muon_lr=0.02, muon_weight_decay=0.0))
    generator = torch.Generator().manual_seed(0)
    model.weight.grad = 1e-4 * torch.randn(48, 24, generator=generator)
    optimizers["muon"].step()
    update = torch.linalg.svdvals((model.weight.detach() - before).double())
    expected = 0.02 * 2**0.5  # sqrt(d_out / d_in)
    assert update.min() > 0.6 * expected
    assert update.max() < 1.3 * expected
    gradient = torch.linalg.svdvals(model.weight.grad.double())
    assert gradient.max() / gradient.min() > 3  # a plain step would keep this spread


def test_rates_are_shares_of_their_peaks_also_after_a_state_was_loaded():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4))
    config = OptimizerConfig(muon_lr=0.1, adamw_lr=0.2)
    optimizers = build_optimizers(model, config)
    assert set_rates(optimizers, 0.5) == {"muon": 0.05, "adamw": 0.1}
    again = build_optimizers(model, config)
    for name, optimizer in again.items():
        optimizer.load_state_dict(optimizers[name].state_dict())
    assert set_rates(again, 0.25) == {"muon": 0.025, "adamw": 0.05}
