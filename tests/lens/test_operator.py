"""The linear operator: by hand, against the model, its adjoint, autograd with factors detached."""

import doctest
import importlib
from typing import Any

import pytest
import torch
from block_forward import (
    CASES,
    CLASSES,
    HAS_HOOKED,
    N_POS,
    PROCESSINGS,
    build,
    first_residual,
    forward,
    model_logits,
)
from operator_models import EMBEDDINGS, hand_parts, operator_of, vector
from zoo import random_tokens, tiny_model, tiny_tokenizer

import headspec as hs
from headspec.errors import InputError
from headspec.lens.blocks import open_blocks
from headspec.lens.capture import capture
from headspec.lens.hooks import run_logits

pytestmark = pytest.mark.models


def test_by_hand():
    operator = operator_of(hand_parts(), EMBEDDINGS)
    # position 0: its neuron is at 0, where act(z) / z is the limit from the right, 1;
    # position 1: its neuron is off
    expected = torch.zeros(1, 2, 2, 2, 2, dtype=torch.float64)
    expected[0, 0, :, 0] = torch.tensor([[1, 1], [1, 1]])
    expected[0, 1, :, 0] = torch.tensor([[0, 0.5], [0.5, 0]])
    expected[0, 1, :, 1] = torch.tensor([[1, 0.5], [0.5, 1]])
    torch.testing.assert_close(operator.matrix(), expected)
    torch.testing.assert_close(operator.bias()[0], torch.ones(2, 2, dtype=torch.float64))
    torch.testing.assert_close(operator.output[0], torch.stack([vector(2, 2), vector(2, 3.5)]))
    torch.testing.assert_close(
        operator.transpose_apply(torch.stack([vector(0, 0), vector(0, 1)]))[0],
        torch.stack([vector(0.5, 0), vector(0.5, 1)]),
    )


@pytest.mark.parametrize("processing", PROCESSINGS)
@pytest.mark.parametrize(("variant", "model_class"), CASES)
def test_the_output_of_every_kind_of_model_is_rebuilt(variant, model_class, processing):
    model = build(variant, model_class, processing)
    tokens = random_tokens(2, N_POS)
    operator = hs.linear_operator(model, tokens, to="logits")
    rebuilt = operator.apply(operator.inputs) + operator.bias()
    expected = model_logits(model, tokens)
    scale = float(expected.abs().max())
    torch.testing.assert_close(rebuilt, expected, rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(operator.output, expected, rtol=0, atol=1e-5 * scale)
    assert operator.rebuild_error < 1e-5


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("variant", ["gpt_neox", "gpt2", "qwen3"])
def test_every_layer_is_rebuilt(variant, model_class):
    model = build(variant, model_class)
    tokens = random_tokens(2, N_POS)
    middle = capture(model, tokens, [(1, "resid_pre")])[1, "resid_pre"]
    first = hs.linear_operator(model, tokens, to=0)
    assert first.n_layers == 1
    torch.testing.assert_close(first.apply(first.inputs) + first.bias(), middle)
    last, named = (hs.linear_operator(model, tokens, to=to) for to in (1, "resid_post"))
    assert torch.equal(last.output, named.output)
    assert not torch.allclose(last.output, middle, atol=0.1)


@pytest.mark.parametrize("variant", ["gpt_neox", "gpt2", "llama", "qwen3", "olmo_clip"])
@pytest.mark.parametrize("to", [0, "logits"])
def test_adjoint_and_matrix_belong_to_the_product(variant, to):
    operator = hs.linear_operator(build(variant), random_tokens(2, 5), to=to)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 1, *operator.inputs.shape, generator=generator)
    y = torch.randn(3, 1, *operator.output.shape, generator=generator)
    forwards, backwards = operator.apply(x), operator.transpose_apply(y)
    left, right = (forwards * y).sum((1, 2, 3, 4)), (x * backwards).sum((1, 2, 3, 4))
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-3)
    matrix = operator.matrix()
    product = torch.einsum("rqokd,mnrkd->mnrqo", matrix, x)
    torch.testing.assert_close(product, forwards, rtol=1e-4, atol=1e-4)
    later = torch.ones(5, 5, dtype=torch.bool).triu(1)
    assert not matrix.permute(1, 3, 0, 2, 4)[later].any()


