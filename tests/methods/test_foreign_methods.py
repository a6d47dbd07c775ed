"""A method of another package: named in a recipe as package.module:factory, and nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

import pairs
from gossamer.errors import ConfigError
from gossamer.methods.registry import build
from gossamer.recipe.open import open_run
from gossamer.recipe.train import train
from gossamer.sparsity import HardMask
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase


@dataclass(frozen=True, kw_only=True)
class Halves:
    """Half of the weights, by magnitude at the start."""

    density: float = 0.5

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        return OptimizerSpec(lr=0.05)

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        return (replace(base, sparsifier=partial(HardMask, density=self.density)),)


def test_a_method_of_another_package_trains_resumes_and_opens(tmp_path: Path) -> None:
    values = {**pairs.recipe("dense", "adversarial"), "method": {"name": f"{__name__}:Halves", "density": 0.25}}
    pairs.assert_resumes(lambda: values, tmp_path, break_at=3)
    assert open_run(tmp_path / "whole").recipe.method.name == f"{__name__}:Halves"


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ({"name": f"{__name__}:Halves", "share": 0.5}, "share"),
        ({"name": f"{__name__}:tell"}, "default_optimizer and phases"),
        ({"name": f"{__name__}:Nothing"}, "Nothing"),
    ],
)
def test_what_is_no_method_is_refused(method: dict[str, object], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        train({**pairs.recipe("dense", "adversarial"), "method": method}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def tell() -> str:
    return "no method"


def test_an_unknown_name_points_to_both_ways() -> None:
    with pytest.raises(ConfigError, match=r"package\.module:factory"):
        build("halves")
