"""Figures that are none of curves: what is read of runs for them, and how it is drawn and shown."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_measured_places import lay_down as answered

from gossamer.recipe.load import run_name
from gossamer.reproduce.drawing import part
from gossamer.reproduce.pictured import Channels, Pictured, Sizes, pictured
from gossamer.reproduce.published import entries, load_entry
from gossamer.reproduce.scales import Place, Study, load_study, places
from gossamer.reproduce.standing import Rebuilt, rebuild
from gossamer.reproduce.text import markdown
from gossamer.runs import RunFolder, panel, results
from gossamer.runs.results import Histogram
from gossamer.sweep.spec import Case

SHOWN = {
    "rsr/figure-1": "histogram",
    "robust-subnet/figure-1": "channels",
    "one-shot-admm/figure-3.1": "images",
    "one-shot-admm/figure-A.2": "images",
    "one-shot-admm/figure-4.1": "histogram",
    "one-shot-admm/figure-4.2": "normalised-histogram",
    "one-shot-admm/figure-B.2": "histogram",
    "one-shot-admm/figure-B.3": "normalised-histogram",
}


def study_of(name: str) -> Study:
    study = load_study(name.partition("/")[0], "smoke")
    assert study is not None
    return study


def places_of(name: str) -> list[Place]:
    study = study_of(name)
    return places(load_entry(name), study.entries[name.partition("/")[2]], study)


def rebuilt_of(name: str, store: Path) -> Rebuilt:
    study = study_of(name)
    return rebuild(load_entry(name), study, study.entries[name.partition("/")[2]], store)


def histogram(reach: float, *counts: int, zeros: int = 0) -> Histogram:
    """Return two bars, of what is below zero and what is above."""
    return Histogram(edges=(-reach, 0.0, reach), counts=counts, zeros=zeros)


def layer(name: str, spread: Histogram) -> results.Layer:
    work = {"weights": 10, "nonzero": 3, "density": 0.3, "multiply_adds": 10, "kept_multiply_adds": 3}
    return results.Layer(name=name, block=name, shape=(10, 1, 1, 1), histogram=spread, **work)


def network_laid_down(case: Case, store: Path, reach: float) -> RunFolder:
    """Lay down a network whose first and second convolutions have weights of other sizes."""
    run = RunFolder.create(store / "runs" / run_name(case.recipe))
    work = {"weights": 20, "nonzero": 6, "density": 0.3, "multiply_adds": 20, "kept_multiply_adds": 6}
    layers = (
        layer("conv1.weight", histogram(9.0, 3, 0, zeros=7)),
        layer("conv2.weight", histogram(reach, 1, 2, zeros=7)),
    )
    whole = histogram(10 * reach, 4, 2, zeros=14)
    results.write_network(
        run, results.Network(layers=layers, totals=results.Totals(**work), work_ratio=1.0, histogram=whole)
    )
    return run


def laid_down(found: Sequence[Place], store: Path) -> None:
    cases = {run_name(place.cases[0].recipe): place.cases[0] for place in found}
    for place, case in enumerate(cases.values(), start=1):
        network_laid_down(case, store, float(place))


@pytest.mark.parametrize("name", entries())
def test_what_entries_show_is_said_and_is_theirs_to_show(name: str) -> None:
    entry = load_entry(name)
    assert entry.shows == SHOWN.get(name)
    assert entry.shows is None or entry.figure is None
    assert entry.shows is None or pictured(entry, places_of(name), Path("nowhere")).empty


def test_histograms_are_those_of_the_layers_that_a_part_names(tmp_path: Path) -> None:
    found = places_of("rsr/figure-1")
    laid_down(found, tmp_path)
    entry = load_entry("rsr/figure-1")
    assert pictured(entry, found, tmp_path).sizes == [
        Sizes(at={"training": training}, layer="", histogram=histogram(reach, 1, 2, zeros=7))
        for reach, training in ((1.0, "natural"), (2.0, "adversarial"), (3.0, "rsr"))
    ]
    several = [replace(found[0], layers=("conv*",))]
    assert [each.layer for each in pictured(entry, several, tmp_path).sizes] == ["conv1.weight", "conv2.weight"]
    whole = [replace(found[0], layers=())]
    assert [each.histogram for each in pictured(entry, whole, tmp_path).sizes] == [histogram(10.0, 4, 2, zeros=14)]


def outlines(name: str, store: Path) -> dict[str, dict[str, Any]]:
    """Return the traces of the one histogram of an entry, and its axes."""
    (chart,) = part(rebuilt_of(name, store), "smoke").charts
    assert chart.figure["layout"]["yaxis"]["type"] == "log"
    return {trace["name"]: trace for trace in chart.figure["data"]} | chart.figure["layout"]["xaxis"]


def test_sizes_are_drawn_over_each_other_as_shares_of_all_weights(tmp_path: Path) -> None:
    laid_down(places_of("rsr/figure-1"), tmp_path)
    drawn = outlines("rsr/figure-1", tmp_path)
    assert [drawn[name]["x"] for name in ("natural", "adversarial", "rsr")] == [[-0.5, 0.5], [-1.0, 1.0], [-1.5, 1.5]]
    # What is exactly zero is in the bar that begins at 0.
    assert drawn["rsr"]["y"] == [pytest.approx(0.1), pytest.approx(0.9)]
    assert drawn["rsr"]["line"]["shape"] == "hvh"
    assert len({drawn[name]["line"]["color"] for name in ("natural", "adversarial", "rsr")}) == 3


def test_normalised_sizes_are_over_the_largest_of_each_network(tmp_path: Path) -> None:
    laid_down(places_of("one-shot-admm/figure-4.2"), tmp_path)
    drawn = outlines("one-shot-admm/figure-4.2", tmp_path)
    for density in ("1.0", "0.5", "0.1"):
        assert drawn[f"density {density}"]["x"] == [-0.5, 0.5]
        assert drawn[f"density {density}"]["y"] == [pytest.approx(4 / 20), pytest.approx(16 / 20)]
    assert drawn["range"] == [-1, 1]


def test_axes_but_the_last_make_histograms_of_their_own(tmp_path: Path) -> None:
    laid_down(places_of("one-shot-admm/figure-4.1"), tmp_path)
    rebuilt = rebuilt_of("one-shot-admm/figure-4.1", tmp_path)
    (chart,) = part(rebuilt, "smoke").charts
    assert (chart.title, [trace["name"] for trace in chart.figure["data"]]) == (
        "data cifar10",
        ["benign", "adversarial"],
    )
    sizes = [replace(each, at={**each.at, "data": "cifar100"}) for each in rebuilt.pictured.sizes]
    both = replace(rebuilt, pictured=Pictured(sizes=[*rebuilt.pictured.sizes, *sizes]))
    charts = part(both, "smoke").charts
    assert [each.title for each in charts] == ["data cifar10", "data cifar100"]
    assert len({each.key for each in charts}) == 2


def test_channels_are_counted_in_the_layer_and_on_the_side_of_their_place(tmp_path: Path) -> None:
    name = "robust-subnet/figure-1"
    assert not part(rebuilt_of(name, tmp_path), "smoke").charts
    answered(places_of(name), tmp_path)
    rebuilt = rebuilt_of(name, tmp_path)
    assert rebuilt.pictured.channels == [
        Channels(at={"layer": layer, "side": side}, kept=kept)
        for layer, side, kept in (
            ("first", "input", [10, 10]),
            ("first", "output", [18, 2]),
            ("second", "input", [5, 5]),
            ("second", "output", [8, 2]),
        )
    ]
    empty = replace(
        rebuilt, pictured=Pictured(channels=[Channels(at={"layer": "first", "side": "input"}, kept=[3, 0])])
    )
    (chart,) = part(empty, "smoke").charts
    assert chart.title == "layer first, side input"
    assert chart.figure["data"][0]["y"] == [3, None]
    assert "1 of 2 channels keep none" in chart.note
    low, high = chart.figure["layout"]["yaxis"]["range"]
    assert low < 0 < high


def climbed(run: RunFolder) -> None:
    """Lay down a panel of two images, one of them over three radii."""
    captions = panel.Captions(
        attack="pgd-20",
        threat="linf:0.045",
        classes=("zero", "one"),
        labels=(0, 1),
        clean_predictions=(0, 1),
        clean_confidences=(0.9, 0.9),
        adversarial_predictions=(1, 0),
        adversarial_confidences=(0.6, 0.6),
        ladder=panel.Ladder(eps=(0.0, 0.045, 0.09), label=0, predictions=(0, 0, 1), confidences=(0.9, 0.6, 0.7)),
    )
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    made = panel.Panel(
        images=images, adversarial=images.float(), ladder=torch.full((3, 1, 8, 8), 0.5), captions=captions
    )
    panel.write(run, "pgd-20", made)


@pytest.mark.parametrize(
    ("name", "network"),
    [("one-shot-admm/figure-3.1", ""), ("one-shot-admm/figure-A.2", "network resnet34 at 0.016; ")],
)
def test_images_are_those_of_the_run_once_under_rising_radii(name: str, network: str, tmp_path: Path) -> None:
    found = places_of(name)
    run = network_laid_down(found[0].cases[0], tmp_path, 1.0)
    assert not part(rebuilt_of(name, tmp_path), "smoke").strips
    climbed(run)
    rebuilt = rebuilt_of(name, tmp_path)
    (strip,) = part(rebuilt, "smoke").strips
    assert strip.title == f"{network}One image of zero as eps rises, under pgd-20"
    assert [(each.text, each.right) for each in strip.pictures] == [
        ("eps 0: zero 90.0 %", True),
        ("eps 0.045: zero 60.0 %", True),
        ("eps 0.09: one 70.0 %", False),
    ]
    assert all(each.source.startswith("data:image/png;base64,") for each in strip.pictures)
    assert f"Its pictures: `gossamer reproduce {name} --scale smoke --show -o page.html`." in markdown(rebuilt, "smoke")


def test_images_of_several_networks_stand_under_their_names(tmp_path: Path) -> None:
    """How much is seen depends on the network under attack (S4, figure A.2)."""
    name = "one-shot-admm/figure-A.2"
    cases = {str(place.at["network"]): place.cases[0] for place in places_of(name)}
    for case in cases.values():
        climbed(network_laid_down(case, tmp_path, 1.0))
    titles = [strip.title for strip in part(rebuilt_of(name, tmp_path), "smoke").strips]
    assert len(titles) == 4
    assert titles == [f"network {network}; One image of zero as eps rises, under pgd-20" for network in cases]
