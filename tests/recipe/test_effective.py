from itertools import groupby
from typing import Any

import pytest

from gossamer.recipe.effective import differing, effective, flat, mixed
from gossamer.recipe.load import load_recipe, recipes, validate

MINIMAL: dict[str, Any] = {
    "data": {"name": "digits"},
    "model": {"name": "digits-cnn"},
    "threat": "linf:0.15",
    "objective": {"name": "adversarial"},
    "method": {"name": "bcs", "density": 0.1},
}


def values(**changes: Any) -> dict[str, Any]:
    return effective(validate({**MINIMAL, **changes}))


def test_defaults_are_filled_in() -> None:
    found = values()
    assert found["method.sigma"] == 1e-6
    assert (found["training.optimizer.kind"], found["training.optimizer.weight_decay"]) == ("decay-first-sgd", 1e-3)
    assert (found["attack.kind"], found["attack.restarts"]) == ("PGD", 1)
    assert "attack.threat" not in found
    assert "model.num_classes" not in found


def test_saying_a_default_is_no_difference() -> None:
    said = values(method={"name": "bcs", "density": 0.1, "sigma": 1e-6}, name="other", claim="better")
    assert differing([values()], [said]) == []


def test_what_differs_is_named_field_by_field_section_by_section() -> None:
    other = values(method={"name": "random", "density": 0.2}, training={"epochs": 3})
    found = {each.field: (each.a, each.b) for each in differing([values()], [other])}
    assert found["method.name"] == (("bcs",), ("random",))
    assert found["method.density"] == ((0.1,), (0.2,))
    assert found["method.sigma"] == ((1e-6,), (None,))
    assert found["training.epochs"] == ((1,), (3,))
    sections = [field.partition(".")[0] for field in found]
    assert [section for section, _ in groupby(sections)] == ["method", "training"]


def test_several_runs_of_a_side_are_compared_as_a_set() -> None:
    seeds = [values(seed=seed) for seed in (0, 1)]
    assert differing(seeds, seeds[::-1]) == []
    assert mixed(seeds) == ["seed"]
    (seed,) = differing(seeds, seeds[:1])
    assert (seed.a, seed.b) == ((0, 1), (0,))


def test_code_of_a_users_own_is_not_imported() -> None:
    found = values(objective={"name": "no.such:thing", "weight": 2})
    assert (found["objective.name"], found["objective.weight"]) == ("no.such:thing", 2)
    assert "method.sigma" not in found


def test_one_and_one_point_are_one_number() -> None:
    assert flat({"a": {"b": 1.0}, "c": [1]}) == {"a.b": 1, "c": [1]}


@pytest.mark.parametrize("name", [name for name in recipes() if "digits" in name])
def test_every_recipe_of_the_digits_has_effective_values(name: str) -> None:
    assert effective(load_recipe(name))["method.name"]
