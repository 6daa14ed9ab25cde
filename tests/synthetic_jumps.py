"""Made-up frames of the study of dimensionality jumps: curves, jumps, effects, patterns."""

from itertools import product

import numpy as np
import pandas as pd

from headspec.results import tidy

SEEDS = (0, 1, 2)
LAYERS = {
    "transformer": (
        "input_proj",
        *(
            f"blocks.{block}.{name}"
            for block in range(4)
            for name in ("attn", "linear1", "linear2")
        ),
        "fc",
    ),
    "cnn": ("conv_layers.0", "conv_layers.3", "conv_layers.6", "conv_layers.9", "fc"),
    "mlp": ("network.0", "network.2", "network.4", "network.6", "network.8"),
}
STEPS = np.arange(0, 1001, 5)
METRICS = ("stable_rank", "participation_ratio")


def dimension_frame(*, models=tuple(LAYERS), seeds=SEEDS, metrics=METRICS, seed=0):
    """Curves that fall and settle, with a step down in some and noise in all."""
    rng = np.random.default_rng(seed)
    frames = []
    for model, run, metric in product(models, seeds, metrics):
        for layer, name in enumerate(LAYERS[model]):
            level = 3 + 2 * layer + 4 * np.exp(-STEPS / (60 + 20 * layer))
            level = level - 1.5 * (120 + 90 * layer < STEPS) * (run != 1)
            value = level + 0.05 * rng.normal(size=len(STEPS))
            rows = pd.DataFrame({"step": STEPS, "value": value, "resolution": 2e-6 * level})
            place = {"model": model, "seed": run, "metric": metric, "layer": layer}
            frames.append(rows.assign(**place, layer_name=name))
    return tidy(pd.concat(frames, ignore_index=True))


def jump_frame(*, models=tuple(LAYERS), seeds=SEEDS, metric="stable_rank", seed=0):
    """A jump where the curves have their step, and some early ones."""
    rng = np.random.default_rng(seed)
    rows = []
    for model, run in product(models, seeds):
        for layer, name in enumerate(LAYERS[model]):
            if name == "fc":
                continue
            steps = [125 + 90 * layer] * (run != 1) + rng.choice(STEPS[1:30], 2).tolist()
            for i, step in enumerate(steps):
                if step > 1000:
                    continue
                size = 1.5 if run != 1 and not i else rng.lognormal(-1.5, 0.7)
                sign = -1 if (run != 1 and not i) or rng.random() < 0.5 else 1
                rows.append(
                    {
                        "model": model,
                        "seed": run,
                        "layer": layer,
                        "layer_name": name,
                        "metric": metric,
                        "step": int(step),
                        "step_before": int(step) - 5,
                        "value": sign * size,
                        "magnitude": size,
                        "direction": "increase" if sign > 0 else "decrease",
                        "phase": step / 1000,
                        "speed": size / 5 * rng.lognormal(0, 0.4),
                        "score": 4 * size,
                        "p": 0.001,
                    }
                )
    return tidy(rows)


def curve_frame(*, models=tuple(LAYERS), seeds=SEEDS, refused=("fc",)):
    """What became of each curve."""
    return pd.DataFrame(
        [
            {
                "model": model,
                "seed": run,
                "layer": layer,
                "layer_name": name,
                "metric": "stable_rank",
                "n": len(STEPS),
                "n_steps": 1000,
                "verdict": "below resolution" if name in refused else "examined",
                "n_jumps": 0,
            }
            for model, run in product(models, seeds)
            for layer, name in enumerate(LAYERS[model])
        ]
    )


def share_frame(seed=0):
    """Shares of jumps in parts of training, by both binnings."""
    rng = np.random.default_rng(seed)
    even = {"early": 0.1, "mid": 0.4, "late": 0.5}
    rows = []
    for binning, model in product(("step", "index"), LAYERS):
        shares = rng.dirichlet([6, 3, 2] if binning == "step" else [9, 2, 1e-6])
        for (part, null), value in zip(even.items(), shares, strict=True):
            rows.append(
                {
                    "model": model,
                    "by": binning,
                    "part": part,
                    "metric": "share",
                    "value": value,
                    "low": max(0.0, value - 0.08),
                    "high": min(1.0, value + 0.08),
                    "null_mean": null,
                    "null_sd": 0.03,
                    "n": 120,
                }
            )
    return tidy(rows)


def rate_frame(seed=0):
    """Jumps per 1,000 points of each layer, pooled and by seed."""
    rng = np.random.default_rng(seed)
    rows = []
    for model, names in LAYERS.items():
        for layer, name in enumerate(names):
            rate = rng.gamma(3, 2)
            place = {"model": model, "layer": layer, "layer_name": name, "n": 600}
            rows.append(place | {"value": rate, "low": rate * 0.6, "high": rate * 1.5 + 0.5})
            rows += [place | {"value": rate * rng.lognormal(0, 0.3), "seed": s} for s in SEEDS]
    return tidy(rows, metric="jumps_per_1000")


