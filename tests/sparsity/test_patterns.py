"""Patterns: what each keeps of a matrix written out by hand, and what holds for all of them on any kernel."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gossamer.errors import ConfigError
from gossamer.sparsity.budgets import Explicit, Shapes, Uniform
from gossamer.sparsity.choose import best_of_all
from gossamer.sparsity.patterns import IRREGULAR, PATTERNS, Irregular, NofM, Tiles, on_the_way, pattern, project

MATRIX = torch.tensor([[4.0, 1.0, 0.0, 3.0], [5.0, -2.0, 0.0, 0.0], [0.0, 6.0, 1.0, -1.0]])


def kept(spec: Any, density: float, weights: Tensor = MATRIX, *, scope: str = "layer") -> list[list[float]]:
    budget = Uniform() if scope == "layer" else None
    return project({"w": weights}, pattern(spec), density, budget)["w"].tolist()


def test_irregular_keeps_the_largest_weights() -> None:
    assert kept("irregular", 0.25) == [[4, 0, 0, 0], [5, 0, 0, 0], [0, 6, 0, 0]]


def test_a_column_is_kept_by_its_norm() -> None:
    # Squared norms of the columns: 41, 41, 1, 10; half of four columns.
    assert kept("column", 0.5) == [[4, 1, 0, 0], [5, -2, 0, 0], [0, 6, 0, 0]]


def test_a_filter_is_kept_by_its_norm() -> None:
    # Squared norms of the rows: 26, 29, 38; two thirds of twelve weights are two rows.
    assert kept("filter", 0.67) == [[0, 0, 0, 0], [5, -2, 0, 0], [0, 6, 1, -1]]


def test_a_block_at_the_edge_competes_by_its_mean() -> None:
    # Tiles of two rows and two columns; the lower ones have one row. Mean squares: 11.5, 2.25 / 18, 1.
    spec = {"name": "block", "height": 2, "width": 2}
    assert kept(spec, 0.5) == [[4, 1, 0, 0], [5, -2, 0, 0], [0, 6, 0, 0]]


def test_two_of_four_along_the_input_and_fewer_where_the_budget_says_so() -> None:
    assert kept("2:4", 0.5) == [[4, 0, 0, 3], [5, -2, 0, 0], [0, 6, 1, 0]]
    assert kept("2:4", 0.25) == [[4, 0, 0, 0], [5, 0, 0, 0], [0, 6, 0, 0]]
    kernel = torch.arange(1.0, 25.0).reshape(1, 6, 2, 2)
    chosen = project({"w": kernel}, NofM(n=2, m=4), 0.5, Uniform())["w"] != 0
    # Of channels 0 to 3 the last two, and of the short group of channels 4 and 5 both; 12 of 24 weights in all.
    assert chosen[0, :, 0, 0].tolist() == [False, False, False, True, True, True]
    assert chosen.sum() == 12


def test_over_the_whole_network_tiles_of_different_size_compete_by_their_mean() -> None:
    weights = {"a": torch.tensor([[3.0, 3.0]]), "b": torch.tensor([[2.0, 2.0, 2.0], [4.0, 0.0, 0.0]])}
    # Mean squares of the rows: 9, and 4, 5.33: the budget of five holds the rows of two and of three weights.
    found = project(weights, pattern("filter"), 0.63, None)
    assert found["a"].tolist() == [[3, 3]]
    assert found["b"].tolist() == [[0, 0, 0], [4, 0, 0]]


kernels = st.lists(
    st.sampled_from([(3, 5), (8, 4), (4, 3, 2, 2), (6, 8, 3, 3), (1, 7), (10, 1, 5, 5)]), min_size=1, max_size=3
)
specs: list[Any] = ["irregular", "column", "filter", "2:4", "1:3", {"name": "block", "height": 2, "width": 2}]


@given(kernels, st.sampled_from(specs), st.sampled_from(["global", "layer"]), st.integers(0, 99), st.booleans())
@settings(deadline=None, max_examples=40)
def test_every_projection_is_idempotent_within_its_budget_and_keeps_values(
    shapes: list[tuple[int, ...]], spec: Any, scope: str, seed: int, tied: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = {str(i): torch.randn(shape, generator=generator) for i, shape in enumerate(shapes)}
    if tied:
        weights = {name: weight.round() for name, weight in weights.items()}
    density, budget = 0.3, Uniform() if scope == "layer" else None
    sides = [weight.flatten(1).shape for weight in weights.values()]
    least = {"filter": [columns for _, columns in sides], "column": [rows for rows, _ in sides]}.get(str(spec), [])
    if budget and any(
        int(density * rows * columns) < tile for (rows, columns), tile in zip(sides, least, strict=False)
    ):
        with pytest.raises(ConfigError, match="room for one tile"):
            project(weights, pattern(spec), density, budget)
        return
    once = project(weights, pattern(spec), density, budget)
    twice = project(once, pattern(spec), density, budget)
    assert all(torch.equal(once[name], twice[name]) for name in once)
    assert all(torch.equal(once[name][once[name] != 0], weights[name][once[name] != 0]) for name in once)
    masks = pattern(spec)({name: weight.abs() for name, weight in weights.items()}, density, budget)
    limit = int(density * sum(weight.numel() for weight in weights.values()))
    assert masks.kept <= limit
    if spec == "irregular" and scope == "global":
        assert masks.kept == limit
    if scope == "layer":
        assert all(masks.kept_per_layer[name] <= int(density * weight.numel()) for name, weight in weights.items())


@given(st.integers(1, 60), st.integers(0, 999), st.integers(1, 3))
@settings(deadline=None, max_examples=25)
def test_the_best_scores_are_those_of_a_stable_sort(n: int, seed: int, decimals: int) -> None:
    scores = torch.randn(n, generator=torch.Generator().manual_seed(seed)).mul(decimals).round()
    for keep in {0, 1, n // 2, n}:
        expected = torch.zeros(n, dtype=torch.bool)
        expected[torch.sort(scores, descending=True, stable=True).indices[:keep]] = True
        assert torch.equal(best_of_all({"w": scores}, keep)["w"], expected)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method\.pattern: expected one of irregular"):
        pattern("stripes")
    with pytest.raises(ConfigError, match="n of m with 1 <= n <= m, got 5:4"):
        pattern("5:4")
    with pytest.raises(ConfigError, match=r"method\.pattern\.width: expected at least 1, got 0"):
        pattern({"name": "block", "height": 2, "width": 0})
    with pytest.raises(ConfigError, match="whole numbers for height and width"):
        pattern("block")
    with pytest.raises(ConfigError, match="no options for column"):
        pattern({"name": "column", "width": 2})
    with pytest.raises(ConfigError, match=r"method\.density: expected at most 0\.5, which is all that 2:4 admits"):
        kept("2:4", 0.6)
    with pytest.raises(ConfigError, match="for w: expected room for one tile of 4 weights, got a budget of 3"):
        kept("filter", 0.25)


@pytest.mark.parametrize("spec", ["column", "filter", "2:4"])
def test_a_budget_beyond_a_layer_is_refused_by_name(spec: str) -> None:
    def greedy(shapes: Shapes, density: float) -> dict[str, int]:
        del density
        return dict.fromkeys(shapes, 13)

    with pytest.raises(ConfigError, match=r"method\.budget of w: expected between 0 and 12 weights, got 13"):
        project({"w": MATRIX}, pattern(spec), 0.5, greedy)


@pytest.mark.parametrize("spec", ["column", "filter", "2:4"])
def test_a_layer_is_cut_away_only_where_its_own_density_is_zero(spec: str) -> None:
    weights = {"w": MATRIX, "v": MATRIX}
    projected = project(weights, pattern(spec), 0.25, Explicit(densities={"v": 0.0}))
    assert not projected["v"].any()
    assert projected["w"].any()
    with pytest.raises(ConfigError, match=r"method\.density for w: expected at least one of its 12 weights, got none"):
        kept(spec, 0.05)


def test_patterns_are_values() -> None:
    assert pattern("irregular") == Irregular()
    assert pattern("filter") == Tiles(height=1)
    assert pattern({"name": "n-of-m", "n": 1, "m": 2}) == pattern("1:2") == NofM(n=1, m=2)
    assert set(PATTERNS) == {"irregular", "column", "filter", "block", "n-of-m"}


def test_on_the_way_what_the_pattern_would_not_keep_goes_first() -> None:
    scores = {"fc": torch.tensor([[9.0, 8.0, 7.0, 6.0, 1.0, 2.0, 3.0, 4.0]])}

    def left(density: float) -> list[int]:
        masks = on_the_way(pattern("2:4"), scores, density, None)
        return masks["fc"].long().flatten().tolist()

    # 2:4 keeps 9, 8, 3 and 4: of the others 1, 2, 6, 7 go in this order.
    assert left(1.0) == [1, 1, 1, 1, 1, 1, 1, 1]
    assert left(0.75) == [1, 1, 1, 1, 0, 0, 1, 1]
    assert left(0.625) == [1, 1, 1, 0, 0, 0, 1, 1]
    assert left(0.5) == [1, 1, 0, 0, 0, 0, 1, 1]
    assert left(0.25) == [1, 1, 0, 0, 0, 0, 0, 0]
    alone = on_the_way(IRREGULAR, scores, 0.75, None)
    assert torch.equal(alone["fc"], IRREGULAR(scores, 0.75, None)["fc"])
