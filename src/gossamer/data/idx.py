"""The idx.gz files in which MNIST and its successors are published: big-endian sizes, then bytes."""

import gzip
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gossamer.data.dataset import DataSet, make_dataset
from gossamer.data.files import RemoteFile, checksum_like, find_or_fetch, read_checked
from gossamer.errors import DataError

_BYTES_TYPE = 0x08


@dataclass(frozen=True, kw_only=True)
class IdxFormat:
    """A set of images and labels as idx files: (images, labels) of each part, and sub-folders to look in."""

    name: str
    parts: Mapping[str, tuple[RemoteFile, RemoteFile]]
    folders: tuple[str, ...]
    classes: tuple[str, ...]


def mnist_files(bases: Sequence[str], checksums: Mapping[str, str]) -> dict[str, tuple[RemoteFile, RemoteFile]]:
    """Return the parts of a set laid out as MNIST is; checksums: MD5 by file name without its extension."""

    def file(stem: str) -> RemoteFile:
        name = f"{stem}.gz"
        return RemoteFile(name=name, urls=tuple(f"{base}/{name}" for base in bases), checksum=f"md5:{checksums[stem]}")

    return {
        "train": (file("train-images-idx3-ubyte"), file("train-labels-idx1-ubyte")),
        "test": (file("t10k-images-idx3-ubyte"), file("t10k-labels-idx1-ubyte")),
    }


def load_idx(
    form: IdxFormat, part: str, data_dir: Path, *, download: bool = True, base_url: str | None = None
) -> DataSet:
    """Return one part; files are looked for in DIR and in its sub-folders, to the first of which downloads go.

    Each is compared with its published MD5 before it is opened. Raises DataError.
    """
    image_file, label_file = form.parts[part]
    paths = [
        (_locate(form, file, data_dir, download=download, base_url=base_url), file.checksum)
        for file in (image_file, label_file)
    ]
    images, labels = (
        parse_idx(read_checked(path, checksum), ndim, subject=str(path))
        for (path, checksum), ndim in zip(paths, (3, 1), strict=True)
    )
    return make_dataset(form.name, part, images.unsqueeze(1), labels.long(), form.classes)


def parse_idx(content: bytes, ndim: int, *, subject: str) -> Tensor:
    """Return the uint8 tensor of `ndim` axes in a gzipped idx file; raises DataError."""
    try:
        raw = gzip.decompress(content)
        zero, kind, axes = struct.unpack_from(">HBB", raw)
        shape = struct.unpack_from(f">{axes}I", raw, 4)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise _refusal(subject, ndim, str(error)) from error
    body = np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * axes)
    if (zero, kind, axes) != (0, _BYTES_TYPE, ndim) or body.size != np.prod(shape, dtype=np.int64):
        raise _refusal(subject, ndim, f"type {kind:#x}, shape {shape}, {body.size} bytes")
    return torch.from_numpy(body.reshape(shape).copy())


def _locate(form: IdxFormat, file: RemoteFile, data_dir: Path, *, download: bool, base_url: str | None) -> Path:
    # All successors of MNIST use its file names: a file in DIR itself may belong to another of them.
    direct = data_dir / file.name
    if direct.is_file() and checksum_like(direct, file.checksum) == file.checksum:
        return direct
    folders = [data_dir / folder for folder in form.folders]
    return find_or_fetch(file, folders, download=download, base_url=base_url)


def _refusal(subject: str, ndim: int, got: str) -> DataError:
    return DataError(
        subject,
        expected=f"a whole gzipped idx file of bytes with {ndim} axes",
        got=got,
        remedy="delete the file and download it again",
    )
