"""The shipped weights do what the log claims: everything is measured again from the files."""

import functools
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open

from headspec.activations.repeats import repeated_tokens
from headspec.checkpoints import micro, micro_tasks
from headspec.checkpoints import micro_capabilities as mc
from headspec.errors import InputError, StepNotFoundError

LOG = Path(__file__).parents[2] / "tools" / "micro_suite_log.json"
LAST = micro.STEPS[-1]


@functools.cache
def tokenizer():
    return micro.micro_tokenizer()


@functools.cache
def abilities(name="micro", step=LAST, n=200, seed=11):
    frame = mc.measure_capabilities(
        micro.micro_model(name, step),
        tokenizer(),
        symbols=micro_tasks.repeat_symbols(tokenizer()),
        held_out=micro.held_out_tokens()[:32],
        n=n,
        seed=seed,
    )
    return frame.set_index("metric")["value"].to_dict()


@functools.cache
def head_scores(step, name="micro"):
    symbols, period = micro_tasks.repeat_symbols(tokenizer()), mc.REPEAT_PERIOD
    tokens = repeated_tokens(symbols, 16, period=period, length=1 + 2 * period, bos=0, seed=5)
    model = micro.micro_model(name, step, attention="eager")
    return mc.head_attention_scores(model, tokens, period=period)


def test_the_main_size_reaches_its_claims():
    found = abilities()
    assert found["decimal_accuracy"] >= 0.9
    assert found["version_accuracy"] >= 0.9
    assert found["addition_accuracy"] >= 0.8
    assert found["induction_gain"] >= 1.0


def test_an_untrained_model_fails_every_claim():
    found = abilities(step=0)
    assert max(found[f"{kind}_accuracy"] for kind in ("decimal", "version", "addition")) < 0.05
    assert abs(found["induction_gain"]) < 0.1
    assert found["prose_loss"] == pytest.approx(np.log(512), abs=0.1)


def test_the_gain_is_not_a_first_half_that_is_worse_than_chance():
    found = abilities()
    chance = np.log(micro_tasks.N_SYMBOLS)
    assert found["repeat_first_loss"] == pytest.approx(chance, abs=0.15)
    assert found["repeat_second_loss"] < chance - 1.0


def test_induction_reaches_beyond_the_symbols_and_the_period_trained_most():
    model = micro.micro_model()
    first, second = mc.repeat_losses(model, np.arange(1, 512), n=24, bos=0, period=37, seed=2)
    assert (first - second).mean() >= 1.0


def test_without_a_repeat_the_second_half_is_no_better():
    model = micro.micro_model()
    symbols = micro_tasks.repeat_symbols(tokenizer())
    rng = np.random.default_rng(0)
    rows = np.stack([np.append(0, rng.choice(symbols, size=96)) for _ in range(32)])
    losses = mc.token_losses(model, rows)
    assert (losses[:, :48].mean(1) - losses[:, 48:].mean(1)).mean() < 0.2


def test_capabilities_emerge_at_different_steps():
    early, middle, late = (abilities(step=step) for step in (512, 1536, LAST))
    for found in (early, middle, late):
        assert min(found["decimal_accuracy"], found["version_accuracy"]) > 0.9
    assert [found["induction_gain"] > 1 for found in (early, middle, late)] == [False, True, True]
    sums = [found["addition_accuracy"] > 0.8 for found in (early, middle, late)]
    assert sums == [False, False, True]
    assert abilities(step=128)["decimal_accuracy"] < 0.5


def test_induction_and_previous_token_heads_stand_out_and_were_not_there_at_first():
    scores = head_scores(LAST)
    induction = scores["induction"].sort_values(ascending=False).to_numpy()
    previous = scores["previous_token"].sort_values(ascending=False).to_numpy()
    assert induction[0] > 0.9
    assert previous[0] > 0.9
    assert np.median(induction) < 0.1
    assert np.median(previous) < 0.1
    first_reader = scores.loc[scores["induction"] > 0.3, "layer"].min()
    assert scores.loc[scores["previous_token"].idxmax(), "layer"] < first_reader
    for step in (0, 512):
        assert head_scores(step)[["induction", "previous_token"]].max().max() < 0.3


def test_taking_induction_heads_away_costs_more_than_taking_others_away():
    symbols = micro_tasks.repeat_symbols(tokenizer())
    scores = head_scores(LAST)
    layer = int(scores.loc[scores["induction"].idxmax(), "layer"])
    of_layer = scores[scores["layer"] == layer].sort_values("induction")["head"].tolist()

    def second_half(heads):
        model = micro.micro_model()
        with torch.no_grad():
            for head in heads:
                model.gpt_neox.layers[layer].attention.dense.weight[
                    :, head * 10 : head * 10 + 10
                ] = 0
        return mc.repeat_losses(model, symbols, n=16, bos=0)[1].mean()

    assert second_half(of_layer[6:]) > second_half(of_layer[:6]) + 1.0


@pytest.mark.parametrize("name", micro.SIZES)
def test_the_shipped_table_is_what_the_weights_give(name):
    table = micro.capability_curve(name)
    assert sorted(table["step"].unique()) == list(micro.STEPS)
    row = table[table["step"] == 1280].set_index("metric")["value"]
    again = abilities(name, 1280, n=500, seed=0)
    for metric, value in again.items():
        if metric != "prose_loss":  # the table measures more rows
            assert row[metric] == pytest.approx(value, abs=2e-3), metric


