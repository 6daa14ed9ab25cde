"""Train, validation and test by group: no sequence on two sides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from headspec.errors import InputError

_TRIES = 200


@dataclass(frozen=True)
class GroupSplit:
    """Indices of samples; `test_groups` numbers the group of each test sample from 0."""

    train: Int[np.ndarray, " train"]
    validation: Int[np.ndarray, " validation"]
    test: Int[np.ndarray, " test"]
    test_groups: Int[np.ndarray, " test"]
    n_groups: tuple[int, int, int]


def split_by_group(
    codes: Int[np.ndarray, " sample"],
    groups: Int[np.ndarray, " sample"],
    *,
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
    seed: int = 0,
) -> GroupSplit:
    """Groups at random to train, validation and test, every class in each of them.

    Divisions that leave a class out of a part are drawn again.

    Args:
        codes: class of each sample, from 0.
        groups: group of each sample.
        fractions: shares of groups.
        seed: of the division.

    Raises:
        InputError: shares that do not sum to one; fewer than two groups in a part; a class that
            no division brings into every part.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise InputError(
            expected="three shares above 0 that sum to 1, for train, validation and test",
            got=str(fractions),
            fix="For instance fractions=(0.6, 0.2, 0.2).",
        )
    names, member = np.unique(groups, return_inverse=True)
    n_validation, n_test = (round(share * len(names)) for share in fractions[1:])
    sizes = (len(names) - n_validation - n_test, n_validation, n_test)
    if min(sizes) < 2:
        raise InputError(
            expected="at least two groups in each of train, validation and test",
            got=f"{len(names)} groups, divided into {sizes[0]}, {sizes[1]} and {sizes[2]}",
            fix="Give more groups (sequences); samples of one group cannot be on two sides. "
            "With few, intervals over test groups mean little: 20 test groups or more are better.",
        )
    n_classes = int(codes.max()) + 1
    has = np.zeros((len(names), n_classes), dtype=bool)
    has[member, codes] = True
    rng = np.random.default_rng(seed)
    for _ in range(_TRIES):
        order = rng.permutation(len(names))
        parts = np.split(order, np.cumsum(sizes)[:-1])
        if all(has[part].any(0).all() for part in parts):
            return _as_indices(member, parts, len(names))
    rare = int(has.sum(0).argmin())
    raise InputError(
        expected="every class in train, validation and test",
        got=f"class number {rare} (of the sorted labels) in {int(has[:, rare].sum())} of "
        f"{len(names)} groups, and no division out of {_TRIES} that has every class in every part",
        fix="Give more groups with that class, or leave it out (label -1).",
    )


def _as_indices(member: np.ndarray, parts: list[np.ndarray], n_groups: int) -> GroupSplit:
    part_of = np.empty(n_groups, dtype=int)
    place = np.empty(n_groups, dtype=int)
    for number, part in enumerate(parts):
        part_of[part] = number
        place[np.sort(part)] = np.arange(len(part))
    train, validation, test = (np.flatnonzero(part_of[member] == number) for number in range(3))
    n_train, n_validation, n_test = map(len, parts)
    return GroupSplit(train, validation, test, place[member[test]], (n_train, n_validation, n_test))
