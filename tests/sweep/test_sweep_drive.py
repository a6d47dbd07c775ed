"""The driver hands over what is ready, replaces workers that die, and keeps back only what comes after a failure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gossamer.errors import ConfigError
from gossamer.evaluation.ledger import Ledger
from gossamer.recipe.load import load_recipe
from gossamer.recipe.protocols import read_question
from gossamer.runs import RunFolder, atomic, checkpoints
from gossamer.sweep import drive as room
from gossamer.sweep.drive import Work, drive, tasks_of
from gossamer.sweep.engine import Ended, RefusedError
from gossamer.sweep.files import StoreError
from gossamer.sweep.plan import PhaseNode, Plan, ProtocolNode, RunNode
from gossamer.sweep.tasks import Task

RECIPE = load_recipe("random/digits-90")
DONE, DIED, FAILED = (
    Ended(ok=True, message="done"),
    Ended(ok=False, message="killed", again=True),
    Ended(ok=False, message="no"),
)


def graph(parents: Sequence[Sequence[int]]) -> Plan:
    """Return a plan whose phases have these parents, and a run for each phase that ends there."""
    nodes = {
        str(number): PhaseNode(
            key=str(number),
            name="train",
            index=len(before),
            recipe=RECIPE,
            epochs=1,
            parents=tuple(map(str, before)),
            publish=(),
            used_by=1,
        )
        for number, before in enumerate(parents)
    }
    runs = tuple(
        RunNode(name=f"r{key}", recipe=RECIPE, phases=(*node.parents, key), labels=({},)) for key, node in nodes.items()
    )
    return Plan(phases=nodes, runs=runs)


@dataclass
class Hands:
    """An engine that ends tasks as it is told, some polls later."""

    outcome: Callable[[Task, int], Ended | BaseException]
    slots: int = 2
    finished: set[str] = field(default_factory=set[str])
    log: list[str] = field(default_factory=list[str])
    most: int = 0
    running: int = 0
    stopped: bool = False
    told: list[str] = field(default_factory=list[str])

    def submit(self, task: Task) -> Any:
        needs = {f"phase-{key}" for key in task.parents}
        assert needs <= self.finished, (task.id, self.finished)
        self.log.append(task.id)
        self.running += 1
        self.most = max(self.most, self.running)
        return _Handle(self, task, self.log.count(task.id))

    def stop(self) -> None:
        self.stopped = True


@dataclass
class _Handle:
    hands: Hands
    task: Task
    attempt: int
    polls: int = 2

    def stop(self) -> None:
        self.hands.told.append(self.task.id)

    def ended(self) -> Ended | None:
        self.polls -= 1
        if self.polls:
            return None
        self.hands.running -= 1
        found = self.hands.outcome(self.task, self.attempt)
        if isinstance(found, BaseException):
            raise found
        if found.ok:
            self.hands.finished.add(self.task.id)
            STORED.add(self.task.id)
        return found


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PAUSE", 0.0)
    monkeypatch.setattr(room, "REFUSED_PAUSE", 0.0)
    monkeypatch.setattr(room, "is_done", lambda task: task.id in STORED)
    STORED.clear()


STORED: set[str] = set()
"""What lies in the store."""


def told(_line: str) -> None:
    """Say nothing."""


DIAMOND = ((), (0,), (0,), (0, 1), (0, 2))


def test_everything_is_done_once_and_after_its_parents(tmp_path: Path):
    hands = Hands(lambda _task, _attempt: DONE)
    outcome = drive(graph(DIAMOND), str(tmp_path), hands, tell=told)
    assert outcome.complete
    assert sorted(hands.log) == sorted(set(hands.log)) == sorted(outcome.done)
    assert len(hands.log) == 10
    assert hands.most == 2


def test_what_measures_time_runs_alone_and_other_protocols_beside_others(tmp_path: Path):
    runs = graph([(), (), ()])
    asked = [("latency", "r0"), ("weights", "r0"), ("weights", "r1"), ("latency", "r1"), ("latency", "r2")]
    protocols = tuple(
        ProtocolNode(name=f"{name}-{run}", question=read_question({"name": name}), runs={run: (run[1:],)})
        for name, run in asked
    )
    beside: dict[str, int] = {}

    def outcome(task: Task, _attempt: int) -> Ended:
        beside[task.id] = hands.running
        return DONE

    hands = Hands(outcome, slots=3)
    submitted: dict[str, int] = {}
    submit = hands.submit
    hands.submit = lambda task: (submitted.update({task.id: hands.running}), submit(task))[1]  # type: ignore[method-assign]
    assert drive(replace(runs, protocols=protocols), str(tmp_path), hands, tell=told).complete
    timed = [task for task in hands.log if "latency" in task]
    assert len(timed) == 3
    assert all(submitted[task] == beside[task] == 0 for task in timed)
    assert hands.log[-3:] == timed
    assert hands.most == 3


def test_a_worker_that_dies_is_replaced_and_not_for_ever(tmp_path: Path):
    hands = Hands(lambda task, attempt: DIED if task.id == "phase-1" and attempt < 3 else DONE)
    assert drive(graph(DIAMOND), str(tmp_path), hands, tell=told).complete
    assert hands.log.count("phase-1") == 3
    STORED.clear()
    hands = Hands(lambda task, _attempt: DIED if task.id == "phase-1" else DONE)
    outcome = drive(graph(DIAMOND), str(tmp_path), hands, attempts=2, tell=told)
    assert hands.log.count("phase-1") == 2
    assert dict(outcome.failed) == {"phase-1": "killed"}
    assert set(outcome.blocked) == {"phase-3", "run-r1", "run-r3"}
    assert set(outcome.done) == {"phase-0", "phase-2", "phase-4", "run-r0", "run-r2", "run-r4"}


def test_attempts_that_come_further_are_not_counted(tmp_path: Path):
    """Workers of a preemptible queue die as often as a long phase needs, and one that stands still three times."""
    work = RunFolder(tmp_path / "work" / "1")

    def preempted(task: Task, attempt: int) -> Ended:
        if task.id != "phase-1":
            return DONE
        # A resumed worker saves where it stands before it dies: other bytes, and no step more.
        checkpoints.save(work, min(attempt, 5), {}, {"attempt": attempt})
        return DIED

    hands = Hands(preempted)
    outcome = drive(graph(DIAMOND), str(tmp_path), hands, tell=told)
    assert dict(outcome.failed) == {"phase-1": "killed"}
    assert hands.log.count("phase-1") == 5 + 3


def test_evaluations_that_come_further_are_not_counted(tmp_path: Path):
    """A run is preempted amid attacks, between them and between evaluations, and then stands still."""
    run = RunFolder(tmp_path / "runs" / "r1")
    evaluation = {"seconds": torch.tensor(1.0)}

    def preempted(task: Task, attempt: int) -> Ended:
        if task.id != "run-r1":
            return DONE
        ledger = Ledger.open(run.partial / "fgsm", {}, seconds=0.0)
        if attempt <= 2:
            ledger.update("fgsm", lambda: {**evaluation, "tick": torch.tensor(attempt), "pool": torch.zeros(99)})
        elif attempt <= 4:
            ledger.finish(f"fgsm {attempt}", evaluation)
        else:
            ledger.close()
            atomic.write_json(run.result("fgsm"), {})
        return DIED

    hands = Hands(preempted)
    outcome = drive(graph(DIAMOND), str(tmp_path), hands, tell=told)
    assert dict(outcome.failed) == {"run-r1": "killed"}
    assert hands.log.count("run-r1") == 5 + 3


def test_what_lay_there_before_is_no_progress(tmp_path: Path):
    checkpoints.save(RunFolder(tmp_path / "work" / "1"), 7, {}, {})
    atomic.write_json(RunFolder(tmp_path / "runs" / "r0").result("network"), {})
    hands = Hands(lambda task, _attempt: DIED if task.id in ("phase-1", "run-r0") else DONE)
    outcome = drive(graph(DIAMOND), str(tmp_path), hands, attempts=2, tell=told)
    assert set(outcome.failed) == {"phase-1", "run-r0"}
    assert hands.log.count("phase-1") == hands.log.count("run-r0") == 2


def test_protocols_that_come_further_are_not_counted(tmp_path: Path):
    asked = ProtocolNode(name="weights-0", question=read_question({"name": "weights"}), runs={"r0": ("0",)})

    def preempted(task: Task, attempt: int) -> Ended:
        if task.kind != "protocol":
            return DONE
        atomic.write_json(tmp_path / "runs" / "r0" / "partial" / "protocols" / f"{min(attempt, 4)}.json", {})
        return DIED

    hands = Hands(preempted)
    outcome = drive(replace(graph([()]), protocols=(asked,)), str(tmp_path), hands, tell=told)
    assert dict(outcome.failed) == {"protocol-weights-0": "killed"}
    assert hands.log.count("protocol-weights-0") == 4 + 3


def test_a_worker_whose_work_is_nowhere_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(room, "is_done", lambda _task: False)
    monkeypatch.setattr(room, "UNSEEN", 0.0)
    outcome = drive(graph(DIAMOND), str(tmp_path), Hands(lambda _task, _attempt: DONE), tell=told)
    assert list(outcome.failed) == ["phase-0"]
    assert "does its worker reach the same store?" in outcome.failed["phase-0"]


def test_what_a_worker_stored_may_be_seen_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    looks: dict[str, int] = {}

    def late(task: Task) -> bool:
        looks[task.id] = looks.get(task.id, 0) + (task.id in STORED)
        return looks[task.id] > 5

    monkeypatch.setattr(room, "is_done", late)
    hands = Hands(lambda _task, _attempt: DONE)
    outcome = drive(graph(DIAMOND), str(tmp_path), hands, tell=told)
    assert outcome.complete
    assert len(hands.log) == len(set(hands.log)) == 10


def test_a_failure_is_not_tried_again(tmp_path: Path):
    hands = Hands(lambda task, _attempt: FAILED if task.id == "phase-0" else DONE)
    outcome = drive(graph(DIAMOND), str(tmp_path), hands, tell=told)
    assert hands.log == ["phase-0"]
    assert len(outcome.blocked) == 9
    assert not outcome.complete


def test_an_interrupt_stops_the_workers_and_goes_on(tmp_path: Path):
    hands = Hands(lambda task, _attempt: KeyboardInterrupt() if task.id == "phase-1" else DONE)
    with pytest.raises(KeyboardInterrupt):
        drive(graph(DIAMOND), str(tmp_path), hands, tell=told)
    assert hands.stopped


def test_what_is_withdrawn_is_stopped_forgotten_and_may_come_again(tmp_path: Path):
    ends = [DIED, DONE]
    hands = Hands(lambda _task, _attempt: ends.pop(0), slots=1)
    given = [pair for pair in tasks_of(graph(DIAMOND[:2]), str(tmp_path)) if pair[0].kind == "phase"]
    work = Work(engine=hands, attempts=1, tell=told)
    work.add(given)
    work.hand_over()
    work.withdraw(["phase-0", "phase-1"])
    assert (hands.told, work.waiting) == (["phase-0"], [])
    work.add(given[:1])
    assert work.waiting == []  # it has not ended yet
    work.collect()
    work.collect()
    assert (work.failed, work.waiting) == ({}, ["phase-0"])
    work.hand_over()
    work.collect()
    work.collect()
    assert (list(work.done), work.failed) == (["phase-0"], {})
    work.withdraw(["phase-0"])
    assert list(work.done) == ["phase-0"]


def test_a_phase_that_is_asked_for_more_is_trained_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stored: dict[str, tuple[int, ...]] = {}
    monkeypatch.setattr(room, "is_done", lambda task: set(task.publish) <= set(stored.get(task.id, ())))

    def outcome(task: Task, _attempt: int) -> Ended:
        stored[task.id] = task.publish
        return DONE

    hands = Hands(outcome)
    ((task, needs), _) = tasks_of(graph([()]), str(tmp_path))
    work = Work(engine=hands, tell=told)
    for publish in ((1,), (2,), (1,)):
        work.add([(replace(task, publish=publish), needs)])
        work.hand_over()
    for _ in range(4):
        work.collect()
        work.hand_over()
    assert stored == {"phase-0": (1, 2)}
    assert hands.log == ["phase-0"] * 2
    assert list(work.done) == ["phase-0"]


def test_a_full_queue_is_asked_again_when_something_has_ended(tmp_path: Path):
    hands = Hands(lambda _task, _attempt: DONE, slots=5)
    taken, refused = hands.submit, []

    def submit(task: Task) -> Any:
        if hands.running >= 2:
            refused.append(task.id)
            raise RefusedError("queue", expected="room", got="2 jobs", remedy="wait")
        return taken(task)

    hands.submit = submit  # type: ignore[method-assign]
    outcome = drive(graph([()] * 6), str(tmp_path), hands, attempts=1, tell=told)
    assert outcome.complete
    assert (len(hands.log), hands.most) == (12, 2)
    assert len(refused) <= 12


def test_a_queue_that_is_full_of_others_is_asked_again(tmp_path: Path):
    hands = Hands(lambda _task, _attempt: DONE)
    taken, refused = hands.submit, []

    def submit(task: Task) -> Any:
        if len(refused) < room.REFUSALS - 1:
            refused.append(task.id)
            raise RefusedError("queue", expected="room", got="jobs of others", remedy="wait")
        return taken(task)

    hands.submit = submit  # type: ignore[method-assign]
    lines: list[str] = []
    outcome = drive(graph([(), ()]), str(tmp_path), hands, attempts=1, tell=lines.append)
    assert outcome.complete
    assert sum("asked again" in line for line in lines) == 1


def test_a_queue_with_nothing_running_is_asked_after_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(room, "REFUSED_PAUSE", 3600.0)
    refused: list[str] = []

    def submit(task: Task) -> Any:
        refused.append(task.id)
        raise RefusedError("queue", expected="room", got="jobs of others", remedy="wait")

    hands = Hands(lambda _task, _attempt: DONE)
    hands.submit = submit  # type: ignore[method-assign]
    work = Work(engine=hands, tell=told)
    work.add(tasks_of(graph([(), ()]), str(tmp_path)))
    for _ in range(3):
        work.hand_over()
    assert refused == ["phase-0"]
    assert {"phase-0", "phase-1"} <= set(work.ready())


def test_a_queue_that_takes_nothing_for_long_fails_what_is_ready(tmp_path: Path):
    hands = Hands(lambda _task, _attempt: DONE)
    asked: list[str] = []

    def submit(task: Task) -> Any:
        asked.append(task.id)
        raise RefusedError("queue", expected="room", got="no account", remedy="ask for one")

    hands.submit = submit  # type: ignore[method-assign]
    outcome = drive(graph([(), ()]), str(tmp_path), hands, tell=told)
    assert sorted(outcome.failed) == ["phase-0", "phase-1"]
    assert "no account" in outcome.failed["phase-0"]
    assert len(asked) == room.REFUSALS + 1


def test_a_store_that_does_not_answer_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def is_done(task: Task) -> bool:
        asked.append(task.id)
        if task.kind == "phase" and asked.count(task.id) == 2:
            raise StoreError("s3://bucket", expected="an answer", got="a timeout", remedy="wait")
        return task.id in STORED

    monkeypatch.setattr(room, "is_done", is_done)
    assert drive(graph([()]), str(tmp_path), Hands(lambda _task, _attempt: DONE), tell=told).complete


def test_runs_are_put_together_before_other_phases_begin(tmp_path: Path):
    hands = Hands(lambda _task, _attempt: DONE, slots=1)
    assert drive(graph([(), (0,), (), (2,)]), str(tmp_path), hands, tell=told).complete
    assert hands.log == [
        *("phase-0", "run-r0", "phase-1", "run-r1"),
        *("phase-2", "run-r2", "phase-3", "run-r3"),
    ]


def test_no_attempts_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="--attempts"):
        drive(graph(DIAMOND), str(tmp_path), Hands(lambda _task, _attempt: DONE), attempts=0)


@st.composite
def graphs(draw: st.DrawFn) -> list[list[int]]:
    parents: list[list[int]] = []
    for number in range(draw(st.integers(1, 8))):
        before = draw(st.none() | st.integers(0, number - 1)) if number else None
        parents.append([] if before is None else [*parents[before], before])
    return parents


@given(parents=graphs(), bad=st.sets(st.integers(0, 7)), deaths=st.integers(0, 2), slots=st.integers(1, 4))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_does_not_come_after_a_failure_is_done(
    parents: list[list[int]], bad: set[int], deaths: int, slots: int, tmp_path: Path
):
    def outcome(task: Task, attempt: int) -> Ended:
        if attempt <= deaths:
            return DIED
        return FAILED if task.kind == "phase" and int(task.key) in bad else DONE

    STORED.clear()
    hands = Hands(outcome, slots=slots)
    ended = drive(graph(parents), str(tmp_path), hands, tell=told)
    whole = {number for number, before in enumerate(parents) if not bad & {number, *before}}
    expected = {f"phase-{number}" for number in whole} | {f"run-r{number}" for number in whole}
    assert set(ended.done) == expected
    assert set(ended.failed) == {
        f"phase-{number}" for number, before in enumerate(parents) if number in bad and not bad & set(before)
    }
    assert set(ended.done) | set(ended.failed) | set(ended.blocked) == {
        name for number in range(len(parents)) for name in (f"phase-{number}", f"run-r{number}")
    }
    assert hands.most <= slots
