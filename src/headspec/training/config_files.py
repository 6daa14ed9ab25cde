"""Frozen dataclasses as TOML or JSON and back, with errors that name the field."""

from __future__ import annotations

import json
import os
import tomllib
import types
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tomli_w

from headspec.errors import InputError
from headspec.training.atomic_files import write_text

C = TypeVar("C")


class FileConfig:
    """A frozen dataclass that is kept in a TOML or JSON file."""

    def to_dict(self) -> dict[str, Any]:
        """Plain tables, lists, numbers and text; fields of None are left out."""
        return to_dict(self)

    @classmethod
    def from_dict(cls: type[C], data: dict[str, Any]) -> C:
        """The config that `to_dict` gave.

        Raises:
            InputError: an unknown key, a wrong type or an impossible value, naming the field.
        """
        return from_dict(cls, data)

    def to_file(self, path: str | os.PathLike[str]) -> None:
        """Write the config as TOML (`.toml`) or JSON (`.json`)."""
        write_config(self, Path(path))

    @classmethod
    def from_file(cls: type[C], path: str | os.PathLike[str]) -> C:
        """Read a config from a `.toml` or `.json` file.

        Raises:
            InputError: no such file, or as `from_dict`.
        """
        return read_config(cls, Path(path))


def check_field(config: Any, name: str, expected: str, holds: Callable[[Any], bool]) -> None:
    """Raise unless something holds of a field's value.

    Raises:
        InputError: naming the field and what was expected of it.
    """
    value = getattr(config, name)
    if not holds(value):
        raise InputError(
            expected=f"{type(config).__name__}.{name} to be {expected}",
            got=repr(value),
            fix="Correct this field.",
        )


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as dictionaries, lists, text, numbers and booleans; fields of None left out."""
    return {
        field.name: _plain(getattr(config, field.name))
        for field in fields(config)
        if getattr(config, field.name) is not None
    }


def from_dict(kind: type[C], data: Any, *, where: str = "") -> C:
    """The dataclass that `to_dict` wrote.

    Args:
        kind: a dataclass whose fields are numbers, text, booleans, `Literal`s, tuples of these,
            dataclasses, or unions of them.
        data: a dictionary; fields that are absent take their default.
        where: how messages name the place, such as `"optimizer."`.

    Raises:
        InputError: for a key that is no field, a field without a value, or a value of a wrong type.
    """
    names = [field.name for field in fields(kind)]  # pyright: ignore[reportArgumentType]
    if not isinstance(data, dict):
        raise InputError(
            expected=f"{where.rstrip('.') or kind.__name__} as a table of {', '.join(names)}",
            got=repr(data),
            fix="Write its fields as keys.",
        )
    unknown = [f"{where}{key}" for key in data if key not in names]
    if unknown:
        raise InputError(
            expected=f"fields of {kind.__name__}: {', '.join(names)}",
            got=f"the unknown {', '.join(unknown)}",
            fix="Correct the spelling, or remove it.",
        )
    needed = (f for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING)  # pyright: ignore[reportArgumentType]
    missing = [f"{where}{field.name}" for field in needed if field.name not in data]
    if missing:
        raise InputError(
            expected=f"a value for {', '.join(missing)}",
            got=f"only {', '.join(data) or 'an empty table'}",
            fix="These fields have no default.",
        )
    hints = _hints(kind)
    return kind(**{key: _typed(value, hints[key], f"{where}{key}") for key, value in data.items()})


def check_types(config: Any) -> None:
    """Raise unless every field of a dataclass has a value of its annotated type.

    Raises:
        InputError: naming the field.
    """
    for name, hint in _hints(type(config)).items():
        _typed(getattr(config, name), hint, f"{type(config).__name__}.{name}", strict=True)


def write_config(config: Any, path: Path) -> None:
    """Write a dataclass to a `.toml` or `.json` file, whole or not at all."""
    data = to_dict(config)
    text = tomli_w.dumps(data) if _is_toml(path) else json.dumps(data, indent=2) + "\n"
    write_text(path, text)


def read_config(kind: type[C], path: Path) -> C:
    """Read a dataclass from a `.toml` or `.json` file.

    Raises:
        InputError: no such file, no TOML or JSON, or not the fields of `kind`.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text) if _is_toml(path) else json.loads(text)
    except (OSError, ValueError) as error:
        raise InputError(
            expected=f"a {kind.__name__} in {path}",
            got=f"{type(error).__name__}: {error}",
            fix="Write one with its to_file(path).",
        ) from error
    return from_dict(kind, data)


def differing_fields(one: Any, other: Any, *, where: str = "") -> dict[str, tuple[Any, Any]]:
    """Fields in which two dataclasses differ, by dotted name: (value in one, value in other)."""
    found: dict[str, tuple[Any, Any]] = {}
    for field in fields(one):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if is_dataclass(mine) and type(mine) is type(theirs):
            found |= differing_fields(mine, theirs, where=f"{where}{field.name}.")
        elif mine != theirs:
            found[f"{where}{field.name}"] = (mine, theirs)
    return found


def _is_toml(path: Path) -> bool:
    if path.suffix not in (".toml", ".json"):
        raise InputError(
            expected="a file name that ends in .toml or .json", got=str(path), fix="Rename it."
        )
    return path.suffix == ".toml"


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _typed(value: Any, hint: Any, where: str, *, strict: bool = False) -> Any:
    """`value` as the annotation wants it; from files lists become tuples, tables dataclasses."""
    fitted = _fit(value, hint, where, strict=strict)
    if fitted is _MISFIT:
        raise InputError(
            expected=f"{where} as {_describe(hint)}", got=repr(value), fix="Correct the value."
        )
    return fitted


_MISFIT = object()


def _fit(value: Any, hint: Any, where: str, *, strict: bool) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if type(value) in arguments:
            return value
        options = (_fit(value, option, where, strict=strict) for option in arguments)
        return next((fitted for fitted in options if fitted is not _MISFIT), _MISFIT)
    if origin is Literal:
        return value if any(value == a and type(value) is type(a) for a in arguments) else _MISFIT
    if origin is tuple:
        if not isinstance(value, tuple if strict else (list, tuple)):
            return _MISFIT
        inner = [arguments[0]] * len(value) if arguments[1:] == (...,) else list(arguments)
        if len(inner) != len(value):
            return _MISFIT
        items = [_fit(v, h, where, strict=strict) for v, h in zip(value, inner, strict=True)]
        return _MISFIT if any(item is _MISFIT for item in items) else tuple(items)
    if is_dataclass(hint):
        if strict:
            return value if isinstance(value, hint) else _MISFIT  # pyright: ignore[reportArgumentType]
        return from_dict(hint, value, where=f"{where}.")  # pyright: ignore[reportArgumentType]
    if hint in (None, type(None)):
        return None if value is None else _MISFIT
    if hint is float and type(value) is int and not strict:
        return float(value)
    return value if type(value) is hint else _MISFIT  # a bool is no int here


def _describe(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(option) for option in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin is tuple:
        return f"a list of {_describe(arguments[0])}"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return names.get(hint) or ("none" if hint in (None, type(None)) else hint.__name__)
