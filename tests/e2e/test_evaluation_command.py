"""An evaluation on the command line: shared between processes, killed at any moment, and gone on with."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

SMALL = ["--set", "training.epochs=2", "--set", "attack.steps=2", "--set", "evaluation=[{attack: fgsm, n: 60}]"]
COMMAND = [sys.executable, "-c", "from gossamer.cli.main import main; main()"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
AUTOATTACK = [
    *("evaluate", "run", "--attack", "autoattack", "--eps", "0.1", "--n", "60", "--batch-size", "16"),
    *("--option", "steps=10", "--option", "queries=100", "--save-seconds", "0"),
]


def gossamer(*words: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**ENVIRONMENT, **more}
    return subprocess.run(
        [*COMMAND, *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=600
    )


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a small run has been trained."""
    folder = tmp_path_factory.mktemp("evaluations")
    done = gossamer("train", "dense/digits-robust", "--out", "run", *SMALL, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def undisturbed(workplace: Path) -> list[int]:
    """The flags of an AutoAttack that nothing stopped."""
    done = gossamer(*AUTOATTACK, "--json", "whole.json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert "after fab-t:" in done.stdout
    flags = flags_of(workplace / "whole.json")
    assert 0 < sum(flags) < 60
    return flags


def flags_of(path: Path) -> list[int]:
    (outcome,) = json.loads(path.read_text())["attacks"]
    return outcome["robust"]


def test_two_workers_find_the_same(workplace: Path, undisturbed: list[int]) -> None:
    done = gossamer(*AUTOATTACK, "--workers", "2", "--json", "shared.json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert flags_of(workplace / "shared.json") == undisturbed
    assert not list((workplace / "run").glob("partial/*"))


def test_the_last_shard_merges_them_all(workplace: Path, undisturbed: list[int]) -> None:
    first = gossamer(*AUTOATTACK, "--shard", "1/2", "--json", "merged.json", cwd=workplace)
    assert first.returncode == 0, first.stderr
    assert "missing: part-0-of-2-" in first.stdout
    assert not (workplace / "merged.json").exists()
    last = gossamer(*AUTOATTACK, "--json", "merged.json", cwd=workplace, RANK="0", WORLD_SIZE="2")
    assert last.returncode == 0, last.stderr
    assert flags_of(workplace / "merged.json") == undisturbed


def test_a_part_that_was_left_of_another_question_is_none_of_this_one(workplace: Path) -> None:
    fgsm = ("evaluate", "run", "--attack", "fgsm", "--eps", "0.1", "--partial", "parts")
    for rank, n in ((0, 60), (1, 50)):
        done = gossamer(*fgsm, "--n", str(n), "--shard", f"{rank}/2", cwd=workplace)
        assert f"missing: part-{1 - rank}-of-2-" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--shard", "2/2"], "0 <= RANK < OF"),
        (["--shard", "0/2", "--workers", "2", "--json", "x.json"], "1 beside --shard"),
        (["--workers", "0"], "a whole number >= 1"),
        (["--precision", "fp8"], "float32 or bf16"),
        (["--attack", "autoatack"], "autoattack"),
        (["--option", "version=fast"], "'standard', 'plus', 'rand' or 'early'"),
    ],
)
def test_a_mistake_is_told_before_work_starts(workplace: Path, words: Sequence[str], told: str) -> None:
    done = gossamer(*AUTOATTACK, *words, cwd=workplace)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_twenty_kills_change_no_flag(workplace: Path, undisturbed: list[int]) -> None:
    chance = random.Random(5)
    result = workplace / "killed.json"
    kills, stages = 0, set[str]()
    while kills < 20:
        result.unlink(missing_ok=True)
        for partial in (workplace / "run/partial").glob("*"):
            shutil.rmtree(partial)
        while not result.exists():
            killed = run_for(chance.uniform(0.0, 3.0), workplace, result)
            kills += killed
            stages |= under_way(workplace)
        assert flags_of(result) == undisturbed
    # Kills must have met more than one attack of the ensemble.
    assert len(stages) >= 3


def run_for(seconds: float, workplace: Path, result: Path) -> bool:
    """Evaluate; SIGKILL it `seconds` after its first sign of work, unless it is done by then; return whether it was."""
    process = subprocess.Popen(
        [*COMMAND, *AUTOATTACK, "--json", str(result)], cwd=workplace, env=ENVIRONMENT, stdout=subprocess.DEVNULL
    )
    before = sign_of_work(workplace)
    while process.poll() is None and sign_of_work(workplace) == before:
        time.sleep(0.01)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        return process.wait() == -signal.SIGKILL
    assert process.returncode == 0
    return False


def sign_of_work(workplace: Path) -> list[int]:
    return [path.stat().st_mtime_ns for path in (workplace / "run/partial").glob("*/state.safetensors")]


def under_way(workplace: Path) -> set[str]:
    """Return the stages that the partial results hold unfinished."""
    from safetensors import safe_open  # noqa: PLC0415

    found = set[str]()
    for path in (workplace / "run/partial").glob("*/state.safetensors"):
        with safe_open(path, "pt") as state:
            found |= {key.split("|")[1] for key in state.keys() if key.startswith("under-way|")}  # noqa: SIM118
    return found
