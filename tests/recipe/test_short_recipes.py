"""Is there a short recipe on the digits for everything that a recipe may name?"""

from functools import cache

import pytest

from gossamer.methods.registry import METHODS
from gossamer.objectives.registry import OBJECTIVES
from gossamer.recipe.load import load_recipe, recipes
from gossamer.recipe.schema import Recipe


@cache
def short() -> tuple[Recipe, ...]:
    return tuple(load_recipe(name) for name in recipes() if "/digits" in name)


def test_every_method_has_one() -> None:
    assert {recipe.method.name for recipe in short()} == set(METHODS)


def test_every_objective_has_one() -> None:
    assert {recipe.objective.name for recipe in short()} == set(OBJECTIVES)


@pytest.mark.parametrize("option", ["overfitting", "average", "weight_perturbation", "probes"])
def test_every_option_of_training_has_one(option: str) -> None:
    assert any(getattr(recipe.training, option) for recipe in short())


def test_pseudo_labels_and_perturbed_scores_have_one() -> None:
    assert any(recipe.data.unlabelled for recipe in short())
    assert any(recipe.method.options.get("score_sharpness") for recipe in short())
    fast = load_recipe("robust-subnet/digits-90-fast")
    assert (fast.method.name, fast.objective.name) == ("robust-subnet", "stored")
    tickets = load_recipe("boosting-tickets/digits-90")
    assert tickets.method.options == {**tickets.method.options, "choose": "relative", "draw": "fgsm", "rewind_epoch": 0}
