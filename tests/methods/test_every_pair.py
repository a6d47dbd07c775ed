"""Every method with TRADES, every objective with dense, BCS and HYDRA, and in the long test every pair there is."""

import itertools
from pathlib import Path

import pytest
import torch

import pairs
from gossamer.errors import ConfigError
from gossamer.methods.registry import METHODS
from gossamer.objectives.registry import OBJECTIVES
from gossamer.recipe.build import check
from gossamer.recipe.load import load_recipe
from gossamer.recipe.train import train
from gossamer.runs import atomic

PARENTS = [method for method in ("dense", "bcs", "hydra") if method in METHODS]
DEFAULT = sorted({(method, "trades") for method in METHODS} | set(itertools.product(PARENTS, OBJECTIVES)))
EVERY = sorted(set(itertools.product(METHODS, OBJECTIVES)) - set(DEFAULT))


def refused(method: str, objective: str) -> str | None:
    return METHODS[method].refuses.get(objective)


def train_and_resume(method: str, objective: str, folder: Path) -> None:
    reason = refused(method, objective)
    values = pairs.recipe(method, objective)
    if reason is not None:
        assert len(reason) > 20
        with pytest.raises(ConfigError) as told:
            check(load_recipe(values))
        assert reason in str(told.value)
        return
    position = sorted(METHODS).index(method) + sorted(OBJECTIVES).index(objective)
    pairs.assert_resumes(lambda: values, folder, break_at=1 + position)


@pytest.mark.parametrize(("method", "objective"), DEFAULT)
def test_pair_trains_resumes_and_ships(method: str, objective: str, tmp_path: Path) -> None:
    train_and_resume(method, objective, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize(("method", "objective"), EVERY)
def test_every_other_pair_trains_resumes_and_ships(method: str, objective: str, tmp_path: Path) -> None:
    train_and_resume(method, objective, tmp_path)


AVERAGED = [*((method, "ema") for method in METHODS), *((method, "swa") for method in ("bcs", *pairs.KINDS))]


@pytest.mark.parametrize(("method", "kind"), AVERAGED)
def test_every_method_ships_an_average_of_its_own_kind(method: str, kind: str, tmp_path: Path) -> None:
    values = pairs.recipe(method, "adversarial")
    values["training"] |= {"average": {"kind": kind}}
    opened = train(values, out=tmp_path / "run")
    about = atomic.read_about(opened.folder.state("final"))
    assert about["kind"] == pairs.KINDS.get(method, "same-keys")
    with torch.no_grad():
        assert opened.model()(torch.rand(4, 1, 8, 8)).isfinite().all()
