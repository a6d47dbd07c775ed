"""Where does a command keep its partial results, and with which words is its record made again?"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from gossamer.evaluation.plan import digest
from gossamer.runs import RunFolder

Record = TypeVar("Record")


def partial_folder(name: str, asked: Mapping[str, object], folder: RunFolder | None, json: Path | None) -> Path | None:
    """Return where the partial results of a command lie: in the run's folder, else beside --json, else nowhere.

    asked: the options; those that may change between two tries, where run and data lie, do not count.
    """
    if folder is not None:
        counted = {key: str(value) for key, value in asked.items() if key not in ("run", "data_dir")}
        return folder.partial / f"{name}-{digest(counted)}"
    return None if json is None else json.with_name(f"{json.name}.partial")


def command_of(words: Sequence[object], flags: Mapping[str, object]) -> str:
    """Return a command line; a flag that is None or False is left out, True is a flag alone, several are repeated."""
    told = [str(word) for word in words]
    for flag, value in flags.items():
        for each in value if isinstance(value, tuple) else (value,):
            # Not `each in (None, False)`: 0 is a value.
            told += [] if each is None or each is False else [flag] if each is True else [flag, str(each)]
    return shlex.join(told)


def with_command(record: Record, command: str) -> Record:
    """Return a record whose environment names the command that measures it again."""
    value: Any = record
    return replace(value, environment={**value.environment, "command": command})
