"""What an evaluation file is of, by its name, its folders and its own configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

_STEP = re.compile(r"(?:^|[_\-.])(?:global_?)?(?:step|checkpoint|iter)[_\-]?(\d{1,15})(?![\d.]*\w)")
_COUNTS = {"zero": 0, "one": 1, "two": 2, "three": 3, "five": 5, "ten": 10}
_SHOTS = re.compile(r"(?:^|[_\-])(\d+|" + "|".join(_COUNTS) + r")[_\-]?shot(?:$|[_\-.])")
_LABEL = re.compile(r"(.+?)(?:[_\-]\d+[_\-]?shot)?[_\-]step\d+")
_RELEASE = re.compile(r"pythia-(?:v\d+(?:\.\d+)?-)?")


@dataclass(frozen=True)
class EvalIdentity:
    """What a file is of.

    Attributes:
        model: such as `"pythia-70m"`; "" if nothing says.
        step: training step, None if nothing says.
        shots: examples in the prompt, None if nothing says.
        contradictions: where name, folders and configuration disagree, in words.
    """

    model: str
    step: int | None
    shots: int | None
    contradictions: tuple[str, ...] = ()


def model_arguments(config: Mapping[str, Any]) -> dict[str, str]:
    """`config.model_args`, which lm-eval has written as text, as JSON and as a dictionary.

    Example:
        >>> model_arguments({"model_args": "pretrained=EleutherAI/pythia-70m,revision=step8"})
        {'pretrained': 'EleutherAI/pythia-70m', 'revision': 'step8'}
    """
    given = config.get("model_args")
    if isinstance(given, str) and given.lstrip().startswith("{"):
        try:
            given = json.loads(given)
        except ValueError:
            return {}
    if isinstance(given, Mapping):
        return {str(key): str(value) for key, value in given.items()}
    pairs = (part.partition("=") for part in str(given or "").split(","))
    return {key.strip(): value.strip() for key, _, value in pairs if value}


def plain_name(name: str) -> str:
    """A model's name without owner and release: `EleutherAI/pythia-v1.1-70m` is `pythia-70m`."""
    return _RELEASE.sub("pythia-", name.rstrip("/").rpartition("/")[2])


def identify(file: str, config: Mapping[str, Any], *, of_pythia: bool) -> EvalIdentity:
    """Who, when and with how many examples, from everything that says so.

    Args:
        file: path of the file, with `/`.
        config: the file's `config`.
        of_pythia: read sizes such as `70m` in file and folder names as models; else the step may
            stand in the folder above the file's own too.
    """
    path, arguments = PurePosixPath(file), model_arguments(config)
    parts = [path.stem, *reversed(path.parent.parts)]
    pretrained = arguments.get("pretrained") or str(config.get("model_name") or "")
    steps = {
        "the file name": _number(_STEP, parts[0]),
        "its folder": _number(_STEP, parts[1] if len(parts) > 1 else ""),
        # lm-eval puts a folder of the model's name into the one that it is told.
        "the folder above": _number(_STEP, parts[2] if len(parts) > 2 and not of_pythia else ""),
        "model_args": _number(_STEP, arguments.get("revision", "")),
        "the path in model_args": _number(_STEP, pretrained.rstrip("/").rpartition("/")[2]),
    }
    given = config.get("num_fewshot")
    shots = {
        "the file name": _number(_SHOTS, parts[0]),
        "its folder": _number(_SHOTS, parts[1] if len(parts) > 1 else ""),
        "num_fewshot": given if isinstance(given, int) else None,
    }
    model, wrong = _model(parts, pretrained, of_pythia=of_pythia)
    wrong += _disagreement("step", steps) + _disagreement("shots", shots)
    return EvalIdentity(model, _first(steps), _first(shots), tuple(wrong))


def _number(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.findall(text)
    if not found:
        return None
    return _COUNTS[found[-1]] if found[-1] in _COUNTS else int(found[-1])


def _first(named: Mapping[str, int | None]) -> int | None:
    return next((value for value in named.values() if value is not None), None)


def _disagreement(what: str, named: Mapping[str, int | None]) -> list[str]:
    known = {where: value for where, value in named.items() if value is not None}
    if len(set(known.values())) < 2:
        return []
    return [what + " " + ", ".join(f"{value} by {where}" for where, value in known.items())]


def _model(parts: list[str], pretrained: str, *, of_pythia: bool) -> tuple[str, list[str]]:
    """The model's name, and where it is contradicted."""
    by_config = plain_name(pretrained)
    if _STEP.search("_" + by_config) and "/" in pretrained.rstrip("/"):  # .../run/checkpoint-500
        by_config = plain_name(pretrained.rstrip("/").rpartition("/")[0])
    if not of_pythia:
        return by_config, []
    label = _LABEL.fullmatch(parts[0])
    by_file = _size(label[1]) if label else ""
    folder = next((part for part in parts[1:] if part.startswith("pythia-")), "")
    by_folder = _size(folder) if _RELEASE.sub("", folder) and not _is_release(folder) else ""
    known = {
        "the file name": by_file,
        "its folder": by_folder,
        "model_args": _size(by_config) if "pythia" in by_config else "",
    }
    sizes = {where: _core(name) for where, name in known.items() if name}
    if len(set(sizes.values())) > 1:
        return by_config or f"pythia-{by_file or by_folder}", [
            "model " + ", ".join(f"{name} by {where}" for where, name in sizes.items())
        ]
    size = by_file or by_folder
    return by_config or (f"pythia-{size}" if size else ""), []


def _is_release(folder: str) -> bool:
    """`pythia-v1` is a release of the suite, not a model."""
    return re.fullmatch(r"pythia-v\d+(\.\d+)?", folder) is not None


def _size(name: str) -> str:
    return _RELEASE.sub("", name)


def _core(name: str) -> str:
    """Size and data, without the arm of an experiment: interventions lie in the model's folder."""
    return re.sub(r"^(?:baseline|(?:long-)?intervention)-|-long$", "", name)
