"""Who does what next in a search? Trials begin while there is room, share what they train, and end by the rule."""

import secrets
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gossamer.errors import ConfigError, GossamerError, RunError
from gossamer.recipe.schema import Recipe
from gossamer.recipe.tracked import check_trackers
from gossamer.runs import RunFolder, atomic, lock, metrics
from gossamer.sweep.drive import ATTEMPTS, Told, Work, tasks_of
from gossamer.sweep.engine import Engine
from gossamer.sweep.followed import untold
from gossamer.sweep.plan import Plan, Readings, plan
from gossamer.sweep.search.measures import check_timing, needs_timing, time_run, values_of
from gossamer.sweep.search.pruning import Curve, verdict
from gossamer.sweep.search.spec import COSTS, Parameters, Search, base_recipe, check_search, recipe_of, told
from gossamer.sweep.search.study import Trial, Trials, open_trials
from gossamer.sweep.spec import Case
from gossamer.sweep.store import Store

PAUSE = 0.2
FAILURES = 3
"""So many failed trials in a row end a search: what fails them is no matter of their parameters."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a search ended: its trials, and whether it stopped for failures."""

    trials: Sequence[Trial]
    stopped: bool


@dataclass(kw_only=True)
class _Live:
    """A trial on its way. phases: keys in order; tasks: their ids, that of the run last; judged: epochs that were."""

    recipe: Recipe
    run: RunFolder
    phases: Sequence[str]
    tasks: Sequence[str]
    judged: int = 0


def run_search(
    search: Search,
    root: Path,
    engine: Engine,
    *,
    data_dir: Path | None = None,
    attempts: int = ATTEMPTS,
    tell: Told = print,
) -> Ended:
    """Train and measure trials until there are as many as the search asks for.

    Trials that ran when an earlier process ended go on first, with their own parameters. On an interrupt the tasks are
    asked to end, and the interrupt goes on. Raises ConfigError before anything begins, RunError where another process
    holds the search, its trials would now be made of other data or by another version, or the store is damaged.
    """
    check_search(search)
    check_timing(search)
    check_trackers([base_recipe(search)])
    with _held(search, root) as store, open_trials(search, root) as trials:
        trials.keep_to(store)
        work = Work(engine=engine, attempts=attempts, tell=lambda _line: None)
        searching = _Searching(search=search, root=root, trials=trials, work=work, data_dir=data_dir, tell=tell)
        try:
            searching.run()
        except BaseException:
            engine.stop()
            raise
        return Ended(trials=trials.begun(), stopped=searching.stopped)


@contextmanager
def _held(search: Search, root: Path) -> Generator[str]:
    """Keep a second process from the same search: it would take its running trials for left behind.

    Gives what tells this store from others, which the storage of trials may be reached from too.
    """
    folder = RunFolder(root / "locks" / f"search-{search.name}")
    atomic.make_directory(folder.path)
    with lock.attempt(folder) as mine:
        if not mine:
            raise RunError(
                f"search {search.name}",
                expected="a search that no process is at",
                got="another process at it",
                remedy="wait for it, or stop it",
            )
        named = folder.path / "store"
        if not named.exists():
            atomic.write_text(named, secrets.token_hex(8))
        yield named.read_text(encoding="utf-8")


