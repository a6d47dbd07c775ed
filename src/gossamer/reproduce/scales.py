"""With which runs is an entry rebuilt? At each scale, sweeps, and which of their cases stand at which places."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, cast

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from gossamer.errors import ConfigError
from gossamer.recipe.load import config_error, read_fields, run_name
from gossamer.recipe.protocols import Question, read_question
from gossamer.recipe.schema import Section
from gossamer.reproduce.measured import check_picked
from gossamer.reproduce.published import Entry, Label
from gossamer.sweep.measurement import Measurement
from gossamer.sweep.spec import Case, Sweep, expand
from gossamer.threat import parse_eps

Scale: TypeAlias = Literal["smoke", "paper"]
SCALES: tuple[Scale, ...] = ("smoke", "paper")
SEED = "seed"
"""The axis of a sweep over which places are averaged."""
EPOCH = "epoch"
"""The axis of an entry along which a run's log is read."""
EPS = "eps"
"""What places pick of attacks: the radius."""
TRANSFER = "transfer"
"""The protocol that makes examples on the runs beside the others alone."""


def _question(value: object) -> object:
    return read_question(cast("dict[str, Any]", value)) if isinstance(value, dict) else value


class Reading(Section):
    """How a number is read from a run: one of these.

    of: `clean` accuracy, `nonzero` weights, these as `times` those of the run beside, `density`, `sparsity`, `work`
    (dense multiply-adds over kept ones), `hours` of training, `connections` or `share` kept in the layers of the place.
    attack: the accuracy under it, with these parameters where some are named, at this eps or at the largest; stage:
    what is left after that member of an ensemble of attacks. metric: of an epoch's line in the log, the last one unless
    the place says which; percent: it is a share, told in percent. protocol: what is asked of all runs of the part
    together, those beside them first; pick: which number of the answer. deviation_of: over seeds, of another measure.
    smallest: the least of the numbers along the place at which as much is read as at the place itself, on average over
    seeds; none where none is.
    """

    of: Literal["clean", "nonzero", "density", "sparsity", "work", "hours", "connections", "share", "times"] | None = (
        None
    )
    attack: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    eps: float | None = None
    stage: str | None = None
    metric: str | None = None
    percent: bool = False
    deviation_of: str | None = None
    smallest: "Reading | None" = None
    protocol: Annotated[Question | None, BeforeValidator(_question)] = None
    pick: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one(self) -> "Reading":
        said = {"of": self.of, "attack": self.attack, "metric": self.metric, "protocol": self.protocol}
        said |= {"deviation_of": self.deviation_of, "smallest": self.smallest}
        chosen = [name for name, value in said.items() if value is not None]
        if len(chosen) != 1:
            raise ConfigError("reading", expected=f"one of: {', '.join(said)}", got=chosen, remedy="say one of them")
        if self.pick and self.protocol is None:
            raise ConfigError("reading", expected="pick with a protocol", got=self, remedy="leave it out")
        if (self.stage is not None and self.attack is None) or (self.percent and self.metric is None):
            raise ConfigError(
                "reading", expected="stage with an attack, percent with a metric", got=self, remedy="leave it out"
            )
        return self


class Beside(Section):
    """A run beside those of a part: labels of the axes of a sweep, by default the part's; one, or one for each seed."""

    sweep: str | None = None
    where: dict[str, Any]


