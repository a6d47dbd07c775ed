"""A list of whole, stopped, failed, broken and foreign folders: a row each, and never a traceback."""

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from lifecycle import recipe

from gossamer.errors import ConfigError, RunError
from gossamer.recipe.listing import FIELDS, Row, in_order, list_runs
from gossamer.recipe.train import train
from gossamer.runs import RunFolder
from gossamer.runs.lock import writer
from gossamer.runs.results import read_evaluation


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "whole"
    train(recipe(evaluation=[{"attack": "fgsm", "n": 40}, {"attack": "fgsm", "eps": [0.05, 0.1], "n": 20}]), out=path)
    return path


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    shutil.copytree(made, tmp_path / "runs" / "run")
    return tmp_path / "runs" / "run"


def row(path: Path) -> Row:
    (found,) = list_runs([path])
    return found


def stand(run: Path, **changes: object) -> None:
    path = run / "status.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_finished_run_says_what_it_is_and_what_it_reached(made: Path) -> None:
    found = row(made)
    assert (found.name, found.state, found.detail, found.notes) == ("whole", "finished", "", ())
    assert (found.method, found.objective, found.model, found.data) == ("bcs", "adversarial", "digits-cnn", "digits")
    measured = read_evaluation(next((made / "results").glob("fgsm-linf-0.15*.json")))
    assert (found.density, found.nonzero) == (measured.density, measured.nonzero)
    assert found.clean is not None
    assert (found.clean.accuracy, found.clean.interval, found.clean.n) == (
        measured.clean_accuracy,
        measured.clean_interval,
        40,
    )
    assert [(each.eps, each.n) for each in found.attacks] == [(0.05, 20), (0.1, 20), (0.15, 40)]
    assert found.robust is not None
    assert (found.robust.threat, found.robust.interval) == ("linf:0.15", measured.interval)
    assert found.seconds_trained is not None
    assert found.seconds_trained > 0


def test_age_is_counted_from_the_last_change(made: Path) -> None:
    updated = datetime.fromisoformat(json.loads((made / "status.json").read_text())["updated"])
    (found,) = list_runs([made], now=datetime.fromtimestamp(updated.timestamp() + 90, UTC))
    assert found.age == 90


def test_a_killed_and_an_interrupted_run_say_where(run: Path) -> None:
    for state in ("running", "interrupted"):
        stand(run, state=state, epoch=1, message="stopped")
        assert (row(run).state, row(run).detail) == ("interrupted", "epoch 1 of 2 of phase train")


def test_a_run_whose_lock_is_held_is_running(run: Path) -> None:
    stand(run, state="running", epoch=2)
    with writer(RunFolder(run)):
        found = row(run)
    assert found.state == "running"
    assert found.detail.startswith(f"epoch 2 of 2 of phase train, pid {os.getpid()} on ")
    assert row(run).state == "interrupted"


def test_a_failed_run_says_why(run: Path) -> None:
    stand(run, state="failed", epoch=1, message="the loss is not finite")
    assert row(run).state == "failed"
    assert row(run).detail == "epoch 1 of 2 of phase train: the loss is not finite"


def test_a_run_that_has_only_begun(run: Path) -> None:
    shutil.rmtree(run / "results")
    (run / "status.json").unlink()
    found = row(run)
    assert (found.state, found.detail) == ("interrupted", "before its first epoch")
    assert (found.clean, found.density, found.age) == (None, None, None)


def test_without_evaluations_density_is_that_of_the_network(run: Path) -> None:
    for path in (run / "results").glob("fgsm*"):
        path.unlink()
    assert row(run).density == pytest.approx(0.1, abs=0.01)
    assert row(run).robust is None


@pytest.mark.parametrize(
    ("name", "content", "state", "told"),
    [
        ("status.json", "{", "damaged", "status.json is damaged"),
        ("status.json", '{"state": "asleep"}', "damaged", "status.json is damaged"),
        ("recipe.yaml", "a: [", "damaged", "recipe.yaml is not readable"),
        ("recipe.yaml", "\x00\x01", "damaged", "recipe.yaml is not readable"),
        ("recipe.yaml", "method: 3\ndata: [1]\nseed: x", "finished", None),
        ("results/torn.json", "{", "finished", "results/torn.json is not readable"),
        ("results/list.json", "[1]", "finished", "results/list.json is not readable"),
        ("results/old.json", '{"schema": "gossamer/evaluation/0"}', "finished", "results/old.json is not readable"),
        ("results/network.json", "[", "finished", None),
    ],
)
def test_a_broken_file_is_told(run: Path, name: str, content: str, state: str, told: str | None) -> None:
    (run / name).write_text(content)
    found = row(run)
    assert found.state == state
    assert len(found.notes) == (told is not None)
    if told is not None:
        assert told in found.notes[0]
        assert found.detail == (found.notes[0] if state == "damaged" else "")


def test_what_was_removed_is_told(run: Path) -> None:
    (run / "states" / "final.safetensors").unlink()
    assert (row(run).state, row(run).detail) == ("damaged", "no states/final.safetensors")
    (run / "recipe.yaml").unlink()
    assert (row(run).state, row(run).detail) == ("damaged", "no recipe.yaml")


def test_folders_of_runs_and_stores_are_looked_into(run: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    (runs / "foreign").mkdir()
    (runs / "file").touch()
    (runs / ".run.12345678.trash").mkdir()
    shutil.copytree(run, runs / "store" / "runs" / "inner")
    (runs / "store" / "phases").mkdir()
    found = {each.name: each for each in list_runs([runs, run])}
    assert list(found) == ["foreign", "run", "inner"]
    assert (found["foreign"].state, found["foreign"].detail) == ("no run", "no recipe.yaml")
    # A store of a sweep itself has its runs listed; so has whatever holds a folder runs/.
    assert [each.name for each in list_runs([runs / "store"])] == ["inner"]
    assert {each.name for each in list_runs([tmp_path])} == set(found)


def test_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="got no folder"):
        list_runs([tmp_path / "runs"])


def test_rows_are_sorted_by_any_field(made: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    rows = list_runs([made, tmp_path])
    for field in FIELDS:
        assert len(in_order(rows, field)) == 2
    assert [each.name for each in in_order(rows, "name")] == ["empty", "whole"]
    assert [each.name for each in in_order(rows, "robust")] == ["whole", "empty"]
    with pytest.raises(ConfigError, match="expected one of name, method"):
        in_order(rows, "colour")


def test_no_tensor_is_read(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gossamer.runs import atomic  # noqa: PLC0415

    monkeypatch.setattr(atomic, "read_safetensors", lambda *_: pytest.fail("tensors were read"))
    monkeypatch.setattr(atomic, "read_about", lambda *_: pytest.fail("tensors were read"))
    assert row(made).state == "finished"
