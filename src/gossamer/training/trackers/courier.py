"""How does a tracker hear of a run that waits for nobody? At the end of a queue, in a thread of its own."""

import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, ClassVar

from gossamer.errors import RunError
from gossamer.runs import RunFolder, records
from gossamer.training.trackers.protocol import Parameter, State, Tracked, Tracker
from gossamer.training.trackers.redaction import without_secrets

_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, kw_only=True)
class Note:
    """What the run folder keeps of a tracker; step: the last taken down; done: so is how the finished run ended."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    id: str
    step: int = 0
    done: bool = False

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise RunError(
                "id of a tracked run",
                expected="16 hexadecimal digits",
                got=repr(self.id),
                remedy="remove the file from trackers/ to track the run anew",
            )


def taken_down(run: RunFolder, name: str) -> bool:
    """Tell whether a tracker has taken a finished run down to its end; raises RunError for a damaged note."""
    path = run.tracker(name)
    return path.exists() and records.read(Note, path).done


class Courier:
    """Brings one tracker what happens in one run; never raises, and never makes the caller wait but in `wait`.

    failure: why the tracker hears no more, None while all is well. What the tracker holds, by its own account or by the
    run folder's, is not brought again.
    """

    def __init__(self, name: str, tracker: Tracker, run: RunFolder, parameters: Mapping[str, Parameter]) -> None:
        self.name = name
        self.failure: str | None = None
        self._tracker = tracker
        self._run = run
        self._parameters = parameters
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name=f"tracker-{name}", daemon=True)

    def begin(self) -> None:
        """Begin, or go on."""
        self._thread.start()

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Bring an epoch's numbers."""
        self._queue.put(partial(self._send, step, values))

    def end(self, state: State, results: Mapping[str, float]) -> None:
        """Bring how the run ended."""
        self._queue.put(partial(self._end, state, results))
        self._queue.put(None)

    def wait(self, until: float) -> None:
        """Wait, until a time of `time.monotonic` at most, for the tracker to take down what is on its way."""
        if self._thread.ident is None:
            return
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            self.failure = "no answer"

    def _work(self) -> None:
        try:
            self._begin()
            while not self._note.done and (call := self._queue.get()) is not None:
                call()
        except BaseException as error:
            # Whatever a tracker's package raises, SystemExit included: it has no say in training.
            text = str(error).strip() or type(error).__name__
            self.failure = without_secrets(text.splitlines()[0])

    def _begin(self) -> None:
        path = self._run.tracker(self.name)
        self._note = records.read(Note, path) if path.exists() else Note(id=secrets.token_hex(8))
        if self._note.done:
            return
        # Before the tracker hears of it: a kill in between must not leave a run behind that nobody finds again.
        self._keep(self._note)
        about = Tracked(
            name=self._run.name,
            id=self._note.id,
            parameters=self._parameters,
            folder=self._run.path,
            step=self._note.step,
        )
        self._held = self._tracker.begin(about)

    def _send(self, step: int, values: Mapping[str, float]) -> None:
        if step <= self._held:
            return
        self._tracker.metrics(step, values)
        self._held = step
        self._keep(replace(self._note, step=step))

    def _end(self, state: State, results: Mapping[str, float]) -> None:
        self._tracker.end(state, results)
        self._keep(replace(self._note, done=state == "done"))

    def _keep(self, note: Note) -> None:
        # Nobody waits after a failure: another process may hold the run by then.
        if self.failure is None:
            records.write(self._run.tracker(self.name), note)
            self._note = note
