"""Options as a recipe gives them, brought to the types that a dataclass or a function declares for them."""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, cast, get_type_hints

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from gossamer.errors import ConfigError

T = TypeVar("T")
Reader: TypeAlias = Callable[[Any], object]


def construct(
    make: Callable[..., T],
    options: Mapping[str, object],
    subject: str,
    *,
    readers: Mapping[str, Reader] | None = None,
    given: Mapping[str, object] | None = None,
) -> T:
    """Return `make` called with the options, each of its declared type, and with `given`, which options may not set.

    make: a dataclass, or a function with type hints. readers: by option, what makes a value of a text. Raises
    ConfigError, naming `subject` and the option, for an unknown option, a missing one and a wrong type.
    """
    own = given or {}
    known = {name: each for name, each in inspect.signature(make).parameters.items() if name not in own}
    read = typed(make, options, subject, readers=readers, known=tuple(known))
    missing = [name for name, each in known.items() if name not in options and each.default is each.empty]
    if missing:
        raise ConfigError(f"{subject}.{missing[0]}", expected="a value", got="nothing", remedy="add it")
    return make(**own, **read)


def typed(
    make: Callable[..., object],
    options: Mapping[str, object],
    subject: str,
    *,
    readers: Mapping[str, Reader] | None = None,
    known: Sequence[str] | None = None,
) -> dict[str, object]:
    """Return the options, each of the type that `make` declares for it; known: those it may be given, by default all.

    A value whose type only Python can write, such as a module, is taken as it is. Raises ConfigError as `construct`
    does, but for a missing option.
    """
    names = tuple(inspect.signature(make).parameters) if known is None else known
    unknown = next((name for name in options if name not in names), None)
    if unknown is not None:
        near = difflib.get_close_matches(unknown, names, n=1)
        raise ConfigError(
            f"{subject}.{unknown}",
            expected=f"one of {', '.join(names)}" if names else "no options",
            got="an unknown option",
            remedy=f"did you mean {near[0]}?" if near else "remove it",
        )
    hints, read = _hints(make), readers or {}
    return {
        name: read[name](value) if name in read else _typed(hints.get(name, Any), value, f"{subject}.{name}")
        for name, value in options.items()
    }


def _hints(make: Callable[..., object]) -> dict[str, Any]:
    try:
        return get_type_hints(make)
    except NameError:
        # A user's own class may name types that it imports for type checkers alone.
        return {}


def _typed(hint: Any, value: object, subject: str) -> object:
    try:
        adapter = TypeAdapter[object](hint)
    except PydanticSchemaGenerationError:
        return value
    try:
        found = adapter.validate_python(value)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Input should be ")
        raise ConfigError(
            subject, expected=message[:1].lower() + message[1:], got=repr(value), remedy="change the value"
        ) from error
    if _takes_truth_for_a_number(value, found):
        raise ConfigError(subject, expected="a number", got=repr(value), remedy="change the value")
    return found


def _takes_truth_for_a_number(value: object, found: object) -> bool:
    """Return whether true or false was read as 1 or 0, anywhere in a value."""
    if isinstance(value, bool):
        return not isinstance(found, bool)
    if isinstance(value, Mapping) and isinstance(found, Mapping):
        read = cast("Mapping[Any, object]", found)
        return any(_takes_truth_for_a_number(each, read.get(key)) for key, each in value.items())
    if isinstance(value, list | tuple) and isinstance(found, list | tuple):
        return any(map(_takes_truth_for_a_number, value, found))
    return False