class Part(Section):
    """Some places of an entry and the cases that stand there.

    at: labels of the entry's axes that all of these places share; where: labels of the sweep's axes; axes: for each
    other axis of the entry, the axis of the sweep, and for each label there the label here. layers: what names the
    layers that are counted; epoch: for readings of metrics, and where the entry has an axis `epoch`, for each label
    there the epoch here; measures: read otherwise here than in the rest. beside: labels of runs that are measured with
    each, of the same sweep: what examples were made on, or is averaged with it; picks: for an axis of the entry, what
    is picked of protocols' answers, or the `eps` that readings of attacks are at, and for each label there its value;
    along: for readings of the smallest, numbers, and by which labels of the sweep the runs that have each differ from
    those of the place.
    """

    sweep: str | None = None
    at: dict[str, Label] = Field(default_factory=dict)
    where: dict[str, Any] = Field(default_factory=dict)
    axes: dict[str, dict[str, dict[Label, Any]]] = Field(default_factory=dict)
    layers: tuple[str, ...] = ()
    epoch: int | dict[Label, int] | None = None
    measures: dict[str, Reading] = Field(default_factory=dict)
    beside: tuple[Beside, ...] = ()
    picks: dict[str, dict[str, dict[Label, Any]]] = Field(default_factory=dict)
    along: dict[float, dict[str, Any]] = Field(default_factory=dict)


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
    """A place of an entry, the cases that stand there, one a seed, and how each measure is read from them.

    beside: of each of the cases, those beside it; measurements: of measures that are read from protocols, each case's;
    along: the cases that have each of some numbers.
    """

    at: Mapping[str, Label]
    cases: Sequence[Case]
    measures: Mapping[str, Reading]
    layers: Sequence[str]
    epoch: int | None
    beside: Sequence[Sequence[Case]]
    measurements: Mapping[str, Sequence[Measurement]]
    along: Mapping[float, Sequence[Case]] = field(default_factory=dict[float, Sequence[Case]])

    @property
    def runs(self) -> list[Case]:
        """All cases whose runs the place needs."""
        return [*self.cases, *itertools.chain.from_iterable([*self.beside, *self.along.values()])]


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
    cases = _Cases(entry=entry, study=study)
    return [place for part in ours.parts for place in _places(part, ours, cases)]


def planned_elsewhere(entry: Entry, scale: Scale) -> list[tuple[Mapping[str, Label], str]]:
    """Return the places of an entry, and what is measured there, that scales other than this one have runs for."""
    study, _, which = entry.name.partition("/")
    others = [load_study(study, other) for other in SCALES if other != scale]
    found = [each.entries[which] for each in others if each is not None and which in each.entries]
    return [
        (point.at, measure)
        for ours in found
        for part in ours.parts
        for point in _points(part)
        for measure in {**ours.measures, **part.measures}
    ]


@dataclass(frozen=True, kw_only=True)
class _Cases:
    """The cases of a study's sweeps, each expanded when it is first asked for."""

    entry: Entry
    study: Study
    expanded: dict[str, list[Case]] = field(default_factory=dict[str, list[Case]])

    def at(self, sweep: str | None, where: Mapping[str, Any]) -> list[Case]:
        """Return the cases with these labels: one, or one for every seed. Raises ConfigError."""
        if sweep is None or sweep not in self.study.sweeps:
            raise ConfigError(
                f"{self.entry.name}: sweep",
                expected=f"one of {', '.join(self.study.sweeps)}",
                got=sweep,
                remedy="name one",
            )
        if sweep not in self.expanded:
            self.expanded[sweep] = expand(self.study.sweeps[sweep])
        found = [
            case
            for case in self.expanded[sweep]
            if all(case.labels.get(axis) == label for axis, label in where.items())
        ]
        others = [{axis: label for axis, label in case.labels.items() if axis != SEED} for case in found]
        if not found or any(each != others[0] for each in others):
            raise ConfigError(
                f"{self.entry.name}: cases",
                expected="one case, or one for every seed",
                got=f"{len(found)} cases at {dict(where)}",
                remedy="name a label of every axis of the sweep but seed",
            )
        return found


def _places(part: Part, ours: Ours, cases: _Cases) -> list[Place]:
    """Return the places of a part; what a protocol is asked, it is asked of the runs of all of them together."""
    sweep, measures = part.sweep or ours.sweep, {**ours.measures, **part.measures}
    points = list(_points(part))
    for point in points:
        _check_place(cases.entry, point.at)
    chosen = [cases.at(sweep, point.where) for point in points]
    beside = [cases.at(each.sweep or sweep, each.where) for each in part.beside]
    together = _together(cases.entry, part, [*beside, *chosen]) if _asks(measures) or part.beside else []
    return [
        Place(
            at=point.at,
            cases=own,
            measures={name: _picked(reading, point.picked) for name, reading in measures.items()},
            layers=part.layers,
            epoch=point.epoch,
            beside=[each[: len(part.beside)] for each in together],
            measurements={
                name: [_measurement(reading.protocol, each, len(part.beside)) for each in together]
                for name, reading in measures.items()
                if reading.protocol is not None
            },
            along={number: cases.at(sweep, {**point.where, **labels}) for number, labels in part.along.items()},
        )
        for point, own in zip(points, chosen, strict=True)
    ]


