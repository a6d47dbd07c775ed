"""What is one piece of work? A phase to train, a run to put together, or a protocol to measure, done once."""

import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from gossamer.errors import RunError
from gossamer.recipe.identity import check_images, versions_of
from gossamer.recipe.load import load_recipe, validate
from gossamer.recipe.open import open_run
from gossamer.recipe.protocols import ask, read_question
from gossamer.recipe.schema import Recipe
from gossamer.recipe.train import train, train_one
from gossamer.runs import RunFolder, atomic, lock, records, status
from gossamer.sweep.alike import like, like_question, took_by_evaluations
from gossamer.sweep.files import Files, LocalFiles
from gossamer.sweep.followed import keep_ids, untold
from gossamer.sweep.measurement import record_of
from gossamer.sweep.plan import PhaseNode, ProtocolNode, RunNode
from gossamer.sweep.store import PhaseRecord, Store
from gossamer.training.job import now
from gossamer.training.phases import epoch_state
from gossamer.training.progress import PlainLines
from gossamer.training.ranks import ALONE
from gossamer.training.run import FINAL

POLL = 2.0
"""Seconds after which one who waits for another looks again."""

UNSEEN = 60.0
"""Seconds in which a phase that another machine finished has to be seen: file systems of networks show it late."""

TIMED = ("latency",)
"""Protocols that measure time."""

# What a run's folder holds for itself alone while it is made.
_PRIVATE = {"checkpoints", "partial", "lock", "last.json"}


@dataclass(frozen=True, kw_only=True)
class Task:
    """One piece of work, in values that can be sent anywhere.

    kind: train the phase of key `key`, put the run of name `key` together, or put a question to runs. recipe: its
    values; index, phase: of its phases the last one that is needed, and that one's name; parents: the keys of those
    before it, or of all phases of a run; publish: epochs whose states are asked for; root: of the store; where: the
    folder from which relative paths in the recipe go out. asked: the values of the question; runs: that it is put to,
    by name what each is made of; images: of a run, what identifies those that it is evaluated on; named: of a run,
    paths of what its phases compute with.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    kind: Literal["phase", "run", "protocol"]
    key: str
    recipe: Mapping[str, Any]
    index: int
    phase: str
    parents: tuple[str, ...]
    publish: tuple[int, ...]
    root: str
    data_dir: str | None
    asked: Mapping[str, Any] | None = None
    where: str = field(default_factory=os.getcwd)
    runs: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    images: str = ""
    named: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """What tells tasks apart."""
        return f"{self.kind}-{self.key}"

    @property
    def alone(self) -> bool:
        """Whether nothing else may run beside it: it measures time."""
        return self.asked is not None and self.asked["name"] in TIMED

    @property
    def states(self) -> list[str]:
        """The states that a phase has to give."""
        return [f"{self.phase}.end", *(epoch_state(self.phase, epoch) for epoch in self.publish)]


def phase_task(node: PhaseNode, root: str, data_dir: Path | None = None) -> Task:
    """Return the task of training a phase."""
    return Task(
        kind="phase",
        key=node.key,
        recipe=node.recipe.model_dump(mode="json"),
        index=node.index,
        phase=node.name,
        parents=node.parents,
        publish=node.publish,
        root=root,
        data_dir=None if data_dir is None else str(data_dir),
    )


def run_task(node: RunNode, root: str, data_dir: Path | None = None) -> Task:
    """Return the task of putting a run together and evaluating it."""
    return Task(
        kind="run",
        key=node.name,
        recipe=node.recipe.model_dump(mode="json"),
        index=len(node.phases) - 1,
        phase="",
        parents=node.phases,
        publish=(),
        root=root,
        data_dir=None if data_dir is None else str(data_dir),
        images=node.images,
        named=node.named,
    )


def protocol_task(node: ProtocolNode, root: str, data_dir: Path | None = None) -> Task:
    """Return the task of measuring runs by a protocol."""
    return Task(
        kind="protocol",
        key=node.name,
        recipe={},
        index=0,
        phase="",
        parents=(),
        publish=(),
        root=root,
        data_dir=None if data_dir is None else str(data_dir),
        asked=node.question.model_dump(mode="json"),
        runs=node.runs,
    )


def came_to(task: Task) -> tuple[int, ...]:
    """Return how far a task has come, as numbers of which the first that grows tells; () where nothing can be seen.

    Of a phase the step of its last checkpoint; of what is evaluated, how many results, cells and attacks are finished,
    and the steps of the attack under way.
    """
    files = Store(task.root).files
    if not isinstance(files, LocalFiles):
        return ()
    folder = RunFolder(files.root / _place(task))
    try:
        if task.kind == "phase":
            return (int(atomic.read_json(folder.last)["step"]),) if folder.last.exists() else ()
        return _evaluated(folder)
    except (OSError, RunError, KeyError, TypeError, ValueError):
        # Another worker may be moving it away, and damage is told by whoever goes on from it.
        return ()


def _evaluated(folder: RunFolder) -> tuple[int, ...]:
    held = [atomic.read_safetensors(path) for path in folder.partial.rglob("state.safetensors")]
    finished = [{name.split("|")[1] for name in each if name.startswith("finished|")} for each in held]
    ticks = [int(tensor) for each in held for name, tensor in each.items() if name.endswith("|tick")]
    cells = [path for path in folder.partial.rglob("*.json") if path.name != "plan.json"]
    return len(list(folder.results.glob("*.json"))), len(cells), sum(map(len, finished)), sum(ticks)


def is_done(task: Task) -> bool:
    """Tell whether a task's outcome lies in the store; raises RunError for a damaged record."""
    store = Store(task.root)
    if task.kind == "phase":
        return store.find(task.key, task.states) is not None
    # A run is named after its recipe: of other data, or another version, it is made of other things.
    if not _stands(store, task.key, _made_of(task)):
        return False
    # Folders are removed, and what was measured goes with the first run's folder where that is made anew.
    if task.kind == "run":
        return store.holds(task.key, validate(task.recipe))
    return store.files.read(_answer(task)) is not None


