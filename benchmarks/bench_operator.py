"""The model as one linear operator, against autograd through a transformer-lens model.

A random GPT-2 of 4 layers (width 192, 6 heads), float32. The peer is what one would write: hooks
of transformer-lens that detach every pattern and norm scale and replace each activation by its
input times the detached ratio. The model is then linear where it stands, so that autograd gives
products with the adjoint of the same operator, and `torch.func.jvp` products with itself. Both must
agree to 1e-4 of the largest entry. The peer's model runs with eager attention, as transformer-lens
builds it.

    python benchmarks/bench_operator.py [--device cuda] [--small]
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from harness import compare, print_header
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

import headspec as hs


def build_model(layers: int, width: int, heads: int, device: str) -> Any:
    """Random weights, large enough that attention is not uniform."""
    config = GPT2Config(
        n_layer=layers,
        n_embd=width,
        n_head=heads,
        vocab_size=1000,
        initializer_range=0.06,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config)
    return hs.wrap_model(model.eval(), device=device)


def detaching_hooks(n_layers: int) -> list[tuple[str, Any]]:
    """Hooks under which the model is linear in its embeddings, at the values it has."""
    before: dict[int, Tensor] = {}

    def detach(value: Tensor, hook: Any) -> Tensor:
        return value.detach()

    def pre(layer: int) -> Any:
        def keep(value: Tensor, hook: Any) -> None:
            before[layer] = value

        return keep

    def post(layer: int) -> Any:
        def freeze(value: Tensor, hook: Any) -> Tensor:
            return before[layer] * (value / before[layer]).detach()

        return freeze

    hooks: list[tuple[str, Any]] = [("ln_final.hook_scale", detach)]
    for layer in range(n_layers):
        hooks += [(f"blocks.{layer}.{name}.hook_scale", detach) for name in ("ln1", "ln2")]
        hooks.append((f"blocks.{layer}.attn.hook_pattern", detach))
        hooks.append((f"blocks.{layer}.mlp.hook_pre", pre(layer)))
        hooks.append((f"blocks.{layer}.mlp.hook_post", post(layer)))
    return hooks


class Peer:
    """transformer-lens under those hooks, as a function of the embeddings."""

    def __init__(self, model: Any, tokens: Tensor, inputs: Tensor) -> None:
        self.model, self.tokens, self.inputs = model, tokens, inputs
        self.hooks = detaching_hooks(model.cfg.n_layers)
        self.seen: dict[str, Tensor] = {}

    def run(self, inputs: Tensor, *, logits: bool) -> Tensor:
        """Logits, or the residual stream after the last layer: `pos width`."""
        name = f"blocks.{self.model.cfg.n_layers - 1}.hook_resid_post"
        hooks = [
            ("blocks.0.hook_resid_pre", lambda value, hook: inputs),
            (name, lambda value, hook: self.seen.update(out=value)),
            *self.hooks,
        ]
        out = self.model.run_with_hooks(self.tokens, fwd_hooks=hooks)
        return (out if logits else self.seen["out"])[0]

    def contributions(self, entry: int) -> Tensor:
        """Of every input token to one logit at every position: one backward pass a position."""
        inputs = self.inputs.clone().requires_grad_()
        chosen = self.run(inputs, logits=True)[:, entry]
        rows = [
            torch.autograd.grad(value, inputs, retain_graph=True)[0][0].detach() for value in chosen
        ]
        return torch.stack([(row * self.inputs[0]).sum(-1) for row in rows])

    def matrix(self) -> Tensor:
        """The whole operator to the residual stream, by vectorised backward passes."""
        inputs = self.inputs.clone()
        found = torch.autograd.functional.jacobian(
            lambda value: self.run(value, logits=False), inputs, vectorize=True
        )
        return found[:, :, 0]  # type: ignore[index]

    def norms(self) -> Tensor:
        """Frobenius norms of its blocks, `q k`."""
        return self.matrix().square().sum((1, 3)).sqrt()

    def product(self, directions: Tensor) -> Tensor:
        """Forward-mode products, all at once."""

        def one(direction: Tensor) -> Tensor:
            run = lambda value: self.run(value, logits=False)  # noqa: E731
            return torch.func.jvp(run, (self.inputs,), (direction,))[1]

        with torch.no_grad():
            return torch.func.vmap(one)(directions)


def close(ours: Any, peer: Any) -> bool:
    """To 1e-4 of the largest entry."""
    one, other = (np.asarray(torch.as_tensor(value).detach().cpu()) for value in (ours, peer))
    scale = np.abs(other).max()
    assert scale > 0.01
    return bool(np.abs(one - other).max() < 1e-4 * scale)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--small", action="store_true", help="seconds, to see that both agree")
    chosen = parser.parse_args()
    sizes = (2, 48, 2) if chosen.small else (4, 192, 6)
    few, many = (8, 16) if chosen.small else (16, 64)
    model = build_model(*sizes, chosen.device)
    generator = torch.Generator().manual_seed(0)
    print_header()
    memory = chosen.device == "cpu"

    def tokens(n: int) -> Tensor:
        return torch.randint(0, 1000, (1, n), generator=generator).to(chosen.device)

    rows = tokens(many)
    inputs = hs.linear_operator(model, rows).inputs
    peer = Peer(model, rows, inputs)
    vectors = torch.randn(many, *inputs.shape, generator=generator).to(inputs)
    compare(
        f"freeze and apply to {many} vectors, {many} tokens",
        lambda: hs.linear_operator(model, rows).apply(vectors)[:, 0],
        lambda: peer.product(vectors),
        agree=close,
        memory=memory,
    )
    compare(
        f"freeze and contributions to a logit, {many} queries x {many} tokens",
        lambda: hs.input_contributions(hs.linear_operator(model, rows, to="logits"), 7).values[0],
        lambda: peer.contributions(7),
        agree=close,
        memory=memory,
    )
    short = tokens(few)
    small = Peer(model, short, hs.linear_operator(model, short).inputs)
    compare(
        f"freeze and the explicit matrix, {few} tokens",
        lambda: hs.linear_operator(model, short).matrix()[0],
        small.matrix,
        agree=close,
        memory=memory,
    )
    compare(
        f"freeze and block norms, {few} tokens",
        lambda: hs.block_norms(hs.linear_operator(model, short)).values[0],
        small.norms,
        agree=close,
        memory=memory,
        note="both exact",
    )


if __name__ == "__main__":
    main()
