"""What is there of a run? All that can be read of its folder, and notes on what is missing or damaged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from gossamer.errors import ConfigError, GossamerError
from gossamer.report import words
from gossamer.runs import RunFolder, atomic, explanations, metrics, panel, results, status
from gossamer.runs.explanations import Explanations
from gossamer.runs.measured import Measured, measured_files, read_measured
from gossamer.runs.namesakes import differing
from gossamer.runs.panel import Panel
from gossamer.runs.results import Evaluation, Network
from gossamer.runs.status import Status
from gossamer.runs.timings import Timings, read_timings, timing_files
from gossamer.threat import ThreatModel

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RunView:
    """What a page can say of one run; `name` is unique on the page; `measured`: audits and protocols in its folder,
    `timings`: benches; `notes` say what it cannot; `apart`: by which parameters attacks of one name are told apart, on
    the whole page."""

    name: str
    path: Path
    recipe: dict[str, Any]
    env: dict[str, Any]
    status: Status | None
    lines: list[dict[str, Any]]
    evaluations: list[Evaluation]
    network: Network | None
    panels: dict[str, Panel]
    measured: list[Measured]
    timings: list[Timings] = field(default_factory=list[Timings])
    explanations: Explanations | None = None
    notes: list[str] = field(default_factory=list[str])
    apart: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])

    def named(self, attack: str, parameters: Mapping[str, Any]) -> str:
        """Return what the page calls an attack: two of one name whose parameters differ have names of their own."""
        title = words.attack_name(attack, parameters)
        more = [f"{key.replace('_', ' ')} {parameters[key]}" for key in self.apart.get(title, ()) if key in parameters]
        return ", ".join([title, *more])

    @property
    def headline(self) -> Evaluation | None:
        """The evaluation to quote: on test data, at the trained threat, of the lowest upper end of its interval.

        So a stronger attack goes before a weaker one on more samples, and a handful of samples before neither.
        """
        trained = _threat(self.recipe.get("threat"))
        tested = [one for one in self.evaluations if one.dataset.part == "test"]
        at_threat = [one for one in tested if trained and _threat(one.threat) == trained]
        return min(at_threat or tested, key=lambda one: one.interval[1], default=None)

    @property
    def comparable(self) -> list[Evaluation]:
        """The evaluations on the headline's data; all of them where there is none to quote."""
        headline = self.headline
        if headline is None:
            return self.evaluations
        data = (headline.dataset.name, headline.dataset.part)
        return [one for one in self.evaluations if (one.dataset.name, one.dataset.part) == data]


def collect(paths: list[Path]) -> list[RunView]:
    """Return a view of each run; raises RunError for a path that holds nothing of a run."""
    folders = [_folder(path) for path in paths]
    names = [run.name for run in folders]
    views = [_view(run, run.name if names.count(run.name) == 1 else str(run.path)) for run in folders]
    outcomes = [each for view in views for one in view.evaluations for each in one.attacks]
    apart = differing((words.outcome_name(each), each.parameters) for each in outcomes)
    return [replace(view, apart=apart) for view in views]


def _folder(path: Path) -> RunFolder:
    run = RunFolder(path)
    return run if run.begun else RunFolder.open(path)


def _view(run: RunFolder, name: str) -> RunView:
    notes: list[str] = []

    def attempt(read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except GossamerError as error:
            notes.append(f"Could not read {error.subject}: {error.got}.")
            return otherwise

    view = RunView(
        name=name,
        path=run.path,
        recipe=attempt(lambda: _read_recipe(run, notes), {}),
        env=attempt(lambda: _read_env(run, notes), {}),
        status=attempt(lambda: status.read(run), None),
        lines=attempt(lambda: metrics.read(run), []),
        evaluations=[
            one
            for path in results.evaluation_files(run)
            if (one := attempt(lambda path=path: results.read_evaluation(path), None))
        ],
        network=attempt(lambda: results.read_network(run), None) if run.result("network").exists() else None,
        panels={
            each: found
            for each in panel.names(run)
            if (found := attempt(lambda each=each: panel.read(run, each), None))
        },
        measured=[
            record for path in measured_files(run) if (record := attempt(lambda path=path: read_measured(path), None))
        ],
        timings=[
            record for path in timing_files(run) if (record := attempt(lambda path=path: read_timings(path), None))
        ],
        explanations=attempt(lambda: explanations.read(run), None) if explanations.path_of(run).exists() else None,
        notes=notes,
    )
    notes.extend(_missing(view))
    return view


def _missing(view: RunView) -> list[str]:
    where, quoted = view.status, str(view.path)
    notes: list[str] = []
    if where is None:
        notes.append("No status was written: the run has not begun, or its folder was copied in part.")
    elif where.state != "done":
        message = f": {where.message}" if where.message else ""
        notes.append(
            f"The run is {where.state} (phase {where.phase}, epoch {where.epoch}){message}. "
            "What follows is of an unfinished run."
        )
    if not view.lines:
        notes.append("No epoch is logged yet: there are no training curves.")
    if not view.evaluations:
        notes.append(f"Not evaluated yet: run `gossamer evaluate {quoted}`.")
    if view.network is None:
        notes.append("No results/network.json: density per layer, work ratio and weights are not shown.")
    if not view.panels:
        notes.append("No panel of images was drawn.")
    return notes


def _read_recipe(run: RunFolder, notes: list[str]) -> dict[str, Any]:
    if not run.recipe.exists():
        notes.append("No recipe.yaml: what was run is not known.")
        return {}
    try:
        read: object = yaml.safe_load(run.recipe.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        read = None
    if isinstance(read, dict):
        return cast("dict[str, Any]", read)
    notes.append("Could not read recipe.yaml: what was run is not known.")
    return {}


def _read_env(run: RunFolder, notes: list[str]) -> dict[str, Any]:
    if not run.env.exists():
        notes.append("No env.json: machine and versions are not known.")
        return {}
    read: object = atomic.read_json(run.env)
    return cast("dict[str, Any]", read) if isinstance(read, dict) else {}


def _threat(value: object) -> ThreatModel | None:
    """Return a threat from a recipe's text or mapping, None where it is neither."""
    parts = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    text = f"{parts.get('norm')}:{parts.get('eps')}" if parts else str(value)
    try:
        return ThreatModel.parse(text)
    except ConfigError:
        return None
