import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from gossamer.attacks.fgsm import FGSM
from gossamer.attacks.pgd import PGD
from gossamer.attacks.steps import parse_step
from gossamer.data import DATASETS, DataSet, from_tensors
from gossamer.errors import ConfigError
from gossamer.models.registry import MODELS
from gossamer.recipe import build as room
from gossamer.recipe.build import build_data, build_model, build_phases, build_training_attack, check
from gossamer.recipe.load import load_recipe, recipes, validate
from gossamer.recipe.schema import Recipe
from gossamer.training.rehearsal import rehearse

MINIMAL: dict[str, Any] = {"data": {"name": "digits"}, "model": {"name": "digits-cnn"}, "threat": "linf:0.15"}


def recipe(**changes: Any) -> Recipe:
    return validate({**MINIMAL, **changes})


def synthetic(name: str, part: str, *, data_dir: Path | None = None, **options: Any) -> DataSet:
    """Return 400 random images in the shape of a named data set, 8x8 in three classes where files decide."""
    channels, height, width = DATASETS[name].image_shape or (3, 8, 8)
    classes = DATASETS[name].classes or 3
    generator = torch.Generator().manual_seed(len(part))
    x = torch.randint(0, 256, (400, channels, height, width), generator=generator, dtype=torch.uint8)
    return replace(from_tensors(x, torch.arange(400) % classes, part=part), name=name)


@cache
def outputs_of(model: str, data: str) -> tuple[int, ...]:
    """Return the shape of a network's outputs for two images; many recipes share a network."""
    drawn = synthetic(data, "test")
    shipped = recipe(model=json.loads(model), data={"name": data})
    return tuple(build_model(shipped, drawn).eval()(drawn.float(torch.arange(2))).shape)


@pytest.mark.parametrize("name", recipes())
def test_a_shipped_recipe_builds_its_phases_and_its_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = load_recipe(name, ["data.train_n=null"])
    check(shipped)
    monkeypatch.setattr(room, "load", synthetic)
    parts = build_data(shipped)
    phases = build_phases(shipped, parts)
    assert len(phases) >= 1
    assert outputs_of(shipped.model.model_dump_json(), shipped.data.name) == (2, parts.train.num_classes)


