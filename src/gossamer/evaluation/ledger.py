"""What has an evaluation found so far? Finished stages and the one under way, on disk, so that a kill loses little."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from gossamer.errors import RunError
from gossamer.runs import atomic

Tensors: TypeAlias = dict[str, Tensor]

SCHEMA = "gossamer/partial/2"


@dataclass
class Ledger:
    """The partial results of one evaluation; in memory alone where path is None.

    path: the folder that holds `plan.json`, what is evaluated, and `state.safetensors`, what came of it so far: one
    file, replaced atomically, so that finished stages and the one under way are always of one moment. seconds:
    how often the stage under way is saved. batch_size: what the evaluation began with; equal flags are promised for
    an equal one.
    """

    path: Path | None = None
    seconds: float = 30.0
    batch_size: int | None = None
    finished: dict[str, Tensors] = field(default_factory=dict[str, Tensors])
    _under_way: dict[str, Tensors] = field(default_factory=dict[str, Tensors])
    _saved_at: float = field(default_factory=time.monotonic)

    @classmethod
    def open(cls, path: Path | None, plan: Mapping[str, Any], *, seconds: float = 30.0) -> "Ledger":
        """Return the ledger of a plan, with what a killed evaluation of the same plan left.

        Raises RunError where the folder holds the partial results of another plan, or damaged ones.
        """
        ledger = cls(path, seconds)
        if path is None:
            return ledger
        plan = {"schema": SCHEMA, **plan}
        if ledger._plan.exists():
            _check_plan(path, atomic.read_json(ledger._plan), plan)
        else:
            atomic.write_json(ledger._plan, plan)
        if ledger._state.exists():
            ledger._read()
        return ledger

    @property
    def seconds_before(self) -> float:
        """How long the saved stages took."""
        saved = [*self.finished.values(), *self._under_way.values()]
        return sum(float(tensors["seconds"]) for tensors in saved)

    def under_way(self, stage: str) -> Tensors | None:
        """Return what was last saved of a stage that did not finish, or None."""
        return self._under_way.get(stage)

    def update(self, stage: str, state: Callable[[], Tensors]) -> None:
        """Save the state of the stage under way, if it is time; state: called only then."""
        if self.path is not None and time.monotonic() - self._saved_at >= self.seconds:
            self._under_way = {stage: state()}
            self._save()

    def finish(self, stage: str, result: Tensors) -> None:
        """Keep and save the result of a finished stage."""
        self.finished[stage] = result
        self._under_way.pop(stage, None)
        if self.path is not None:
            self._save()

    def close(self) -> None:
        """Remove the files: the evaluation is done and its result lies elsewhere."""
        if self.path is None:
            return
        self._state.unlink(missing_ok=True)
        self._plan.unlink(missing_ok=True)
        for leftover in self.path.iterdir():
            if atomic.is_temporary(leftover):
                leftover.unlink()
        if not any(self.path.iterdir()):
            self.path.rmdir()

    @property
    def _plan(self) -> Path:
        assert self.path is not None
        return self.path / "plan.json"

    @property
    def _state(self) -> Path:
        assert self.path is not None
        return self.path / "state.safetensors"

    def _save(self) -> None:
        parts = {"finished": self.finished, "under-way": self._under_way}
        tensors = {
            f"{part}|{stage}|{name}": tensor
            for part, stages in parts.items()
            for stage, held in stages.items()
            for name, tensor in held.items()
        }
        atomic.write_safetensors(self._state, {**tensors, "batch size": torch.tensor(self.batch_size or 0)})
        self._saved_at = time.monotonic()

    def _read(self) -> None:
        parts: dict[str, dict[str, Tensors]] = {"finished": self.finished, "under-way": self._under_way}
        tensors = atomic.read_safetensors(self._state)
        self.batch_size = int(tensors.pop("batch size")) or None
        for key, tensor in tensors.items():
            part, _, rest = key.partition("|")
            stage, _, name = rest.rpartition("|")
            parts[part].setdefault(stage, {})[name] = tensor


def forget(folder: Path) -> None:
    """Remove the partial results in a folder, and the folder where nothing else lies in it."""
    if folder.is_dir():
        Ledger(folder).close()


def _check_plan(path: Path, before: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    changed = [key for key in {**before, **plan} if before.get(key) != plan.get(key)]
    if changed:
        raise RunError(
            f"partial results in {path}",
            expected="those of this evaluation",
            got=f"those of another one (other {', '.join(sorted(changed))})",
            remedy="remove the folder to begin anew, or name another",
        )
