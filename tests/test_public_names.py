"""`import headspec`: quick, light, and every public name is what it says."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import headspec

STUB = Path(headspec.__file__).with_suffix(".pyi")


def stub_names():
    tree = ast.parse(STUB.read_text())
    return sorted(
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    )


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


def test_import_is_light_and_loads_nothing_heavy():
    heavy = ("torch", "transformer_lens", "plotly", "pandas", "numpy", "sklearn", "transformers")
    loaded = run(f"import sys, headspec; print([m for m in {heavy} if m in sys.modules])")
    assert loaded.strip() == "[]"
    # negative control: the same check sees torch once a name that needs it is used
    loaded = run("import sys, headspec; headspec.HeadWeights; print('torch' in sys.modules)")
    assert loaded.strip() == "True"


def test_import_takes_under_three_tenths_of_a_second():
    code = "import time; t = time.process_time(); import headspec; print(time.process_time() - t)"
    assert min(float(run(code)) for _ in range(3)) < 0.3


def test_the_stub_lists_what_exists():
    assert sorted(headspec.__all__) == stub_names()
    for name in headspec.__all__:
        assert getattr(headspec, name) is not None


def test_no_module_hides_a_public_name():
    for module in pkgutil.walk_packages(headspec.__path__, "headspec."):
        importlib.import_module(module.name)
    hidden = [name for name in headspec.__all__ if isinstance(getattr(headspec, name), ModuleType)]
    assert hidden == ["results"]  # the one public module
    tops = {module.name for module in pkgutil.iter_modules(headspec.__path__)}
    assert tops & set(headspec.__all__) == {"results"}


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = headspec.no_such_name
