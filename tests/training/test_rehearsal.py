"""What a phase would refuse after hours of an earlier one is refused before the run folder exists."""

from pathlib import Path
from typing import Any

import pytest

import pairs
from gossamer.errors import ConfigError
from gossamer.methods.registry import METHODS
from gossamer.recipe.build import build_data, build_model, build_phases
from gossamer.recipe.load import load_recipe
from gossamer.recipe.train import train
from gossamer.training.rehearsal import rehearse


def values(method: str, **options: Any) -> dict[str, Any]:
    found = pairs.recipe(method, "adversarial")
    return {**found, "method": {**found["method"], **options}}


@pytest.mark.parametrize(
    ("method", "options", "told"),
    [
        ("magnitude", {"density": 0.9, "pattern": "2:4"}, "density"),
        ("hydra", {"budget": {"name": "explicit", "densities": {"no.such.layer": 0.5}}}, "no.such.layer"),
        ("robust-admm", {"density": 0.01}, "method.density"),
        ("pwoa", {"density": 0.01}, "method.density"),
        ("magnitude", {"budget": "er"}, "scope: layer"),
        ("one-shot-admm", {"phi": 0.2}, "set: redundant"),
        ("one-shot-admm", {"density": 0.001, "scope": "layer"}, "at least one of its"),
        ("one-shot-admm", {"density": 0.001, "scope": "layer", "pattern": "filter"}, "at least one of its"),
        ("robust-subnet", {"density": 0.001, "stages": 4, "budget": "uniform"}, "at least one of its"),
        ("channels", {"density": 0.0001}, "a channel in every layer"),
        ("one-shot-admm", {"set": "funnel", "scope": "layer"}, "funnel"),
    ],
)
def test_what_cannot_begin_is_refused_before_anything_is_written(
    method: str, options: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=told.replace(".", "[.]")):
        train(values(method, **options), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", METHODS)
def test_every_phase_of_every_method_can_be_rehearsed(method: str) -> None:
    recipe = load_recipe(values(method))
    parts = build_data(recipe)
    before = build_model(recipe, parts.train).state_dict()
    phases = build_phases(recipe, parts)
    rehearse(phases, lambda: build_model(recipe, parts.train), parts.train)
    after = build_model(recipe, parts.train).state_dict()
    assert all(value.equal(after[name]) for name, value in before.items())
