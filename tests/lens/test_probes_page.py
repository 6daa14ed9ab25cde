"""docs/probes.md: its code runs and gives its table."""

import re
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.models
PAGE = Path(__file__).parents[2] / "docs" / "probes.md"


def cells(row: str) -> list[float]:
    line = next(line for line in PAGE.read_text().splitlines() if line.startswith(f"| {row} |"))
    return [float(cell) for cell in re.findall(r"-?\.\d+", line)]


def test_the_page_says_what_its_code_gives(capsys):
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert code is not None
    names: dict = {}
    exec(code.group(1), names)
    probes = names["probes"]
    rows = {
        "accuracy": probes.accuracy,
        "control accuracy": probes.control_accuracy,
        "selectivity": probes.selectivity,
    }
    for row, found in rows.items():
        np.testing.assert_allclose(cells(row), found, atol=0.01)
    assert "micro resid_post, step 6144: logistic probes of 8 classes" in capsys.readouterr().out
