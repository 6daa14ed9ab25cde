"""The result of probing: directions, scores beside their baselines, and what they say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from headspec.activations.probe_fitting import FittedProbe, ProbeQuestion
from headspec.activations.probe_scores import METRICS
from headspec.errors import InputError
from headspec.results import tidy

_FITTED = (
    "weights", "biases", "mean", "scale", "temperature", "l2", "control_l2", "validation_losses"
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Probes:
    """Linear probes, one a layer (or a layer and head), and their scores on test groups.

    `stack` is the leading shape of the activations: none, `layer`, or `layer head`. Scores are
    `x @ weights.T + biases` for activations as they are; probabilities softmax(scores /
    temperature). Intervals resample test groups with the probe as it is: they do not hold what
    another training split would change. What accuracy does not show: that the model uses what the
    probe reads, nor how the information is laid out beyond being linear.

    Attributes:
        weights, biases: in the original space.
        mean, scale: of the training samples, with which features were standardised.
        temperature: 1 for logistic probes; else fitted on validation.
        l2, control_l2: penalties chosen on validation, in mean loss + l2/2 |W|² of standardised
            features; nan for class means and without a control.
        l2_grid, validation_losses: what was tried, and the losses on validation (log loss in
            nats; squared error for ridge).
        values, low, high, null_mean, null_sd: metric -> array over `stack`: `accuracy`,
            `balanced_accuracy` (mean recall of classes), `log_loss` (nats), `calibration_error`,
            and with a control `control_accuracy`, `selectivity` (accuracy - control accuracy).
            Baselines: the share of the largest class, 1 / classes, the log loss of class
            frequencies, and for the calibration error that of a calibrated probe (see
            `calibration_score`); of selectivity, the difference of the two largest shares.
        layers: number of each layer of the first axis.
        classes: labels, in the order of `class`.
        kind, control: `"logistic" "ridge" "mean_difference"`; `"token_type" "group"` or None.
        n_samples, n_groups: of train, validation, test.
        level, n_bootstrap, seed: of the intervals and all drawing.
        site, model, step, processing, notes: where the activations come from; what to mind.
    """

    weights: Float[np.ndarray, "*stack class d_model"]
    biases: Float[np.ndarray, "*stack class"]
    mean: Float[np.ndarray, "*stack d_model"]
    scale: Float[np.ndarray, "*stack d_model"]
    temperature: Float[np.ndarray, "*stack"]
    l2: Float[np.ndarray, "*stack"]
    control_l2: Float[np.ndarray, "*stack"]
    l2_grid: tuple[float, ...]
    validation_losses: Float[np.ndarray, "*stack l2"]
    values: dict[str, Float[np.ndarray, "*stack"]]
    low: dict[str, Float[np.ndarray, "*stack"]]
    high: dict[str, Float[np.ndarray, "*stack"]]
    null_mean: dict[str, Float[np.ndarray, "*stack"]]
    null_sd: dict[str, Float[np.ndarray, "*stack"]]
    layers: tuple[int, ...]
    classes: tuple[int, ...]
    kind: str
    control: str | None
    n_samples: tuple[int, int, int]
    n_groups: tuple[int, int, int]
    level: float
    n_bootstrap: int
    seed: int
    site: str = ""
    model: str = ""
    step: int | None = None
    processing: str = "none"
    notes: tuple[str, ...] = ()

    @property
    def accuracy(self) -> Float[np.ndarray, "*stack"]:
        """Share of test samples whose class is predicted."""
        return self.values["accuracy"]

    @property
    def control_accuracy(self) -> Float[np.ndarray, "*stack"]:
        """The same on the control task, by a probe of its own; nan without one."""
        return self.values.get("control_accuracy", np.full_like(self.accuracy, np.nan))

    @property
    def selectivity(self) -> Float[np.ndarray, "*stack"]:
        """Accuracy minus control accuracy (Hewitt and Liang 2019); nan without a control."""
        return self.values.get("selectivity", np.full_like(self.accuracy, np.nan))

    @property
    def direction(self) -> Float[np.ndarray, "*stack class d_model"]:
        """Unit vector of each class against the mean of all classes, in the original space.

        Of two classes the second is the first turned round. Zero where a probe ignores its input.
        """
        centred = self.weights - self.weights.mean(-2, keepdims=True)
        norms = np.linalg.norm(centred, axis=-1, keepdims=True)
        return np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 0)

    def probabilities(
        self, activations: Float[Tensor, "*stack sample d_model"]
    ) -> Float[np.ndarray, "*stack sample class"]:
        """Class probabilities that the probes give to other activations, such as another model's.

        Raises:
            InputError: activations of another shape than the probes were fitted on.
        """
        stack, width = self.weights.shape[:-2], self.weights.shape[-1]
        if activations.shape[:-2] != stack or activations.shape[-1] != width:
            raise InputError(
                expected=f"activations of shape {[*stack, 'sample', width]}, as was fitted",
                got=str(list(activations.shape)),
                fix="Take the same layers and site.",
            )
        x = activations.detach().cpu().double()
        scores = x @ torch.from_numpy(self.weights).mT + torch.from_numpy(self.biases)[..., None, :]
        return (scores / torch.from_numpy(self.temperature)[..., None, None]).softmax(-1).numpy()

    def to_frame(self) -> pd.DataFrame:
        """One row a layer (and head) and metric; `n` counts test groups.

        Extra columns: `low`, `high` (ends of the interval), `n_samples` (test), `l2`, `site`,
        `kind`, `control`, `processing`.
        """
        stack = self.accuracy.shape
        rows: list[dict[str, Any]] = [
            {
                "layer": self.layers[place[0]] if stack else None,
                "head": place[1] if len(stack) > 1 else None,
                "metric": name,
                "value": values[place],
                "null_mean": self.null_mean[name][place],
                "null_sd": self.null_sd[name][place],
                "low": self.low[name][place],
                "high": self.high[name][place],
                "l2": self.l2[place],
            }
            for name, values in self.values.items()
            for place in np.ndindex(stack)
        ]
        return tidy(
            rows,
            model=self.model,
            step=self.step,
            n=self.n_groups[2],
            seed=self.seed,
            n_samples=self.n_samples[2],
            site=self.site,
            kind=self.kind,
            control=self.control,
            processing=self.processing,
        )

    def summary(self) -> str:
        """What was probed, the best layer or head with its interval and control, and the notes."""
        where = " ".join(part for part in (self.model, self.site) if part)
        best = np.unravel_index(int(np.argmax(self.accuracy)), self.accuracy.shape)
        name = f"L{self.layers[best[0]]}" if best else "The probe"
        name += f"H{best[1]}" if len(best) > 1 else ""
        highest = f" (highest of {self.accuracy.size})" if best else ""
        step = "" if self.step is None else f", step {self.step}"
        lines = [
            f"{where or 'Activations'}{step}: {self.kind} probes of {len(self.classes)} classes, "
            f"{self.accuracy.size} in all, tested on {self.n_samples[2]} samples of "
            f"{self.n_groups[2]} groups.",
            f"{name}{highest}: accuracy {self._words('accuracy', best)}, "
            f"largest class {self.null_mean['accuracy'][best]:.3f}; log loss "
            f"{self.values['log_loss'][best]:.3f} nats (class frequencies "
            f"{self.null_mean['log_loss'][best]:.3f}); calibration error "
            f"{self.values['calibration_error'][best]:.3f} (calibrated probe "
            f"{self.null_mean['calibration_error'][best]:.3f}).",
        ]
        if self.control is not None:
            task = "token types" if self.control == "token_type" else "other groups' labels"
            lines.append(
                f"Control task ({task}): accuracy {self._words('control_accuracy', best)}; "
                f"selectivity {self._words('selectivity', best)}."
            )
        return "\n".join([*lines, *self.notes])

    def _words(self, metric: str, place: Any) -> str:
        low, high = self.low[metric][place], self.high[metric][place]
        return f"{self.values[metric][place]:.3f} [{low:.3f}, {high:.3f}]"


def collect_probes(
    question: ProbeQuestion,
    fitted: list[FittedProbe],
    *,
    stack: tuple[int, ...],
    layers: tuple[int, ...],
    **origin: Any,
) -> Probes:
    """Probes of all layers (and heads) as one result; `fitted` in the order of `stack`."""

    def gather(values: list[Any]) -> np.ndarray:
        array = np.array(values, dtype=float)
        return array.reshape((*stack, *array.shape[1:]))

    scored = [name for name in METRICS if name in fitted[0].scores]

    def column(field: str) -> dict[str, np.ndarray]:
        return {
            name: gather([getattr(one.scores[name], field) for one in fitted]) for name in scored
        }

    split = question.split
    return Probes(
        **{name: gather([getattr(one, name) for one in fitted]) for name in _FITTED},
        l2_grid=question.l2,
        values=column("value"),
        low=column("low"),
        high=column("high"),
        null_mean=column("null_mean"),
        null_sd=column("null_sd"),
        layers=layers,
        classes=question.classes,
        kind=question.kind,
        control=question.control,
        n_samples=(len(split.train), len(split.validation), len(split.test)),
        n_groups=split.n_groups,
        level=question.level,
        n_bootstrap=len(question.resamples.counts),
        seed=question.seed,
        notes=_notes(question, fitted),
        **origin,
    )


def _notes(question: ProbeQuestion, fitted: list[FittedProbe]) -> tuple[str, ...]:
    notes = []
    if question.split.n_groups[2] < 20:
        notes.append(
            f"Only {question.split.n_groups[2]} test groups: intervals are rough below about 20."
        )
    edges = [sum(one.l2 == question.l2[end] for one in fitted) for end in (0, -1)]
    if len(question.l2) > 1 and edges[0]:
        notes.append(
            f"{edges[0]} of {len(fitted)} probes chose the smallest penalty, {question.l2[0]:g}: "
            "a smaller one might do better."
        )
    return tuple(notes)
