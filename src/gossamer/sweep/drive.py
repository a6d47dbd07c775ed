"""Who does what next? Tasks whose parents are done go to the engine, until nothing is left that can be done."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from gossamer.errors import ConfigError, GossamerError
from gossamer.sweep.engine import Ended, Engine, Handle
from gossamer.sweep.plan import Plan
from gossamer.sweep.tasks import Task, is_done, phase_task, run_task

ATTEMPTS = 3
"""How often a task is handed over before its workers' dying counts as its own fault."""
PAUSE = 0.2
LOST = "does its worker reach the same store?"

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
class _Standing:
    tasks: Mapping[str, Task]
    needs: Mapping[str, Sequence[str]]
    waiting: list[str]
    done: list[str] = field(default_factory=list[str])
    failed: dict[str, str] = field(default_factory=dict[str, str])
    running: dict[str, Handle] = field(default_factory=dict[str, Handle])
    attempts: dict[str, int] = field(default_factory=dict[str, int])

    def ready(self) -> Iterable[str]:
        """Return what can begin."""
        done = set(self.done)
        return [name for name in self.waiting if done.issuperset(self.needs[name])]


def tasks_of(plan: Plan, root: str, data_dir: Path | None = None) -> list[tuple[Task, Sequence[str]]]:
    """Return every task of a plan, with the ids of those that come before it."""
    phases = [
        (phase_task(node, root, data_dir), [f"phase-{parent}" for parent in node.parents])
        for node in plan.phases.values()
    ]
    runs = [(run_task(node, root, data_dir), [f"phase-{key}" for key in node.phases]) for node in plan.runs]
    return [*phases, *runs]


def drive(
    plan: Plan, root: str, engine: Engine, *, data_dir: Path | None = None, attempts: int = ATTEMPTS, tell: Told = print
) -> Outcome:
    """Do all of a plan that is not done, and return how it ended.

    Whatever fails keeps back only what comes after it. A worker that dies is replaced, `attempts` times in all. On an
    interrupt the tasks are asked to end, and the interrupt goes on. Called again, also by another process, it goes on
    with what is left. Raises RunError for a store that is damaged.
    """
    if attempts < 1:
        raise ConfigError("--attempts", expected="at least 1", got=attempts, remedy="leave it out")
    given = tasks_of(plan, root, data_dir)
    tasks = {task.id: task for task, _ in given}
    done = [name for name, task in tasks.items() if is_done(task)]
    standing = _Standing(
        tasks=tasks,
        needs={task.id: needs for task, needs in given},
        waiting=[name for name in tasks if name not in set(done)],
        done=done,
    )
    tell(f"{len(done)} of {len(tasks)} tasks were done before")
    try:
        while standing.running or standing.ready():
            _hand_over(standing, engine, tell)
            _collect(standing, attempts, tell)
            time.sleep(PAUSE)
    except BaseException:
        engine.stop()
        raise
    return Outcome(done=tuple(standing.done), failed=standing.failed, blocked=tuple(standing.waiting))


def _hand_over(standing: _Standing, engine: Engine, tell: Told) -> None:
    for name in list(standing.ready())[: max(0, engine.slots - len(standing.running))]:
        standing.waiting.remove(name)
        standing.attempts[name] = standing.attempts.get(name, 0) + 1
        try:
            standing.running[name] = engine.submit(standing.tasks[name])
        except GossamerError as error:
            standing.failed[name] = str(error)
            tell(f"{name}: FAILED, {error}")


def _collect(standing: _Standing, attempts: int, tell: Told) -> None:
    for name, handle in list(standing.running.items()):
        ended = handle.ended()
        if ended is None:
            continue
        del standing.running[name]
        if ended.ok and not is_done(standing.tasks[name]):
            ended = Ended(ok=False, message=f"it ended, and nothing of it is in {standing.tasks[name].root}: {LOST}")
        if ended.ok:
            standing.done.append(name)
            tell(f"{name}: {ended.message}; {len(standing.done)} of {len(standing.tasks)} done")
        elif ended.again and standing.attempts[name] < attempts:
            standing.waiting.insert(0, name)
            tell(f"{name}: {ended.message}; it begins again where it stopped")
        else:
            standing.failed[name] = ended.message
            tell(f"{name}: FAILED, {ended.message}")
