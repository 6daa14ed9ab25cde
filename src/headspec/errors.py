"""The error types of headspec. Every message says what was expected, what was got, what to do."""

from __future__ import annotations


class HeadspecError(Exception):
    """Base of every error headspec raises on purpose.

    Args:
        expected: what would have been right.
        got: what was found instead.
        fix: what the reader can do about it.
    """

    def __init__(self, *, expected: str, got: str, fix: str) -> None:
        self.expected, self.got, self.fix = expected, got, fix
        super().__init__(f"expected {expected}; got {got.rstrip('.')}. {fix}")

    def __reduce__(self):  # keyword-only arguments survive process pools
        return (_rebuild, (type(self), self.expected, self.got, self.fix))


def _rebuild(kind: type[HeadspecError], expected: str, got: str, fix: str) -> HeadspecError:
    return kind(expected=expected, got=got, fix=fix)


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise unless an argument is one of its choices (`typing.get_args` of its `Literal`).

    Args:
        name: of the argument.
        value: what was passed.
        choices: what may be passed.

    Raises:
        InputError: for anything else.
    """
    if value not in choices:
        named = ", ".join(map(repr, choices))
        raise InputError(expected=f"{name} out of {named}", got=repr(value), fix="Choose one.")


class InputError(HeadspecError, ValueError):
    """An argument that cannot be used as it is."""


class StepNotFoundError(HeadspecError, LookupError):
    """A training step that the suite does not hold."""


class CheckpointError(HeadspecError):
    """Checkpoint files that are missing, truncated or not what they claim to be."""


class UnsupportedArchitectureError(HeadspecError):
    """An architecture whose tensor layout headspec does not know."""


class HubUnreachableError(CheckpointError, ConnectionError):
    """The Hub (or its cache) could not give what was asked for."""
