"""Probes of a stack: leaks and memory caught, kinds against scikit-learn, results complete."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler

from headspec import InputError, fit_probes, results
from headspec.activations.probe_controls import control_labels
from headspec.activations.probe_splits import split_by_group


def planted(n=1200, d=24, n_classes=3, *, strength=2.0, seed=0):
    """Classes along directions of their own, groups of 20; a large mean and unequal scales."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(n_classes, (n,), generator=generator)
    directions = torch.linalg.qr(torch.randn(d, n_classes, generator=generator))[0].T
    x = torch.randn(n, d, generator=generator) + strength * directions[labels]
    return x, labels, torch.arange(n) // 20, directions


def test_a_split_over_tokens_leaks_sequences_and_a_split_by_group_does_not():
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(80 * 24) // 24
    labels = torch.randint(2, (80,), generator=generator)[groups]  # one class a sequence
    identity = torch.randn(80, 96, generator=generator)  # and a direction that says nothing of it
    x = identity[groups] + 0.5 * torch.randn(len(groups), 96, generator=generator)
    leaking = fit_probes(x, labels, groups=torch.arange(len(groups)))
    grouped = fit_probes(x, labels, groups=groups)
    assert leaking.accuracy > 0.9
    assert leaking.low["accuracy"] > 0.88  # the interval over tokens is sure of it, too
    assert grouped.low["accuracy"] < 0.5 < grouped.high["accuracy"]
    assert grouped.low["selectivity"] < 0 < grouped.high["selectivity"]


def test_the_control_task_catches_a_probe_that_memorises_token_types():
    generator = torch.Generator().manual_seed(0)
    n_types, n, d = 40, 4000, 64
    types = torch.randint(n_types, (n,), generator=generator)
    embeddings = torch.randn(n_types, d, generator=generator)
    lexical = torch.randint(4, (n_types,), generator=generator)[types]
    contextual = torch.randint(4, (n,), generator=generator)
    x = torch.stack([embeddings[types], 0.2 * torch.randn(n, d, generator=generator)])
    x = x + 0.3 * torch.randn(n, d, generator=generator)
    x[1, :, :4] += torch.nn.functional.one_hot(contextual, 4)
    groups = torch.arange(n) // 40
    memory = fit_probes(x[:1], lexical, groups=groups, token_types=types)
    meaning = fit_probes(x[1:], contextual, groups=groups, token_types=types)
    assert memory.accuracy[0] > 0.97
    assert memory.control_accuracy[0] > 0.97  # any labels of types would do
    assert abs(memory.selectivity[0]) < 0.03
    assert meaning.accuracy[0] > 0.75
    assert meaning.control_accuracy[0] < 0.4
    assert meaning.low["selectivity"][0] > 0.3
    # without types the control shuffles sequences, and does not see lexical memory
    assert fit_probes(x[:1], lexical, groups=groups).selectivity[0] > 0.5


def test_a_class_that_no_control_label_has_does_not_lie_at_the_origin():
    # Two of three classes fall to the token types; memory is then right about all of them. A mean
    # of nothing, put at 0, would lie nearer than means far from it and take their samples away.
    rng = np.random.default_rng(0)
    codes = rng.permutation(np.repeat([0, 1, 2], [290, 290, 20]))
    types, groups = rng.integers(0, 6, 600), np.arange(600) // 5
    assert set(control_labels(codes, groups=groups, token_types=types, seed=0)) == {0, 1}
    activations = 4 * torch.eye(8)[types] + torch.from_numpy(rng.normal(size=(600, 8))).float()
    probes = fit_probes(
        activations, codes, groups=groups, token_types=types, kind="mean_difference"
    )
    assert probes.control_accuracy > 0.9  # .80 with the origin as a class
    assert np.isfinite(probes.biases).all()


