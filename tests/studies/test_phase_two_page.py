"""docs/phase_two.md: its code runs, and every name in its tables exists."""

import re
from pathlib import Path

import headspec as hs
from headspec import plots

PAGE = Path(__file__).parents[2] / "docs" / "phase_two.md"


def test_the_code_of_the_page_runs(capsys):
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert code is not None
    names: dict = {}
    exec(code.group(1), names)
    said = capsys.readouterr().out
    assert "parameters" in said
    assert "checkpoints for" in said
    assert set(names["effects"]["decision"]) <= {"open", "no moments"}
    assert (names["compared"]["metric"] == "cka").sum() == 5


def test_the_names_of_the_page_exist():
    tables = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    named = {name for line in tables for name in re.findall(r"`(\w+)", line.split("|")[2])}
    functions = {name for name in named if "_" in name}
    assert len(functions) >= 18
    missing = {name for name in functions if not (hasattr(hs, name) or hasattr(plots, name))}
    assert not missing
