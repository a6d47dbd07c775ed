"""Which runs are there, in what state, and what did they reach? Read from JSON and recipes alone, without a tensor."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from gossamer.errors import ConfigError, GossamerError, RunError
from gossamer.recipe.load import load_recipe, read_fields
from gossamer.runs import RunFolder, atomic, lock, records, status
from gossamer.runs.results import Evaluation, Interval
from gossamer.threat import ThreatModel

State: TypeAlias = Literal["finished", "running", "interrupted", "failed", "damaged", "no run"]
_FINAL = "final"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """An accuracy in [0, 1] with its 95 % interval on n samples; attack: None for the clean one."""

    accuracy: float
    interval: Interval
    n: int
    part: str
    attack: str | None = None
    parameters: Mapping[str, Any] | None = None
    threat: str | None = None
    eps: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One folder. detail: what belongs to its state, as the epoch or the reason; None: not known.

    density, nonzero: counted in what ships. clean: of the evaluation of most samples; attacks: every other accuracy;
    robust: the one to quote, at the trained threat where that was attacked. age: seconds since something last happened;
    notes: files that could not be read.
    """

    name: str
    path: str
    state: State
    detail: str
    method: str | None = None
    objective: str | None = None
    model: str | None = None
    data: str | None = None
    threat: str | None = None
    seed: int | None = None
    density: float | None = None
    nonzero: int | None = None
    clean: Measure | None = None
    robust: Measure | None = None
    attacks: tuple[Measure, ...] = ()
    seconds_trained: float | None = None
    updated: str | None = None
    age: float | None = None
    notes: tuple[str, ...] = ()


_BEST_FIRST = ("clean", "robust")
FIELDS = (
    *("name", "method", "objective", "model", "data", "threat", "seed", "density", "state", "trained", "age"),
    *_BEST_FIRST,
)
"""What rows can be sorted by."""


def list_runs(paths: Sequence[Path | str], now: datetime | None = None) -> list[Row]:
    """Return a row for every run at or below paths: run folders, folders of them, stores of sweeps.

    A folder among runs that is none, or that cannot be read, has a row that says so. Raises RunError where a path is
    no folder.
    """
    moment = now or datetime.now(UTC)
    found = dict.fromkeys(folder for path in paths for folder in _folders(Path(path)))
    return [_row_of(RunFolder(path), moment) for path in found]


def in_order(rows: Sequence[Row], field: str) -> list[Row]:
    """Return rows sorted by one of FIELDS: accuracies from the best, others rising; unknown ones last."""
    if field not in FIELDS:
        raise ConfigError(
            "--sort", expected=f"one of {', '.join(FIELDS)}", got=repr(field), remedy="choose one of them"
        )
    known = [(value, row) for row in rows if (value := _value(row, field)) is not None]
    known.sort(key=lambda pair: pair[0], reverse=field in _BEST_FIRST)
    return [*(row for _, row in known), *(row for row in rows if _value(row, field) is None)]


def _value(row: Row, field: str) -> Any:
    value = getattr(row, "seconds_trained" if field == "trained" else field)
    return value.accuracy if isinstance(value, Measure) else value


