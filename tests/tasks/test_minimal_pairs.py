"""Minimal pairs: BLiMP's files, sentence scores against Hugging Face, ties, length."""

import doctest
import json

import numpy as np
import pytest
import torch
from scored_models import CLASSES, hooked, ids_of, reference_log_probs
from small_tokenizers import bpe_tokenizer
from zoo import tiny_model, tiny_tokenizer

from headspec import results
from headspec.errors import InputError
from headspec.lens.models import wrap_model
from headspec.tasks import minimal_pairs
from headspec.tasks.minimal_pairs import MinimalPairs, load_minimal_pairs
from headspec.tasks.pair_scores import MinimalPairScores, score_minimal_pairs

pytestmark = pytest.mark.models

BLIMP = {
    "sentence_good": "w3 w4 w5",
    "sentence_bad": "w3 w4 w6",
    "field": "morphology",
    "linguistics_term": "anaphor_agreement",
    "UID": "anaphor_gender_agreement",
    "simple_LM_method": True,
    "one_prefix_method": True,
    "two_prefix_method": False,
    "lexically_identical": False,
    "pair_id": 0,
}


def write(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path):
    for uid in ("a", "b"):
        rows = [BLIMP | {"UID": uid, "sentence_good": f"w3 w{i} {uid}"} for i in range(20, 23)]
        write(tmp_path / "blimp" / f"{uid}.jsonl", rows)
    return tmp_path / "blimp"


def test_blimp_files(folder):
    pairs = load_minimal_pairs(folder)
    assert (pairs.name, pairs.n) == ("blimp", 6)
    assert pairs.pairs[0].uid == "a"
    assert pairs.pairs[0].term == "anaphor_agreement"
    assert pairs.to_frame().columns.tolist() == ["uid", "field", "term", "good", "bad"]
    assert load_minimal_pairs(folder / "a.jsonl", name="mine").name == "mine"
    assert load_minimal_pairs([folder / "a.jsonl", folder / "b.jsonl"]).pairs == pairs.pairs


def test_names_of_files_tell_paradigms_apart(folder, tmp_path):
    assert [load_minimal_pairs(folder / f"{uid}.jsonl").name for uid in "ab"] == [
        "blimp_a",
        "blimp_b",
    ]
    assert load_minimal_pairs([folder / "a.jsonl", folder / "b.jsonl"]).name == "blimp"
    assert load_minimal_pairs(write(tmp_path / "no_blimp" / "mine.jsonl", [BLIMP])).name == "mine"


def test_lines_end_where_json_says(tmp_path):
    """U+2028 is a line's end to `str.splitlines`, and a plain character in JSON."""
    text = json.dumps(BLIMP | {"sentence_good": "w3\u2028w4"}, ensure_ascii=False)
    assert len(text.splitlines()) == 2  # negative control
    path = tmp_path / "odd.jsonl"
    path.write_text(text + "\r\n", encoding="utf-8-sig")
    assert load_minimal_pairs(path).pairs[0].good == "w3\u2028w4"
    path.write_bytes(b'{"sentence_good": "caf\xe9"}')
    with pytest.raises(InputError, match=r"odd\.jsonl, line 1: 'utf-8'"):
        load_minimal_pairs(path)


def test_what_is_wrong_is_named_by_line(folder, tmp_path):
    twice = write(tmp_path / "x" / "twice.jsonl", [BLIMP, BLIMP | {"pair_id": 1}])
    with pytest.raises(InputError, match=r"twice.jsonl, line 2 repeats twice.jsonl, line 1"):
        load_minimal_pairs(twice)
    assert load_minimal_pairs(twice, duplicates="drop").n_dropped == 1
    same = write(tmp_path / "x" / "same.jsonl", [BLIMP | {"sentence_bad": "w3 w4 w5"}])
    with pytest.raises(InputError, match="two sentences that differ"):
        load_minimal_pairs(same)
    with pytest.raises(InputError, match="sentence_good and sentence_bad"):
        load_minimal_pairs(write(tmp_path / "x" / "less.jsonl", [{"sentence_good": "w3"}]))
    cut = tmp_path / "x" / "cut.jsonl"
    cut.write_text(json.dumps(BLIMP) + '\n{"sentence_good": "w')
    with pytest.raises(InputError, match=r"cut\.jsonl, line 2"):
        load_minimal_pairs(cut)
    with pytest.raises(InputError, match="Check the path"):
        load_minimal_pairs(tmp_path / "nothing.jsonl")
    with pytest.raises(InputError, match="Check the path"):
        load_minimal_pairs(tmp_path)
    with pytest.raises(InputError, match="at least one"):
        MinimalPairs("none", ())


