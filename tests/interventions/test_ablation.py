"""Ablation: zero, mean and resampled, by hand and against transformer-lens's hooks."""

import hashlib
from importlib.metadata import version

import numpy as np
import pytest
import torch
from micro_model import L0H0, L0H1, L1H0, micro_features, micro_hf_model
from zoo import random_tokens, tiny_model, tiny_tokenizer

from headspec.checkpoints.suite import open_suite
from headspec.errors import InputError
from headspec.heads import Head
from headspec.interventions.ablation import _donor_rows, ablate_heads
from headspec.interventions.metrics import kl_from, loss_metric
from headspec.interventions.prompt_pairs import last_read, row_groups, tokens_up_to
from headspec.interventions.reference_runs import choose_donors, mean_activations
from headspec.lens.hooks import has_caller_hooks, hook_name
from headspec.lens.logits import as_metric
from headspec.lens.models import wrap_model
from headspec.tasks.families import build_task

pytestmark = pytest.mark.models

CLASSES = (
    ("bridge", "hooked_transformer")
    if version("transformer-lens").startswith("3.")
    else ("bridge",)
)
TOKENS = torch.tensor([[3, 6, 0, 5], [1, 1, 7, 2], [4, 0, 2, 2]])


def micro(model_class="bridge", *, parallel=True):
    return wrap_model(micro_hf_model(parallel=parallel), None, model_class=model_class)


def tiny(name="gpt_neox", model_class="bridge"):
    return wrap_model(tiny_model(name), tiny_tokenizer(), model_class=model_class)


def feature(number):
    def metric(logits):
        return logits[:, -1, number]

    return metric


def by_hand(written, number=L1H0, tokens=TOKENS):
    """Change of a feature at the end of each row when L0H0 writes this."""
    changes = []
    for row, values in zip(tokens.tolist(), written, strict=True):
        new = micro_features(row, written={"L0H0": values})[-1][number]
        changes.append(new - micro_features(row)[-1][number])
    return changes


def wrote(tokens, number=L0H0):
    return [[place[number] for place in micro_features(row)] for row in tokens.tolist()]


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("model_class", CLASSES)
def test_by_hand(model_class, fast):
    model, metric, heads = micro(model_class), feature(L1H0), [Head(0, 0)]
    own = np.array(wrote(TOKENS))
    zero = ablate_heads(model, TOKENS, metric, heads=heads, mode="zero", fast=fast)
    np.testing.assert_allclose(zero.per_example[0, 0], -own.mean(1), atol=1e-5)
    mean = ablate_heads(model, TOKENS, metric, heads=heads, fast=fast)
    expected = by_hand([[own.mean()] * 4] * 3)
    np.testing.assert_allclose(mean.per_example[0, 0], expected, atol=1e-5)
    each = ablate_heads(model, TOKENS, metric, heads=heads, per_position=True, fast=fast)
    expected = by_hand([own.mean(0).tolist()] * 3)
    np.testing.assert_allclose(each.per_example[0, 0], expected, atol=1e-5)
    assert (zero.mode, mean.mode, mean.target) == ("zero", "mean", None)


def test_means_come_from_the_reference():
    model, reference = micro(), torch.tensor([[7, 7, 7, 7], [5, 5, 5, 5]])
    found = ablate_heads(
        model, TOKENS, feature(L1H0), heads=[Head(0, 0)], reference=reference, batch_size=1
    )
    np.testing.assert_allclose(found.per_example[0, 0], by_hand([[6.0] * 4] * 3), atol=1e-5)
    other = torch.tensor([[7, 7], [5, 5]])  # of another length
    again = ablate_heads(model, TOKENS, feature(L1H0), heads=[Head(0, 0)], reference=other)
    np.testing.assert_allclose(again.values, found.values, atol=1e-5)
    with pytest.raises(InputError, match="4 columns for means per position"):
        ablate_heads(model, TOKENS, feature(L1H0), reference=other, per_position=True)


def test_resampling_by_hand():
    """Two rows lend to each other; three to the two others."""
    model, metric = micro(), feature(L1H0)
    two = TOKENS[:2]
    found = ablate_heads(model, two, metric, heads=[Head(0, 0)], mode="resample", n_donors=3)
    expected = by_hand(wrote(two)[::-1], tokens=two)
    np.testing.assert_allclose(found.per_example[0, 0], expected, atol=1e-5)
    own = wrote(TOKENS)
    found = ablate_heads(model, TOKENS, metric, heads=[Head(0, 0)], mode="resample", n_donors=2)
    others = [[own[j] for j in range(3) if j != row] for row in range(3)]
    expected = [np.mean([by_hand([one] * 3)[row] for one in others[row]]) for row in range(3)]
    np.testing.assert_allclose(found.per_example[0, 0], expected, atol=1e-5)