@dataclass(kw_only=True)
class _Searching:
    search: Search
    root: Path
    trials: Trials
    work: Work
    data_dir: Path | None
    tell: Told
    live: dict[int, _Live] = field(default_factory=dict[int, _Live])
    failures: int = 0
    finished: dict[str, None] = field(default_factory=dict[str, None])
    read: Readings = field(default_factory=Readings)
    # Metrics that will not change: of finished phases by key, of finished runs by name.
    _lines: dict[str, Curve] = field(default_factory=dict[str, Curve])

    @property
    def stopped(self) -> bool:
        return self.failures >= FAILURES

    def run(self) -> None:
        running, before = self.trials.recover(), self.trials.begun()
        left = self.search.trials - len(before)
        if running or left > 0:
            self._check_alike(before)
        for number, parameters in running.items():
            self._begin(number, parameters, "goes on")
        self.finished = {trial.run: None for trial in before if trial.state == "done" and trial.run}
        while True:
            while left > 0 and len(self.live) < self.work.engine.slots and not self.stopped:
                left -= 1
                self._begin(*self.trials.propose(), "begins")
            if not self.live and not self.work.running:
                return
            self._turn()
            time.sleep(PAUSE)

    def _turn(self) -> None:
        trained = [number for number, trial in self.live.items() if trial.tasks[-1] in self.work.done]
        untimed = [number for number in trained if needs_timing(self.search, self.live[number].run)]
        # A network is timed while nothing else runs here.
        if not untimed:
            self.work.hand_over()
        self.work.collect()
        for number in trained:
            if number not in untimed:
                self._finish(number)
            elif not self.work.running:
                self._time(number)
        for number in [each for each in self.live if each not in trained]:
            self._look_at(number)

    def _begin(self, number: int, parameters: Parameters, how: str) -> None:
        self.tell(f"trial {number} {how}: {told(parameters, tuple(self.search.space))}")
        try:
            graph = self._planned(parameters)
        except ConfigError as error:
            self._fail(number, str(error), counts=False)
            return
        (node,) = graph.runs
        given = tasks_of(graph, str(self.root), self.data_dir)
        self.work.add(given)
        self.trials.name_run(number, node.name, node.made_of)
        self.live[number] = _Live(
            recipe=node.recipe,
            run=RunFolder(self.root / "runs" / node.name),
            phases=node.phases,
            tasks=[task.id for task, _ in given],
        )

    def _planned(self, parameters: Parameters) -> Plan:
        case = Case(labels=parameters, recipe=recipe_of(self.search, parameters))
        return plan([case], self.data_dir, self.read)

    def _check_alike(self, trials: Sequence[Trial]) -> None:
        """Refuse to go on beside trials that would now be made of other data, or by another version."""
        ended = [trial for trial in trials if trial.state in ("done", "pruned") and trial.made_of is not None]
        others = [trial.number for trial in ended if self._made_of(trial.parameters) != trial.made_of]
        if others:
            raise RunError(
                f"search {self.search.name}",
                expected="the data and the versions of the arithmetic that its trials began with",
                got=f"others, by which {len(others)} of {len(ended)} would be other runs, trial {others[0]} first",
                remedy="put the data back, or give the search another name: what it trained and is the same is shared",
            )

    def _made_of(self, parameters: Parameters) -> tuple[str, ...] | None:
        """Return what the run of a trial would be made of now, None where it can no longer be."""
        try:
            (node,) = self._planned(parameters).runs
        except ConfigError:
            return None
        return node.made_of

    def _finish(self, number: int) -> None:
        trial = self.live[number]
        try:
            values = values_of(self.search, trial.recipe, trial.run)
        except GossamerError as error:
            self._fail(number, str(error))
            return
        del self.live[number]
        self.trials.finish(number, values)
        self.finished[trial.run.name] = None
        self.failures = 0
        shown = ", ".join(f"{name} {value:.6g}" for name, value in zip(self.search.measures, values, strict=True))
        missed = untold(trial.run, trial.recipe.machine.all_trackers)
        self.tell(f"trial {number} is done: {shown}" + (f"; {missed}" if missed else ""))

    def _time(self, number: int) -> None:
        try:
            time_run(self.live[number].run, self.data_dir)
        except GossamerError as error:
            self._fail(number, str(error))

    def _look_at(self, number: int) -> None:
        """Fail a trial whose task failed; give one up that lies behind."""
        trial = self.live[number]
        failed = next((self.work.failed[task] for task in trial.tasks if task in self.work.failed), None)
        if failed is not None:
            self._fail(number, failed)
            return
        why = self._behind(trial)
        if why is not None:
            self.tell(f"trial {number} is PRUNED {why}")
            # What is asked to end is recorded first: killed in between, the trial does not begin again.
            self.trials.give_up(number, why, "pruned")
            self._withdraw(number)
            self.failures = 0

    def _fail(self, number: int, why: str, *, counts: bool = True) -> None:
        """Record a failure; counts: whether it may be of more than this trial's parameters."""
        self.tell(f"trial {number} FAILED: {why}")
        self.trials.give_up(number, why, "failed")
        self._withdraw(number)
        self.failures += counts

    def _withdraw(self, number: int) -> None:
        """Stop what only this trial needs."""
        trial = self.live.pop(number, None)
        if trial is not None:
            needed = {task for each in self.live.values() for task in each.tasks}
            self.work.withdraw(task for task in trial.tasks if task not in needed)

    def _behind(self, trial: _Live) -> str | None:
        rule = self.search.prune
        if rule is None:
            return None
        own = self._curve(trial)
        if len(own) == trial.judged:
            return None
        finished = [self._finished(run) for run in self.finished]
        sized = not {*self.search.measures}.isdisjoint(COSTS)
        why = verdict(rule, own, finished, sized=sized, seen=trial.judged)
        trial.judged = len(own)
        return why

    def _curve(self, trial: _Live) -> Curve:
        """Return the metrics of a trial that is being trained, finished phases first; of one that is trained, none."""
        lines: list[Mapping[str, Any]] = []
        for key in trial.phases:
            if f"phase-{key}" not in self.work.done:
                return [*lines, *_written(RunFolder(self.root / "work" / key))]
            if key not in self._lines:
                store = Store(str(self.root))
                record = store.find(key)
                self._lines[key] = [] if record is None else store.lines(record)
            lines += self._lines[key]
        return []

    def _finished(self, run: str) -> Curve:
        if run not in self._lines:
            self._lines[run] = metrics.read(RunFolder(self.root / "runs" / run))
        return self._lines[run]


def _written(folder: RunFolder) -> Curve:
    try:
        return metrics.read(folder)
    except (OSError, RunError):
        # Its worker may be moving it away: there is another look at the next turn.
        return []
