"""Trainings and measurements: conditions by name, shared data, nothing finished is done again."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import headspec as hs
from headspec.errors import InputError
from headspec.studies import topic_runs
from headspec.studies.option_lists import parse_names, parse_seeds
from headspec.studies.topic_analysis import analyse_topic_study
from headspec.studies.topic_conditions import TopicCondition, topic_conditions
from headspec.studies.topic_examples import example_patterns
from headspec.studies.topic_measures import sequence_losses
from headspec.studies.topic_scales import topic_scale
from headspec.training.recalibration import recalibration_config
from headspec.training.token_data import open_token_data
from headspec.training.token_stream import TokenStream
from headspec.training.training_run import open_run

pytestmark = pytest.mark.models

NAMES = [
    "mha_shuffled_rope",
    "mha_shuffled_drope",
    "mha_topic_ordered_rope",
    "mha_topic_ordered_drope",
    "gqa_shuffled_rope",
    "gqa_shuffled_drope",
    "gqa_topic_ordered_rope",
    "gqa_topic_ordered_drope",
]


def tiny():
    debug = topic_scale("debug")
    assert debug.languages is not None
    languages = replace(debug.languages, seq_len=16, vocab_size=30)
    changed = debug.change(steps=3, batch_size=4, attention=["mha"])
    return replace(changed, languages=languages, n_train=48, n_measured=12, n_published=6)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    return topic_runs.run_topic_study(tiny(), seeds=(0, 1), out=out, progress=False)


def test_the_eight_conditions_of_the_study():
    assert [each.name for each in topic_conditions()] == NAMES
    with pytest.raises(InputError, match="ordering"):
        TopicCondition("mha", "sorted", "rope")


def test_scales_are_the_studys():
    run1, sanity = topic_scale("run1"), topic_scale("sanity")
    assert (run1.n_train, run1.n_validation, run1.steps, run1.batch_size) == (
        *(100_000, 10_000, 10_000),
        64,
    )
    assert run1.recalibration_steps == 100
    assert sanity.languages is not None
    assert (sanity.languages.n_topics, sanity.languages.vocab_size) == (3, 512)
    assert (sanity.languages.concentration, sanity.languages.boost) == (100.0, "own")
    assert (sanity.n_train, sanity.steps, sanity.languages.seq_len) == (20_000, 5000, 256)
    assert [each.name for each in sanity.conditions] == NAMES[:4]
    assert len(sanity.change(attention=["mha", "gqa"]).conditions) == 8
    assert topic_scale("v2").languages is None


def test_options():
    assert parse_seeds("0,1,2") == (0, 1, 2)
    assert parse_names("mha, gqa") == ("mha", "gqa")
    for text in ("", "1,1", "-1,2", "a"):
        with pytest.raises(InputError, match="different seeds"):
            parse_seeds(text)
    with pytest.raises(InputError, match="attention"):
        topic_scale("debug").change(attention=["mqa"])
    with pytest.raises(InputError, match="recalibration"):
        topic_scale("debug").change(recalibration_ordering="sorted")


def test_everything_is_measured_in_every_condition(study):
    frame = study.frame
    assert set(frame["condition"]) == set(NAMES[:4])
    counts = frame.groupby(["condition", "seed"])["metric"].nunique()
    assert counts.nunique() == 1
    assert {"validation_loss", "entropy", "topic_excess", "accuracy", "qk.effective_rank",
            "ov.silhouette", "published_entropy"} <= set(frame["metric"])  # fmt: skip
    entropy = frame.loc[frame["metric"] == "entropy"]
    assert (entropy["value"] <= entropy["null_mean"]).all()
    assert (frame["model"] == frame["condition"]).all()


def test_one_data_set_and_the_same_start_for_all_conditions(study):
    configs = [open_run(f"{study.folder}/runs/{name}_seed0").config for name in NAMES[:4]]
    assert len({one.data for one in configs}) == 1
    both = [study.suite(name, 0) for name in (NAMES[0], NAMES[2])]
    assert both[0].fingerprint(0) == both[1].fingerprint(0)
    assert both[0].fingerprint(3) != both[1].fingerprint(3)
    other = study.suite(NAMES[0], 1)
    assert other.fingerprint(0) != both[0].fingerprint(0)


def test_drope_is_the_same_model_without_rotation(study):
    suite = study.suite("mha_topic_ordered_drope", 0)
    trained = study.suite("mha_topic_ordered_rope", 0)
    assert suite.config(0)["dropped_rope_layers"] == [0, 1, 2]
    assert torch.equal(suite.head_weights(0, 1).W_Q, trained.head_weights(3, 1).W_Q)


def test_recalibration_reads_the_same_shuffled_sequences_in_every_arm(study):
    """Pitfall 16: the first 1 % of a topic-ordered stream holds one topic."""
    runs = [open_run(f"{study.folder}/runs/{name}_seed0") for name in (NAMES[1], NAMES[3])]
    configs = [run.config for run in runs]
    assert [one.ordering for one in configs] == ["shuffled", "shuffled"]
    assert configs[0].data_seed == configs[1].data_seed
    data = open_token_data(configs[0].data)
    trained = open_run(f"{study.folder}/runs/{NAMES[2]}_seed0")
    published = recalibration_config(trained, ordering="topic_ordered")
    seen = {}
    for config in (configs[0], published):
        batches = TokenStream(
            data, batch_size=12, ordering=config.ordering, seed=config.data_seed or 0
        ).batch(0)
        rows = [np.flatnonzero((data.tokens == row.numpy()).all(1))[0] for row in batches]
        seen[config.ordering] = len(set(data.dominant_topics[rows]))
    assert seen == {"shuffled": 3, "topic_ordered": 1}


def test_losses_are_transformers_own(study):
    suite = study.suite("mha_shuffled_drope", 0)
    tokens = torch.randint(3, 30, (5, 16), generator=torch.Generator().manual_seed(0))
    model = suite.model(suite.steps[-1])
    losses = sequence_losses(model, tokens, batch_size=2)
    with torch.no_grad():
        logits = model(tokens)
    expected = torch.nn.functional.cross_entropy(
        logits[:, :-1].mT, tokens[:, 1:], reduction="none"
    ).mean(1)
    np.testing.assert_allclose(losses, expected.numpy(), atol=1e-5)


def test_a_second_run_does_nothing_again(study, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr(topic_runs, "measure_topic_model", refuse)
    again = topic_runs.run_topic_study(tiny(), seeds=(0, 1), out=study.folder, progress=False)
    assert again.frame.equals(study.frame)
    with pytest.raises(AssertionError, match="measured again"):
        topic_runs.run_topic_study(
            replace(tiny(), n_measured=10), seeds=(0, 1), out=study.folder, progress=False
        )


def test_other_settings_are_refused_not_mixed(study):
    with pytest.raises(InputError, match="steps"):
        topic_runs.run_topic_study(
            tiny().change(steps=5), seeds=(0,), out=study.folder, progress=False
        )


def test_the_analysis_of_it(study):
    found = analyse_topic_study(study)
    assert len(found.verdicts) == 4
    assert len(found.tables["conditions"]) == 4
    assert found.tables["references"].set_index("metric").loc["bayes_loss", "value"] > 1
    patterns, compared, topics = example_patterns(study, n_tokens=16)
    assert len(patterns) == 4
    assert all(np.triu(pattern, 1).max() == 0 for pattern in patterns.values())
    assert np.triu(compared["mask dropped"], 1).max() > 0
    assert len(topics) == 16
    assert hs.plot_attention_heatmaps(patterns, topics).data
