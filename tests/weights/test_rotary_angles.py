"""Rotations of queries and keys against transformers' own, and their identities."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headspec import Rotary
from headspec.errors import InputError
from headspec.weights.rotary_angles import rotate


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("pairing", ["halves", "adjacent"])
def test_equal_to_transformers(pairing):
    from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as gptj
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as llama

    positions, base, dim = torch.arange(7), 500.0, 8
    x = draw(1, 3, 7, dim)  # batch head pos d_head
    angles = positions[:, None].double() * base ** (-torch.arange(0, dim, 2).double() / dim)
    if pairing == "halves":
        twice = torch.cat([angles, angles], -1)[None]
        expected = llama(x, x, twice.cos(), twice.sin())[0]
    else:
        by_pos = x.transpose(1, 2)  # GPT-J: batch pos head d_head
        expected = gptj(by_pos, angles.sin()[None], angles.cos()[None]).transpose(1, 2)
    torch.testing.assert_close(rotate(x, positions, Rotary(dim, base, pairing)), expected)


@given(st.integers(-50, 50), st.integers(-50, 50), st.sampled_from(["halves", "adjacent"]))
def test_products_depend_on_the_offset_alone(i, j, pairing):
    rotary = Rotary(dim=6, base=100.0, pairing=pairing)
    q, k = draw(8, seed=1), draw(8, seed=2)
    together = rotate(q, i, rotary) @ rotate(k, j, rotary)
    torch.testing.assert_close(together, rotate(q, i - j, rotary) @ k)


def test_norms_stay_and_unrotated_dimensions_do_too():
    x = draw(5, 8)
    turned = rotate(x, torch.arange(5), Rotary(dim=4))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[:, 4:], x[:, 4:])
    assert torch.equal(rotate(x, 9, Rotary(dim=0)), x)


def test_the_pairings_differ():
    x = draw(8)
    halves, adjacent = (rotate(x, 3, Rotary(8, pairing=p)) for p in ("halves", "adjacent"))
    assert not torch.allclose(halves, adjacent)


def test_positions_broadcast():
    x = draw(8)
    turned = rotate(x, torch.arange(5), Rotary(8))
    assert turned.shape == (5, 8)
    torch.testing.assert_close(turned[3], rotate(x, 3, Rotary(8)))
    heads = draw(2, 5, 8)
    each = rotate(heads, torch.tensor([[0], [4]]), Rotary(4))
    torch.testing.assert_close(each[1], rotate(heads[1], 4, Rotary(4)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("pairing", ["halves", "adjacent"])
def test_half_precision_is_turned_in_float32(dtype, pairing):
    """Angles in half precision would round twice: no rounding but the result's own."""
    x = draw(50, 8).to(dtype)
    turned = rotate(x, torch.arange(50) * 100, Rotary(6, pairing=pairing))
    exact = rotate(x.double(), torch.arange(50) * 100, Rotary(6, pairing=pairing))
    assert turned.dtype == dtype
    assert ((turned.double() - exact).abs() <= 0.51 * torch.finfo(dtype).eps * exact.abs()).all()


def test_scaled_frequencies_are_an_error():
    with pytest.raises(InputError, match="known by name only"):
        rotate(draw(8), 1, Rotary(8, scaling="yarn"))


def test_frequencies_can_be_given():
    plain, scaled = Rotary(8, 100.0), Rotary(8, 7.0, scaling="llama3")
    own = 100.0 ** (-torch.arange(0, 8, 2) / 8)
    torch.testing.assert_close(
        rotate(draw(8), 3, scaled, frequencies=own.double()), rotate(draw(8), 3, plain)
    )
    with pytest.raises(InputError, match="expected 4 frequencies"):
        rotate(draw(8), 3, scaled, frequencies=own[:2])
