"""The first screen of README runs as printed, and what it names exists."""

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_ten_lines_run_and_say_what_readme_says(tmp_path, monkeypatch, capsys):
    code = re.search(r"```python\n(.*?)```", README, re.S)
    assert code is not None
    lines = code[1].strip().splitlines()
    assert len([line for line in lines if line]) <= 10
    if not shutil.which("chromium"):
        lines = [line for line in lines if "formats=" not in line]
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec("\n".join(lines), names)
    said = capsys.readouterr().out
    assert "clusters of 6 and 6" in said
    assert "Gradual" in said
    last = names["frame"].query("metric == 'silhouette'").iloc[-1]
    assert f"{last['value']:.3f}".lstrip("0") in README
    assert f"{last['null_mean']:.3f}".lstrip("0") in README
    if shutil.which("chromium"):
        drawn = (tmp_path / "images" / "head_similarity.png").stat().st_size
        assert drawn > 20_000


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))])
def test_links_to_files_lead_somewhere(page):
    path = ROOT / page
    targets = re.findall(r"\]\(([^)#]+)", path.read_text())
    missing = [t for t in targets if "://" not in t and not (path.parent / t).exists()]
    assert missing == []


def test_make_has_the_commands_that_readme_names():
    made = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`?make (demo|test|docs|lint|bench)\b", README)) <= made
