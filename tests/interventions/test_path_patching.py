"""Path patching: by hand, by identities, and against hooks written out for transformer-lens."""

from importlib.metadata import version

import numpy as np
import pytest
import torch
from micro_model import L0H0, L1H0, L1H1, MLP, micro_features, micro_hf_model
from zoo import random_tokens, tiny_model, tiny_tokenizer

from headspec.errors import InputError
from headspec.heads import Head
from headspec.interventions.patching import patch_heads
from headspec.interventions.path_patching import patch_paths
from headspec.lens.hooks import has_caller_hooks, hook_name
from headspec.lens.models import wrap_model
from headspec.results import TIDY_COLUMNS

pytestmark = pytest.mark.models

CLASSES = (
    ("bridge", "hooked_transformer")
    if version("transformer-lens").startswith("3.")
    else ("bridge",)
)
CLEAN = torch.tensor([[3, 6, 0, 5], [1, 1, 7, 2]])
CORRUPT = torch.tensor([[3, 2, 0, 5], [1, 1, 4, 2]])


def micro(model_class="bridge", *, parallel=True):
    return wrap_model(micro_hf_model(parallel=parallel), None, model_class=model_class)


def tiny(name="gpt_neox", model_class="bridge", **overrides):
    count = "n_layer" if name == "gpt2" else "num_hidden_layers"
    hf_model = tiny_model(name, **{count: 3, **overrides})
    return wrap_model(hf_model, tiny_tokenizer(), model_class=model_class)


def feature(number):
    def metric(logits):
        return logits[:, -1, number]

    return metric


def both(logits):
    return logits[:, -1, L1H0] + 2 * logits[:, -1, L1H1] + 3 * logits[:, -1, L0H0]


def pair_of_tokens(rows=3, length=6):
    clean = random_tokens(rows, length)
    corrupt = clean.clone()
    corrupt[:, 2] = (corrupt[:, 2] + 7) % 50 + 2
    return clean, corrupt


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("model_class", CLASSES)
def test_direct_paths_by_hand(model_class, fast):
    """L0H0 reaches L1H0 by its values, L1H1 by its keys, and the logits: three paths, one each."""
    receivers = ["L1H0.v", "L1H1.k", "logits", "L1H0.q", "L1H1.v", "L1H0.k"]
    found = patch_paths(
        micro(model_class),
        CLEAN,
        CORRUPT,
        both,
        receivers=receivers,
        senders=[Head(0, 0)],
        fast=fast,
    )
    for row in range(2):
        clean = [place[L0H0] for place in micro_features(CLEAN[row].tolist())]
        base = micro_features(CORRUPT[row].tolist())[-1]
        new = micro_features(CORRUPT[row].tolist(), written={"L0H0": clean})[-1]
        expected = [
            new[L1H0] - base[L1H0],
            2 * (new[L1H1] - base[L1H1]),
            3 * (new[L0H0] - base[L0H0]),
        ]
        np.testing.assert_allclose(found.per_example[0, :3, row], expected, atol=1e-5)
        assert np.abs(expected).min() > 0.01
    np.testing.assert_allclose(found.per_example[0, 3:], 0, atol=1e-5)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("model_class", CLASSES)
def test_mlps_between_are_held_or_not(model_class, fast):
    """Sequential: L0H0 -> MLP 0 -> L1H0. Held, L1H0 reads the change once; else three times."""
    model = micro(model_class, parallel=False)
    options = {"senders": [Head(0, 0)], "fast": fast}
    metric = feature(L1H0)
    held = patch_paths(model, CLEAN, CORRUPT, metric, receivers=["L1H0.v", "L0.mlp"], **options)
    free = patch_paths(
        model, CLEAN, CORRUPT, metric, receivers=["L1H0.v"], freeze_mlps=False, **options
    )
    clean = [[place[L0H0] for place in micro_features(row)] for row in CLEAN.tolist()]
    corrupt = [[place[L0H0] for place in micro_features(row)] for row in CORRUPT.tolist()]
    change = (np.array(clean) - np.array(corrupt)).mean(1)
    np.testing.assert_allclose(held.per_example[0, 0], change, atol=1e-5)
    np.testing.assert_allclose(held.per_example[0, 1], 2 * change, atol=1e-5)
    np.testing.assert_allclose(free.per_example[0, 0], 3 * change, atol=1e-5)


@pytest.mark.parametrize("model_class", CLASSES)
def test_the_mlp_as_receiver_in_parallel_blocks(model_class):
    found = patch_paths(
        micro(model_class), CLEAN, CORRUPT, feature(MLP), receivers=["L1.mlp", "logits"]
    )
    assert found.effect.shape == (4, 2)
    expected = [
        micro_features(a)[-1][MLP] - micro_features(b)[-1][MLP]
        for a, b in zip(CLEAN.tolist(), CORRUPT.tolist(), strict=True)
    ]
    np.testing.assert_allclose(found.per_example[0, 0], expected, atol=1e-5)
    assert np.isnan(found.effect[2:, 0]).all()  # layer 1 writes after its parallel MLP has read