def _folders(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        raise RunError(
            str(path),
            expected="a run folder, a folder of runs or the store of a sweep",
            got="a file" if path.exists() else "no folder",
            remedy="train a recipe first, or name the folder: gossamer runs PATH",
        )
    try:
        yield from [path] if RunFolder(path).begun else _below(path)
    except OSError:
        # Its row says what is wrong.
        yield path


def _below(path: Path) -> Iterator[Path]:
    runs = path / "runs"
    for child in sorted((runs if runs.is_dir() else path).iterdir()):
        if child.is_dir() and not child.name.startswith("."):
            yield from _folders(child) if (child / "runs").is_dir() else [child]


def _row_of(run: RunFolder, now: datetime) -> Row:
    try:
        return _row(run, now)
    except OSError as error:
        return Row(name=run.name, path=str(run.path), state="damaged", detail=error.strerror or str(error))


def _row(run: RunFolder, now: datetime) -> Row:
    if not run.begun:
        return Row(name=run.name, path=str(run.path), state="no run", detail="no recipe.yaml")
    notes: list[str] = []
    said = _recipe(run, notes)
    told = _status(run, notes)
    state, detail = _state(run, told, notes)
    measured = _measured(run, notes)
    clean = [each for each in measured.accuracies if each.attack is None]
    attacks = [each for each in measured.accuracies if each.attack is not None]
    return Row(
        name=run.name,
        path=str(run.path),
        **said,
        state=state,
        detail=detail,
        density=measured.density,
        nonzero=measured.nonzero,
        clean=max(clean, key=lambda each: (each.part == "test", each.n), default=None),
        robust=_quoted(attacks, said.get("threat")),
        attacks=tuple(attacks),
        seconds_trained=told.seconds_trained if told else None,
        updated=told.updated if told else None,
        age=_age(told, now),
        notes=tuple(notes),
    )


def _recipe(run: RunFolder, notes: list[str]) -> dict[str, Any]:
    if not run.recipe.exists():
        notes.append("no recipe.yaml")
        return {}
    try:
        values = read_fields(run.recipe, run.recipe.name)
    except ConfigError as error:
        notes.append(f"{error.subject} is not readable: {error.got}")
        return {}
    names = {field: _name(values.get(field)) for field in ("method", "objective", "model", "data", "threat")}
    seed = values.get("seed")
    return {**names, "seed": seed if isinstance(seed, int) else None}


def _name(value: object) -> str | None:
    """Return what a component of a recipe is called: a name, or a mapping with one."""
    named = cast("Mapping[str, object]", value).get("name") if isinstance(value, Mapping) else value
    return named if isinstance(named, str) else None


def _status(run: RunFolder, notes: list[str]) -> status.Status | None:
    try:
        return status.read(run)
    except RunError as error:
        notes.append(f"{run.status.name} is damaged: {error.got}")
        return None


def _state(run: RunFolder, told: status.Status | None, notes: Sequence[str]) -> tuple[State, str]:
    """Return the state of a run and what belongs to it; who holds the lock of one that is done is not asked."""
    if told is None and notes:
        return "damaged", "; ".join(notes)
    held = lock.holder(run) if told is None or told.state == "running" else None
    where = _epoch(run, told)
    if held:
        return "running", f"{where}, {held}"
    if notes:
        return "damaged", "; ".join(notes)
    if told is None or told.state in ("running", "interrupted"):
        return "interrupted", where
    if told.state == "failed":
        return "failed", f"{where}: {told.message}"
    final = run.state(_FINAL)
    return ("finished", "") if final.exists() else ("damaged", f"no {final.relative_to(run.path)}")


def _epoch(run: RunFolder, told: status.Status | None) -> str:
    if told is None:
        return "before its first epoch"
    epochs = _epochs(run, told.phase)
    return f"epoch {told.epoch}{'' if epochs is None else f' of {epochs}'} of phase {told.phase}"


def _epochs(run: RunFolder, phase: str) -> int | None:
    """Return how many epochs a phase has, None where only code of a user's own could tell."""
    # Slow to import, for unfinished runs alone.
    from gossamer.recipe.build import build_method_and_base, has_own_code  # noqa: PLC0415

    try:
        recipe = load_recipe(run.recipe)
        if has_own_code(recipe):
            return None
        method, base = build_method_and_base(recipe)
        phases = method.phases(base, recipe.model.name)
    except GossamerError:
        return None
    return next((each.epochs for each in phases if each.name == phase), None)


@dataclass(frozen=True, kw_only=True)
class _Measured:
    density: float | None
    nonzero: int | None
    accuracies: Sequence[Measure]


def _measured(run: RunFolder, notes: list[str]) -> _Measured:
    """Return what evaluations say; a protocol's or an audit's file, which may be large, is not opened."""
    accuracies: dict[str, Measure] = {}
    counted: dict[int, tuple[float, int]] = {}
    others = ("network", "audit")
    for path in records.files(run.results):
        if path.stem in others or path.stem.startswith("protocol-"):
            continue
        try:
            value = atomic.read_json(path)
            if not str(value["schema"]).startswith("gossamer/evaluation/"):
                continue
            found = list(_accuracies(value))
            counted[value["n"]] = (float(value["density"]), int(value["nonzero"]))
        except (RunError, KeyError, TypeError, ValueError):
            notes.append(f"results/{path.name} is not readable")
            continue
        accuracies |= {_conditions(each): each for each in found}
    density, nonzero = counted[max(counted)] if counted else _counted(run)
    return _Measured(density=density, nonzero=nonzero, accuracies=list(accuracies.values()))


def _accuracies(value: Mapping[str, Any]) -> Iterator[Measure]:
    """Yield the accuracies of an evaluation's JSON; raises KeyError, TypeError or ValueError where it is damaged."""
    if value["schema"] != Evaluation.schema:
        raise ValueError(value["schema"])
    part = str(value["dataset"]["part"])
    yield Measure(
        accuracy=float(value["clean_accuracy"]), interval=_interval(value["clean_interval"]), n=value["n"], part=part
    )
    for each in value["attacks"]:
        yield Measure(
            accuracy=float(each["robust_accuracy"]),
            interval=_interval(each["interval"]),
            n=int(each["n"]),
            part=part,
            attack=str(each["attack"]),
            parameters=dict(each["parameters"]),
            threat=str(each["threat"]),
            eps=float(each["eps"]),
        )


def _interval(value: Sequence[float]) -> Interval:
    low, high = value
    return float(low), float(high)


def _conditions(each: Measure) -> str:
    return repr((each.part, each.n, each.attack, each.parameters, each.threat))


def _counted(run: RunFolder) -> tuple[float | None, int | None]:
    try:
        totals = atomic.read_json(run.result("network"))["totals"]
        return float(totals["density"]), int(totals["nonzero"])
    except (RunError, KeyError, TypeError, ValueError):
        return None, None


def _quoted(attacks: Sequence[Measure], threat: str | None) -> Measure | None:
    """Return the accuracy of the lowest upper end, on test data and at the trained threat where there is one."""
    tested = [each for each in attacks if each.part == "test"]
    trained = [each for each in tested if threat and _same_threat(str(each.threat), threat)]
    return min(trained or tested, key=lambda each: each.interval[1], default=None)


def _same_threat(one: str, other: str) -> bool:
    try:
        return ThreatModel.parse(one) == ThreatModel.parse(other)
    except ConfigError:
        return one == other


def _age(told: status.Status | None, now: datetime) -> float | None:
    try:
        return None if told is None else (now - datetime.fromisoformat(told.updated)).total_seconds()
    except (ValueError, TypeError):
        return None