def _answer(task: Task) -> str:
    """Return the file in the store that a protocol's record is kept in."""
    first = next(iter(task.runs))
    return f"runs/{first}/{record_of(RunFolder(Path(first)), task.key).relative_to(first).as_posix()}"


def _made_of(task: Task) -> list[str] | dict[str, list[str]]:
    """Return what a run, or each run that is measured, is made of."""
    if task.kind == "run":
        return [*task.parents, task.images]
    return {name: list(made_of) for name, made_of in task.runs.items()}


def _stands(store: Store, name: str, made_of: object) -> bool:
    """Tell whether a run, or a measurement, is done and made of these things."""
    standing = store.standing(name)
    return standing is not None and standing["done"] and standing.get("made_of") == made_of


def perform(task: Task) -> str:
    """Do a task unless it is done, and return what became of it.

    Called again after a kill it goes on from the last checkpoint, where the store is a folder. Who finds another at the
    same task waits for it. Raises what training and the store raise.
    """
    if is_done(task):
        return "was done"
    with _workplace(task) as folder:
        if folder is None or is_done(task):
            return "another did it"
        return "; ".join(filter(None, ["done", _DOINGS[task.kind](task, folder)]))


@contextmanager
def _workplace(task: Task) -> Generator[RunFolder | None]:
    """Hold the one right to do a task, and give the folder to do it in; None: another did it meanwhile."""
    files = Store(task.root).files
    if not isinstance(files, LocalFiles):
        # Nobody else sees this folder, and nobody can be kept from doing the same: the record of one will count.
        with tempfile.TemporaryDirectory(prefix="gossamer-") as folder:
            yield RunFolder(Path(folder) / task.key)
        return
    held = RunFolder(files.root / "locks" / task.id)
    atomic.make_directory(held.path)
    while True:
        with lock.attempt(held) as mine:
            if mine or is_done(task):
                yield RunFolder(files.root / _place(task)) if mine else None
                return
        time.sleep(POLL)


def _place(task: Task) -> Path:
    """Return the folder that a task is done in; what is measured of runs is kept with the first of them."""
    if task.kind == "phase":
        return Path("work") / task.key
    return Path("runs") / (task.key if task.kind == "run" else next(iter(task.runs)))


def _train(task: Task, folder: RunFolder) -> None:
    store = Store(task.root)
    resumed = folder.recipe.exists()
    recipe = _train_in(store, task, folder)
    if resumed and _missing(task, folder):
        # It was begun when fewer epochs were asked for, and went past some of these.
        _discard(folder)
        recipe = _train_in(store, task, folder)
    if missing := _missing(task, folder):
        raise RunError(
            f"phase {task.phase}",
            expected=f"the states {', '.join(missing)}",
            got="a training that ended before",
            remedy="ask for earlier epochs, or let no monitor stop it",
        )
    store.publish(task.key, task.phase, folder, like=like(recipe, task.phase))
    _discard(folder)


def _train_in(store: Store, task: Task, folder: RunFolder) -> Recipe:
    """Train in a folder, and return the recipe: whoever began may have had another that holds this phase."""
    _fetch(store, task, folder)
    recipe = load_recipe(folder.recipe) if folder.recipe.exists() else validate(task.recipe)
    train_one(recipe, task.index, folder.path, key=task.key, publish=task.publish, data_dir=_data_dir(task))
    return recipe


def _missing(task: Task, folder: RunFolder) -> list[str]:
    return [state for state in task.states if not folder.state(state).exists()]


def _discard(folder: RunFolder) -> None:
    """Remove a folder whole: half of one would be taken for a run that lost its recipe."""
    if folder.path.exists():
        trash = folder.path.with_name(f".{folder.path.name}.{secrets.token_hex(4)}.trash")
        folder.path.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)


