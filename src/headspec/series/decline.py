"""Does a capability decline late in training, or is its peak the luckiest of many points?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headspec.errors import InputError, check_choice
from headspec.results import tidy
from headspec.series.curve import read_curve
from headspec.series.emergence import Direction
from headspec.series.noise import local_noise_sd

_MIN_POINTS = 5


@dataclass(frozen=True)
class Decline:
    """How far a curve ends below its best point.

    Attributes:
        metric, model, layer, head: what was measured.
        peak_step, peak: where the metric is best, and its value there.
        last_step, last: the end of the curve.
        drop: how much worse the end is than the peak, 0 or more, in the unit of the metric.
        p_value: the larger of the next two; at most alpha for a decline to be reported.
        p_examples: could another draw of examples do it? From the standard errors; NaN without.
        p_wobble: could the wobble from checkpoint to checkpoint do it?
        null_mean, null_sd: of the drop on a curve that stays level, by the standard errors (by the
            local noise without). The peak is the best of `n` points, so this mean is not 0.
        direction, alpha, n, n_null, seed: what was asked; number of steps.
    """

    metric: str
    model: str | None
    layer: int | None
    head: int | None
    peak_step: int
    peak: float
    last_step: int
    last: float
    drop: float
    p_value: float
    p_examples: float
    p_wobble: float
    null_mean: float
    null_sd: float
    direction: Direction
    alpha: float
    n: int
    n_null: int
    seed: int

    @property
    def declines(self) -> bool:
        """Whether the end is worse than the peak beyond what noise and picking a peak give."""
        return self.p_value <= self.alpha

    def to_frame(self) -> pd.DataFrame:
        """One tidy row: `step` is the last, `value` the drop; `peak_step peak last` behind."""
        names = ("model", "layer", "head", "null_mean", "null_sd", "n", "seed")
        row = {name: getattr(self, name) for name in names}
        row |= {"step": self.last_step, "metric": f"{self.metric}.decline", "value": self.drop}
        further = ("peak_step", "peak", "last", "p_examples", "p_wobble", "direction")
        return tidy([row | {"p": self.p_value} | {name: getattr(self, name) for name in further}])

    def summary(self) -> str:
        """One or two plain sentences."""
        which = self.metric + (f" of {self.model}" if self.model else "")
        best = "highest" if self.direction == "rise" else "lowest"
        text = f"{which}: {best} at step {self.peak_step} ({self.peak:.4g})"
        if self.drop == 0:
            return text + ", the last: no decline."
        text += f", {self.last:.4g} at the last step {self.last_step}"
        if self.declines:
            return text + (
                f": worse by {self.drop:.3g}, of which picking the peak explains about "
                f"{self.null_mean:.2g} (p = {self.p_value:.2g})."
            )
        return text + f": within what noise and picking a peak give (p = {self.p_value:.2g})."


def decline_after_peak(
    frame: pd.DataFrame,
    metric: str,
    *,
    se: float | int | str | None = "se",
    direction: Direction = "rise",
    alpha: float = 0.05,
    n_null: int = 2000,
    seed: int = 0,
) -> Decline:
    """Whether a curve ends worse than its best point, corrected for picking that point.

        drop = max over steps of value - value at the last step

    If the true curve never declines, no point lies above the last one, so the drop is at most
    what a level curve with the same noise gives: drops of simulated level curves, drawn with the
    standard errors, bound p from above, whatever the rise before. But standard errors over
    examples know nothing of checkpoints that happen to be good. So a second test looks at the
    later half of the curve: how much better does one that rises and then falls fit than one that
    never falls (isotonic regression), in units of the wobble about the line through each point's
    neighbours? Its null is simulated on level curves with normal and with heavy-tailed noise. The
    larger p counts.

    Args:
        frame: tidy frame with `step`, `metric`, `value`, of one model, layer and head.
        metric: which metric.
        se: standard error of each value, a number or a column; None: judge by the wobble alone.
        direction: `"rise"` if more is better, `"fall"` for a loss.
        alpha: rate of false declines.
        n_null: simulated curves.
        seed: of the simulation.

    Returns:
        A `Decline`.

    Raises:
        InputError: if the frame does not hold one finite curve of 5 steps or more.

    What it does not show: why, or that the ability is lost: another measure of the same task can
    go on improving. It looks at the last step only; a dip that recovers is none. With few
    checkpoints after the peak, a slow decline and wobble are hard to tell apart, and a fall from
    one point to the next looks like wobble: with 10 points or fewer in all it is found in half of
    curves at most, however large. Wobble is
    taken to be independent between checkpoints: where a good checkpoint is followed by good ones
    (correlation .5, twice as wide as the standard errors) 15 % of level curves "decline" at .05.

    Example:
        >>> import pandas as pd
        >>> from headspec.series.decline import decline_after_peak
        >>> values = [0, 0, 0.05, 0.15, 0.25, 0.25, 0.24, 0.22, 0.21, 0.19]
        >>> frame = pd.DataFrame({"step": range(10), "metric": "acc", "value": values})
        >>> found = decline_after_peak(frame, "acc", se=0.005)
        >>> found.peak_step, round(found.drop, 2), found.declines
        (4, 0.06, True)
    """
    check_choice("direction", direction, get_args(Direction))
    if not 0 < alpha < 1 or n_null * alpha < 1:
        raise InputError(
            expected="0 < alpha < 1 and n_null x alpha from 1 up",
            got=f"alpha {alpha}, n_null {n_null}",
            fix="For instance alpha=0.05, n_null=2000.",
        )
    curve = read_curve(frame, metric, noise_sd=se, min_points=_MIN_POINTS)
    values = curve.values if direction == "rise" else -curve.values
    peak = int(values.argmax())
    drop = float(values[peak] - values[-1])
    rng = np.random.default_rng(seed)
    p_wobble, p_examples = _wobble_p(values, curve.steps, n_null, seed), np.nan
    noise = curve.noise_sd
    if noise is None:
        noise = local_noise_sd(values[None], curve.steps.astype(float))[0]
    draws = rng.standard_normal((n_null, len(values))) * noise
    null = draws.max(axis=1) - draws[:, -1]
    if curve.noise_sd is not None:
        p_examples = (1 + (null >= drop).sum()) / (1 + n_null)
    return Decline(
        metric=metric,
        model=curve.model,
        layer=curve.layer,
        head=curve.head,
        peak_step=int(curve.steps[peak]),
        peak=float(curve.values[peak]),
        last_step=int(curve.steps[-1]),
        last=float(curve.values[-1]),
        drop=drop,
        p_value=float(np.nanmax([p_examples, p_wobble])),
        p_examples=float(p_examples),
        p_wobble=p_wobble,
        null_mean=float(null.mean()),
        null_sd=float(null.std(ddof=1)),
        direction=direction,
        alpha=alpha,
        n=len(values),
        n_null=n_null,
        seed=seed,
    )


def _wobble_p(
    values: Float[np.ndarray, " step"], steps: Int[np.ndarray, " step"], n_null: int, seed: int
) -> float:
    """p of a rise and fall against a rise alone, in the later half, in units of the wobble."""
    later = slice(-max(_MIN_POINTS, len(values) // 2), None)
    values, steps = values[later], steps[later]
    gain, wobble = _gain_of_falling(values.tolist()), _wobble_variance(values, steps)
    if gain <= 1e-12 * float(np.ptp(values)) ** 2:
        return 1.0
    null = _wobble_null(tuple(steps.tolist()), n_null, seed)
    ratio = gain / wobble if wobble > 0 else np.inf
    return float(((1 + (null >= ratio).sum(axis=1)) / (1 + n_null)).max())


@lru_cache(maxsize=64)
def _wobble_null(steps: tuple[int, ...], n_null: int, seed: int) -> Float[np.ndarray, "noise draw"]:
    """Gain over wobble of level curves, with normal and with heavy-tailed noise."""
    rng = np.random.default_rng(seed)
    shape, at = (n_null, len(steps)), np.array(steps)
    return np.array(
        [
            [_gain_of_falling(draw.tolist()) / _wobble_variance(draw, at) for draw in draws]
            for draws in (rng.standard_normal(shape), rng.standard_t(3, size=shape))
        ]
    )


def _wobble_variance(values: Float[np.ndarray, " step"], steps: Int[np.ndarray, " step"]) -> float:
    """Variance about the line of the neighbours, as in `local_noise_sd`, by the mean square."""
    gaps = np.diff(steps).astype(float)
    left = gaps[:-1] / (gaps[:-1] + gaps[1:])
    off = values[1:-1] - ((1 - left) * values[:-2] + left * values[2:])
    return float((off**2 / (1 + left**2 + (1 - left) ** 2)).mean())


def _gain_of_falling(values: list[float]) -> float:
    """How much smaller the squared residuals get if a curve may fall after it has risen."""
    rising = _monotone_residuals(values)
    falling = _monotone_residuals(values[::-1])
    return rising[-1] - min(r + f for r, f in zip(rising, falling[::-1], strict=True))


def _monotone_residuals(values: list[float]) -> list[float]:
    """Squared residuals of the best never-falling fit to the first 0, 1, 2 ... values.

    Pool adjacent violators: what is pooled after k values is the fit to these.
    """
    blocks: list[tuple[float, int, float]] = []  # sum, count, residual
    totals, found = [0.0], [0.0]
    for value in values:
        block = (value, 1, 0.0)
        while blocks and blocks[-1][0] * block[1] >= block[0] * blocks[-1][1]:
            before = blocks.pop()
            totals.pop()
            apart = before[0] / before[1] - block[0] / block[1]
            n = before[1] + block[1]
            more = before[2] + block[2] + apart**2 * before[1] * block[1] / n
            block = (before[0] + block[0], n, more)
        blocks.append(block)
        totals.append(totals[-1] + block[2])
        found.append(totals[-1])
    return found
