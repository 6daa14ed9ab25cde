"""Types of jumps: K-means on phase, magnitude and speed, and whether there are types at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headspec.errors import InputError, check_choice
from headspec.results import tidy
from headspec.series.jump_rows import JumpSource, jump_rows
from headspec.series.jump_type_null import bootstrap_rand, kmeans_silhouettes, single_hump_draws
from headspec.stats import summarise_null

Scale = Literal["log", "linear"]
_FEATURES = ("phase", "magnitude", "speed")
_TOO_FEW = 10
_STARTS = 20


@dataclass(frozen=True, eq=False)
class JumpTypes:
    """Jumps in types, and the evidence that there is more than one.

    Attributes:
        jumps: the rows classified, with the column `type` (1 the earliest on average).
        types: one row a type: `type n share`, means of `phase` and the range `phase_first
            phase_last`, medians of `magnitude` and `speed`, `increases` (share) and `layers`
            (how many distinct ones).
        n_types: number of types.
        chosen: how: `"given"`, `"silhouette"` (the best one beats its null) or `"one"` (it does
            not, or there are too few jumps to ask).
        silhouettes: frame `n_types silhouette`, of the jumps tested.
        null_mean, null_sd, p: of the largest of those silhouettes, over draws with one hump; nan
            where it was not asked.
        stability: mean adjusted Rand index between these types and those of bootstrap samples: 1
            the same, 0 chance; nan for one type.
        scale, features: what was clustered.
        notes: what a reader should know, in words.
        seed: of it all.
    """

    jumps: pd.DataFrame
    types: pd.DataFrame
    n_types: int
    chosen: str
    silhouettes: pd.DataFrame
    null_mean: float
    null_sd: float
    p: float
    stability: float
    scale: Scale
    features: tuple[str, ...]
    notes: tuple[str, ...]
    seed: int

    @property
    def labels(self) -> Int[np.ndarray, " jump"]:
        """Type of each jump, from 1, in the order of the jumps."""
        return self.jumps["type"].to_numpy(np.int64)

    def to_frame(self) -> pd.DataFrame:
        """The tidy rows of the jumps with the column `type`."""
        return tidy(self.jumps)

    def summary(self) -> str:
        """The types, why so many, how stable, and the notes."""
        rows: Any = self.types
        listed = "; ".join(
            f"type {row.type}: {row.n} at phase {row.phase:.3f}, magnitude {row.magnitude:.2g}"
            for row in rows.itertuples()
        )
        types = f"{self.n_types} type{'s' * (self.n_types > 1)} ({self.chosen})"
        text = f"{len(self.jumps)} jumps in {types}. {listed}."
        if np.isfinite(self.p):
            text += (
                f" Best silhouette {self.silhouettes['silhouette'].max():.3f}, {self.null_mean:.3f}"
                f" ± {self.null_sd:.3f} where there is one hump (p = {self.p:.2g})."
            )
        if np.isfinite(self.stability):
            text += f" Stability (adjusted Rand) {self.stability:.2f}."
        return "\n".join([text, *(f"Note: {note}." for note in self.notes)])


def classify_jumps(
    jumps: JumpSource,
    *,
    n_types: int | None = None,
    scale: Scale = "log",
    max_types: int = 6,
    n_tested: int = 150,
    n_null: int = 99,
    n_resamples: int = 20,
    alpha: float = 0.05,
    seed: int = 0,
) -> JumpTypes:
    """Put jumps into types by K-means on standardised phase, magnitude and speed.

    The number of types is the one with the largest mean silhouette among 2 ... max_types, if that
    silhouette exceeds what the same search finds in points with a single hump along each feature
    (see `single_hump_draws`) with p <= alpha; otherwise there is one type. K-means cuts any cloud
    into as many parts as it is asked for, and the silhouettes of a skewed cloud can be high: a
    large silhouette is no evidence without its null.

    Args:
        jumps: `Jumps` or its frame, with phase, magnitude and speed.
        n_types: how many; None to choose. (The study took 5.)
        scale: `"log"`: magnitude and speed by their logarithm, since they span decades (zeros at
            half the smallest positive value); `"linear"`: as they are, which is the study's rule
            and makes a type of every few extreme jumps.
        max_types: most types to try.
        n_tested: jumps that the search and its null look at, drawn at random if there are more.
        n_null: draws of the null.
        n_resamples: bootstrap samples for the stability; 0 leaves it out.
        alpha: rate of finding types where there are none.
        seed: of the starts, the draws and the samples.

    Returns:
        A `JumpTypes`; types are numbered by their mean phase. A feature that is constant, or
        equal to another but for scale (speed, where every jump took the same number of updates),
        is left out and noted. Fewer than 10 jumps are one type.

    Raises:
        InputError: columns missing or not finite, no jumps, magnitudes below 0, or n_types outside
            1 to the number of jumps.

    What it does not show: that types have causes of their own. Silhouettes compare with one hump
    along each feature: two humps may be two runs, two metrics or two units, so classify jumps of
    one metric; and a bent dependence of two features can be cut into types as well.

    References:
        MacQueen 1967 (K-means); Rousseeuw 1987 (silhouette); Tibshirani, Walther, Hastie 2001
        (reference distributions); Hennig 2007 (bootstrap stability).

    Example:
        >>> import numpy as np
        >>> import pandas as pd
        >>> from headspec.series.jump_types import classify_jumps
        >>> late = np.repeat([0, 1], 30)
        >>> noise = np.random.default_rng(0).normal(size=(2, 60))
        >>> size = 10 ** (late + 0.1 * noise[0])
        >>> jumps = pd.DataFrame({"step": np.arange(60), "phase": 0.1 + 0.8 * late,
        ...                       "magnitude": size, "speed": size ** 2 + 0.1})
        >>> classify_jumps(jumps).types["n"].tolist()
        [30, 30]
    """
    check_choice("scale", scale, get_args(Scale))
    rows: Any = jump_rows(jumps, needs=_FEATURES)
    _check(rows, n_types, max_types, alpha * (1 + n_null))
    points, features, notes = _features(rows, scale)
    silhouettes, null = _evidence(points, max_types, n_tested, n_null, seed, asked=n_types is None)
    chosen, count = "given", n_types or 1
    if n_types is None:
        found = null is not None and null.p_value <= alpha
        chosen = "silhouette" if found else "one"
        if found:
            count = 2 + int(np.nanargmax(silhouettes["silhouette"]))
        if len(rows) < _TOO_FEW:
            notes.append(f"{len(rows)} jumps are too few to look for types")
    labels = _ordered_labels(points, rows["phase"].to_numpy(), count, seed)
    stability = np.nan
    if count > 1 and n_resamples:
        options = {"count": count, "n_resamples": n_resamples, "seed": seed}
        stability = float(np.nanmean(bootstrap_rand(points, labels, **options)))
    rows["type"] = labels
    return JumpTypes(
        jumps=tidy(rows.drop(columns="run")),
        types=_table(rows),
        n_types=count,
        chosen=chosen,
        silhouettes=silhouettes,
        null_mean=np.nan if null is None else null.mean,
        null_sd=np.nan if null is None else null.sd,
        p=np.nan if null is None else null.p_value,
        stability=stability,
        scale=scale,
        features=features,
        notes=tuple(notes),
        seed=seed,
    )


def _features(rows: Any, scale: Scale) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    """Standardised features, `jump feature`, their names, and notes on those left out."""
    points, names, notes = [], [], []
    for name in _FEATURES:
        column = rows[name].to_numpy(float)
        if scale == "log" and name != "phase":
            positive = column[column > 0]
            column = np.log10(np.maximum(column, positive.min() / 2 if positive.size else 1.0))
        if column.std() <= 1e-12 * max(1e-300, np.abs(column).max()):
            notes.append(f"{name} is the same for all jumps and left out")
            continue
        column = (column - column.mean()) / column.std()
        twin = [
            n for n, other in zip(names, points, strict=True) if (column * other).mean() > 0.999
        ]
        if twin:
            notes.append(f"{name} says the same as {twin[0]} here and is left out")
            continue
        points.append(column)
        names.append(name)
    empty = np.zeros((len(rows), 1))
    return (np.stack(points, axis=1) if points else empty), tuple(names), notes


def _evidence(
    points: np.ndarray, max_types: int, n_tested: int, n_null: int, seed: int, *, asked: bool
) -> tuple[pd.DataFrame, Any]:
    """Silhouettes of the tested jumps, and the null of the largest (None where not asked)."""
    rng = np.random.default_rng(seed)
    tested = points[np.sort(rng.permutation(len(points))[:n_tested])]
    places = len(np.unique(tested, axis=0))
    largest = min(max_types, places - 1) if len(points) >= _TOO_FEW else 0
    counts = tuple(range(2, largest + 1))
    values = kmeans_silhouettes(tested[None], counts=counts, seed=seed)[:, 0]
    frame = pd.DataFrame({"n_types": np.array(counts, dtype=np.int64), "silhouette": values})
    if not asked or not np.isfinite(values).any():
        return frame, None
    draws = single_hump_draws(tested, n_draws=n_null, seed=seed)
    draws = (draws - draws.mean(1, keepdims=True)) / draws.std(1, keepdims=True)
    null = kmeans_silhouettes(draws, counts=counts, seed=seed).max(axis=0)
    return frame, summarise_null(float(np.nanmax(values)), null)


def _ordered_labels(
    points: Float[np.ndarray, "jump feature"],
    phase: Float[np.ndarray, " jump"],
    count: int,
    seed: int,
) -> Int[np.ndarray, " jump"]:
    """Types from 1, in the order of their mean phases."""
    from sklearn.cluster import KMeans

    if count == 1:
        return np.ones(len(points), dtype=np.int64)
    labels = KMeans(count, n_init=_STARTS, random_state=seed).fit_predict(points)  # pyright: ignore[reportArgumentType]
    found = np.unique(labels)
    means = [phase[labels == label].mean() for label in found]
    rank = np.empty(count, dtype=np.int64)
    rank[found[np.argsort(means, kind="stable")]] = 1 + np.arange(len(found))
    return rank[labels]


def _table(rows: Any) -> pd.DataFrame:
    """One row a type."""
    table = []
    for name, own in rows.groupby("type"):
        rises = (own["direction"] == "increase").mean() if "direction" in own else np.nan
        table.append(
            {
                "type": int(name),
                "n": len(own),
                "share": len(own) / len(rows),
                "phase": own["phase"].mean(),
                "phase_first": own["phase"].min(),
                "phase_last": own["phase"].max(),
                "magnitude": own["magnitude"].median(),
                "speed": own["speed"].median(),
                "increases": float(rises),
                "layers": own["layer_name"].nunique(),
            }
        )
    return pd.DataFrame(table)


def _check(rows: Any, n_types: int | None, max_types: int, least_p: float) -> None:
    if not len(rows) or (rows[["magnitude", "speed"]] < 0).any(axis=None):
        raise InputError(
            expected="jumps with magnitudes and speeds of 0 or more",
            got=f"{len(rows)} jumps",
            fix="Lower the threshold of the detector, or leave the types out.",
        )
    if max_types < 2 or (n_types is not None and not 1 <= n_types <= len(rows)) or least_p < 1:
        raise InputError(
            expected=f"n_types from 1 to {len(rows)}, max_types from 2 up, n_null >= 1 / alpha",
            got=f"n_types {n_types}, max_types {max_types}",
            fix="Leave them at their defaults.",
        )