def test_padding_and_what_is_not_counted_stay_out_of_means():
    model = micro()
    padded = torch.tensor([[0, 0, 7, 7], [5, 5, 5, 5]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    mean = mean_activations(model, padded, [0], attention_mask=mask)[0][0, 0, 0, 0]
    assert mean == pytest.approx((7 + 7 + 4 * 5) / 6, abs=1e-5)
    naive = mean_activations(model, padded, [0])[0][0, 0, 0, 0]
    assert abs(naive - mean) > 0.5
    counted = torch.tensor([[False, False, True, True], [False] * 4])
    some = mean_activations(model, padded, [0], attention_mask=mask, counted=counted)
    assert some[0][0, 0, 0, 0] == pytest.approx(7, abs=1e-5)
    with pytest.raises(InputError, match=r"reference prompts of equal length.*lengths 2 to 4"):
        mean_activations(model, padded, [0], attention_mask=mask, per_position=True)


def test_a_mean_over_nothing_is_no_zero():
    model, nothing = micro(), torch.zeros(3, 4, dtype=torch.bool)
    with pytest.raises(InputError, match=r"a position that counts.*none in 3 reference"):
        mean_activations(model, TOKENS, [0], counted=nothing)
    with pytest.raises(InputError, match="a position that counts"):
        ablate_heads(model, TOKENS, feature(L1H0), counted=nothing)
    later = torch.tensor([[False, True, True, True]] * 3)
    means = mean_activations(model, TOKENS, [0], counted=later, per_position=True)[0]
    assert means[:, 0].isnan().all()
    assert not means[:, 1:].isnan().any()


@pytest.mark.parametrize("fast", [True, False])
def test_columns_without_a_mean_of_their_own_are_not_ablated_with_zero(fast):
    model, metric, heads = micro(), feature(L1H0), [Head(0, 0)]
    later = torch.tensor([[False, True, True, True]] * 3)
    options = {"heads": heads, "counted": later, "per_position": True, "fast": fast}
    with pytest.raises(InputError, match=r"every column that is ablated.*none in columns \[0\]"):
        ablate_heads(model, TOKENS, metric, **options)
    found = ablate_heads(model, TOKENS, metric, positions=[1, 2, 3], **options)
    own = np.array(wrote(TOKENS))
    expected = by_hand([[row[0], *own.mean(0)[1:]] for row in own.tolist()])
    np.testing.assert_allclose(found.per_example[0, 0], expected, atol=1e-5)
    padded = torch.cat([torch.zeros(3, 1, dtype=torch.long), TOKENS], 1)
    mask = torch.tensor([[0, 1, 1, 1, 1]] * 3)
    masks = {"attention_mask": mask, "reference_mask": mask, "reference": padded}
    every = {"heads": heads, "per_position": True, "fast": fast}
    same = ablate_heads(model, padded, metric, **masks, **every)  # padding has no mean, needs none
    plain = ablate_heads(model, TOKENS, metric, **every)
    np.testing.assert_allclose(same.values, plain.values, atol=1e-5)


def test_batches_of_the_reference_make_no_difference():
    model, tokens = tiny("llama"), random_tokens(7, 6)
    whole = mean_activations(model, tokens, [0, 1])
    parts = mean_activations(model, tokens, [0, 1], batch_size=3)
    for layer in (0, 1):
        torch.testing.assert_close(parts[layer], whole[layer], atol=1e-6, rtol=1e-5)
    direct = []
    name = hook_name(1, "z")
    with torch.no_grad():
        model.run_with_hooks(tokens, fwd_hooks=[(name, lambda z, hook: direct.append(z.clone()))])
    torch.testing.assert_close(whole[1][0, 0], direct[0].mean((0, 1)), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("name", ["gpt_neox_sequential", "qwen3"])
def test_equal_to_plain_hooks(name, model_class):
    model, tokens, metric = tiny(name, model_class), random_tokens(3, 6), feature(9)
    sets = [[Head(0, 1), Head(1, 2)], [Head(1, 0), Head(1, 3)]]
    _, cache = model.run_with_cache(tokens, names_filter=lambda name: name.endswith("hook_z"))

    def hooks(chosen, mode):
        def function(layer):
            def swap(z, hook):
                new = cache[hook_name(layer, "z")].mean((0, 1)) if mode == "mean" else z * 0
                for head in chosen:
                    if head.layer == layer:
                        z[:, 2:, head.index] = new.expand(z.shape)[:, 2:, head.index]
                return z

            return swap

        return [(hook_name(layer, "z"), function(layer)) for layer in (0, 1)]

    for mode in ("mean", "zero"):
        found = ablate_heads(model, tokens, metric, heads=sets, mode=mode, positions=[2, 3, 4, 5])
        with torch.no_grad():
            base = metric(model(tokens))
            for row, chosen in enumerate(sets):
                ablated = metric(model.run_with_hooks(tokens, fwd_hooks=hooks(chosen, mode)))
                np.testing.assert_allclose(found.values[row], ablated - base, atol=2e-5)
        assert np.abs(found.values).min() > 1e-4


@pytest.mark.parametrize("model_class", CLASSES)
def test_mlps_of_layers(model_class):
    model = micro(model_class, parallel=False)
    found = ablate_heads(model, TOKENS, feature(L1H0), site="mlp_out", mode="zero")
    assert found.effect.shape == (2,)
    expected = [
        micro_features(row, parallel=False, written={"MLP": [0.0] * 4})[-1][L1H0]
        - micro_features(row, parallel=False)[-1][L1H0]
        for row in TOKENS.tolist()
    ]
    np.testing.assert_allclose(found.per_example[0], expected, atol=1e-5)
    np.testing.assert_allclose(found.per_example[1], 0, atol=1e-6)


def test_donors_are_seeded_and_never_the_row_itself():
    tokens = random_tokens(6, 5)
    tokens[3] = tokens[1]  # a copy is the row itself
    mask = torch.ones(6, 5, dtype=torch.bool)
    options = {"mask": mask, "reference_mask": mask, "n_donors": 4}
    chosen = choose_donors(tokens, tokens, seed=0, **options)
    assert torch.equal(chosen, choose_donors(tokens, tokens, seed=0, **options))
    assert not torch.equal(chosen, choose_donors(tokens, tokens, seed=1, **options))
    for row in range(6):
        assert not any(torch.equal(tokens[donor], tokens[row]) for donor in chosen[:, row])
        assert len(chosen[:, row].unique()) == 4
    state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    choose_donors(tokens, tokens, seed=2, **options)
    assert torch.equal(torch.random.get_rng_state(), state[0])
    assert np.array_equal(np.random.get_state()[1], state[1])  # noqa: NPY002


def test_donors_have_tokens_where_the_row_has():
    tokens = random_tokens(3, 5)
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[2, :3] = False  # a short row can borrow, not lend
    chosen = choose_donors(tokens, tokens, mask=mask, reference_mask=mask, n_donors=5, seed=0)
    assert set(chosen[:, 0].tolist()) == {1}
    assert set(chosen[:, 2].tolist()) == {0, 1}
    with pytest.raises(InputError, match=r"another prompt for every example.*none for row 0"):
        choose_donors(
            tokens[[0, 0]],
            tokens[[0, 0]],
            mask=mask[:2],
            reference_mask=mask[:2],
            n_donors=1,
            seed=0,
        )


def test_the_rows_of_an_example_borrow_from_one_donor():
    """Rows 2i and 2i + 1 hold the two answers of example i; a difference must share its donor."""

    class Difference:
        name, unit, rows_per_example = "difference", "", 2

        def read(self, tokens):
            from headspec.lens.logits import LogitRead

            return LogitRead()

        def __call__(self, logits):
            last = logits[:, -1, L0H1]
            return last[::2] - last[1::2]

    model = micro()
    prompts = torch.tensor([[1, 4, 6], [7, 1, 0], [3, 3, 2], [5, 0, 4]])
    tokens = prompts.repeat_interleave(2, 0)
    tokens = torch.cat([tokens, torch.tensor([[3], [6]]).repeat(4, 1)], 1)
    found = ablate_heads(model, tokens, Difference(), heads=[Head(0, 1)], mode="resample")
    own = np.array(wrote(tokens, L0H1))[:, -1]
    differences = own[::2] - own[1::2]
    expected = [np.delete(differences, i).mean() - differences[i] for i in range(4)]
    three = ablate_heads(
        model, tokens, Difference(), heads=[Head(0, 1)], mode="resample", n_donors=3
    )
    np.testing.assert_allclose(three.per_example[0, 1], expected, atol=1e-5)
    assert found.n == 4


@pytest.fixture(scope="module")
def two_rows():
    """Six prompts, each followed by its correct and by its wrong answer of several tokens."""
    model = open_suite("micro").model(6144)
    task = build_task("arithmetic", n=12, wording="micro").tokenise(model.tokenizer)
    assert task.rows_per_example == 2
    return model, task


def test_two_rows_of_a_prompt_are_one_example_to_what_reads_its_end(two_rows):
    """KL at the end of the prompt is the same number in both rows: n counts prompts."""
    model, task = two_rows
    options = {"heads": [Head(1, 4)], "attention_mask": task.attention_mask}
    metric = kl_from(model, task.clean, positions=task.end, attention_mask=task.attention_mask)
    for mode in ("mean", "zero", "resample"):
        found = ablate_heads(model, task.clean, metric, mode=mode, **options)
        if mode != "resample":  # donors of the two rows may differ
            np.testing.assert_allclose(found.values[0, ::2], found.values[0, 1::2], atol=1e-5)
        assert len(found.base) == 2 * task.n_examples
        assert found.n == task.n_examples
    once = slice(None, None, 2)
    found = ablate_heads(model, task.clean, metric, mode="zero", **options)
    mask = None if task.attention_mask is None else task.attention_mask[once]
    single = ablate_heads(
        model,
        task.clean[once],
        kl_from(model, task.clean[once], positions=task.end, attention_mask=mask),
        **{**options, "mode": "zero", "attention_mask": mask},
    )
    assert single.n == found.n
    width, right = ((one.ci_high - one.ci_low)[1, 4] for one in (found, single))
    assert width == pytest.approx(right, rel=0.1)  # 0.71 of it where every row counts
    own = ablate_heads(model, task.clean, task.metric(), mode="zero", **options)
    assert own.n == task.n_examples
    loss = loss_metric(task.clean, task.attention_mask)
    assert ablate_heads(model, task.clean, loss, **options).n > task.n_examples  # reads on


def test_the_other_row_of_a_prompt_is_no_donor(two_rows):
    model, task = two_rows
    metric = kl_from(model, task.clean, positions=task.end, attention_mask=task.attention_mask)
    present = torch.ones(task.clean.shape) if task.attention_mask is None else task.attention_mask
    run = (task.clean, present)
    donors = _donor_rows(run, run, 1, 500, 0, last=last_read(metric, task.clean))
    prompts = tokens_up_to(run, torch.full((len(task.clean),), task.end))
    for row in range(len(prompts)):
        assert not (prompts[donors[:, row]] == prompts[row]).all(1).any()
    naive = _donor_rows(run, run, 1, 500, 0, last=None)
    same = [(prompts[naive[:, row]] == prompts[row]).all(1).any() for row in range(len(prompts))]
    assert any(same)


def test_padding_and_what_is_not_read_tell_no_rows_apart():
    metric = kl_from(micro(), torch.tensor([[0, 2, 3, 4]]).repeat(4, 1), positions=2)
    tokens = torch.tensor([[7, 2, 3, 4], [5, 2, 3, 6], [5, 2, 3, 4], [5, 2, 2, 4]])
    mask = torch.tensor([[0, 1, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]])
    groups = row_groups(micro(), metric, (tokens, mask)).tolist()
    assert groups[0] == groups[1]
    assert len(set(groups)) == 3
    assert len(row_groups(micro(), as_metric(feature(0)), (tokens, mask)).unique()) == 4


def digest(model):
    found = hashlib.sha256()
    for _, value in sorted(model.state_dict().items()):
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("mode", ["mean", "zero", "resample"])
@pytest.mark.parametrize("model_class", CLASSES)
def test_nothing_stays_on_the_model(mode, model_class):
    model = tiny("gpt_neox", model_class)
    before = digest(model)

    def metric(logits):
        raise KeyboardInterrupt("stop")

    for fast in (True, False):
        with pytest.raises(KeyboardInterrupt):
            ablate_heads(model, random_tokens(3, 5), metric, mode=mode, fast=fast)
        ablate_heads(model, random_tokens(3, 5), feature(2), mode=mode, fast=fast)
    assert not has_caller_hooks(model)
    assert digest(model) == before


def test_no_heads_no_effect_and_no_signal_no_effect():
    """The empty set is the base run; the mean over one repeated token is the token's own z."""
    model = micro()
    assert ablate_heads(model, TOKENS, feature(L1H0), heads=[[]], mode="zero").effect == 0
    same = torch.full((2, 5), 4)
    found = ablate_heads(model, same, feature(L1H0))
    assert np.abs(found.values).max() < 1e-5
    assert np.abs(ablate_heads(model, same, feature(L1H0), mode="zero").values).max() > 1
