"""Position maps, and what patching prompts of unequal length without one does."""

from __future__ import annotations

from importlib.metadata import version

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import bpe_tokenizer
from zoo import tiny_model, tiny_tokenizer

from headspec.errors import InputError
from headspec.interventions.edits import Edit
from headspec.interventions.patching import patch_heads
from headspec.interventions.replay import Replay
from headspec.lens.models import wrap_model
from headspec.tasks.alignment import PositionMap, align_positions, invert_map, map_activations
from headspec.tasks.pairs import PromptPair
from headspec.tasks.prompts import Task

OLDEST = version("transformer-lens").startswith("3.")
CLASSES = ("bridge", "hooked_transformer") if OLDEST else ("bridge",)

QUESTION = "Which is bigger: 9.8 or 9.11?"
PLAIN, QA = f"{QUESTION}\nAnswer:", f"Q: {QUESTION}\nA:"


def tokens_of(text: str) -> list[str]:
    tokenizer = bpe_tokenizer()
    return [tokenizer.decode([token]) for token in tokenizer(text).input_ids]


def test_the_two_formats_of_the_study_share_the_question_token_by_token():
    found = align_positions(PLAIN, QA, bpe_tokenizer(), shared=QUESTION)
    plain, qa = tokens_of(PLAIN), tokens_of(QA)
    assert len(plain) != len(qa)
    assert (found.n_clean, found.n_corrupt) == (len(plain), len(qa))
    assert all(plain[a].strip() == qa[b].strip() for a, b in found.pairs[:-1])
    assert "".join(plain[a] for a, _ in found.pairs[:-1]) == QUESTION
    assert found.pairs[-1] == (len(plain) - 1, len(qa) - 1)  # where the answer is predicted
    # negative control: the same columns counted from the left hold other words
    same = [one == other for one, other in zip(plain, qa, strict=False)]
    assert sum(same) < len(plain) / 2


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(20, 60), min_size=1, max_size=6),
    st.lists(st.integers(20, 40), max_size=4),
    st.lists(st.integers(41, 60), max_size=4),
)
def test_shared_words_are_aligned_one_to_one(shared, before, after):
    def words(ids: list[int]) -> str:
        return " ".join(f"w{i}" for i in ids)

    middle = "w3 " + words(shared) + " w3"  # w3 stands nowhere else
    clean = f"{middle} w2"
    corrupt = " ".join(part for part in (words(before), middle, words(after), "w2") if part)
    found = align_positions(clean, corrupt, tiny_tokenizer(), shared=middle)
    one, other = clean.split(), corrupt.split()
    assert [(one[a], other[b]) for a, b in found.pairs] == [
        (word, word) for word in [*middle.split(), "w2"]
    ]
    assert found.inverse().inverse() == found
    back = found.clean_of()
    assert [(a, b) for b, a in enumerate(back) if a >= 0] == list(found.pairs)
    table = torch.tensor([back])
    inverse = invert_map(table, n_pos=found.n_clean)
    assert inverse[0].tolist() == list(found.inverse().clean_of())


def test_shared_text_must_be_in_both_once_and_cut_alike():
    tokenizer = bpe_tokenizer()
    with pytest.raises(InputError, match=r"0 times in .* and 1 in"):
        align_positions("Answer:", QA, tokenizer, shared=QUESTION)
    with pytest.raises(InputError, match="2 times"):
        align_positions("9 and 9", "9", tokenizer, shared="9")
    with pytest.raises(InputError, match=r"same tokens in both.*' bigger'.* and .*'x'"):
        align_positions("Which is bigger", "Which is xbigger", tokenizer, shared="bigger")
    with pytest.raises(InputError, match="rising in both"):
        PositionMap(((1, 0), (0, 1)), 2, 2)
    with pytest.raises(InputError, match="rising in both"):
        PositionMap(((0, 2),), 2, 2)


def test_activations_are_read_where_the_map_says():
    activation = torch.arange(2 * 3 * 4.0).reshape(2, 3, 4)
    table = torch.tensor([[-1, 0, 2, -1], [2, 1, 0, -1]])
    values, where = map_activations(activation, table)
    assert values.shape == (2, 4, 4)
    assert where.tolist() == [[False, True, True, False], [True, True, True, False]]
    assert torch.equal(values[0, 2], activation[0, 2])
    assert torch.equal(values[1, 0], activation[1, 2])
    with pytest.raises(InputError, match="columns below 2"):
        map_activations(activation[:, :2], table)
    with pytest.raises(InputError, match="a map of 1 rows"):
        map_activations(activation[:1], table)


