"""Image files to one uint8 tensor: decoded once, kept in memory if small, else in a mapped cache file."""

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from gossamer.data.dataset import DataSet, checksum_of, make_dataset
from gossamer.data.files import user_cache
from gossamer.errors import ConfigError, DataError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
IN_MEMORY_BYTES = 256 * 2**20
"""Decoded images of more bytes than this are kept in a cache file and mapped."""

_PILLOW_MODES = {"rgb": "RGB", "gray": "L"}
# Pillow clips these to 8 bits without scaling, which would silently spoil the image.
_DEEP_MODES = ("I", "F")


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Image files with their labels: (N,) int64, and the names of the classes."""

    files: tuple[Path, ...]
    labels: Tensor
    classes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How a file becomes pixels.

    image_size: the short side is resized (bilinear) to `margin * image_size` and the centre cropped to a square;
    None keeps the size, which all files must then share. mode: "rgb" or "gray". Raises ConfigError.
    """

    image_size: int | None = None
    mode: str = "rgb"
    margin: float = 1.0

    def __post_init__(self) -> None:
        if self.mode not in _PILLOW_MODES:
            raise ConfigError("mode", expected="rgb or gray", got=repr(self.mode), remedy="write one of the two")
        if self.image_size is not None and self.image_size < 1:
            raise ConfigError("image_size", expected="at least 1", got=self.image_size, remedy="write 64, say")


def list_classes(folder: Path, classes: Sequence[str], *, inner: str = ".") -> Listing:
    """Return the image files of FOLDER/class/inner for each class, by name; raises DataError where there are none."""
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = _image_files(folder / name / inner)
        files += found
        labels += [label] * len(found)
    return Listing(files=tuple(files), labels=torch.tensor(labels, dtype=torch.int64), classes=tuple(classes))


def sub_folders(folder: Path) -> tuple[str, ...]:
    """Return the names of the visible sub-folders, in order; none where there is no such folder."""
    if not folder.is_dir():
        return ()
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))


def load_images(
    name: str,
    part: str,
    listing: Listing,
    decoding: Decoding,
    *,
    cache_dir: Path | None = None,
    in_memory_bytes: int = IN_MEMORY_BYTES,
) -> DataSet:
    """Return the DataSet of the listed files.

    Above `in_memory_bytes` the pixels are written to `cache_dir` (by default the user's cache) under a key of the
    files' names, sizes, times and the decoding, and mapped from there. Raises DataError on an unreadable file.
    """
    shape = (len(listing.files), *_decode(listing.files[0], decoding).shape)
    if int(np.prod(shape)) <= in_memory_bytes:
        pixels = np.empty(shape, dtype=np.uint8)
        _fill(pixels, listing.files, decoding, name)
        return make_dataset(name, part, torch.from_numpy(pixels), listing.labels, listing.classes)
    folder = (cache_dir or user_cache()) / "decoded" / _key(listing, decoding)
    if not folder.is_dir():
        _write_cache(folder, shape, listing, decoding, name)
    # Copy on write: torch wants writable memory, and nothing here ever writes.
    pixels = np.load(folder / "images.npy", mmap_mode="c", allow_pickle=False)
    checksum = json.loads((folder / "meta.json").read_text())["checksum"]
    images = torch.from_numpy(pixels)
    return make_dataset(name, part, images, listing.labels, listing.classes, checksum=checksum)


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(str(folder), expected="a folder of images of this class", got="no such folder", remedy="add it")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise DataError(
            str(folder),
            expected=f"at least one image ({', '.join(sorted(SUFFIXES))})",
            got="an empty class",
            remedy="add images or delete the folder",
        )
    return found


def _decode(path: Path, decoding: Decoding) -> NDArray[np.uint8]:
    """Return the pixels of one file: (C, H, W)."""
    try:
        with Image.open(path) as opened:
            if opened.mode.startswith(_DEEP_MODES):
                raise _unreadable(path, f"mode {opened.mode}")
            image = _fit(opened.convert(_PILLOW_MODES[decoding.mode]), decoding)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, DataError):
            raise
        raise _unreadable(path, str(error)) from error
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _fit(image: Image.Image, decoding: Decoding) -> Image.Image:
    if decoding.image_size is None:
        return image
    size, width, height = decoding.image_size, image.width, image.height
    scale = round(size * decoding.margin) / min(width, height)
    wide, high = max(size, round(width * scale)), max(size, round(height * scale))
    left, top = (wide - size) // 2, (high - size) // 2
    resized = image.resize((wide, high), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + size, top + size))


def _fill(pixels: NDArray[np.uint8], files: Sequence[Path], decoding: Decoding, name: str) -> None:
    """Decode files into pixels: (N, C, H, W), on all cores; Pillow lets go of the interpreter while it decodes."""
    shape = pixels.shape[1:]

    def decode_into(position: int) -> None:
        decoded = _decode(files[position], decoding)
        if decoded.shape != shape:
            raise DataError(
                str(files[position]),
                expected=f"the shape {shape} of {files[0].name}",
                got=decoded.shape,
                remedy="give image_size to resize and crop all images",
            )
        pixels[position] = decoded

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(decode_into, range(len(files)))
        try:
            for _ in tqdm(done, total=len(files), desc=f"decoding {name}", unit="image", disable=None):
                pass
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _key(listing: Listing, decoding: Decoding) -> str:
    digest = hashlib.sha256(repr(decoding).encode())
    for path, label in zip(listing.files, listing.labels.tolist(), strict=True):
        status = path.stat()
        digest.update(f"{path.absolute()}\0{status.st_size}\0{status.st_mtime_ns}\0{label}\n".encode())
    return digest.hexdigest()[:32]


def _write_cache(folder: Path, shape: tuple[int, ...], listing: Listing, decoding: Decoding, name: str) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        filled = Path(scratch) / "whole"
        filled.mkdir()
        pixels = np.lib.format.open_memmap(filled / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
        _fill(pixels, listing.files, decoding, name)
        pixels.flush()
        checksum = checksum_of(torch.from_numpy(pixels), listing.labels)
        (filled / "meta.json").write_text(json.dumps({"checksum": checksum, "shape": shape}))
        if not folder.is_dir():
            filled.rename(folder)


def _unreadable(path: Path, got: str) -> DataError:
    return DataError(
        str(path), expected="a readable image of 8 bits a channel", got=got, remedy="repair or remove the file"
    )
