"""Runs trained in processes of their own, killed at a chosen change of the disk or by their parent."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

TIMES = ("seconds", "images_per_second", "seconds_left")

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["gossamer.recipe.train", "sklearn.datasets", "torch._dynamo"])


def recipe(**changes: Any) -> dict[str, Any]:
    """Return a recipe of six steps that checkpoints after every one; sections are merged, other values replaced."""
    base: dict[str, Any] = {
        "name": "lifecycle",
        "data": {"name": "digits", "train_n": 60, "augmentation": {"shift": 0.1}},
        "model": {"name": "digits-cnn"},
        "threat": "linf:0.15",
        "objective": {"name": "adversarial"},
        "attack": {"steps": 2},
        "method": {"name": "bcs", "density": 0.1},
        "training": {"epochs": 2, "batch_size": 20},
        "machine": {"device": "cpu", "threads": 1, "checkpoint_seconds": 0},
        "evaluation": [],
    }
    merged = {key: {**value, **changes.get(key, {})} for key, value in base.items() if isinstance(value, dict)}
    return {**base, **changes, **merged, **({"method": changes["method"]} if "method" in changes else {})}


def train_here(values: dict[str, Any], out: str, kill_at: int | None = None, count_to: str | None = None) -> None:
    """Train in this process; SIGKILL it at its `kill_at`-th change of the disk, or note how many there were."""
    import torch  # noqa: PLC0415  (in the child alone)

    from gossamer.recipe.train import train  # noqa: PLC0415
    from gossamer.training.interruption import Interrupted  # noqa: PLC0415

    torch.set_num_threads(1)
    counted = _count_changes_of_the_disk(kill_at)
    try:
        train(values, out=out)
    except Interrupted as error:
        sys.exit(error.exit_status)
    if count_to is not None:
        Path(count_to).write_text(str(counted()), encoding="utf-8")


def _count_changes_of_the_disk(kill_at: int | None) -> Any:
    count = 0

    def counting(module: Any, name: str) -> None:
        real = getattr(module, name)

        def changed(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        setattr(module, name, changed)

    for module, name in ((os, "fsync"), (os, "replace"), (os, "truncate"), (shutil, "rmtree")):
        counting(module, name)
    return lambda: count


def start(values: dict[str, Any], out: Path, **options: Any) -> BaseProcess:
    """Start training in a process of its own."""
    process = _CONTEXT.Process(target=train_here, args=(values, str(out)), kwargs=options, daemon=True)
    process.start()
    return process


def finish(values: dict[str, Any], out: Path, **options: Any) -> int | None:
    """Train in a process of its own until it ends, and return its exit code."""
    process = start(values, out, **options)
    process.join(120)
    assert process.exitcode is not None, "training did not end"
    return process.exitcode


def wait_for(path: Path, process: BaseProcess) -> None:
    """Wait until a file is there."""
    until = time.monotonic() + 60
    while not path.exists():
        assert process.is_alive(), "the process ended before it wrote the file"
        assert time.monotonic() < until
        time.sleep(0.005)


def metrics(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics without what depends on the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def status(run: Path) -> dict[str, Any]:
    """Return a run's status."""
    return json.loads((run / "status.json").read_text(encoding="utf-8"))


def assert_same_run(one: Path, other: Path) -> None:
    """Assert that two finished runs hold the same bits: every state, every metric, every picture."""
    states = sorted(path.name for path in (one / "states").iterdir())
    assert states == sorted(path.name for path in (other / "states").iterdir())
    for name in states:
        expected, got = load_file(one / "states" / name), load_file(other / "states" / name)
        assert expected.keys() == got.keys()
        different = [key for key in expected if expected[key].numpy().tobytes() != got[key].numpy().tobytes()]
        assert not different, f"{name}: other bits in {different}"
    assert metrics(one) == metrics(other)
    assert (one / "panel" / "pgd-20.safetensors").read_bytes() == (other / "panel" / "pgd-20.safetensors").read_bytes()
    assert status(one)["state"] == status(other)["state"] == "done"
    assert status(one)["step"] == status(other)["step"]
