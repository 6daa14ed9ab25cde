"""Activation patching: by hand, by identities, and against transformer-lens's own functions."""

import hashlib
from importlib.metadata import version

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from micro_model import L0H0, L1H0, L1H1, micro_features, micro_hf_model
from zoo import random_tokens, tiny_model, tiny_tokenizer

from headspec.checkpoints.suite import open_suite
from headspec.errors import InputError
from headspec.heads import Head
from headspec.interventions.effects import HeadEffects
from headspec.interventions.example_effects import SmallGapWarning
from headspec.interventions.metrics import kl_from
from headspec.interventions.patching import patch_heads
from headspec.interventions.path_patching import patch_paths
from headspec.lens.hooks import has_caller_hooks, hook_name
from headspec.lens.models import wrap_model
from headspec.tasks.families import build_task

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


def tiny(name="gpt_neox", model_class="bridge", **arguments):
    return wrap_model(tiny_model(name), tiny_tokenizer(), model_class=model_class, **arguments)


def feature(number, position=-1):
    def metric(logits):
        return logits[:, position, number]

    return metric


def column(rows, number):
    return [row[number] for row in rows]


def pair_of_tokens(rows=3, length=7, *, changed=3):
    clean = random_tokens(rows, length)
    corrupt = clean.clone()
    corrupt[:, changed] = (corrupt[:, changed] + 7) % 50 + 2
    return clean, corrupt


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("model_class", CLASSES)
def test_by_hand(model_class, fast):
    """What L0H0 wrote in the clean run, summed by hand into the corrupt one."""
    model = micro(model_class)
    found = patch_heads(model, CLEAN, CORRUPT, feature(L1H0), fast=fast)
    # clean writes 3, 4.5, 3, 3.5; corrupt 3, 2.5, 5/3, 2.5: L1H0 averages them
    assert found.per_example[0, 0, 0] == pytest.approx(14 / 4 - (3 + 2.5 + 5 / 3 + 2.5) / 4)
    for row, (clean, corrupt) in enumerate(zip(CLEAN.tolist(), CORRUPT.tolist(), strict=True)):
        base = micro_features(corrupt)
        clean_run = micro_features(clean)
        for head, name in ((L0H0, "L0H0"), (L1H0, "L1H0")):
            written = {name: column(clean_run, head)}
            expected = micro_features(corrupt, written=written)[-1][L1H0] - base[-1][L1H0]
            layer = int(name[1])
            assert found.per_example[layer, 0, row] == pytest.approx(expected, abs=1e-6)
        assert found.base[row] == pytest.approx(base[-1][L1H0])
        assert found.target[row] == pytest.approx(clean_run[-1][L1H0])
    np.testing.assert_allclose(found.per_example[:, 1], 0, atol=1e-6)  # neither feeds L1H0
    assert (found.n, found.site, found.mode) == (2, "z", "denoise")


def test_one_position_by_hand():
    model = micro()
    found = patch_heads(model, CLEAN, CORRUPT, feature(L1H1), positions="each")
    assert found.effect.shape == (4, 2, 2)
    for row in range(2):
        clean_run = column(micro_features(CLEAN[row].tolist()), L0H0)
        base = micro_features(CORRUPT[row].tolist())[-1][L1H1]
        for place in range(4):
            written = [clean_run[at] if at == place else None for at in range(4)]
            patched = micro_features(CORRUPT[row].tolist(), written={"L0H0": written})
            expected = patched[-1][L1H1] - base
            assert found.per_example[place, 0, 0, row] == pytest.approx(expected, abs=1e-5)


