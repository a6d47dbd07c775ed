"""Tiny ImageNet: 200 classes of 64x64 pixels; its test labels are secret, so val is the test part (Le & Yang, 2015)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from gossamer.data.archives import extract
from gossamer.data.dataset import DataSet
from gossamer.data.files import RemoteFile, check_file, find_or_fetch
from gossamer.data.images import Decoding, Listing, list_classes, load_images
from gossamer.errors import DataError

FOLDER = "tiny-imagenet-200"
_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class TinyFormat:
    """The published archive and how many images each part has."""

    archive: RemoteFile
    counts: Mapping[str, int] = field(default_factory=lambda: {"train": 100_000, "test": 10_000})


FORMAT = TinyFormat(
    archive=RemoteFile(
        name="tiny-imagenet-200.zip",
        urls=("http://cs231n.stanford.edu/tiny-imagenet-200.zip",),
        checksum="md5:90528d7ca1a48142e341f4ef8d21d0de",
    )
)


def load(
    part: str,
    data_dir: Path,
    *,
    download: bool = True,
    base_url: str | None = None,
    cache_dir: Path | None = None,
    form: TinyFormat = FORMAT,
) -> DataSet:
    """Return the 100,000 training or 10,000 validation images: (3, 64, 64), the grey ones turned to RGB.

    Labels number the WordNet ids in order. The decoded pixels are kept in `cache_dir`. Raises DataError.
    """
    folder = data_dir / FOLDER
    if not folder.is_dir():
        archive = find_or_fetch(form.archive, [data_dir], download=download, base_url=base_url)
        check_file(archive, form.archive.checksum)
        extract(archive, FOLDER, into=data_dir)
    ids = tuple(sorted(_lines(folder / "wnids.txt")))
    listing = list_classes(folder / "train", ids, inner="images") if part == "train" else _list_val(folder, ids)
    if len(listing.files) != form.counts[part]:
        raise DataError(
            f"{folder} ({part})",
            expected=f"{form.counts[part]} images",
            got=len(listing.files),
            remedy="delete the folder and unpack the archive again",
        )
    loaded = load_images("tiny-imagenet", part, listing, Decoding(), cache_dir=cache_dir)
    if loaded.image_shape != (3, _SIZE, _SIZE):
        raise DataError(
            str(folder),
            expected=f"images of shape {(3, _SIZE, _SIZE)}",
            got=loaded.image_shape,
            remedy="use the official archive",
        )
    return replace(loaded, classes=_words(folder, ids))


def _list_val(folder: Path, ids: tuple[str, ...]) -> Listing:
    labels = {wordnet_id: label for label, wordnet_id in enumerate(ids)}
    annotations = folder / "val" / "val_annotations.txt"
    rows = [line.split("\t") for line in _lines(annotations)]
    for row in rows:
        if len(row) < 2 or row[1] not in labels:
            raise DataError(
                str(annotations),
                expected="a file name and a class of wnids.txt in each line",
                got=repr("\t".join(row)),
                remedy="use the official archive",
            )
    files = tuple(folder / "val" / "images" / row[0] for row in rows)
    absent = next((file for file in files if not file.is_file()), None)
    if absent is not None:
        raise _incomplete(absent)
    return Listing(
        files=files,
        labels=torch.tensor([labels[row[1]] for row in rows], dtype=torch.int64),
        classes=ids,
    )


def _words(folder: Path, ids: tuple[str, ...]) -> tuple[str, ...]:
    """Return the first word for each id, as in "goldfish, Carassius auratus"."""
    words = dict(line.split("\t", 1) for line in _lines(folder / "words.txt") if "\t" in line)
    return tuple(words.get(wordnet_id, wordnet_id).split(",")[0] for wordnet_id in ids)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise _incomplete(path)
    return [line for line in path.read_text().splitlines() if line.strip()]


def _incomplete(path: Path) -> DataError:
    return DataError(
        str(path),
        expected="the file of the official archive",
        got="no such file",
        remedy="delete the folder and unpack the archive again",
    )
