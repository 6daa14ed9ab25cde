"""Probes for the layers or heads of a model, its activations streamed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor

from headspec.activations.probe_fitting import FittedProbe, answer_question, pose_question
from headspec.activations.probe_kinds import ProbeKind
from headspec.activations.probe_result import Probes, collect_probes
from headspec.activations.probes import L2_GRID
from headspec.errors import InputError, check_choice
from headspec.lens.hooks import hook_name, run_to_layer
from headspec.lens.processing import origin_of
from headspec.lens.token_ids import check_vocabulary, whole_numbers

ProbeSite = Literal["resid_post", "resid_pre", "attn_out", "mlp_out", "z"]


def probe_model(
    model: Any,
    tokens: Integer[Tensor | np.ndarray, "sequence pos"],
    labels: Integer[Tensor | np.ndarray, "sequence pos"],
    *,
    site: ProbeSite = "resid_post",
    layers: Iterable[int] | None = None,
    kind: ProbeKind = "logistic",
    control: bool = True,
    token_types: Integer[Tensor | np.ndarray, "sequence pos"] | None = None,
    tokens_per_sequence: int | None = 32,
    l2: Sequence[float] = L2_GRID,
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
    level: float | int = 0.95,
    n_bootstrap: int = 1000,
    seed: int = 0,
    batch_size: int = 8,
    max_bytes: int = 2_000_000_000,
    device: torch.device | str | None = None,
) -> Probes:
    """Linear probes of every layer of a model (or head, at `site="z"`), split by sequence.

    Activations are kept of the tokens drawn alone, and of as many layers at a time as
    `max_bytes` holds; for more layers the forward pass, up to the last layer needed, is repeated.
    Sequences that are the same count as one group.

    Args:
        model: a hooked model of either class.
        tokens: token ids.
        labels: class of each token; -1 leaves it out.
        site: `"resid_post" "resid_pre" "attn_out" "mlp_out"`, or `"z"`: what each head's
            attention gathers, before the output projection.
        layers: which layers; all by default. With `"resid_post"`, -1 is what enters layer 0 (the
            embeddings).
        kind, control, l2, fractions, level, n_bootstrap, seed: as in `fit_probes`.
        token_types: types of the control task; the tokens themselves by default.
        tokens_per_sequence: labelled tokens drawn from each sequence, seeded; None: all. Tokens
            of a sequence say much the same: more sequences help more than more tokens of each.
        batch_size: sequences in one forward pass.
        max_bytes: of activations kept.
        device: where probes are fitted; the model's device by default.

    Returns:
        Probes over `layer`, or `layer head` for `"z"`, as from `fit_probes`.

    Raises:
        InputError: a layer that the model does not have, shapes that differ, and as `fit_probes`.

    Example:
        >>> probes = probe_model(model, tokens, topics)              # doctest: +SKIP
        >>> probes.to_frame().query("metric == 'selectivity'")       # doctest: +SKIP
    """
    check_choice("site", site, get_args(ProbeSite))
    check_choice("kind", kind, get_args(ProbeKind))
    numbers = _check_layers(layers, site, model.cfg.n_layers)
    ids, classes = whole_numbers(tokens).numpy(), whole_numbers(labels).numpy()
    types = ids if token_types is None else whole_numbers(token_types).numpy()
    if not ids.shape == classes.shape == types.shape:
        raise InputError(
            expected=f"a label (and type) for every token, shape {list(ids.shape)}",
            got=f"labels {list(classes.shape)}, token types {list(types.shape)}",
            fix="Give label -1 to tokens that have none.",
        )
    check_vocabulary(torch.from_numpy(ids), model)
    rows, columns = draw_positions(classes >= 0, per_row=tokens_per_sequence, seed=seed)
    question = pose_question(
        classes[rows, columns],
        first_copies(ids)[rows],
        token_types=types[rows, columns],
        control=control,
        kind=kind,
        l2=l2,
        fractions=fractions,
        level=level,
        n_bootstrap=n_bootstrap,
        seed=seed,
    )
    where = torch.device(model.cfg.device if device is None else device)
    fitted: list[FittedProbe] = []
    heads: tuple[int, ...] = ()
    left = list(numbers)
    while left:
        kept = _collect(model, ids, (rows, columns), left, site, batch_size, max_bytes)
        for layer, activations in kept.items():
            heads = tuple(activations.shape[1:-1])
            for place in np.ndindex(heads):
                part = activations[(slice(None), *place)]
                what = f"{site} of layer {layer}" + "".join(f", head {head}" for head in place)
                fitted.append(answer_question(question, part, device=where, what=what))
        left = left[len(kept) :]
    origin = origin_of(model)
    return collect_probes(
        question,
        fitted,
        stack=(len(numbers), *heads),
        layers=numbers,
        site=site,
        model=origin.model,
        step=origin.step,
        processing=origin.processing,
    )


def draw_positions(
    allowed: np.ndarray, *, per_row: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of up to `per_row` allowed positions of each row, in order."""
    if per_row is not None:
        if per_row < 1:
            raise InputError(
                expected="at least one token of each sequence",
                got=f"tokens_per_sequence={per_row}",
                fix="Give a number above 0, or None for all.",
            )
        keys = np.random.default_rng([seed, 3]).random(allowed.shape)
        keys[~allowed] = np.inf
        if per_row < allowed.shape[1]:
            limit = np.partition(keys, per_row - 1, axis=1)[:, per_row - 1 : per_row]
            allowed = allowed & (keys <= limit)
    rows, columns = np.nonzero(allowed)
    return rows, columns


