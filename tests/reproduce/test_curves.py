"""What is drawn of a rebuilt entry as curves: both sides on one figure, panels of other axes, a reference in all."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_standing import stand

from gossamer.report import palette
from gossamer.reproduce.curves import LEVEL, curves
from gossamer.reproduce.pictured import Pictured
from gossamer.reproduce.provenance import Made
from gossamer.reproduce.published import At, Entry, Figure, load_entry
from gossamer.reproduce.reading import Number
from gossamer.reproduce.standing import Rebuilt, Row, rebuild


def with_figure(rebuilt: Rebuilt, **changes: Any) -> Rebuilt:
    figure = Figure.model_validate({"x": "sparsity", "y": "robust", "lines": "method", **changes})
    fields = {**vars(rebuilt), "entry": rebuilt.entry.model_copy(update={"figure": figure})}
    return Rebuilt(**fields)


def test_ours_and_published_are_on_one_figure(tmp_path: Path) -> None:
    (chart,) = curves(with_figure(stand(tmp_path)), "key")
    names = [trace["name"] for trace in chart.figure["data"]]
    assert names == ["bcs, published", "bcs, ours", "random, published", "random, ours", "theirs, published"]
    printed, own = chart.figure["data"][:2]
    assert (printed["x"], printed["y"]) == ([90], [80.0])
    assert printed["line"]["dash"] == "dash"
    assert own["y"] == [80.0]
    assert own["error_y"]["array"][0] == pytest.approx(14.33, abs=0.01)
    assert chart.figure["layout"]["xaxis"]["type"] == "linear"


def test_a_measure_may_lie_on_x(tmp_path: Path) -> None:
    (chart,) = curves(with_figure(stand(tmp_path), x="connections", log_x=True), "key")
    own = [trace for trace in chart.figure["data"] if trace["name"] == "bcs, ours"]
    assert own[0]["x"] == [100.5]
    # What was printed without connections has no place on this x.
    assert "theirs, published" not in {trace["name"] for trace in chart.figure["data"]}


def test_lines_join_points_in_the_order_of_x(tmp_path: Path) -> None:
    rebuilt = with_figure(stand(tmp_path))
    own = [row for row in rebuilt.rows if row.at["method"] == "bcs"]
    others = [replace(row, at={**row.at, "sparsity": x}) for x in (99, 50) for row in own]
    (chart,) = curves(Rebuilt(**{**vars(rebuilt), "rows": (*rebuilt.rows, *others)}), "key")
    lines = {trace["name"]: trace["x"] for trace in chart.figure["data"]}
    assert lines["bcs, published"] == lines["bcs, ours"] == [50, 90, 99]


def test_other_axes_make_panels() -> None:
    entry = load_entry("bcs/table-5")
    found = curves(rebuild(entry, None, None, Path("nowhere")), "key")
    assert [chart.title for chart in found] == ["data cifar10", "data svhn"]
    assert found[0].figure["layout"]["xaxis"]["type"] == "log"
    assert found[0].figure["data"][0]["x"] == [10, 20, 50, 250, 500]
    assert found[0].figure["data"][0]["name"] == "sparsity 0, published"


def row(at: At, measure: str, ours: float | None, published: float | None = None) -> Row:
    number = None if ours is None else Number(value=ours, seeds=1, low=ours - 1, high=ours + 1)
    return Row(at=at, measure=measure, published=published, ours=number, difference=None, verdict="ours alone")


def rebuilt_of(entry: Entry, rows: Sequence[Row]) -> Rebuilt:
    return Rebuilt(
        entry=entry,
        comparable=False,
        note="",
        missing="",
        rows=rows,
        claims=[],
        runs=0,
        of=0,
        spent={},
        made=Made(),
        pictured=Pictured(),
    )


def drawn(name: str, rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Return the traces of each panel by its title and their names."""
    found = curves(rebuilt_of(load_entry(name), rows), "key")
    return {chart.title: {trace["name"]: trace for trace in chart.figure["data"]} for chart in found}


def test_points_of_a_line_lie_along_axes_that_a_measure_stands_for() -> None:
    """A curve over nonzeros has a point for each density, and not a panel."""
    rows = [
        row({"model": model, "density": density, "steps": steps}, measure, value)
        for steps in (0, 8)
        for model, weights in (("resnet20", 100), ("wideresnet20", 1000))
        for density in (1.0, 0.1)
        for measure, value in (("nonzeros", density * weights), ("robust", 50 + density - steps))
    ]
    panels = drawn("rewinding/open-nonzeros", rows)
    assert list(panels) == ["steps 0", "steps 8"]
    assert list(panels["steps 8"]) == ["resnet20, ours", "wideresnet20, ours"]
    small, wide = panels["steps 8"].values()
    assert (small["x"], small["y"]) == ([10, 100], [pytest.approx(42.1), 43])
    assert wide["x"] == [100, 1000]


