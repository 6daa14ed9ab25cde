"""Sizes at which the topic-ordering study runs: its own three, and one for a minute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from headspec.errors import check_choice
from headspec.studies.topic_conditions import FACTOR_LEVELS, TopicCondition, topic_conditions
from headspec.training.micro_languages import MicroLanguages
from headspec.training.mini_qwen import MiniQwenConfig, Preset
from headspec.training.token_data import TokenData, open_token_data
from headspec.training.train_config import OptimizerConfig, Precision, TrainConfig

ScaleName = Literal["debug", "sanity", "run1", "v2"]


@dataclass(frozen=True, kw_only=True)
class TopicScale:
    """How large a run of the study is.

    Attributes:
        name: preset of the model.
        languages: the data; None: text, from a corpus (`corpus_topics` topics).
        n_train, n_validation: sequences of micro-languages.
        steps, batch_size: of each training.
        attentions: which; both make eight conditions.
        recalibration: share of the steps trained after RoPE is dropped, on the shuffled data.
        recalibration_ordering: the order of those data; the study's own recalibration took
            `"topic_ordered"` data in that arm, and with them its first topic only.
        n_measured: validation sequences on which attention, probes and losses are measured.
        n_published: of them, those on which the published figures are computed.
        adamw_lr, precision, validate_every: of the trainings. AdamW trains the embeddings; its
            rate is the study's, except for a run so short that they would hardly move.
    """

    name: Preset
    languages: MicroLanguages | None
    n_train: int
    n_validation: int
    steps: int
    batch_size: int
    attentions: tuple[str, ...] = ("mha", "gqa")
    recalibration: float | int = 0.01
    recalibration_ordering: Literal["shuffled", "topic_ordered"] = "shuffled"
    n_measured: int = 256
    n_published: int = 32
    adamw_lr: float | int = 3e-4
    precision: Literal["bf16", "fp32"] = "bf16"
    validate_every: int = 250
    corpus_topics: int = 8

    @property
    def conditions(self) -> tuple[TopicCondition, ...]:
        """The conditions that this scale runs."""
        return topic_conditions(self.attentions)

    @property
    def recalibration_steps(self) -> int:
        """Updates after RoPE is dropped: one at least."""
        return max(1, round(self.recalibration * self.steps))

    def change(
        self,
        *,
        steps: int = 0,
        batch_size: int = 0,
        attention: Sequence[str] = (),
        precision: str = "",
        recalibration_steps: int = 0,
        recalibration_ordering: str = "",
        boost: str = "",
        n_measured: int = 0,
    ) -> TopicScale:
        """The scale with other settings; 0 and nothing keep its own."""
        recalibration = recalibration_ordering or self.recalibration_ordering
        check_choice("recalibration", recalibration, FACTOR_LEVELS["ordering"])
        check_choice("precision", precision or self.precision, get_args(Precision))
        topic_conditions(tuple(attention) or self.attentions)  # names unknown kinds
        changed = replace(
            self,
            steps=steps or self.steps,
            batch_size=batch_size or self.batch_size,
            attentions=tuple(attention) or self.attentions,
            precision=precision or self.precision,
            recalibration_ordering=recalibration,
            n_measured=n_measured or self.n_measured,
            n_published=min(self.n_published, n_measured or self.n_measured),
        )
        if boost and changed.languages is not None:
            changed = replace(changed, languages=replace(changed.languages, boost=boost))
        if recalibration_steps:
            changed = replace(changed, recalibration=recalibration_steps / changed.steps)
        return changed

    def data(self, folder: Path) -> TokenData:
        """The validation split of the data, which are written first where they do not lie there.

        Every condition and seed reads the same files.
        """
        if self.languages is not None:
            self.languages.write(folder, n_train=self.n_train, n_validation=self.n_validation)
        elif not (folder / "data.json").exists():
            from headspec.training.corpus import build_corpus

            build_corpus(folder, n_topics=self.corpus_topics)
        return open_token_data(folder, split="validation")

    def config(self, condition: TopicCondition, *, seed: int, data: Path) -> TrainConfig:
        """How the model of a condition is trained (with RoPE; both positions share it).

        The seed draws initial weights and the order of the data; both orders start from the same
        weights.
        """
        info = open_token_data(data, split="validation")
        return TrainConfig(
            model=MiniQwenConfig.preset(
                self.name,
                attention=condition.attention,  # type: ignore[arg-type]
                vocab_size=info.vocab_size,
                seq_len=info.seq_len,
            ),
            data=str(data),
            steps=self.steps,
            batch_size=self.batch_size,
            ordering=condition.ordering,  # type: ignore[arg-type]
            seed=seed,
            precision=self.precision,
            optimizer=OptimizerConfig(adamw_lr=self.adamw_lr),
            validate_every=self.validate_every,
            validation_sequences=256,
            checkpoints=(0, self.steps),
        )


SCALES: dict[str, TopicScale] = {
    "debug": TopicScale(
        name="debug",
        languages=MicroLanguages(
            n_topics=3, vocab_size=63, concentration=100.0, seq_len=64, boost="rotated"
        ),
        n_train=4000,
        n_validation=256,
        steps=250,
        batch_size=16,
        recalibration=0.1,
        n_measured=128,
        n_published=32,
        adamw_lr=3e-3,
        precision="fp32",
        validate_every=100,
    ),
    "sanity": TopicScale(
        name="sanity",
        languages=MicroLanguages(n_topics=3, vocab_size=512, concentration=100.0, seq_len=256),
        n_train=20_000,
        n_validation=2000,
        steps=5000,
        batch_size=64,
        attentions=("mha",),
    ),
    "run1": TopicScale(
        name="run1",
        languages=MicroLanguages(),
        n_train=100_000,
        n_validation=10_000,
        steps=10_000,
        batch_size=64,
        n_measured=512,
    ),
    "v2": TopicScale(
        name="v2",
        languages=None,
        n_train=0,
        n_validation=0,
        steps=30_000,
        batch_size=64,
        n_measured=512,
    ),
}
"""The scales by name. `sanity`, `run1` and `v2` are the study's; its sanity check names no batch
size, and takes that of its first run here. `debug` has languages that single tokens tell nothing
of (`boost="rotated"`), which the study meant to have: with its own definition most of the topic can
be read off a token."""


def topic_scale(name: str) -> TopicScale:
    """A scale by its name.

    Raises:
        InputError: an unknown name.

    Example:
        >>> topic_scale("run1").recalibration_steps
        100
    """
    check_choice("scale", name, get_args(ScaleName))
    return SCALES[name]
