import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gossamer.errors import ConfigError
from gossamer.models.registry import build
from gossamer.sparsity import targets
from gossamer.sparsity.budgets import (
    BUDGETS,
    IGQ,
    Adaptive,
    ErdosRenyi,
    Explicit,
    Funnel,
    Uniform,
    budget,
    check_counts,
    check_scope,
)
from gossamer.sparsity.choose import choose

SHAPES = {"conv": (4, 2, 3, 3), "wide": (16, 4, 3, 3), "fc": (10, 16)}


def shapes_of(name: str) -> dict[str, tuple[int, ...]]:
    layers = targets(build(name, num_classes=10, in_channels=3, image_size=32))
    return {layer.name: tuple(layer.parameter.shape) for layer in layers}


@pytest.fixture(scope="module")
def resnet34() -> dict[str, tuple[int, ...]]:
    return shapes_of("resnet34")


# Reference values for ResNet-34 with 1 % of 21,265,088 weights kept, from the authors' rule.
@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (0.0, {"conv1.weight": 1728, "fc.weight": 5120, "layer1.0.conv1.weight": 5880, "layer4.1.conv1.weight": 5880}),
        (
            0.1,
            {
                "conv1.weight": 1728,
                "fc.weight": 3965,
                "layer1.0.conv1.weight": 4831,
                "layer2.0.conv1.weight": 5178,
                "layer2.0.conv2.weight": 5550,
                "layer3.0.conv1.weight": 5948,
                "layer3.0.conv2.weight": 6375,
                "layer4.0.conv1.weight": 6833,
                "layer4.0.conv2.weight": 7324,
                "layer2.0.shortcut.0.weight": 4156,
                "layer4.0.shortcut.0.weight": 5485,
            },
        ),
        (
            0.5,
            {
                "conv1.weight": 390,
                "fc.weight": 672,
                "layer1.0.conv1.weight": 1805,
                "layer4.0.conv2.weight": 14444,
            },
        ),
        (
            1.0,
            {"conv1.weight": 17, "fc.weight": 51, "layer1.0.conv1.weight": 368, "layer4.0.conv2.weight": 23595},
        ),
    ],
)
def test_adaptive_budgets_of_resnet34_are_the_reference_ones(
    resnet34: dict[str, tuple[int, ...]], p: float, expected: dict[str, int]
) -> None:
    counts = Adaptive(p=p)(resnet34, 0.01)
    assert {name: counts[name] for name in expected} == expected
    assert 212_650 - 37 <= sum(counts.values()) <= 212_650


def test_adaptive_with_p_0_1_keeps_the_published_total(resnet34: dict[str, tuple[int, ...]]) -> None:
    assert sum(Adaptive(p=0.1)(resnet34, 0.01).values()) == 212_649


def test_half_of_resnet34_in_equal_counts_leaves_twenty_layers_dense(resnet34: dict[str, tuple[int, ...]]) -> None:
    counts = Adaptive(p=0.0)(resnet34, 0.5)
    assert sum(counts[name] == math.prod(shape) for name, shape in resnet34.items()) == 20


def test_igq_densities_of_resnet18_are_the_derived_ones() -> None:
    shapes = shapes_of("resnet18")
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    tenth = IGQ().densities(sizes, 0.2)
    wanted = {
        "conv1.weight": 0.994,
        "layer1.0.conv1.weight": 0.879,
        "layer2.0.conv1.weight": 0.784,
        "layer3.0.conv2.weight": 0.312,
        "layer4.0.conv2.weight": 0.102,
        "layer4.0.shortcut.0.weight": 0.671,
        "fc.weight": 0.981,
    }
    assert {name: round(tenth[name], 3) for name in wanted} == wanted
    assert IGQ().densities(sizes, 0.01)["layer4.0.conv2.weight"] == pytest.approx(0.0026, abs=5e-5)


def test_erdos_renyi_by_hand() -> None:
    # Two linear layers: (4 + 6) / 24 and (6 + 2) / 12, e with 24 d1 + 12 d2 = 9: e * (10 + 8) = 9, e = 1/2.
    counts = ErdosRenyi(kernel=False)({"one": (6, 4), "two": (2, 6)}, 0.25)
    assert counts == {"one": int(0.5 * 10), "two": int(0.5 * 8)}
    with_kernel = ErdosRenyi()({"conv": (4, 2, 3, 3), "fc": (10, 16)}, 0.1)
    # e * (72 * 12/72 + 160 * 26/160) = 23.2, so e = 23.2 / 38.
    assert with_kernel == {"conv": int(12 * 23.2 / 38), "fc": int(26 * 23.2 / 38)}


def test_erdos_renyi_leaves_full_layers_dense_and_shares_the_rest() -> None:
    counts = ErdosRenyi(kernel=False)({"small": (2, 2), "large": (100, 100)}, 0.5)
    assert counts == {"small": 4, "large": int(0.5 * 10_004) - 4}


def test_a_funnel_falls_strictly() -> None:
    shapes = {f"layer{i}": (50, 50) for i in range(6)}
    counts = list(Funnel(ratio=0.8)(shapes, 0.2).values())
    assert all(one > next_one for one, next_one in itertools.pairwise(counts))


