"""Which token of one prompt corresponds to which of another: position maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from headspec.errors import InputError

Offsets = Sequence[tuple[int, int]]
"""First character and one past the last of each token."""


@dataclass(frozen=True)
class PositionMap:
    """Tokens of a clean and a corrupt prompt that correspond.

    Attributes:
        pairs: (clean token, corrupt token), rising in both, counted from 0 without a
            beginning-of-text token. Tokens that stand in no pair correspond to none.
        n_clean, n_corrupt: tokens in either prompt.

    Example:
        >>> PositionMap(((0, 1), (2, 3)), n_clean=3, n_corrupt=4).clean_of()
        (-1, 0, -1, 2)
    """

    pairs: tuple[tuple[int, int], ...]
    n_clean: int
    n_corrupt: int

    def __post_init__(self) -> None:
        limits = (self.n_clean, self.n_corrupt)
        inside = all(0 <= i < n for pair in self.pairs for i, n in zip(pair, limits, strict=True))
        rising = all(
            a < c and b < d for (a, b), (c, d) in zip(self.pairs, self.pairs[1:], strict=False)
        )
        if not (inside and rising):
            raise InputError(
                expected=f"pairs of tokens below {limits}, rising in both prompts",
                got=f"{self.pairs}",
                fix="A later token corresponds to a later one, and to one only.",
            )

    @staticmethod
    def identity(n: int) -> PositionMap:
        """Token i corresponds to token i."""
        return PositionMap(tuple((i, i) for i in range(n)), n, n)

    def clean_of(self) -> tuple[int, ...]:
        """For each corrupt token the clean one, -1 for none."""
        found = {corrupt: clean for clean, corrupt in self.pairs}
        return tuple(found.get(i, -1) for i in range(self.n_corrupt))

    def inverse(self) -> PositionMap:
        """The same pairs seen from the other prompt."""
        return PositionMap(tuple((b, a) for a, b in self.pairs), self.n_corrupt, self.n_clean)


def align_positions(
    clean: str, corrupt: str, tokenizer: Any, *, shared: str | Sequence[str]
) -> PositionMap:
    """A position map of two prompts that share some text, token by token.

    Tokens of each shared text correspond one to one, and the last token of one prompt to the last
    of the other (where the answer is predicted). All other tokens correspond to none.

    Args:
        clean, corrupt: the prompts.
        tokenizer: a fast tokenizer of transformers.
        shared: texts that occur once in both prompts.

    Returns:
        The map. What it does not show: that the model computes the same thing at corresponding
        tokens. Their absolute positions differ, and so does what stands before them.

    Raises:
        InputError: a text that does not occur once in each prompt, or is cut into other tokens.

    Example:
        >>> align_positions("Is it 9.8?", "Q: Is it 9.8? A:", tokenizer,
        ...                 shared="Is it 9.8?").pairs                    # doctest: +SKIP
        ((0, 2), (1, 3), ...)
    """
    rows = tokenizer([clean, corrupt], add_special_tokens=False, return_offsets_mapping=True)
    return align_offsets(
        clean, corrupt, tuple(rows["offset_mapping"]), shared=shared, tokenizer=tokenizer
    )


def align_offsets(
    clean: str,
    corrupt: str,
    offsets: tuple[Offsets, Offsets],
    *,
    shared: str | Sequence[str],
    tokenizer: Any = None,
) -> PositionMap:
    """`align_positions` for prompts whose token offsets are known."""
    texts = (clean, corrupt)
    pairs: set[tuple[int, int]] = set()
    for part in [shared] if isinstance(shared, str) else shared:
        counts = [text.count(part) if part else 0 for text in texts]
        if counts != [1, 1]:
            raise InputError(
                expected="shared text that stands once in each prompt",
                got=f"{part!r}, {counts[0]} times in {clean!r} and {counts[1]} in {corrupt!r}",
                fix="Name a longer or a shorter part of the prompts.",
            )
        found = [
            _tokens_within(text.index(part), len(part), offset)
            for text, offset in zip(texts, offsets, strict=True)
        ]
        if [cut for _, cut in found[0]] != [cut for _, cut in found[1]]:
            raise InputError(
                expected=f"{part!r} cut into the same tokens in both prompts",
                got=" and ".join(
                    str([text[a:b] for a, b in offset])
                    for text, offset in zip(texts, offsets, strict=True)
                ),
                fix="Share parts that start and end at the same token boundaries.",
            )
        pairs |= {(a, b) for (a, _), (b, _) in zip(*found, strict=True)}
    pairs.add((len(offsets[0]) - 1, len(offsets[1]) - 1))
    return PositionMap(tuple(sorted(pairs)), len(offsets[0]), len(offsets[1]))


def _tokens_within(start: int, length: int, offsets: Offsets) -> list[tuple[int, tuple[int, int]]]:
    """Tokens that overlap a part of the text, and where in the part each of them lies."""
    return [
        (token, (max(a - start, 0), min(b - start, length)))
        for token, (a, b) in enumerate(offsets)
        if a < start + length and b > start
    ]


def last_token(span: tuple[int, int], offsets: Offsets) -> int:
    """The last token that overlaps some characters (start and end); -1 if none does."""
    start, end = span
    found = _tokens_within(start, end - start, offsets)
    return found[-1][0] if found else -1


def map_activations(
    activation: Tensor, position_map: Int[Tensor, "batch pos"]
) -> tuple[Tensor, Bool[Tensor, "batch pos"]]:
    """Clean activations at the columns of the corrupt run, and where there are any.

    Args:
        activation: of the clean run, `batch clean_pos ...` (any site but `pattern`).
        position_map: for each column of the corrupt run the clean column, -1 for none:
            `TokenisedTask.position_map`.

    Returns:
        `values`, `batch pos ...`, and `where`: what an `Edit` takes. Values outside `where` are
        those of the first clean column, and no edit reads them.

    Raises:
        InputError: a map of other rows, or of columns that the activation lacks.

    Example:
        >>> values, where = map_activations(clean_z, task.position_map)   # doctest: +SKIP
        >>> edit = Edit(3, "z", values, heads=(0, 2), where=where)        # doctest: +SKIP
    """
    n_rows, n_pos = activation.shape[:2]
    if len(position_map) != n_rows or position_map.max() >= n_pos or position_map.min() < -1:
        raise InputError(
            expected=f"a map of {n_rows} rows to columns below {n_pos}, or -1",
            got=f"shape {list(position_map.shape)}, {int(position_map.min())} to "
            f"{int(position_map.max())}",
            fix="Use the position_map of the task whose clean run this is.",
        )
    index = position_map.to(activation.device)
    rows = torch.arange(n_rows, device=activation.device)[:, None]
    return activation[rows, index.clamp_min(0)], position_map >= 0


def invert_map(
    position_map: Int[Tensor, "*batch pos"], *, n_pos: int
) -> Int[Tensor, "*batch other_pos"]:
    """For each clean column the corrupt one, -1 for none: the map for noising.

    Args:
        position_map: for each corrupt column the clean one.
        n_pos: columns of the clean run.
    """
    lead, width = position_map.shape[:-1], position_map.shape[-1]
    found = torch.full((*lead, n_pos + 1), -1)  # one column more for those without counterpart
    index = torch.where(position_map < 0, n_pos, position_map).cpu().long()
    found.scatter_(-1, index, torch.arange(width).expand(index.shape))
    return found[..., :n_pos]