def unequal_task(alignment: str):
    """Prompts that share `w5 w6 w7`, one of them with words before and after it."""
    shared = ("w5 w6 w7",)
    pairs = [
        PromptPair("w5 w6 w7 w9", "w3 w4 w5 w6 w7 w8 w9", " w20", " w21", shared=shared),
        PromptPair("w2 w5 w6 w7 w9", "w4 w5 w6 w7 w9", " w22", " w23", shared=shared),
    ]
    return Task.from_pairs(pairs).tokenise(
        tiny_tokenizer(), alignment=alignment, on_broken="raise", prepend_bos=False
    )


def test_unequal_lengths_without_a_map_are_an_error_that_shows_both_tokenisations():
    with pytest.raises(InputError) as caught:
        unequal_task("equal_length")
    text = str(caught.value)
    assert "1 broken of 2" in text
    assert "clean 4 tokens |w5|w6|w7|w9|" in text
    assert "corrupt 7 tokens |w3|w4|w5|w6|w7|w8|w9|" in text
    assert "alignment='explicit'" in text


def test_columns_of_an_unequal_task():
    task = unequal_task("explicit")
    assert task.end == 6
    assert (task.clean[:, -1] == 9).all()
    assert task.clean_mask.sum(1).tolist() == [4, 5]
    assert task.corrupt_mask.sum(1).tolist() == [7, 5]
    for column, source in enumerate(task.position_map[0].tolist()):
        assert source < 0 or task.corrupt[0, column] == task.clean[0, source]
    assert (task.position_map[0] >= 0).sum() == 4
    assert task.position_map[1].tolist() == [-1, -1, 2, 3, 4, 5, 6]  # equal length: itself
    with pytest.raises(InputError, match="clean_mask and corrupt_mask"):
        _ = task.attention_mask


def test_two_formats_of_as_many_tokens_by_accident_are_aligned_by_what_they_share():
    """Pitfall 10: 6 = 6 tokens, and column by column the words stand beside other ones."""
    clean, corrupt = "w5 w6 w7 w3 w2 w9", "w3 w4 w5 w6 w7 w9"
    accident = PromptPair(clean, corrupt, " w20", " w21", shared=("w5 w6 w7",))
    found = Task.from_pairs([accident]).tokenise(
        tiny_tokenizer(), alignment="explicit", on_broken="raise", prepend_bos=False
    )
    assert found.position_map.tolist() == [[-1, -1, 0, 1, 2, 5]]
    words = found.clean[0, found.position_map[0, 2:]]
    assert words.tolist() == found.corrupt[0, 2:].tolist()
    # what is shared stands in the same columns: so do the words that differ
    beside = PromptPair("w2 w5 w6 w9", "w3 w5 w6 w8", " w20", " w21", shared=("w5 w6",))
    found = Task.from_pairs([beside]).tokenise(
        tiny_tokenizer(), alignment="explicit", on_broken="raise", prepend_bos=False
    )
    assert found.position_map.tolist() == [[0, 1, 2, 3]]


@pytest.mark.models
@pytest.mark.parametrize("model_class", CLASSES)
def test_patching_by_the_map_keeps_words_and_from_the_left_mixes_them(model_class):
    """Layer 0's input of a rotary model is the word alone: shared words change nothing."""
    model = wrap_model(tiny_model("gpt_neox"), tiny_tokenizer(), model_class=model_class)
    task = unequal_task("explicit")
    clean = Replay(model, task.clean, attention_mask=task.clean_mask)
    corrupt = Replay(model, task.corrupt, attention_mask=task.corrupt_mask)
    metric, base = task.metric(), corrupt.base(task.metric())
    values, where = map_activations(clean.activation(0, "resid_pre"), task.position_map)
    same_words = (task.corrupt == task.clean.gather(1, task.position_map.clamp_min(0))) & where
    by_map = corrupt.measure([(Edit(0, "resid_pre", values, where=same_words),)], metric)[0]
    torch.testing.assert_close(by_map, base, atol=1e-5, rtol=1e-5)
    # the naive way: unpadded rows, column for column from the left, the length that both have
    row = 0
    one, other = (
        ids[row, mask[row].bool()][None]
        for ids, mask in ((task.clean, task.clean_mask), (task.corrupt, task.corrupt_mask))
    )
    source = Replay(model, one).activation(0, "resid_pre")
    run = Replay(model, other)
    difference = lambda logits: logits[:, -1, 20] - logits[:, -1, 21]  # noqa: E731
    naive_values = run.activation(0, "resid_pre").clone()
    naive_values[:, : one.shape[1]] = source
    naive = run.measure([(), (Edit(0, "resid_pre", naive_values),)], difference)
    assert abs(naive[0] - base[row]) < 1e-4
    assert abs(naive[1] - naive[0]) > 0.05
    # and through patch_heads, which takes the map for its base run
    effects = patch_heads(
        model,
        task.clean,
        task.corrupt,
        metric,
        site="resid_pre",
        layers=[0],
        attention_mask=(task.clean_mask, task.corrupt_mask),
        position_map=torch.where(same_words, task.position_map, -1),
    )
    assert abs(effects.values).max() < 1e-5
