"""Options as a recipe gives them, brought to the types that a dataclass declares for its fields."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar, cast, get_type_hints

from pydantic import TypeAdapter, ValidationError

from gossamer.errors import ConfigError

T = TypeVar("T")


def construct(make: Callable[..., T], options: Mapping[str, object], subject: str) -> T:
    """Return `make` called with the options, each of its field's type; make: a dataclass.

    Raises ConfigError, naming `subject` and the field, for an unknown option, a missing one and a wrong type.
    """
    known: dict[str, Field[Any]] = {each.name: each for each in fields(cast("Any", make))}
    unknown = next((name for name in options if name not in known), None)
    if unknown is not None:
        near = difflib.get_close_matches(unknown, known, n=1)
        raise ConfigError(
            f"{subject}.{unknown}",
            expected=f"one of {', '.join(known)}" if known else "no options",
            got="an unknown option",
            remedy=f"did you mean {near[0]}?" if near else "remove it",
        )
    missing = [name for name, each in known.items() if name not in options and _required(each)]
    if missing:
        raise ConfigError(f"{subject}.{missing[0]}", expected="a value", got="nothing", remedy="add it")
    hints = get_type_hints(make)
    return make(**{name: _typed(hints[name], value, f"{subject}.{name}") for name, value in options.items()})


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _typed(hint: Any, value: object, subject: str) -> object:
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Input should be ")
        raise ConfigError(
            subject, expected=message[:1].lower() + message[1:], got=repr(value), remedy="change the value"
        ) from error