def type_frame(seed=0):
    """Jumps of three types."""
    rng = np.random.default_rng(seed)
    jumps = jump_frame(seed=seed)
    return jumps.assign(type=1 + rng.integers(0, 3, len(jumps)))


def coordination_frame():
    """Shares of jumps that another layer joins, against layers shifted in time."""
    values = {"transformer": (0.62, 0.35), "cnn": (0.41, 0.30), "mlp": (0.22, 0.24)}
    return tidy(
        [
            {
                "model": model,
                "value": v,
                "null_mean": n,
                "null_sd": 0.05,
                "p": p,
                "n": 90,
                "seed": 0,
            }
            for (model, (v, n)), p in zip(values.items(), (0.001, 0.03, 0.7), strict=True)
        ],
        metric="jump_coordination",
    )


def loss_frame(*, models=tuple(LAYERS), seed=0):
    """Change of the loss across jumps less controls, by model and part of training."""
    rng = np.random.default_rng(seed)
    rows = []
    for model, part in product(models, ("all", "early", "mid", "late")):
        for name, scale in (("loss_change", 0.02), ("loss_improves", 0.1)):
            value = scale * rng.normal()
            rows.append(
                {
                    "model": model,
                    "part": part,
                    "metric": f"{name}.difference",
                    "value": value,
                    "low": value - scale,
                    "high": value + scale,
                    "null_mean": 0.0,
                    "null_sd": 0.5 * scale,
                    "jumps": value - 0.04,
                    "controls": -0.04,
                    "p": 0.1,
                    "n": 40,
                }
            )
    return tidy(rows)


def battery_frame():
    """Rules on curves without jumps, and recall."""
    rates = {
        "study": (45.0, 48.0, 12.0, 30.0),
        "trailing_window": (5.1, 5.6, 10.2, 7.0),
        "changepoints": (0.0, 1.3, 14.0, 6.0),
        "calibrated": (0.9, 1.1, 1.4, 1.2),
    }
    kinds = ("white_noise", "heavy_tails", "drift", "autocorrelated")
    rows = []
    for method, values in rates.items():
        for kind, value in zip(kinds, values, strict=True):
            rows.append(
                {
                    "method": method,
                    "series": kind,
                    "kind": "null",
                    "metric": "false_positives",
                    "value": value,
                    "low": value * 0.8,
                    "high": value * 1.2 + 0.1,
                }
            )
        for kind, value in (("step_in_noise", 0.9), ("step_in_drift", 0.8)):
            found = value - 0.02 * len(rows)
            row = {"method": method, "series": kind, "kind": "planted"}
            rows.append(row | {"metric": "recall", "value": found})
    return tidy(rows)


def effect_frame(*, seeds=SEEDS, seed=0):
    """Changes across jumps less changes across controls."""
    rng = np.random.default_rng(seed)
    rows = []
    for metric, scale in (
        ("entropy", 0.05),
        ("head_divergence", 0.01),
        ("filter_similarity", 0.02),
        ("class_selectivity", 0.03),
    ):
        for model in LAYERS:
            value = scale * rng.normal()
            wide = np.nan if len(seeds) < 3 else scale
            rows.append(
                {
                    "model": model,
                    "metric": metric,
                    "value": value,
                    "low": value - wide,
                    "high": value + wide,
                    "null_mean": 0.0,
                    "null_sd": 0.4 * scale,
                    "p": 0.2,
                    "q": 0.5,
                    "n": 15,
                }
            )
    return tidy(rows)


def accuracy_frame(*, models=("transformer", "cnn", "mlp"), seeds=(0,), seed=0):
    """Ten classes that are learnt one after the other."""
    rng = np.random.default_rng(seed)
    steps = STEPS[::2]
    rows = []
    for model, run, name in product(models, seeds, range(10)):
        rise = 1 / (1 + np.exp(-(steps - 60 - 25 * name) / 30))
        value = np.clip(0.1 + 0.86 * rise + 0.02 * rng.normal(size=len(steps)), 0, 1)
        rows += [
            {"model": model, "seed": run, "step": int(s), "class": name, "value": v, "n": 50}
            for s, v in zip(steps, value, strict=True)
        ]
    return pd.DataFrame(rows)


def similarity_frame(*, models=("cnn",), seed=0):
    """CKA and Procrustes similarity across jumps and controls."""
    rng = np.random.default_rng(seed)
    rows = []
    for model, metric, kind in product(models, ("cka", "procrustes"), ("jump", "control")):
        for layer, name in enumerate(LAYERS[model]):
            for moment in range(9):
                far = rng.beta(2, 12 if kind == "jump" else 30)
                before = int(rng.integers(0, 900))
                rows.append(
                    {
                        "model": model,
                        "layer": layer,
                        "layer_name": name,
                        "metric": metric,
                        "kind": kind,
                        "moment": moment,
                        "before": before,
                        "after": before + 10,
                        "seed": moment % 3,
                        "value": 1 - far,
                    }
                )
    return tidy(rows)
