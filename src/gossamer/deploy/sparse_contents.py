"""What does a sparse file hold, and is it whole? Header and arrays, checked against each other; then dense tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gossamer.deploy import gaps, scale_shift, sparse_header, values
from gossamer.deploy.gaps import Coded, damaged
from gossamer.deploy.sparse_header import Header, Layer
from gossamer.deploy.values import STORAGE
from gossamer.errors import DataError

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = Mapping[str, Array]

# The container's names of the types that can stand in a file.
TYPES: Mapping[str, torch.dtype] = {
    "F32": torch.float32,
    "F16": torch.float16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Contents:
    """A file that was read: its header, the digest of all of it, and its arrays by their full names."""

    path: Path
    header: Header
    sha256: str
    arrays: Arrays

    def of(self, part: str) -> dict[str, Array]:
        """Return the arrays of one part by the name of what they belong to."""
        return {name.partition("/")[2]: array for name, array in self.arrays.items() if name.startswith(f"{part}/")}


def open_contents(path: Path) -> Contents:
    """Return a file's header and arrays, checked against one another; raises DataError for anything else."""
    if not path.is_file():
        raise DataError(str(path), expected="a sparse file", got="no file", remedy="give the path of one")
    try:
        with safe_open(path, framework="np") as file:
            texts = dict(file.metadata() or {})
            arrays = {name: _array(file, name, path) for name in file.keys()}  # noqa: SIM118
    except DataError:
        raise
    except (OSError, SafetensorError, ValueError, TypeError, ArithmeticError, LookupError) as error:
        raise damaged(str(path), "a whole safetensors file", f"a damaged one ({str(error)[:400]})") from error
    header = sparse_header.from_texts(texts, arrays, subject=str(path))
    contents = Contents(path=path, header=header, sha256=texts["sha256"], arrays=arrays)
    _check_arrays(contents)
    return contents


def _array(file: Any, name: str, path: Path) -> Array:
    kind = file.get_slice(name).get_dtype()
    if kind not in TYPES:
        raise damaged(f"{path}, {name[:80]}", f"numbers of type {', '.join(TYPES)}", str(kind)[:80])
    return file.get_tensor(name)


def _check_arrays(contents: Contents) -> None:
    """Raise DataError unless the arrays are those that the header speaks of, in type and shape."""
    wanted = {
        name: (dtypes, shape)
        for key, layer in contents.header.layers.items()
        for name, dtypes, shape in _layer_arrays(key, layer)
    } | {f"norm/{name}": (("<f4",), (2, norm.features)) for name, norm in contents.header.norms.items()}
    free = {name for name in contents.arrays if name.startswith("dense/")}
    missing, unknown = wanted.keys() - contents.arrays.keys(), contents.arrays.keys() - wanted.keys() - free
    if missing or unknown:
        got = [*(f"no {name}" for name in sorted(missing)), *sorted(unknown)]
        raise damaged(str(contents.path), "the tensors that its header names", ", ".join(got)[:200])
    for name, (dtypes, shape) in wanted.items():
        array = contents.arrays[name]
        fits = array.ndim == 1 if shape is None else array.shape == shape
        if array.dtype.str not in dtypes or not fits:
            told = f"{' or '.join(dtypes)} of shape {shape}"
            raise damaged(f"{contents.path}, {name}", told, f"{array.dtype} {array.shape}")
    for name, array in contents.arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise damaged(f"{contents.path}, {name}", "finite numbers", "infinite ones or NaN")
    _check_names(contents)


def _layer_arrays(key: str, layer: Layer) -> list[tuple[str, tuple[str, ...], tuple[int, ...] | None]]:
    """Return of each array of a layer its name, the types that it may have, and its shape, None for any of a row."""
    storage = STORAGE[layer.values]
    found: list[tuple[str, tuple[str, ...], tuple[int, ...] | None]] = [
        (f"values/{key}", (storage.dtype.str,), values.stored_shape(layer.count, layer.values))
    ]
    if layer.coding != "all":
        found.append((f"positions/{key}", ("|u1",), None))
    if storage.scaled:
        found.append((f"scales/{key}", ("<f2", "<f4"), None))
    return found


def _check_names(contents: Contents) -> None:
    names = [
        *contents.header.layers,
        *contents.of("dense"),
        *(key for name in contents.header.norms for key in norm_keys(name)),
    ]
    if len(set(names)) != len(names):
        raise damaged(str(contents.path), "each tensor of the network once", "one of them twice")


def decode(contents: Contents) -> dict[str, Tensor]:
    """Return the dense state dict; raises DataError where the codes do not fit the header."""
    state: dict[str, Tensor] = {}
    for name, layer in contents.header.layers.items():
        state[name] = torch.from_numpy(_decode_layer(contents, name, layer))
    for name, norm in contents.header.norms.items():
        unfolded = scale_shift.unfold(contents.arrays[f"norm/{name}"], norm.eps)
        state |= {state_key(name, part): tensor for part, tensor in unfolded.items()}
    return state | {name: torch.from_numpy(array) for name, array in contents.of("dense").items()}


def _decode_layer(contents: Contents, name: str, layer: Layer) -> Array:
    subject = f"{contents.path}, {name}"
    none = np.zeros(0, np.uint8)
    coded = Coded(
        coding=layer.coding,
        parameter=layer.parameter,
        data=contents.arrays.get(f"positions/{name}", none),
    )
    mask = gaps.decode(coded, size=layer.size, count=layer.count, subject=subject)
    scales = contents.arrays.get(f"scales/{name}", np.zeros(0, np.float32)).astype(np.float32)
    weight = values.expand(
        contents.arrays[f"values/{name}"],
        scales,
        mask,
        kind=layer.values,
        channels=layer.shape[0],
        subject=subject,
    )
    return weight.reshape(layer.shape)


def shapes_of(contents: Contents) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of the state dict, decoding nothing."""
    layers = {name: layer.shape for name, layer in contents.header.layers.items()}
    dense = {name: array.shape for name, array in contents.of("dense").items()}
    norms = {
        state_key(name, part): (norm.features,)
        for name, norm in contents.header.norms.items()
        for part in scale_shift.PARTS
    }
    counters = {state_key(name, scale_shift.COUNTER): () for name in contents.header.norms}
    return layers | dense | norms | counters


def state_key(module: str, tensor: str) -> str:
    """Return the name of a module's tensor in the state dict."""
    return f"{module}.{tensor}" if module else tensor


def norm_keys(name: str) -> set[str]:
    """Return the names of a batch norm's tensors in the state dict."""
    return {state_key(name, part) for part in (*scale_shift.PARTS, scale_shift.COUNTER)}