def _asks(measures: Mapping[str, Reading]) -> bool:
    return any(reading.protocol is not None for reading in measures.values())


def _together(entry: Entry, part: Part, chosen: Sequence[Sequence[Case]]) -> list[list[Case]]:
    """Return what is measured together, for each seed: a case of each place; one that has no seeds stands in all."""
    seeds = max(len(each) for each in chosen)
    if any(len(each) not in (1, seeds) for each in chosen[: len(part.beside)]) or any(
        len(each) != seeds for each in chosen[len(part.beside) :]
    ):
        raise ConfigError(
            f"{entry.name}: measured together",
            expected="as many seeds at every place of the part",
            got=", ".join(str(len(each)) for each in chosen),
            remedy="make parts of their own of the others",
        )
    return [[each[min(seed, len(each) - 1)] for each in chosen] for seed in range(seeds)]


def _measurement(question: Question, cases: Sequence[Case], beside: int) -> Measurement:
    """Return what is asked of cases, of which so many stand beside the others: examples are made on those alone."""
    if question.name == TRANSFER:
        sources = list(dict.fromkeys(run_name(case.recipe) for case in cases[:beside]))
        question = question.model_copy(update={"sources": sources})
    return Measurement(question=question, cases=cases)


def _picked(reading: Reading, picked: Mapping[str, Any]) -> Reading:
    """Return a reading with what a place picks; raises ConfigError for what its protocol or attack does not know."""
    if reading.attack is not None and picked:
        if set(picked) != {EPS}:
            raise ConfigError("picks of an attack", expected=EPS, got=", ".join(picked), remedy="say eps alone")
        return reading.model_copy(update={EPS: parse_eps(picked[EPS])})
    if reading.protocol is None:
        return reading
    pick = {**reading.pick, **picked}
    check_picked(reading.protocol.name, pick)
    return reading.model_copy(update={"pick": pick})


@dataclass(frozen=True, kw_only=True)
class _Point:
    """The labels of a place, on the entry's axes and on the sweep's, its epoch, and what it picks."""

    at: dict[str, Label]
    where: dict[str, Any]
    epoch: int | None
    picked: dict[str, Any]


def _points(part: Part) -> Iterator[_Point]:
    moved = [_moves(axis, said) for axis, said in part.axes.items()]
    picks = [_moves(axis, said) for axis, said in part.picks.items()]
    epochs = part.epoch if isinstance(part.epoch, dict) else {None: part.epoch}
    for chosen in itertools.product(*moved):
        for picked in itertools.product(*picks):
            labels = {axis: label for axis, label, _, _ in (*chosen, *picked)}
            for label, epoch in epochs.items():
                yield _Point(
                    at={**part.at, **labels, **({} if label is None else {EPOCH: label})},
                    where={**part.where, **{to: mine for _, _, to, mine in chosen}},
                    epoch=epoch,
                    picked={to: mine for _, _, to, mine in picked},
                )


def _moves(axis: str, said: Mapping[str, Mapping[Label, Any]]) -> list[tuple[str, Label, str, Any]]:
    """Return for each label of an axis where it points: to which axis of a sweep, or pick, and to what there."""
    return [(axis, label, to, mine) for to, labels in said.items() for label, mine in labels.items()]


def _check_place(entry: Entry, at: Mapping[str, Label]) -> None:
    if set(at) != set(entry.axes):
        raise ConfigError(
            f"{entry.name}: place",
            expected=f"a label of each of {', '.join(entry.axes)}",
            got=dict(at),
            remedy="add it",
        )
