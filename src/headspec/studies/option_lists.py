"""Names and seeds as command lines write them."""

from __future__ import annotations

from headspec.errors import InputError


def parse_names(text: str) -> tuple[str, ...]:
    """Names from text such as `"mha,gqa"`; none from nothing."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds from text such as `"0,1,2"`.

    Raises:
        InputError: something else than different whole numbers from 0.
    """
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError:
        seeds = ()
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise InputError(
            expected="different seeds, whole numbers from 0, parted by commas",
            got=repr(text),
            fix="For instance --seeds 0,1,2.",
        )
    return seeds
