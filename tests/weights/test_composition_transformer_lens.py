"""Composition scores and subspace overlaps equal to transformer-lens, on both model classes."""

from dataclasses import replace
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import pytest
import torch
from zoo import tiny_model, tiny_tokenizer

from headspec import composition_scores, head_weights, projection_kernel_overlap, wrap_model

pytestmark = pytest.mark.models
HAS_HOOKED_TRANSFORMER = version("transformer-lens").startswith("3.")
CLASSES = ("bridge", "hooked_transformer") if HAS_HOOKED_TRANSFORMER else ("bridge",)
Role = Literal["q", "k", "v", "o"]
Processing = Literal["none", "compatibility"]
KINDS: tuple[Literal["q", "k", "v"], ...] = ("q", "k", "v")


def model_and_layers(name, model_class, processing: Processing = "none"):
    model: Any = wrap_model(
        tiny_model(name), tiny_tokenizer(), model_class=model_class, processing=processing
    )
    return model, [head_weights(model, layer) for layer in range(2)]


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("name", ["gpt_neox", "gpt2", "llama"])
@pytest.mark.parametrize("processing", ["none", "compatibility"])
def test_equal_to_all_composition_scores(name, model_class, processing):
    model, layers = model_and_layers(name, model_class, processing)
    for kind in KINDS:
        theirs = model.all_composition_scores(kind.upper())
        theirs = getattr(theirs, "scores", theirs).detach().numpy()
        ours = composition_scores(layers, layers, kind=kind).scores
        np.testing.assert_allclose(ours[:4, 4:], theirs[0, :, 1, :], rtol=1e-5)
        assert np.isnan(ours[4:, :4]).all()
        assert (theirs[1, :, 0, :] == 0).all()  # their word for "not defined"


@pytest.mark.parametrize("model_class", CLASSES)
def test_qk_norm_gains_are_in_and_theirs_are_not(model_class):
    model, layers = model_and_layers("qwen3", model_class)
    theirs = model.all_composition_scores("Q")
    theirs = getattr(theirs, "scores", theirs).detach().numpy()[0, :, 1, :]
    assert not np.allclose(composition_scores(*layers, kind="q").scores, theirs, rtol=1e-3)
    plain = [replace(w, q_norm=None, k_norm=None) for w in layers]
    np.testing.assert_allclose(composition_scores(*plain, kind="q").scores, theirs, rtol=1e-5)


ROLES: list[tuple[Role, Role]] = [("o", "k"), ("o", "v"), ("q", "k")]


@pytest.mark.parametrize(("first_role", "second_role"), ROLES)
@pytest.mark.parametrize("rank", [None, 3])
def test_equal_to_projection_kernel(first_role, second_role, rank):
    from transformer_lens.tools.analysis.projection_kernel import (
        orthonormal_subspace,
        projection_kernel,
        random_projection_kernel_moments,
    )

    _, (first, second) = model_and_layers("gpt_neox", CLASSES[0])
    found = projection_kernel_overlap(
        first, second, first_role=first_role, second_role=second_role, rank=rank
    )

    def basis(weights, role, head):
        matrix = getattr(weights, f"W_{role.upper()}")[head].detach()
        return orthonormal_subspace(matrix.T if role == "o" else matrix, rank=rank)

    for i in range(4):
        for j in range(4):
            theirs = projection_kernel(basis(first, first_role, i), basis(second, second_role, j))
            assert found.scores[i, j] == pytest.approx(float(theirs.normalized), rel=1e-4)
    r = rank or 16
    null = random_projection_kernel_moments(64, r)
    np.testing.assert_allclose(found.null_mean, null.mean / r)
    np.testing.assert_allclose(found.null_sd, np.sqrt(null.variance) / r)
    assert torch.get_default_dtype() == torch.float32
