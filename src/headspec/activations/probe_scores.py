"""Scores of a probe on test groups: values, baselines, and intervals over groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import stats as scipy_stats

METRICS = (
    "accuracy",
    "balanced_accuracy",
    "log_loss",
    "calibration_error",
    "control_accuracy",
    "selectivity",
)


@dataclass(frozen=True)
class ProbeScore:
    """A metric with the ends of its interval and what stands for knowing nothing."""

    value: float
    low: float
    high: float
    null_mean: float
    null_sd: float = float("nan")


class GroupResamples:
    """Bootstrap samples of test groups, alike for every probe.

    Intervals are expanded percentile intervals (Hesterberg 2015, section 4.5.2): percentile
    intervals at the level that corrects their narrowness for few groups (t instead of normal
    quantiles, n / (n - 1)).
    """

    def __init__(
        self,
        test_groups: Int[np.ndarray, " test"],
        *,
        n_resamples: int,
        level: float | int,
        seed: int,
    ) -> None:
        self.groups = test_groups
        self.n_groups = n = int(test_groups.max()) + 1
        rng = np.random.default_rng([seed, 2])
        self.counts = rng.multinomial(n, np.full(n, 1 / n), size=n_resamples).astype(float)
        t = scipy_stats.t.ppf((1 + level) / 2, n - 1) * np.sqrt(n / (n - 1))
        tail = float(scipy_stats.norm.cdf(-t))
        self.ends = (tail, 1 - tail)

    def sums(self, per_sample: Float[np.ndarray, "test column"]) -> np.ndarray:
        """Sums over the samples of each resample: `resample column`."""
        per_group = np.stack(
            [np.bincount(self.groups, column, self.n_groups) for column in per_sample.T], 1
        )
        return self.counts @ per_group

    def interval(self, values: Float[np.ndarray, " resample"]) -> tuple[float, float]:
        """Both ends."""
        low, high = np.nanquantile(values, self.ends)
        return float(low), float(high)


def score_probe(
    probabilities: Float[np.ndarray, "test class"],
    codes: Int[np.ndarray, " test"],
    *,
    shares: Float[np.ndarray, " class"],
    resamples: GroupResamples,
    control: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
) -> dict[str, ProbeScore]:
    """All metrics of one probe.

    Args:
        probabilities: of the test samples.
        codes: their classes, from 0.
        shares: of the classes in train.
        resamples: of the test groups.
        control: of the control task: predicted classes, its classes, its shares in train.
    """
    n_classes = len(shares)
    correct = (probabilities.argmax(1) == codes).astype(float)
    loss = -np.log(np.take_along_axis(probabilities, codes[:, None], 1)[:, 0].clip(1e-300))
    right = np.ones_like(correct) if control is None else (control[0] == control[1]).astype(float)
    member = np.eye(n_classes)[codes]
    columns = np.column_stack(
        [np.ones_like(correct), correct, loss, right, member, member * correct[:, None]]
    )
    whole, drawn = columns.sum(0)[None], resamples.sums(columns)

    def statistics(sums: np.ndarray) -> dict[str, np.ndarray]:
        total, hits, losses, control_hits = sums[:, :4].T
        classes, found = sums[:, 4 : 4 + n_classes], sums[:, 4 + n_classes :]
        with np.errstate(invalid="ignore"):  # a resample may lack a class: mean over the others
            recall = np.nanmean(np.where(classes > 0, found / classes, np.nan), 1)
        return {
            "accuracy": hits / total,
            "balanced_accuracy": recall,
            "log_loss": losses / total,
            "control_accuracy": control_hits / total,
            "selectivity": (hits - control_hits) / total,
        }

    majority = float(np.mean(codes == shares.argmax()))
    baselines = {
        "accuracy": majority,
        "balanced_accuracy": 1 / n_classes,
        "log_loss": float(-np.mean(np.log(shares[codes]))),
    }
    if control is not None:
        control_majority = float(np.mean(control[1] == control[2].argmax()))
        baselines |= {
            "control_accuracy": control_majority,
            "selectivity": majority - control_majority,
        }
    values, draws = statistics(whole), statistics(drawn)
    scores = {
        name: ProbeScore(float(values[name][0]), *resamples.interval(draws[name]), null_mean=base)
        for name, base in baselines.items()
    }
    return scores | {"calibration_error": calibration_score(probabilities, codes)}


def calibration_score(
    probabilities: Float[np.ndarray, "sample class"],
    codes: Int[np.ndarray, " sample"],
    *,
    n_bins: int = 15,
) -> ProbeScore:
    """Expected calibration error of the predicted class, and that of a calibrated probe.

    Sum over bins of equal width of |hits - confidence| / n. It is above 0 by chance alone: the
    null is its mean and standard deviation when each prediction is right with exactly the
    probability that the probe states, independently (normal approximation in each bin). It has
    no interval: resampling adds to its bias.

    References:
        Guo et al. 2017, "On calibration of modern neural networks".
    """
    confidence = probabilities.max(1)
    hits = probabilities.argmax(1) == codes
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = np.abs(np.bincount(bins, hits - confidence, n_bins))
    variances = np.bincount(bins, confidence * (1 - confidence), n_bins)
    n, nothing = len(codes), float("nan")
    return ProbeScore(
        float(gaps.sum() / n),
        nothing,
        nothing,
        null_mean=float(np.sqrt(2 * variances / np.pi).sum() / n),
        null_sd=float(np.sqrt(variances.sum() * (1 - 2 / np.pi)) / n),
    )
