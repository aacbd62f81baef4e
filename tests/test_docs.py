"""The documentation agrees with the code."""

import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from bench import pages
from sanbu import recipes
from sanbu.config import override

ROOT = Path(__file__).parents[1]
READMES = ("README.md", "README.zh-CN.md")


def test_contracts_quote_the_tenants_as_they_are():
    page = (ROOT / "docs" / "contracts.md").read_text(encoding="utf-8")
    names = sorted(set(re.findall(r"^## (\w+)\n\n```python", page, re.M)))
    assert names == ["boosted", "cascade", "diffusion", "gan", "genetic", "masked", "ppo", "vae"]
    for name in names:
        assert (ROOT / "tests" / "tenants" / f"{name}.py").read_text(encoding="utf-8") in page, (
            f"docs/contracts.md quotes an old {name}"
        )


def blocks(name):
    return re.findall(r"```(?:sh|python)\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.S)


def test_both_readmes_show_the_same_commands_and_figures():
    english, chinese = (blocks(name) for name in READMES)
    strip = lambda found: [re.sub(r"\s*#.*", "", block) for block in found]
    assert strip(english) == strip(chinese)
    figures = [sorted(re.findall(r"\d+(?:\.\d+)?x", (ROOT / name).read_text(encoding="utf-8"))) for name in READMES]
    assert figures[0] == figures[1]


@pytest.mark.parametrize("name", READMES)
def test_every_command_in_the_readme_is_understood(name, tmp_path, monkeypatch):
    """Each `sanbu train` and `sanbu show` line names an existing recipe and existing overrides."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "photos" / "one.png")
    lines = [
        line for block in blocks(name) for line in block.splitlines() if line.startswith(("sanbu train", "sanbu show"))
    ]
    assert len(lines) >= 3
    for line in lines:
        words = shlex.split(line, comments=True)[2:]
        if words[0] not in recipes.RECIPES:
            continue
        words = words[: words.index("--run")] if "--run" in words else words
        # these need runs and files that do not exist here
        parents = ("base=", "sft=", "path=", "data.path=chat", "data.text=")
        recipe, rest = recipes.make(words[0], [word for word in words[1:] if not word.startswith(("--", *parents))])
        override(recipe, rest)


def test_the_tables_of_benchmarks_are_made_from_the_figures():
    page = (ROOT / pages.PAGE).read_text(encoding="utf-8")
    figures = json.loads((ROOT / pages.FIGURES).read_text(encoding="utf-8"))
    assert pages.filled(page, figures) == page, "run: python -m bench --tables"
    assert set(pages.TABLES) == {name for _, name, _ in pages.BETWEEN.findall(page)}


def test_a_row_of_a_table_of_benchmarks():
    line = pages.Line("loss", "a.loss", "b.loss", "peer, {b.setting}", "1.1x", 2, lower=True)
    figures = {"a.loss": 1.5, "b.loss": 1.8, "b.setting": "tuned"}
    assert line.cells(figures) == ["loss", "1.50", "1.80 (peer, tuned)", "1.20x", "1.1x"]
    assert (
        pages.peer_lines("what", line)(figures).count("\n") == 3 and pages.peer_lines("what", line)({}).count("\n") == 2
    )
