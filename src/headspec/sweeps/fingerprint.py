"""What identifies a measure: its code, its settings and what it captured, as one hash.

Of a function this is the compiled code (not its comments, layout or line numbers), defaults,
closure, and the plain values, functions and classes that it names, as far as they are your own
code (neither installed packages nor Python's library); of a dataclass or another callable object
its class and its fields. So a changed measure is noticed, in a notebook too. What is **not**
noticed: changes in installed packages other than headspec; data that a measure reads from files;
globals other than plain values, arrays, functions, classes and dataclasses; functions that are
reached only as attributes, such as `my_module.helper`. Another version of Python compiles other
code: everything is then computed again.
"""

from __future__ import annotations

import dataclasses
import dis
import functools
import hashlib
import importlib.metadata
import inspect
import pickle
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from headspec.errors import InputError
from headspec.results.arrays import is_tensor

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), range)


def fingerprint_measure(measure: Any) -> str:
    """A hash that changes when the measure changes (64 hex digits).

    Args:
        measure: a function, lambda, `functools.partial`, bound method or callable object.

    Raises:
        InputError: when it captured an object whose content cannot be hashed.
    """
    return _Hasher().hash(measure)


@functools.cache
def headspec_identity() -> str:
    """headspec's version and a hash of its own code (what only draws and reports left out)."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if not name.startswith(("plots", "report")):
            digest.update(f"{name}\n".encode() + path.read_bytes())
    return f"{importlib.metadata.version('headspec')}+{digest.hexdigest()[:16]}"


def measure_name(measure: Any) -> str:
    """A short name for people: of the function, or of the class of a callable object."""
    while isinstance(measure, functools.partial):
        measure = measure.func
    named = measure if hasattr(measure, "__qualname__") else type(measure)
    return named.__qualname__.rpartition("<locals>.")[2]


@functools.cache
def _is_own_code(module: str) -> bool:
    """Whether a module is the reader's: not headspec (hashed as a whole), installed or Python's."""
    package = module.partition(".")[0]
    if package in ("headspec", *sys.stdlib_module_names):
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    installed = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    return file is None or not installed.intersection(Path(file).absolute().parents)


class _Hasher:
    """Hashes values by content. Code is followed once, so that cycles end and cost is linear."""

    def __init__(self) -> None:
        self.inside: list[Any] = []
        self.followed: list[Any] = []

    def hash(self, value: Any) -> str:
        is_code = isinstance(value, types.FunctionType | type)
        known = self.followed if is_code else self.inside
        for place, other in enumerate(known):
            if other is value and type(value) not in _PLAIN:
                return f"seen at {place}"
        known.append(value)
        digest = hashlib.sha256()
        for part in self.parts(value):
            part = part if isinstance(part, bytes) else part.encode()
            digest.update(b"%d:" % len(part) + part)
        if not is_code:
            known.pop()
        return digest.hexdigest()

    def all(self, values: Sequence[Any]) -> Iterator[str]:
        yield f"{len(values)}"
        yield from map(self.hash, values)

    def parts(self, value: Any) -> Iterator[str | bytes]:
        """What makes up a value, as texts and bytes."""
        kind = type(value)
        yield f"{kind.__module__}.{kind.__qualname__}"
        if isinstance(value, Enum | PurePath) or kind in _PLAIN:
            yield repr(value)
        elif kind in (tuple, list):
            yield from self.all(value)
        elif kind in (set, frozenset):
            yield from sorted(map(self.hash, value))
        elif kind is dict or isinstance(value, types.MappingProxyType):
            yield from sorted(self.hash(k) + self.hash(v) for k, v in value.items())
        elif is_tensor(value):
            flat = value.detach().cpu().contiguous().reshape(-1)
            yield from (str(value.dtype), str(tuple(value.shape)))
            yield flat.view(sys.modules["torch"].uint8).numpy().tobytes()
        elif isinstance(value, np.ndarray | np.generic) and value.dtype.kind != "O":
            yield from (str(value.dtype), str(value.shape), np.ascontiguousarray(value).tobytes())
        elif isinstance(value, functools.partial):
            yield from (self.hash(value.func), self.hash(value.args), self.hash(value.keywords))
        elif isinstance(value, types.MethodType):
            yield from (self.hash(value.__self__), self.hash(value.__func__))
        elif isinstance(value, types.FunctionType):
            yield from self.function(value)
        elif isinstance(value, types.CodeType):
            yield from self.code(value)
        elif isinstance(value, types.ModuleType):
            yield value.__name__
        elif isinstance(value, type):
            yield from self.class_(value)
        elif isinstance(value, types.BuiltinFunctionType | np.ufunc):
            yield f"{getattr(value, '__module__', '')}.{value.__name__}"
        elif dataclasses.is_dataclass(value):
            yield self.hash(kind)
            for field in dataclasses.fields(value):
                yield from (field.name, self.hash(getattr(value, field.name)))
        else:
            yield from self.other(value)

    def function(self, value: types.FunctionType) -> Iterator[str]:
        yield f"{value.__module__}.{value.__qualname__}"
        if not _is_own_code(value.__module__ or ""):
            return
        yield self.hash(value.__code__)
        yield self.hash(value.__defaults__)
        yield self.hash(value.__kwdefaults__)
        yield from map(self.cell, value.__closure__ or ())
        for name in sorted(_names(value.__code__)):
            if name in value.__globals__:
                yield from (name, self.global_(value.__globals__[name]))

    def cell(self, cell: types.CellType) -> str:
        try:
            content = cell.cell_contents
        except ValueError:
            return "not yet bound"
        return self.hash(content)

    def global_(self, value: Any) -> str:
        """A global that the code names: by content where that is plain, else by its kind."""
        plain = (*_PLAIN, tuple, list, set, frozenset, dict, types.FunctionType, type)
        plain += (types.ModuleType, np.ndarray, functools.partial)
        if isinstance(value, plain) or is_tensor(value) or dataclasses.is_dataclass(value):
            try:
                return self.hash(value)
            except InputError:
                pass
        return f"{type(value).__module__}.{type(value).__qualname__}"

    def code(self, value: types.CodeType) -> Iterator[str | bytes]:
        doc = value.co_consts[0] if value.co_consts else None
        yield value.co_code
        yield from (self.hash(value.co_names), self.hash(value.co_varnames))
        yield from (self.hash(value.co_freevars), str(value.co_flags), str(value.co_argcount))
        for i, constant in enumerate(value.co_consts):
            is_doc = i == 0 and isinstance(doc, str) and not _loads_constant(value, 0)
            yield "documentation" if is_doc else self.hash(constant)

    def class_(self, value: type) -> Iterator[str]:
        yield f"{value.__module__}.{value.__qualname__}"
        if not _is_own_code(value.__module__ or ""):
            return
        yield from map(self.hash, value.__bases__)
        for name, item in sorted(vars(value).items()):
            item = inspect.unwrap(getattr(item, "__func__", getattr(item, "fget", item)))
            if isinstance(item, types.FunctionType):
                written = item.__code__.co_filename != "<string>"  # not made by dataclass
            else:
                written = isinstance(item, _PLAIN) and not name.startswith("__")
            if written:
                yield from (name, self.hash(item))

    def other(self, value: Any) -> Iterator[str | bytes]:
        yield self.hash(type(value))
        state = getattr(value, "__dict__", None)
        if callable(value) and isinstance(state, Mapping) and state:
            yield self.hash(dict(state))
            return
        try:
            yield pickle.dumps(value, protocol=4)
        except Exception as error:
            raise InputError(
                expected="a measure that captures numbers, text, containers, arrays, tensors, "
                "dataclasses or other objects that can be pickled",
                got=f"a {type(value).__module__}.{type(value).__qualname__} ({error})",
                fix="Make that object inside the measure, or sweep without `out`.",
            ) from error


def _names(code: types.CodeType) -> set[str]:
    """Global names that code, or a function defined in it, may use."""
    inner = (item for item in code.co_consts if isinstance(item, types.CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _loads_constant(code: types.CodeType, index: int) -> bool:
    """Whether the code itself uses a constant (documentation is kept but never used)."""
    return any(op.opcode in dis.hasconst and op.arg == index for op in dis.get_instructions(code))