@given(ratio=st.floats(0.05, 0.99), density=st.floats(0.02, 0.98))
def test_a_funnel_falls_strictly_also_where_its_first_layer_is_whole(ratio: float, density: float) -> None:
    shapes = {f"layer{i}": (100, 10 + 40 * (i % 3)) for i in range(6)}
    sizes = [100 * (10 + 40 * (i % 3)) for i in range(6)]
    counts = list(Funnel(ratio=ratio)(shapes, density).values())
    shares = [count / size for count, size in zip(counts, sizes, strict=True)]
    assert shares[0] <= 1.0
    # As far as counts can show it: they are rounded down to whole weights.
    assert all(one - after >= -1 / 1_000 for one, after in itertools.pairwise(shares))
    assert shares[0] > shares[-1] or density > 0.95
    assert abs(sum(counts) - density * sum(sizes)) <= len(sizes) + 1


def test_a_funnel_of_half_the_weights_has_one_whole_layer() -> None:
    counts = list(Funnel()({f"layer{i}": (50, 50) for i in range(30)}, 0.5).values())
    assert counts[0] == 2_500
    assert all(one > after for one, after in itertools.pairwise(counts))


def test_explicit_densities_leave_the_rest_to_the_others() -> None:
    counts = Explicit(densities={"conv": 0.5, "fc": 0.0})(SHAPES, 0.1)
    # int(0.1 * 808) = 80 in all, 36 of them in conv, so 44 of 576 in the wide layer.
    assert counts == {"conv": 36, "wide": 44, "fc": 0}


def test_explicit_densities_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="matches a layer"):
        Explicit(densities={"convolution": 0.5})(SHAPES, 0.1)
    with pytest.raises(ConfigError, match="leave between 0 and"):
        Explicit(densities={"wide": 0.9})(SHAPES, 0.1)
    with pytest.raises(ConfigError, match=r"\[0, 1\]"):
        Explicit(densities={"wide": 1.5})


@given(
    name=st.sampled_from([each for each in BUDGETS if each not in ("explicit", "least-work")]),
    density=st.floats(0.01, 1.0),
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=6),
)
def test_every_budget_stays_within_its_layers_and_near_the_whole(
    name: str, density: float, sizes: list[tuple[int, int]]
) -> None:
    shapes = {f"layer{i}": shape for i, shape in enumerate(sizes)}
    counts = budget(name)(shapes, density)
    total = sum(math.prod(shape) for shape in sizes)
    check_counts(counts, {key: math.prod(shape) for key, shape in shapes.items()})
    assert density * total - 2 * len(sizes) - 1 <= sum(counts.values()) <= density * total + len(sizes) + 1


def test_budgets_by_name_take_options() -> None:
    assert budget("adaptive") == Adaptive()
    assert budget({"name": "adaptive", "p": 0.5}) == Adaptive(p=0.5)
    assert budget("er") == ErdosRenyi(kernel=False)
    assert budget("uniform") == Uniform()


@pytest.mark.parametrize("wrong", ["layerwise", {"p": 0.5}, {"name": "adaptive", "q": 1}, {"name": "adaptive", "p": 2}])
def test_impossible_budgets_are_refused(wrong: object) -> None:
    with pytest.raises(ConfigError, match=r"method\.budget"):
        budget(wrong)  # type: ignore[arg-type]


def test_counts_beyond_a_layer_are_refused() -> None:
    with pytest.raises(ConfigError, match="between 0 and 10 weights"):
        check_counts({"fc": 11}, {"fc": 10})


@pytest.mark.parametrize("budget", ["er", {"name": "adaptive", "p": 0.1}])
def test_a_budget_that_a_global_choice_would_never_ask_is_refused(budget: Any) -> None:
    check_scope("layer", budget)
    check_scope("global", "uniform")
    with pytest.raises(ConfigError, match="scope: layer"):
        check_scope("global", budget)
    with pytest.raises(ConfigError, match="global or layer"):
        check_scope("both", "uniform")


def test_a_budget_of_more_weights_than_a_layer_has_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="conv"):
        choose({"conv": torch.rand(2, 2)}, 0.5, lambda shapes, density: {"conv": 5})


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"name": "adaptive", "p": "0.1"}, "method.budget.p"),
        ({"name": "adaptive", "p": True}, "method.budget.p"),
        ({"name": "funnel", "ratio": "0.9"}, "method.budget.ratio"),
        ({"name": "funnel", "ratio": 1}, "method.budget.ratio"),
        ({"name": "explicit", "densities": 0.1}, "method.budget.densities"),
        ({"name": "explicit", "densities": {"fc": "half"}}, "method.budget.densities.fc"),
        ({"name": "least-work", "floor": "0.1"}, "floor in"),
        ({"name": "least-work", "ceiling": 0}, "ceiling in"),
        ({"name": "least-work", "costs": 1}, "method.budget.costs"),
        ({"name": "least-work", "costs": {"fc": -1.0}}, "method.budget.costs.fc"),
    ],
)
def test_a_value_of_another_type_is_told_by_its_field(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field.replace(".", "[.]")) as told:
        budget(spec)
    assert told.value.remedy.startswith(("write", "leave"))


def test_what_is_wrong_with_a_budget_is_told_before_that_a_scope_asks_for_none() -> None:
    with pytest.raises(ConfigError, match=r"method\.budget\.p"):
        check_scope("global", {"name": "adaptive", "p": 1.5})
    with pytest.raises(ConfigError, match="scope: layer"):
        check_scope("global", {"name": "adaptive", "p": 0.5})
