"""docs/jump_detection.md: its code runs, and its tables are those of the battery's file."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "jump_detection.md"
BATTERY = ROOT / "tools" / "jump_battery.csv"


@pytest.fixture(scope="module")
def battery() -> pd.DataFrame:
    return pd.read_csv(BATTERY, keep_default_na=False, na_values=[""])  # a kind is "null"


def test_the_code_of_the_page_runs(capsys):
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert code is not None
    names: dict = {}
    exec(code.group(1), names)
    jumps = names["jumps"].to_frame()
    assert jumps["step"].tolist() == [1250]
    assert "1 against " in capsys.readouterr().out


def cells(row: str, part: int) -> list[float]:
    """Value and error in turn, from the `part`-th table that has such a row."""
    lines = [x for x in PAGE.read_text().splitlines() if x.startswith(f"| {row} |")]
    return [float(cell) for cell in re.findall(r"\d+\.\d\d", lines[part])]


def test_the_tables_of_the_page_are_those_of_the_file(battery):
    at_400 = battery[battery["n_points"] == 400]
    for series, own in at_400[at_400["metric"] == "false_positives"].groupby("series"):
        known = own[["value", "se"]].to_numpy().ravel()
        np.testing.assert_allclose(cells(series, 0), known, rtol=1e-3, atol=0.006)
    for series, own in at_400[at_400["metric"] == "recall"].groupby("series"):
        known = own[["value", "se"]].to_numpy().ravel()
        np.testing.assert_allclose(cells(series, 1), known, rtol=1e-3, atol=0.006)


def test_the_file_says_what_the_project_promises(battery):
    """At most 2 false positives per 1,000 points on each null, recall of .9 and 1.0 aimed at."""
    calibrated = battery[battery["method"] == "calibrated"]
    null = calibrated[(calibrated["kind"] == "null") & (calibrated["n_points"] >= 60)]
    assert null["value"].max() <= 2
    recall = calibrated[(calibrated["metric"] == "recall") & (calibrated["n_points"] == 400)]
    recall = recall.set_index("series")["value"]
    assert recall["one jump"] >= 0.95
    assert recall["three jumps"] >= 0.95
    for method in ("study", "trailing_window", "changepoints"):  # negative control
        own = battery[(battery["method"] == method) & (battery["kind"] == "null")]
        assert own["value"].max() > 15
