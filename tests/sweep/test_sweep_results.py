"""One table of a sweep: a row a case, a column an axis, and what every run reached."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_sweeps import planned, small

from gossamer.errors import ConfigError
from gossamer.recipe.identity import versions_of
from gossamer.recipe.load import run_name
from gossamer.recipe.semantics import SEMANTICS
from gossamer.recipe.train import train
from gossamer.sweep.results import Results, _of_one_type, read_results
from gossamer.sweep.spec import expand, load_sweep
from gossamer.sweep.store import Store

SWEEP: dict[str, Any] = {
    "base": small(
        training={"epochs": 1},
        evaluation=[{"attack": "fgsm", "n": 50}, {"attack": "fgsm", "n": 20, "eps": [0.1]}],
    ),
    "axes": {"density": {"field": "method.density", "values": [0.5, 0.1]}, "seed": {"seeds": 2}},
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Results:
    root = tmp_path_factory.mktemp("store")
    for case in expand(load_sweep(SWEEP))[:3]:
        train(case.recipe, out=root / "runs" / run_name(case.recipe))
    return read_results(SWEEP, root)


def test_every_case_has_a_row_and_every_axis_a_column(table: Results):
    assert table.axes == ["density", "seed"]
    assert [(row["density"], row["seed"], row["done"]) for row in table] == [
        (0.5, 0, True),
        (0.5, 1, True),
        (0.1, 0, True),
        (0.1, 1, False),
    ]


def test_densities_and_accuracies_are_those_of_the_runs(table: Results):
    first, *_, missing = table
    assert first["measured density"] == pytest.approx(0.5, abs=0.001)
    assert first["nonzero"] == pytest.approx(0.5 * 58656, abs=3)
    assert first["n"] == 50
    assert 0.0 <= first["fgsm linf:0.15"] <= first["clean"] <= 1.0  # pyright: ignore[reportOperatorIssue]
    assert (first["fgsm linf:0.15, n"], first["fgsm linf:0.1, n"]) == (50, 20)
    assert "clean" not in missing


def test_attacks_of_one_name_and_other_parameters_have_columns_of_their_own(tmp_path: Path):
    attacks = [{"attack": "pgd", "steps": steps, "step": 0.05, "n": n} for steps, n in ((1, 50), (7, 20))]
    sweep = {**SWEEP, "base": small(training={"epochs": 1}, evaluation=attacks), "axes": {"seed": {"seeds": 1}}}
    (case,) = expand(load_sweep(sweep))
    train(case.recipe, out=tmp_path / "runs" / run_name(case.recipe))
    (row,) = read_results(sweep, tmp_path)
    one, seven = "pgd linf:0.15 steps=1", "pgd linf:0.15 steps=7"
    assert (row[f"{one}, n"], row[f"{seven}, n"]) == (50, 20)
    assert not any(name.startswith("pgd linf:0.15") and "steps" not in name for name in row)


def test_a_run_of_another_version_is_as_one_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sweep = {**SWEEP, "axes": {"seed": {"seeds": 1}}}
    (case,) = expand(load_sweep(sweep))
    name = run_name(case.recipe)
    train(case.recipe, out=tmp_path / "runs" / name)
    store = Store(str(tmp_path))
    for versions, there in ((versions_of(case.recipe), True), ({"gossamer.methods.random": 0}, False)):
        store.stand(name, {"made_of": [], "versions": versions, "done": True})
        (row,) = read_results(sweep, tmp_path)
        assert (row["done"], "clean" in row) == (there, there)


def test_what_a_run_computes_with_is_held_against_the_versions_of_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also parts that its method and its penalties lend from elsewhere, whose modules the recipe does not name."""
    penalties = {"training.penalties": [{"name": "parseval", "strength": 0.01}]}
    sweep = {"base": "pwoa/digits-90", "set": penalties, "axes": {"seed": {"seeds": 1}}}
    (node,) = planned(sweep).runs
    store = Store(str(tmp_path))
    store.stand(node.name, {"made_of": [], "versions": versions_of(node.recipe, node.named), "done": True})
    assert store.is_current(node.recipe)
    before = dict(SEMANTICS)
    for raised in (
        "gossamer.objectives.penalties.Parseval",
        "gossamer.methods.robust_admm",
        "gossamer.methods.pwoa",
        "gossamer.kernels",
    ):
        monkeypatch.setattr("gossamer.recipe.semantics.SEMANTICS", {**before, raised: 9})
        assert not store.is_current(node.recipe), raised
    monkeypatch.setattr("gossamer.recipe.semantics.SEMANTICS", {**before, "gossamer.methods.harp": 9})
    assert store.is_current(node.recipe)


def test_tables_go_to_other_tools(table: Results, tmp_path: Path):
    text = table.to_csv(tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text() == text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["seed"] for row in rows] == ["0", "1", "0", "1"]
    assert float(rows[0]["clean"]) == table.column("clean")[0]
    assert rows[3]["clean"] == ""
    with pytest.raises(ConfigError, match="column"):
        table.column("colour")


@pytest.mark.long
def test_parquet_keeps_the_table(table: Results, tmp_path: Path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table.to_parquet(tmp_path / "table.parquet")
    read = parquet.read_table(tmp_path / "table.parquet").to_pydict()
    assert list(read) == list(table.columns)
    assert read["clean"] == table.column("clean")


@pytest.mark.long
def test_labels_of_several_types_are_texts_in_parquet(tmp_path: Path):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"eps": 0.1, "n": 1, "x": 0.5}, {"eps": "8/255", "n": None, "x": 1}]
    Results(axes=["eps"], columns=["eps", "n", "x"], rows=rows).to_parquet(tmp_path / "table.parquet")
    read = parquet.read_table(tmp_path / "table.parquet").to_pydict()
    assert read == {"eps": ["0.1", "8/255"], "n": [1, None], "x": [0.5, 1.0]}


def test_labels_of_several_types_become_texts():
    assert _of_one_type([0.1, "8/255", None]) == ["0.1", "8/255", None]
    assert _of_one_type([1, 0.5, None]) == [1, 0.5, None]
    assert _of_one_type([True, 2]) == ["True", "2"]


@pytest.mark.long
def test_xarray_has_a_dimension_an_axis(table: Results):
    pytest.importorskip("xarray")
    cube = table.to_xarray()
    assert dict(cube.sizes) == {"density": 2, "seed": 2}
    assert float(cube["clean"].sel(density=0.5, seed=1)) == table.column("clean")[1]
    assert np.isnan(float(cube["clean"].sel(density=0.1, seed=1)))


def test_an_axis_called_like_a_measure_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="other names than what is measured, got clean"):
        read_results({**SWEEP, "axes": {"clean": {"seeds": 1}}}, tmp_path)


def test_a_package_that_is_missing_is_named(table: Results, monkeypatch: pytest.MonkeyPatch):
    import importlib  # noqa: PLC0415

    def refuse(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(ConfigError, match=r"gossamer\[table\]"):
        table.to_xarray()