def test_rows_are_independent_and_broadcast():
    model, tokens = build("qwen3"), random_tokens(3, 6)
    together = hs.linear_operator(model, tokens)
    x = torch.randn(2, 6, 64, generator=torch.Generator().manual_seed(0))
    for row in range(3):
        alone = hs.linear_operator(model, tokens[row : row + 1])
        for value in (x[0], x[0][None], x[:, None]):
            found = together.apply(value)[..., row : row + 1, :, :]
            torch.testing.assert_close(alone.apply(value), found)
    x = x[0].requires_grad_()
    torch.testing.assert_close(
        torch.autograd.grad(together.apply(x).sum(), x)[0],
        together.transpose_apply(torch.ones(6, 64)).sum(0),
    )


def frozen_by_hooks(model, *, gated):
    """transformer-lens itself with every factor detached: its gradient is the operator's."""
    pre = {}
    functions: dict[str, Any] = {}

    def detach(value):
        return value.detach()

    def keep(layer):
        def function(value):
            pre[layer] = value

        return function

    def freeze_gate(layer):
        return lambda value: pre[layer] * (value / pre[layer]).detach()

    for layer in range(model.cfg.n_layers):
        functions |= {f"blocks.{layer}.{norm}.hook_scale": detach for norm in ("ln1", "ln2")}
        functions[f"blocks.{layer}.attn.hook_pattern"] = detach
        if gated:
            functions[f"blocks.{layer}.mlp.hook_pre"] = detach
        else:
            functions[f"blocks.{layer}.mlp.hook_pre"] = keep(layer)
            functions[f"blocks.{layer}.mlp.hook_post"] = freeze_gate(layer)
    return functions | {"ln_final.hook_scale": detach}


@pytest.mark.parametrize(
    ("variant", "model_class"),
    [("gpt2", "bridge")]
    + [
        (variant, "hooked_transformer")
        for variant in ("gpt2", "gpt_neox", "gpt_neox_sequential", "llama", "qwen3")
        if HAS_HOOKED
    ],
)
def test_autograd_through_hooks_that_detach_every_factor(variant, model_class):
    model = build(variant, model_class)
    tokens = random_tokens(2, 6)
    start = first_residual(model, tokens).clone().requires_grad_()
    functions = frozen_by_hooks(model, gated=variant in ("llama", "qwen3"))
    frozen = run_logits(model, tokens, {"blocks.0.hook_resid_pre": lambda _: start, **functions})
    plain = run_logits(model, tokens, {"blocks.0.hook_resid_pre": lambda _: start})
    y = torch.randn(frozen.shape, generator=torch.Generator().manual_seed(2))
    (expected,) = torch.autograd.grad((frozen * y).sum(), start)
    (jacobian,) = torch.autograd.grad((plain * y).sum(), start)
    found = hs.linear_operator(model, tokens, to="logits").transpose_apply(y)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    # negative control: the derivative of the model itself is another map
    assert (found - jacobian).norm() > 0.1 * found.norm()


