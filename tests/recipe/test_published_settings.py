"""What shipped recipes say of their sources: shares of convolutions, attacks, schedules, that a reader could check."""

import math
from functools import cache
from typing import Any

import pytest
import torch

from gossamer.attacks.pgd import PGD
from gossamer.methods.robust_admm import constraint
from gossamer.models.registry import build as build_model
from gossamer.objectives.adversarial import Adversarial
from gossamer.objectives.registry import build as build_objective
from gossamer.objectives.stored import Stored
from gossamer.recipe.build import build_threat, build_training_attack
from gossamer.recipe.load import load_recipe, recipes
from gossamer.sparsity import targets
from gossamer.training import schedules

SHIPPED = recipes()
DENSE_LINEAR = [
    name for name in SHIPPED if name.startswith(("pwoa/", "robust-admm/")) and not name.endswith("digits-90")
]


@cache
def shapes_of(network: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = build_model(network, num_classes=10, in_channels=3, image_size=32)
    return {layer.name: tuple(layer.parameter.shape) for layer in targets(model)}


def attack_of(name: str) -> Any:
    recipe = load_recipe(name)
    objective = recipe.objective
    threat = build_threat(recipe)
    return build_training_attack(recipe, build_objective(objective.name, threat=threat, **objective.options))


def test_methods_that_leave_linear_layers_dense_have_recipes() -> None:
    assert len(DENSE_LINEAR) == 24


def test_large_images_keep_an_eighth_of_the_resolution_of_their_perturbations() -> None:
    names = [name for name in SHIPPED if "imagenet100" in name]
    assert len(names) == 19
    for name in names:
        recipe = load_recipe(name)
        objective = build_objective("stored", threat=build_threat(recipe), **recipe.objective.options)
        attack = attack_of(name)
        assert isinstance(objective, Stored)
        assert (objective.pooled, objective.base) == (8, Adversarial(label_smoothing=0.1))
        assert attack.threat.eps == pytest.approx(2 / 255)
        assert attack.step.size(attack.threat.eps, 1) == pytest.approx(1 / 255)
        assert recipe.model.options["stem"] == "imagenet"


@pytest.mark.parametrize("name", DENSE_LINEAR)
def test_every_convolution_keeps_the_share_that_the_claim_says_and_linear_layers_all(name: str) -> None:
    recipe = load_recipe(name)
    shapes, options = shapes_of(recipe.model.name), recipe.method.options
    kept_share = 1.0 - int(name.rsplit("-", 1)[1]) / 100
    filters = options.get("pattern") == "filter"
    assert filters == ("filters" in name)
    budget = constraint(options.get("pattern", "irregular"), "uniform", "dense").budget
    assert budget is not None
    counts = budget(shapes, options["density"])
    for key, shape in shapes.items():
        size = math.prod(shape)
        if len(shape) == 2:
            assert counts[key] == size
        elif filters:
            # As many whole filters as fit into the layer's budget.
            assert counts[key] // math.prod(shape[1:]) == math.floor(kept_share * shape[0] + 1e-9)
        else:
            assert abs(counts[key] - kept_share * size) < 2
    percent = recipe.claim.split("(")[1].split(" %")[0]
    assert float(percent) == pytest.approx(100 * options["density"], abs=0.005)


def test_subnetworks_are_searched_under_the_released_attacks() -> None:
    slow, fast = attack_of("robust-subnet/resnet34-cifar10-99"), attack_of("robust-subnet/resnet34-cifar10-99-fast")
    assert (slow.returns, slow.judge_final, slow.steps) == ("best", False, 10)
    assert isinstance(fast, PGD)
    assert fast.size == pytest.approx(4 / 255)
    assert fast.steps == 1
    assert attack_of("robust-subnet/resnet34-cifar100-99-fast").size == pytest.approx(2 / 255)
    recipe = load_recipe("robust-subnet/resnet34-cifar10-99-fast")
    assert recipe.attack.batch_norm == "train"
    assert recipe.objective.options == {"update": "attack", "start": "random", "reset_every": 0}


@pytest.mark.parametrize("name", [each for each in SHIPPED if each.startswith("atmc/resnet") and "cifar" in each])
def test_factors_train_under_plain_ascent_from_the_image(name: str) -> None:
    attack, plain = attack_of(name), PGD(threat=build_threat(load_recipe(name)))
    assert (attack.returns, attack.judge_final) == ("last", True)
    images = torch.rand(2, 3, 4, 4)
    assert torch.equal(attack.start(attack.threat, images, None), images)
    assert attack.threat == plain.threat


@pytest.mark.parametrize("name", [each for each in SHIPPED if each.startswith("harp/") and "digits" not in each])
def test_the_published_search_of_rates_clips_nothing(name: str) -> None:
    assert load_recipe(name).method.options["rate_clip"] is None


@pytest.mark.parametrize("name", [each for each in SHIPPED if each.startswith("one-shot-admm/") and "-eps" in each])
def test_one_shot_admm_trains_the_networks_of_its_source_at_a_rate_that_drops_every_ten_epochs(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.model.name in ("resnet34", "mobilenetv2")
    assert recipe.model.name in name
    spec = recipe.training.schedule
    schedule = schedules.build(spec.name, **spec.options)
    rates = [schedule(391 * epoch + 200, 391 * 200, 391) for epoch in range(200)]
    assert rates == pytest.approx([0.8 ** (epoch // 10) for epoch in range(200)])


def test_a_wide_resnet_of_the_rewinding_thesis_has_eight_times_the_channels() -> None:
    recipe = load_recipe("rewinding/resnet20-width8-cifar10-4.4-magnitude")
    with torch.device("meta"):
        model = build_model(recipe.model.name, num_classes=10, in_channels=3, image_size=32, **recipe.model.options)
    assert sum(parameter.numel() for parameter in model.parameters()) == 17_124_490
    assert recipe.method.options == {"density": 0.044, "rewind_epoch": 8, "choose": "magnitude"}


def test_svhn_is_cropped_and_flipped_as_cifar_is_and_attacked_on_what_the_benchmark_takes() -> None:
    """A recipe that names another data set loses what the one it extends says of the first."""
    names = [name for name in SHIPPED if "svhn" in name and not name.startswith(("bcs/", "dense/"))]
    assert len(names) == 35
    for name in names:
        recipe = load_recipe(name)
        assert (recipe.data.augmentation.crop, recipe.data.augmentation.flip) == (4, 0.5), name
        assert recipe.evaluation[-1].n == 10_000, name
