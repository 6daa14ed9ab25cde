"""Measurements of the topic-ordering study made up, with effects that are planted."""

import numpy as np

from headspec.results import tidy
from headspec.studies.topic_conditions import topic_conditions

N_LAYERS, N_HEADS = 4, 3
NULLS = {"entropy": 4.0, "within_topic_mass": 0.6, "topic_excess": 0.0, "distance": 20.0}
LEVELS = {"entropy": 3.0, "within_topic_mass": 0.7, "topic_excess": 0.05, "distance": 10.0}


def made_up(
    *, seeds=3, noise=1e-4, ordered=None, dropped=None, spread=0.1, spread_after=0.1, seed=0
):
    """A frame of all conditions. `ordered` and `dropped` shift metrics in those conditions."""
    rng = np.random.default_rng(seed)
    every = []
    for number in range(seeds):
        shared = {metric: noise * rng.standard_normal() for metric in LEVELS}
        for condition in topic_conditions():
            shift = dict.fromkeys((*LEVELS, "accuracy"), 0.0)
            for chosen, planted in (
                (condition.ordering == "topic_ordered", ordered),
                (condition.position == "drope", dropped),
            ):
                for metric, size in (planted or {}).items():
                    shift[metric] += size * chosen
            width = spread if condition.position == "rope" else spread_after
            rows = _heads(rng, shift, shared, noise=noise, width=width)
            rows += _layers(rng, shift, noise=noise)
            labels = {"model": condition.name, "condition": condition.name, "seed": number}
            every += [{**row, **labels, **vars(condition)} for row in rows]
    return tidy(every, step=40)


def _heads(rng, shift, shared, *, noise, width):
    rows = []
    offsets = np.linspace(-1, 1, N_LAYERS * N_HEADS)
    offsets = width * (1 + 10 * noise * rng.standard_normal()) * offsets / offsets.std(ddof=1)
    for i, offset in enumerate(offsets):
        place = {"layer": i // N_HEADS, "head": i % N_HEADS}
        for metric, level in LEVELS.items():
            value = level + shift[metric] + shared[metric] + noise * rng.standard_normal()
            value += offset if metric == "within_topic_mass" else 0
            row = {**place, "metric": metric, "value": value, "null_mean": NULLS[metric]}
            row |= {"window_baseline": 0.9, "first_baseline": 0.5}
            rows.append(row | {"exchanged_baseline": 0.6 + 0.5 * offset})
        rows.append({**place, "metric": "topic_ratio", "value": 2.0, "null_mean": 1.0})
        for name in ("entropy", "within_topic_mass"):
            rows.append(
                {**place, "metric": f"published_{name}", "value": NULLS[name] + 1, "null_mean": 5.0}
            )
        for name in ("qk", "ov"):
            rows.append({**place, "metric": f"{name}.effective_rank", "value": 9.0})
    return rows


def _layers(rng, shift, *, noise):
    rows = [{"metric": "validation_loss", "value": 3.0 + noise * rng.standard_normal()}]
    for layer in range(-1, N_LAYERS):
        accuracy = 0.8 + 0.02 * layer + shift["accuracy"] + noise * rng.standard_normal()
        scores = {"accuracy": accuracy, "control_accuracy": 0.5, "selectivity": accuracy - 0.5}
        rows += [
            {"layer": layer, "metric": metric, "value": value, "null_mean": 0.35}
            for metric, value in scores.items()
        ]
        if layer < 0:
            continue
        for name, gain in (("", 0.05), ("_by_sequence", 0.0)):
            metric = f"published_probe_accuracy{name}"
            row = {"layer": layer, "metric": metric, "value": accuracy + gain, "null_mean": 0.35}
            rows.append(row)
        for name in ("qk", "ov"):
            metric = f"{name}.silhouette"
            rows.append(
                {"layer": layer, "metric": metric, "value": 0.2, "null_mean": 0.1, "p": 0.2}
            )
    return rows


def references():
    """As of data with three topics."""
    values = {"ln_vocab": 4.1, "bayes_loss": 2.6, "unigram_loss": 4.0, "entropy_rate": 2.4}
    values |= {"ideal_topic_accuracy": 0.98, "unigram_topic_accuracy": 0.57, "largest_topic": 0.35}
    return tidy([{"metric": metric, "value": value} for metric, value in values.items()])
