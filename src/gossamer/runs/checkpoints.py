"""From where does a killed run go on? Two checkpoints, each named only once it lies wholly on the disk."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gossamer.errors import RunError
from gossamer.runs import atomic
from gossamer.runs.layout import RunFolder


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A state to go on from; `warning` says why it is not the newest one, where it is not."""

    step: int
    tensors: dict[str, Tensor]
    meta: dict[str, Any]
    warning: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Named:
    """A checkpoint directory and the digest of its meta.json, which in turn holds that of its tensors."""

    step: int
    directory: str
    sha256: str | None


def save(run: RunFolder, step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Save a checkpoint and drop all but the newest one of an earlier step.

    `meta` is JSON-able; NaN and infinities come back as they were. Tensors are stored in row-major order.
    Raises RunError where the file system refuses; what was saved before then still stands.
    """
    named = _named(run)
    _remove_all_but(run, named)
    directory = _free_directory(run, step)
    state, notes = directory / "state.safetensors", directory / "meta.json"
    try:
        atomic.write_safetensors(state, tensors)
        record = {"step": step, "state_sha256": atomic.sha256(state), "meta": dict(meta)}
        atomic.write_text(notes, json.dumps(record))
    except RunError:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    newest = _Named(step=step, directory=directory.name, sha256=atomic.sha256(notes))
    # One of the same or a later step was damaged or is being redone: it is no way back.
    previous = next((one for one in named if one.step < step), None)
    atomic.write_json(run.last, {**vars(newest), "previous": vars(previous) if previous else None})
    _remove_all_but(run, [newest, previous] if previous else [newest])


def load_last(run: RunFolder, device: torch.device | str = "cpu") -> Checkpoint | None:
    """Return the last checkpoint, or the one before it with a warning if the last is damaged, or None.

    Raises RunError where checkpoints are named and none of them is whole.
    """
    named = _named(run)
    failures: list[str] = []
    for one in named:
        try:
            found = _load(run, one, device)
        except RunError as error:
            failures.append(str(error))
            continue
        if not failures:
            return found
        warning = f"checkpoint of step {named[0].step} is damaged; went back to step {one.step} ({failures[0]})"
        return Checkpoint(step=found.step, tensors=found.tensors, meta=found.meta, warning=warning)
    if not named:
        return None
    raise RunError(
        f"checkpoints of {run.path}",
        expected="at least one whole checkpoint",
        got="; ".join(failures),
        remedy=f"put {run.checkpoints} back from a copy, or start the run anew in another folder",
    )


def _load(run: RunFolder, one: _Named, device: torch.device | str) -> Checkpoint:
    directory = run.checkpoints / one.directory
    state, notes = directory / "state.safetensors", directory / "meta.json"
    if one.sha256 is not None:
        _check_digest(notes, one.sha256)
    record = atomic.read_json(notes)
    try:
        step, digest, meta = record["step"], record["state_sha256"], record["meta"]
    except (KeyError, TypeError) as error:
        raise _damaged(notes, f"no {error}") from error
    _check_digest(state, digest)
    return Checkpoint(step=step, tensors=atomic.read_safetensors(state, device), meta=meta)


def _check_digest(path: Path, expected: str) -> None:
    try:
        got = atomic.sha256(path)
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from error
    if got != expected:
        raise _damaged(path, f"SHA-256 {got[:12]}... instead of {expected[:12]}...")


def _damaged(path: Path, got: str) -> RunError:
    return RunError(str(path), expected="the file as it was saved", got=got, remedy="put it back from a copy")


def _named(run: RunFolder) -> list[_Named]:
    """Return the checkpoints that count, newest first."""
    if not run.last.exists():
        return []
    try:
        last = atomic.read_json(run.last)
        previous = last.pop("previous")
        return [_Named(**one) for one in (last, previous) if one is not None]
    except (RunError, AttributeError, KeyError, TypeError):
        return _found(run)


def _found(run: RunFolder) -> list[_Named]:
    """Return what lies there, newest first, where last.json can no longer tell."""
    steps = [(int(path.name.split(".")[0]), path.name) for path in _directories(run) if path.name[0].isdigit()]
    return [_Named(step=step, directory=name, sha256=None) for step, name in sorted(steps, reverse=True)]


def _free_directory(run: RunFolder, step: int) -> Path:
    directory, redone = run.checkpoints / str(step), 0
    while directory.exists():
        redone += 1
        directory = run.checkpoints / f"{step}.{redone}"
    return directory


def _remove_all_but(run: RunFolder, kept: list[_Named]) -> None:
    names = {one.directory for one in kept}
    for path in _directories(run):
        if path.name not in names:
            shutil.rmtree(path, ignore_errors=True)


def _directories(run: RunFolder) -> list[Path]:
    return [path for path in run.checkpoints.glob("*") if path.is_dir()]