def test_noise_is_the_other_direction():
    found = patch_heads(micro(), CLEAN, CORRUPT, feature(L1H0), direction="noise")
    other = patch_heads(micro(), CORRUPT, CLEAN, feature(L1H0))
    np.testing.assert_allclose(found.values, other.values, atol=1e-6)
    np.testing.assert_array_equal(found.gap, -other.gap)


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("name", ["gpt_neox", "llama"])
def test_clean_into_clean_changes_nothing(name, model_class):
    """A position map makes every column patchable: equal columns alone would be skipped."""
    model = tiny(name, model_class)
    tokens = random_tokens(2, 6)
    every = torch.arange(6)
    for site in ("z", "q", "k", "v", "mlp_out", "resid_pre"):
        found = patch_heads(
            model, tokens, tokens, feature(5), site=site, position_map=every, seed=1
        )
        assert np.abs(found.values).max() < 1e-5
        with pytest.warns(SmallGapWarning, match="not distinguishable from 0"):
            assert np.isnan(found.normalized).all()


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("model_class", CLASSES)
def test_every_head_and_mlp_and_the_embedding_give_the_clean_run(model_class, parallel):
    name = "gpt_neox" if parallel else "gpt_neox_sequential"
    model = tiny(name, model_class)
    clean, corrupt = pair_of_tokens(changed=3)
    metric = feature(5)
    embedding = patch_heads(model, clean, corrupt, metric, site="resid_pre", layers=[0])
    np.testing.assert_allclose(embedding.values[0], embedding.gap, atol=1e-4)
    assert np.abs(embedding.gap).min() > 0.01
    # before the last token differs, all heads of all layers are all that can tell it
    everything = [[Head(layer, index) for layer in range(2) for index in range(4)]]
    heads = patch_heads(model, clean, corrupt, metric, heads=everything, positions=-1)
    np.testing.assert_allclose(heads.per_example[0], heads.gap, atol=1e-4)
    assert heads.effect.shape == (1,)
    some = patch_heads(model, clean, corrupt, metric, heads=[everything[0][1:]], positions=-1)
    assert np.abs(some.values[0] - some.gap).max() > 1e-3


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("name", ["gpt_neox", "gpt2"])
def test_equal_to_transformer_lens(name, model_class):
    from transformer_lens import patching

    model = tiny(name, model_class)
    clean, corrupt = pair_of_tokens(changed=2)
    metric = feature(5)
    _, cache = model.run_with_cache(clean)
    base = patch_heads(model, clean, corrupt, metric).base.mean()
    by_site = {
        "z": patching.get_act_patch_attn_head_out_all_pos,
        "q": patching.get_act_patch_attn_head_q_all_pos,
        "k": patching.get_act_patch_attn_head_k_all_pos,
        "v": patching.get_act_patch_attn_head_v_all_pos,
        "pattern": patching.get_act_patch_attn_head_pattern_all_pos,
    }
    with torch.no_grad():
        for site, function in by_site.items():
            theirs = function(model, corrupt, cache, lambda logits: metric(logits).mean())
            ours = patch_heads(model, clean, corrupt, metric, site=site)
            np.testing.assert_allclose(ours.effect, theirs.numpy() - base, atol=2e-5)
            assert np.abs(ours.effect).max() > 1e-3
        theirs = patching.get_act_patch_attn_head_out_by_pos(
            model, corrupt, cache, lambda logits: metric(logits).mean()
        )
        ours = patch_heads(model, clean, corrupt, metric, positions="each")
        expected = theirs.numpy().transpose(1, 0, 2) - base
        np.testing.assert_allclose(ours.effect, expected, atol=2e-5)
        for site, function in (
            ("mlp_out", patching.get_act_patch_mlp_out),
            ("resid_pre", patching.get_act_patch_resid_pre),
        ):
            theirs = function(model, corrupt, cache, lambda logits: metric(logits).mean())
            ours = patch_heads(model, clean, corrupt, metric, site=site, positions="each")
            np.testing.assert_allclose(ours.effect, theirs.numpy().T - base, atol=2e-5)


