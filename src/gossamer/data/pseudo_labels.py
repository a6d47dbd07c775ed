"""How does the published pickle of pseudo-labelled images become a .safetensors file that recipes read?"""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from gossamer.data.unpickle import read_pickle
from gossamer.errors import DataError

IMAGES, LABELS = "data", "extrapolated_targets"


def convert_pseudo_labels(source: str | Path, target: str | Path) -> Path:
    """Write the images and pseudo-labels of a pickle as x: (N, C, H, W) uint8 and y: (N,) int64; returns the target.

    source: as ti_500K_pseudo_labeled.pickle of Carmon et al. (NeurIPS 2019), a dictionary with `data`, (N, H, W, C)
    uint8, and `extrapolated_targets`, N classes; nothing but containers and arrays of numbers is read from it. Raises
    DataError for anything else inside, and for a target that exists.
    """
    read, written = Path(source), Path(target)
    if written.exists():
        raise DataError(str(written), expected="no such file yet", got="one", remedy="name another, or remove it")
    if not read.is_file():
        raise DataError(
            str(read), expected="a pickle of pseudo-labelled images", got="no file", remedy="check the path"
        )
    with read.open("rb") as stream:
        held = read_pickle(stream, subject=str(read))
    if not {IMAGES, LABELS} <= held.keys():
        raise _refusal(read, f"the keys {sorted(held)}")
    x = _images(held[IMAGES], read)
    _write({"x": x, "y": _labels(held[LABELS], len(x), read)}, written)
    return written


def _images(value: Any, path: Path) -> Tensor:
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.ndim != 4 or value.shape[3] not in (1, 3):
        raise _refusal(path, f"{IMAGES} of {_described(value)}")
    return torch.from_numpy(np.array(value.transpose(0, 3, 1, 2), order="C"))


def _labels(value: Any, n: int, path: Path) -> Tensor:
    labels: NDArray[Any] = np.asarray(value) if isinstance(value, np.ndarray | list) else np.empty(0)
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise _refusal(path, f"{LABELS} of {_described(value)}")
    return torch.from_numpy(labels.astype(np.int64))


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"shape {value.shape} and {value.dtype}"
    return f"{len(value)} {type(value).__name__} items" if isinstance(value, list) else type(value).__name__


def _refusal(path: Path, got: str) -> DataError:
    return DataError(
        str(path),
        expected=f"{IMAGES}: (N, H, W, C) uint8, and {LABELS}: N whole numbers",
        got=got,
        remedy="use the published file, or write x and y with safetensors.torch.save_file",
    )


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a file that appears under its name only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=path.suffix)
    os.close(handle)
    try:
        save_file(tensors, name)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
