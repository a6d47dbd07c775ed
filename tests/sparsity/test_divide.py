"""A budget against real layers: what it may not give them, and what it may."""

import math

import pytest

from gossamer.errors import ConfigError
from gossamer.models.registry import build
from gossamer.sparsity import targets
from gossamer.sparsity.budgets import (
    Adaptive,
    Budget,
    ErdosRenyi,
    Explicit,
    Funnel,
    LeastWork,
    Shapes,
    Uniform,
    check_counts,
    divide,
)

SHAPES = {"conv": (4, 2, 3, 3), "wide": (16, 4, 3, 3), "fc": (10, 16)}


def nothing(shapes: Shapes, density: float) -> dict[str, int]:
    del density
    return dict.fromkeys(shapes, 0)


def too_much(shapes: Shapes, density: float) -> dict[str, int]:
    del density
    return {name: math.prod(shape) + 1 for name, shape in shapes.items()}


@pytest.mark.parametrize(
    "rule", [Uniform(), Adaptive(p=1.0), ErdosRenyi(kernel=False), Funnel(), Explicit(densities={"fc": 0.02})]
)
def test_a_layer_that_would_lose_every_weight_is_refused_by_name(rule: Budget) -> None:
    shapes = {"fc": (5, 4), "tiny": (2, 2)}
    with pytest.raises(ConfigError, match=r"density for \w+: expected at least one of its \d+ weights, got none at"):
        divide(rule, shapes, 0.05)


def test_every_layer_of_a_large_network_keeps_a_weight_at_one_in_five_hundred() -> None:
    layers = targets(build("resnet34", num_classes=10, in_channels=3, image_size=32))
    shapes = {layer.name: tuple(layer.parameter.shape) for layer in layers}
    assert min(divide(Uniform(), shapes, 0.002).values()) == int(0.002 * 1728)


def test_a_layer_is_cut_away_where_that_was_asked_for() -> None:
    assert divide(Explicit(densities={"conv": 0.5, "fc": 0.0}), SHAPES, 0.1) == {"conv": 36, "wide": 44, "fc": 0}
    costs = {"conv": 2.0, "wide": 3.0, "fc": 1.0}
    assert divide(LeastWork(floor=0.0, costs=costs), SHAPES, 0.1) == {"conv": 0, "wide": 0, "fc": 80}
    with pytest.raises(ConfigError, match=r"method\.density for conv: .*, got none at density 0\.1"):
        divide(LeastWork(floor=0.01, costs=costs), SHAPES, 0.1)
    assert divide(nothing, SHAPES, 0.1) == {"conv": 0, "wide": 0, "fc": 0}


def test_what_a_foreign_budget_gives_too_much_of_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"method\.budget of conv: expected between 0 and 72 weights, got 73"):
        divide(too_much, SHAPES, 0.1)


def test_counts_of_other_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"method\.budget: expected a number of weights for each of conv, fc, got fc"):
        check_counts({"fc": 1}, {"conv": 4, "fc": 10})
