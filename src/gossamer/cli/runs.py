"""`gossamer runs`: what is here, in what state, and what it reached."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from gossamer.recipe.listing import FIELDS, Measure, Row, in_order, list_runs
from gossamer.report import words
from gossamer.report.plain import aligned, wrapped

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def runs(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="run folders, folders of runs, stores of sweeps; by default runs/")
    ] = None,
    sort: Annotated[str, typer.Option(help=f"what to sort by: {', '.join(FIELDS)}")] = "name",
    as_json: Annotated[bool, typer.Option("--json", help="print a list of objects")] = False,
) -> None:
    """List runs: what each trains, where it stands, and what it reached. Nothing is trained or written."""
    rows = in_order(list_runs(paths or [Path("runs")]), sort)
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return
    print("\n".join(table(rows, shutil.get_terminal_size((0, 0)).columns)))


def table(rows: Sequence[Row], width: int) -> list[str]:
    """Return rows as lines: of each run what it is, and under it what it reached; width: 0 for no limit."""
    if not rows:
        return ["no runs"]
    head = ("name", "method", "objective", "model", "data", "density", "state", "trained", "age")
    first, *lines = aligned([head, *(_cells(row) for row in rows)], width=width, cut=[(1, 2, 3, 4), (0,)])
    for row, line in zip(rows, lines, strict=True):
        first += "\n" + "\n".join([line, *_under(row, width)])
    return first.split("\n")


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        *(each or "–" for each in (row.method, row.objective, row.model, row.data)),
        words.percent(row.density),
        row.state,
        _brief(row.seconds_trained),
        _brief(row.age),
    )


def _under(row: Row, width: int) -> list[str]:
    told = [row.detail] if row.detail else []
    told += [note for note in row.notes if note not in row.detail]
    if row.clean is not None:
        told.append(f"{_label(row.clean)}: {_share(row.clean)}")
    for label, group in groupby(row.attacks, key=_label):
        told.append(f"{label}: {', '.join(f'eps {words.radius(each.eps or 0.0)} {_share(each)}' for each in group)}")
    return [line for each in told for line in wrapped(each, width=width, indent=4)]


def _label(each: Measure) -> str:
    part = "" if each.part == "test" else f", {each.part}"
    if each.attack is None:
        return f"clean, n={each.n}{part}"
    norm = str(each.threat).partition(":")[0]
    return f"{words.attack_name(each.attack, each.parameters or {})}, {norm}, n={each.n}{part}"


def _share(each: Measure) -> str:
    return f"{words.percent(each.accuracy)} {words.brackets(each.interval)}"


def _brief(seconds: float | None) -> str:
    """Return seconds in the largest unit of which there are two."""
    if seconds is None:
        return "–"
    unit, length = next((each for each in _UNITS if seconds >= 2 * each[1]), _UNITS[-1])
    return f"{max(0.0, seconds) / length:.0f} {unit}"
