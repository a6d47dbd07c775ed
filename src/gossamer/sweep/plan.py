"""What is there to do? The graph of a sweep: distinct phases, each trained once, and the runs that end in them."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gossamer.data import DataSet
from gossamer.errors import GossamerError
from gossamer.recipe.build import Parts, build_data, check
from gossamer.recipe.identity import identify, images_key
from gossamer.recipe.load import run_name
from gossamer.recipe.protocols import Question
from gossamer.recipe.schema import Recipe
from gossamer.recipe.start import started_phases
from gossamer.recipe.unlabelled import open_source
from gossamer.sweep.measurement import Measurement
from gossamer.sweep.spec import Case, Label


@dataclass(frozen=True, kw_only=True)
class PhaseNode:
    """A phase that someone trains once. recipe: one of those that hold it, at `index` of its phases.

    parents: the keys of the phases before it; publish: the epochs whose states anyone asks of it; used_by: how many
    runs need it.
    """

    key: str
    name: str
    index: int
    recipe: Recipe
    epochs: int
    parents: tuple[str, ...]
    publish: tuple[int, ...]
    used_by: int


@dataclass(frozen=True, kw_only=True)
class RunNode:
    """A run: its recipe, the keys of its phases in order, and the labels of the cases that it is.

    images: what identifies those that it is evaluated on, which no phase may have seen; named: paths of what its phases
    compute with, whose versions count.
    """

    name: str
    recipe: Recipe
    phases: tuple[str, ...]
    labels: tuple[Mapping[str, Label], ...]
    images: str = ""
    named: tuple[str, ...] = ()

    @property
    def made_of(self) -> tuple[str, ...]:
        """All that what the run reaches depends on."""
        return (*self.phases, self.images)


@dataclass(frozen=True, kw_only=True)
class ProtocolNode:
    """A measurement of several runs. runs: by name and in order, what each is made of."""

    name: str
    question: Question
    runs: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The graph. phases: by key, parents before children; runs: in the order of the cases; protocols: after both.

    left_out: cases that are not in it, where that was asked for, each with why.
    """

    phases: Mapping[str, PhaseNode]
    runs: Sequence[RunNode]
    protocols: Sequence[ProtocolNode] = ()
    left_out: Sequence[tuple[str, str]] = ()

    @property
    def epochs(self) -> int:
        """Epochs to train, each phase once."""
        return sum(node.epochs for node in self.phases.values())

    @property
    def epochs_alone(self) -> int:
        """Epochs to train if every run trained all of its own phases."""
        return sum(self.phases[key].epochs for run in self.runs for key in run.phases)


@dataclass
class Readings:
    """Data that were read, kept for whoever plans again with the same."""

    parts: dict[str, Parts] = field(default_factory=dict[str, Parts])
    unlabelled: dict[str, Mapping[str, str] | None] = field(default_factory=dict[str, Mapping[str, str] | None])
    images: dict[str, str] = field(default_factory=dict[str, str])
    refused: dict[str, GossamerError] = field(default_factory=dict[str, GossamerError])


@dataclass
class _Found:
    read: Readings
    phases: dict[str, PhaseNode] = field(default_factory=dict[str, PhaseNode])
    runs: dict[str, RunNode] = field(default_factory=dict[str, RunNode])


def plan(
    cases: Sequence[Case],
    data_dir: Path | None = None,
    read: Readings | None = None,
    measurements: Sequence[Measurement] = (),
    *,
    leave_out: bool = False,
) -> Plan:
    """Return the graph of these cases; nothing is trained, data are read for their checksums.

    Cases of one recipe are one run. read: the data that earlier plans read; measurements: of runs of these cases, or of
    others, which are then planned too. leave_out: leave out cases that cannot be planned here, and what is measured of
    them, and say why; otherwise raises the error, naming the case: ConfigError for what cannot be, DataError and
    RunError for data and networks that cannot be read.
    """
    found = _Found(Readings() if read is None else read)
    left_out: dict[str, tuple[str, str]] = {}
    others = [case for each in measurements for case in each.cases]
    known = {run_name(case.recipe) for case in cases}
    for case in [*cases, *(case for case in others if run_name(case.recipe) not in known)]:
        try:
            _add(found, case, data_dir)
        except GossamerError as error:
            if not leave_out:
                raise type(error)(
                    f"case {case}: {error.subject}", expected=error.expected, got=error.got, remedy=error.remedy
                ) from error
            left_out[run_name(case.recipe)] = str(case), str(error)
    protocols = {
        each.name: ProtocolNode(
            name=each.name, question=each.question, runs={name: found.runs[name].made_of for name in each.runs}
        )
        for each in measurements
        if found.runs.keys() >= set(each.runs)
    }
    return Plan(
        phases=found.phases,
        runs=tuple(found.runs.values()),
        protocols=tuple(protocols.values()),
        left_out=tuple(left_out.values()),
    )


def _add(found: _Found, case: Case, data_dir: Path | None) -> None:
    recipe, name = case.recipe, run_name(case.recipe)
    if name in found.runs:
        run = found.runs[name]
        found.runs[name] = replace(run, labels=(*run.labels, case.labels))
        return
    check(recipe)
    parts = _parts(found.read, recipe, data_dir)
    phases, _ = started_phases(recipe, parts, data_dir)
    identity = identify(recipe, phases, parts, _unlabelled(found.read, recipe, parts.train, data_dir))
    keys = identity.keys
    for index, (key, phase) in enumerate(zip(keys, phases, strict=True)):
        before = found.phases.get(key)
        found.phases[key] = PhaseNode(
            key=key,
            name=phase.name,
            index=index,
            recipe=recipe if before is None else before.recipe,
            epochs=phase.epochs,
            parents=tuple(keys[:index]),
            publish=tuple(sorted({*phase.publish, *(() if before is None else before.publish)})),
            used_by=1 + (0 if before is None else before.used_by),
        )
    found.runs[name] = RunNode(
        name=name,
        recipe=recipe,
        phases=tuple(keys),
        labels=(case.labels,),
        images=_images(found.read, recipe, parts),
        named=identity.named,
    )


def _parts(read: Readings, recipe: Recipe, data_dir: Path | None) -> Parts:
    """Return the data of a recipe, read once for all recipes that ask for the same."""
    asked = recipe.data.model_dump_json()
    if asked in read.refused:
        raise read.refused[asked]
    if asked not in read.parts:
        try:
            read.parts[asked] = build_data(recipe, data_dir)
        except GossamerError as error:
            read.refused[asked] = error
            raise
    return read.parts[asked]


def _images(read: Readings, recipe: Recipe, parts: Parts) -> str:
    """Return what identifies the images that a recipe is evaluated on, found once for all that ask for the same."""
    asked = recipe.data.model_dump_json()
    if asked not in read.images:
        read.images[asked] = images_key(parts)
    return read.images[asked]


def _unlabelled(read: Readings, recipe: Recipe, train: DataSet, data_dir: Path | None) -> Mapping[str, str] | None:
    """Return what identifies the pseudo-labelled images of a recipe, read once for all that ask for the same."""
    asked = recipe.data.model_dump_json()
    if asked not in read.unlabelled:
        with tempfile.TemporaryDirectory(prefix="gossamer-") as nowhere:
            source = open_source(recipe, train, Path(nowhere), data_dir)
            read.unlabelled[asked] = None if source is None else source.checksums
    return read.unlabelled[asked]