@pytest.fixture(scope="module")
def llama():
    return tiny("llama")


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_set_any_positions_any_direction_is_what_hooks_give(llama, data):
    every = [Head(layer, index) for layer in range(2) for index in range(4)]
    sets = data.draw(st.lists(st.sets(st.sampled_from(every)), min_size=1, max_size=3))
    columns = data.draw(st.lists(st.integers(0, 6), min_size=1, unique=True))
    direction = data.draw(st.sampled_from(["denoise", "noise"]))
    clean, corrupt = pair_of_tokens()
    base, source = (corrupt, clean) if direction == "denoise" else (clean, corrupt)
    metric = feature(5)
    found = patch_heads(
        llama, clean, corrupt, metric, heads=sets, positions=columns, direction=direction
    )
    _, cache = llama.run_with_cache(source, names_filter=lambda name: name.endswith("hook_z"))

    def putting(layer, chosen):
        def put(z, hook):
            for head in chosen:
                if head.layer == layer:
                    new = cache[hook_name(layer, "z")][:, columns, head.index]
                    z[:, columns, head.index] = new
            return z

        return hook_name(layer, "z"), put

    with torch.no_grad():
        before = metric(llama(base))
        for row, chosen in enumerate(sets):
            hooks = [putting(layer, chosen) for layer in range(2)]
            expected = metric(llama.run_with_hooks(base, fwd_hooks=hooks)) - before
            np.testing.assert_allclose(found.values[row], expected, atol=2e-5)


@pytest.mark.parametrize("model_class", CLASSES)
def test_key_value_heads_are_native(model_class):
    """Grouped-query attention: k and v have two heads, z four; against plain hooks."""
    model = tiny("qwen3", model_class)
    clean, corrupt = pair_of_tokens()
    metric = feature(5)
    found = patch_heads(model, clean, corrupt, metric, site="k")
    assert found.effect.shape == (2, 2)
    name = hook_name(1, "k")
    _, cache = model.run_with_cache(clean, names_filter=name)

    def swap(activation, hook):
        activation[:, :, 1] = cache[name][:, :, 1]
        return activation

    with torch.no_grad():
        patched = metric(model.run_with_hooks(corrupt, fwd_hooks=[(name, swap)]))
        expected = (patched - metric(model(corrupt))).numpy()
    np.testing.assert_allclose(found.per_example[1, 1], expected, atol=1e-5)
    with pytest.raises(InputError, match="head indices 0 to 1"):
        patch_heads(model, clean, corrupt, metric, site="k", heads=[Head(0, 3)])
    assert patch_heads(model, clean, corrupt, metric).effect.shape == (2, 4)


@pytest.mark.skipif("hooked_transformer" not in CLASSES, reason="the class is gone")
@pytest.mark.parametrize("fast", [True, False])
def test_keys_repeated_for_each_query_head(fast):
    """A HookedTransformer that ungroups has a key for every query head; against plain hooks."""
    model = tiny("qwen3", "hooked_transformer")
    native = patch_heads(model, *pair_of_tokens(), feature(5), site="k", heads=[Head(1, 1)])
    model.set_ungroup_grouped_query_attention(True)
    clean, corrupt = pair_of_tokens()
    metric, name = feature(5), hook_name(1, "k")
    found = patch_heads(model, clean, corrupt, metric, site="k", fast=fast)
    assert found.effect.shape == (2, 4)
    _, cache = model.run_with_cache(clean, names_filter=name)

    def swap(activation, hook):
        activation[:, :, 3] = cache[name][:, :, 3]
        return activation

    with torch.no_grad():
        patched = metric(model.run_with_hooks(corrupt, fwd_hooks=[(name, swap)]))
        expected = (patched - metric(model(corrupt))).numpy()
    np.testing.assert_allclose(found.per_example[1, 3], expected, atol=1e-5)
    both = [[Head(1, 2), Head(1, 3)]]  # the query heads of key-value head 1
    together = patch_heads(model, clean, corrupt, metric, site="k", heads=both, fast=fast)
    np.testing.assert_allclose(together.values, native.values, atol=1e-5)
    paths = patch_paths(
        model, clean, corrupt, metric, senders=[Head(0, 0)], receivers=["L1H3.k"], fast=fast
    )
    assert paths.n == len(clean)


