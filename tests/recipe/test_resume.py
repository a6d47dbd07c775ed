"""A run killed at any instant and resumed ends in the same bits as one never killed."""

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from lifecycle import assert_same_run, finish, metrics, recipe, start, status, wait_for

MAGNITUDE = {"name": "magnitude", "density": 0.1, "finetune_epochs": 1}
WATCHED: dict[str, Any] = {
    "data": {"split": {"held_out": 0.1}},
    "training": {
        "epochs": 3,
        "average": {"kind": "ema", "decay": 0.9},
        "probes": [{"part": "held_out", "attacks": ["fgsm"], "every": 1, "n": 40}],
        "select": "held_out/fgsm",
        "early_stop": {"metric": "held_out/fgsm", "patience": 1},
        "clip": 1.0,
    },
}
SWA: dict[str, Any] = {"method": MAGNITUDE, "training": {"epochs": 2, "average": {"kind": "swa"}}}
VARIANTS: dict[str, dict[str, Any]] = {
    "bcs": recipe(objective={"name": "trades"}),
    "magnitude": recipe(method=MAGNITUDE),
    "watched": recipe(**WATCHED),
    "watched-magnitude": recipe(**{**WATCHED, "method": MAGNITUDE}),
    "swa": recipe(**SWA),
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Train each variant once without a stop; return its folder and how often it changed the disk."""
    made: dict[str, tuple[Path, int, float]] = {}

    def get(name: str) -> tuple[Path, int, float]:
        if name not in made:
            folder = tmp_path_factory.mktemp(f"reference-{name}")
            began = time.monotonic()
            assert finish(VARIANTS[name], folder / "run", count_to=str(folder / "count")) == 0
            made[name] = folder / "run", int((folder / "count").read_text()), time.monotonic() - began
        return made[name]

    return get


def resume(name: str, run: Path) -> None:
    assert finish(VARIANTS[name], run) == 0


@pytest.mark.parametrize("name", ["bcs", "watched-magnitude"])
def test_a_run_killed_between_two_changes_of_the_disk_resumes_to_the_same_bits(
    name: str, reference: Any, tmp_path: Path
) -> None:
    whole, changes, _ = reference(name)
    chance = random.Random(name)
    for _ in range(3):
        assert finish(VARIANTS[name], tmp_path / "run", kill_at=chance.randrange(10, changes // 2)) == -signal.SIGKILL
    resume(name, tmp_path / "run")
    assert_same_run(whole, tmp_path / "run")


@pytest.mark.long
@pytest.mark.parametrize("name", VARIANTS)
def test_a_run_killed_before_any_change_of_the_disk_resumes_to_the_same_bits(
    name: str, reference: Any, tmp_path: Path
) -> None:
    whole, changes, _ = reference(name)
    chance = random.Random(name)
    for number, at in enumerate(sorted(chance.sample(range(1, changes + 1), 24))):
        run = tmp_path / str(number)
        assert finish(VARIANTS[name], run, kill_at=at) == -signal.SIGKILL
        resume(name, run)
        assert_same_run(whole, run)


@pytest.mark.long
@pytest.mark.parametrize("name", VARIANTS)
def test_a_run_killed_twenty_times_at_random_moments_resumes_to_the_same_bits(
    name: str, reference: Any, tmp_path: Path
) -> None:
    whole, _, seconds = reference(name)
    chance = random.Random(name)
    for _ in range(20):
        process = start(VARIANTS[name], tmp_path / "run")
        time.sleep(chance.uniform(0, 0.7 * seconds))
        process.kill()
        process.join()
    resume(name, tmp_path / "run")
    assert_same_run(whole, tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_after_a_checkpoint_and_the_run_resumes_to_the_same_bits(
    number: signal.Signals, reference: Any, tmp_path: Path
) -> None:
    name = "magnitude"
    whole, _, _ = reference(name)
    run = tmp_path / "run"
    process = start(VARIANTS[name], run)
    wait_for(run / "last.json", process)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 128 + number
    seen = status(run)
    assert seen["state"] == "interrupted"
    assert number.name in seen["message"]
    assert 1 <= seen["step"] < 9
    assert (run / "checkpoints" / str(seen["step"])).is_dir()
    assert not (run / "states" / "final.safetensors").exists()
    resume(name, run)
    assert_same_run(whole, run)


def test_a_finished_run_is_not_trained_again(reference: Any) -> None:
    whole, _, _ = reference("magnitude")
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file() and path.name != "lock"}
    resume("magnitude", whole)
    after = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file() and path.name != "lock"}
    assert before == after


def test_both_phases_of_a_pruned_run_are_logged(reference: Any) -> None:
    whole, _, _ = reference("magnitude")
    lines = metrics(whole)
    assert [(line["phase"], line["epoch"], line["step"]) for line in lines] == [
        ("pretrain", 1, 3),
        ("pretrain", 2, 6),
        ("finetune", 1, 9),
    ]
    assert [line["active"] for line in lines] == [58_656, 58_656, 5_865]
