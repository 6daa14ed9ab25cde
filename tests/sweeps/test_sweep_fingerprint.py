"""What changes the identity of a measure, and what does not."""

import functools
import subprocess
import sys
import textwrap
import threading
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from headspec.errors import InputError
from headspec.heads import Head
from headspec.sweeps.fingerprint import fingerprint_measure, headspec_identity, measure_name


def compiled(source, name="measure", **known):
    """The function `name` that `source` defines, as if written in this file."""
    space = {"__name__": __name__, **known}
    exec(textwrap.dedent(source), space)
    return space[name]


BASE = """
SCALE = 2
def helper(x):
    return x + 1
def measure(checkpoint, power=2):
    '''Documentation.'''
    return {"value": helper(checkpoint.step) * SCALE ** power}
"""


@pytest.mark.parametrize(
    "change",
    [
        ("** power", "** (power + 0)"),
        ("power=2", "power=3"),
        ("SCALE = 2", "SCALE = 3"),
        ("x + 1", "x + 2"),
        ('"value"', '"other"'),
        ("SCALE **", "SCALE *"),
        ("checkpoint.step", "checkpoint.n_heads"),
    ],
)
def test_a_changed_function_is_another(change):
    old, new = change
    assert BASE.replace(old, new) != BASE
    assert fingerprint_measure(compiled(BASE.replace(old, new))) != fingerprint_measure(
        compiled(BASE)
    )


@pytest.mark.parametrize(
    "change",
    [
        ("\n    return x", "\n\n    # a comment\n    return x"),
        ("Documentation.", "Better documentation."),
        ("SCALE = 2", "UNUSED = 5\nSCALE = 2"),
    ],
)
def test_comments_documentation_and_unused_names_do_not_matter(change):
    assert BASE.replace(*change) != BASE
    assert fingerprint_measure(compiled(BASE.replace(*change))) == fingerprint_measure(
        compiled(BASE)
    )


def closure(captured):
    return lambda checkpoint: captured


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (1, True),
        (0.0, -0.0),
        ("a", b"a"),
        ([1, 2], (1, 2)),
        ({"a": 1}, {"a": 2}),
        ({1, 2}, {1, 3}),
        (np.arange(3), np.arange(3.0)),
        (np.arange(4), np.arange(4).reshape(2, 2)),
        (torch.ones(2), torch.ones(2, dtype=torch.bfloat16)),
        (torch.ones(2), torch.tensor([1.0, 2.0])),
        (Head(0, 1), Head(0, 2)),
        (np.sum, np.mean),
        (len, sum),
        (closure(1), closure(2)),
    ],
)
def test_captured_values_matter(one, other):
    assert fingerprint_measure(closure(one)) != fingerprint_measure(closure(other))
    assert fingerprint_measure(closure(one)) == fingerprint_measure(closure(one))
    partial = functools.partial(helper, one)
    assert fingerprint_measure(partial) != fingerprint_measure(functools.partial(helper, other))
    assert fingerprint_measure(partial) == fingerprint_measure(functools.partial(helper, one))


def helper(captured, checkpoint):
    return {"a": captured}


def test_lambdas_on_one_line_differ():
    one, two = (lambda c: {"a": 1}), (lambda c: {"a": 2})
    assert fingerprint_measure(one) != fingerprint_measure(two)


def test_a_function_used_by_many_is_followed_once():
    source = "def f0(n): return n\n" + "".join(
        f"def f{i}(n): return f{i - 1}(n) + f{i - 1}(n + 1) * (f{i - 2 if i > 1 else 0}(n))\n"
        for i in range(1, 60)
    )
    one = fingerprint_measure(compiled(source, "f59"))
    assert one != fingerprint_measure(compiled(source.replace("return n\n", "return -n\n"), "f59"))


def test_a_function_inside_a_partial_of_an_installed_one_is_followed():
    one = functools.partial(np.vectorize, compiled("def measure(c): return 1"))
    two = functools.partial(np.vectorize, compiled("def measure(c): return 2"))
    assert fingerprint_measure(one) != fingerprint_measure(two)


@dataclass(frozen=True)
class Measure:
    feature: str = "qk"

    def __call__(self, checkpoint):
        return {self.feature: self.rate()}

    def rate(self):
        return 1


@dataclass(frozen=True)
class Renamed(Measure):
    pass


def test_dataclass_fields_class_and_methods_matter(monkeypatch):
    base = fingerprint_measure(Measure())
    assert base == fingerprint_measure(Measure("qk"))
    assert base != fingerprint_measure(Measure("ov"))
    assert base != fingerprint_measure(Renamed())
    monkeypatch.setattr(Measure, "rate", lambda self: 2)
    assert base != fingerprint_measure(Measure())


class Stateful:
    def __init__(self, k):
        self.k = k

    def __call__(self, checkpoint):
        return {"k": self.k}

    def method(self, checkpoint):
        return {"k": self.k}


def test_callable_objects_and_methods_go_by_their_state():
    assert fingerprint_measure(Stateful(1)) == fingerprint_measure(Stateful(1))
    assert fingerprint_measure(Stateful(1)) != fingerprint_measure(Stateful(2))
    assert fingerprint_measure(Stateful(1).method) != fingerprint_measure(Stateful(2).method)


def test_functions_that_call_each_other_have_an_end():
    source = """
    def odd(n): return n and even(n - 1)
    def even(n): return not n or odd(n - {step})
    def measure(checkpoint): return {{"odd": odd(checkpoint.step)}}
    """
    one = fingerprint_measure(compiled(source.format(step=1)))
    assert one == fingerprint_measure(compiled(source.format(step=1)))
    assert one != fingerprint_measure(compiled(source.format(step=3)))


def test_the_same_in_another_process_whatever_the_hash_seed(tmp_path):
    (tmp_path / "mine.py").write_text(
        "WORDS = {'a', 'b', 'c', 'd'}\n"
        "def measure(c):\n    return {w: 1 for w in WORDS if w in {'x', 'y', 'z', 'b'}}\n"
        "from headspec.sweeps.fingerprint import fingerprint_measure\n"
        "print(fingerprint_measure(measure))\n"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", "import mine"],
            cwd=tmp_path,
            env={"PYTHONHASHSEED": str(seed), "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2, 3)
    }
    assert len(seen) == 1
    assert len(seen.pop().strip()) == 64


def test_what_cannot_be_hashed_is_refused_with_a_way_out():
    with pytest.raises(InputError, match=r"got a _thread\.lock .*inside the measure"):
        fingerprint_measure(closure(threading.Lock()))


def test_unhashable_globals_go_by_their_kind():
    source = "def measure(checkpoint): return {'held': lock.locked()}"
    one = compiled(source, lock=threading.Lock())
    assert fingerprint_measure(one) == fingerprint_measure(compiled(source, lock=threading.Lock()))


def test_names_for_people():
    assert measure_name(functools.partial(helper, 1)) == "helper"
    assert measure_name(Measure()) == "Measure"
    assert measure_name(closure(1)) == "<lambda>"
    assert headspec_identity().count("+") >= 1
