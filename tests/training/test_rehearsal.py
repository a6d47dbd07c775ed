"""What a phase would refuse after hours of an earlier one is refused before the run folder exists."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import pairs
from gossamer.errors import ConfigError, GossamerError
from gossamer.methods.registry import METHODS
from gossamer.recipe.build import build_data, build_model, build_phases
from gossamer.recipe.load import load_recipe
from gossamer.recipe.train import train
from gossamer.runs import RunFolder, status
from gossamer.training import run
from gossamer.training.rehearsal import rehearse


def nothing_to_prune(num_classes: int = 10) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d((1, num_classes)), nn.Flatten())


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


@pytest.mark.parametrize(
    ("objective", "attack", "told"),
    [
        ({"name": "stored", "update": "backward", "pooled": 3}, None, "objective.pooled"),
        ({"name": "stored"}, {"name": "fgsm"}, "an attack that can start from given images"),
    ],
)
def test_objectives_and_attacks_that_do_not_go_together_are_refused_before_an_earlier_phase_trains(
    objective: dict[str, Any], attack: dict[str, Any] | None, told: str, tmp_path: Path
) -> None:
    # It pretrains on clean images.
    chosen = {key: value for key, value in values("rsr").items() if key != "attack"}
    chosen |= {"objective": objective} | ({} if attack is None else {"attack": attack})
    with pytest.raises(ConfigError, match=told.replace(".", "[.]")):
        train(chosen, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_phase_that_cannot_begin_leaves_the_run_as_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(run, "begin", broken)
    with pytest.raises(RuntimeError):
        train(values("dense"), out=tmp_path / "run")
    found = status.read(RunFolder(tmp_path / "run"))
    assert found is not None
    assert (found.state, found.phase, found.epoch, found.message) == ("failed", "train", 0, "no")


@pytest.mark.parametrize("density", [0.0, 1.5, 1e-5])
@pytest.mark.parametrize("method", [name for name in METHODS if "density" in METHODS[name].options])
def test_a_density_that_cannot_be_is_refused_by_every_method(method: str, density: float, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"density: expected a.* got {density:g}"):
        train(values(method, density=density), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def adaptive(p: float) -> dict[str, Any]:
    return {"method": {"name": "hydra", "density": 0.5, "budget": {"name": "adaptive", "p": p}}}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (adaptive(-0.1), r"p: .*got -0\.1"),
        (adaptive(1.5), r"p: .*got 1\.5"),
        ({"method": {"name": "rewinding", "density": 0.5, "rewind_epoch": 3}}, "rewind_epoch: .*got 3"),
        ({"model": {"name": "test_rehearsal:nothing_to_prune"}}, "model: expected .*convolution"),
        (
            {"data": {"unlabelled": {"path": "pool.safetensors", "labels": "y"}}},
            r"data\.unlabelled\.labels.*\[0, 10\), .*got \[0, 10\]",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_its_field_before_anything_is_written(
    changes: dict[str, Any], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_file({"x": torch.zeros(20, 1, 8, 8), "y": torch.arange(20) % 11}, "pool.safetensors")
    found = pairs.recipe("hydra", "adversarial")
    given = {**found, **{key: {**found.get(key, {}), **new} for key, new in changes.items() if key == "data"}}
    given |= {key: new for key, new in changes.items() if key != "data"}
    with pytest.raises(GossamerError, match=told):
        train(given, out=tmp_path / "run")
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
