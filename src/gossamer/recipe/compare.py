"""What differs between runs, in recipe and in result, and is it more than chance?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from gossamer.errors import ConfigError, GossamerError, RunError
from gossamer.recipe.comparison import Comparison, Side
from gossamer.recipe.effective import differing, effective, flat, mixed
from gossamer.recipe.load import load_recipe, read_fields
from gossamer.runs import RunFolder, atomic
from gossamer.runs.differences import Reached, adjusted, compare_reached, read_reached

Runs: TypeAlias = Path | str | Sequence[Path | str]

_SEEDS = ("seed", "data.split.seed")
_MACHINE = "machine."
# These say what was measured, and that is compared itself.
_MEASURED = "evaluation"


@dataclass(frozen=True, kw_only=True)
class _Read:
    """A run: its recipe's values as written and, where this version can read them, as they come to; machine; results.

    notes: what could not be read.
    """

    written: Mapping[str, Any]
    effective: Mapping[str, Any] | None
    machine: Mapping[str, Any]
    reached: Reached
    notes: tuple[str, ...]


def compare(a: Runs, b: Runs) -> Comparison:
    """Compare two runs, or several of each of two recipes: a run folder a side, or the folders of several seeds.

    Two networks are compared sample by sample, several runs a side by their means; what was measured under other
    conditions is not compared. Printed, a comparison says what differs and what the numbers can bear. Raises RunError
    for a folder that holds no run, ConfigError for a side without one and for a run given twice.
    """
    folders = [_folders(side) for side in (a, b)]
    _refuse_doubles([*folders[0], *folders[1]])
    first, second = ([_read(folder) for folder in side] for side in folders)
    runs = [*first, *second]
    # Filled in on one side alone, every default would be a difference.
    filled = all(run.effective is not None for run in runs)
    values = [[(run.effective if filled else None) or run.written for run in side] for side in (first, second)]
    fields = differing(*values)
    results, apart = compare_reached([run.reached for run in first], [run.reached for run in second])
    return Comparison(
        a=_side(folders[0], first, values[0]),
        b=_side(folders[1], second, values[1]),
        recipe=tuple(each for each in fields if not _stands_apart(each.field)),
        seeds=tuple(each for each in fields if each.field in _SEEDS),
        machine=tuple(differing([run.machine for run in first], [run.machine for run in second])),
        results=tuple(results),
        family=sum(each.adjusted is not None for each in results),
        apart=tuple(apart),
        notes=tuple(note for run in runs for note in run.notes),
    )


def compare_each(first: Runs, others: Sequence[Runs]) -> list[Comparison]:
    """Compare one side with each of several others, p-values adjusted over all of it; raises what `compare` raises."""
    found = [compare(first, other) for other in others]
    together = adjusted([one.results for one in found])
    family = sum(each.adjusted is not None for results in together for each in results)
    return [replace(one, results=tuple(own), family=family) for one, own in zip(found, together, strict=True)]


def _side(folders: Sequence[RunFolder], runs: Sequence[_Read], values: Sequence[Mapping[str, Any]]) -> Side:
    return Side(
        runs=tuple(str(folder.path) for folder in folders),
        seeds=tuple(each.get("seed") for each in values),
        method=tuple(dict.fromkeys(str(each.get("method.name")) for each in values)),
        density=tuple(run.reached.density for run in runs),
        nonzero=tuple(run.reached.nonzero for run in runs),
        work_ratio=tuple(run.reached.work_ratio for run in runs),
        mixed=tuple(field for field in mixed(values) if not _stands_apart(field)),
    )


def _folders(side: Runs) -> list[RunFolder]:
    paths = [side] if isinstance(side, str | Path) else list(side)
    if not paths:
        raise ConfigError("compare", expected="at least one run a side", got="none", remedy="name a run folder")
    return [RunFolder.open(path) for path in paths]


def _refuse_doubles(folders: Sequence[RunFolder]) -> None:
    paths = [folder.path.resolve() for folder in folders]
    doubled = [str(path) for path in dict.fromkeys(paths) if paths.count(path) > 1]
    if doubled:
        raise ConfigError(
            "compare", expected="every run once", got=f"{doubled[0]} twice", remedy="name runs that are not the same"
        )


def _read(folder: RunFolder) -> _Read:
    notes: list[str] = []
    values = read_fields(folder.recipe, str(folder.recipe))
    filled = None
    try:
        filled = effective(load_recipe(folder.recipe))
    except GossamerError as error:
        notes.append(
            f"this version cannot read the recipe of {folder.name} ({error.subject}: got {error.got}): recipes are "
            "compared as they are written, without defaults"
        )
    reached = read_reached(folder)
    return _Read(
        written=flat({key: value for key, value in values.items() if key not in ("name", "claim")}),
        effective=filled,
        machine=_machine(folder, filled or flat(values), reached, notes),
        reached=reached,
        notes=(*notes, *reached.notes),
    )


def _machine(folder: RunFolder, values: Mapping[str, Any], reached: Reached, notes: list[str]) -> Mapping[str, Any]:
    """Return where a run was trained, what its recipe asked of the machine, and where most samples were evaluated."""
    found = {field: value for field, value in values.items() if field.startswith(_MACHINE)}
    try:
        found |= flat({"trained": dict(atomic.read_json(folder.env))})
    except (RunError, TypeError, ValueError):
        notes.append(f"{folder.name} has no readable env.json: where it was trained is not known")
    if reached.evaluations:
        most = max(reached.evaluations, key=lambda one: one.n)
        found |= flat({"evaluated": {key: each for key, each in most.environment.items() if key != "command"}})
    return found


def _stands_apart(field: str) -> bool:
    return field in _SEEDS or field == _MEASURED or field.startswith(_MACHINE)
