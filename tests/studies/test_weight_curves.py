"""Curves of weight statistics out of sweeps: sums of changes, means over heads and layers."""

import numpy as np
import pytest

from headspec.errors import InputError
from headspec.results import tidy
from headspec.studies.weight_curves import dropped_curves, mean_over_layers, weight_curves

STEPS = (0, 1, 4)


def rows(matrix, statistic, values, *, layer: int | None = 0, head=None, steps=STEPS, model="m"):
    labels = {"matrix": matrix, "statistic": statistic, "metric": f"{matrix}.{statistic}"}
    where = {"model": model, "layer": layer, "head": head}
    return [
        labels | where | {"step": step, "value": value}
        for step, value in zip(steps, values, strict=True)
    ]


def curve(frame, metric, **where):
    found = frame[frame["metric"] == metric]
    for name, value in where.items():
        found = found[found[name] == value]
    return found.sort_values("step")["value"].tolist()


def test_heads_are_averaged_and_singular_values_left_out():
    frame = tidy(
        rows("qk", "stable_rank", [1, 2, 3], head=0)
        + rows("qk", "stable_rank", [3, 4, 5], head=1)
        + rows("q", "singular_value", [7, 8, 9])
    )
    curves = weight_curves(frame)
    assert set(curves["metric"]) == {"qk.stable_rank"}
    assert curve(curves, "qk.stable_rank") == [2, 3, 4]


def test_changes_between_checkpoints_are_summed_from_nought():
    """Their rate is then the change itself, over the width of the interval."""
    frame = tidy(
        rows("q", "spectral_norm", [1.0, 1.0, 1.0])
        + rows("q", "relative_change", [0.5, 0.25], steps=(1, 4))
        + rows("q", "cosine", [0.9, 0.6], steps=(1, 4))
    )
    curves = weight_curves(frame)
    assert curve(curves, "q.path_length") == [0, 0.5, 0.75]
    assert curve(curves, "q.turning") == pytest.approx([0, 0.1, 0.5])
    assert "q.cosine" not in set(curves["metric"])


def test_each_model_starts_at_its_own_first_step():
    frame = tidy(
        rows("q", "stable_rank", [1, 2], steps=(0, 1))
        + rows("q", "relative_change", [0.5], steps=(1,))
        + rows("q", "stable_rank", [1, 2], steps=(8, 16), model="other")
        + rows("q", "relative_change", [0.2], steps=(16,), model="other")
    )
    curves = weight_curves(frame)
    assert curves.query("model == 'other' and statistic == 'path_length'")["step"].tolist() == [
        8,
        16,
    ]
    assert curve(curves, "q.path_length", model="other") == [0, 0.2]


def test_curves_with_holes_are_left_out_and_named():
    frame = tidy(rows("q", "stable_rank", [1, 2, 3]) + rows("q", "alpha", [np.nan, 2, 3], layer=1))
    assert set(weight_curves(frame)["metric"]) == {"q.stable_rank"}
    dropped = dropped_curves(frame)
    assert dropped[["layer", "metric", "n_missing"]].to_numpy().tolist() == [[1, "q.alpha", 1]]
    assert dropped_curves(frame.query("statistic != 'alpha'")).empty


def test_clusters_become_a_statistic_above_their_null():
    clusters = tidy(
        [
            {"step": step, "layer": 2, "metric": "silhouette", "value": v, "null_mean": 0.1}
            for step, v in zip(STEPS, (0.1, 0.2, 0.4), strict=True)
        ],
        model="m",
    )
    curves = weight_curves(tidy(rows("q", "stable_rank", [1, 2, 3])), clusters)
    assert curve(curves, "qk.silhouette_excess", layer=2) == pytest.approx([0, 0.1, 0.3])


def test_mean_over_layers_keeps_embeddings():
    frame = tidy(
        rows("q", "stable_rank", [1, 2, 3])
        + rows("q", "stable_rank", [3, 4, 8], layer=1)
        + rows("embed", "stable_rank", [5, 6, 7], layer=None)
    )
    means = mean_over_layers(weight_curves(frame))
    assert curve(means, "q.stable_rank") == [2, 3, 5.5]
    assert curve(means, "embed.stable_rank") == [5, 6, 7]
    assert means["layer"].isna().to_numpy().all()
    assert set(means.query("matrix == 'q'")["n"]) == {2}


def test_other_frames_are_refused():
    with pytest.raises(InputError, match="WeightMeasure"):
        weight_curves(tidy([{"step": 0, "metric": "a", "value": 1.0}]))
