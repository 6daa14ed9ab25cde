"""Do token-to-token maps find the tokens that matter? Against zeroed and resampled embeddings.

On the last step of the embedded suite, for a logit difference at the last position of each prompt:
Spearman's rank correlation, over the input tokens, of the size of a map's entries with the size of
the effect of (a) setting the embedding of one token to zero, (b) replacing it by embeddings of
other tokens, drawn from all prompts, root mean square over the draws. Means over prompts with 95 %
bootstrap intervals over prompts. Two controls for every map: its entries permuted over the tokens
of the prompt (same values, at random places), and the map of another prompt of the same length
(what position alone explains).

    python benchmarks/operator_faithfulness.py [--prompts 100] [--draws 8]
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from torch import Tensor

import headspec as hs

Prompts = tuple[Tensor, Tensor]
"""Tokens `row pos`, and for each row the two vocabulary entries whose logits are compared."""


def comparison_prompts(model: Any, n: int) -> Prompts:
    """Decimal comparisons: the token at which right and wrong answer part."""
    task = hs.build_task("decimal_comparison", n=n, wording="micro").tokenise(
        model.tokenizer, answers="first_token"
    )
    assert task.attention_mask is None or bool(task.attention_mask.all())
    tokens = task.clean[:, : task.end + 1]
    columns = task.metric().read(task.clean).columns
    assert columns is not None
    return tokens, columns[:, 0]


def prose_prompts(model: Any, n: int, length: int = 32) -> Prompts:
    """Held-out prose: the most probable next token against the second."""
    tokens = torch.tensor(hs.held_out_tokens()[:n, :length].astype(np.int64))
    with torch.no_grad():
        return tokens, model(tokens, return_type="logits")[:, -1].topk(2).indices


def repeat_prompts(model: Any, n: int, period: int = 12) -> Prompts:
    """A random sequence repeated up to one token before its end: that token against another."""
    generator = torch.Generator().manual_seed(0)
    symbols = torch.from_numpy(hs.repeat_symbols(model.tokenizer))
    orders = [torch.randperm(len(symbols), generator=generator)[:period] for _ in range(n)]
    once = symbols[torch.stack(orders)]
    tokens = torch.cat([torch.zeros(n, 1, dtype=torch.int64), once, once[:, :-1]], dim=1)
    return tokens, torch.stack([once[:, -1], once[:, 0]], dim=1)


def difference(logits: Tensor, pairs: Tensor) -> Tensor:
    """Logit of the first entry minus that of the second, at the last position."""
    chosen = logits[:, -1].gather(-1, pairs)
    return chosen[:, 0] - chosen[:, 1]


def with_inputs(model: Any, tokens: Tensor, inputs: Tensor) -> Tensor:
    """Logits of the model with other embeddings."""
    hook = ("blocks.0.hook_resid_pre", lambda resid, hook=None: inputs)
    return model.run_with_hooks(tokens, fwd_hooks=[hook], return_type="logits")


def effects(model: Any, prompts: Prompts, inputs: Tensor, draws: int) -> dict[str, np.ndarray]:
    """Size of the effect of each token's embedding, `row pos`: zeroed, and resampled."""
    tokens, pairs = prompts
    rows, n_pos, _ = inputs.shape
    generator = torch.Generator().manual_seed(1)
    pool = inputs[:, 1:].flatten(0, 1)
    with torch.no_grad():
        base = difference(model(tokens, return_type="logits"), pairs)
        zeroed, resampled = torch.zeros(rows, n_pos), torch.zeros(rows, n_pos)
        for position in range(n_pos):
            for draw in range(draws + 1):
                edited = inputs.clone()
                chosen = torch.randint(len(pool), (rows,), generator=generator)
                edited[:, position] = 0 if draw == draws else pool[chosen]
                change = difference(with_inputs(model, tokens, edited), pairs) - base
                if draw == draws:
                    zeroed[:, position] = change.abs()
                else:
                    resampled[:, position] += change.square() / draws
    return {"zeroed": zeroed.numpy(), "resampled": resampled.sqrt().numpy()}


def maps(model: Any, prompts: Prompts) -> tuple[Tensor, dict[str, np.ndarray]]:
    """The embeddings, and for every map the size of its entries for the last query, `row pos`."""
    tokens, pairs = prompts
    logits = hs.linear_operator(model, tokens, to="logits")
    resid = hs.linear_operator(model, tokens)
    direction = torch.zeros(len(tokens), logits.output.shape[-1])
    direction.scatter_(1, pairs, torch.tensor([1.0, -1.0]).expand(len(tokens), 2))
    inputs = logits.inputs.clone().requires_grad_()
    value = difference(with_inputs(model, tokens, inputs), pairs).sum()
    (gradient,) = torch.autograd.grad(value, inputs)
    found = {
        "input contribution, operator": hs.input_contributions(logits, direction, queries=[-1]),
        "direction norm, operator": hs.direction_norms(logits, direction, queries=[-1]),
        "block norm, operator": hs.block_norms(resid, queries=[-1]),
    }
    return logits.inputs, {
        **{name: np.abs(result.values[:, 0]) for name, result in found.items()},
        "attention rollout": hs.attention_rollout(logits.patterns)[-1][:, -1].numpy(),
        "attention, mean of all heads": logits.patterns[:, :, :, -1].mean((0, 2)).numpy(),
        "gradient x input (responds)": (gradient * inputs).sum(-1).abs().detach().numpy(),
    }


def correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each row of one with the same row of the other."""
    ranks = [rankdata(values, axis=1) for values in (one, other)]
    ranks = [rank - rank.mean(1, keepdims=True) for rank in ranks]
    scale = np.sqrt((ranks[0] ** 2).sum(1) * (ranks[1] ** 2).sum(1))
    return (ranks[0] * ranks[1]).sum(1) / scale


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--draws", type=int, default=8)
    chosen = parser.parse_args()
    model = hs.open_suite("micro").model(6144)
    rng = np.random.default_rng(0)
    rows = []
    for make in (comparison_prompts, prose_prompts, repeat_prompts):
        prompts = make(model, chosen.prompts)
        inputs, scores = maps(model, prompts)
        truth = effects(model, prompts, inputs, chosen.draws)
        n = len(inputs)
        for name, score in scores.items():
            row: dict[str, Any] = {"prompts": make.__name__.split("_")[0], "map": name, "n": n}
            for kind, effect in truth.items():
                found = correlations(score, effect)
                means = found[rng.integers(0, n, (2000, n))].mean(1)
                low, high = np.quantile(means, [0.025, 0.975])
                shuffled = [correlations(rng.permuted(score, axis=1), effect) for _ in range(200)]
                null = np.array(shuffled).mean(1)
                other = correlations(np.roll(score, 1, axis=0), effect).mean()
                row[kind] = f"{found.mean():.2f} [{low:.2f}, {high:.2f}]"
                row[f"{kind}: permuted"] = f"{null.mean():.2f} ± {null.std():.2f}"
                row[f"{kind}: other prompt"] = f"{other:.2f}"
            rows.append(row)
    frame = pd.DataFrame(rows)
    print("| " + " | ".join(frame.columns) + " |\n" + "|" + "---|" * len(frame.columns))
    for values in frame.itertuples(index=False):
        print("| " + " | ".join(map(str, values)) + " |")


if __name__ == "__main__":
    main()
