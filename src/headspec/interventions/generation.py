"""Generate text under an intervention that stays where it was put."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from headspec.errors import InputError
from headspec.interventions.decoding import open_decoder
from headspec.interventions.edits import Edit, Intervention
from headspec.interventions.placed_edits import check_placed_edit, covers
from headspec.interventions.replay_checks import check_edit, check_tokens, checked_mask
from headspec.lens.processing import origin_of
from headspec.results import tidy


@dataclass(frozen=True, eq=False)
class GeneratedTokens:
    """Generated tokens, and which columns were intervened on.

    Attributes:
        tokens: prompts (padded as given) followed by what was generated.
        log_probs: log-probability of each generated token under the intervention, in nats, at
            temperature 1.
        lengths: generated tokens of each row up to its stop token; what follows repeats that.
        n_prompt: columns of the prompts.
        texts: what was generated, as text; None without a tokenizer.
        edits: what was replaced, by layer, site and heads.
        changed_positions: of each of these, the absolute columns that it replaced in any row.
            Column `n_prompt` holds the first generated token.
        is_cached: whether keys and values were kept; `reason` says why not.
        temperature, seed: of the sampling.
        model, step, processing: where the model comes from.
    """

    tokens: Int[Tensor, "batch pos"]
    log_probs: Float[Tensor, "batch new"]
    lengths: Int[Tensor, " batch"]
    n_prompt: int
    texts: tuple[str, ...] | None
    edits: tuple[str, ...]
    changed_positions: tuple[tuple[int, ...], ...]
    is_cached: bool
    reason: str
    temperature: float
    seed: int
    model: str = ""
    step: int | None = None
    processing: str = "none"

    @property
    def new_tokens(self) -> Int[Tensor, "batch new"]:
        """What was generated."""
        return self.tokens[:, self.n_prompt :]

    def to_frame(self) -> pd.DataFrame:
        """One row a generated token: `value` is its log-probability.

        Extra columns: row, position (absolute column), token, processing. Each row's tokens
        after its stop token are left out.
        """
        rows = [
            {
                "value": float(self.log_probs[row, i]),
                "row": row,
                "position": self.n_prompt + i,
                "token": int(self.new_tokens[row, i]),
            }
            for row in range(len(self.tokens))
            for i in range(int(self.lengths[row]))
        ]
        return tidy(
            rows,
            model=self.model,
            step=self.step,
            metric="log_prob",
            n=len(self.tokens),
            seed=self.seed,
            processing=self.processing,
        )

    def summary(self) -> str:
        """How much was generated and how, and which columns each edit replaced."""
        how = "greedily" if self.temperature == 0 else f"at temperature {self.temperature:g}"
        lines = [
            f"{self.log_probs.shape[1]} tokens generated {how} for {len(self.tokens)} prompts of "
            f"{self.n_prompt} columns"
            + (", keys and values cached." if self.is_cached else f", uncached: {self.reason}.")
        ]
        for edit, columns in zip(self.edits, self.changed_positions, strict=True):
            lines.append(f"{edit} replaced in columns {_ranges(columns)}.")
        if not self.edits:
            lines.append("Nothing was replaced.")
        return " ".join(lines)


@torch.no_grad()
def generate_tokens(
    model: Any,
    tokens: Int[Tensor, "batch pos"],
    *,
    interventions: Sequence[Edit] = (),
    generated: Sequence[Edit] | Callable[[int], Sequence[Edit]] = (),
    max_new_tokens: int = 20,
    temperature: float | int = 0.0,
    stop: Sequence[int] = (),
    attention_mask: Int[Tensor, "batch pos"] | None = None,
    cached: bool = True,
    seed: int = 0,
) -> GeneratedTokens:
    """Continue prompts while activations are replaced in named columns, and in no others.

    A hook left on during cached decoding sees one column at a time and takes it for column 0: it
    writes what belongs to the first token of the prompt over every generated one. Here edits
    are tied to absolute columns: those of `interventions` act on the prompt only, whose keys and
    values then carry the change on; generated columns are edited by `generated` alone.

    Args:
        model: a hooked model of either class, causal.
        tokens: prompts, token ids, padded on the left.
        interventions: edits with values (and `where`) of the prompt's columns.
        generated: edits of generated columns, whose values have one column (patterns: one query,
            keys from column 0 on) or broadcast; or a function that gives the edits of the column
            which holds generated token i, counted from 0. The last token is never run.
        max_new_tokens: how many to generate.
        temperature: 0 takes the most probable token; otherwise tokens are drawn from
            softmax(logits / temperature).
        stop: tokens that end a row.
        attention_mask: 1 for tokens, 0 for padding.
        cached: False: a whole forward pass for each token, the same tokens.
        seed: of the draws; the global generator is not used.

    Returns:
        `GeneratedTokens`. What it does not show: one greedy text per prompt is one trial however
        often it is repeated; graded metrics on many prompts tell more.

    Raises:
        InputError: more columns than the model's context, edits that do not fit, a negative
            temperature, padding on the right.

    Example:
        >>> silent = Edit(2, "z", torch.zeros(()), heads=(1,))                    # doctest: +SKIP
        >>> out = generate_tokens(model, tokens, interventions=[silent])          # doctest: +SKIP
        >>> out.texts, out.changed_positions                                      # doctest: +SKIP
    """
    prompt = tokens.to(model.cfg.device)
    n_prompt, total = prompt.shape[1], prompt.shape[1] + max_new_tokens
    temperature = float(temperature)
    _check(model, prompt, interventions, total=total, n_new=max_new_tokens, temperature=temperature)
    if not callable(generated):
        _generated_edits(generated, 0, model.cfg, prompt)
    mask = checked_mask(attention_mask, prompt)
    decoder, reason = open_decoder(model, prompt, mask, total=total, cached=cached)
    generator = torch.Generator().manual_seed(seed)
    touched: dict[str, list[int]] = {}
    running = torch.ones(len(prompt), dtype=torch.bool)
    lengths = torch.zeros(len(prompt), dtype=torch.long)
    ends = torch.tensor(list(stop), dtype=torch.long)
    chosen: list[Tensor] = []
    log_probs: list[Tensor] = []
    new, start, edits = prompt, 0, tuple(interventions)
    for i in range(max_new_tokens):
        _note(touched, edits, start=start, n=new.shape[1])
        logits = decoder.advance(new, _on(edits, prompt.device)).float().cpu()
        token = _choose(logits, temperature, generator)
        token = torch.where(running, token, chosen[-1] if chosen else token)
        chosen.append(token)
        log_probs.append(logits.log_softmax(-1).gather(1, token[:, None])[:, 0])
        lengths += running
        running &= ~torch.isin(token, ends)
        new, start = token[:, None].to(prompt.device), n_prompt + i
        if not running.any():
            chosen += [token] * (max_new_tokens - len(chosen))
            log_probs += [torch.zeros(len(token))] * (max_new_tokens - len(log_probs))
            break
        if i + 1 < max_new_tokens:
            edits = _generated_edits(generated, i, model.cfg, prompt)
    found = torch.stack(chosen, 1)
    origin = origin_of(model)
    return GeneratedTokens(
        tokens=torch.cat([prompt.cpu(), found], 1),
        log_probs=torch.stack(log_probs, 1),
        lengths=lengths,
        n_prompt=n_prompt,
        texts=_texts(model, found, lengths),
        edits=tuple(touched),
        changed_positions=tuple(tuple(sorted(set(columns))) for columns in touched.values()),
        is_cached=not reason,
        reason=reason,
        temperature=temperature,
        seed=seed,
        model=origin.model,
        step=origin.step,
        processing=origin.processing,
    )


def _choose(
    logits: Float[Tensor, "batch d_vocab"], temperature: float, generator: torch.Generator
) -> Int[Tensor, " batch"]:
    if temperature == 0:
        return logits.argmax(-1)
    weights = (logits.double() / temperature).softmax(-1)
    return torch.multinomial(weights, 1, generator=generator)[:, 0]


def _note(touched: dict[str, list[int]], edits: Intervention, *, start: int, n: int) -> None:
    """Add the columns that each edit replaces to those of its layer, site and heads."""
    for edit in edits:
        heads = "" if edit.heads is None else f" heads {', '.join(map(str, edit.heads))}"
        name = f"L{edit.layer} {edit.site}{heads}"
        touched.setdefault(name, []).extend(covers(edit, start=start, n=n))


def _generated_edits(
    generated: Sequence[Edit] | Callable[[int], Sequence[Edit]], i: int, cfg: Any, prompt: Tensor
) -> Intervention:
    """The edits of the column that holds generated token i, checked."""
    edits = tuple(generated(i) if callable(generated) else generated)
    for edit in edits:
        check_placed_edit(edit, cfg, column=prompt.shape[1] + i, n_rows=len(prompt))
    return edits


def _on(edits: Intervention, device: Any) -> Intervention:
    return tuple(
        Edit(e.layer, e.site, e.values.to(device), heads=e.heads, where=_moved(e.where, device))
        for e in edits
    )


def _moved(tensor: Tensor | None, device: Any) -> Tensor | None:
    return None if tensor is None else tensor.to(device)


def _texts(model: Any, found: Tensor, lengths: Tensor) -> tuple[str, ...] | None:
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        return None
    rows = zip(found.tolist(), lengths.tolist(), strict=True)
    return tuple(tokenizer.decode(row[:length]) for row, length in rows)


def _ranges(columns: Sequence[int]) -> str:
    """`"0-3, 5"`"""
    parts: list[list[int]] = []
    for column in columns:
        if parts and column == parts[-1][-1] + 1:
            parts[-1].append(column)
        else:
            parts.append([column])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts) or "none"


def _check(
    model: Any,
    prompt: Tensor,
    edits: Sequence[Edit],
    *,
    total: int,
    n_new: int,
    temperature: float,
) -> None:
    if n_new < 1 or temperature < 0:
        raise InputError(
            expected="max_new_tokens of 1 or more and a temperature of 0 (greedy) or more",
            got=f"max_new_tokens={n_new}, temperature={temperature}",
            fix="Change it.",
        )
    check_tokens(prompt, model.cfg)
    n_ctx = getattr(model.cfg, "n_ctx", None) or total
    if total > n_ctx:
        raise InputError(
            expected=f"prompt and generated tokens within the model's context of {n_ctx}",
            got=f"{prompt.shape[1]} + {n_new}",
            fix="Generate fewer tokens, or shorten the prompts.",
        )
    for edit in edits:
        check_edit(edit, model.cfg, prompt)
