"""Attribution: by hand, by plain autograd, complete over layers, and checked against patching."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
import torch
from micro_model import L1H1, NUMBER, micro_features, micro_hf_model
from scipy import stats as scipy_stats
from torch import Tensor
from zoo import random_tokens, tiny_model

from headspec import attribute_heads, patch_heads, results
from headspec.errors import InputError
from headspec.heads import Head
from headspec.interventions.gradients import example_of_row
from headspec.lens.logits import LogitRead
from headspec.lens.models import wrap_model

pytestmark = pytest.mark.models

HAS_HOOKED_TRANSFORMER = version("transformer-lens").startswith("3.")
CLASSES = ("bridge", "hooked_transformer") if HAS_HOOKED_TRANSFORMER else ("bridge",)
SITES = ("z", "q", "k", "v", "pattern", "mlp_out", "resid_pre")


@dataclass
class Answer:
    """The logit of one token at the last position, minus that of another."""

    token: int = 5
    other: int = 9
    name: str = "logit_difference"
    unit: str = "nats"

    def read(self, tokens: Tensor) -> LogitRead:
        last = torch.full((len(tokens), 1), tokens.shape[1] - 1)
        columns = torch.tensor([[[self.token, self.other]]]).expand(len(tokens), 1, 2)
        return LogitRead(last, columns)

    def __call__(self, logits: Tensor) -> Tensor:
        return logits[:, 0, 0] - logits[:, 0, 1]


class TwoRows(Answer):
    """An example is two rows, `batch / 2` apart: the first minus twice the second."""

    def __call__(self, logits: Tensor) -> Tensor:
        first, second = super().__call__(logits).chunk(2)
        return first - 2 * second


def prompts(n: int = 4, *, seed: int = 0, length: int = 8) -> tuple[Tensor, Tensor]:
    clean = random_tokens(n, length, seed=seed)
    corrupt = clean.clone()
    corrupt[:, 3] = 2 + (clean[:, 3] + 11) % 59
    return clean, corrupt


def model_of(name: str = "gpt_neox", *, model_class: Any = "bridge", **overrides: Any) -> Any:
    return wrap_model(tiny_model(name, **overrides), model_class=model_class, name=name, step=7)


def by_plain_autograd(
    model: Any, clean: Tensor, corrupt: Tensor, *, site: str, layer: int, shares: list[float]
) -> Tensor:
    """(clean - corrupt) x mean gradient, `batch pos head`, by transformer-lens hooks alone."""
    name = f"blocks.{layer}.attn.hook_{site}"
    with torch.no_grad():
        one, other = (model.run_with_cache(tokens)[1][name] for tokens in (clean, corrupt))
    total = torch.zeros_like(one)
    for share in shares:
        point = (other + share * (one - other)).detach().requires_grad_()
        hooks = [(name, lambda activation, hook=None, point=point: point)]
        logits = model.run_with_hooks(corrupt, fwd_hooks=hooks)[:, -1]
        (gradient,) = torch.autograd.grad((logits[:, 5] - logits[:, 9]).sum(), point)
        total += gradient / len(shares)
    product = (one - other) * total
    return product.sum(-1) if site != "pattern" else product.sum(-1).transpose(1, 2)


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("name", ["gpt_neox", "qwen3"])
@pytest.mark.parametrize("site", ["z", "k", "pattern"])
def test_both_methods_equal_plain_autograd(name, site, model_class):
    model, (clean, corrupt) = model_of(name, model_class=model_class), prompts()
    runs = {"gradient": [0.0], "integrated_gradients": [0.125, 0.375, 0.625, 0.875]}
    for method, shares in runs.items():
        found = attribute_heads(
            model, clean, corrupt, Answer(), site=site, method=method, n_steps=4
        )
        for layer in range(2):
            expected = by_plain_autograd(
                model, clean, corrupt, site=site, layer=layer, shares=shares
            ).sum(1)
            np.testing.assert_allclose(found.per_example[layer], expected.T, atol=2e-5)
        assert np.abs(found.effect).max() > 1e-3


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("name", ["gpt_neox", "qwen3"])
@pytest.mark.parametrize("site", SITES)
def test_integrated_gradients_are_complete(name, site, model_class):
    """Attributions of a layer sum to what patching it whole does; plain gradients do not."""
    model, (clean, corrupt) = model_of(name, model_class=model_class), prompts(2)
    found = attribute_heads(model, clean, corrupt, Answer(), site=site)
    assert found.completeness_error.max() < 1e-2
    heads = found.per_example if site in ("mlp_out", "resid_pre") else found.per_example.sum(1)
    if site in ("mlp_out", "resid_pre"):
        whole = patch_heads(model, clean, corrupt, Answer(), site=site).per_example
    else:
        sets = [[Head(layer, head) for head in range(found.effect.shape[1])] for layer in (0, 1)]
        whole = patch_heads(model, clean, corrupt, Answer(), site=site, heads=sets).per_example
    np.testing.assert_allclose(heads, whole, atol=2e-2)
    np.testing.assert_allclose(found.layer_effects, whole, atol=1e-5)
    plain = attribute_heads(model, clean, corrupt, Answer(), site=site, method="gradient")
    assert plain.completeness_error.max() > 10 * found.completeness_error.max()


def test_more_steps_lower_the_error():
    model, (clean, corrupt) = model_of("qwen3"), prompts()
    errors = [
        attribute_heads(model, clean, corrupt, Answer(), n_steps=n_steps).completeness_error.max()
        for n_steps in (1, 4, 16)
    ]
    assert errors[0] > 4 * errors[1] > 16 * errors[2]


def test_linear_downstream_makes_gradients_exact():
    """Micro model, layer 1: what heads write goes to the logits as it is."""
    model = wrap_model(micro_hf_model())
    clean, corrupt = torch.tensor([[1, 6, 2], [3, 5, 1]]), torch.tensor([[1, 2, 2], [3, 4, 1]])

    def metric(logits: Tensor) -> Tensor:
        return logits[:, -1, L1H1] + 3 * logits[:, -1, L1H1 - 1]

    for method in ("gradient", "integrated_gradients"):
        found = attribute_heads(
            model, clean, corrupt, metric, method=method, layers=[1], check_sample=3
        )
        exact = patch_heads(model, clean, corrupt, metric, layers=[1])
        np.testing.assert_allclose(found.per_example[1], exact.per_example[1], rtol=1e-3)
        assert found.slope == pytest.approx(1, abs=1e-3)
        assert np.isnan(found.per_example[0]).all()
        assert np.isnan(found.rank_correlation)  # two rows


def test_by_hand():
    """Head L0H0 moves the attention of L1H1: its gradient is a derivative, not the effect."""
    model = wrap_model(micro_hf_model())
    clean, corrupt = torch.tensor([[1, 6, 2]]), torch.tensor([[1, 2, 2]])

    def metric(logits: Tensor) -> Tensor:
        return logits[:, -1, L1H1]

    # L0H0 is the running mean: clean 1, 3.5, 3; corrupt 1, 1.5, 5/3
    def output(share: float) -> float:
        old, new = [1, 1.5, 5 / 3], [1, 3.5, 3]
        mixed = [a + share * (b - a) for a, b in zip(old, new, strict=True)]
        return micro_features([1, 2, 2], written={"L0H0": mixed})[-1][L1H1]

    derivative = (output(1e-6) - output(-1e-6)) / 2e-6
    gradient = attribute_heads(model, clean, corrupt, metric, method="gradient")
    assert gradient.effect[0, 0] == pytest.approx(derivative, rel=1e-3)
    assert gradient.exact[0, 0] == pytest.approx(output(1) - output(0), rel=1e-3)
    assert abs(derivative - (output(1) - output(0))) > 0.05  # the two differ
    integrated = attribute_heads(model, clean, corrupt, metric, n_steps=32)
    assert integrated.effect[0, 0] == pytest.approx(output(1) - output(0), rel=1e-3)
    nothing = [gradient.effect[0, 1], integrated.effect[0, 1], integrated.effect[1, 0]]
    assert nothing == pytest.approx([0, 0, 0], abs=1e-6)  # no one reads L0H1, nor L1H0
    assert NUMBER == 0


def test_a_screen_that_works_on_one_model_fails_on_another():
    """Pitfall 33: gradients rank heads of a random GPT-NeoX well and those of a Qwen3 badly."""
    clean, corrupt = prompts(6)
    found = {
        (name, method): attribute_heads(
            model_of(name, num_hidden_layers=4), clean, corrupt, Answer(), method=method
        )
        for name in ("gpt_neox", "qwen3")
        for method in ("gradient", "integrated_gradients")
    }
    assert found["gpt_neox", "gradient"].rank_correlation > 0.98
    assert found["qwen3", "gradient"].rank_correlation < 0.8
    for name in ("gpt_neox", "qwen3"):  # reported, whatever it is
        one = found[name, "integrated_gradients"]
        assert one.rank_correlation > found["qwen3", "gradient"].rank_correlation
        assert f"rank correlation with exact patching {one.rank_correlation:.2f}" in one.summary()
    assert "WARNING: that is low" in found["qwen3", "gradient"].summary()
    assert "WARNING" not in found["gpt_neox", "gradient"].summary()


def test_the_check_is_exact_patching():
    model, (clean, corrupt) = model_of("qwen3", num_hidden_layers=4), prompts()
    exact = patch_heads(model, clean, corrupt, Answer())
    found = attribute_heads(model, clean, corrupt, Answer(), method="gradient")
    assert found.checked == tuple(range(16))
    np.testing.assert_allclose(found.exact, exact.values, atol=1e-5)
    spearman = scipy_stats.spearmanr(found.effect.ravel(), exact.effect.ravel()).statistic
    assert found.rank_correlation == pytest.approx(spearman)
    pearson = np.corrcoef(found.effect.ravel(), exact.effect.ravel())[0, 1]
    assert found.pearson == pytest.approx(pearson, abs=1e-4)
    sample = attribute_heads(
        model, clean, corrupt, Answer(), method="gradient", check_sample=6, seed=3
    )
    assert len(sample.checked) == 6
    unchecked = [row for row in range(16) if row not in sample.checked]
    assert np.isnan(sample.exact[unchecked]).all()
    np.testing.assert_allclose(
        sample.exact[list(sample.checked)], exact.values[list(sample.checked)], atol=1e-5
    )
    np.testing.assert_array_equal(sample.effect, found.effect)
    again = attribute_heads(
        model, clean, corrupt, Answer(), method="gradient", check_sample=6, seed=3
    )
    assert again.checked == sample.checked
    many = model_of(num_hidden_layers=4, num_attention_heads=16)
    assert len(attribute_heads(many, clean, corrupt, Answer(), method="gradient").checked) == 24


def test_attributions_that_say_nothing_are_uncorrelated():
    """Negative control: labels of heads shuffled, the rank correlation falls to chance."""
    model, (clean, corrupt) = model_of(num_hidden_layers=4, num_attention_heads=8), prompts()
    found = attribute_heads(model, clean, corrupt, Answer(), method="gradient")
    order = np.random.default_rng(0).permutation(32)
    shuffled = scipy_stats.spearmanr(found.effect.ravel()[order], found.exact.mean(1)).statistic
    assert found.rank_correlation > 0.9
    assert abs(shuffled) < 0.45


def test_positions():
    model, (clean, corrupt) = model_of("qwen3"), prompts()
    every = attribute_heads(model, clean, corrupt, Answer(), n_steps=4)
    each = attribute_heads(model, clean, corrupt, Answer(), n_steps=4, positions="each")
    assert each.effect.shape == (8, 2, 4)
    np.testing.assert_allclose(each.effect.sum(0), every.effect, atol=1e-6)
    np.testing.assert_array_equal(each.effect[:3], 0)  # before the prompts differ
    # rows before the prompts differ agree at 0 whatever the method: they say nothing about it
    assert each.checked == tuple(range(24, 64))  # all 40 that can change
    estimated, exact = each.effect.ravel(), each.exact.mean(1)
    rows = list(each.checked)
    spearman = scipy_stats.spearmanr(estimated[rows], exact[rows]).statistic
    assert each.rank_correlation == pytest.approx(spearman)
    np.testing.assert_array_equal(exact[:24], 0)
    end = attribute_heads(model, clean, corrupt, Answer(), positions=-1)
    exact = patch_heads(model, clean, corrupt, Answer(), positions=-1)
    assert end.completeness_error.max() < 1e-3
    assert np.corrcoef(end.effect.ravel(), exact.effect.ravel())[0, 1] > 0.9
    nowhere = attribute_heads(model, clean, corrupt, Answer(), positions=0)
    assert np.abs(nowhere.effect).max() == 0
    assert np.isnan(nowhere.rank_correlation)
    assert "unchecked" in nowhere.summary()


def test_sets_directions_and_whole_layers():
    model, (clean, corrupt) = model_of(), prompts()
    few = {"n_steps": 2}
    alone = attribute_heads(model, clean, corrupt, Answer(), **few)
    sets = [[Head(0, 0), Head(0, 2)], [Head(0, 1), Head(1, 3)], [Head(1, 0)]]
    together = attribute_heads(model, clean, corrupt, Answer(), heads=sets, **few)
    expected = [sum(alone.effect[head.layer, head.index] for head in one) for one in sets]
    np.testing.assert_allclose(together.effect, expected, atol=1e-6)
    noised = attribute_heads(model, clean, corrupt, Answer(), direction="noise", **few)
    turned = attribute_heads(model, corrupt, clean, Answer(), **few)
    np.testing.assert_allclose(noised.effect, turned.effect, atol=1e-6)
    layers = attribute_heads(model, clean, corrupt, Answer(), site="mlp_out", layers=[1], **few)
    assert layers.effect.shape == (2,)
    assert np.isnan(layers.effect[0])
    assert layers.layers == (1,)


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_position_maps_are_read_as_by_patch_heads(direction):
    """The map names clean columns of corrupt ones; noising needs it turned round."""
    model, (clean, corrupt) = model_of(), prompts()
    arguments: dict[str, Any] = {
        "direction": direction,
        "position_map": torch.tensor([-1, 0, 1, 2, 3, 4, 5, 7]),
    }
    found = attribute_heads(model, clean, corrupt, Answer(), n_steps=2, **arguments)
    exact = patch_heads(model, clean, corrupt, Answer(), **arguments)
    np.testing.assert_allclose(found.exact, exact.values, atol=1e-5)


def test_padding_changes_nothing():
    model, (clean, corrupt) = model_of(), prompts()
    pad = torch.zeros(4, 3, dtype=torch.long)
    mask = torch.cat([pad, torch.ones_like(clean)], 1)
    for method in ("gradient", "integrated_gradients"):
        plain = attribute_heads(model, clean, corrupt, Answer(), method=method, n_steps=4)
        padded = attribute_heads(
            model,
            torch.cat([pad, clean], 1),
            torch.cat([pad, corrupt], 1),
            Answer(),
            method=method,
            n_steps=4,
            attention_mask=mask,
        )
        np.testing.assert_allclose(padded.effect, plain.effect, atol=1e-4)


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("method", ["gradient", "integrated_gradients"])
def test_processed_weights_and_half_precision(method, model_class):
    """A Bridge in compatibility mode may call a hook twice: gradients are not doubled."""
    clean, corrupt = prompts()
    plain, processed, half = (
        attribute_heads(
            wrap_model(tiny_model("qwen3"), model_class=model_class, **how),
            clean,
            corrupt,
            Answer(),
            method=method,
            n_steps=2,
        ).effect
        for how in ({}, {"processing": "compatibility"}, {"dtype": torch.bfloat16})
    )
    np.testing.assert_allclose(processed, plain, atol=1e-4)
    np.testing.assert_allclose(half, plain, atol=0.1)
    assert np.abs(plain).max() > 0.1


def test_rows_are_matched_to_examples():
    """Examples of two rows each: attributions of both rows, with their weights, go to them."""
    model, (clean, corrupt) = model_of(), prompts(6)
    assert example_of_row(model, Answer(), corrupt).tolist() == [0, 1, 2, 3, 4, 5]
    assert example_of_row(model, TwoRows(), corrupt).tolist() == [0, 1, 2, 0, 1, 2]
    assert example_of_row(model, _whole(Answer()), corrupt).tolist() == [0, 1, 2, 3, 4, 5]
    rows = attribute_heads(model, clean, corrupt, Answer(), method="gradient").per_example
    pairs = attribute_heads(model, clean, corrupt, TwoRows(), method="gradient").per_example
    np.testing.assert_allclose(pairs, rows[..., :3] - 2 * rows[..., 3:], atol=1e-5)


def _whole(answer: Answer) -> Any:
    from headspec.lens.logits import as_metric

    return as_metric(lambda logits: logits[:, -1, answer.token] - logits[:, -1, answer.other])


def test_metrics_that_cannot_be_attributed():
    model, (clean, corrupt) = model_of(), prompts()

    def share(logits: Tensor) -> Tensor:
        return (logits[:, -1, 5] > logits[:, -1, 9]).float()

    def relative(logits: Tensor) -> Tensor:
        values = logits[:, -1, 5]
        return values - values.mean()

    with pytest.raises(InputError, match=r"metric with a gradient.*got share, which has none"):
        attribute_heads(model, clean, corrupt, share)

    def sign(logits: Tensor) -> Tensor:  # as the preference of a task: its gradient is 0
        return ((logits[:, -1, 5] - logits[:, -1, 9]).sign() + 1) / 2

    with pytest.raises(InputError, match=r"metric with a gradient.*got sign, which has none"):
        attribute_heads(model, clean, corrupt, sign)
    with pytest.raises(InputError, match="part of one example; got relative, where row 0"):
        attribute_heads(model, clean, corrupt, relative)
    with pytest.raises(InputError, match="n_steps of at least 1"):
        attribute_heads(model, clean, corrupt, Answer(), n_steps=0)
    with pytest.raises(InputError, match="at least 3 rows"):
        attribute_heads(model, clean, corrupt, Answer(), check_sample=2)
    with pytest.raises(InputError, match="equal length for site 'pattern'"):
        attribute_heads(
            model, clean, corrupt, Answer(), site="pattern", position_map=torch.arange(8)
        )
    with pytest.raises(InputError, match="as many tokens each"):
        attribute_heads(model, clean, corrupt[:, 1:], Answer())


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("method", ["gradient", "integrated_gradients"])
def test_the_model_and_the_grad_mode_are_left_alone(method, trainable):
    model, (clean, corrupt) = model_of(), prompts()
    for parameter in model.parameters():
        parameter.requires_grad_(trainable)
    state = torch.get_rng_state()
    found = attribute_heads(model, clean, corrupt, Answer(), method=method, n_steps=2)
    with torch.no_grad():
        switched_off = attribute_heads(model, clean, corrupt, Answer(), method=method, n_steps=2)
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()
    np.testing.assert_array_equal(switched_off.effect, found.effect)
    assert np.abs(found.effect).max() > 1e-3
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(parameter.requires_grad == trainable for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_frame_and_round_trip(tmp_path):
    model, (clean, corrupt) = model_of(), prompts()
    found = attribute_heads(model, clean, corrupt, Answer(), n_steps=2)
    frame = found.to_frame()
    assert frame["value"].tolist() == pytest.approx(found.effect.ravel().tolist())
    assert frame["exact"].tolist() == pytest.approx(found.exact.mean(1).tolist())
    assert set(frame["rank_correlation"]) == {found.rank_correlation}
    assert set(frame["method"]) == {"integrated_gradients"}
    assert frame["completeness_error"].tolist()[::4] == found.completeness_error.tolist()
    assert found.n == 4
    text = found.summary()
    for part in ("integrated gradients (2 steps)", "8 of 8 rows", "gpt_neox, step 7"):
        assert part in text
    again = results.load(results.save(found, tmp_path / "attribution.json"))
    assert again.summary() == text
