"""What the pages say in YAML is a recipe, or a part of one; and each method's page says what it promises to."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gossamer.recipe.build import check
from gossamer.recipe.load import load_recipe

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted([*(DOCS / "methods").glob("*.md"), *(DOCS / "objectives").glob("*.md"), DOCS / "recipes.md"])
# What a part leaves out; what it names itself counts.
REST = ("data: {name: digits}", "model: {name: digits-cnn}", "threat: linf:0.1", "method: {name: dense}")
PARTS = """
from gossamer.sparsity.budgets import Uniform
from gossamer.sparsity.patterns import pattern

def MyBudget(slope):
    return Uniform()

def MyPattern():
    return pattern("irregular")
"""
METHODS = [page for page in PAGES if page.parent.name == "methods" and page.name != "README.md"]


def blocks() -> Iterator[object]:
    for page in PAGES:
        for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)):
            yield pytest.param(block, id=f"{page.stem}-{number}")


@pytest.mark.parametrize("block", list(blocks()))
def test_yaml_of_a_page_is_a_recipe(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who copies it, and says what it trains on, is not told of unknown fields."""
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "methods.py").write_text("from gossamer.methods.hydra import Hydra as Mine\n")
    (tmp_path / "mypackage" / "parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    said = re.findall(r"^(\w+):", block, re.MULTILINE)
    rest = [line for line in REST if line.partition(":")[0] not in said]
    (tmp_path / "recipe.yaml").write_text("\n".join([*rest, block]))
    check(load_recipe(tmp_path / "recipe.yaml"))


@pytest.mark.parametrize("page", METHODS, ids=lambda page: page.stem)
def test_a_page_says_what_every_page_does(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    said = re.findall(r"^## (.*)$", text, re.MULTILINE)
    for head in ("The idea", "The maths", "Source", "What differs", "Published and ours", "Cost", "When to use it"):
        assert any(each.startswith(head) for each in said), head
    assert "pictures/" in text