def test_lines_of_two_axes_have_a_colour_for_the_first_and_a_symbol_for_the_second() -> None:
    """Transfer from one source is one panel, with a line for each target and density (S4, figure 4.6)."""
    rows = [
        row(
            {"source": source, "target": target, "target_density": density, "attack_eps": eps},
            "robust",
            50 - 100 * eps,
            60,
        )
        for source in ("resnet34", "mobilenetv2")
        for target in ("resnet34", "mobilenetv2")
        for density in (1.0, 0.1)
        for eps in (0.03, 0.1)
    ]
    panels = drawn("one-shot-admm/figure-4.6", rows)
    assert list(panels) == ["source resnet34", "source mobilenetv2"]
    lines = {
        name: (trace["line"]["color"], trace["marker"]["symbol"], trace["line"].get("dash"))
        for name, trace in panels["source resnet34"].items()
    }
    assert lines == {
        f"{target}, target density {density}, {side}": (colour, f"{symbol}{open_}", dash)
        for target, colour in (("resnet34", palette.BLUE), ("mobilenetv2", palette.VERMILION))
        for density, symbol in ((1.0, "circle"), (0.1, "square"))
        for side, open_, dash in (("published", "-open", "dash"), ("ours", "", None))
    }


SPARSE = [
    row({"strategy": "magnitude", "density": density, "steps": steps}, "robust", 40 + density)
    for steps in (0, 1)
    for density in (0.64, 0.0281)
]


def test_a_reference_without_a_place_on_x_is_a_level_in_every_panel_that_it_agrees_with() -> None:
    dense = [
        row({"strategy": "dense", "density": 1.0, "steps": steps}, "robust", 60 + steps, 70.0 + steps)
        for steps in (0, 1)
    ]
    panels = drawn("rewinding/figure-4-1", [*dense, *SPARSE])
    assert {title: list(traces) for title, traces in panels.items()} == {
        f"steps {steps}": ["magnitude, ours", "dense, published", "dense, ours"] for steps in (0, 1)
    }
    ours, printed = panels["steps 1"]["dense, ours"], panels["steps 1"]["dense, published"]
    assert (ours["x"], ours["y"], ours["mode"]) == ([0.0281, 0.64], [61, 61], "lines")
    assert "61 [60, 62]" in ours["hovertemplate"]
    assert (printed["y"], printed["line"]["dash"]) == ([71, 71], "dash")
    (first, *_) = curves(rebuilt_of(load_entry("rewinding/figure-4-1"), [*dense, *SPARSE]), "key")
    assert LEVEL in first.note


def test_a_reference_that_is_nowhere_else_on_other_axes_is_in_all_panels() -> None:
    dense = row({"strategy": "dense", "density": 1.0, "rewind_epoch": 0}, "robust", 60)
    sparse = [
        row({"strategy": "random", "density": density, "rewind_epoch": epoch}, "robust", 40)
        for density in (0.3, 0.5)
        for epoch in (0, 8)
    ]
    panels = drawn("rewinding/figure-B-1", [dense, *sparse])
    assert list(panels) == ["density 0.3", "density 0.5"]
    assert all(traces["dense, ours"]["x"] == [0, 8] for traces in panels.values())


def test_a_reference_with_places_on_x_is_a_line_over_it_in_panels_of_other_densities() -> None:
    def at(model: str, steps: int, strategy: str, density: float) -> At:
        return {"model": model, "steps": steps, "strategy": strategy, "density": density}

    rows = [row(at(model, steps, "dense", 1.0), "robust", 60) for model in ("resnet20", "other") for steps in (0, 8)]
    rows += [row(at("resnet20", steps, "magnitude", 0.2621), "robust", 50) for steps in (0, 8)]
    panels = drawn("rewinding/open-replicates", rows)
    # The other model has nothing but its reference, which therefore has a panel.
    assert {title: list(traces) for title, traces in panels.items()} == {
        "model resnet20, density 0.2621": ["magnitude, ours", "dense, ours"],
        "model other, density 1.0": ["dense, ours"],
    }
    line = panels["model resnet20, density 0.2621"]["dense, ours"]
    assert (line["x"], line["mode"]) == ([0, 8], "lines+markers")
    assert line["line"]["color"] not in {panels["model resnet20, density 0.2621"]["magnitude, ours"]["line"]["color"]}
