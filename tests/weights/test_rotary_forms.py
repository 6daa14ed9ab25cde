"""QK forms under rotary embeddings: at an offset, averaged, and what no offset moves."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_heads import random_heads

import headspec as hs
from headspec import Rotary, results
from headspec.errors import InputError
from headspec.weights.circuit_factors import qk_factors
from headspec.weights.rotary_angles import rotate
from headspec.weights.rotary_forms import as_offset

PAIRINGS = ("halves", "adjacent")


def form(w, offset, **more) -> torch.Tensor:
    """The QK form in float64, from its factors."""
    left, right = qk_factors(w, offset=offset, dtype=torch.float64, **more)
    return left @ right.repeat_interleave(w.group_size, 0).mT


@settings(max_examples=30, deadline=None)
@given(
    offset=st.integers(-30, 30),
    at=st.integers(0, 50),
    dim=st.sampled_from([0, 2, 4, 6]),
    pairing=st.sampled_from(PAIRINGS),
    seed=st.integers(0, 50),
)
def test_the_form_is_the_score_of_turned_queries_and_keys(offset, at, dim, pairing, seed):
    rotary = Rotary(dim, 50.0, pairing)
    w = random_heads(4, 10, 6, kv=2, seed=seed, rotary=rotary, dtype=torch.float64)
    x = torch.randn(2, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    grown = w.expand_kv()
    q = rotate(x[0] @ grown.W_Q, at + offset, rotary)
    k = rotate(x[1] @ grown.W_K, at, rotary)
    found = hs.qk_svd(w, offset=offset)
    scores = ((x[0] @ found.U) * found.S * (found.Vh @ x[1])).sum(-1)
    torch.testing.assert_close(scores, (q * k).sum(-1))


def test_by_hand():
    """One plane turned by a quarter: the query's (1, 0) meets the key's (0, 1)."""
    W = torch.eye(3)[None]
    quarter = torch.tensor([torch.pi / 2])
    w = hs.HeadWeights(W_Q=W, W_K=W, W_V=W, W_O=W, rotary=Rotary(2, scaling="odd"))
    turned = form(w, 1, frequencies=quarter)[0]
    torch.testing.assert_close(turned, torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]).double())
    still = torch.diag(torch.tensor([0.0, 0, 1])).double()[None]
    torch.testing.assert_close(form(w, range(4), frequencies=quarter), still)
    torch.testing.assert_close(form(w, None), still)
    assert hs.qk_spectrum(w, offset=None).S.tolist() == [[1, 0, 0]]
    # constant 1 of 3 in either average: ||M||^2 = 1, ||M(t)||^2 = 3
    for offsets in (None, range(4)):
        share = hs.position_share(w, offsets=offsets, frequencies=quarter).share
        np.testing.assert_allclose(share, [1 / 3])


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_several_offsets_are_the_mean_of_their_forms(pairing):
    w = random_heads(4, 10, 6, kv=2, rotary=Rotary(4, 30.0, pairing), dtype=torch.float64)
    forms = torch.stack([form(w, offset) for offset in range(-3, 9)])
    torch.testing.assert_close(form(w, range(-3, 9)), forms.mean(0))
    found = hs.qk_spectrum(w, offset=range(-3, 9))
    torch.testing.assert_close(found.S, torch.linalg.svdvals(forms.mean(0))[:, :6])
    assert found.form == "mean over 12 offsets"
    assert found.to_frame()["offset"].isna().all()


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("dim", [0, 4, 6])
def test_share_is_the_mean_form_over_the_forms(pairing, dim):
    w = random_heads(
        4, 10, 6, kv=2, rotary=Rotary(dim, 30.0, pairing), b_Q=torch.ones(4, 6), seed=3
    )
    for biases in (False, True):
        forms = torch.stack([form(w, offset, biases=biases) for offset in range(2, 40)])
        squares = forms.pow(2).sum((-1, -2)).mean(0)
        expected = forms.mean(0).pow(2).sum((-1, -2)) / squares
        found = hs.position_share(w, offsets=range(2, 40), biases=biases)
        np.testing.assert_allclose(found.share, expected, rtol=1e-10)
    if dim == 0:
        np.testing.assert_allclose(hs.position_share(w).share, 1)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_share_over_all_offsets_is_the_limit(pairing):
    w = random_heads(3, 10, 6, rotary=Rotary(4, 7.0, pairing), dtype=torch.float64)
    many = hs.position_share(w, offsets=range(20_000)).share
    np.testing.assert_allclose(hs.position_share(w).share, many, atol=1e-3)
    whole = random_heads(3, 10, 6, rotary=Rotary(6, 7.0, pairing))
    assert (hs.position_share(whole).share == 0).all()
    unrotated = form(w, None)
    torch.testing.assert_close(unrotated, w.W_Q[..., 4:] @ w.W_K[..., 4:].mT)


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("offsets", [None, range(30)])
def test_random_heads_have_the_share_of_the_null(pairing, offsets):
    w = random_heads(50, 200, 8, rotary=Rotary(6, 50.0, pairing))
    found = hs.position_share(w, offsets=offsets)
    assert len(set(found.null_mean)) == 1
    np.testing.assert_allclose(found.share.mean(), found.null_mean[0], atol=0.01)
    if offsets is None:
        assert found.null_mean[0] == 2 / 8


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("offsets", [None, range(30), (5,)])
@pytest.mark.parametrize("own", [False, True])
def test_the_null_knows_of_gains(pairing, offsets, own):
    """Gains of slow planes raise share and null alike; a null without them is far off."""
    generator = torch.Generator().manual_seed(3)
    q_norm, k_norm = (torch.rand(n, 8, generator=generator) ** 3 * 4 for n in (4, 2))
    if not own:
        q_norm, k_norm = q_norm[0], k_norm[0]
    rotary = Rotary(6, 50.0, pairing)
    gains = {"q_norm": q_norm, "k_norm": k_norm}
    drawn = [random_heads(4, 400, 8, kv=2, seed=seed, rotary=rotary, **gains) for seed in range(20)]
    found = hs.position_share(drawn, offsets=offsets)
    assert len(set(found.null_mean[0].round(9))) == (4 if own and offsets != (5,) else 1)
    np.testing.assert_allclose(found.share.mean(0), found.null_mean[0], atol=0.01)
    plain = hs.position_share(random_heads(4, 40, 8, kv=2, rotary=rotary), offsets=offsets)
    if offsets != (5,):
        assert np.abs(found.share.mean(0) - plain.null_mean).max() > 0.05


@pytest.mark.parametrize("scale", [1e-150, 1e-100, 1e100, 1e150])
def test_the_share_has_no_scale(scale):
    w = random_heads(3, 10, 6, rotary=Rotary(4), dtype=torch.float64)
    expected = hs.position_share(w, offsets=range(9))
    larger = replace(w, W_Q=w.W_Q * scale, W_K=w.W_K * scale)
    np.testing.assert_allclose(
        hs.position_share(larger, offsets=range(9)).share, expected.share, rtol=1e-12
    )


def test_offsets_change_nothing_without_rotary_embeddings():
    w = random_heads(3, 10, 4)
    for offset in (0, 5, range(3), None):
        found = hs.qk_svd(w, offset=offset)
        assert torch.equal(found.S, hs.qk_svd(w).S)
        assert found.offset == 0
    assert (hs.position_share(w).share == 1).all()


def test_the_pairing_matters():
    """Negative control: the other pairing gives other forms."""
    halves, adjacent = (random_heads(2, 10, 6, rotary=Rotary(6, pairing=p)) for p in PAIRINGS)
    assert (form(halves, 1) - form(adjacent, 1)).abs().max() > 0.1
    torch.testing.assert_close(form(halves, 0), form(adjacent, 0))


def test_frame_summary_and_files(tmp_path):
    w = random_heads(3, 10, 6, rotary=Rotary(4), model="m", step=8, layer=2)
    found = hs.position_share([w, w], offsets=range(8))
    frame = found.to_frame()
    assert frame.columns[:11].tolist() == list(results.TIDY_COLUMNS)
    assert len(frame) == 6
    assert frame["metric"].unique().tolist() == ["qk.position_share"]
    assert frame["offsets"].unique().tolist() == ["8 offsets from 0 to 7"]
    np.testing.assert_allclose(frame["value"], found.share.ravel())
    np.testing.assert_allclose(frame["null_mean"], found.null_mean.ravel())
    assert "a median 0." in found.summary()
    assert "(L2H" in found.summary()
    results.save(found, tmp_path / "share.json")
    back = results.load(tmp_path / "share.json")
    assert np.array_equal(back.share, found.share)
    zero = random_heads(2, 10, 6)
    zero.W_Q.zero_()
    assert np.isnan(hs.position_share(zero).share).all()
    assert "all heads are zero" in hs.position_share(zero).summary()


def test_offsets_of_numpy_and_torch_are_numbers():
    """A frame's or an array's offset is one, and results hold Python's own."""
    for one in (np.int64(3), torch.tensor(3), 3):
        assert as_offset(one) == 3
    for several in (np.arange(3), torch.arange(3), range(3), [0, np.int64(1), 2]):
        assert as_offset(several) == (0, 1, 2)
    assert as_offset(None) is None


def test_errors():
    w = random_heads(2, 10, 6, rotary=Rotary(4))
    for offset in ([], 1.5, [0.5], "near"):
        with pytest.raises(InputError, match="expected an offset, several to average over"):
            as_offset(offset)
    for call in (lambda: hs.qk_svd(w, offset=[]), lambda: hs.position_share(w, offsets=[])):
        with pytest.raises(InputError, match="expected an offset, several to average over"):
            call()
    scaled = random_heads(2, 10, 6, rotary=Rotary(4, scaling="llama3"))
    hs.qk_svd(scaled, offset=None)
    hs.position_share(scaled)
    with pytest.raises(InputError, match="known by name only"):
        hs.position_share(scaled, offsets=range(3))
    with pytest.raises(InputError, match="expected 2 frequencies"):
        hs.qk_svd(scaled, offset=2, frequencies=torch.ones(3))