def held_hooks(model, base, keep, *, freeze_mlps):
    """transformer-lens hooks that hold heads (and MLPs) at the base run, but for `keep`."""
    hooks = []
    for layer in range(model.cfg.n_layers):

        def hold_z(z, hook, layer=layer):
            z[:] = base[hook_name(layer, "z")]
            for head, values in keep.items():
                if head.layer == layer:
                    z[:, :, head.index] = values[:, :, head.index]
            return z

        def hold_mlp(out, hook, layer=layer):
            return base[hook_name(layer, "mlp_out")]

        hooks.append((hook_name(layer, "z"), hold_z))
        if freeze_mlps:
            hooks.append((hook_name(layer, "mlp_out"), hold_mlp))
    return hooks


def by_plain_hooks(model, clean, corrupt, metric, sender, receiver, *, freeze_mlps):
    """Path patching as in the papers, one path, every run a whole forward pass."""
    _, base = model.run_with_cache(corrupt)
    _, other = model.run_with_cache(clean)
    keep = {sender: other[hook_name(sender.layer, "z")]}
    hooks = held_hooks(model, base, keep, freeze_mlps=freeze_mlps)
    before = metric(model(corrupt))
    if receiver == "logits":
        return metric(model.run_with_hooks(corrupt, fwd_hooks=hooks)) - before
    place, site = receiver.split(".")
    layer = int(place[1 : place.index("H")] if "H" in place else place[1:])
    name = hook_name(layer, "mlp_out" if site == "mlp" else site)
    kept = []

    def keep_first(activation, hook):
        kept.append(activation.clone())

    hooks = [pair for pair in hooks if pair[0] != name]  # the receiver itself computes
    model.run_with_hooks(corrupt, fwd_hooks=[*hooks, (name, keep_first)])

    def give(activation, hook):
        if site == "mlp":
            return kept[0]
        head = int(place[place.index("H") + 1 :])
        activation[:, :, head] = kept[0][:, :, head]
        return activation

    return metric(model.run_with_hooks(corrupt, fwd_hooks=[(name, give)])) - before


@pytest.mark.parametrize("freeze_mlps", [True, False])
@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("name", ["gpt_neox", "gpt_neox_sequential", "qwen3"])
def test_equal_to_plain_hooks(name, model_class, freeze_mlps):
    model = tiny(name, model_class)
    clean, corrupt = pair_of_tokens()
    metric = feature(9)
    senders = [Head(0, 1), Head(0, 3)]
    receivers = ["L1H2.q", "L2H1.k", "L2H0.v", "L1.mlp", "L2.mlp", "logits"]
    options = {"receivers": receivers, "senders": senders, "freeze_mlps": freeze_mlps}
    fast = patch_paths(model, clean, corrupt, metric, **options)
    slow = patch_paths(model, clean, corrupt, metric, fast=False, **options)
    np.testing.assert_allclose(fast.values, slow.values, atol=2e-5)
    with torch.no_grad():
        for row, sender in enumerate(senders):
            for column, receiver in enumerate(receivers):
                expected = by_plain_hooks(
                    model, clean, corrupt, metric, sender, receiver, freeze_mlps=freeze_mlps
                )
                np.testing.assert_allclose(fast.per_example[row, column], expected, atol=2e-5)
    assert np.abs(fast.values).max() > 1e-2
    assert (np.abs(fast.values).max(1) > 1e-4).all()


def test_held_and_free_mlps_differ():
    """The negative control of the comparison above."""
    model = tiny("gpt_neox")
    clean, corrupt = pair_of_tokens()
    options = {"receivers": ["L2H1.v", "logits"], "senders": [Head(0, 1)]}
    held = patch_paths(model, clean, corrupt, feature(9), **options)
    free = patch_paths(model, clean, corrupt, feature(9), freeze_mlps=False, **options)
    assert np.abs(held.values - free.values).max() > 1e-3


@pytest.mark.parametrize("name", ["gpt_neox", "llama"])
def test_of_the_last_layer_the_way_to_the_logits_is_all_there_is(name):
    model = tiny(name)
    clean, corrupt = pair_of_tokens()
    options = {"receivers": "logits", "freeze_mlps": name == "gpt_neox"}  # llama's last MLP hears
    direct = patch_paths(model, clean, corrupt, feature(9), **options)
    whole = patch_heads(model, clean, corrupt, feature(9))
    np.testing.assert_allclose(direct.effect[8:, 0], whole.effect[2], atol=2e-5)
    assert np.abs(direct.effect[:8, 0] - whole.effect[:2].ravel()).max() > 1e-3


def test_receivers_together_and_sets_of_senders():
    model = micro()
    found = patch_paths(
        model,
        CLEAN,
        CORRUPT,
        both,
        receivers=[("L1H0.v", "L1H1.k"), "L1H0.v", "L1H1.k"],
        senders=[[Head(0, 0), Head(0, 1)]],
    )
    assert found.receiver_names == ("L1H0.v L1H1.k", "L1H0.v", "L1H1.k")
    assert found.sender_names == ("L0H0 L0H1",)
    effect = found.per_example[0]
    np.testing.assert_allclose(effect[0], effect[1] + effect[2], atol=1e-5)  # no later layer
    frame = found.to_frame()
    assert tuple(frame.columns[: len(TIDY_COLUMNS)]) == TIDY_COLUMNS
    assert frame[["sender", "receiver"]].iloc[1].tolist() == ["L0H0 L0H1", "L1H0.v"]
    assert "L0H0 L0H1 -> L1H0.v" in found.summary()


