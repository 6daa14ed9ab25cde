"""Groups stay whole, every class is everywhere, and control labels are what they should be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headspec.activations.probe_controls import control_labels
from headspec.activations.probe_splits import split_by_group
from headspec.errors import InputError


@settings(max_examples=50, deadline=None)
@given(n_groups=st.integers(15, 60), size=st.integers(2, 9), seed=st.integers(0, 99))
def test_every_sample_once_and_no_group_twice(n_groups, size, seed):
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(rng.permutation(10 * n_groups)[:n_groups], size))
    codes = np.empty(len(groups), dtype=int)
    for group in np.unique(groups):  # both classes in every group
        codes[groups == group] = np.arange(size) % 2
    split = split_by_group(codes, groups, seed=seed)
    parts = [split.train, split.validation, split.test]
    assert sorted(np.concatenate(parts)) == list(range(len(groups)))
    sets = [set(groups[part]) for part in parts]
    assert sum(map(len, sets)) == len(set.union(*sets))
    assert tuple(map(len, sets)) == split.n_groups
    assert abs(len(sets[2]) - 0.2 * n_groups) <= 0.5
    # groups of test samples are numbered 0 to n - 1, alike for the same group
    pairs = set(zip(groups[split.test], split.test_groups, strict=True))
    assert len(pairs) == split.n_groups[2] == split.test_groups.max() + 1


def test_a_rare_class_is_brought_into_every_part_and_the_seed_decides():
    groups = np.arange(60)
    codes = np.zeros(60, dtype=int)
    codes[[3, 17, 40, 41, 55]] = 1
    first = split_by_group(codes, groups, seed=4)
    for part in (first.train, first.validation, first.test):
        assert set(codes[part]) == {0, 1}
    again, other = (split_by_group(codes, groups, seed=seed) for seed in (4, 5))
    assert np.array_equal(first.test, again.test)
    assert not np.array_equal(first.test, other.test)


def test_what_cannot_be_split_says_what_to_do():
    codes = np.arange(40) % 2
    with pytest.raises(InputError, match=r"5 groups, divided into 3, 1 and 1.*Give more groups"):
        split_by_group(codes, np.arange(40) // 8)
    codes = np.zeros(40, dtype=int)
    codes[:2] = 1
    with pytest.raises(InputError, match=r"in 2 of 40 groups.*label -1"):
        split_by_group(codes, np.arange(40))
    with pytest.raises(InputError, match="sum to 1"):
        split_by_group(codes, np.arange(40), fractions=(0.6, 0.3, 0.3))


def test_a_token_type_has_one_control_class_drawn_from_the_frequencies():
    rng = np.random.default_rng(0)
    types = rng.integers(0, 4000, 20_000)
    codes = (rng.random(20_000) < 0.2).astype(int)
    control = control_labels(codes, groups=np.arange(20_000), token_types=types, seed=1)
    for token in np.unique(types)[:50]:
        assert len(set(control[types == token])) == 1
    assert control.mean() == pytest.approx(codes.mean(), abs=0.03)
    assert abs(np.corrcoef(control, codes)[0, 1]) < 0.03


def test_a_group_gets_the_labels_of_another_group_in_their_order():
    lengths = [3, 5, 4]
    groups = np.repeat([7, 2, 9], lengths)
    codes = np.concatenate([[0, 0, 0], [1, 1, 1, 2, 2], [3, 4, 3, 4]])
    own = {7: [0], 2: [1, 2], 9: [3, 4]}
    for seed in range(5):
        control = control_labels(codes, groups=groups, seed=seed)
        for group in (7, 2, 9):
            assert not set(control[groups == group]) & set(own[group])
    givers = {tuple(control_labels(codes, groups=groups, seed=seed)[:3]) for seed in range(9)}
    assert givers == {(1, 1, 1), (3, 4, 3)}
