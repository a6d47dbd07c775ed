"""What did a search find? Its trials as a table, and those among them that none is better than."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gossamer.sweep.results import Cell, Results
from gossamer.sweep.search.spec import Search, load_search
from gossamer.sweep.search.study import Trial, saved_trials


def read_trials(search: Search | Path | str | Mapping[str, Any], store: Path | str | None = None) -> Results:
    """Return the trials of a search, a row each: parameters, objectives, and `front`, whether no other is better.

    store: the folder they lie in, by default searches/NAME. Objectives are measured on the held-out split; run is the
    name of a folder under the store's runs/. Raises ConfigError and RunError.
    """
    asked = search if isinstance(search, Search) else load_search(search)
    return as_table(asked, saved_trials(asked, Path(store or Path("searches") / asked.name)))


def as_table(search: Search, trials: Sequence[Trial]) -> Results:
    """Return trials as a table."""
    columns = ("trial", "state", "front", *search.space, *search.measures, "run", "why")
    return Results(axes=("trial",), columns=columns, rows=[_row(search, trial) for trial in trials])


def front_text(search: Search, trials: Sequence[Trial]) -> str:
    """Return the trials that none is better than as a table for the eye, the best at the first objective first."""
    best = [trial for trial in trials if trial.front]
    if not best:
        return "no trial is done"
    sign = -1 if search.directions[0] == "maximize" else 1
    best.sort(key=lambda trial: sign * (trial.values or (0.0,))[0])
    heads = ("trial", *search.space, *search.measures, "run")
    rows = [heads, *(tuple(_shown(_row(search, trial)[head]) for head in heads) for trial in best)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _row(search: Search, trial: Trial) -> dict[str, Cell]:
    values = dict(zip(search.measures, trial.values or (), strict=False))
    return {
        "trial": trial.number,
        "state": trial.state,
        "front": trial.front,
        **trial.parameters,
        **values,
        "run": trial.run,
        "why": trial.why,
    }


def _shown(cell: Cell) -> str:
    if isinstance(cell, float):
        return f"{cell:.0f}" if cell.is_integer() and abs(cell) >= 10 else f"{cell:.4g}"
    return "" if cell is None else str(cell)
