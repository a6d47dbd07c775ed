"""What happened in each epoch? An append-only log of JSON lines, cut back to the checkpoint at resume."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from gossamer.errors import RunError
from gossamer.runs import atomic
from gossamer.runs.layout import RunFolder

Value: TypeAlias = float | int | str | bool | None


def is_probed(name: str) -> bool:
    """Tell whether a metric is what a probe measured, such as held_out/pgd."""
    return "/" in name and not name.startswith("sparsifier/")


def is_probed_loss(name: str) -> bool:
    """Tell whether a metric is a loss that a probe measured, such as held_out/pgd/loss."""
    return is_probed(name) and name.endswith("/loss")


@dataclass(frozen=True)
class MetricsLog:
    """The log of one run; holds no file open, so a checkpoint needs its `offset` alone."""

    run: RunFolder

    @property
    def offset(self) -> int:
        """The length of the log in bytes."""
        path = self.run.metrics
        return path.stat().st_size if path.exists() else 0

    def append(self, line: Mapping[str, Value]) -> None:
        """Append one line, durably; a number that is not finite becomes null.

        Raises RunError where the file system refuses; the log is then as it was before.
        """
        text = json.dumps({key: _finite(value) for key, value in line.items()}, allow_nan=False) + "\n"
        path, before = self.run.metrics, self.offset
        with atomic.refusals_told(path):
            try:
                with path.open("ab") as file:
                    file.write(text.encode())
                    file.flush()
                    os.fsync(file.fileno())
            except OSError:
                self._truncate(before)
                raise
            if before == 0:
                atomic.sync(path.parent)

    def cut(self, offset: int) -> None:
        """Drop what was written after the checkpoint that noted `offset`.

        Raises RunError where the log is shorter than that: lines of the run are then lost.
        """
        if self.offset < offset:
            raise RunError(
                str(self.run.metrics),
                expected=f"at least the {offset} bytes that the checkpoint saw",
                got=f"{self.offset} bytes",
                remedy="put the file back from a copy, or start the run anew in another folder",
            )
        with atomic.refusals_told(self.run.metrics):
            self._truncate(offset)

    def _truncate(self, offset: int) -> None:
        if self.offset == offset:
            return
        os.truncate(self.run.metrics, offset)
        atomic.sync(self.run.metrics)


def read(run: RunFolder) -> list[dict[str, Any]]:
    """Return the lines of the log; a last line torn by a kill is left out.

    Raises RunError where another line is damaged.
    """
    if not run.metrics.exists():
        return []
    *whole, _torn = run.metrics.read_bytes().split(b"\n")
    return [_parsed(run, number, line) for number, line in enumerate(whole, start=1)]


def _parsed(run: RunFolder, number: int, line: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError) as error:
        raise RunError(
            f"{run.metrics}, line {number}",
            expected="a JSON object",
            got=repr(line[:60]),
            remedy="put the file back from a copy, or remove the line",
        ) from error


def _finite(value: Value) -> Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value
