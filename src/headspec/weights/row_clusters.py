"""Cluster the rows of any matrix (MLP neurons, embeddings), with the same nulls as heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.spatial.distance import pdist, squareform
from torch import Tensor

from headspec.errors import InputError
from headspec.results import tidy
from headspec.stats import NullSummary
from headspec.weights.cluster_algorithm import ClusterAlgorithm, ClusterOptions, cluster_algorithm
from headspec.weights.cluster_evidence import against_null
from headspec.weights.cluster_metrics import partition_metrics
from headspec.weights.cluster_nulls import gram_to_distances, permuted_distances, random_cosines
from headspec.weights.partitions import Method, ordered_labels

_SILHOUETTE_ROWS = 4000


@dataclass(frozen=True)
class RowClustering:
    """Clusters of the rows of a matrix, and the test of their existence on a subset of rows.

    Attributes:
        labels: cluster of each row, 0 the largest; -1 for DBSCAN's noise.
        sizes: rows in each cluster.
        silhouette: mean silhouette of this clustering (of a random 4,000 of its rows if it has
            more).
        tested_silhouette: silhouette when only `tested_rows` are clustered; `null_mean`,
            `null_sd`, `null_quantiles` (.05, .5, .95) and `p_value` belong to it, since null draws
            are as large as that subset. Equal to `silhouette` where all rows were tested.
        metrics: all metrics of the tested rows with their nulls; only the silhouette (with
            `unit_norm` also `separation_dimensionless`) has a p-value, see `has_p_value`.
        tested_rows: indices of the rows tested.
        norms: of all rows.
        method, n_clusters, chosen, unit_norm, null, n_null, seed, n_features: what was done.
        name: what the matrix is, for the frame.
    """

    labels: Int[np.ndarray, " row"]
    sizes: tuple[int, ...]
    silhouette: float
    tested_silhouette: float
    null_mean: float
    null_sd: float
    null_quantiles: tuple[float, float, float]
    p_value: float
    metrics: dict[str, NullSummary]
    tested_rows: Int[np.ndarray, " tested"]
    norms: Float[np.ndarray, " row"]
    method: str
    n_clusters: int
    chosen: str
    unit_norm: bool
    null: str | None
    n_null: int
    seed: int
    n_features: int
    name: str = ""

    def to_frame(self) -> pd.DataFrame:
        """One row a metric: those of the tested rows with their null, and `silhouette_all_rows`.

        `n` is the number of rows behind the number; the extra column `matrix` is its name.
        """
        rows: list[dict[str, Any]] = [
            {
                "metric": metric,
                "value": one.observed,
                "null_mean": one.mean,
                "null_sd": one.sd,
                "p": one.p_value,
                "n": len(self.tested_rows),
            }
            for metric, one in self.metrics.items()
        ]
        everything = {
            "silhouette_all_rows": self.silhouette,
            "smallest_cluster": min(self.sizes, default=float("nan")),
        }
        rows += [
            {"metric": metric, "value": value, "n": len(self.labels)}
            for metric, value in everything.items()
        ]
        return tidy(
            rows,
            seed=self.seed,
            matrix=self.name,
            method=self.method,
            null=self.null,
            unit_norm=self.unit_norm,
        )


def cluster_rows(
    matrix: Float[np.ndarray, "row feature"] | Float[Tensor, "row feature"],
    *,
    n_clusters: int | Literal["silhouette"] = 2,
    method: Method = "kmeans",
    null: Literal["norm_matched", "permuted"] | None = "norm_matched",
    n_null: int = 99,
    n_tested: int = 256,
    seed: int = 0,
    unit_norm: bool = False,
    options: ClusterOptions | None = None,
    name: str = "",
) -> RowClustering:
    """Cluster the rows of a matrix, and test whether there is anything to cluster.

    All rows are clustered (by scikit-learn on the rows themselves where they are more than
    `n_tested`). The test takes a random subset of `n_tested` rows, because a null draw costs the
    square of its rows: subset and null draws are clustered by the same algorithm. A subset finds
    clusters of many rows; a few special rows among thousands it misses.

    **What it does not show.** Neurons that share a direction (a common mean) are not clusters but
    reject the norm-matched null when their norms differ; `null="permuted"` keeps the mean of every
    coordinate.

    Args:
        matrix: one row for each thing to cluster; W_in of an MLP transposed to `neuron d_model`,
            embeddings as `token d_model`.
        n_clusters: 2 to rows - 1, or `"silhouette"`: chosen on the tested rows.
        method: `"kmeans"`, `"ward"` or `"dbscan"`.
        null: `"norm_matched"` (random directions, norms kept), `"permuted"` (each column permuted
            over rows) or None.
        n_null: draws of the null.
        n_tested: rows tested.
        seed: of everything drawn.
        unit_norm: cluster directions only.
        options: `ClusterOptions`; default `ClusterOptions(n_init=5)`. `n_resamples` is not used.
        name: what the matrix is, for the frame.

    Returns:
        A `RowClustering`.

    Raises:
        InputError: numbers that are not finite, a row of zeros with `unit_norm`, or an impossible
            number of clusters.
    """
    rows = _as_rows(matrix)
    norms = np.linalg.norm(rows, axis=1)
    if unit_norm:
        if (norms == 0).any():
            raise InputError(
                expected="rows that are not all 0 (unit_norm divides by the norm)",
                got=f"{int((norms == 0).sum())} rows of zeros",
                fix="Leave them out, or use unit_norm=False.",
            )
        rows = rows / norms[:, None]
    options = options or ClusterOptions(n_init=5)
    rng = np.random.default_rng(seed)
    tested = np.sort(rng.permutation(len(rows))[:n_tested])
    algorithm = cluster_algorithm(
        len(tested), n_clusters, method=method, options=options, seed=seed
    )
    metrics, tested_labels = _test(rows[tested], algorithm, null, n_null, unit_norm=unit_norm)
    if len(tested) == len(rows):
        labels, score = tested_labels, metrics["silhouette"].observed
    else:
        labels = _all_labels(rows, algorithm, int(tested_labels.max()) + 1)
        score = _sampled_silhouette(rows, labels, rng)
    found = metrics["silhouette"]
    sizes = tuple(int(size) for size in np.bincount(labels[labels >= 0]))
    return RowClustering(
        labels=labels,
        sizes=sizes,
        silhouette=score,
        tested_silhouette=found.observed,
        null_mean=found.mean,
        null_sd=found.sd,
        null_quantiles=(found.q05, found.q50, found.q95),
        p_value=found.p_value,
        metrics=metrics,
        tested_rows=tested,
        norms=norms,
        method=method,
        n_clusters=len(sizes),
        chosen=algorithm.chosen,
        unit_norm=unit_norm,
        null=null,
        n_null=0 if null is None else n_null,
        seed=seed,
        n_features=rows.shape[1],
        name=name,
    )


def _as_rows(matrix: np.ndarray | Tensor) -> np.ndarray:
    rows = matrix.detach().cpu().double().numpy() if isinstance(matrix, Tensor) else matrix
    rows = np.asarray(rows, dtype=np.float64)
    if not np.isfinite(rows).all():
        raise InputError(
            expected="a matrix of finite numbers",
            got=f"NaN or infinity in {int((~np.isfinite(rows)).any(1).sum())} rows",
            fix="Check the checkpoint (`suite.verify()` names damaged ones).",
        )
    return rows


def _test(
    rows: np.ndarray,
    algorithm: ClusterAlgorithm,
    null: str | None,
    n_null: int,
    *,
    unit_norm: bool,
) -> tuple[dict[str, NullSummary], np.ndarray]:
    """Metrics of the tested rows with their nulls, and their labels."""
    if null not in ("norm_matched", "permuted", None) or (null and n_null < 19):
        raise InputError(
            expected="null 'norm_matched', 'permuted' or None, with n_null of 19 or more",
            got=f"null={null!r}, n_null={n_null}",
            fix="p cannot go below 1 / (1 + n_null).",
        )
    distances = squareform(pdist(rows))[None]
    labels = algorithm.labels(distances)
    observed = partition_metrics(distances, labels, n_features=rows.shape[1])
    if null is None:
        return {name: NullSummary.bare(float(x[0])) for name, x in observed.items()}, labels[0]
    if null == "permuted":
        draws = permuted_distances([rows], unit_norm=unit_norm, n_draws=n_null, seed=algorithm.seed)
    else:
        scale = np.linalg.norm(rows, axis=1)
        cosines = random_cosines(*rows.shape, n_draws=n_null, seed=algorithm.seed)
        draws = gram_to_distances(cosines * np.outer(scale, scale), unit_norm=False)
    drawn = partition_metrics(draws, algorithm.labels(draws), n_features=rows.shape[1])
    metrics = {
        name: against_null(name, float(value[0]), drawn[name], unit_norm=unit_norm)
        for name, value in observed.items()
    }
    return metrics, labels[0]


def _all_labels(rows: np.ndarray, algorithm: ClusterAlgorithm, n_clusters: int) -> np.ndarray:
    """Labels of all rows, by scikit-learn on the rows themselves."""
    from sklearn.cluster import DBSCAN, AgglomerativeClustering, KMeans

    options = algorithm.options
    if algorithm.method == "dbscan":
        radius = options.eps
        if radius is None:
            raise InputError(
                expected=f"a DBSCAN radius for {len(rows)} rows",
                got="options.eps=None",
                fix="Pass options=ClusterOptions(eps=...), for instance from the distances of a "
                "sample of rows.",
            )
        model = DBSCAN(eps=radius, min_samples=options.min_samples)
    elif algorithm.method == "ward":
        model = AgglomerativeClustering(n_clusters=n_clusters, linkage="ward")
    else:
        starts: Any = options.n_init
        model = KMeans(n_clusters, n_init=starts, random_state=algorithm.seed)
    return ordered_labels(model.fit_predict(rows).astype(np.int64)[None])[0]


def _sampled_silhouette(rows: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> float:
    from sklearn.metrics import silhouette_score

    inside = rng.permutation(np.flatnonzero(labels >= 0))[:_SILHOUETTE_ROWS]
    if len(np.unique(labels[inside])) < 2:
        return float("nan")
    return float(silhouette_score(rows[inside], labels[inside]))