def test_finite_differences_agree_only_where_nothing_responds():
    inputs = torch.randn(1, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    change = torch.randn(1, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    for queries, mlp, linear in ((0.0, False, True), (0.0, True, True), (1.0, False, False)):
        parts = hand_parts(queries=queries, mlp=mlp)  # ReLU is linear near any point but 0
        operator, step = operator_of(parts, inputs), 1e-5 * change
        ends = [operator_of(parts, inputs + sign * step).output for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / 2e-5
        close = torch.allclose(slope, operator.apply(change), rtol=1e-6, atol=1e-6)
        assert close == linear
    # and on a whole nonlinear model they differ
    operator = hs.linear_operator(build("gpt_neox"), random_tokens(1, 6), to="logits")
    blocks = open_blocks(build("gpt_neox"), n_pos=6)
    change = torch.randn(operator.inputs.shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        slope = forward(blocks, operator.inputs + 1e-2 * change)
        slope = (slope - forward(blocks, operator.inputs - 1e-2 * change)) / 2e-2
    found = operator.apply(change)
    assert (slope - found).norm() > 0.1 * found.norm()


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("variant", ["gpt_neox", "qwen3"])
def test_half_precision_is_computed_in_float32(variant, model_class):
    model = build(variant, model_class, dtype=torch.bfloat16)
    tokens = random_tokens(2, N_POS)
    operator = hs.linear_operator(model, tokens, to="logits")
    assert operator.inputs.dtype == operator.output.dtype == torch.float32
    rebuilt = operator.apply(operator.inputs) + operator.bias()
    torch.testing.assert_close(rebuilt, operator.output, rtol=1e-4, atol=1e-4)
    expected: Any = build(variant, model_class)  # the float32 model of the same, rounded, weights
    with torch.no_grad():
        for parameter in expected.parameters():
            parameter.copy_(parameter.bfloat16().float())
    exact = model_logits(expected, tokens)
    own = (model_logits(model, tokens) - exact).square().mean().sqrt()
    error = (operator.output - exact).square().mean().sqrt()
    assert error < 0.5 * own
    assert 1e-4 < operator.rebuild_error < 0.1


def test_double_precision_stays():
    operator = hs.linear_operator(build("gpt2", dtype=torch.float64), random_tokens(1, 5))
    assert operator.output.dtype == torch.float64
    assert operator.rebuild_error < 1e-12


def test_a_dropped_rotation_is_no_rotation():
    hf_model = hs.drop_rope(tiny_model("qwen3"), layers=[1])
    model = hs.wrap_model(hf_model, tiny_tokenizer())
    tokens = random_tokens(2, N_POS)
    assert hs.linear_operator(model, tokens, to="logits").rebuild_error < 1e-5


def test_memory_is_what_the_docstring_says():
    n, heads, d_mlp = 12, 4, 256
    operator = hs.linear_operator(build("gpt2"), random_tokens(3, n))
    assert operator.n_bytes == 3 * 2 * 4 * n * (heads * n + d_mlp + 2)
    assert "2 layers, all heads" in operator.summary()
    assert operator.patterns.shape == (2, 3, 4, 12, 12)
    expected = capture(build("gpt2"), random_tokens(3, n), [(1, "pattern")])[1, "pattern"]
    torch.testing.assert_close(operator.patterns[1], expected)


def test_the_model_is_left_alone():
    model: Any = build("gpt2")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    operator = hs.linear_operator(model, random_tokens(1, 5), to="logits")
    operator.matrix()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not operator.output.requires_grad


def test_errors():
    model: Any = build("gpt2")
    tokens = random_tokens(1, 5)
    make: Any = hs.linear_operator
    with pytest.raises(InputError, match="at least one of each"):
        make(model, tokens[:, :0])
    with pytest.raises(InputError, match="layer from 0 to 1"):
        make(model, tokens, to=2)
    for to in ("logits", 0):
        with pytest.raises(InputError, match="got a GPT2LMHeadModel"):
            make(tiny_model("gpt2"), tokens, to=to)
    with pytest.raises(InputError, match="architecture is 'olmo2'"):
        make(hs.wrap_model(tiny_model("olmo2"), tiny_tokenizer()), tokens)
    operator = make(model, tokens)
    with pytest.raises(InputError, match=r"409,600 bytes \(1 x 5 x 64 x 5 x 64\)"):
        operator.matrix(max_bytes=1000)
    with pytest.raises(InputError, match=r"pos \(5\), 64"):
        operator.apply(torch.zeros(4, 64))
    hook = ("blocks.0.hook_resid_pre", lambda value, hook: value)
    with model.hooks(fwd_hooks=[hook]), pytest.raises(InputError, match="without hooks of yours"):
        make(model, tokens)


@pytest.mark.parametrize(("dtype", "factor"), [(torch.float32, 1.1), (torch.bfloat16, 3)])
def test_a_model_that_is_not_rebuilt_is_refused(monkeypatch, dtype, factor):
    module = importlib.import_module("headspec.lens.operator")
    real = module.freeze

    def forgets_a_gate(parts, resid, **kwargs):
        frozen = real(parts, resid, **kwargs)
        frozen.layers[1].gate.mul_(factor)
        return frozen

    monkeypatch.setattr(module, "freeze", forgets_a_gate)
    with pytest.raises(InputError, match="rebuild the model's output"):
        hs.linear_operator(hs.wrap_model(tiny_model("gpt2"), dtype=dtype), random_tokens(1, 5))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_device_of_the_model_is_used():
    tokens = random_tokens(2, N_POS)
    model: Any = build("qwen3")
    here = hs.linear_operator(model, tokens, to="logits")
    there = hs.linear_operator(model.to("cuda"), tokens, to="logits")
    assert there.output.device.type == "cuda"
    torch.testing.assert_close(there.output.cpu(), here.output, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["operator", "token_maps"])
def test_examples_in_docstrings(name):
    assert doctest.testmod(importlib.import_module(f"headspec.lens.{name}")).failed == 0