@pytest.mark.parametrize("model_class", CLASSES)
def test_half_precision_is_near_and_its_rounding_is_no_effect(model_class):
    clean, corrupt = pair_of_tokens(rows=6)
    exact = patch_heads(tiny("qwen3", model_class), clean, corrupt, feature(5))
    half = tiny("qwen3", model_class, dtype=torch.bfloat16)
    found = patch_heads(half, clean, corrupt, feature(5))
    slow = patch_heads(half, clean, corrupt, feature(5), fast=False)
    largest = np.abs(exact.values).max()
    assert np.abs(found.values - exact.values).max() < 0.1 * largest
    assert np.abs(slow.values - exact.values).max() < 0.1 * largest
    assert np.abs(found.values - exact.values).max() < found.rounding
    assert exact.rounding < 1e-4 < 0.02 < found.rounding


def test_slices_of_the_attention_output_are_not_heads():
    """Patched by slices of d_model, a head that writes nothing still seems to matter."""
    hf_model = tiny_model("gpt_neox")
    with torch.no_grad():  # head 1 of layer 1 writes nothing
        hf_model.gpt_neox.layers[1].attention.dense.weight[:, 16:32] = 0
    model = wrap_model(hf_model, tiny_tokenizer())
    clean, corrupt = pair_of_tokens()
    metric = feature(5)
    right = patch_heads(model, clean, corrupt, metric).effect
    assert abs(right[1, 1]) < 1e-6

    name = hook_name(1, "attn_out")
    _, cache = model.run_with_cache(clean, names_filter=name)
    naive = []
    with torch.no_grad():
        for head in range(4):

            def swap(activation, hook, part=slice(16 * head, 16 * head + 16)):
                activation[..., part] = cache[name][..., part]
                return activation

            patched = metric(model.run_with_hooks(corrupt, fwd_hooks=[(name, swap)]))
            naive.append((patched - metric(model(corrupt))).mean().item())
    assert abs(naive[1]) > 1e-3  # the head that writes nothing "matters"
    assert np.abs(np.array(naive) - right[1]).max() > 1e-3


def test_unequal_lengths_are_refused_and_both_tokenisations_shown():
    model = tiny()
    with pytest.raises(InputError, match=r"corrupt 2 tokens.*'w9'.*and clean 3.*'w7'"):
        patch_heads(model, "w5 w6 w7", "w5 w9", feature(5))
    clean, corrupt = random_tokens(2, 6), random_tokens(2, 5)
    with pytest.raises(InputError, match=r"5 tokens.* and clean 6 tokens.*position_map="):
        patch_heads(model, clean, corrupt, feature(5))
    # the naive way: columns from the left. The words are the same, yet they all seem to matter.
    words = random_tokens(1, 5)
    later = torch.cat([torch.tensor([[2]]), words], 1)
    naive = patch_heads(model, later[:, :5], words, feature(5), site="resid_pre", positions="each")
    assert (np.abs(naive.effect).max(1) > 1e-3).sum() >= 4


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize("fast", [True, False])
def test_a_position_map_aligns_unequal_prompts(direction, fast):
    """The clean prompt has one word more in front; the corrupt column c is clean column c + 1."""
    model = micro()
    clean, corrupt = torch.tensor([[2, 3, 6, 0]]), torch.tensor([[3, 2, 0]])
    found = patch_heads(
        model,
        clean,
        corrupt,
        feature(L1H0),
        direction=direction,
        position_map=torch.tensor([1, -1, 3]),
        heads=[Head(0, 0)],
        fast=fast,
    )
    long, short = column(micro_features([2, 3, 6, 0]), 2), column(micro_features([3, 2, 0]), 2)
    if direction == "denoise":
        written, tokens = [long[1], None, long[3]], [3, 2, 0]
    else:
        written, tokens = [None, short[0], None, short[2]], [2, 3, 6, 0]
    patched = micro_features(tokens, written={"L0H0": written})[-1][L1H0]
    expected = patched - micro_features(tokens)[-1][L1H0]
    assert found.effect[0, 0] == pytest.approx(expected, abs=1e-5)
    assert expected != 0


