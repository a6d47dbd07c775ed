"""How CIFAR-10 and CIFAR-100 are laid out: pickled batches of rows of 3,072 bytes, red, green, blue."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gossamer.data.archives import extract
from gossamer.data.dataset import DataSet, make_dataset
from gossamer.data.files import RemoteFile, check_file, find_or_fetch, missing, read_checked
from gossamer.data.unpickle import read_pickle
from gossamer.errors import DataError

_ROW = 3 * 32 * 32


@dataclass(frozen=True, kw_only=True)
class CifarFormat:
    """One of the two sets: its archive, its folder, the checksum of every file, and the names of the keys inside."""

    name: str
    archive: RemoteFile
    folder: str
    parts: Mapping[str, Mapping[str, str]]
    meta: tuple[str, str]
    label_key: str
    class_key: str


def load_cifar(
    form: CifarFormat, part: str, data_dir: Path, *, download: bool = True, base_url: str | None = None
) -> DataSet:
    """Return one part from DIR/folder, or from the archive in DIR, which is downloaded when absent.

    Each file is compared with its published MD5 before it is opened. Raises DataError.
    """
    folder = _folder(form, data_dir, download=download, base_url=base_url)
    batches = [_read(folder / name, checksum) for name, checksum in form.parts[part].items()]
    meta_name, meta_checksum = form.meta
    classes = [str(name) for name in _read(folder / meta_name, meta_checksum)[form.class_key]]
    images = torch.cat([_images(batch["data"], folder) for batch in batches])
    labels = torch.cat([_labels(batch[form.label_key]) for batch in batches])
    return make_dataset(form.name, part, images, labels, classes)


def _folder(form: CifarFormat, data_dir: Path, *, download: bool, base_url: str | None) -> Path:
    folder = data_dir / form.folder
    if folder.is_dir():
        return folder
    archive = find_or_fetch(form.archive, [data_dir], download=download, base_url=base_url)
    check_file(archive, form.archive.checksum)
    return extract(archive, form.folder, into=data_dir)


def _read(path: Path, checksum: str) -> dict[str, Any]:
    if not path.is_file():
        raise missing(path.name, [path.parent], "no such file")
    return read_pickle(read_checked(path, checksum), subject=str(path))


def _images(rows: Any, folder: Path) -> Tensor:
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.shape[1:] != (_ROW,):
        raise DataError(
            str(folder),
            expected=f"rows of {_ROW} bytes",
            got=getattr(rows, "shape", type(rows).__name__),
            remedy="use the official files",
        )
    return torch.from_numpy(rows.copy()).view(-1, 3, 32, 32)


def _labels(labels: Sequence[int]) -> Tensor:
    return torch.tensor(list(labels), dtype=torch.int64)
