"""Made-up frames of statistics of weights, capabilities, and correlations of their rates."""

import numpy as np

from headspec.results import tidy

STEPS = (0, 1, 4, 16, 64, 128, 256, 384, 512, 768, 1024, 1280, 1536, 2048, 3072, 4096, 6144)
MODELS = ("micro", "micro-small", "micro-tiny")
LAYERED = ("q", "k", "v", "o", "qk", "ov", "mlp_in", "mlp_out")
MATRICES = (*LAYERED, "embed", "unembed")
STATISTICS = (
    "spectral_norm",
    "frobenius_norm",
    "nuclear_norm",
    "stable_rank",
    "effective_rank",
    "participation_ratio",
    "top_1_variance",
    "top_10_variance",
    "decay_rate",
    "alpha",
    "relative_change",
)
CAPABILITIES = ("decimal_accuracy", "addition_accuracy", "induction_gain")


def _grown(steps, middle, width=0.5):
    return 1 / (1 + np.exp(-(np.log1p(steps) - np.log1p(middle)) / width))


def weight_frame(*, layers=4, model="micro", steps=STEPS, matrices=MATRICES, seed=0):
    """What a sweep with `WeightMeasure` gives, spectra aside."""
    rng = np.random.default_rng(seed)
    at = np.array(steps, float)
    rows = []
    for m, matrix in enumerate(matrices):
        for layer in range(layers) if matrix in LAYERED else (None,):
            for s, statistic in enumerate(STATISTICS):
                middle = 300 * (1 + m / 3 + (layer or 0) / 2)
                start, change = 4.0 + 3 * s, (-1) ** s * (1 + 0.4 * (layer or 0))
                values = start + change * _grown(at, middle) + rng.normal(0, 0.02, len(at))
                rows += [
                    {
                        "step": step,
                        "layer": layer,
                        "metric": f"{matrix}.{statistic}",
                        "value": value,
                        "matrix": matrix,
                        "statistic": statistic,
                    }
                    for step, value in zip(steps, values, strict=True)
                ]
    return tidy(rows, model=model)


def capability_frame(*, model="micro", steps=STEPS, seed=0):
    """Three capabilities in two units, with standard errors and chance."""
    rng = np.random.default_rng(seed)
    at = np.array(steps, float)
    rows = []
    for name, middle, top, se, chance in (
        ("decimal_accuracy", 300, 0.97, 0.02, 0.5),
        ("addition_accuracy", 1800, 0.9, 0.015, 0.01),
        ("induction_gain", 2200, 0.7, 0.01, np.nan),
    ):
        base = 0.0 if np.isnan(chance) else chance
        values = base + (top - base) * _grown(at, middle, 0.3) + rng.normal(0, se / 2, len(at))
        rows += [
            {"step": step, "metric": name, "value": value, "se": se, "chance": chance}
            for step, value in zip(steps, values, strict=True)
        ]
    return tidy(rows, model=model, n=500)


def emergence_frame(*, model="micro"):
    """One capability emerged, one was there from the first step on, two are censored."""
    rows = [
        {"metric": "addition_accuracy.emergence", "step": 1280, "step_before": 1024},
        {"metric": "decimal_accuracy.emergence", "step": 256, "step_before": 128},
        {"metric": "induction_gain.emergence", "step": 1536, "step_before": 1280},
        {"metric": "copying_accuracy.emergence", "step": None, "step_before": None},
    ]
    status = ("emerged", "emerged", "emerged", "never")
    middles = (1500.0, 240.0, 1900.0, np.nan)
    rows = [
        row | {"status": each, "midpoint": middle, "midpoint_low": middle, "midpoint_high": middle}
        for row, each, middle in zip(rows, status, middles, strict=True)
    ]
    return tidy(rows, model=model, p=0.001, n=17, seed=0)


