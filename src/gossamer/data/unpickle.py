"""Reading the pickles that CIFAR was published as, with nothing but plain containers and arrays let in."""

import io
import pickle
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, cast

import numpy as np

from gossamer.errors import DataError


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Stand in for `_codecs.encode`, through which Python 2 wrote byte strings; that one knows more codecs."""
    if encoding not in {"latin1", "latin-1"}:
        raise pickle.UnpicklingError(f"the codec {encoding!r} is not latin1")
    return text.encode("latin1")


# The first part of how an array pickles itself: numpy's own constructor, whatever module it now lives in.
_NEW_ARRAY = cast("Callable[..., Any]", np.empty(0).__reduce__()[0])

ADMITTED: Mapping[tuple[str, str], Callable[..., Any]] = MappingProxyType(
    {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): _NEW_ARRAY,
        ("numpy._core.multiarray", "_reconstruct"): _NEW_ARRAY,
        ("_codecs", "encode"): _encode,
    }
)


class _Restricted(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return ADMITTED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"the global {module_name}.{global_name} is not admitted") from None


def read_pickle(content: bytes, *, subject: str) -> dict[str, Any]:
    """Return the dictionary in a pickle of plain containers and numpy arrays.

    Call it only with bytes whose published checksum has matched. Raises DataError on anything else inside.
    """
    try:
        value = _Restricted(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:
        raise _refusal(subject, str(error)) from error
    if not isinstance(value, dict):
        raise _refusal(subject, type(value).__name__)
    return {str(key): item for key, item in value.items()}


def _refusal(subject: str, got: str) -> DataError:
    return DataError(
        subject,
        expected="a pickled dictionary of plain containers and numpy arrays",
        got=got,
        remedy="use the official files",
    )
