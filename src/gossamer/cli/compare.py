"""`gossamer compare`: what differs between runs, in recipe and result, and what that says."""

import shutil
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from gossamer.cli import options
from gossamer.deploy.published import check_published
from gossamer.errors import ConfigError
from gossamer.recipe.compare import compare_each
from gossamer.recipe.comparison import WIDTH
from gossamer.runs import atomic


def compare(
    sides: Annotated[
        list[str] | None,
        typer.Argument(metavar="A B", help="a run each, or a quoted pattern of runs; further ones beside the first"),
    ] = None,
    a: Annotated[list[str] | None, typer.Option("--a", help="a run of the first side, or a quoted pattern")] = None,
    b: Annotated[list[str] | None, typer.Option("--b", help="a run of the second side, or a quoted pattern")] = None,
    json: options.Json = None,
) -> None:
    """Say what differs between two runs, or between several of each side: recipe, density, work, accuracies."""
    first, *others = _sides(sides or [], a or [], b or [])
    check_published(chain(first, *others))
    found = compare_each(first, others)
    width = shutil.get_terminal_size((WIDTH, 0)).columns
    print("\n\n".join(one.text(width) for one in found))
    if json is not None:
        atomic.write_json(json, [one.to_json() for one in found])


def _sides(sides: Sequence[str], a: Sequence[str], b: Sequence[str]) -> list[list[Path]]:
    """Return the runs of every side; raises ConfigError for other than two sides or more, named in one way."""
    if sides and (a or b):
        raise ConfigError(
            "compare",
            expected="two runs, or --a and --b",
            got=f"{len(sides)} runs beside --a or --b",
            remedy="write --a before every run of the first side, or quote the pattern: --a 'runs/x-*'",
        )
    given = [[each] for each in sides] if sides else [list(a), list(b)]
    if len(given) < 2 or not all(given):
        raise ConfigError(
            "compare",
            expected="two sides",
            got="one" if any(given) else "none",
            remedy="write gossamer compare A B, or --a RUN --a RUN --b RUN --b RUN",
        )
    return [[path for each in side for path in _matching(each)] for side in given]


def _matching(given: str) -> list[Path]:
    """Return the folder of that name, else the folders that a pattern matches."""
    path = Path(given)
    if path.exists() or not any(sign in given for sign in "*?["):
        return [path]
    root = Path(path.anchor)
    found = sorted(each for each in root.glob(str(path.relative_to(root))) if each.is_dir())
    if not found:
        raise ConfigError("compare", expected=f"runs that match {given}", got="none", remedy="check the pattern")
    return found
