"""How does a record become JSON and come back checked? Dataclasses out, strictly validated dataclasses in."""

import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from gossamer.errors import RunError
from gossamer.runs import atomic

Record = TypeVar("Record")

# What each record's `__pydantic_config__` says: no guessing of types, no unknown keys.
STRICT = {"strict": True, "extra": "forbid"}


def to_json(record: Any) -> dict[str, Any]:
    """Return a dataclass as values that JSON has."""
    return dataclasses.asdict(record)


def from_json(kind: type[Record], value: Any, *, subject: str) -> Record:
    """Return `value` as a record of `kind`; raises RunError if it is not one.

    A record with a `schema` field is read only in the version that the field's default names.
    """
    from pydantic import ValidationError  # noqa: PLC0415  (slow to import, needed here alone)

    _check_version(kind, value, subject)
    try:
        return _reader(kind).validate_json(json.dumps(value))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the record"
        raise RunError(
            f"{subject}, {place}",
            expected=f"a {kind.__name__}",
            got=f"{first['msg']} ({error.error_count()} faults in all)",
            remedy="write the file again with the command that made it",
        ) from error


def read(kind: type[Record], path: Path) -> Record:
    """Return the record in a JSON file; raises RunError if the file is missing, damaged or of another kind."""
    return from_json(kind, atomic.read_json(path), subject=str(path))


def files(folder: Path) -> list[Path]:
    """Return the JSON files of a folder by name; those that are hidden, as file systems leave some, are no records."""
    return [path for path in sorted(folder.glob("*.json")) if not path.name.startswith(".")]


def write(path: Path, record: object) -> None:
    """Write a record as JSON, atomically; raises RunError where the file system refuses."""
    atomic.write_json(path, to_json(record))


@cache
def _reader(kind: type[Any]) -> Any:
    """Return what validates records of a kind; to make it takes longer than to read most of them."""
    from pydantic import TypeAdapter  # noqa: PLC0415  (slow to import, needed here alone)

    return TypeAdapter(kind)


def _check_version(kind: type[Any], value: Any, subject: str) -> None:
    expected = next((field.default for field in dataclasses.fields(kind) if field.name == "schema"), None)
    if expected is None:
        return
    got = value.get("schema") if isinstance(value, dict) else None
    if got != expected:
        raise RunError(
            subject,
            expected=f"schema {expected}",
            got=f"schema {got}" if got else "no schema",
            remedy="read it with the version of gossamer that wrote it, or write it again with this one",
        )
