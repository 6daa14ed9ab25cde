"""The published way gives wrong figures on the same model; the corrected analysis does not."""

import numpy as np
import pytest
import torch

import headspec as hs
from headspec.errors import InputError
from headspec.lens.models import wrap_model
from headspec.studies.topic_published import published_figures, unmasked_patterns

pytestmark = pytest.mark.models

N, LENGTH = 12, 24


def model_of(seed=0):
    config = hs.MiniQwenConfig.preset("debug", vocab_size=40, seq_len=LENGTH)
    config = hs.MiniQwenConfig.from_dict({**config.to_dict(), "n_layers": 2, "hidden_size": 32})
    return hs.build_mini_qwen(config, seed=seed).eval()


@pytest.fixture(scope="module")
def model():
    return wrap_model(model_of())


@pytest.fixture(scope="module")
def sample():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, 40, (N, LENGTH), generator=generator)
    starts = torch.randint(0, 3, (N, 3), generator=generator)
    return tokens, starts.repeat_interleave(LENGTH // 3, dim=1)


@pytest.fixture(scope="module")
def published(model, sample):
    return published_figures(model, *sample)


def test_without_its_mask_a_head_exceeds_what_causal_attention_can_reach(model, sample, published):
    """Pitfall 14. An untrained model attends to later tokens as much as to earlier ones."""
    assert published.ceiling == pytest.approx(np.log(np.arange(1, LENGTH + 1)).mean())
    assert (published.entropy > published.ceiling).all()
    assert (published.entropy < np.log(LENGTH)).all()
    right = hs.attention_statistics(model, sample[0], labels=sample[1])
    assert (right.entropy <= right.ceiling + 1e-9).all()
    assert right.ceiling == pytest.approx(published.ceiling)
    with pytest.raises(InputError, match="causal"):
        hs.attention_entropy(unmasked_patterns(model, sample[0][:1])[0])


def test_patterns_without_a_mask_are_transformers_own(sample):
    hf = model_of(3)
    hf.set_attn_implementation("eager")
    nothing = torch.zeros(N, 1, LENGTH, LENGTH)
    with torch.no_grad():
        expected = hf(
            sample[0], attention_mask=nothing, output_attentions=True, use_cache=False
        ).attentions
    found = unmasked_patterns(wrap_model(model_of(3)), sample[0])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other.double(), atol=1e-6, rtol=0)


def test_within_topic_mass_has_a_large_baseline(model, sample, published):
    """Pitfall 15. An untrained model knows no topics and puts 40 % and more within the topic."""
    tokens, labels = sample
    shares = [[(row == topic).float().mean() for topic in range(3)] for row in labels]
    expected = float(torch.tensor(shares).square().sum(1).mean())
    assert published.uniform_within == pytest.approx(expected, abs=1e-6)
    assert published.within_topic_mass.mean() == pytest.approx(expected, abs=0.02)
    assert published.within_topic_mass.mean() > 0.38
    right = hs.attention_statistics(model, tokens, labels=labels)
    baseline = right.baselines.uniform["within_topic_mass"]
    assert right.means["within_topic_mass"].mean() == pytest.approx(baseline, abs=0.02)
    assert np.abs(right.means["topic_excess"]).max() < 0.1


def test_probes_split_by_token_learn_the_sequence():
    """Pitfall 17. Each sequence has a token and a random topic of its own: nothing to learn."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.arange(4, 34)[:, None].repeat(1, LENGTH)
    labels = torch.randint(0, 2, (30, 1), generator=generator).repeat(1, LENGTH)
    found = published_figures(wrap_model(model_of(1)), tokens, labels)
    assert (found.probe_accuracy > 0.98).all()
    assert (found.by_sequence_accuracy < 0.85).all()


def test_the_frame_has_the_baselines_that_were_not_published(published, tmp_path):
    frame = published.to_frame()
    assert list(frame.columns[: len(hs.results.TIDY_COLUMNS)]) == list(hs.results.TIDY_COLUMNS)
    assert len(frame) == 2 * 2 * 4 + 2 * 2
    assert frame["null_mean"].notna().all()
    assert "8 of 8 heads above the causal ceiling" in published.summary()
    again = hs.results.load(hs.results.save(published, tmp_path / "published.json"))
    np.testing.assert_array_equal(again.entropy, published.entropy)


def test_other_models_and_shapes_are_refused(sample):
    with pytest.raises(InputError, match="TransformerBridge"):
        published_figures(model_of(), *sample)
    with pytest.raises(InputError, match="tokens and labels"):
        published_figures(wrap_model(model_of()), sample[0], sample[1][:, :5])