def first_copies(ids: np.ndarray) -> np.ndarray:
    """For each row, the number of the first row that is the same."""
    _, first, member = np.unique(ids, axis=0, return_index=True, return_inverse=True)
    return first[member.reshape(-1)]


@torch.no_grad()
def _collect(
    model: Any,
    ids: np.ndarray,
    positions: tuple[np.ndarray, np.ndarray],
    layers: list[int],
    site: str,
    batch_size: int,
    max_bytes: int,
) -> dict[int, Tensor]:
    """Activations at the positions, on the CPU: `token d_model` or `token head d_head`.

    Of as many of the first layers as `max_bytes` holds, one at least.
    """
    rows, columns = positions
    width = model.cfg.n_heads * model.cfg.d_head if site == "z" else model.cfg.d_model
    size = next(model.parameters()).element_size()
    at_once = layers[: max(1, max_bytes // max(1, len(rows) * width * size))]
    kept: dict[int, Tensor] = {}
    for start in range(0, len(ids), batch_size):
        first, last = np.searchsorted(rows, [start, start + batch_size])
        if first == last:
            continue
        batch = torch.from_numpy(ids[start : start + batch_size]).to(model.cfg.device)
        place = (
            torch.from_numpy(rows[first:last] - start).to(batch.device),
            torch.from_numpy(columns[first:last]).to(batch.device),
        )

        def store(layer: int, place: Any = place, part: slice = slice(first, last)):
            def hook(activation: Tensor) -> None:
                found = activation[place].detach()
                if layer not in kept:
                    shape = (len(rows), *found.shape[1:])
                    kept[layer] = torch.empty(shape, dtype=found.dtype)
                kept[layer][part] = found.cpu()

            return hook

        functions = {
            hook_name(0, "resid_pre") if layer < 0 else hook_name(layer, site): store(layer)
            for layer in at_once
        }
        run_to_layer(model, batch, functions, layer=max(0, *at_once) + 1)
    return {layer: kept[layer] for layer in at_once}


def _check_layers(layers: Iterable[int] | None, site: str, n_layers: int) -> tuple[int, ...]:
    numbers = tuple(range(n_layers)) if layers is None else tuple(dict.fromkeys(layers))
    lowest = -1 if site == "resid_post" else 0
    if not numbers or min(numbers) < lowest or max(numbers) >= n_layers:
        raise InputError(
            expected=f"layers from {lowest} to {n_layers - 1} at {site}",
            got=str(list(numbers)),
            fix="Layers are counted from 0; with site='resid_post', -1 is the embeddings.",
        )
    return numbers
