"""Top tokens of singular directions: by hand, both signs, and what random directions reach."""

import numpy as np
import pandas as pd
import pytest
import torch
from random_heads import random_heads
from zoo import tiny_tokenizer

import headspec as hs
from headspec import HeadWeights, ov_svd, qk_svd, top_tokens
from headspec.errors import InputError


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def head_of(reads: torch.Tensor, writes: torch.Tensor) -> HeadWeights:
    """OV = reads writes^T, QK the same."""
    left, right = reads[None, :, None], writes[None, None, :]
    return HeadWeights(W_Q=left, W_K=right.mT, W_V=left, W_O=right)


def test_by_hand():
    """The head reads token 1 and writes token 2, or the opposite of both."""
    embed = torch.tensor([[1.0, 0, 0], [0, 3, 0], [0, 0, 1], [0, -2, 0]])
    unembed = torch.tensor([[0.0, 0, 4, 0], [0, 0, 0, 0], [0, 1, 0, -5]])
    e = torch.eye(3)
    svd = ov_svd(head_of(e[1], -e[0]))
    found = top_tokens(svd, embed, unembed, k=1)
    reading = int(torch.sign(svd.U[0, 1, 0]))  # the sign under which token 1 is read
    by = {(row["side"], row["sign"]): row for row in found.to_dict("records")}
    assert by["input", reading]["token"] == 1
    assert by["output", -reading]["token"] == 2  # 1 is read and 2 lowered
    assert by["input", -reading]["token"] == 3
    # less the vocabulary's mean
    assert by["input", reading]["value"] == pytest.approx(3 - 0.25)
    qk = top_tokens(qk_svd(head_of(e[1], e[2])), embed, k=1)
    assert sorted(qk.query("side == 'query'")["token"]) == [1, 3]
    assert 2 in qk.query("side == 'key'")["token"].tolist()


def test_equal_to_a_naive_list():
    heads = [random_heads(3, 10, 4, kv=1, seed=i, layer=i + 2, step=8, model="m") for i in (0, 1)]
    embed, unembed = draw(40, 10), draw(10, 40, seed=1)
    svd = ov_svd(heads, k=3)
    found = top_tokens(svd, embed, unembed, k=5, n_directions=2)
    assert len(found) == 2 * 3 * 2 * 2 * 2 * 5
    one = found[
        (found["layer"] == 3)
        & (found["head"] == 1)
        & (found["rank"] == 2)
        & (found["side"] == "output")
        & (found["sign"] == -1)
    ]
    along = -(svd.Vh[1, 1, 1] @ unembed)
    assert one["token"].tolist() == along.argsort(descending=True)[:5].tolist()
    assert one["place"].tolist() == [1, 2, 3, 4, 5]
    assert one["singular_value"].tolist()[0] == pytest.approx(float(svd.S[1, 1, 1]))
    assert set(found["step"]) == {8}
    assert set(found["metric"]) == {"ov.top_token"}


def test_biases_rows_are_left_out_and_heads_chosen():
    heads = random_heads(3, 10, 4, b_Q=draw(3, 4), b_K=draw(3, 4, seed=1), layer=5)
    embed = draw(40, 10)
    found = top_tokens(qk_svd(heads, biases=True), embed, heads=["L5H2"])
    assert set(found["head"]) == {2}
    assert max(found["token"]) < 40


def test_names_of_tokens():
    heads, embed = random_heads(1, 10, 4), draw(61, 10)
    found = top_tokens(qk_svd(heads), embed, k=3, tokenizer=tiny_tokenizer())
    assert found["text"].tolist() == [f"w{token}" for token in found["token"]]
    plain = top_tokens(qk_svd(heads), embed, k=3)
    assert "text" not in plain
    pd.testing.assert_frame_equal(found.drop(columns="text"), plain)


def test_random_directions_are_the_null():
    """Large tokens lead every list: unrelated heads are not above the null, planted ones are."""
    embed = draw(300, 48)
    embed[:5] *= 6  # five large tokens
    heads = random_heads(60, 48, 4, seed=2)
    found = top_tokens(qk_svd(heads), embed, k=1)
    assert (found["token"].to_numpy() < 5).mean() > 0.8  # as they do here
    assert (found["p"].to_numpy() <= 0.05).mean() == pytest.approx(0.05, abs=0.06)
    planted = head_of(embed[7] / embed[7].norm(), embed[9] / embed[9].norm())
    small = embed.clone()
    small[:5] /= 6
    lists = top_tokens(qk_svd(planted), small, k=1).query("p <= .02")
    assert {7, 9} <= set(lists["token"])
    again = top_tokens(qk_svd(planted), small, k=1)["null_mean"]
    np.testing.assert_array_equal(again, top_tokens(qk_svd(planted), small, k=1)["null_mean"])


def test_the_embedded_suite_reads():
    suite = hs.open_suite("micro")
    tables = suite.embedding_matrices(6144)
    svd = qk_svd(suite.head_weights(6144, 0))
    found = top_tokens(svd, tables["embed"], heads=["L0H3"], k=2, tokenizer=suite.tokenizer)
    query = found.query("side == 'query' and p < .02")
    assert {"number", "version"} <= {text.strip() for text in query["text"]}


def test_messages():
    heads, embed = random_heads(2, 10, 4), draw(40, 10)
    with pytest.raises(InputError, match="unembed, through which"):
        top_tokens(ov_svd(heads), embed)
    with pytest.raises(InputError, match="embed `d_vocab 10`"):
        top_tokens(qk_svd(heads), embed.T)
    with pytest.raises(InputError, match="n_directions from 1 to 4"):
        top_tokens(qk_svd(heads), embed, n_directions=5)
    with pytest.raises(InputError, match="at least one head"):
        top_tokens(qk_svd(heads), embed, heads=[])
    with pytest.raises(InputError, match="L1H0"):
        top_tokens(qk_svd(heads), embed, heads=["L1H0"])
