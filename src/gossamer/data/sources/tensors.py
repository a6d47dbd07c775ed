"""A user's own tensors: a .safetensors file with images and labels."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gossamer.data.dataset import DataSet, from_tensors
from gossamer.data.splits import train_test
from gossamer.errors import DataError

TEST_SHARE = 0.2


def load(part: str, data_dir: Path, *, download: bool = True) -> DataSet:
    """Return the tensors of a .safetensors file: DIR is that file, or a folder with one such file.

    Keys: x or images: (N, C, H, W) uint8 or floating in [0, 1]; y or labels: (N,) of an integer type; optionally
    x_test (or images_test) and y_test (or labels_test), else a class-balanced 80/20 split, keyed by the checksum.
    Raises DataError.
    """
    del download
    path = _path(data_dir)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataError(
            str(path), expected="a safetensors file", got=error, remedy="write it with safetensors.torch.save_file"
        ) from error
    x, y = _pair(tensors, "", path)
    whole = from_tensors(x, y, part=part)
    if not any(key.endswith("_test") for key in tensors):
        return train_test(whole, part, TEST_SHARE)
    if part == "train":
        return whole
    x, y = _pair(tensors, "_test", path)
    return from_tensors(x, y, part=part, classes=whole.classes)


def _path(data_dir: Path) -> Path:
    if data_dir.is_file():
        return data_dir
    found = sorted(data_dir.glob("*.safetensors"))
    if len(found) != 1:
        raise DataError(
            str(data_dir),
            expected="one .safetensors file",
            got=f"{len(found)} of them",
            remedy="name the file itself with --data-dir or GOSSAMER_DATA",
        )
    return found[0]


def _pair(tensors: Mapping[str, Tensor], suffix: str, path: Path) -> tuple[Tensor, Tensor]:
    return _one(tensors, f"x{suffix}", f"images{suffix}", path), _one(tensors, f"y{suffix}", f"labels{suffix}", path)


def _one(tensors: Mapping[str, Tensor], short: str, long: str, path: Path) -> Tensor:
    given = [key for key in (short, long) if key in tensors]
    if len(given) != 1:
        raise DataError(
            str(path),
            expected=f"one tensor named {short} or {long}",
            got=f"the keys {sorted(tensors)}",
            remedy="rename the tensors",
        )
    return tensors[given[0]]
