"""Made-up frames of the study of topic ordering: attention, probes, effects, corrections."""

from itertools import product

import numpy as np

from headspec.results import tidy

LAYERS, HEADS, SEEDS = 4, 4, (0, 1, 2)
CONDITIONS = tuple(product(("mha", "gqa"), ("shuffled", "topic_ordered"), ("rope", "drope")))
CEILING = float(np.log(np.arange(1, 65)).mean())


def named(attention, ordering, position):
    return {
        "condition": f"{attention}_{ordering}_{position}",
        "attention": attention,
        "ordering": ordering,
        "position": position,
    }


def attention_frame(*, seeds=SEEDS, seed=0):
    """Entropy and mass within the topic of every head, before and after."""
    rng = np.random.default_rng(seed)
    rows = []
    for condition, layer, head, run in product(CONDITIONS, range(LAYERS), range(HEADS), seeds):
        gone = condition[2] == "drope"
        sharp = 0.25 * (1 - gone) * (1 + head) + rng.normal(0, 0.05)
        shared = {"layer": layer, "head": head, "seed": run, **named(*condition)}
        rows += [
            shared
            | {
                "metric": "entropy",
                "value": CEILING - 0.1 - abs(sharp),
                "null_mean": CEILING,
                "window_baseline": 2.9,
                "first_baseline": 0.0,
            },
            shared
            | {
                "metric": "within_topic_mass",
                "value": 0.6 + 0.25 * sharp,
                "null_mean": 0.585,
                "window_baseline": 0.94,
                "first_baseline": 0.41,
            },
        ]
    return tidy(rows)


def probe_frame(*, seeds=(0,), seed=0):
    """Accuracy, control task and selectivity of probes at the embeddings and every layer."""
    rng = np.random.default_rng(seed)
    rows = []
    for (i, condition), layer, run in product(enumerate(CONDITIONS), range(-1, LAYERS), seeds):
        share = 0.35 + 0.13 * (layer + 1) - 0.02 * i + rng.normal(0, 0.01)
        control = 0.33 + 0.01 * rng.normal()
        for metric, value in (
            ("accuracy", share),
            ("control_accuracy", control),
            ("selectivity", share - control),
        ):
            null = 0.31 if metric == "accuracy" else None
            bounds = {"low": value - 0.02, "high": value + 0.02, "null_mean": null}
            rows.append(
                {"layer": layer, "seed": run, "metric": metric, "value": value}
                | bounds
                | named(*condition)
            )
    return tidy(rows)


def effects_frame():
    """Main effects and interactions of the design on three quantities."""
    effects = ("attention", "ordering", "position", "attention:ordering")
    effects += ("attention:position", "ordering:position", "attention:ordering:position")
    rows = []
    for k, metric in enumerate(("validation_loss", "probe_accuracy", "topic_ratio")):
        for i, effect in enumerate(effects):
            value = (0.12, -0.02, 0.3, 0.01, -0.05, 0.02, 0.0)[(i + k) % 7]
            rows.append(
                {"effect": effect, "metric": metric, "value": value, "n": 3}
                | {"low": value - 0.04, "high": value + 0.04, "p": 0.04, "null_mean": 0.0}
                | {"null_sd": 0.02}
            )
    return tidy(rows)


def correction_frame():
    """The study's three figures as published and as corrected."""
    published = {
        "entropy": (3.66, 5.9),
        "within_topic_mass": (0.593, 0.46),
        "accuracy": (0.93, 0.2),
    }
    corrected = {
        "entropy": (3.1, 5.246),
        "within_topic_mass": (0.66, 0.585),
        "accuracy": (0.71, 0.31),
    }
    rows = []
    for (i, condition), (metric, found) in product(enumerate(CONDITIONS), published.items()):
        for way, (value, base) in (("published", found), ("corrected", corrected[metric])):
            value += 0.02 * i * (4 if metric == "entropy" else 0.3)
            value += 2.3 * (metric == "entropy" and way == "published" and condition[2] == "drope")
            rows.append(
                {"metric": metric, "way": way, "value": value, "null_mean": base}
                | {"low": value - 0.03, "high": value + 0.03}
                | named(*condition)
                | {"ceiling": 5.246 if metric == "entropy" else None}
            )
    return tidy(rows)


def patterns(size=48, *, seed=0):
    """Uniform, local and non-causal attention, and labels of three topics in four segments."""
    rng = np.random.default_rng(seed)
    at = np.arange(size)
    causal = at[:, None] >= at
    labels = np.array(["T0", "T1", "T0", "T2"])[np.minimum(4 * at // size, 3)]
    found = {}
    for name, scores in (
        ("mha_shuffled_rope", -0.6 * (at[:, None] - at)),
        (
            "mha_topic_ordered_rope",
            2.0 * (labels[:, None] == labels) + rng.normal(size=(size, size)),
        ),
        ("mha_shuffled_drope", np.zeros((size, size))),
    ):
        weights = np.where(causal, np.exp(scores), 0)
        found[name] = weights / weights.sum(1, keepdims=True)
    full = np.exp(rng.normal(size=(size, size)))
    found["published_mask"] = full / full.sum(1, keepdims=True)
    return found, labels