def test_the_shipped_head_scores_are_what_the_weights_give():
    table = micro.head_score_curve("micro")
    assert len(table) == len(micro.STEPS) * 4 * 12 * 2
    shipped = table[(table["step"] == LAST) & (table["metric"] == "induction")]
    scores = head_scores(LAST).sort_values(["layer", "head"])["induction"].to_numpy()
    order = shipped.sort_values(["layer", "head"])["value"].to_numpy(float)
    np.testing.assert_allclose(order, scores, atol=0.05)


def test_bigger_models_predict_prose_better():
    losses = [abilities(name)["prose_loss"] for name in micro.SIZES]
    assert losses == sorted(losses)
    held_out = micro.held_out_tokens()[:, 1:].ravel()
    counts = np.bincount(held_out, minlength=512)
    unigram = -(counts / counts.sum() * np.log(np.maximum(counts, 1) / counts.sum())).sum()
    assert max(losses) < unigram - 1.0


@pytest.mark.parametrize("name", micro.SIZES)
def test_files_are_what_the_log_recorded(name):
    recorded = json.loads(LOG.read_text())[name]["files"]
    assert [row["step"] for row in recorded] == list(micro.STEPS)
    for row in recorded:
        data = (micro.micro_path(name) / f"step{row['step']}" / "model.safetensors").read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
    assert len({row["sha256"] for row in recorded}) == len(recorded)


def test_the_package_data_is_small_enough_and_half_precision():
    files = [path for path in micro.micro_path("").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 32e6
    for name in micro.SIZES:
        for step in micro.STEPS:
            path = micro.micro_path(name) / f"step{step}" / "model.safetensors"
            with safe_open(path, "pt") as tensors:
                kinds = {tensors.get_slice(key).get_dtype() for key in tensors.keys()}  # noqa: SIM118
            assert kinds == {"F16"}


def test_shapes_are_those_promised():
    assert len(micro.STEPS) >= 16
    assert micro.STEPS[0] == 0
    configs = [json.loads((micro.micro_path(s) / "config.json").read_text()) for s in micro.SIZES]
    assert configs[0]["num_attention_heads"] == 12
    assert configs[0]["num_hidden_layers"] >= 4
    for config in configs:
        assert config["model_type"] == "gpt_neox"
        assert config["use_parallel_residual"] is True
        assert config["dtype"] == "float16"
    sizes = [c["hidden_size"] * c["num_hidden_layers"] for c in configs]
    assert sizes == sorted(sizes, reverse=True)


def test_question_pairs_are_clean_and_corrupt_prompts_of_equal_length():
    pairs = micro_tasks.sample_pairs(200, split="held_out", seed=4)
    for pair in pairs:
        clean, corrupt = (micro_tasks.comparison(kind, *pair) for kind in ("decimal", "version"))
        ids = [tokenizer()(example.prompt).input_ids for example in (clean, corrupt)]
        differing = [a != b for a, b in zip(*ids, strict=True)]
        assert sum(differing) == 2  # "number"/"version" and "bigger"/"newer"
        assert clean.answer == corrupt.distractor


def test_prompt_and_answer_tokenise_the_same_apart_and_together():
    examples = [
        *micro_tasks.sample_comparisons("version", 50, split="train", seed=0),
        *micro_tasks.sample_additions(50, split="train", seed=0),
    ]
    for example in examples:
        apart = [*tokenizer()(example.prompt).input_ids, *tokenizer()(example.answer).input_ids]
        assert apart == tokenizer()(example.prompt + example.answer).input_ids
    digits = tokenizer().convert_ids_to_tokens(tokenizer()("9.11+37").input_ids)
    assert digits == ["9", ".", "1", "1", "+", "3", "7"]


def test_repeat_symbols_are_distinct_words():
    symbols = micro_tasks.repeat_symbols(tokenizer())
    assert len(set(symbols.tolist())) == micro_tasks.N_SYMBOLS
    assert tokenizer().decode(symbols[:1]).strip().isalpha()


def test_held_out_rows_begin_with_the_beginning_of_text():
    rows = micro.held_out_tokens()
    assert rows.shape[1] == 128
    assert rows.size >= 32_000
    assert (rows[:, 0] == tokenizer().bos_token_id).all()
    assert rows.max() < len(tokenizer())


def test_loading_a_model_leaves_the_random_numbers_alone():
    before = torch.random.get_rng_state()
    model = micro.micro_model("micro-tiny", 0)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not model.training
    assert next(model.parameters()).dtype == torch.float32


def test_wrong_names_and_steps_are_named():
    with pytest.raises(InputError, match="one of micro, micro-small, micro-tiny; got 'mega'"):
        micro.micro_path("mega")
    with pytest.raises(InputError, match="got 'mega'"):
        micro.capability_curve("mega")
    with pytest.raises(StepNotFoundError, match="got 1000000"):
        micro.micro_model("micro", 1_000_000)


def test_curves_are_tidy():
    curve = micro.capability_curve("micro-tiny")
    assert isinstance(curve, pd.DataFrame)
    assert list(curve.columns[:6]) == ["model", "step", "layer", "head", "metric", "value"]
    assert curve.groupby("metric").size().eq(len(micro.STEPS)).all()
    assert curve["se"].ge(0).all()