@pytest.mark.long
@pytest.mark.parametrize("name", recipes())
def test_every_phase_of_a_shipped_recipe_can_begin(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = load_recipe(name, ["data.train_n=null"])
    monkeypatch.setattr(room, "load", synthetic)
    parts = build_data(shipped)
    rehearse(build_phases(shipped, parts), lambda: build_model(shipped, parts.train), parts.train)


def test_the_network_is_a_function_of_the_seed_alone() -> None:
    parts = build_data(recipe())
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = build_model(recipe(), parts.train).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    again = build_model(recipe(method={"name": "bcs", "density": 0.1}), parts.train).state_dict()
    other = build_model(recipe(seed=1), parts.train).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_data_are_split_before_they_are_thinned() -> None:
    parts = build_data(recipe(data={"name": "digits", "split": {"held_out": 0.1}, "train_n": 100}))
    assert (len(parts.train), len(parts.test)) == (100, 360)
    assert parts.held_out is not None
    assert len(parts.held_out) == pytest.approx(144, abs=1)
    assert not set(parts.train.index.tolist()) & set(parts.held_out.index.tolist())
    assert build_data(recipe()).held_out is None


def test_the_objective_brings_its_attack_and_the_recipe_changes_it() -> None:
    def attack(**changes: Any) -> Any:
        said = recipe(**changes)
        return build_training_attack(said, room.build_objective(said.objective.name))

    assert attack() is None
    own = attack(objective={"name": "adversarial"})
    assert isinstance(own, PGD)
    changed = attack(objective={"name": "adversarial"}, attack={"steps": 3, "step": "eps/2"})
    assert changed == replace(own, steps=3, step=parse_step("eps/2"))
    assert isinstance(attack(objective={"name": "adversarial"}, attack={"name": "fgsm"}), FGSM)
    with pytest.raises(ConfigError, match="attack: expected no options"):
        attack(attack={"steps": 3})


@pytest.mark.parametrize(
    ("method", "objective", "said", "expected"),
    [
        ("dense", "adversarial", {}, ("sgd", 0.1, 5e-4)),
        ("magnitude", "adversarial", {}, ("sgd", 0.1, 1e-4)),
        ("bcs", "adversarial", {}, ("decay-first-sgd", 0.1, 1e-3)),
        ("bcs", "trades", {"lr": 0.2}, ("decay-first-sgd", 0.2, 5e-4)),
        ("bcs", "adversarial", {"kind": "decay-first-sgd"}, ("decay-first-sgd", 0.1, 1e-3)),
        ("bcs", "adversarial", {"kind": "sgd"}, ("sgd", 0.1, 5e-4)),
        ("bcs", "adversarial", {"kind": "sgdw", "weight_decay": 0.25}, ("sgdw", 0.1, 0.25)),
    ],
)
def test_the_optimiser_is_the_published_one_where_the_recipe_says_nothing(
    method: str, objective: str, said: dict[str, Any], expected: tuple[str, float, float]
) -> None:
    options = {} if method == "dense" else {"density": 0.1}
    made = recipe(method={"name": method, **options}, objective={"name": objective}, training={"optimizer": said})
    optimizer = build_phases(made, build_data(made))[0].optimizer
    assert (optimizer.kind, optimizer.lr, optimizer.weight_decay) == expected


def test_phases_take_what_the_recipe_says() -> None:
    made = recipe(
        data={"name": "digits", "split": {"held_out": 100}, "augmentation": {"shift": 0.1}},
        objective={"name": "trades", "beta": 3},
        attack={"batch_norm": "train", "fast": False},
        training={
            "epochs": 7,
            "batch_size": 32,
            "clip": 2.0,
            "average": {"kind": "swa", "start": 5},
            "probes": [{"part": "held_out", "attacks": ["fgsm"], "every": 3, "n": 50}, {"part": "test"}],
            "select": "held_out/fgsm",
            "early_stop": {"metric": "held_out/clean", "patience": 4},
        },
    )
    (phase,) = build_phases(made, build_data(made))
    assert (phase.epochs, phase.batch_size, phase.clip, phase.select) == (7, 32, 2.0, "held_out/fgsm")
    assert (phase.attack_bn, phase.fast, phase.augmentation.shift) == ("train", False, 0.1)
    assert phase.average is not None
    assert (phase.average.kind, phase.average.start) == ("swa", 5)
    assert [(probe.part, len(probe.data), list(probe.attacks), probe.every) for probe in phase.probes] == [
        ("held_out", 50, ["fgsm"], 3),
        ("test", 360, [], 1),
    ]
    assert len(phase.monitors()) == 1
    assert phase.monitors()[0] is not phase.monitors()[0]


PROBES = [{"part": "held_out", "attacks": ["fgsm"]}, {"part": "test"}]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method": {"name": "bsc", "density": 0.1}}, r"method\.name: expected one of dense.*'bsc'"),
        ({"method": {"name": "bcs"}}, r"method\.density: expected the share of weights to keep, got nothing; write"),
        ({"method": {"name": "bcs", "density": 1.5}}, r"method\.density: .* got 1\.5; write 0\.015 for 1\.5 %"),
        ({"method": {"name": "bcs", "density": "half"}}, r"method\.density: expected a valid number.*'half'"),
        ({"method": {"name": "bcs", "dnesity": 0.1, "density": 0.1}}, r"method\.dnesity: .*did you mean density\?"),
        ({"method": {"name": "bcs", "density": 0.1, "sigma": -1}}, r"method\.sigma: expected a finite number >= 0"),
        ({"method": {"name": "bcs", "density": 0.1, "initial": {"x": 2}}}, r"method\.initial\.x: expected a share"),
        ({"method": {"name": "magnitude", "density": 0.1, "scope": "all"}}, r"method\.scope: expected 'global' or"),
        ({"method": {"name": "magnitude", "density": 0.1, "finetune_lr": 0}}, r"method\.finetune_lr: expected a share"),
        ({"method": {"name": "magnitude", "density": 0.1, "finetune_epochs": 0}}, r"method\.finetune_epochs"),
        ({"objective": {"name": "trads"}}, "objective: expected one of natural.*'trads'"),
        ({"objective": {"name": "trades", "bta": 1}}, r"objective\.bta: .*did you mean beta\?"),
        ({"objective": {"name": "trades", "clean_pass": "no-such"}}, r"objective\.clean_pass: .*got 'no-such'"),
        ({"objective": {"name": "stored", "pooled": "a"}}, r"objective\.pooled: expected a valid integer.*got 'a'"),
        ({"objective": {"name": "stored", "reset_every": "x"}}, r"objective\.reset_every: expected a valid integer"),
        ({"objective": {"name": "stored", "storage": "int4"}}, r"objective\.storage: expected 'float32', .*'int4'"),
        ({"objective": {"name": "several", "base": {"name": "mart", "beta": True}}}, r"objective\.base\.beta: .*True"),
        ({"method": {"name": "bcs", "density": True}}, r"method\.density: expected a number, got True"),
        ({"attack": {"name": "pgd", "steps": "a"}}, r"attack pgd\.steps: expected a valid integer"),
        ({"training": {"penalties": [{"name": "l1", "strength": True}]}}, r"penalties l1\.strength: .*got True"),
        ({"attack": {"name": "pgx"}}, "attack: expected one of apgd-ce.*'pgx'"),
        ({"training": {"schedule": {"name": "stepz"}}}, r"training\.schedule\.name"),
        ({"training": {"average": {"kind": "ema", "decay": 2}}}, r"training\.average\.decay: .*got 2\.0"),
        ({"training": {"optimizer": {"kind": "sgdw", "nesterov": True}}}, r"training\.optimizer\.nesterov"),
        ({"training": {"select": "test/clean", "probes": PROBES}}, r"training\.select: .*must not choose what it will"),
        ({"training": {"select": "held_out/pgd", "probes": PROBES}}, r"expected a measured accuracy \(.*held_out/fgsm"),
        ({"training": {"select": "loss"}}, r"training\.select: expected a measured accuracy"),
        (
            {"training": {"early_stop": {"metric": "test/clean", "patience": 1}, "probes": PROBES}},
            r"early_stop\.metric",
        ),
        (
            {
                "training": {
                    "early_stop": {"metric": "held_out/clean", "patience": 1, "restore": True},
                    "probes": PROBES,
                }
            },
            r"early_stop\.restore: .*write select: held_out/clean",
        ),
        ({"training": {"probes": [{"part": "train", "attacks": ["fgms"]}]}}, "attack: expected one of apgd-ce.*'fgms'"),
        ({"evaluation": [{"attack": "fgms"}]}, "attack: expected one of apgd-ce.*'fgms'"),
        ({"evaluation": [{"attack": "pgd", "stpes": 1}]}, r"attack pgd\.stpes: .*did you mean steps\?"),
        ({"data": {"name": "digits", "augmentation": {"flip": 2}}}, r"augmentation\.flip"),
    ],
)
def test_what_cannot_be_is_refused_without_data(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check(recipe(**changes))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data": {"name": "digit"}}, "data set: .*did you mean 'digits'"),
        ({"data": {"name": "digits", "split": {"held_out": 1.5}}}, "held-out split: .*got 1.5"),
        ({"training": {"probes": [{"part": "held_out"}]}}, r"training\.probes\.part: .*set data\.split\.held_out"),
        ({"training": {"probes": [{"part": "test", "n": 9999}]}}, "got 9999"),
        ({"model": {"name": "digits-cn"}}, "model: .*did you mean digits-cnn"),
        ({"model": {"name": "digits-cnn", "widht": 2}}, "option of model digits-cnn: .*'widht'"),
        (
            {"model": {"name": "digits-cnn", "last_batch_norm": "x"}},
            r"model digits-cnn\.last_batch_norm: expected a valid",
        ),
        ({"model": {"name": "digits-cnn", "width": True}}, r"model digits-cnn\.width: expected a number, got True"),
        ({"data": {"name": "folder", "image_size": "x"}}, r"data set folder\.image_size: expected a valid integer"),
        ({"model": {"name": "digits-cnn", "normalize": True}}, r"model\.normalize: .*got digits"),
        ({"model": {"name": "torch.nn:Flatten", "normalize": True}}, r"model\.normalize: .*torch\.nn:Flatten"),
        ({"model": {"name": "torch:tensor", "data": 1}}, "model torch:tensor: .*a function or class.*got Tensor"),
    ],
)
def test_what_does_not_fit_its_data_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        build_all(recipe(**changes))


def build_all(made: Recipe) -> None:
    parts = build_data(made)
    build_phases(made, parts)
    build_model(made, parts.train)


def test_every_network_takes_what_the_data_say() -> None:
    for name, entry in MODELS.items():
        assert {"num_classes", "in_channels", "image_size", "mean", "std"} <= set(entry.options), name


def test_published_normalisation_goes_inside_the_network() -> None:
    made = recipe(data={"name": "cifar10"}, model={"name": "resnet20", "normalize": True})
    network = build_model(made, synthetic("cifar10", "train"))
    buffers = {name: buffer.flatten().tolist() for name, buffer in network.named_buffers() if "normalize" in name}
    assert buffers["normalize.mean"] == pytest.approx(DATASETS["cifar10"].mean)
    assert buffers["normalize.std"] == pytest.approx(DATASETS["cifar10"].std)
