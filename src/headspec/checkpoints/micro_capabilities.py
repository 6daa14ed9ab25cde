"""What a model of the embedded suite can do, measured on what it was never trained on.

Everything here takes a Hugging Face causal language model and its tokenizer; nothing is specific to
one step or size. `micro.capability_curve` gives the shipped table of these numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn import functional

from headspec.activations.repeats import repeated_tokens
from headspec.checkpoints import micro_tasks
from headspec.checkpoints.micro_tasks import Example
from headspec.results import tidy

REPEAT_PERIOD = 48
"""Period of the repeated sequences that induction is measured on."""


def answer_scores(
    model: Any, tokenizer: Any, examples: list[Example], *, batch_size: int = 128
) -> pd.DataFrame:
    """Whether greedy decoding gives each answer, and how probable the answer is.

    Args:
        model: Hugging Face causal language model.
        tokenizer: its tokenizer.
        examples: prompts with answers; every prompt is preceded by the beginning-of-text token.
        batch_size: examples per forward pass.

    Returns:
        One row an example: ``correct`` (every answer token, the final newline included, is the
        most probable one given the right tokens before it, which is what greedy decoding needs to
        produce it), ``log_prob`` of the whole answer in nats, and ``log_prob_difference`` to the
        distractor at the first token where the two differ, which is the logit difference that
        patching studies use (NaN without a distractor). Accuracy alone does not show how close a
        failing model is; the log-probability does.
    """
    parts = [
        _score(model, tokenizer, examples[start : start + batch_size])
        for start in range(0, len(examples), batch_size)
    ]
    return pd.concat(parts, ignore_index=True)


def _score(model: Any, tokenizer: Any, examples: list[Example]) -> pd.DataFrame:
    bos = tokenizer.bos_token_id
    prompts = [[bos, *tokenizer(e.prompt).input_ids] for e in examples]
    answers = [tokenizer(e.answer).input_ids for e in examples]
    longest = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    tokens = torch.full((len(examples), longest), bos)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        tokens[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
    log_probs = _log_probs(model, tokens)
    rows = []
    for row, example in enumerate(examples):
        at, answer = len(prompts[row]) - 1, torch.tensor(answers[row])
        own = log_probs[row, at : at + len(answer)]
        chosen = own.gather(-1, answer[:, None])[:, 0]
        difference = np.nan
        if example.distractor:
            other = tokenizer(example.distractor).input_ids
            pairs = zip(answers[row], other, strict=False)
            first = next(i for i, (a, b) in enumerate(pairs) if a != b)
            difference = float(chosen[first] - own[first, other[first]])
        rows.append(
            {
                "correct": bool((own.argmax(-1) == answer).all()),
                "log_prob": float(chosen.sum()),
                "log_prob_difference": difference,
            }
        )
    return pd.DataFrame(rows)


def _log_probs(
    model: Any, tokens: Integer[Tensor, "batch pos"]
) -> Float[Tensor, "batch pos_1 vocab"]:
    with torch.no_grad():
        logits = model(tokens.to(model.device), use_cache=False).logits[:, :-1]
    return logits.float().log_softmax(-1).cpu()


def token_losses(
    model: Any, tokens: Integer[np.ndarray, "row pos"], *, batch_size: int = 64
) -> Float[np.ndarray, "row pos_1"]:
    """Next-token losses in nats; column ``i`` is the loss of predicting token ``i + 1``."""
    parts = []
    for start in range(0, len(tokens), batch_size):
        chunk = torch.as_tensor(np.asarray(tokens[start : start + batch_size], dtype=np.int64))
        log_probs = _log_probs(model, chunk)
        parts.append(functional.nll_loss(log_probs.mT, chunk[:, 1:], reduction="none").numpy())
    return np.concatenate(parts)


def head_attention_scores(
    model: Any, tokens: Integer[np.ndarray, "row pos"], *, period: int
) -> pd.DataFrame:
    """Previous-token and induction attention of every head on repeated sequences.

    Args:
        model: Hugging Face model loaded with ``attn_implementation="eager"``.
        tokens: rows of a leading token and then two periods: ``1 + 2 * period`` tokens.
        period: tokens before the sequence repeats.

    Returns:
        Columns ``layer head previous_token induction uniform``: mean attention to the token before,
        to the token after the earlier occurrence of the current one (from the second period), and
        what uniform attention would give the latter. A high score shows where a head looks, not
        that the model needs it.

    References:
        Olsson et al., In-context Learning and Induction Heads, 2022.
    """
    with torch.no_grad():
        out = model(torch.as_tensor(np.asarray(tokens)), use_cache=False, output_attentions=True)
    queries = torch.arange(period + 1, 2 * period + 1)
    rows = []
    for layer, pattern in enumerate(out.attentions):
        previous = pattern.diagonal(offset=-1, dim1=-2, dim2=-1)[..., 1:].mean((0, -1))
        induction = pattern[:, :, queries, queries - period + 1].mean((0, -1))
        rows += [
            {"layer": layer, "head": head, "previous_token": float(p), "induction": float(i)}
            for head, (p, i) in enumerate(zip(previous, induction, strict=True))
        ]
    return pd.DataFrame(rows).assign(uniform=float((1 / (queries + 1.0)).mean()))


def measure_capabilities(
    model: Any,
    tokenizer: Any,
    *,
    symbols: Integer[np.ndarray, " symbol"],
    held_out: Integer[np.ndarray, "row pos"],
    n: int = 500,
    seed: int = 0,
    name: str = "",
    step: int | None = None,
) -> pd.DataFrame:
    """Every capability of one model, with standard errors.

    Args:
        model: Hugging Face causal language model.
        tokenizer: its tokenizer.
        symbols: what repeated sequences are drawn from, as ``micro.repeat_symbols`` gives them.
        held_out: rows of prose the model was not trained on.
        n: questions of each kind; repeated sequences are a quarter as many.
        seed: of the draws.
        name: of the model, for the frame.
        step: for the frame.

    Returns:
        Tidy rows, one a metric: ``decimal_accuracy``, ``version_accuracy`` (held-out pairs on which
        the two readings disagree, so always reading one way scores 0 on one of them and picking
        either number at random one half), ``..._log_prob_difference`` (nats, right digit minus
        the other number's), ``addition_accuracy``, ``addition_log_prob``, ``prose_loss`` (nats per
        token), ``repeat_first_loss``, ``repeat_second_loss`` (nats per token of either period) and
        ``induction_gain``, their difference. ``se`` is the standard error over questions or rows.
    """
    found: dict[str, np.ndarray] = {}
    for kind in ("decimal", "version"):
        examples = micro_tasks.sample_comparisons(kind, n, split="held_out", seed=seed)
        scores = answer_scores(model, tokenizer, examples)
        found[f"{kind}_accuracy"] = scores["correct"].to_numpy(float)
        found[f"{kind}_log_prob_difference"] = scores["log_prob_difference"].to_numpy()
    sums = answer_scores(
        model, tokenizer, micro_tasks.sample_additions(n, split="held_out", seed=seed)
    )
    found["addition_accuracy"] = sums["correct"].to_numpy(float)
    found["addition_log_prob"] = sums["log_prob"].to_numpy()
    found["prose_loss"] = token_losses(model, held_out).mean(1)
    first, second = repeat_losses(
        model, symbols, n=max(n // 4, 1), bos=tokenizer.bos_token_id, seed=seed
    )
    found["repeat_first_loss"], found["repeat_second_loss"] = first, second
    found["induction_gain"] = first - second
    rows = [
        {
            "metric": metric,
            "value": float(values.mean()),
            "n": len(values),
            "se": float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.nan,
        }
        for metric, values in found.items()
    ]
    return tidy(rows, model=name, step=step, seed=seed)


def repeat_losses(
    model: Any,
    symbols: Integer[np.ndarray, " symbol"],
    *,
    n: int,
    bos: int,
    period: int = REPEAT_PERIOD,
    seed: int = 0,
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Mean loss in nats of the first and of the second period of ``n`` repeated sequences.

    The second period counts whole, with its first token, which nothing before it announces.
    """
    tokens = repeated_tokens(symbols, n, period=period, length=1 + 2 * period, bos=bos, seed=seed)
    losses = token_losses(model, tokens)
    return losses[:, :period].mean(1), losses[:, period:].mean(1)
