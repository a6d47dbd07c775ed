"""Does the code of the attack pages run, and do they name every attack?"""

import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gossamer.attacks.registry import ATTACKS
from gossamer.threat import ThreatModel

PAGES = Path(__file__).parents[2] / "docs" / "attacks"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
README = (PAGES / "README.md").read_text(encoding="utf-8")
FIRST, *OTHERS = BLOCK.findall(README)


class Levels(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.round(16 * x) / 16


@pytest.fixture
def names(convnet: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Any]:
    model = nn.Sequential(OrderedDict(quantise=Levels(), net=convnet)).eval()
    return {"model": model, "twin": convnet, "x": images, "y": labels}


def test_the_page_names_every_attack_and_no_other() -> None:
    table = README.partition("## By name")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE) != []
    assert set(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)) == set(ATTACKS)


@pytest.mark.parametrize("block", OTHERS, ids=[block.split()[3] for block in OTHERS])
def test_the_pages_code_runs_and_its_points_are_admissible(names: dict[str, Any], block: str) -> None:
    for library, adapter in (("art", "ARTAttack"), ("foolbox", "FoolboxAttack")):
        if adapter in block:
            pytest.importorskip(library, exc_type=ImportError)
    exec(FIRST + block, names)
    threat: ThreatModel = names["threat"]
    assert not threat.violates(names["x_adv"], names["x"]).any()
    assert names["x_adv"].shape == names["x"].shape
    if "withstood" in names:
        assert names["withstood"].shape == names["y"].shape


def test_links_lead_somewhere() -> None:
    for page in PAGES.glob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
