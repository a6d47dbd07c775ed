"""Every method with TRADES, every objective with dense, BCS and HYDRA, and in the long test every pair there is."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import pairs
from gossamer.data.registry import load
from gossamer.errors import ConfigError
from gossamer.methods.registry import METHODS
from gossamer.objectives.registry import OBJECTIVES
from gossamer.recipe.build import check
from gossamer.recipe.load import load_recipe
from gossamer.recipe.open import open_run
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


# Objectives in forms of their own, and what goes over any objective: sections of a recipe.
FORMS: Mapping[str, Mapping[str, Any]] = {
    "semi-supervised": {"data": {"unlabelled": {"labels": "y"}}, "training": {"batch_size": 40}},
    "n-fgsm": {"objective": {"name": "fast-at", "variant": "noise"}},
    "several-average": {"objective": {"name": "several", "combine": "average"}, "attack": {"steps": 2}},
    "several-trades": {"objective": {"name": "several", "base": "trades"}, "attack": {"steps": 2}},
    "parseval": {"training": {"penalties": [{"name": "parseval"}]}},
    "awp": {"training": {"weight_perturbation": {"gamma": 0.01, "start": 1}}},
    "swa": {"training": {"average": {"kind": "swa", "start": 0}}},
}


def in_form(method: str, form: str, folder: Path) -> dict[str, Any]:
    values = pairs.recipe(method, "adversarial")
    sections = {key: {**values.get(key, {}), **given} for key, given in FORMS[form].items()}
    if form == "semi-supervised":
        data = load("digits", "train")
        path = folder / "pool.safetensors"
        save_file({"x": data.images[500:600].clone(), "y": data.labels[500:600].clone()}, path)
        sections["data"]["unlabelled"] = {"path": str(path), "labels": "y"}
    if form == "n-fgsm":
        del values["attack"]
    return {**values, **sections}


@pytest.mark.parametrize(("method", "form"), list(itertools.product(PARENTS, FORMS)))
def test_every_form_of_an_objective_trains_resumes_and_ships(method: str, form: str, tmp_path: Path) -> None:
    values = in_form(method, form, tmp_path)
    pairs.assert_resumes(lambda: values, tmp_path, break_at=3 + list(FORMS).index(form))


AVERAGED = [*((method, "ema") for method in METHODS), *((method, "swa") for method in ("bcs", *pairs.KINDS))]


@pytest.mark.parametrize(("method", "kind"), AVERAGED)
def test_every_method_ships_an_average_of_its_own_kind(method: str, kind: str, tmp_path: Path) -> None:
    values = pairs.recipe(method, "adversarial")
    values["training"] |= {"average": {"kind": kind}}
    pairs.run_pair(values, tmp_path / "run")
    opened = open_run(tmp_path / "run")
    about = atomic.read_about(opened.folder.state("final"))
    assert about["kind"] == pairs.KINDS.get(method, "same-keys")
    with torch.no_grad():
        assert opened.model()(torch.rand(4, 1, 8, 8)).isfinite().all()
