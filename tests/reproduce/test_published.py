"""Is what was published written down without contradiction, and is a contradiction refused?"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from gossamer.errors import ConfigError
from gossamer.reproduce import published
from gossamer.reproduce.published import Entry, entries, load_entry

# Tables and figures of the five studies, by their own numbers.
EXPECTED = {
    "bcs": {*(f"table-{i}" for i in range(1, 6)), "figure-1", "figure-1-connections", "scalability"},
    "robust-subnet": {"table-1", "table-2", "table-3", "figure-1", "figure-2"},
    "rewinding": {
        *("figure-4-1", "figure-4-2", "figure-B-1", *(f"figure-C-{i}" for i in range(1, 9)), "section-4.2"),
        *("open-nonzeros", "open-eps", "open-replicates", "open-early-masks"),
    },
    "rsr": {*(f"table-{i}" for i in range(1, 6)), "figure-1", "figure-2a", "figure-2b", "figure-2c"},
    "one-shot-admm": {
        *("table-4.1", "table-4.2", "table-C.1", "figure-3.1", *(f"figure-4.{i}" for i in range(1, 9)), "figure-A.2"),
        *(f"figure-B.{i}" for i in range(1, 5)),
        *("figure-C.1", "figure-C.2", "figure-D.1", "figure-D.2"),
    },
}


def test_every_table_and_figure_of_the_five_studies_has_an_entry() -> None:
    assert set(entries()) == {f"{study}/{name}" for study, names in EXPECTED.items() for name in names}


@pytest.mark.parametrize("name", entries())
def test_an_entry_holds_together(name: str) -> None:
    entry = load_entry(name)
    assert entry.source
    assert entry.says
    for measure in entry.measures.values():
        assert measure.words
    for cell in entry.cells:
        for measure, value in cell.values.items():
            if value is not None and entry.measures[measure].unit == "percent":
                assert 0 <= value <= 100, (cell, measure)


@pytest.mark.parametrize("name", entries())
def test_printed_numbers_hold_the_claims_of_their_authors(name: str) -> None:
    entry = load_entry(name)
    printed = {tuple(cell.at.items()): cell.values for cell in entry.cells}
    for claim in entry.claims:
        at, than = (printed[tuple(where.items())].get(claim.more) for where in (claim.at, claim.than))
        if at is not None and than is not None:
            assert at >= than, claim.text


def test_what_is_known_of_a_table_is_what_is_printed() -> None:
    entry = load_entry("bcs/scalability")
    robust = {(cell.at["method"], cell.at["sparsity"]): cell.values.get("robust") for cell in entry.cells}
    assert robust["bcs", 99] == 9.5
    assert load_entry("bcs/table-4").labels("penalty") == ["l1-1e-3", "l1-1e-4", "l1-1e-6", "weight-decay"]


MINIMAL: dict[str, Any] = {
    "title": "t",
    "source": "s",
    "kind": "table",
    "says": "x",
    "setting": {"epochs": 2},
    "axes": {"method": "which"},
    "measures": {"robust": {"unit": "percent", "words": "w"}},
    "cells": [{"at": {"method": "a"}, "values": {"robust": 1.0}}, {"at": {"method": "b"}, "values": {"robust": None}}],
}


def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> str:
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, **changes}))
    monkeypatch.setattr(published, "entries", lambda: {"s/x": path})
    with pytest.raises(ConfigError) as caught:
        load_entry("s/x")
    return str(caught.value)


def test_an_entry_that_contradicts_itself_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = [*MINIMAL["cells"], MINIMAL["cells"][0]]
    assert "every place once" in refused(tmp_path, monkeypatch, cells=again)
    other = [{"at": {"model": "a"}, "values": {}}]
    assert "a label of each of method" in refused(tmp_path, monkeypatch, cells=other)
    more = [{"at": {"method": "a"}, "values": {"clean": 1.0}}]
    assert "some of robust" in refused(tmp_path, monkeypatch, cells=more)
    claim = {"text": "t", "more": "robust", "at": {"method": "a"}, "than": {"method": "z"}}
    assert "a place that the entry has" in refused(tmp_path, monkeypatch, claims=[claim])
    assert "an unknown field" in refused(tmp_path, monkeypatch, author="x")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"x": "model"}, "on x one of density, method, nonzeros, robust"),
        ({"y": "method"}, "on y one of nonzeros, robust"),
        ({"lines": "robust"}, "as lines some of density, method"),
        ({"lines": ["method", "robust"]}, "as lines some of density, method"),
        ({"lines": []}, "lines"),
        ({"x": "nonzeros", "along": ["method"]}, "along some of density"),
        ({"along": ["density"]}, "along some of"),
        ({"x": "density", "lines": "density", "along": ["method"]}, "a measure on x"),
        ({"reference": {"method": "c"}}, "a reference that the entry has"),
        ({"reference": {"steps": 1}}, "a reference that the entry has"),
    ],
)
def test_a_figure_of_what_the_entry_has_not_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], told: str
) -> None:
    both: dict[str, Any] = {
        "axes": {"method": "which", "density": "kept"},
        "measures": {name: {"unit": "percent", "words": "w"} for name in ("robust", "nonzeros")},
        "cells": [{"at": {"method": "a", "density": 1.0}, "values": {}}],
    }
    figure = {"x": "density", "y": "robust", "lines": "method"}
    assert told in refused(tmp_path, monkeypatch, **both, figure={**figure, **changes})
    Entry.model_validate({"name": "s/x", **MINIMAL, **both, "figure": {**figure, "reference": {"method": "a"}}})
    Entry.model_validate(
        {"name": "s/x", **MINIMAL, **both, "figure": {**figure, "x": "nonzeros", "along": ["density"]}}
    )


def test_an_unknown_entry_is_refused() -> None:
    with pytest.raises(ConfigError, match="--list"):
        load_entry("bcs/table-9")


def test_the_setting_is_text() -> None:
    assert Entry.model_validate({"name": "s/x", **MINIMAL}).setting == {"epochs": "2"}