def _put_together(task: Task, folder: RunFolder) -> str:
    """Make a run folder of what its phases gave, as if one process had trained it, evaluate it and tell its trackers.

    Returns which of these do not hold it, where there are any.
    """
    store, recipe = Store(task.root), validate(task.recipe)
    trackers = recipe.machine.all_trackers
    standing = {"made_of": _made_of(task), "versions": versions_of(recipe, task.named)}
    begun = store.standing(task.key)
    other = begun is not None and begun.get("made_of") != standing["made_of"]
    if other:
        _discard(folder)
    done = begun is not None and all(begun.get(name) == value for name, value in {**standing, "done": True}.items())
    # Where nobody can be kept from doing the same, another may have put it together meanwhile: it stays so.
    if not done or not store.holds(task.key, recipe):
        store.stand(task.key, {**standing, "done": False})
    found = _fetch(store, task, folder)
    # Without its last state a run would be begun again, with an empty log.
    if not (folder.recipe.exists() and folder.state(FINAL).exists()):
        lines = [line for record in found for line in store.lines(record)]
        atomic.copy(folder.state(f"{found[-1].phase}.end"), folder.state(FINAL))
        atomic.write_text(folder.metrics, "".join(f"{json.dumps(line)}\n" for line in lines))
        status.write(folder, _status(found, lines))
    files = store.files
    if not isinstance(files, LocalFiles):
        keep_ids(files, task.key, folder, trackers, anew=other)
    train(
        recipe,
        out=folder.path,
        data_dir=_data_dir(task),
        images=task.images,
        allow_numeric_drift=True,
        progress=PlainLines(),
        # Whatever the environment says: a task is one worker's.
        ranks=ALONE,
    )
    told = untold(folder, trackers)
    if not isinstance(files, LocalFiles):
        for path in sorted(folder.path.rglob("*")):
            name = path.relative_to(folder.path)
            if path.is_file() and name.parts[0] not in _PRIVATE:
                files.put(path, f"runs/{task.key}/{name.as_posix()}")
    evaluations = [records.to_json(took) for took in took_by_evaluations(recipe, folder)]
    store.stand(task.key, {**standing, "evaluations": evaluations, "ended": now(), "done": True})
    return told


def _measure(task: Task, folder: RunFolder) -> None:
    """Put a question to runs, and keep the answer with the first; a killed one goes on where the store is a folder.

    What it took is kept too: of the attempt that finished alone.
    """
    store, files = Store(task.root), Store(task.root).files
    began = time.monotonic()
    _check_whole(task, store)
    opened = {name: open_run(_run(files, name, folder), _data_dir(task)) for name in task.runs}
    for name, run in opened.items():
        check_images(run.parts, task.runs[name][-1])
    first, question = next(iter(opened.values())).recipe, read_question(task.asked or {})
    record = ask(question, opened, folder=folder.partial / "protocols", device=first.machine.device)
    written = record_of(folder, task.key)
    records.write(written, record)
    if not isinstance(files, LocalFiles):
        files.put(written, _answer(task))
    likeness = like_question(question, {name: run.recipe for name, run in opened.items()})
    took = {"like": likeness, "n": question.n, "seconds": time.monotonic() - began}
    store.stand(task.key, {"made_of": _made_of(task), **took, "ended": now(), "done": True})


def _check_whole(task: Task, store: Store) -> None:
    for name, made_of in task.runs.items():
        if not _stands(store, name, list(made_of)):
            raise RunError(
                task.id, expected="the runs before it", got=f"no such run {name}", remedy="run the sweep again"
            )


def _run(files: Files, name: str, folder: RunFolder) -> Path:
    """Return the folder of a run, brought here where the store is elsewhere: what opens its network alone."""
    if isinstance(files, LocalFiles):
        return files.root / "runs" / name
    brought = RunFolder(folder.path / "runs" / name)
    for path in (brought.state(FINAL), brought.recipe):
        files.get(f"runs/{name}/{path.relative_to(brought.path).as_posix()}", path)
    return brought.path


_DOINGS: Mapping[str, Callable[[Task, RunFolder], str | None]] = {
    "phase": _train,
    "run": _put_together,
    "protocol": _measure,
}


def _status(found: Sequence[PhaseRecord], lines: Sequence[Mapping[str, Any]]) -> status.Status:
    last = found[-1]
    return status.Status(
        state="done",
        phase=last.phase,
        epoch=last.epochs,
        step=int(lines[-1]["step"]) if lines else 0,
        message="put together from the phases of a sweep",
        started=now(),
        updated=now(),
        seconds_trained=sum(record.seconds for record in found),
    )


def _fetch(store: Store, task: Task, folder: RunFolder) -> list[PhaseRecord]:
    """Bring the states of the phases before, or of all phases of a run; raises RunError where one is not done."""
    found: list[PhaseRecord] = []
    for key in task.parents:
        record = _seen(store, key)
        if record is None:
            raise RunError(
                f"{task.id}", expected="the phases before it", got=f"no record of {key}", remedy="run the sweep again"
            )
        store.fetch(record, folder)
        found.append(record)
    return found


def _seen(store: Store, key: str) -> PhaseRecord | None:
    """Return the record of a phase that somebody saw, as soon as it is seen here too."""
    until = time.monotonic() + UNSEEN
    while (record := store.find(key)) is None and time.monotonic() < until:
        time.sleep(POLL)
    return record


def _data_dir(task: Task) -> Path | None:
    return None if task.data_dir is None else Path(task.data_dir)
