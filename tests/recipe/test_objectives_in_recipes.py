"""Objectives, penalties, perturbed weights, monitors and pseudo-labels as a recipe says them, and resumed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import pairs
from gossamer.attacks.pgd import PGD
from gossamer.data.registry import load
from gossamer.errors import ConfigError, RunError
from gossamer.objectives.penalties import L1, Parseval
from gossamer.objectives.stored import Stored
from gossamer.recipe.build import build_data, build_phases, check
from gossamer.recipe.load import run_name, to_yaml, validate
from gossamer.recipe.schema import Recipe
from gossamer.recipe.train import train
from gossamer.training.progress import Silent
from gossamer.training.weight_perturbation import WeightPerturbation

MINIMAL: dict[str, Any] = {"data": {"name": "digits"}, "model": {"name": "digits-cnn"}, "threat": "linf:0.15"}
PROBE = {"part": "train", "attacks": ["pgd"], "n": 20}


def recipe(**changes: Any) -> Recipe:
    return validate({**MINIMAL, **changes})


def phase(**changes: Any) -> Any:
    made = recipe(**changes)
    check(made)
    return build_phases(made, build_data(made))[0]


def test_a_recipe_says_every_option() -> None:
    made = phase(
        objective={
            "name": "stored",
            "update": "backward",
            "step": "eps/3",
            "storage": "int8",
            "base": {"name": "trades"},
        },
        training={
            "penalties": [{"name": "l1", "strength": 5e-5}, {"name": "parseval"}],
            "epochs": 4,
            "weight_perturbation": {"gamma": 0.01, "start": 3},
            "probes": [PROBE],
            "overfitting": {"metric": "train/pgd"},
        },
    )
    assert isinstance(made.objective, Stored)
    assert (made.objective.storage, str(made.objective.threat), made.attack) == ("int8", "linf:0.15", None)
    assert made.penalties == (L1(strength=5e-5), Parseval())
    assert made.perturbation == WeightPerturbation(gamma=0.01, start=3)
    assert [type(monitor).__name__ for monitor in made.monitors()] == ["Overfitting"]


def test_free_training_tells_the_phase_its_replays() -> None:
    assert phase(objective={"name": "free-at", "replays": 4}).replays == 4
    assert phase(objective={"name": "trades"}).replays == 1


def test_predicted_labels_keep_labels_from_leaking() -> None:
    attack = phase(objective={"name": "adversarial"}, attack={"labels": "predicted"}).attack
    assert isinstance(attack, PGD)
    assert attack.labels == "predicted"


def test_fast_training_crafts_as_published_unless_the_recipe_says_otherwise() -> None:
    assert phase(objective={"name": "fast-at"}).attack_bn == "train"
    assert phase(objective={"name": "fast-at"}, attack={"step": "eps"}).attack_bn == "train"
    assert phase(objective={"name": "fast-at"}, attack={"batch_norm": "eval"}).attack_bn == "eval"
    for name in ("adversarial", "trades", "stored", "natural"):
        assert phase(objective={"name": name}).attack_bn == "eval"


def test_a_stored_recipe_means_what_it_did() -> None:
    written = to_yaml(recipe(objective={"name": "fast-at"}))
    assert yaml.safe_load(written)["attack"]["batch_norm"] == "train"
    said = {"objective": {"name": "fast-at"}, "attack": {"batch_norm": "train"}}
    assert run_name(recipe(objective={"name": "fast-at"})) == run_name(recipe(**said))
    # Stored while eval was every objective's default: still eval, under the name it had.
    before = yaml.safe_load(written.replace("batch_norm: train", "batch_norm: eval"))
    assert validate(before).attack.batch_norm == "eval"
    assert run_name(validate(before)) != run_name(recipe(objective={"name": "fast-at"}))
    assert run_name(recipe(objective={"name": "trades"})) == "custom-seed0-03d0f0de"


LATE = {"training": {"epochs": 40, "average": {"kind": "ema", "start": 30}}}
MAGNITUDE = {"name": "magnitude", "density": 0.1}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"training": {"epochs": 3, "weight_perturbation": {"start": 100}}},
            r"training\.weight_perturbation\.start: expected an epoch below 3, those of the phase train, got 100",
        ),
        (
            {"training": {"epochs": 3, "average": {"kind": "ema", "start": 3}}},
            r"training\.average\.start: expected an epoch below 3, those of the phase train, got 3",
        ),
        (
            {**LATE, "method": {**MAGNITUDE, "finetune_epochs": 10}},
            r"training\.average\.start: expected an epoch below 10, those of the phase finetune, got 30; .*train that",
        ),
        (
            {
                "method": {"name": "hydra", "density": 0.1, "score_sharpness": 0.1, "sharpness_warmup": 4},
                "training": {"epochs": 20},
            },
            r"method\.sharpness_warmup: expected fewer epochs than the search's 4, got 4",
        ),
    ],
)
def test_what_would_come_too_late_to_do_anything_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        phase(**changes)


def test_what_the_phase_that_ships_lives_to_see_is_taken() -> None:
    phase(**LATE, method=MAGNITUDE)
    # The search of 8 epochs ends before it.
    phase(**LATE, method={"name": "hydra", "density": 0.1})
    # Fine-tuning on clean images perturbs no weights; pretraining does.
    phase(method={"name": "pwoa", "density": 0.1}, training={"epochs": 4, "weight_perturbation": {"start": 3}})


def test_a_method_whose_phases_keep_no_average_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_unaveraged_method.py").write_text(
        "from dataclasses import replace\n"
        "from gossamer.methods.dense import Dense\n"
        "class Plain(Dense):\n"
        "    def phases(self, base, model):\n"
        "        return (replace(base, average=None),)\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConfigError, match=r"training\.average: expected nothing with method my_unaveraged_method:Plain"
    ):
        phase(method={"name": "my_unaveraged_method:Plain"}, training={"average": {"kind": "ema"}})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"objective": {"name": "free-at"}, "attack": {"name": "pgd"}}, r"attack\.name: expected none"),
        ({"objective": {"name": "free-at"}, "attack": {"steps": 3}}, "attack: expected no options"),
        ({"objective": {"name": "free-at", "threat": "linf:1"}}, r"objective\.threat: expected no threat of its own"),
        ({"training": {"penalties": [{"name": "l3"}]}}, r"training\.penalties: expected one of l1, parseval"),
        ({"training": {"weight_perturbation": {"gamma": 2}}}, r"training\.weight_perturbation\.gamma"),
        ({"training": {"overfitting": {"metric": "train/pgd"}}}, r"training\.overfitting\.metric: .*add a probe"),
        (
            {"training": {"probes": [PROBE], "overfitting": {"metric": "train/pgd", "action": "restore"}}},
            r"training\.overfitting\.action: .*write select: train/pgd",
        ),
        ({"data": {"name": "digits", "unlabelled": {"path": "x"}}}, r"data\.unlabelled: .*got neither"),
        (
            {"data": {"name": "digits", "unlabelled": {"path": "x", "labels": "y", "teacher": "z"}}},
            r"data\.unlabelled: .*got both",
        ),
        (
            {"data": {"name": "digits", "unlabelled": {"path": "x", "labels": "y", "share": 1}}},
            r"data\.unlabelled\.share",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check(recipe(**changes))


def small(method: str, **changes: Any) -> dict[str, Any]:
    """Return a recipe of six steps on digits; sections are merged."""
    base = pairs.recipe(method, "adversarial")
    return {**base, **{key: {**base.get(key, {}), **value} for key, value in changes.items()}}


VARIANTS: Mapping[str, dict[str, Any]] = {
    "stored-backward-int8": small("bcs", objective={"name": "stored", "update": "backward", "storage": "int8"}),
    "stored-float16-reset": small("dense", objective={"name": "stored", "storage": "float16", "reset_every": 1}),
    "several-average": small("dense", objective={"name": "several", "combine": "average", "base": "mart"}),
    "perturbed-magnitude": small("magnitude", training={"weight_perturbation": {}}),
    "penalties": small("dense", training={"penalties": [{"name": "l1", "strength": 1e-3}, {"name": "parseval"}]}),
    "overfitting": small("dense", training={"probes": [PROBE], "overfitting": {"metric": "train/pgd"}}),
}
VARIANTS["stored-backward-int8"].pop("attack")


SHORT = ("stored-backward-int8",)


@pytest.mark.parametrize(
    "name", [name if name in SHORT else pytest.param(name, marks=pytest.mark.long) for name in VARIANTS]
)
def test_a_run_broken_off_resumes_to_the_same_bits(name: str, tmp_path: Path) -> None:
    pairs.assert_resumes(lambda: VARIANTS[name], tmp_path, break_at=4)


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_metrics_name_what_is_stored_and_what_monitors_see(tmp_path: Path) -> None:
    values = {**VARIANTS["stored-backward-int8"], "training": VARIANTS["overfitting"]["training"]}
    train(values, out=tmp_path / "run")
    for line in lines(tmp_path / "run"):
        assert (line["stored_type"], line["stored_bytes"], line["visits_bytes"]) == ("int8", 60 * 64, 240)
        assert line["catastrophic_overfitting"] in (0.0, 1.0)


def pool(folder: Path) -> Path:
    data = load("digits", "train")
    path = folder / "pool.safetensors"
    save_file({"x": data.images[500:600].clone(), "y": data.labels[500:600].clone()}, path)
    return path


def semi_supervised(path: Path, **changes: Any) -> dict[str, Any]:
    return small("dense", data={"unlabelled": {"path": str(path), **changes}}, training={"batch_size": 40, "epochs": 2})


def test_pseudo_labelled_training_resumes_and_its_epoch_is_set_by_the_labelled_images(tmp_path: Path) -> None:
    values = semi_supervised(pool(tmp_path), labels="y")
    # 60 labelled images, 20 in every batch of 40: three steps an epoch.
    assert pairs.assert_resumes(lambda: values, tmp_path, break_at=4).steps == 6
    plain = tmp_path / "plain"
    train(small("dense"), out=plain)
    with_pool, without = (json.loads((run / "env.json").read_text())["data"] for run in (tmp_path / "whole", plain))
    assert with_pool["train"] == without["train"]
    assert set(with_pool) - set(without) == {"unlabelled", "pseudo_labels"}


class Noting(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def test_pseudo_labels_of_few_classes_are_refused_or_told(tmp_path: Path) -> None:
    path = pool(tmp_path)
    tensors = load_file(path)
    save_file({"x": tensors["x"].clone(), "y": tensors["y"] % 5}, path)
    with pytest.raises(ConfigError, match=r"data\.unlabelled\.labels: .* all 10 classes, got .* 5, 6, 7"):
        train(semi_supervised(path, labels="y"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    shown = Noting()
    train(semi_supervised(path, labels="y", partial=True), out=tmp_path / "run", progress=shown)
    assert "pseudo-labels: 5 of 10 classes have no image: 5, 6, 7, 8, 9" in shown.said


@pytest.mark.long
def test_stored_perturbations_reach_the_pseudo_labelled_images(tmp_path: Path) -> None:
    values = {**semi_supervised(pool(tmp_path), labels="y"), "objective": {"name": "stored"}}
    pairs.assert_resumes(lambda: values, tmp_path, break_at=4)
    assert lines(tmp_path / "whole")[0]["stored_bytes"] == 160 * 64 * 4


def test_other_pseudo_labels_are_another_run(tmp_path: Path) -> None:
    path = pool(tmp_path)
    values = semi_supervised(path, labels="y")
    pairs.run_pair(values, tmp_path / "run", break_at=4)
    tensors = load_file(path)
    save_file({"x": tensors["x"].clone(), "y": tensors["y"].flip(0).contiguous()}, path)
    with pytest.raises(RunError, match="pseudo_labels"):
        train(values, out=tmp_path / "run")


def test_a_teacher_is_asked_once_and_may_then_go(tmp_path: Path) -> None:
    path, teacher = pool(tmp_path), tmp_path / "teacher"
    opened = train(small("dense", data={"train_n": 200}), out=teacher)
    values = semi_supervised(path, teacher=str(teacher))
    pairs.run_pair(values, tmp_path / "run", break_at=4)
    labels = load_file(tmp_path / "run" / "pseudo-labels.safetensors")["labels"]
    images = load_file(path)["x"].float() / 255
    with torch.no_grad():
        assert torch.equal(labels, opened.model()(images).argmax(dim=1))
    whole = tmp_path / "whole"
    train(values, out=whole)
    for file in sorted(teacher.rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    train(values, out=tmp_path / "run")
    first, second = (load_file(run / "states" / "final.safetensors") for run in (whole, tmp_path / "run"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_teacher_of_other_classes_is_refused(tmp_path: Path) -> None:
    data = load("digits", "train")
    few = data.labels < 5
    other = tmp_path / "five.safetensors"
    save_file({"x": data.images[few].clone(), "y": data.labels[few].clone()}, other)
    teacher = small("dense")
    teacher["data"] = {"name": "tensors"}
    teacher["training"] = {"epochs": 1, "batch_size": 200}
    train(teacher, out=tmp_path / "teacher", data_dir=other)
    save_file({"x": data.images[:20].clone()}, tmp_path / "pool.safetensors")
    values = semi_supervised(tmp_path / "pool.safetensors", teacher=str(tmp_path / "teacher"))
    with pytest.raises(ConfigError, match=r"data\.unlabelled\.teacher: expected a run on 10 classes .* got 5 classes"):
        train(values, out=tmp_path / "run", data_dir=other)
