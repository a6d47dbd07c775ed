"""With which runs is an entry rebuilt? At each scale, sweeps, and which of their cases stand at which places."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import Field, ValidationError, model_validator

from gossamer.errors import ConfigError
from gossamer.recipe.load import config_error, read_fields
from gossamer.recipe.schema import Section
from gossamer.reproduce.published import Entry, Label
from gossamer.sweep.spec import Case, Sweep, expand

Scale: TypeAlias = Literal["smoke", "paper"]
SCALES: tuple[Scale, ...] = ("smoke", "paper")
SEED = "seed"
"""The axis of a sweep over which places are averaged."""
EPOCH = "epoch"
"""The axis of an entry along which a run's log is read."""


class Reading(Section):
    """How a number is read from a run: one of these.

    of: `clean` accuracy, `nonzero` weights, `density`, `sparsity`, `work` (dense multiply-adds over kept ones), `hours`
    of training, `connections` or `share` kept in the layers of the place. attack: the accuracy under it, with these
    parameters where some are named, at this eps or at the largest; stage: what is left after that member of an ensemble
    of attacks. metric: of an epoch's line in the log, the last one unless the place says which; percent: it is a share,
    told in percent.
    """

    of: Literal["clean", "nonzero", "density", "sparsity", "work", "hours", "connections", "share"] | None = None
    attack: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    eps: float | None = None
    stage: str | None = None
    metric: str | None = None
    percent: bool = False

    @model_validator(mode="after")
    def _one(self) -> "Reading":
        said = [self.of is not None, self.attack is not None, self.metric is not None]
        if said.count(True) != 1:
            raise ConfigError("reading", expected="one of: of, attack, metric", got=said, remedy="say one of them")
        if (self.stage is not None and self.attack is None) or (self.percent and self.metric is None):
            raise ConfigError(
                "reading", expected="stage with an attack, percent with a metric", got=self, remedy="leave it out"
            )
        return self


class Part(Section):
    """Some places of an entry and the cases that stand there.

    at: labels of the entry's axes that all of these places share; where: labels of the sweep's axes; axes: for each
    other axis of the entry, the axis of the sweep, and for each label there the label here. layers: what names the
    layers that are counted; epoch: for readings of metrics, and where the entry has an axis `epoch`, for each label
    there the epoch here; measures: read otherwise here than in the rest.
    """

    sweep: str | None = None
    at: dict[str, Label] = Field(default_factory=dict)
    where: dict[str, Any] = Field(default_factory=dict)
    axes: dict[str, dict[str, dict[Label, Any]]] = Field(default_factory=dict)
    layers: tuple[str, ...] = ()
    epoch: int | dict[Label, int] | None = None
    measures: dict[str, Reading] = Field(default_factory=dict)


class Ours(Section):
    """One entry at one scale. note: what stands for what; missing: why the places that have no case are empty."""

    sweep: str | None = None
    measures: dict[str, Reading] = Field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    note: str = ""
    missing: str = ""


class Study(Section):
    """The sweeps of a study at a scale, and its entries. comparable: whether numbers are of the published setting."""

    comparable: bool
    note: str = ""
    sweeps: dict[str, Sweep]
    entries: dict[str, Ours]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A place of an entry, the cases that stand there, one a seed, and how each measure is read from them."""

    at: Mapping[str, Label]
    cases: Sequence[Case]
    measures: Mapping[str, Reading]
    layers: Sequence[str]
    epoch: int | None


def load_study(name: str, scale: Scale) -> Study | None:
    """Return the runs of a study at a scale, None where none are said; raises ConfigError for a faulty file."""
    path = Path(str(files("gossamer") / "reproduce" / "scales" / scale / f"{name}.yaml"))
    if not path.exists():
        return None
    values = read_fields(path, f"{scale} scale of {name}")
    for sweep, said in values.get("sweeps", {}).items():
        said.setdefault("name", f"{name}-{sweep}")
    try:
        return Study.model_validate(values)
    except ValidationError as error:
        raise config_error(error, Study, f"{scale} scale of {name}") from error


def places(entry: Entry, ours: Ours, study: Study) -> list[Place]:
    """Return the places of an entry that have cases. Raises ConfigError for a label or axis that is not there."""
    found: list[Place] = []
    expanded: dict[str, list[Case]] = {}
    for part in ours.parts:
        sweep = part.sweep or ours.sweep
        if sweep is None or sweep not in study.sweeps:
            raise ConfigError(
                f"{entry.name}: sweep", expected=f"one of {', '.join(study.sweeps)}", got=sweep, remedy="name one"
            )
        if sweep not in expanded:
            expanded[sweep] = expand(study.sweeps[sweep])
        for at, where, epoch in _points(part):
            chosen = [
                case for case in expanded[sweep] if all(case.labels.get(axis) == label for axis, label in where.items())
            ]
            _check_place(entry, at, where, chosen)
            measures = {**ours.measures, **part.measures}
            found.append(Place(at=at, cases=chosen, measures=measures, layers=part.layers, epoch=epoch))
    return found


def _points(part: Part) -> Iterator[tuple[dict[str, Label], dict[str, Any], int | None]]:
    """Yield the labels of each place of a part, on the entry's axes and on the sweep's, and its epoch."""
    moved = [
        [(axis, label, to, mine) for to, labels in said.items() for label, mine in labels.items()]
        for axis, said in part.axes.items()
    ]
    for chosen in itertools.product(*moved):
        at = {**part.at, **{axis: label for axis, label, _, _ in chosen}}
        where = {**part.where, **{to: mine for _, _, to, mine in chosen}}
        if isinstance(part.epoch, dict):
            yield from (({**at, EPOCH: label}, where, epoch) for label, epoch in part.epoch.items())
        else:
            yield at, where, part.epoch


def _check_place(entry: Entry, at: Mapping[str, Label], where: Mapping[str, Any], chosen: Sequence[Case]) -> None:
    if set(at) != set(entry.axes):
        raise ConfigError(
            f"{entry.name}: place",
            expected=f"a label of each of {', '.join(entry.axes)}",
            got=dict(at),
            remedy="add it",
        )
    others = [{axis: label for axis, label in case.labels.items() if axis != SEED} for case in chosen]
    if not chosen or any(each != others[0] for each in others):
        raise ConfigError(
            f"{entry.name}: cases at {dict(at)}",
            expected="one case, or one for every seed",
            got=f"{len(chosen)} cases at {dict(where)}",
            remedy="name a label of every axis of the sweep but seed",
        )