@pytest.mark.parametrize("kind", ["logistic", "ridge", "mean_difference"])
def test_scores_on_test_are_those_of_scikit_learn_trained_on_the_same_groups(kind):
    x, labels, groups, _ = planted()
    x = x * torch.logspace(-1, 1, 24) + 30
    probes = fit_probes(x, labels, groups=groups, kind=kind, l2=(1e-2,))
    split = split_by_group(labels.numpy(), groups.numpy())
    scaler = StandardScaler().fit(x[split.train].double().numpy())
    train, test = (scaler.transform(x[part].double().numpy()) for part in (split.train, split.test))
    target, n = labels[split.train].numpy(), len(split.train)
    if kind == "logistic":
        peer = LogisticRegression(C=1 / (1e-2 * n), tol=1e-8, max_iter=1000).fit(train, target)
        scores = peer.decision_function(test)
        expected = scores - scores.mean(1, keepdims=True)
    elif kind == "ridge":
        expected = Ridge(alpha=1e-2 * n).fit(train, np.eye(3)[target]).predict(test)
    else:
        centroids = NearestCentroid().fit(train, target).centroids_
        expected = -0.5 * ((test[:, None] - centroids) ** 2).sum(-1)
        expected -= -0.5 * (test**2).sum(1, keepdims=True)
    ours = x[split.test].double().numpy() @ probes.weights.T + probes.biases
    np.testing.assert_allclose(ours, expected, atol=2e-2 if kind == "logistic" else 1e-4)
    correct = expected.argmax(1) == labels[split.test].numpy()
    assert probes.accuracy == pytest.approx(correct.mean(), abs=2 / len(correct))
    p = probes.probabilities(x[split.test])
    chosen = p[np.arange(len(p)), labels[split.test].numpy()]
    assert probes.values["log_loss"] == pytest.approx(-np.log(chosen).mean(), abs=1e-5)
    assert (probes.temperature == 1.0) == (kind == "logistic")
    assert probes.values["calibration_error"] < 0.1


@pytest.mark.parametrize("kind", ["logistic", "ridge", "mean_difference"])
def test_directions_are_the_planted_ones_in_the_original_space(kind):
    x, labels, groups, directions = planted(n=6000, n_classes=2, strength=2.0)
    shift = 100 * torch.randn(24, generator=torch.Generator().manual_seed(1))
    found = fit_probes(x + shift, labels, groups=groups, kind=kind).direction
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1)
    np.testing.assert_allclose(found[0], -found[1])
    truth = (directions[1] - directions[0]) / 2**0.5
    # standardising shrinks the planted axes; only the logistic and ridge directions undo it
    assert found[1] @ truth.numpy() > (0.9 if kind == "mean_difference" else 0.95)


def test_the_penalty_is_the_one_with_the_lowest_validation_loss():
    x, labels, groups, _ = planted(n=600, d=60, strength=0.7)
    probes = fit_probes(x, labels, groups=groups)
    assert probes.l2 == probes.l2_grid[int(np.argmin(probes.validation_losses))]
    assert probes.l2 > 1e-3  # little data, many features
    assert "smallest penalty" not in probes.summary()
    assert "smallest penalty" in fit_probes(x, labels, groups=groups, l2=(1.0, 10.0)).summary()


def test_a_stack_is_its_layers_one_by_one_and_frames_are_tidy(tmp_path):
    x, labels, groups, _ = planted(n=800)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    stack = torch.stack([torch.stack([noise, x]), torch.stack([x + noise, noise])])
    probes = fit_probes(
        stack, labels, groups=groups, layers=(3, 7), model="toy", step=8, site="z", seed=2
    )
    alone = fit_probes(stack[1, 0], labels, groups=groups, seed=2)
    for name in ("accuracy", "log_loss", "control_accuracy"):
        assert probes.values[name][1, 0] == alone.values[name]
    np.testing.assert_array_equal(probes.weights[1, 0], alone.weights)
    frame = probes.to_frame()
    assert list(frame.columns[:3]) == ["model", "step", "layer"]
    assert set(frame["metric"]) == {
        "accuracy", "balanced_accuracy", "log_loss", "calibration_error", "control_accuracy",
        "selectivity",
    }  # fmt: skip
    row = frame.query("metric == 'accuracy' and layer == 7 and head == 0").iloc[0]
    assert row["value"] == alone.accuracy
    assert row["low"] < row["value"] < row["high"]
    assert (row["n"], row["n_samples"], row["step"]) == (8, 160, 8)
    assert "L3H1 (highest of 4)" in probes.summary()
    assert "Only 8 test groups" in probes.summary()
    for suffix in ("json", "parquet"):
        back = results.load(results.save(probes, tmp_path / f"probes.{suffix}"))
        np.testing.assert_array_equal(back.weights, probes.weights)
        assert back.to_frame().equals(frame)
    lone = alone.to_frame()
    assert lone["layer"].isna().all()
    assert results.load(results.save(alone, tmp_path / "alone.json")).to_frame().equals(lone)


