"""What is a value, written down? Plain JSON that is equal where and only where the values compute the same."""

import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import CodeType, FunctionType, MethodType
from typing import Any, TypeAlias

import torch
from pydantic import BaseModel
from torch import Tensor

from gossamer.data import DataSet
from gossamer.errors import ConfigError
from gossamer.recipe.semantics import semantics

Plain: TypeAlias = bool | int | str | list["Plain"] | dict[str, "Plain"] | None


def describe(value: object) -> Plain:
    """Return what a value is: its type, the version of its arithmetic, and everything it holds.

    Objects are followed through what they hold, functions through what they close over; data sets count by their
    checksum, tensors by their bytes. Raises ConfigError for a value that nothing says what it computes.
    """
    for kind, written in _WRITTEN:
        if isinstance(value, kind):
            return written(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _held(value, [field.name for field in fields(value)])
    if hasattr(value, "__dict__") and not hasattr(type(value), "__slots__"):
        return _held(value, sorted(vars(value)))
    raise ConfigError(
        f"a {_name(type(value))}",
        expected="a value that says what it computes: a frozen dataclass, a function, plain data",
        got=type(value).__name__,
        remedy="make it a frozen dataclass, so that runs which share its work can be told from others",
    )


def _held(value: object, names: Sequence[str]) -> Plain:
    return {"is": _name(type(value)), **{name: describe(getattr(value, name)) for name in names}}


def _name(what: type | FunctionType) -> str:
    """Return where a type or function is found, and the version of its arithmetic where that is not the first."""
    path = f"{what.__module__}.{what.__qualname__}"
    version = semantics(path)
    return path if version == 1 else f"{path}@{version}"


def _tensor(value: Tensor) -> Plain:
    data = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    digest = hashlib.sha256(data).hexdigest()
    return {"is": f"tensor of {value.dtype}", "shape": list(value.shape), "sha256": digest}


def _data(value: DataSet) -> Plain:
    about: dict[str, Plain] = {"name": value.name, "part": value.part, "checksum": value.checksum, "n": len(value)}
    return {"is": "data", **about, "classes": list[Plain](value.classes)}


def _model(value: BaseModel) -> Plain:
    return _held(value, [*sorted(type(value).model_fields), *sorted(value.model_extra or ())])


def _partial(value: "functools.partial[Any]") -> Plain:
    return {
        "is": "partial",
        "of": describe(value.func),
        "args": describe(value.args),
        "kwargs": describe(value.keywords),
    }


def _method(value: MethodType) -> Plain:
    return {"is": "method", "of": describe(value.__func__), "self": describe(value.__self__)}


def _function(value: FunctionType) -> Plain:
    held = inspect.getclosurevars(value).nonlocals
    found: dict[str, Plain] = {"is": _name(value)}
    if value.__name__ == "<lambda>":
        # Two of one function have one name: what they do tells them apart.
        found["code"] = _code(value.__code__)
    if value.__defaults__ or value.__kwdefaults__:
        found["defaults"] = describe([value.__defaults__, value.__kwdefaults__])
    return {**found, **({"holds": describe(held)} if held else {})}


def _code(code: CodeType) -> Plain:
    held = [_code(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts]
    return [hashlib.sha256(code.co_code).hexdigest(), list[Plain](code.co_names), held]


def _mapping(value: Mapping[Any, Any]) -> Plain:
    return {str(key): describe(value[key]) for key in sorted(value, key=str)}


def _sequence(value: Sequence[Any]) -> Plain:
    return [describe(each) for each in value]


def _set(value: frozenset[Any]) -> Plain:
    return [describe(each) for each in sorted(value, key=str)]


def _itself(value: Any) -> Plain:
    return value


def _exact(value: float) -> Plain:
    # 1 and 1.0 are one number, and every float has one shortest form.
    return int(value) if value.is_integer() else repr(value)


_WRITTEN: Sequence[tuple[Any, Callable[[Any], Plain]]] = (
    ((type(None), bool, int, str), _itself),
    (float, _exact),
    (Tensor, _tensor),
    (DataSet, _data),
    (BaseModel, _model),
    (functools.partial, _partial),
    (MethodType, _method),
    (FunctionType, _function),
    (type, _name),
    (Mapping, _mapping),
    ((list, tuple), _sequence),
    ((set, frozenset), _set),
    ((torch.device, torch.dtype), str),
)
