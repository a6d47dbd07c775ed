"""`gossamer explain` as a user types it, on a run of a few steps."""

import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch

from gossamer.cli.main import main
from gossamer.recipe.train import train
from gossamer.runs import RunFolder, explanations

pytest.importorskip("captum")
RECIPE = {
    "data": {"name": "digits", "train_n": 40},
    "model": {"name": "digits-cnn"},
    "threat": "linf:0.15",
    "method": {"name": "random", "density": 0.1},
    "training": {"epochs": 1, "batch_size": 20},
    "machine": {"device": "cpu", "threads": 1},
    "evaluation": [],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a finished run, and one that has not got to its end."""
    folder = tmp_path_factory.mktemp("explain")
    train(RECIPE, out=folder / "run")
    shutil.copytree(folder / "run", folder / "unfinished")
    shutil.rmtree(folder / "unfinished/states")
    return folder


@pytest.fixture(autouse=True)
def place(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    return trained


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(words)
    return int(ended.value.code or 0)


def test_maps_are_kept_in_the_run_and_made_again_by_the_command_they_name(place, capsys):
    assert run("explain", "run", "--n", "3", "--option", "steps=3", "--layer", "relu2") == 0
    assert "run: 3 images, Grad-CAM at relu2" in capsys.readouterr().out
    found = explanations.read(RunFolder(place / "run"))
    assert found.about.attack_parameters["steps"] == 3
    assert found.about.threat == "linf:0.15"
    assert found.about.labels == (0, 1, 2)
    assert bool(((found.adversarial - found.images.float() / 255).abs() <= 0.15 + 1e-6).all())
    command = found.about.environment["command"]
    assert command == "gossamer explain run --n 3 --attack pgd --option steps=3 --layer relu2 --seed 0"
    assert run(*shlex.split(command)[1:]) == 0
    again = explanations.read(RunFolder(place / "run"))
    assert again.about == found.about
    assert torch.equal(again.adversarial_gradients, found.adversarial_gradients)


def test_by_default_the_attack_is_that_of_the_panels(place):
    assert run("explain", "run", "--n", "1", "--threat", "linf:0.3") == 0
    found = explanations.read(RunFolder(place / "run"))
    assert found.about.attack_parameters["steps"] == 20
    assert found.about.threat == "linf:0.3"
    assert found.about.layer == "conv3"


def test_mistakes_are_told_before_any_run_is_explained(place, capsys, monkeypatch):
    explanations.path_of(RunFolder(place / "run")).unlink(missing_ok=True)
    cases = [
        (1, ("explain", "run", "unfinished"), "goes on from the last checkpoint"),
        (1, ("explain", "run", "nowhere"), "a folder with a recipe.yaml"),
        (2, ("explain", "run", "--n", "0"), "images to explain"),
        (2, ("explain", "run", "--layer", "layer9"), "--layer layer9"),
        (2, ("explain", "run", "--attack", "pgd-21"), "check its spelling"),
    ]
    for code, words, said in cases:
        assert run(*words) == code
        assert said in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    assert run("explain", "run") == 2
    assert "pip install 'gossamer[explain]'" in capsys.readouterr().err
    assert not explanations.path_of(RunFolder(place / "run")).exists()
