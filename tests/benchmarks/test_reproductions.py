"""What pieces of work took is kept as far as they came, and told once nothing is left."""

import json
import os
import signal
import sys
import threading
import time

import pytest

import record
import reproductions
from gossamer.runs import atomic
from gossamer.sweep.store import Store

STATED = {"done": True, "made_of": []}

# Stands for the command: lets so many more tasks be done, and ends as it does.
WORK = """
import pathlib, sys
store, tasks, status = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for place in range(tasks):
    standing = store / "standing"
    standing.mkdir(parents=True, exist_ok=True)
    name = f"run-{len(list(standing.iterdir()))}.json"
    (standing / name).write_text('{"done": true, "evaluations": [{"seconds": 2.0}, {"seconds": 1.0}]}')
sys.exit(status)
"""


@pytest.fixture
def doing(monkeypatch, tmp_path):
    """A function that says what the next piece does; the store of all of them."""

    def say(*words):
        monkeypatch.setattr(reproductions, "command", lambda *_: [sys.executable, "-c", *map(str, words)])

    return say, tmp_path / "store"


def piece(store, results):
    return reproductions.main(["--store", str(store), "--slots", "2", "--results", str(results)])


def test_pieces_add_up_and_the_last_one_writes_the_result(doing, tmp_path):
    say, store = doing
    say(WORK, store, 3, reproductions.LEFT)
    assert piece(store, tmp_path / "results") == reproductions.LEFT
    assert not (tmp_path / "results").exists()
    say(WORK, store, 1, 0)
    assert piece(store, tmp_path / "results") == 0
    first, second = reproductions.pieces(store / reproductions.PIECES)
    assert [(each.before, each.after, each.status, each.slots) for each in (first, second)] == [
        (0, 3, 75, 2),
        (3, 4, 0, 2),
    ]
    written = record.read(tmp_path / "results" / "reproductions-smoke.json")
    wall, tasks = written["claims"]
    assert wall["measured"] == pytest.approx((first.seconds + second.seconds) / 60)
    assert (wall["goal"], wall["sense"], wall["verdict"]) == (150.0, "at most", "met")
    assert (tasks["measured"], tasks["unit"]) == (4 * 3.0, "s")
    told, by_kind = written["tables"]
    assert [(row[0], row[3], row[4], row[5]) for row in told["rows"]] == [
        (1, 0, 3, "minutes over"),
        (2, 3, 4, "nothing left"),
    ]
    assert by_kind["rows"] == [
        ["phases trained", 0, 0],
        ["runs evaluated", 4, pytest.approx(12 / 60)],
        ["protocols measured", 0, 0],
    ]


def test_a_piece_that_failed_writes_no_result(doing, tmp_path):
    say, store = doing
    say(WORK, store, 1, 1)
    assert piece(store, tmp_path / "results") == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_piece_that_is_stopped_passes_it_on_and_is_kept(doing, tmp_path, number):
    say, store = doing
    ready, saved = tmp_path / "ready", tmp_path / "saved"
    say(
        "import signal, sys, time, pathlib\n"
        "def end(*_): pathlib.Path(sys.argv[2]).touch(); sys.exit(130)\n"
        "signal.signal(signal.SIGTERM, end); signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "pathlib.Path(sys.argv[1]).touch(); time.sleep(60)",
        ready,
        saved,
    )

    def stop():
        while not ready.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    threading.Thread(target=stop, daemon=True).start()
    assert piece(store, tmp_path / "results") == 128 + number
    assert saved.exists()
    assert signal.getsignal(number) is before
    (kept,) = reproductions.pieces(store / reproductions.PIECES)
    assert kept.status == 128 + number
    assert 0 < kept.seconds < 30
    assert not (tmp_path / "results").exists()


def test_what_a_piece_took_is_kept_while_it_runs(doing, tmp_path, monkeypatch):
    say, store = doing
    monkeypatch.setattr(reproductions, "TICK", 0.05)
    kept, seen = store / reproductions.PIECES, []
    write = reproductions._keep

    def look(found, path):
        write(found, path)
        seen.append(json.loads(kept.read_text().splitlines()[-1]))

    monkeypatch.setattr(reproductions, "_keep", look)
    say("import time; time.sleep(0.5)")
    piece(store, tmp_path / "results")
    assert len(seen) > 2
    assert {each["status"] for each in seen[:-1]} == {None}
    seconds = [each["seconds"] for each in seen]
    assert seconds == sorted(seconds)
    assert seen[-1]["status"] == 0


def test_seconds_are_those_of_phases_evaluations_and_protocols(tmp_path):
    store = Store(str(tmp_path))
    store.stand("run-a", {**STATED, "evaluations": [{"seconds": 2.0}, {"seconds": 3.0}]})
    store.stand("weights-b", {**STATED, "seconds": 0.5})
    store.stand("run-c", {"done": False, "made_of": []})
    atomic.write_json(
        tmp_path / "phases" / "k" / "record.json",
        {
            "schema": "gossamer/phase/1",
            "key": "k",
            "phase": "train",
            "epochs": 1,
            "seconds": 7.0,
            "states": {},
            "metrics": {"name": "m", "bytes": 0, "sha256": ""},
            "like": {},
            "environment": {},
        },
    )
    assert reproductions.took(store) == {
        "phases trained": [7.0],
        "runs evaluated": [5.0],
        "protocols measured": [0.5],
    }
    assert reproductions.tasks_done(tmp_path) == 3


def test_the_command_goes_on_in_the_same_store_and_stops_in_time(tmp_path):
    words = reproductions.command(tmp_path, 2, 10.0)
    assert words[3:9] == ["reproduce", "all", "--scale", "smoke", "--store", str(tmp_path)]
    assert words[9:13] == ["--slots", "2", "--minutes", "10"]
    assert "--minutes" not in reproductions.command(tmp_path, 2, None)
