"""What tensors are in a checkpoint that others saved? Read without running anything that the file says."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from gossamer.errors import DataError
from gossamer.runs import atomic

STATES = ("state_dict", "model_state_dict", "model", "net")
"""Under what a checkpoint keeps its network's tensors, where it holds more than those."""
WRAPPERS = ("module.", "model.")
"""What wrappers put before every name: DataParallel's, and that of a module which normalises first."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """tensors: of the network, by the names they have without wrappers; beside: what else the file holds."""

    tensors: Mapping[str, Tensor]
    beside: tuple[str, ...]


def read_checkpoint(path: Path, *, outside: frozenset[str] = frozenset()) -> Checkpoint:
    """Return the network's tensors in a file that torch.save or safetensors wrote.

    A pickle is read by torch's reader of tensors and plain containers alone, which refuses everything else. outside:
    names of tensors that a wrapper keeps beside the network. Raises DataError for anything but a state dict.
    """
    if not path.is_file():
        raise DataError(str(path), expected="a checkpoint", got="no file", remedy="check the path")
    if path.suffix == ".safetensors":
        return Checkpoint(tensors=_unwrapped(atomic.read_safetensors(path), outside), beside=())
    found = _read(path)
    if not isinstance(found, Mapping):
        raise _no_state(path, type(found).__name__)
    held = cast("Mapping[Any, Any]", found)
    key = next((each for each in STATES if isinstance(held.get(each), Mapping)), None)
    state = held if key is None else cast("Mapping[Any, Any]", held[key])
    beside = () if key is None else tuple(str(each) for each in held if each != key)
    if not state or not all(isinstance(name, str) and isinstance(each, Tensor) for name, each in state.items()):
        raise _no_state(path, ", ".join(str(name) for name in list(state)[:8]) or "an empty one")
    return Checkpoint(tensors=_unwrapped(dict(state), outside), beside=beside)


def _read(path: Path) -> object:
    try:
        return torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
    # Whatever the reader makes of a file that is none, or that asks for more than tensors.
    except Exception as error:
        raise DataError(
            str(path),
            expected="a checkpoint of tensors and plain values, as torch.save writes state dicts",
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            remedy="where you trust the file, save its state dict again by itself, best with safetensors",
        ) from error


def _unwrapped(state: Mapping[str, Tensor], outside: frozenset[str]) -> dict[str, Tensor]:
    """Return the tensors without what a wrapper puts before every name."""
    names = dict.fromkeys(state)
    shown = {name: name for name in names}
    while (found := _common([each for each in shown.values() if each not in outside])) is not None:
        shown = {name: each.removeprefix(found) for name, each in shown.items()}
    return {each: state[name] for name, each in shown.items()}


def _common(names: list[str]) -> str | None:
    return next((each for each in WRAPPERS if names and all(name.startswith(each) for name in names)), None)


def _no_state(path: Path, got: str) -> DataError:
    return DataError(
        str(path),
        expected=f"tensors by name, or those under {', '.join(STATES)}",
        got=got[:200],
        remedy="save the network's state dict by itself",
    )
