"""A task as token ids: what a tokenizer breaks, columns, padding, the beginning-of-text token."""

from __future__ import annotations

import pytest
import torch
from small_tokenizers import bpe_tokenizer
from zoo import tiny_model, tiny_tokenizer

from headspec.checkpoints.micro import micro_tokenizer
from headspec.errors import InputError
from headspec.lens.models import wrap_model
from headspec.tasks.encoding import prepends_bos
from headspec.tasks.families import build_task
from headspec.tasks.pairs import PairIds, PromptPair
from headspec.tasks.prompts import Task

GOOD = ("The capital of France is", "The capital of Italy is", " Paris", " Rome")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (GOOD, ""),
        (
            ("The capital of France is", "The capital of Peru is", " Paris", " Rome"),
            "unequal length: clean 5 tokens |The| capital| of| France| is|, corrupt 8 tokens",
        ),
        (
            ("The capital of France is ", "The capital of Italy is ", "Paris", "Rome"),
            "answer merges with prompt: |The| capital| of| France| is| | and "
            "|The| capital| of| France| is| Paris|",
        ),
        ((*GOOD[:2], " Paris", " Paris"), "correct and wrong answer are the same: | Paris|"),
        ((GOOD[0], GOOD[0], *GOOD[2:]), "clean equals corrupt: |The|"),
        ((*GOOD[:2], " Paris", " Paris is"), "one answer is the beginning of the other"),
        (("9" * 70, "8" * 70, " Paris", " Rome"), "70 tokens where the context holds 64"),
    ],
)
def test_what_breaks_a_pair_is_said(row, reason):
    task = Task.from_pairs([row, ("9.8", "9.1", " Paris", " Rome")])
    frame = task.check(bpe_tokenizer())
    assert frame["reason"][0].startswith(reason)
    assert frame["broken"].tolist() == [bool(reason), False]
    kept = task.tokenise(bpe_tokenizer())
    assert kept.n_examples == 1 + (not reason)
    assert kept.broken["reason"].tolist() == ([frame["reason"][0]] if reason else [])
    if reason:
        assert "1 left out: 1 " in kept.summary()
        with pytest.raises(InputError, match="1 broken of 2; pair 0: "):
            task.tokenise(bpe_tokenizer(), on_broken="raise")
        with pytest.raises(InputError, match="1 broken of 1"):
            Task.from_pairs([row]).tokenise(bpe_tokenizer())


def test_a_common_beginning_of_the_answers_moves_into_the_prompt():
    pair = ("Which is bigger: 9.8 or 9.11?\nAnswer:", "Which is smaller: 9.8 or 9.11?\nAnswer:")
    pairs = [(*pair, " 9.8", " 9.11")]
    task = Task.from_pairs(pairs).tokenise(bpe_tokenizer())
    decode = bpe_tokenizer().decode
    assert task.rows_per_example * task.n_examples == len(task.clean)
    common = decode(list(task.correct[0][: task.n_common[0]]))
    assert decode(task.clean[0, : task.end + 1]) == pair[0] + common
    assert decode(task.corrupt[0, : task.end + 1]) == pair[1] + common
    assert task.correct[0][task.n_common[0]] != task.wrong[0][task.n_common[0]]


def test_rows_end_their_prompts_in_one_column_and_go_on_with_both_answers():
    task = build_task("arithmetic", n=30, wording="micro").tokenise(micro_tokenizer())
    tokenizer = micro_tokenizer()
    assert task.rows_per_example == 2
    assert len(task.clean) == 60
    for example, pair in enumerate(task.pairs):
        for side in ("clean", "corrupt"):
            for turn, answer in enumerate((pair.correct, pair.wrong)):
                row = getattr(task, side)[2 * example + turn]
                mask = getattr(task, f"{side}_mask")[2 * example + turn]
                ids = [0, *tokenizer(getattr(pair, side) + answer).input_ids][:-1]
                if side == "clean":
                    assert row[task.is_token[2 * example + turn]].tolist() == ids
                start = int((mask == 0).sum())
                assert row[start : start + len(ids)].tolist() == ids
                assert (mask[start:] == 1).all()
    common = torch.tensor([n for n in task.n_common for _ in "ab"])
    start = task.attention_mask.argmax(1) if task.attention_mask is not None else 0
    assert torch.equal(task.positions["second"], task.end - common - 1)
    assert (task.clean.gather(1, start[:, None]) == 0).all()  # every row begins with the token