@pytest.mark.parametrize("kind", CLASSES)
def test_sentence_scores_are_those_of_hugging_face(kind):
    texts = [("w3 w4 w5", "w3 w4 w6"), ("w9 w8 w7 w6 w5", "w9 w8"), ("w21", "w22 w23 w24")]
    found = score_minimal_pairs(hooked("gpt_neox", kind), MinimalPairs.from_pairs(texts))
    good, bad = (
        np.array([reference_log_probs("gpt_neox", ids_of(pair[side])).sum() for pair in texts])
        for side in (0, 1)
    )
    assert found.log_prob_good == pytest.approx(good, abs=5e-5)
    assert found.log_prob_bad == pytest.approx(bad, abs=5e-5)
    assert found.n_good.tolist() == [3, 5, 1]
    assert found.margin == pytest.approx(good - bad, abs=1e-4)
    assert found.acc.tolist() == (good > bad).astype(float).tolist()
    assert found.margin_norm == pytest.approx(good / [3, 5, 1] - bad / [3, 2, 3], abs=1e-4)
    assert "2 pairs differ in their number of tokens" in found.summary()


def test_differences_of_rounding_are_ties():
    """A float32 sum of -100 nats is good to 1e-5: less than that is no preference."""
    bad = np.array([-100.00001, -99.99999, -100.001])
    found = MinimalPairScores(
        "ties",
        ("",) * 3,
        log_prob_good=np.full(3, -100.0),
        log_prob_bad=bad,
        n_good=np.full(3, 9),
        n_bad=np.full(3, 9),
        model="",
        step=None,
        processing="none",
    )
    assert np.sign(-100.0 - bad).tolist() == [1, -1, 1]  # negative control
    assert found.acc.tolist() == found.acc_norm.tolist() == [0.5, 0.5, 1]
    assert found.margin.tolist()[:2] == [0, 0]


def test_length_decides_where_it_should_not():
    """Five tokens of 2 nats against two of 3: the sum prefers the short one, the mean does not."""
    found = MinimalPairScores(
        "lengths",
        ("",),
        log_prob_good=np.array([-10.0]),
        log_prob_bad=np.array([-6.0]),
        n_good=np.array([5]),
        n_bad=np.array([2]),
        model="",
        step=None,
        processing="none",
    )
    assert (found.acc[0], found.acc_norm[0]) == (0, 1)
    assert (found.margin[0], found.margin_norm[0]) == (-4, 1)


def test_ties_count_half():
    """A model that gives every token the same probability scores chance, not 0."""
    hf_model = tiny_model("gpt_neox")
    with torch.no_grad():
        hf_model.get_output_embeddings().weight.zero_()
    model = wrap_model(hf_model, tiny_tokenizer())
    texts = [("w3 w4 w5", "w3 w4 w6"), ("w7 w8 w9", "w7 w8 w20"), ("w7", "w8")]
    found = score_minimal_pairs(model, MinimalPairs.from_pairs(texts))
    assert found.acc.tolist() == [0.5, 0.5, 0.5]
    assert found.margin.tolist() == [0, 0, 0]
    naive = (found.log_prob_good > found.log_prob_bad).mean()
    assert naive == 0  # negative control
    frame = found.to_frame().set_index("measure")
    assert frame.loc["acc", "value"] == frame.loc["acc", "chance"] == 0.5


def test_random_pairs_are_at_chance():
    rng = np.random.default_rng(0)
    words = [" ".join(f"w{i}" for i in row) for row in rng.integers(20, 61, size=(600, 4))]
    pairs = MinimalPairs.from_pairs(zip(words[::2], words[1::2], strict=True), duplicates="drop")
    found = score_minimal_pairs(hooked("gpt_neox", "bridge"), pairs).to_frame()
    row = found.set_index("measure").loc["acc"]
    assert abs(row["value"] - 0.5) < 3 * row["se"]
    assert row["se"] == pytest.approx(0.5 / np.sqrt(pairs.n), rel=0.02)


def test_one_task_for_all_and_one_a_paradigm(folder):
    model = wrap_model(tiny_model("gpt_neox"), tiny_tokenizer(), name="toy", step=3)
    found = score_minimal_pairs(model, load_minimal_pairs(folder))
    frame = found.to_frame()
    assert frame["task"].unique().tolist() == ["blimp", "blimp_a", "blimp_b"]
    accs = frame[frame["measure"] == "acc"].set_index("task")
    assert accs.loc["blimp", "n"] == 6
    assert accs.loc["blimp", "value"] == pytest.approx(accs["value"].iloc[1:].mean())
    assert set(frame["step"]) == {3}


def test_a_tokenizer_that_cuts_words():
    hf_model = tiny_model("gpt_neox", vocab_size=512)
    model = wrap_model(hf_model, bpe_tokenizer())
    pairs = MinimalPairs.from_pairs([("The capital of France is Paris", "The capital of xyz is R")])
    found = score_minimal_pairs(model, pairs)
    ids = bpe_tokenizer()("The capital of xyz is R").input_ids
    assert found.n_bad.tolist() == [len(ids)]
    # a batch of one is the same
    alone = score_minimal_pairs(model, pairs, memory_budget=1)
    assert alone.margin == pytest.approx(found.margin, abs=1e-5)


def test_saved_and_loaded(tmp_path):
    pairs = MinimalPairs.from_pairs([("w3 w4", "w3 w5")])
    found = score_minimal_pairs(hooked("gpt_neox", "bridge"), pairs)
    for name, one in (("a.json", found), ("b.json", pairs)):
        results.save(one, tmp_path / name)
        assert results.load(tmp_path / name).to_frame().equals(one.to_frame())


def test_docstrings():
    assert doctest.testmod(minimal_pairs).failed == 0
