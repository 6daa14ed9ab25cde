"""A made-up sweep with the shape of a real one: clusters emerge in layers 2 and 3."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from headspec.results import tidy

STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 100, 150, 200, 300, 500, 800, 1200, 2000, 3000, 4000)
N_HEADS = 12
TRANSITION = SimpleNamespace(
    step_before=200, step_after=300, kind="sudden", p_value=0.004, size=0.27
)


def sweep_frame(*, layers: int = 4, steps: tuple[int, ...] = STEPS, seed: int = 0) -> pd.DataFrame:
    """Rows of every kind that a sweep of `ClusterMeasure` gives."""
    rng = np.random.default_rng(seed)
    rows: list[dict] = []
    for layer in range(layers):
        strength = (0.0, 0.05, 0.3, 0.45)[layer % 4]
        group = np.arange(N_HEADS) % 3 == 1
        direction = rng.normal(size=(2, 24))
        base = rng.normal(size=(N_HEADS, 24))
        for i, step in enumerate(steps):
            grown = 1 / (1 + np.exp(-(np.log10(step + 1) - 2.4) * 6))
            heads = base * (1 + grown) + 6 * strength * grown * direction[group.astype(int)]
            heads = heads + 0.25 * rng.normal(size=heads.shape)
            rows += _layer_rows(rng, layer, step, strength * grown, i)
            rows += _head_rows(heads, group, layer, step, flip=step < 300)
    extras = {"feature": "qk", "method": "kmeans", "processing": "none"}
    return tidy(pd.DataFrame(rows), model="micro", n=1000, seed=0, **extras)


def _layer_rows(rng, layer, step, strength, index) -> list[dict]:
    noise = rng.normal(scale=0.01)
    nulls = {
        "silhouette": (0.06 + strength + noise, 0.07, 0.02),
        "inter_cluster_distance": (2.2 + 6 * strength + 20 * noise, 2.4, 0.3),
        "within_cluster_variance": (1.4 - strength + 4 * noise, 1.35, 0.08),
        "separation_ratio": (1.6 + 9 * strength + 20 * noise, 1.8, 0.4),
        "separation_dimensionless": (1.9 + 4 * strength + 10 * noise, 2.0, 0.25),
        "wasserstein": (0.004 + 0.02 * strength + 0.1 * abs(noise), 0.004, 0.001),
    }
    rows = []
    for metric, (value, mean, sd) in nulls.items():
        p = float(np.clip(np.exp(-max(0, (value - mean) / sd) * 1.5), 0.001, 1))
        rows.append(
            {
                "step": step,
                "layer": layer,
                "metric": metric,
                "value": value,
                "null_mean": mean,
                "null_sd": sd,
                "null_low": mean - 1.9 * sd,
                "null_high": mean + 2.1 * sd,
                "p": p,
                "q": min(1.0, 2 * p),
            }
        )
    plain = {
        "weight_divergence": np.nan if index == 0 else 0.1 + 3 * strength + 5 * abs(noise),
        "ari_previous": np.nan if index == 0 else min(1.0, 0.2 + 2 * strength + 10 * abs(noise)),
        "stability": min(1.0, 0.35 + strength + 5 * noise),
        "smallest_cluster": 1 if strength < 0.1 else 4,
    }
    rows += [
        {"step": step, "layer": layer, "metric": name, "value": value}
        for name, value in plain.items()
    ]
    return rows


def _head_rows(heads, group, layer, step, *, flip) -> list[dict]:
    centred = heads - heads.mean(0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    columns = {
        "cluster": (group ^ flip).astype(float),
        "pca_1": left[:, 0] * size[0],
        "pca_2": left[:, 1] * size[1],
        "tsne_1": 8 * left[:, 0] + left[:, 2],
        "tsne_2": 8 * left[:, 1] + left[:, 3],
    }
    where = {"step": step, "layer": layer}
    rows = [
        {**where, "metric": metric, "head": head, "value": float(values[head])}
        for metric, values in columns.items()
        for head in range(N_HEADS)
    ]
    unit = heads / np.linalg.norm(heads, axis=1, keepdims=True)
    cosine = unit @ unit.T
    rows += [
        {**where, "metric": "similarity", "head": i, "head_2": j, "value": float(cosine[i, j])}
        for i in range(N_HEADS)
        for j in range(i + 1, N_HEADS)
    ]
    return rows


def capability_frame(*, steps: tuple[int, ...] = STEPS) -> pd.DataFrame:
    """Capability curves that rise one after another, and a falling loss."""
    middles = {"decimal_comparison": 2.3, "version_comparison": 2.5, "addition": 3.1}
    rows = []
    for step in steps:
        where = np.log10(step + 1)
        for metric, middle in middles.items():
            chance = 0.0 if metric == "addition" else 0.5
            value = chance + (0.98 - chance) / (1 + np.exp(-(where - middle) * 8))
            rows.append((step, metric, value, np.sqrt(value * (1 - value) / 200), chance))
        rows.append((step, "induction_gain", 1.3 / (1 + np.exp(-(where - 3.2) * 6)), 0.03, 0.0))
        rows.append((step, "prose_loss", 6.2 - 1.1 * where, 0.02, np.nan))
    return pd.DataFrame(rows, columns=["step", "metric", "value", "se", "chance"])
