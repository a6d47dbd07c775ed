"""The runs of every study at every scale stand at places that its entries have, and are read as these measure."""

import fnmatch
from importlib.resources import files
from pathlib import Path

import pytest

from gossamer.models import build
from gossamer.reproduce.published import entries, load_entry
from gossamer.reproduce.scales import SCALES, Study, load_study, places


def _written() -> list[tuple[str, str]]:
    root = Path(str(files("gossamer") / "reproduce" / "scales"))
    return [(path.parent.name, path.stem) for path in sorted(root.glob("*/*.yaml"))]


@pytest.fixture(params=_written(), ids="/".join)
def written(request: pytest.FixtureRequest) -> tuple[str, Study]:
    scale, name = request.param
    study = load_study(name, scale)
    assert study is not None
    return name, study


def test_files_lie_at_scales_that_there_are():
    assert {scale for scale, _ in _written()} <= set(SCALES)


def test_every_entry_is_published_and_every_published_entry_is_planned_or_said_to_be_missing(
    written: tuple[str, Study],
):
    name, study = written
    assert {f"{name}/{entry}" for entry in study.entries} == {each for each in entries() if each.startswith(f"{name}/")}
    assert all(ours.parts or ours.missing for ours in study.entries.values())


def test_every_place_has_its_cases_once_and_some_stand_beside_published_ones(written: tuple[str, Study]):
    name, study = written
    for which, ours in study.entries.items():
        entry = load_entry(f"{name}/{which}")
        found = places(entry, ours, study)
        at = [frozenset(place.at.items()) for place in found]
        read = [(each, name) for each, place in zip(at, found, strict=True) for name in place.measures]
        assert len(set(read)) == len(read), which
        assert all(place.measures and set(place.measures) <= set(entry.measures) for place in found), which
        assert not found or set(at) & {frozenset(cell.at.items()) for cell in entry.cells}, which


def test_every_sweep_is_used(written: tuple[str, Study]):
    _, study = written
    parts = [(ours, part) for ours in study.entries.values() for part in ours.parts]
    beside = {each.sweep for _, part in parts for each in part.beside if each.sweep is not None}
    assert {part.sweep or ours.sweep for ours, part in parts} | beside == set(study.sweeps)


def test_connections_are_counted_in_each_layer_of_the_network():
    study = load_study("bcs", "paper")
    assert study is not None
    found = places(load_entry("bcs/figure-1-connections"), study.entries["figure-1-connections"], study)
    recipe = found[0].cases[0].recipe
    network = build(recipe.model.name, **recipe.model.options)
    # What learns beside kernels, biases and norms, is a vector.
    kernels = [name for name, weight in network.named_parameters() if weight.dim() > 1]
    counted = {str(place.at["layer"]): [fnmatch.filter(kernels, each) for each in place.layers] for place in found}
    assert [names for (names,) in counted.values()] == [[kernel] for kernel in kernels]
    assert {place.at["layer"] for place in found} == {*load_entry("bcs/figure-1-connections").labels("layer")}
