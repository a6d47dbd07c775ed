"""Trackers hear of a run once, whatever happens to it, and nothing that happens to them reaches it."""

import json
import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gossamer.runs import RunFolder
from gossamer.training.interruption import Interrupted
from gossamer.training.progress import Line
from gossamer.training.trackers.courier import Courier
from gossamer.training.trackers.protocol import Tracked
from gossamer.training.trackers.redaction import without_secrets
from gossamer.training.tracking import Tracking


class Recorder:
    """Writes down what it hears; fails in a method, or waits in it, where asked."""

    def __init__(
        self, *, held: int = 0, fails: str = "", error: BaseException | None = None, waits: str = "", by: Any = None
    ) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self._held, self._fails, self._waits, self._by = held, fails, waits, by
        self._error = error or OSError("gone")

    def _hear(self, name: str, *what: Any) -> None:
        if name == self._waits:
            self._by.wait(20)
        if name == self._fails:
            raise self._error
        self.heard.append((name, *what))

    def begin(self, run: Tracked) -> int:
        self._hear("begin", run)
        return max(self._held, run.step)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._hear("metrics", step, dict(values))

    def end(self, state: str, results: Mapping[str, float]) -> None:
        self._hear("end", state, dict(results))

    @property
    def steps(self) -> list[int]:
        return [each[1] for each in self.heard if each[0] == "metrics"]


def line(step: int, **values: Any) -> Line:
    return {"phase": "train", "epoch": step // 3, "step": step, "loss": 1.0 / step, **values}


def told_by(folder: Path, lines: list[Line], recorders: dict[str, Recorder], **options: Any) -> Tracking:
    run = RunFolder(folder)
    couriers = [Courier(name, recorder, run, {"seed": 0}) for name, recorder in recorders.items()]
    tracking = Tracking(couriers, **options)
    tracking.begin(lines)
    return tracking


def test_a_tracker_hears_of_begin_epochs_and_end(tmp_path: Path) -> None:
    recorder = Recorder()
    with told_by(tmp_path / "run", [], {"one": recorder}) as tracking:
        tracking.metrics(line(3, robust_accuracy=0.5, none=None, infinite=math.inf, catastrophic_overfitting=True))
        tracking.metrics(line(6))
        tracking.results({"density": 0.1, "broken": math.nan})
    (_, run), *rest = recorder.heard
    assert (run.name, run.parameters, run.folder, run.step) == ("run", {"seed": 0}, tmp_path / "run", 0)
    assert rest == [
        ("metrics", 3, {"epoch": 1.0, "loss": 1 / 3, "robust_accuracy": 0.5, "catastrophic_overfitting": 1.0}),
        ("metrics", 6, {"epoch": 2.0, "loss": 1 / 6}),
        ("end", "done", {"density": 0.1}),
    ]
    assert json.loads((tmp_path / "run" / "trackers" / "one.json").read_text()) == {
        "id": run.id,
        "step": 6,
        "done": True,
    }


@pytest.mark.parametrize(
    ("error", "state"),
    [(Interrupted(15), "interrupted"), (KeyboardInterrupt(), "interrupted"), (ValueError(), "failed")],
)
def test_how_a_run_ended_is_told(error: BaseException, state: str, tmp_path: Path) -> None:
    recorder = Recorder()
    with pytest.raises(type(error)), told_by(tmp_path / "run", [], {"one": recorder}):
        raise error
    assert recorder.heard[-1] == ("end", state, {})


def test_what_a_tracker_holds_is_not_told_again_and_what_it_misses_is(tmp_path: Path) -> None:
    first = Recorder()
    with pytest.raises(Interrupted), told_by(tmp_path / "run", [line(3), line(6)], {"one": first}):
        raise Interrupted(15)
    # Killed after step 6 it goes on from a checkpoint at step 3, now with a second tracker; a third holds more by its
    # own account.
    again, new, ahead = Recorder(), Recorder(), Recorder(held=9)
    with told_by(tmp_path / "run", [line(3)], {"one": again, "new": new, "ahead": ahead}) as tracking:
        for step in (6, 9, 12):
            tracking.metrics(line(step))
    assert (again.steps, new.steps, ahead.steps) == ([9, 12], [3, 6, 9, 12], [12])
    assert again.heard[0][1].id == first.heard[0][1].id != new.heard[0][1].id
    assert again.heard[0][1].step == 6


def test_a_run_that_was_taken_down_to_its_end_is_left_alone(tmp_path: Path) -> None:
    lines = [line(3), line(6)]
    with told_by(tmp_path / "run", lines, {"one": Recorder()}):
        pass
    again = Recorder()
    with told_by(tmp_path / "run", lines, {"one": again}):
        pass
    assert again.heard == []


@pytest.mark.parametrize("error", [OSError("no route\nto it"), SystemExit("no route")])
@pytest.mark.parametrize("method", ["begin", "metrics", "end"])
def test_a_tracker_that_fails_is_told_of_once_and_the_others_go_on(
    method: str, error: BaseException, tmp_path: Path
) -> None:
    notes: list[str] = []
    broken, whole = Recorder(fails=method, error=error), Recorder()
    with told_by(tmp_path / "run", [], {"broken": broken, "whole": whole}, tell=notes.append) as tracking:
        for step in range(3, 30, 3):
            tracking.metrics(line(step))
    assert len(whole.steps) == 9
    assert len(notes) == 1
    assert notes[0].startswith("broken does not track this run any more (no route); ")
    # Training once more sends what is missing, and nothing twice.
    mended = Recorder()
    with told_by(tmp_path / "run", [line(step) for step in range(3, 30, 3)], {"broken": mended}):
        pass
    assert sorted(broken.steps + mended.steps) == list(range(3, 30, 3))
    assert mended.heard[-1][0] == "end"


def test_nobody_waits_for_a_tracker_that_hangs(tmp_path: Path) -> None:
    notes: list[str] = []
    released = threading.Event()
    hung = Recorder(waits="begin", by=released)
    with told_by(tmp_path / "run", [], {"hung": hung}, tell=notes.append, patience=0.05) as tracking:
        tracking.metrics(line(3))
        assert hung.heard == []
    assert [note.partition(";")[0] for note in notes] == ["hung does not track this run any more (no answer)"]
    released.set()
    for thread in threading.enumerate():
        if thread.name == "tracker-hung":
            thread.join(20)
    # What came too late is not noted: another process may hold the run by then.
    assert json.loads((tmp_path / "run" / "trackers" / "hung.json").read_text())["step"] == 0


def test_a_disk_that_refuses_and_a_damaged_note_end_the_tracking_alone(tmp_path: Path) -> None:
    notes: list[str] = []
    (tmp_path / "run").write_text("a file where the folder should be")
    with told_by(tmp_path / "run", [], {"one": Recorder()}, tell=notes.append) as tracking:
        tracking.metrics(line(3))
    folder = RunFolder(tmp_path / "other").tracker("one")
    folder.parent.mkdir(parents=True)
    folder.write_text('{"id": "\' or 1 = 1", "step": 3, "done": false}')
    with told_by(tmp_path / "other", [], {"one": Recorder()}, tell=notes.append):
        pass
    assert len(notes) == 2
    assert "expected 16 hexadecimal digits" in notes[1]


def test_secrets_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123abcd")
    told = without_secrets("POST https://me:p@ss@server:5000/api with 0123abcd, see https://server/docs")
    assert told == "POST https://...@server:5000/api with ..., see https://server/docs"