def test_a_position_map_with_padding_of_its_own_for_each_run():
    """The same, both runs in four columns: task.clean_mask and task.corrupt_mask go together."""
    model = micro()
    clean, corrupt = torch.tensor([[2, 3, 6, 0]]), torch.tensor([[7, 3, 2, 0]])
    masks = torch.ones(1, 4, dtype=torch.long), torch.tensor([[0, 1, 1, 1]])
    with pytest.raises(InputError, match=r"corrupt 3 tokens \[3, 2, 0\] and clean 4 tokens"):
        patch_heads(model, clean, corrupt, feature(L1H0), attention_mask=masks)
    arguments = {"attention_mask": masks, "position_map": torch.tensor([[0, 1, -1, 3]])}
    for direction in ("denoise", "noise"):
        found = patch_heads(model, clean, corrupt, feature(L1H0), direction=direction, **arguments)
        alone = patch_heads(
            model,
            clean,
            corrupt[:, 1:],
            feature(L1H0),
            direction=direction,
            position_map=torch.tensor([1, -1, 3]),
        )
        np.testing.assert_allclose(found.values, alone.values, atol=1e-5)
        assert abs(found.effect[0, 0]) > 0.1


def test_positions_are_those_of_the_base_run_under_a_map():
    """Denoising, the clean run's columns are other words of the corrupt one."""
    model = open_suite("micro").model(6144)
    task = build_task("decimal_comparison", n=6, wording="two_formats")
    task = task.tokenise(model.tokenizer, alignment="explicit")
    masks = (task.clean_mask, task.corrupt_mask)
    options = {"attention_mask": masks, "position_map": task.position_map, "heads": [Head(1, 4)]}

    def patched(direction, positions):
        runs = (task.clean, task.corrupt, task.metric())
        return patch_heads(model, *runs, direction=direction, positions=positions, **options)

    for direction, own, other in (
        ("denoise", task.corrupt_positions, task.positions),
        ("noise", task.positions, task.corrupt_positions),
    ):
        base = task.corrupt if direction == "denoise" else task.clean
        where = torch.zeros(base.shape, dtype=torch.bool)
        where[torch.arange(len(base)), own["first"]] = True
        right = patched(direction, own)
        row = [label for label, *_ in zip(right.positions, right.heads, strict=True)].index("first")
        np.testing.assert_allclose(right.values[row], patched(direction, where).values[0])
        assert np.abs(right.values[row] - patched(direction, other).values[row]).max() > 1e-4


def test_one_column_a_row_without_counterpart_is_refused():
    model, clean, corrupt = micro(), torch.tensor([[3, 6, 0, 5]] * 2), torch.tensor([[3, 2, 5]] * 2)
    metric = feature(L1H0)
    options = {"position_map": torch.tensor([0, -1, 3])}
    for positions in ({"here": torch.tensor([0, 1])}, torch.tensor([2, 1])):
        with pytest.raises(InputError, match=r"column 1 of row 1.*task\.corrupt_positions"):
            patch_heads(model, clean, corrupt, metric, positions=positions, **options)
    with pytest.raises(InputError, match=r"column -2 of row 0.*task\.positions"):
        patch_heads(
            model,
            clean,
            corrupt,
            metric,
            direction="noise",
            positions=torch.tensor([-2, 0]),
            **options,
        )
    fine = {"here": torch.tensor([0, -1]), "all": [0, 1, 2]}
    assert patch_heads(model, clean, corrupt, metric, positions=fine, **options).n == 1


