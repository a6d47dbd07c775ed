"""The README holds: its Python runs as printed, its commands parse, and the make targets it names exist."""

import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import gossamer
from gossamer.cli.main import COMMANDS
from gossamer.recipe.build import check
from gossamer.recipe.load import load_recipe, validate

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMAND_LINES = [
    line
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip()
]


def _namespace() -> dict[str, object]:
    torch.manual_seed(0)
    data = gossamer.load_data("digits", "train")
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    x, y = data.float(torch.arange(96)), data.labels[:96]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return {
        "model": model,
        "optimizer": optimizer,
        "loader": list(zip(x.split(32), y.split(32), strict=True)),
        "x": x,
        "y": y,
    }


def test_two_lines_in_ones_own_loop_run_as_printed() -> None:
    scope = _namespace()
    exec(PYTHON[0], scope)  # the README's own text
    shipped = scope["sparsifier"].finalize(scope["model"])  # type: ignore[attr-defined]
    assert shipped.masks.kept == int(0.1 * 1476)


def test_one_line_attacks_a_module(capsys: pytest.CaptureFixture[str]) -> None:
    scope = _namespace()
    exec("import gossamer\n" + PYTHON[1], scope)  # the README's own text
    assert "under pgd-50-10 (linf, eps 8/255, 50 steps, 10 restarts, n = 96)" in capsys.readouterr().out


@pytest.mark.parametrize("line", [line for line in COMMAND_LINES if line.startswith("gossamer ")])
def test_commands_exist_and_recipes_load(line: str) -> None:
    words = shlex.split(line, comments=True)
    assert words[1] in COMMANDS
    if words[1] == "train":
        settings = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        assert load_recipe(words[2], settings)


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {word for line in COMMAND_LINES if line.startswith("make ") for word in line.split()[1:2]}
    assert {"demo", "test"} <= named
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in named)


def test_relative_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_the_recipe_in_the_documentation_is_one() -> None:
    text = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
    found = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(found) == 1
    check(validate(yaml.safe_load(found[0])))
