"""Shapley values of a set function: exact from all sets, sampled from permutations."""

from __future__ import annotations

from math import comb

import numpy as np
from jaxtyping import Float, Int

from headspec.errors import InputError


def exact_shapley(values: Float[np.ndarray, "set example"]) -> Float[np.ndarray, "head example"]:
    """Shapley values of n players from the value of every set of them.

    phi_i = sum over sets S without i of |S|! (n - 1 - |S|)! / n! (v(S + i) - v(S)): the mean
    marginal contribution of i over all orders in which players can join. They are the only values
    that sum to v(all) - v(none) (efficiency), are equal for players that contribute alike
    (symmetry), 0 for players that never contribute (dummy), and linear in v.

    Args:
        values: of all 2^n sets; bit i of a row's index says whether player i is in the set.

    Raises:
        InputError: a number of rows that is no power of two.

    References:
        Shapley 1953, "A value for n-person games".

    Example:
        >>> exact_shapley(np.array([[0.0], [1.0], [2.0], [5.0]])).ravel().tolist()
        [2.0, 3.0]
    """
    n = len(values).bit_length() - 1
    if len(values) != 2**n:
        raise InputError(
            expected="the values of all 2^n sets of n players",
            got=f"{len(values)} values",
            fix="Order them by the bits of their index: row 5 is the set {0, 2}.",
        )
    index = np.arange(len(values))
    sizes = np.array([int(number).bit_count() for number in index])
    weights = np.array([1 / (n * comb(n - 1, size)) if size < n else 0.0 for size in range(n + 1)])
    shapley = np.empty((n, values.shape[1]))
    for player in range(n):
        without = index[(index >> player) % 2 == 0]
        gains = values[without + (1 << player)] - values[without]
        shapley[player] = weights[sizes[without]] @ gains
    return shapley


def antithetic_orders(n: int, *, n_samples: int, seed: int) -> Int[np.ndarray, "order player"]:
    """Random orders of n players, each followed by its reverse.

    In the reverse order a player joins those that came after it: where contributions shrink as
    sets grow, one is too large and the other too small, and their mean varies less.

    Args:
        n: players.
        n_samples: orders, even.
        seed: of the draw.

    Raises:
        InputError: fewer than four orders (two pairs, for a standard error), or an odd number.
    """
    if n_samples < 4 or n_samples % 2:
        raise InputError(
            expected="an even number of sampled orders, 4 or more",
            got=f"n_samples={n_samples}",
            fix="Orders are drawn in pairs; 128 is a start.",
        )
    rng = np.random.default_rng(seed)
    orders = rng.permuted(np.tile(np.arange(n), (n_samples // 2, 1)), axis=1)
    return np.stack([orders, orders[:, ::-1]], axis=1).reshape(n_samples, n)


def sampled_shapley(
    orders: Int[np.ndarray, "order player"], values: Float[np.ndarray, "order size example"]
) -> tuple[Float[np.ndarray, "head example"], Float[np.ndarray, " head"]]:
    """Shapley values from sampled orders, and the standard errors of their means over examples.

    Args:
        orders: as `antithetic_orders` gives them, pairs next to each other.
        values: `values[o, k]` of the set of the first k players of order o, k = 0 .. n.

    Returns:
        Values, and sampling errors from the spread of pairs: they leave out how the values would
        vary with other examples.

    References:
        Castro, Gómez and Tejada 2009; antithetic pairs: Mitchell et al. 2022, arXiv 2104.12199.
    """
    gains = np.diff(values, axis=1)  # order, place in the order, example
    place = np.argsort(orders, axis=1)
    by_player = np.take_along_axis(gains, place[..., None], axis=1)
    pairs = by_player.reshape(-1, 2, *by_player.shape[1:]).mean(1)  # pair player example
    errors = pairs.mean(2).std(0, ddof=1) / np.sqrt(len(pairs))
    return pairs.mean(0), errors