def test_text_is_padded_on_the_left_and_pairs_by_length():
    model = tiny()
    clean, corrupt = ["w5 w6 w7", "w9 w3"], ["w5 w8 w7", "w4 w3"]
    found = patch_heads(model, clean, corrupt, feature(5))
    for row in range(2):
        alone = patch_heads(model, clean[row], corrupt[row], feature(5))
        np.testing.assert_allclose(
            alone.per_example[..., 0], found.per_example[..., row], atol=1e-5
        )


def test_one_prompt_many_times_is_one_example():
    """A thousand trials of one prompt have no interval; copies do not narrow it."""
    model = tiny()
    clean, corrupt = pair_of_tokens(rows=4)
    once = patch_heads(model, clean, corrupt, feature(5))
    many = patch_heads(model, clean.repeat(5, 1), corrupt.repeat(5, 1), feature(5))
    assert once.n == many.n == 4
    np.testing.assert_allclose(many.ci_low, once.ci_low, atol=1e-5)
    np.testing.assert_allclose(many.ci_high, once.ci_high, atol=1e-5)
    # the naive interval over 20 rows is narrower
    naive = HeadEffects(**{**vars_of(many), "groups": None})
    assert naive.n == 20
    assert (naive.ci_high - naive.ci_low)[0].mean() < 0.7 * (many.ci_high - many.ci_low)[0].mean()
    single = patch_heads(model, clean[:1].repeat(9, 1), corrupt[:1].repeat(9, 1), feature(5))
    assert single.n == 1
    assert np.isnan(single.ci_low).all()
    assert "anecdote" in single.summary()


def vars_of(effects):
    return {name: getattr(effects, name) for name in effects.__dataclass_fields__}


def digest(model):
    found = hashlib.sha256()
    for _, value in sorted(model.state_dict().items()):
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_stays_on_the_model(error, fast, model_class):
    model = tiny("gpt_neox", model_class)
    before, calls = digest(model), []

    def metric(logits):
        calls.append(1)
        if len(calls) > 3:
            raise error("stop")
        return logits[:, -1, 5]

    with pytest.raises(error, match="stop"):
        patch_heads(model, *pair_of_tokens(), metric, fast=fast)
    assert not has_caller_hooks(model)
    assert digest(model) == before
    assert torch.is_grad_enabled()


def test_rows_that_differ_after_what_is_read_are_one_example():
    """... unless a map brings a later column of the source to a column that is read."""
    model = tiny()
    clean = torch.tensor([[3, 6, 0, 5], [3, 6, 0, 7]])
    corrupt = torch.tensor([[3, 2, 0, 5], [3, 2, 0, 7]])
    metric = kl_from(model, corrupt, positions=2)
    for direction in ("denoise", "noise"):
        assert patch_heads(model, clean, corrupt, metric, direction=direction).n == 1
    everything = kl_from(model, corrupt)
    assert patch_heads(model, clean, corrupt, everything).n == 2
    later = torch.tensor([0, 1, 3, -1])
    assert patch_heads(model, clean, corrupt, metric, position_map=later).n == 2


def test_choices_and_shapes_are_explained():
    model = tiny()
    clean, corrupt = pair_of_tokens()
    with pytest.raises(Exception, match="site"):
        patch_heads(model, clean, corrupt, feature(5), site="attn_out")
    with pytest.raises(InputError, match="as many clean as corrupt"):
        patch_heads(model, clean, corrupt[:2], feature(5))
    with pytest.raises(InputError, match="no heads for site 'mlp_out'"):
        patch_heads(model, clean, corrupt, feature(5), site="mlp_out", heads=[Head(0, 0)])
    with pytest.raises(InputError, match="one number for each example"):
        patch_heads(model, clean, corrupt, lambda logits: logits.mean())
    with pytest.raises(InputError, match="equal length for site 'pattern'"):
        patch_heads(model, clean, corrupt, feature(5), site="pattern", position_map=torch.arange(7))
