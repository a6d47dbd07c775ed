"""What did a sweep reach? One table, a row a case, indexed by every axis: for CSV, Parquet, xarray or the eye."""

import csv
import importlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from gossamer.errors import ConfigError
from gossamer.recipe.load import run_name
from gossamer.recipe.schema import Recipe
from gossamer.recipe.train import result_names
from gossamer.runs import RunFolder, atomic, results
from gossamer.runs.namesakes import differing
from gossamer.runs.results import AttackOutcome
from gossamer.sweep.spec import Case, Label, Sweep, expand, load_sweep
from gossamer.sweep.store import Store

Cell: TypeAlias = Label
MEASURES = ("done", "measured density", "nonzero", "work ratio", "clean", "n")


@dataclass(frozen=True, kw_only=True)
class Results:
    """A table. axes: the columns that index it; columns: those and what was measured; rows: a mapping each."""

    axes: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[Mapping[str, Cell]]

    def to_csv(self, path: Path | str | None = None) -> str:
        """Return the table as CSV, and write it where a path is given."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        if path is not None:
            atomic.write_text(Path(path), text.getvalue())
        return text.getvalue()

    def to_parquet(self, path: Path | str) -> None:
        """Write the table as Parquet; raises ConfigError where pyarrow is not installed."""
        pyarrow, parquet = _imported("pyarrow"), _imported("pyarrow.parquet", "pyarrow")
        arrays = {name: pyarrow.array(_of_one_type(self.column(name))) for name in self.columns}
        parquet.write_table(pyarrow.table(arrays), str(path))

    def to_xarray(self) -> Any:
        """Return an `xarray.Dataset`: a dimension an axis, a variable a number that was measured, NaN where none was.

        Columns of text are left out.
        Raises ConfigError where xarray is not installed.
        """
        xarray = _imported("xarray")
        labels = {axis: list(dict.fromkeys(self.column(axis))) for axis in self.axes}
        shape = [len(each) for each in labels.values()]
        filled: dict[str, Any] = {}
        for name in self.columns[len(self.axes) :]:
            if any(isinstance(value, str) for value in self.column(name)):
                continue
            values = np.full(shape, np.nan)
            for row in self.rows:
                place = tuple(labels[axis].index(row[axis]) for axis in self.axes)
                values[place] = np.nan if row.get(name) is None else float(row[name] or 0)
            filled[name] = (list(self.axes), values)
        return xarray.Dataset(filled, coords=labels)

    def column(self, name: str) -> list[Cell]:
        """Return one column; raises ConfigError where there is none."""
        if name not in self.columns:
            raise ConfigError("column", expected=", ".join(self.columns), got=name, remedy="choose another")
        return [row.get(name) for row in self.rows]

    def __iter__(self) -> Iterator[Mapping[str, Cell]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def read_results(sweep: Sweep | Path | str | Mapping[str, Any], store: Path | str | None = None) -> Results:
    """Return what the runs of a sweep reached, a row a case; cases whose run is not there have `done` False.

    store: the folder they lie in, by default sweeps/NAME; a run of another version of the arithmetic is as one that is
    not there. Robust accuracies are columns named after attack and threat,
    as pgd-50-10 linf:8/255, with the number of their samples behind them; of several, that of most samples counts.
    Attacks of one name whose parameters differ are columns of their own: pgd linf:8/255 steps=20.
    Raises ConfigError and RunError.
    """
    asked = sweep if isinstance(sweep, Sweep) else load_sweep(sweep)
    root = str(store or Path("sweeps") / asked.name)
    if "://" in root:
        raise ConfigError("store", expected="a folder", got=root, remedy="copy its runs/ here first")
    runs = Path(root) / "runs"
    axes = list(asked.axes)
    if taken := sorted(set(axes) & set(MEASURES)):
        raise ConfigError(
            "axes", expected="other names than what is measured", got=", ".join(taken), remedy="rename them"
        )
    held = Store(root)
    found = [_read(case, RunFolder(runs / run_name(case.recipe)), held) for case in expand(asked)]
    apart = differing((_title(outcome), outcome.parameters) for _, outcomes in found for outcome in outcomes)
    rows = [_attacked(row, outcomes, apart) for row, outcomes in found]
    measured = list(dict.fromkeys(name for row in rows for name in row if name not in (*axes, *MEASURES)))
    return Results(axes=axes, columns=[*axes, *MEASURES, *measured], rows=rows)


def _of_one_type(values: Sequence[Cell]) -> list[Cell]:
    """Return values as they are where they are all numbers, or all of one type; otherwise as texts."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) < 2 or kinds == {int, float}:
        return list(values)
    return [None if value is None else str(value) for value in values]


def _read(case: Case, run: RunFolder, held: Store) -> tuple[dict[str, Cell], list[AttackOutcome]]:
    """Return what a run reached but for its attacks, and what each of them left standing."""
    current = held.is_current(case.recipe)
    row: dict[str, Cell] = {**case.labels, "done": current and _is_done(case.recipe, run)}
    if not current or not run.result("network").exists():
        return row, []
    network = atomic.read_json(run.result("network"))
    row |= {"work ratio": network["work_ratio"]}
    outcomes: list[AttackOutcome] = []
    for path in results.evaluation_files(run):
        measured = results.read_evaluation(path)
        if measured.dataset.part != "test":
            continue
        # The one of most samples speaks for what every evaluation measures.
        if measured.n >= int(row.get("n") or 0):
            row |= {"n": measured.n, "clean": measured.clean_accuracy}
            row |= {"measured density": measured.density, "nonzero": measured.nonzero}
        outcomes.extend(measured.attacks)
    return row, outcomes


def _attacked(
    row: Mapping[str, Cell], outcomes: Sequence[AttackOutcome], apart: Mapping[str, Sequence[str]]
) -> dict[str, Cell]:
    """Return a row with the robust accuracy of every attack; of one measured twice, that of most samples."""
    filled = dict(row)
    for outcome in outcomes:
        title = _title(outcome)
        told = [f"{key}={json.dumps(outcome.parameters[key])}" for key in apart[title] if key in outcome.parameters]
        name = " ".join([title, *told])
        if outcome.n >= int(filled.get(f"{name}, n") or 0):
            filled |= {name: outcome.robust_accuracy, f"{name}, n": outcome.n}
    return filled


def _title(outcome: AttackOutcome) -> str:
    return f"{outcome.attack} {outcome.threat}"


def _is_done(recipe: Recipe, run: RunFolder) -> bool:
    """Tell whether a run has all results that its recipe asks for, also where they alone were copied."""
    return all(run.result(name).exists() for name in result_names(recipe))


def _imported(module: str, package: str | None = None) -> Any:
    """Return a module of a package that only this needs."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = package or module
        raise ConfigError(
            name,
            expected=f"{name} to be installed",
            got="no such package",
            remedy=f"pip install 'gossamer[table]', or {name} alone",
        ) from error
