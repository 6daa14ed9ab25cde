"""Gradients of a metric with respect to activations, at the base run and along a path."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from headspec.errors import InputError
from headspec.interventions.edits import Edit, Site
from headspec.interventions.replay import Replay
from headspec.lens.hooks import HookFunction, hook_name, run_logits
from headspec.lens.logits import LogitRead, Metric


def base_gradients(
    model: Any,
    tokens: Int[Tensor, "batch pos"],
    metric: Metric,
    *,
    layers: Iterable[int],
    site: Site,
    attention_mask: Int[Tensor, "batch pos"] | None = None,
) -> dict[int, Tensor]:
    """Gradients of the metric, summed over examples, at one site of several layers.

    One forward and one backward pass for all layers. No parameter's `.grad` or `requires_grad` is
    touched; it works where gradients are switched off.

    Args:
        model: a hooked model of either class.
        tokens: token ids of the base run.
        metric: a differentiable one.
        layers, site: where.
        attention_mask: 1 for tokens, 0 for padding.

    Returns:
        For each layer the gradient, shaped as the activation. What an earlier layer does through
        a later one is included in the earlier one's.
    """
    layers = tuple(layers)
    found: dict[int, Tensor] = {}

    def keep(layer: int) -> HookFunction:
        def function(activation: Tensor) -> Tensor:
            if not activation.requires_grad:
                activation = activation.detach().requires_grad_()
            found[layer] = activation
            return activation  # the same tensor: a hook called twice keeps what goes on

        return function

    functions = {hook_name(layer, site): keep(layer) for layer in layers}
    with torch.enable_grad():
        logits = run_logits(model, tokens, functions, attention_mask=attention_mask)
        total = metric(metric.read(tokens.cpu()).take(logits).cpu()).sum()
        if not total.requires_grad:
            return {layer: torch.zeros_like(found[layer]) for layer in layers}
        kept = [found[layer] for layer in layers]
        gradients = torch.autograd.grad(total, kept, materialize_grads=True)
    return dict(zip(layers, gradients, strict=True))


def path_gradients(
    replay: Replay,
    metric: Metric,
    *,
    layer: int,
    site: Site,
    values: Tensor,
    where: Bool[Tensor, "batch pos"] | None,
    n_steps: int,
) -> Tensor:
    """Mean gradient at one site along the straight line from the base run to other activations.

    Midpoint rule: points (k - 1/2) / n_steps of the way. All heads and positions of the layer move
    together.

    Args:
        replay: the base run.
        metric: a differentiable one.
        layer, site: where.
        values: the activations at the end of the line.
        where: positions that move.
        n_steps: points.

    Returns:
        The mean gradient, shaped as the activation, in float32.
    """
    base = replay.activation(layer, site).detach()
    total = torch.zeros(base.shape, dtype=torch.float32, device=base.device)
    for step in range(n_steps):
        share = (step + 0.5) / n_steps
        with torch.enable_grad():
            point = torch.lerp(base.float(), values.float(), share).to(base.dtype)
            point = point.detach().requires_grad_()
            edit = Edit(layer, site, point, None, where)
            value = replay.measure([(edit,)], metric, grad=True).sum()
            if value.requires_grad:
                (gradient,) = torch.autograd.grad(value, point, materialize_grads=True)
                total += gradient.float()
    return total / n_steps


def example_of_row(
    model: Any, metric: Metric, tokens: Int[Tensor, "batch pos"], *, seed: int = 0
) -> Int[Tensor, " batch"]:
    """The example that each row of tokens belongs to, found by differentiating the metric.

    A metric may make one example of several rows (two continuations of a prompt). With random
    weights w, the gradient of sum_e (e + 1) w_e m_e with respect to the logits of a row of example
    e is e + 1 times that of sum_e w_e m_e; random logits serve, so the model is not run.

    Args:
        model: gives the size of the vocabulary.
        metric: a differentiable one.
        tokens: token ids.
        seed: of the random logits and weights.

    Raises:
        InputError: a metric without gradient, or one in which a row is part of several examples.
    """
    read = metric.read(tokens.cpu())
    logits = _random_logits(model, read, tokens, seed=seed)
    with torch.enable_grad():
        values = metric(logits)
        if not values.requires_grad:
            raise _flat(metric)
        number = torch.arange(1, len(values) + 1, dtype=values.dtype, device=values.device)
        weights = 0.5 + torch.rand(len(values), generator=torch.Generator().manual_seed(seed))
        (plain,) = torch.autograd.grad((weights * values).sum(), logits, retain_graph=True)
        (scaled,) = torch.autograd.grad((number * weights * values).sum(), logits)
    plain, scaled = plain.flatten(1).double(), scaled.flatten(1).double()
    norms = (plain * plain).sum(1)
    ratio = (plain * scaled).sum(1) / norms.clamp_min(1e-300)
    example = ratio.round().long() - 1
    silent = norms == 0
    if silent.all():  # a sign has a gradient, which is 0
        raise _flat(metric)
    mixed = ((scaled - (example + 1)[:, None] * plain).norm(dim=1) > 1e-3 * scaled.norm(dim=1)) & (
        ~silent
    )
    if mixed.any() or (silent.any() and len(values) != len(tokens)):
        raise InputError(
            expected="a metric in which every row of tokens is part of one example",
            got=f"{metric.name}, where row {int((mixed | silent).nonzero()[0])} is part of "
            f"{'several' if mixed.any() else 'none'}",
            fix="Compute each example from its own rows, without sums over the batch.",
        )
    return torch.where(silent, torch.arange(len(tokens)), example.cpu())


def _flat(metric: Metric) -> InputError:
    return InputError(
        expected="a metric with a gradient, such as a difference of log-probabilities",
        got=f"{metric.name}, which has none (a share of right answers is flat)",
        fix="Use patch_heads, which needs no gradient, or task.metric().",
    )


def _random_logits(model: Any, read: LogitRead, tokens: Tensor, *, seed: int) -> Tensor:
    n_pos = tokens.shape[1] if read.positions is None else read.positions.shape[1]
    n_columns = model.cfg.d_vocab if read.columns is None else read.columns.shape[2]
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(tokens), n_pos, n_columns, generator=generator)
    logits = logits.log_softmax(-1) if read.log_probs else logits
    return logits.requires_grad_()
