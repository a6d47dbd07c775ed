"""Who does what next? Tasks whose parents are done go to the engine, until nothing is left that can be done."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from gossamer.errors import ConfigError, GossamerError
from gossamer.recipe.tracked import check_trackers
from gossamer.sweep.engine import Ended, Engine, Handle, RefusedError
from gossamer.sweep.files import StoreError
from gossamer.sweep.plan import Plan
from gossamer.sweep.tasks import Task, came_to, is_done, phase_task, protocol_task, run_task

ATTEMPTS = 3
"""How often a task is handed over without coming further before its workers' dying counts as its own fault."""
PAUSE = 0.2
REFUSALS = 10
"""How often in a row, with nothing of this sweep running, a queue refuses what it will never take."""
REFUSED_PAUSE = 30.0
"""Seconds after which a queue is asked again where nothing runs whose end would make room in it."""
WITHOUT = "no worker is there to take a task; it is waited for one"
LOST = "does its worker reach the same store?"
UNSEEN = 90.0
"""Seconds in which what a worker stored has to be seen: file systems of networks show it late."""

Told: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a sweep ended: the ids of tasks that are done, why others failed, and which could not begin for them."""

    done: Sequence[str]
    failed: Mapping[str, str]
    blocked: Sequence[str]

    @property
    def complete(self) -> bool:
        """Whether all is done."""
        return not self.failed and not self.blocked


@dataclass(kw_only=True)
class Work:
    """Tasks on their way through an engine: which wait for others, which run, and how the rest ended.

    attempts: how often a task is handed over without coming further before its workers' dying counts as its own fault.
    Raises ConfigError for none.
    """

    engine: Engine
    attempts: int = ATTEMPTS
    tell: Told = print
    tasks: dict[str, Task] = field(default_factory=dict[str, Task])
    waiting: list[str] = field(default_factory=list[str])
    done: dict[str, None] = field(default_factory=dict[str, None])
    failed: dict[str, str] = field(default_factory=dict[str, str])
    running: dict[str, Handle] = field(default_factory=dict[str, Handle])
    _unseen: dict[str, tuple[Ended, float]] = field(default_factory=dict[str, tuple[Ended, float]])
    _needs: dict[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    _begun: dict[str, int] = field(default_factory=dict[str, int])
    _furthest: dict[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    _changed: set[str] = field(default_factory=set[str])
    _full: int | None = None
    _without: bool = False
    _refusals: int = 0
    _asked: float = 0.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigError("--attempts", expected="at least 1", got=self.attempts, remedy="leave it out")

    def add(self, given: Iterable[tuple[Task, Sequence[str]]]) -> None:
        """Take tasks on, each with the ids of those before it; raises RunError for a store that is damaged."""
        for new, needs in given:
            before = self.tasks.get(new.id)
            if before is not None and set(new.publish) <= set(before.publish):
                continue
            asked = () if before is None else before.publish
            task = replace(new, publish=tuple(sorted({*new.publish, *asked})))
            self.tasks[task.id], self._needs[task.id] = task, needs
            self._place(task)

    def _place(self, task: Task) -> None:
        self.done.pop(task.id, None)
        if is_done(task):
            self.done[task.id] = None
        elif task.id in self.running:
            self._changed.add(task.id)
        elif task.id not in (*self.failed, *self.waiting):
            self.waiting.append(task.id)

    def withdraw(self, names: Iterable[str]) -> None:
        """Give up what is not done of these tasks: what waits is not begun, what runs is asked to save and end."""
        for name in names:
            if name in self.done or self.tasks.pop(name, None) is None:
                continue
            if name in self.running:
                self._changed.add(name)
                self.running[name].stop()
            elif name in self.waiting:
                self.waiting.remove(name)

    def ready(self) -> Sequence[str]:
        """Return what can begin."""
        return [name for name in self.waiting if self.done.keys() >= set(self._needs[name])]

    def hand_over(self) -> None:
        """Give the engine as much as it takes of what can begin; what measures time begins last, and runs alone."""
        for name in self._next():
            self.waiting.remove(name)
            self._begun[name] = self._begun.get(name, 0) + 1
            self._furthest.setdefault(name, came_to(self.tasks[name]))
            try:
                self.running[name] = self.engine.submit(self.tasks[name])
                self._refusals = 0
            except RefusedError as error:
                self._begun[name] -= 1
                if self._never_taken(name, error):
                    self._fail(name, str(error))
                    continue
                self.waiting.insert(0, name)
                return
            except GossamerError as error:
                self._fail(name, str(error))

    def _never_taken(self, name: str, error: RefusedError) -> bool:
        """Note when to ask again for a task that was refused, and tell whether that was done often enough."""
        if self.running:
            self._full = len(self.running)
            return False
        if not self._refusals:
            self.tell(f"{name}: {error}; it is asked again every {REFUSED_PAUSE:.0f} s")
        self._refusals, self._asked = self._refusals + 1, time.monotonic()
        return self._refusals >= REFUSALS

    def _next(self) -> Sequence[str]:
        if any(self.tasks[name].alone for name in self.running if name in self.tasks):
            return ()
        if self._full is not None and len(self.running) >= self._full:
            return ()
        self._full = None
        if self._refusals and not self.running and time.monotonic() - self._asked < REFUSED_PAUSE:
            return ()
        ready = self.ready()
        self._tell_of_room(ready)
        together = [name for name in ready if not self.tasks[name].alone]
        # What ends runs comes first: a sweep that is cut short has results, not states alone.
        together.sort(key=lambda name: (self.tasks[name].kind == "phase", -self.tasks[name].index))
        if together or self.running:
            return together[: max(0, self.engine.slots - len(self.running))]
        return ready[:1]

    def _tell_of_room(self, ready: Sequence[str]) -> None:
        """Say once that there is nobody to take what could begin, and again when there is."""
        without = bool(ready) and not self.running and self.engine.slots < 1
        if without != self._without:
            self.tell(WITHOUT if without else "workers are there again")
            self._without = without

    def collect(self) -> None:
        """See what has ended, and how."""
        for name, handle in list(self.running.items()):
            ended, since = self._unseen.pop(name, (None, time.monotonic()))
            ended = ended or handle.ended()
            if ended is None:
                continue
            if self._is_unseen(name, ended) and time.monotonic() - since < UNSEEN:
                self._unseen[name] = ended, since
                continue
            del self.running[name]
            if name in self._changed:
                self._changed.remove(name)
                self._reconsider(name)
            else:
                self._settle(name, ended)

    def _is_unseen(self, name: str, ended: Ended) -> bool:
        """Tell whether a task that ended well left nothing that can be seen here, yet."""
        if not ended.ok or name in self._changed:
            return False
        try:
            return not is_done(self.tasks[name])
        except StoreError:
            return False

    def _reconsider(self, name: str) -> None:
        """Place a task that was withdrawn, or asked for more, while it ran."""
        self._begun.pop(name)
        # What is asked for more may begin from its first step again.
        self._furthest.pop(name, None)
        if name in self.tasks:
            self._place(self.tasks[name])

    def _settle(self, name: str, ended: Ended) -> None:
        try:
            nowhere = ended.ok and not is_done(self.tasks[name])
        except StoreError as error:
            nowhere, ended = False, Ended(ok=False, message=str(error), again=True)
        if nowhere:
            ended = Ended(ok=False, message=f"it ended, and nothing of it is in {self.tasks[name].root}: {LOST}")
        if ended.ok:
            self.done[name] = None
            self.tell(f"{name}: {ended.message}; {len(self.done)} of {len(self.tasks)} done")
        elif ended.again and self._may_go_on(name):
            self.waiting.insert(0, name)
            self.tell(f"{name}: {ended.message}; it begins again where it stopped")
        else:
            self._fail(name, ended.message)

    def _may_go_on(self, name: str) -> bool:
        """Tell whether a task whose worker died begins again: where it came further, its attempts count anew."""
        came = came_to(self.tasks[name])
        if came > self._furthest[name]:
            self._furthest[name], self._begun[name] = came, 0
        return self._begun[name] < self.attempts

    def _fail(self, name: str, why: str) -> None:
        self.failed[name] = why
        self.tell(f"{name}: FAILED, {why}")


def tasks_of(plan: Plan, root: str, data_dir: Path | None = None) -> list[tuple[Task, Sequence[str]]]:
    """Return every task of a plan, with the ids of those that come before it."""
    phases = [
        (phase_task(node, root, data_dir), [f"phase-{parent}" for parent in node.parents])
        for node in plan.phases.values()
    ]
    runs = [(run_task(node, root, data_dir), [f"phase-{key}" for key in node.phases]) for node in plan.runs]
    protocols = [
        (protocol_task(node, root, data_dir), [f"run-{name}" for name in node.runs]) for node in plan.protocols
    ]
    return [*phases, *runs, *protocols]


def drive(
    plan: Plan, root: str, engine: Engine, *, data_dir: Path | None = None, attempts: int = ATTEMPTS, tell: Told = print
) -> Outcome:
    """Do all of a plan that is not done, and return how it ended.

    Whatever fails keeps back only what comes after it. A worker that dies is replaced, up to `attempts` times in a row
    that bring it no further. On an interrupt the tasks are asked to end, and the interrupt goes on. Called again,
    also by another process, it goes on with what is left. Raises ConfigError for a tracker that could hear of no run,
    RunError for a damaged store.
    """
    check_trackers(run.recipe for run in plan.runs if not is_done(run_task(run, root, data_dir)))
    work = Work(engine=engine, attempts=attempts, tell=tell)
    work.add(tasks_of(plan, root, data_dir))
    tell(f"{len(work.done)} of {len(work.tasks)} tasks were done before")
    try:
        while work.running or work.ready():
            work.hand_over()
            work.collect()
            time.sleep(PAUSE)
    except BaseException:
        engine.stop()
        raise
    return Outcome(done=tuple(work.done), failed=work.failed, blocked=tuple(work.waiting))
