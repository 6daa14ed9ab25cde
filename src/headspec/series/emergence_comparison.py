"""Is an emergence the ability's, or the metric's? A thresholded metric beside a continuous one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd

from headspec.errors import InputError, check_choice
from headspec.results import tidy
from headspec.series.curve import read_curve
from headspec.series.emergence import Emergence, emergence_step
from headspec.series.noise import local_noise_sd
from headspec.series.rise_width import rise_of

Verdict = Literal["metric", "late_onset", "sharper", "shared", "undecided"]
"""What `EmergenceComparison.verdict` may be."""

Transform = Literal["none", "log"]
"""`"log"` makes nats of a perplexity."""

_WORDS = {
    "metric": "the continuous metric moves earlier and less abruptly, so the abruptness may "
    "be, at least in part, the metric's",
    "late_onset": "the continuous metric moves earlier, but its rise is not measurably broader: "
    "the threshold delays what is seen and is not shown to make it sudden",
    "sharper": "the continuous metric is not shown to begin earlier, but its rise is broader: part "
    "of the abruptness is the metric's",
    "shared": "nothing here says that the abruptness is the metric's: at this spacing of "
    "checkpoints the continuous metric moves neither earlier nor less abruptly",
    "undecided": "at least one of the two does not leave chance within the run, so nothing can be "
    "said",
}


@dataclass(frozen=True)
class EmergenceComparison:
    """Two metrics of one ability over training.

    Attributes:
        thresholded, continuous: emergence of either, with fitted sigmoids (`.sigmoid.width`).
        width, continuous_width: e-folds of 1 + step from 10 % to 90 % of the change, on the
            curve made monotone (isotonic regression).
        width_ratio, ratio_low, ratio_high: thresholded by continuous, with an interval.
        lead, lead_low, lead_high: e-folds by which the continuous metric has done 10 % of its
            change sooner than the thresholded one, with an interval.
        done_before, done_low, done_high: share of the continuous metric's change that was done at
            the last step before the thresholded one emerged, with an interval; NaN if undecided.
        verdict: `"metric"`: continuous earlier and broader. `"late_onset"`: earlier, not broader.
            `"sharper"`: broader, not earlier. `"shared"`: neither. `"undecided"`: one of them does
            not emerge. Earlier: it leaves chance at a step before the window of the other, and
            its lead is above 0 with the whole interval.
        level: of the intervals.
        n, n_draws, seed: steps, simulated curves, seed.
    """

    thresholded: Emergence
    continuous: Emergence
    width: float
    continuous_width: float
    width_ratio: float
    ratio_low: float
    ratio_high: float
    lead: float
    lead_low: float
    lead_high: float
    done_before: float
    done_low: float
    done_high: float
    verdict: Verdict
    level: float
    n: int
    n_draws: int
    seed: int

    def to_frame(self) -> pd.DataFrame:
        """Tidy rows `{metric}.emergence` of both, then `width_ratio`, `lead`, `done_before`."""
        labels = {name: getattr(self.thresholded, name) for name in ("model", "layer", "head")}
        rows = pd.concat([self.thresholded.to_frame(), self.continuous.to_frame()])
        rows["rise_width"] = [self.width, self.continuous_width]
        ends = (
            ("width_ratio", self.width_ratio, self.ratio_low, self.ratio_high),
            ("lead", self.lead, self.lead_low, self.lead_high),
            ("done_before", self.done_before, self.done_low, self.done_high),
        )
        pair = f"{self.thresholded.metric}|{self.continuous.metric}"
        further = [
            {"metric": f"{pair}.{name}", "value": value, "low": low, "high": high}
            for name, value, low, high in ends
        ]
        more = tidy(further, n=self.n, seed=self.seed, **labels)
        return tidy(pd.concat([rows, more], ignore_index=True)).assign(verdict=self.verdict)

    def summary(self) -> str:
        """A few plain sentences."""
        lines = [self.thresholded.summary(), self.continuous.summary()]
        if np.isfinite(self.done_before):
            lines.append(
                f"When {self.thresholded.metric} emerges (after step "
                f"{self.thresholded.step_before}), {self.done_before:.0%} of the change of "
                f"{self.continuous.metric} is done ({self.done_low:.0%} to {self.done_high:.0%}). "
                f"Its rise takes {self.width:.2g} e-folds of training against "
                f"{self.continuous_width:.2g}, ratio {self.width_ratio:.2f} "
                f"({self.ratio_low:.2f} to {self.ratio_high:.2f}), and begins {self.lead:.2g} "
                f"e-folds later ({self.lead_low:.2g} to {self.lead_high:.2g})."
            )
        return " ".join([*lines, f"Verdict: {_WORDS[self.verdict]}."])


def compare_emergence(
    frame: pd.DataFrame,
    *,
    thresholded: str,
    continuous: str,
    chance: float | int | Literal["first_step"],
    continuous_chance: float | int | Literal["first_step"] = "first_step",
    transform: Transform = "none",
    se: str | None = "se",
    alpha: float = 0.05,
    n_draws: int = 1000,
    seed: int = 0,
) -> EmergenceComparison:
    """Whether a metric with a threshold makes a gradual improvement look sudden.

    An answer of k tokens is right if all are: if each is with probability p, accuracy is about
    p^k, flat for long and steep at the end, while log p improves all along. Compared are *when*
    either metric leaves chance (`emergence_step`) and *how fast* it goes from 10 % to 90 % of its
    change on log(1 + step). The intervals come from curves drawn anew within their errors; a
    width ratio counts as below one if its whole interval is. The more precise of two metrics
    leaves chance at an earlier step even where both curves have one shape: earlier means also
    that the first 10 % of the change are done sooner, with the whole interval.

    Args:
        frame: tidy frame with both metrics of one model, layer and head at the same steps.
        thresholded: the metric with a threshold, such as `"lambada_openai.acc"`.
        continuous: the graded one, such as `"lambada_openai.ppl"` or a log-probability; whether
            it rises or falls is read off its ends.
        chance: of the thresholded metric, known beforehand (`chance_level`), or `"first_step"`:
            its value at the first checkpoint, whose error is then added in quadrature.
        continuous_chance: likewise. A continuous metric has no level of guessing, unless it is a
            difference between two answers (0); an untrained model is the usual reference.
        transform: of the continuous metric: `"log"` for perplexities (values become nats).
        se: column of standard errors, or None: noise is then estimated from each curve.
        alpha: of both emergence tests; the intervals have level 1 - alpha.
        n_draws: simulated pairs of curves.
        seed: of the draws.

    Returns:
        An `EmergenceComparison`.

    Raises:
        InputError: if the two metrics are not measured at the same steps, or are no curves.

    What it does not show: that the ability itself is gradual. The continuous metric also improves
    by what is no part of the ability (how frequent the answer's words are, the format), mostly
    early. Errors of the two metrics are drawn independently although they share examples, which
    widens the intervals; what differs between checkpoints beyond that is not in them. Widths
    below the spacing of the checkpoints cannot be told apart.

    References:
        Schaeffer, Miranda, Koyejo, "Are emergent abilities of large language models a mirage?",
        2023.

    Example:
        >>> import numpy as np, pandas as pd
        >>> from headspec.series.emergence_comparison import compare_emergence
        >>> steps = np.r_[0, 2 ** np.arange(16)]
        >>> loss = np.linspace(8, 0.01, 17)                       # nats a token, gradual
        >>> rows = [pd.DataFrame({"step": steps, "metric": m, "value": v, "se": 0.01})
        ...         for m, v in (("acc", np.exp(-5 * loss)), ("loss", loss))]
        >>> found = compare_emergence(
        ...     pd.concat(rows), thresholded="acc", continuous="loss", chance=0)
        >>> found.verdict, found.continuous.step < found.thresholded.step
        ('metric', True)
    """
    check_choice("transform", transform, get_args(Transform))
    if se is not None and se not in frame:
        raise InputError(
            expected=f"a column {se!r}", got=f"{list(frame.columns)}", fix="se=None estimates it."
        )
    pair = [_prepare(frame, thresholded, "none", se), _prepare(frame, continuous, transform, se)]
    if not np.array_equal(pair[0]["step"], pair[1]["step"]):
        raise InputError(
            expected=f"{thresholded} and {continuous} at the same steps",
            got=f"{len(pair[0])} and {len(pair[1])} steps",
            fix="Keep the steps that both have.",
        )
    found = [
        _emergence(one, metric, level, alpha)
        for one, metric, level in zip(
            pair, (thresholded, continuous), (chance, continuous_chance), strict=True
        )
    ]
    return _compare(pair, found, alpha, n_draws, seed)


def _prepare(
    frame: pd.DataFrame, metric: str, transform: Transform, se: str | None
) -> pd.DataFrame:
    """The rows of one metric in order, in its scale, with a column `noise`."""
    read_curve(frame, metric, noise_sd=se, min_points=5)
    rows = frame.loc[frame["metric"] == metric].sort_values(by="step").reset_index(drop=True)
    values = rows["value"].to_numpy(float)
    if transform == "log" and (values <= 0).any():
        raise InputError(
            expected=f"positive values of {metric} for transform='log'",
            got=f"{values.min()}",
            fix="transform='none' for losses and log-probabilities.",
        )
    scale = 1 / values if transform == "log" else np.ones(len(values))
    values = np.log(values) if transform == "log" else values
    if se is None:
        positions = np.log1p(rows["step"].to_numpy(float))
        noise = np.full(len(values), local_noise_sd(values[None], positions)[0])
        return rows.assign(value=values, noise=noise)
    errors = rows[se].to_numpy(float) * scale
    return rows.assign(value=values, noise=errors, **{se: errors})


def _emergence(
    rows: pd.DataFrame, metric: str, chance: float | int | Literal["first_step"], alpha: float
) -> Emergence:
    values = rows["value"].to_numpy(float)
    level = values[0] if isinstance(chance, str) else chance
    return emergence_step(
        rows,
        metric,
        chance=chance,
        se="noise",
        direction="rise" if np.median(values[-3:]) >= level else "fall",
        alpha=alpha,
    )


def _compare(
    pair: list[pd.DataFrame], found: list[Emergence], alpha: float, n_draws: int, seed: int
) -> EmergenceComparison:
    rng = np.random.default_rng(seed)
    x = np.log1p(pair[0]["step"].to_numpy(float))
    decided = all(one.status == "emerged" for one in found)
    before = x[pair[0]["step"].tolist().index(found[0].step_before)] if decided else np.nan
    measured, drawn = [], []
    for rows, one in zip(pair, found, strict=True):
        sign = 1.0 if one.direction == "rise" else -1.0
        above = sign * (rows["value"].to_numpy(float) - one.chance)
        noise = rows["noise"].to_numpy(float)
        draws = above + noise * rng.standard_normal((n_draws, len(above)))
        measured.append(rise_of(above, x, before))
        drawn.append(np.array([rise_of(draw, x, before) for draw in draws]))
    (width, start, _), (other, other_start, done) = measured
    samples = (
        drawn[0][:, 0] / drawn[1][:, 0],
        drawn[0][:, 1] - drawn[1][:, 1],
        drawn[1][:, 2],
    )
    verdict: Verdict = "undecided"
    ends = [(np.nan, np.nan)] * len(samples)
    if decided:
        ends = [np.nanquantile(each, [alpha / 2, 1 - alpha / 2]).tolist() for each in samples]
        earlier = (found[1].step or 0) <= (found[0].step_before or 0) and ends[1][0] > 0
        verdict = _verdict(earlier, sharper=bool(ends[0][1] < 1))
    return EmergenceComparison(
        *found,
        width=width,
        continuous_width=other,
        width_ratio=width / other if decided else np.nan,
        ratio_low=ends[0][0],
        ratio_high=ends[0][1],
        lead=start - other_start if decided else np.nan,
        lead_low=ends[1][0],
        lead_high=ends[1][1],
        done_before=done if decided else np.nan,
        done_low=ends[2][0],
        done_high=ends[2][1],
        verdict=verdict,
        level=1 - alpha,
        n=len(x),
        n_draws=n_draws,
        seed=seed,
    )


def _verdict(earlier: bool, *, sharper: bool) -> Verdict:
    if sharper:
        return "metric" if earlier else "sharper"
    return "late_onset" if earlier else "shared"