def test_first_token_keeps_one_row_an_example():
    task = build_task("decimal_comparison", n=20, wording="micro")
    first = task.tokenise(micro_tokenizer(), answers="first_token")
    assert first.clean.shape == (20, first.end + 1)
    assert first.rows_per_example == 1
    whole = task.tokenise(micro_tokenizer())
    assert torch.equal(whole.clean[::2, : first.end + 1], first.clean)
    assert torch.equal(whole.clean[1::2, : first.end + 1], first.clean)


def test_named_positions_are_the_last_tokens_of_their_parts():
    task = build_task("indirect_object", n=20).tokenise(tokenizer := micro_tokenizer())
    for row in range(len(task.clean)):
        pair = task.pairs[row // 2]
        for side, columns in (("clean", task.positions), ("corrupt", task.corrupt_positions)):
            ids = getattr(task, side)[row]
            for span in pair.spans:
                start, end = getattr(span, side)
                name = getattr(pair, side)[start:end]
                first = int((getattr(task, f"{side}_mask")[row] == 0).sum())
                text = tokenizer.decode(ids[first : int(columns[span.name][row]) + 1])
                assert text.endswith(name)
                assert text == getattr(pair, side)[:end]
        assert int(task.positions["end"][row]) == task.end


def test_the_beginning_of_text_token_follows_task_then_tokenizer():
    plain = Task.from_pairs([("w5 w6", "w7 w6", " w8", " w9")])
    tokenizer = tiny_tokenizer()
    assert not prepends_bos(tokenizer)
    assert plain.tokenise(tokenizer).clean.tolist() == [[5, 6]]
    assert plain.tokenise(tokenizer, prepend_bos=True).clean.tolist() == [[0, 5, 6]]
    asked = Task.from_pairs(plain.pairs, prepend_bos=True)
    assert asked.tokenise(tokenizer).clean.tolist() == [[0, 5, 6]]
    assert asked.tokenise(tokenizer, prepend_bos=False).clean.tolist() == [[5, 6]]
    with pytest.raises(InputError, match="a tokenizer"):
        plain.tokenise(None)


@pytest.mark.models
def test_a_model_tokenizer_keeps_to_what_it_did_before_transformer_lens():
    model = wrap_model(tiny_model("gpt_neox"), tiny_tokenizer())
    assert model.tokenizer("w5").input_ids == [0, 5]  # it prepends now, as Pythia's would
    assert not prepends_bos(model.tokenizer)
    plain = Task.from_pairs([("w5 w6", "w7 w6", " w8", " w9")])
    assert plain.tokenise(model.tokenizer).clean.tolist() == [[5, 6]]


def test_token_ids_are_taken_as_they_are():
    pair = PromptPair(ids=PairIds((5, 6, 7), (5, 8, 7), (9, 3), (9, 4)))
    task = Task.from_pairs([pair]).tokenise(tiny_tokenizer(), prepend_bos=True)
    assert task.clean.tolist() == [[0, 5, 6, 7, 9]]  # the answers' common token is in the prompt
    assert task.corrupt.tolist() == [[0, 5, 8, 7, 9]]
    assert (task.correct, task.wrong, task.n_common) == (((9, 3),), ((9, 4),), (1,))
    unequal = PromptPair(ids=PairIds((5, 6, 7), (5, 7), (9,), (4,)))
    with pytest.raises(InputError, match=r"unequal length: clean 3 tokens"):
        Task.from_pairs([unequal]).tokenise(tiny_tokenizer())
