"""Which object does a user's "package.module:name" mean?"""

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from gossamer.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])

_REFERENCE = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")


def is_reference(name: str) -> bool:
    """Return whether a name is written as a reference, "package.module:attribute"."""
    return ":" in name


def resolve(reference: str) -> object:
    """Import and return what "package.module:attribute" names; the working directory is searched too.

    Raises ConfigError for a malformed reference, a module that is not there and an attribute it lacks. An error
    inside the module itself is the user's own and passes unchanged.
    """
    module_name, _, attribute = reference.partition(":")
    names = [*module_name.split("."), *attribute.split(".")]
    if not all(name.isidentifier() for name in names):
        raise ConfigError(
            "reference",
            expected="package.module:name",
            got=repr(reference),
            remedy="write for example mypackage.attacks:MyAttack",
        )
    found: object = _import(module_name, reference)
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise ConfigError(
                f"reference {reference}",
                expected=f"module {module_name} to define {attribute}",
                got="no such name",
                remedy="check its spelling in the module",
            )
        found = getattr(found, name)
    return found


def make(reference: str, **options: object) -> object:
    """Return what the user's factory makes of the options, or the object itself where it cannot be called.

    Raises ConfigError as `resolve` does, and for options that the factory does not take.
    """
    factory = resolve(reference)
    if not callable(factory):
        return factory
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        raise ConfigError(
            f"factory {reference}",
            expected=f"arguments that fit {reference.rpartition(':')[2]}{inspect.signature(factory)}",
            got=f"{', '.join(options) or 'none'} ({error})",
            remedy="rename or remove the options, or let the factory take them",
        ) from error
    except ValueError:
        # Built-in callables may not tell their signature; the call itself will.
        return factory(**options)
    return factory(**options)


def make_one(
    kind: str,
    reference: str,
    options: Mapping[str, object],
    *,
    fits: Callable[[object], bool],
    expected: str,
    remedy: str,
) -> object:
    """Return what the user's factory makes of the options, one of a kind such as "budget".

    fits: whether an object is one; expected, remedy: what is told of a factory that makes anything else. Raises
    ConfigError as `make` does, and for what does not fit.
    """
    made = make(reference, **options)
    if fits(made):
        return made
    raise ConfigError(f"{kind} {reference}", expected=expected, got=type(made).__name__, remedy=remedy)


def make_function(kind: str, reference: str, signature: str, options: Mapping[str, object]) -> object:
    """Return the callable that the user's factory makes of the options; signature: as an error tells it."""
    expected = f"a factory that returns {signature}"
    return make_one(kind, reference, options, fits=callable, expected=expected, remedy="return a callable")


def named_function(kind: str, name: str, table: Mapping[str, F], signature: str) -> F:
    """Return the function that a table has under a name, or what a user's "package.module:factory" makes.

    kind: the option of a method that names it, such as "score"; signature: as an error tells it. Raises ConfigError.
    """
    if is_reference(name):
        return cast("F", make_function(kind, name, signature, {}))
    if name not in table:
        raise ConfigError(
            f"method.{kind}",
            expected=f"one of {', '.join(table)}, or package.module:factory",
            got=repr(name),
            remedy="choose one of them",
        )
    return table[name]


def references(value: object) -> Iterator[str]:
    """Yield every text within mappings and lists that could name a module of a user's own.

    Wider than need be, for those who must import nothing.
    """
    if isinstance(value, str) and _REFERENCE.fullmatch(value):
        yield value
    if isinstance(value, Mapping):
        value = list(cast("Mapping[str, object]", value).values())
    if isinstance(value, list | tuple):
        for each in cast("Sequence[object]", value):
            yield from references(each)


def _import(module_name: str, reference: str) -> object:
    try:
        with _working_directory_importable():
            return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A missing import inside the user's own module is another error than a missing module.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(
            f"reference {reference}",
            expected=f"an importable module {module_name}",
            got=f"no module named {error.name}",
            remedy="install its package, or run from the folder that holds it",
        ) from error


@contextmanager
def _working_directory_importable() -> Generator[None]:
    importlib.invalidate_caches()
    folder = str(Path.cwd())
    if folder in sys.path:
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