def test_a_sweep_takes_the_paths_that_exist_and_the_budget_changes_nothing():
    model = tiny("gpt_neox")
    clean, corrupt = pair_of_tokens()
    receivers = ["L1H0.q", "L2H3.k", "logits"]
    found = patch_paths(model, clean, corrupt, feature(9), receivers=receivers)
    assert np.isnan(found.effect).sum(0).tolist() == [8, 4, 0]
    small = patch_paths(model, clean, corrupt, feature(9), receivers=receivers, memory_budget=2**15)
    np.testing.assert_allclose(small.effect, found.effect, atol=1e-5)


def test_positions_of_senders_and_receivers():
    """A query at the end hears only what was written at the end."""
    model = tiny("gpt_neox")
    clean, corrupt = pair_of_tokens()
    options = {"receivers": ["L1H0.q"], "senders": [Head(0, 1)]}
    end = patch_paths(model, clean, corrupt, feature(9), receiver_positions=-1, **options)
    both_ends = patch_paths(
        model, clean, corrupt, feature(9), positions=-1, receiver_positions=-1, **options
    )
    early = patch_paths(
        model, clean, corrupt, feature(9), positions=[2, 3], receiver_positions=-1, **options
    )
    np.testing.assert_allclose(both_ends.values, end.values, atol=1e-6)
    assert np.abs(end.values).max() > 1e-5
    np.testing.assert_allclose(early.values, 0, atol=1e-6)


@pytest.mark.parametrize(
    ("senders", "receivers", "words"),
    [
        ([Head(1, 0)], ["L1H0.q"], "sender L1H0, receiver L1H0.q"),
        ([Head(2, 0)], ["L1H0.v"], "read after their sender writes"),
        ([[Head(0, 0), Head(2, 0)]], ["L1H0.v"], "read after their sender writes"),
        ([Head(1, 0)], ["L1.mlp"], "receiver L1.mlp"),
        (None, ["L0H0.q"], "at least one head that writes before"),
        (None, ["L1H4.q"], "head indices 0 to 3"),
        (None, ["L3.mlp"], "layers 0 to 2"),
        (None, ["L1H0.z"], r"such as 'L5H1.q'"),
        (None, [("logits", "L1H0.q")], "the logits alone"),
        (None, [], "one receiver or more"),
        ([[]], ["logits"], "senders of one head or more"),
    ],
)
def test_impossible_paths_are_explained(senders, receivers, words):
    model = tiny("gpt_neox")
    clean, corrupt = pair_of_tokens()
    for fast in (True, False):
        with pytest.raises(InputError, match=words):
            patch_paths(
                model, clean, corrupt, feature(9), senders=senders, receivers=receivers, fast=fast
            )


def test_clean_into_clean_and_no_hooks_left():
    model = tiny("gpt_neox")
    clean, _ = pair_of_tokens()
    found = patch_paths(
        model,
        clean,
        clean,
        feature(9),
        receivers=["L1H0.q", "L2.mlp", "logits"],
        position_map=torch.arange(6),
        fast=False,
        senders=[Head(0, 1)],
    )
    np.testing.assert_allclose(found.values, 0, atol=1e-5)

    calls = []

    def metric(logits):
        calls.append(1)
        if len(calls) > 2:
            raise KeyboardInterrupt("stop")
        return logits[:, -1, 5]

    with pytest.raises(KeyboardInterrupt):
        patch_paths(model, *pair_of_tokens(), metric, receivers=["logits"], fast=False)
    assert not has_caller_hooks(model)


@pytest.mark.skipif(
    version("transformer-lens").startswith("3."), reason="direct paths came with release 4"
)
@pytest.mark.parametrize("component", ["q", "k", "v"])
@pytest.mark.parametrize("name", ["gpt2", "gpt_neox"])
def test_equals_direct_paths_of_transformer_lens(name, component):
    from transformer_lens import patching

    model = tiny(name)
    clean, corrupt = pair_of_tokens()
    caches = [
        model.run_with_cache(tokens, names_filter=hook_name(0, "z"))[1]
        for tokens in (clean, corrupt)
    ]
    with torch.no_grad():
        theirs = patching.get_act_patch_direct_path(
            model,
            corrupt,
            *caches,
            lambda logits: logits[:, -1, 3].mean(),
            src_layer=0,
            src_head=1,
            component=component,
            verbose=False,
        )
    receivers = [f"L{layer}H{head}.{component}" for layer in (1, 2) for head in range(4)]
    ours = patch_paths(model, clean, corrupt, feature(3), receivers=receivers, senders=[Head(0, 1)])
    expected = theirs[1:].flatten().numpy()
    np.testing.assert_allclose(ours.effect[0] + ours.base.mean(), expected, atol=1e-5)
    assert np.abs(ours.effect).max() > 1e-3
