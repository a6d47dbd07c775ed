"""A sweep is the product of its axes: every point a case with a label on each, and a recipe that says the same."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from small_sweeps import small

from gossamer.errors import ConfigError
from gossamer.sweep.spec import Sweep, expand, load_sweep

BASE = small(objective={"name": "adversarial"}, method={"name": "random", "density": 0.1})


def sweep(axes: dict[str, Any], **more: Any) -> Sweep:
    return load_sweep({"base": BASE, "axes": axes, **more})


DENSITY = {"field": "method.density", "values": [0.1, 0.01]}


def test_axes_multiply_the_last_fastest():
    cases = expand(sweep({"density": DENSITY, "seed": {"seeds": 3}}))
    assert [str(case) for case in cases[:4]] == [
        "density=0.1, seed=0",
        "density=0.1, seed=1",
        "density=0.1, seed=2",
        "density=0.01, seed=0",
    ]
    assert len(cases) == 6
    assert [(case.recipe.method.options["density"], case.recipe.seed) for case in cases] == [
        (density, seed) for density in (0.1, 0.01) for seed in range(3)
    ]


def test_fields_of_a_zip_move_together():
    axis = {"zip": {"threat": ["linf:0.1", "linf:0.15"], "attack.steps": [5, 10]}}
    cases = expand(sweep({"strength": axis}))
    assert [(case.labels["strength"], case.recipe.threat, case.recipe.attack.options) for case in cases] == [
        ("linf:0.1", "linf:0.1", {"steps": 5}),
        ("linf:0.15", "linf:0.15", {"steps": 10}),
    ]


def test_a_list_names_sets_of_fields_and_sections_merge_as_in_recipes():
    axis = {
        "list": {
            "control": {"method": {"density": 0.5}},
            "bcs": {"method": {"name": "bcs", "density": 0.2}, "training.epochs": 3},
        }
    }
    control, bcs = expand(sweep({"what": axis}))
    assert (control.recipe.method.name, control.recipe.method.options) == ("random", {"density": 0.5})
    assert (bcs.recipe.method.name, bcs.recipe.method.options, bcs.recipe.training.epochs) == (
        "bcs",
        {"density": 0.2},
        3,
    )


def test_a_field_may_be_gone_with_its_section():
    axes = {
        "density": {"field": "method.density", "values": [0.5]},
        "method": {"list": {"dense": {"method": {"name": "dense"}}, "random": {"method.name": "random"}}},
    }
    dense, random = expand(load_sweep({"base": "random/digits-90", "axes": axes}))
    assert (dense.recipe.method.options, random.recipe.method.options) == ({}, {"density": 0.5})


BETAS = {"beta": {"field": "objective.beta", "values": [1.0, 3.0]}}
LOSSES = {"loss": {"list": {"trades": {"objective": {"name": "trades"}}, "mart": {"objective": {"name": "mart"}}}}}


@pytest.mark.parametrize("first", [{"axes": BETAS}, {"set": {"objective.beta": 1.0}}])
def test_a_field_that_a_later_section_would_take_is_not_lost(first: dict[str, Any]):
    sweep = {"base": "dense/digits-trades", **first, "axes": {**first.get("axes", {}), **LOSSES}}
    with pytest.raises(
        ConfigError, match=r"objective\.beta to be 1\.0, got nothing: a later axis replaces its section"
    ):
        expand(load_sweep(sweep))
    turned = expand(load_sweep({"base": "dense/digits-trades", "axes": {**LOSSES, **BETAS}}))
    assert [case.recipe.objective.options["beta"] for case in turned] == [1.0, 3.0, 1.0, 3.0]


METHODS = {"list": {"bcs": {"method": {"name": "bcs", "density": 0.2}}}}
OTHERS = {"list": {"random": {"method": {"name": "random"}}}}


def test_a_section_that_a_later_section_replaces_is_not_lost():
    with pytest.raises(
        ConfigError,
        match=r"axis first, point bcs: expected method\.name to be 'bcs', got 'random', set by a later axis",
    ):
        expand(sweep({"first": METHODS, "then": OTHERS}))
    (case,) = expand(sweep({"first": METHODS, "then": {"list": {"few": {"method": {"name": "bcs"}}}}}))
    assert case.recipe.method.options == {"density": 0.2}
    with pytest.raises(ConfigError, match=r"sweep, set: expected objective\.beta to be 1\.0, got nothing"):
        expand(load_sweep({"base": "dense/digits-trades", "set": {"objective": {"beta": 1.0}}, "axes": LOSSES}))


def test_what_is_set_holds_for_all_and_axes_come_after():
    cases = expand(sweep({"density": DENSITY}, set={"training.epochs": 7, "method.density": 0.9}))
    assert [(case.recipe.training.epochs, case.recipe.method.options["density"]) for case in cases] == [
        (7, 0.1),
        (7, 0.01),
    ]


RECIPES = {"recipes": {"bcs": "bcs/digits-90", "plain": "random/digits-90"}}


def test_an_axis_of_recipes_takes_the_place_of_the_base_and_what_is_set_holds_in_all():
    cases = expand(load_sweep({"set": {"training.epochs": 3}, "axes": {"run": RECIPES, "density": DENSITY}}))
    assert [(case.recipe.method.name, case.recipe.method.options["density"]) for case in cases] == [
        ("bcs", 0.1),
        ("bcs", 0.01),
        ("random", 0.1),
        ("random", 0.01),
    ]
    assert {case.recipe.training.epochs for case in cases} == {3}
    assert str(cases[0]) == "run=bcs, density=0.1"


def test_recipes_of_an_axis_lie_beside_the_sweep_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids" / "mine.yaml").write_text(yaml.safe_dump(small(method={"name": "random", "density": 0.3})))
    axes = {"run": {"recipes": {"mine": "mine.yaml", "bcs": "bcs/digits-90"}}}
    (tmp_path / "grids" / "grid.yaml").write_text(yaml.safe_dump({"axes": axes}, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    mine, bcs = expand(load_sweep("grids/grid.yaml"))
    assert (mine.recipe.method.options["density"], bcs.recipe.method.name) == (0.3, "bcs")


@pytest.mark.parametrize(
    "values",
    [
        {"base": BASE, "axes": {"run": RECIPES}},
        {"axes": {"run": RECIPES, "other": RECIPES}},
        {"axes": {"density": DENSITY}},
    ],
)
def test_a_case_has_one_base(values: dict[str, Any]):
    with pytest.raises(ConfigError, match="base: expected one: the sweep's, or that of one axis of recipes"):
        expand(load_sweep(values))


@pytest.mark.parametrize(
    ("conditions", "left"),
    [
        ({"skip": [{"density": 0.01, "seed": [0, 1]}]}, {(0.1, 0), (0.1, 1), (0.1, 2), (0.01, 2)}),
        ({"skip": [{"density": 0.01}, {"seed": 2}]}, {(0.1, 0), (0.1, 1)}),
        ({"only": [{"density": 0.01}, {"seed": 0}]}, {(0.01, 0), (0.01, 1), (0.01, 2), (0.1, 0)}),
        ({"only": [{"seed": 1}], "skip": [{"density": 0.1}]}, {(0.01, 1)}),
    ],
)
def test_conditions_leave_cases_out(conditions: dict[str, Any], left: set[tuple[float, int]]):
    cases = expand(sweep({"density": DENSITY, "seed": {"seeds": 3}}, **conditions))
    assert {(case.labels["density"], case.labels["seed"]) for case in cases} == left


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_as_many_cases_as_points(sizes: list[int]):
    fields = ["method.density", "attack.steps", "training.epochs"]
    axes = {
        str(number): {"field": fields[number], "values": [0.1 * k if number == 0 else k for k in range(1, size + 1)]}
        for number, size in enumerate(sizes)
    }
    cases = expand(sweep(axes))
    expected = 1
    for size in sizes:
        expected *= size
    assert len({str(case) for case in cases}) == len(cases) == expected


def test_a_file_stands_beside_its_base(tmp_path: Path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE))
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump({"base": "base.yaml", "axes": {"density": DENSITY}}))
    read = load_sweep(tmp_path / "grid.yaml")
    assert read.name == "grid"
    assert len(expand(read)) == 2
    shipped = load_sweep({"base": "random/digits-90", "axes": {"seed": {"seeds": [4, 5]}}})
    assert [case.recipe.seed for case in expand(shipped)] == [4, 5]


@pytest.mark.parametrize(
    ("axes", "more", "said"),
    [
        ({}, {}, "axes"),
        ({"a": {}}, {}, "one of: field and values; zip; list; seeds; recipes, got nothing"),
        ({"a": {"field": "seed"}}, {}, "one of: field and values"),
        ({"a": {"field": "seed", "values": [1], "seeds": 2}}, {}, "one of: field and values"),
        ({"a": {"field": "seed", "values": []}}, {}, "at least 1 item"),
        ({"a": {"seeds": 0}}, {}, "greater than 0"),
        ({"a": {"seeds": []}}, {}, "at least one point"),
        ({"a": {"zip": {"seed": [1], "threat": ["linf:0.1", "linf:0.2"]}}}, {}, "seed has 1, threat has 2"),
        ({"a": {"seeds": [3, 4, 3]}}, {}, "points with labels that differ; of a zip, values of its first field, got 3"),
        (
            {"a": {"zip": {"threat": ["linf:0.1", "linf:0.1"], "attack.steps": [5, 10]}}},
            {},
            "linf:0.1 more than once; remove it, or name the points",
        ),
        (
            {"a": {"seeds": 2}, "b": {"list": {"x": {"seed": 1}}}},
            {},
            "axis a, point 0: expected seed to be 0, got 1, set by a later axis; let one axis alone move seed",
        ),
        ({"a": {"feild": "seed"}}, {}, "did you mean field"),
        ({"a": {"field": "training..epochs", "values": [1]}}, {}, "field.subfield"),
        ({"density": DENSITY}, {"skip": [{"sed": 1}]}, "an axis: density, got sed"),
        ({"density": DENSITY}, {"skip": [{"density": 0.2}]}, "labels: 0.1, 0.01, got 0.2"),
        ({"density": DENSITY}, {"skip": [{"density": [0.1, 0.01]}]}, "at least one case"),
        ({"density": {"field": "method.density", "values": ["a"]}}, {"set": {"training.epochs": 0}}, "case density=a"),
        ({"density": DENSITY}, {"base": "random/digits-09"}, "did you mean random/digits-90"),
        ({"density": DENSITY}, {"colour": 1}, "unknown field"),
    ],
)
def test_what_cannot_be_is_refused_by_name(axes: dict[str, Any], more: dict[str, Any], said: str):
    with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
        expand(load_sweep({"base": BASE, "axes": axes, **more}))


def test_a_file_that_is_none_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"sweep .*none\.yaml: expected a readable file"):
        load_sweep(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"expected YAML"):
        load_sweep(tmp_path / "bad.yaml")