def rate_frame(*, models=MODELS, layers=4, capabilities=CAPABILITIES, matrices=MATRICES, seed=0):
    """Correlations of rates: small but for a planted link, raw ones close to 1 or -1."""
    rng = np.random.default_rng(seed)
    rows = []
    for m, model in enumerate(models):
        for matrix in matrices:
            for layer in range(layers) if matrix in LAYERED else (None,):
                for statistic in STATISTICS:
                    for capability in capabilities:
                        planted = (matrix, statistic, capability) == (
                            "qk",
                            "stable_rank",
                            "induction_gain",
                        )
                        r = float(
                            np.clip(
                                rng.normal(-0.85 if planted else 0, 0.08 if planted else 0.25),
                                -1,
                                1,
                            )
                        )
                        band = 0.42 + 0.05 * m
                        p = float(
                            min(1.0, np.exp(-((r / band) ** 2) * 2.3) if not planted else 0.001)
                        )
                        rows.append(
                            {
                                "model": model,
                                "layer": layer,
                                "metric": f"{matrix}.{statistic}",
                                "value": r,
                                "null_mean": 0.0,
                                "null_sd": band / 1.6,
                                "p": p,
                                "capability": capability,
                                "lag": 0,
                                "q": float(min(1.0, 8 * p)),
                                "null_q05": -band,
                                "null_q95": band,
                                "raw_r": float(np.sign(rng.normal()) * (1 - rng.exponential(0.06))),
                                "plain_r": r,
                                "least_p": 0.001,
                                "null": "circular_shift",
                            }
                        )
    return tidy(rows, n=16, seed=0)


def pooled_frame(frame):
    """One row a statistic and capability: the mean over models and layers, made-up intervals."""
    rows = []
    for (metric, capability), part in frame.groupby(["metric", "capability"], sort=False):
        mean = float(part["value"].mean())
        p = float(np.exp(-((mean / 0.2) ** 2) * 2.5))
        signs = np.sign(part.groupby("model")["value"].mean())
        rows.append(
            {
                "metric": metric,
                "capability": capability,
                "value": mean,
                "low": mean - 0.2,
                "high": mean + 0.2,
                "p": p,
                "q": min(1.0, 6 * p),
                "sign_consistency": float((signs == np.sign(mean)).mean()),
                "n_models": part["model"].nunique(),
            }
        )
    return tidy(rows)


def spectra_frame(*, layers=4, matrices=("q", "k", "v", "o"), size=96, model="micro"):
    """Singular values at some ranks: flat at first, then a few large ones grow."""
    ranks = np.unique(np.round(np.geomspace(1, size, 24)).astype(int))
    rows = []
    for m, matrix in enumerate(matrices):
        for layer in range(layers):
            for step in STEPS:
                grown = float(_grown(np.array([step]), 400 * (1 + layer / 2 + m / 3))[0])
                flat = 2.0 - 1.9 * (ranks - 1) / size
                values = flat + 6 * grown * ranks**-0.9
                rows += [
                    {
                        "step": step,
                        "layer": layer,
                        "metric": f"{matrix}.singular_value",
                        "value": value,
                        "matrix": matrix,
                        "statistic": "singular_value",
                        "rank": rank,
                    }
                    for rank, value in zip(ranks, values, strict=True)
                ]
    return tidy(rows, model=model)


def composition_frame(*, layers=3, heads=3, seed=0):
    """Two kinds of composition between heads of three layers, one strong pair in each."""
    rng = np.random.default_rng(seed)
    rows = []
    for kind in ("q_composition", "k_composition"):
        for layer in range(layers):
            for layer_2 in range(layer + 1, layers):
                for head in range(heads):
                    for head_2 in range(heads):
                        strong = (layer, head, layer_2, head_2) == (0, 1, 2, 0)
                        p = 1e-4 if strong else float(rng.uniform(0.005, 1))
                        rows.append(
                            {
                                "layer": layer,
                                "head": head,
                                "metric": kind,
                                "value": 0.1 + (0.3 if strong else 0.02 * rng.normal()),
                                "null_mean": 0.1,
                                "null_sd": 0.02,
                                "p": p,
                                "layer_2": layer_2,
                                "head_2": head_2,
                                "q": min(1.0, 20 * p),
                            }
                        )
    return tidy(rows, model="micro", step=6144, seed=0)
