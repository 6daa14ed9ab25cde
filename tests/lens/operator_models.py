"""A model small enough to compute its linear operator by hand, and operators made of parts."""

import torch

from headspec.lens.block_parts import Layer, Parts
from headspec.lens.block_weights import Affine, LayerWeights, MlpWeights
from headspec.lens.frozen_pass import forward_product, freeze
from headspec.lens.operator_products import LinearOperator

SWAP = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
EYE = torch.eye(2, dtype=torch.float64)
EMBEDDINGS = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]], dtype=torch.float64)


def vector(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def hand_parts(*, queries=0.0, mlp=True):
    """One head of two dimensions that swaps them, a ReLU neuron, no norms.

    With `queries` 0 every score is 0, so a position attends alike to all it sees.
    """
    zero = queries * EYE
    value, out = Affine(SWAP, vector(1, 0)), Affine(EYE, vector(0, 1))
    into, onto = Affine(vector(1, -1)[None], None), Affine(vector(0, 2)[:, None], None)
    weights = LayerWeights(
        norm=None,
        q=Affine(zero, None),
        k=Affine(EYE, None),
        v=value,
        q_norm=None,
        k_norm=None,
        out=out,
        mlp=MlpWeights(None, into, None, torch.relu, onto) if mlp else None,
    )

    def head(linear):
        return lambda x: torch.nn.functional.linear(x, linear.weight, linear.bias)[..., None, :]

    layer = Layer(
        parallel=False,
        norm=lambda x: x,
        heads={"q": head(weights.q), "k": head(weights.k), "v": head(value)},
        head_norms={},
        clip=None,
        rotary=None,
        adjacent=False,
        scale=1.0,
        out=lambda z: z + vector(0, 1),
        W_O=lambda: EYE[None],
        mlp=(lambda x: torch.relu(x @ into.weight.T) @ onto.weight.T) if mlp else None,
        weights=lambda: weights,
    )
    return Parts((layer,), 1, lambda x: x, lambda: (EYE, None), lambda: None)


def operator_of(parts, inputs):
    """The operator to the residual stream of hand-made parts."""
    frozen = freeze(parts, inputs, n_layers=len(parts.layers), logits=False)
    return LinearOperator(
        frozen=frozen,
        inputs=inputs,
        output=forward_product(frozen, inputs[None], bias=True)[0],
        tokens=torch.zeros(inputs.shape[:2], dtype=torch.int64),
        to="resid_post",
        n_heads=1,
        rebuild_error=0.0,
    )
