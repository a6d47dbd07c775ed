"""Reading the pickles that images were published as, with nothing but plain containers and arrays of numbers let in."""

import io
import pickle
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import DataError

_NUMBERS = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})
_ORDERS = frozenset({"<", ">", "|", "="})


class _Type:
    """What a pickle says of the type of an array's numbers; of no other type anything is made."""

    def __init__(self, code: str, *_: object) -> None:
        if code not in _NUMBERS:
            raise pickle.UnpicklingError(f"the array type {code!r} is not admitted")
        self.plain = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, *parts = state
        if order not in _ORDERS or any(part is not None for part in parts[:3]):
            raise pickle.UnpicklingError("an array of composite elements is not admitted")
        self.plain = self.plain.newbyteorder(order)


class _Array:
    """What a pickle says of an array. NumPy's own constructors trust what they are told; here sizes are compared."""

    value: NDArray[Any]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, content = state
        self.value = _numbers(content, kind, shape, "F" if fortran else "C")


def _begin(kind: object, *_: object) -> _Array:
    """Stand in for NumPy's `_reconstruct`, whose array has no contents yet."""
    if kind is not _Array:
        raise pickle.UnpicklingError("a kind of array of its own is not admitted")
    return _Array()


def _from_buffer(content: bytes | bytearray, kind: _Type, shape: tuple[int, ...], order: str) -> _Array:
    """Stand in for NumPy's `_frombuffer`, by which protocol 5 writes arrays."""
    array = _Array()
    array.value = _numbers(content, kind, shape, order)
    return array


def _scalar(kind: _Type, content: bytes | str) -> Any:
    """Stand in for NumPy's `scalar`, and return a number of Python's."""
    return _numbers(content, kind, (), "C").item()


def _numbers(content: object, kind: object, shape: object, order: object) -> NDArray[Any]:
    """Return an array that cannot be written to; content: the bytes, or the text that Python 2's are read as."""
    raw = content.encode("latin1") if isinstance(content, str) else content
    if not isinstance(raw, bytes | bytearray) or not isinstance(kind, _Type) or order not in ("C", "F"):
        raise pickle.UnpicklingError("the contents of an array are not its bytes")
    read = np.frombuffer(raw, kind.plain)
    read.flags.writeable = False
    return read.reshape(shape, order=order)  # pyright: ignore[reportCallIssue, reportArgumentType]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Stand in for `_codecs.encode`, through which Python 2 wrote byte strings; that one knows more codecs."""
    if encoding not in {"latin1", "latin-1"}:
        raise pickle.UnpicklingError(f"the codec {encoding!r} is not latin1")
    return text.encode("latin1")


# NumPy moved its core in version 2, and arrays name the one that wrote them.
ADMITTED: Mapping[tuple[str, str], Callable[..., Any]] = MappingProxyType(
    {
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Type,
        ("_codecs", "encode"): _encode,
        **{(f"numpy.{core}.multiarray", "_reconstruct"): _begin for core in ("core", "_core")},
        **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
        **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    }
)


class _Restricted(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return ADMITTED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"the global {module_name}.{global_name} is not admitted") from None


def read_pickle(content: bytes | BinaryIO, *, subject: str) -> dict[str, Any]:
    """Return the dictionary in a pickle of plain containers and NumPy arrays of numbers, which cannot be written to.

    No constructor but this file's own is called. Raises DataError on anything else inside.
    """
    stream = io.BytesIO(content) if isinstance(content, bytes) else content
    try:
        value = _plain(_Restricted(stream, encoding="latin1").load())
    except Exception as error:
        raise _refusal(subject, str(error)) from error
    if not isinstance(value, dict):
        raise _refusal(subject, type(value).__name__)
    return {str(key): item for key, item in value.items()}


def _plain(value: Any) -> Any:
    """Return containers with the arrays that were read in the place of what was said of them."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return type(value)(_plain(item) for item in value)
    if isinstance(value, str | bytes | bytearray | bool | int | float | complex | None):
        return value
    raise pickle.UnpicklingError(f"a {type(value).__name__} is not admitted")


def _refusal(subject: str, got: str) -> DataError:
    return DataError(
        subject,
        expected="a pickled dictionary of plain containers and numpy arrays",
        got=got,
        remedy="use the official files",
    )