def test_without_a_control_there_is_no_selectivity():
    x, labels, groups, _ = planted(n=600)
    probes = fit_probes(x, labels, groups=groups, control=False)
    assert probes.control is None
    assert np.isnan(probes.selectivity)
    assert "selectivity" not in set(probes.to_frame()["metric"])
    assert "Control" not in probes.summary()


def test_samples_without_a_label_are_left_out_and_labels_may_have_gaps():
    x, labels, groups, _ = planted(n=900)
    named = torch.tensor([2, 5, 9])[labels]
    extra = torch.full((300, 24), torch.nan)
    padded = fit_probes(
        torch.cat([x, extra]),
        torch.cat([named, torch.full((300,), -1)]),
        groups=torch.cat([groups, torch.arange(300)]),
    )
    plain = fit_probes(x, labels, groups=groups)
    assert padded.classes == (2, 5, 9)
    assert padded.accuracy == plain.accuracy
    assert sum(padded.n_samples) == 900


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_converted(dtype):
    x, labels, groups, _ = planted()
    x = x.to(torch.bfloat16)  # exact in all of them but float16
    found = fit_probes(x.to(dtype), labels, groups=groups)
    plain = fit_probes(x.float(), labels, groups=groups)
    assert found.accuracy == pytest.approx(plain.accuracy, abs=0.01)
    assert found.values["log_loss"] == pytest.approx(plain.values["log_loss"], abs=1e-3)


def test_a_large_common_offset_does_not_drown_the_signal():
    """Residual streams have dimensions a thousand times their spread."""
    x, labels, groups, _ = planted()
    offset = torch.zeros(24)
    offset[0] = 4096.0
    moved = fit_probes(x.double() + offset, labels, groups=groups)
    assert fit_probes((x + offset).float(), labels, groups=groups).values[
        "log_loss"
    ] == pytest.approx(moved.values["log_loss"], abs=1e-3)


def test_the_seed_decides_and_nothing_else_is_touched():
    x, labels, groups, _ = planted(n=600)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), x.clone()  # noqa: NPY002
    x.requires_grad_()
    first, again, other = (
        fit_probes(x, labels, groups=groups, seed=seed).to_frame() for seed in (0, 0, 1)
    )
    assert first.equals(again)
    assert not first.equals(other)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert torch.equal(x.detach(), before[2])
    assert x.grad is None
    assert torch.is_grad_enabled()


def test_mistakes_are_named():
    x, labels, groups, _ = planted(n=600)
    with pytest.raises(InputError, match="at least two classes"):
        fit_probes(x, torch.zeros(600, dtype=torch.long), groups=groups)
    with pytest.raises(InputError, match="Give more groups"):
        fit_probes(x, labels, groups=torch.arange(600) // 200)
    with pytest.raises(InputError, match="penalties above 0"):
        fit_probes(x, labels, groups=groups, l2=(0.0, 1.0))
    with pytest.raises(InputError, match="one number a layer"):
        fit_probes(x, labels, groups=groups, layers=(1, 2))
    x[3, 4] = torch.inf
    with pytest.raises(InputError, match=r"nan or infinity in activations\[1\]"):
        fit_probes(torch.stack([torch.zeros_like(x), x]), labels, groups=groups)
    with pytest.raises(InputError, match="Take the same layers"):
        fit_probes(planted(n=600)[0], labels, groups=groups).probabilities(torch.zeros(3, 5))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is at hand")
@pytest.mark.parametrize("kind", ["logistic", "ridge", "mean_difference"])
def test_the_same_on_a_gpu_and_moved_to_one(kind):
    x, labels, groups, _ = planted()
    here = fit_probes(x, labels, groups=groups, kind=kind)
    there = fit_probes(x.cuda(), labels.cuda(), groups=groups.cuda(), kind=kind)
    moved = fit_probes(x, labels, groups=groups, kind=kind, device="cuda")
    for other in (there, moved):
        assert other.accuracy == pytest.approx(here.accuracy, abs=0.01)
        np.testing.assert_allclose(other.values["log_loss"], here.values["log_loss"], atol=1e-4)
