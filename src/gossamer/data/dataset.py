"""What a data set is: images, labels and a checksum, in memory or mapped from a file."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gossamer.errors import ConfigError, DataError

RESIDENT_BYTES = 2 * 2**30
"""Images of more bytes than this are neither copied into subsets nor moved to the device as a whole."""

_HASH_ROWS = 4096


@dataclass(frozen=True, kw_only=True, eq=False)
class DataSet:
    """One part of an image classification data set.

    images: (M, C, H, W) uint8, or float32 in [0, 1]; labels: (N,) int64; index: (N,) int64, positions in the
    source part; checksum: hex, of the image and label bytes. M equals N unless `rows` is given: a subset of a
    set above `RESIDENT_BYTES` shares the images of its parent, and rows: (N,) int64 says which are its own.
    """

    name: str
    part: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    checksum: str
    index: Tensor
    rows: Tensor | None = None

    def __len__(self) -> int:
        return self.labels.shape[0]

    @property
    def num_classes(self) -> int:
        """The number of classes K; labels lie in [0, K)."""
        return len(self.classes)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def float(self, positions: Tensor, *, device: torch.device | str | None = None) -> Tensor:
        """Return the images at positions: (B,) int64 as float32 (B, C, H, W) in [0, 1], on `device` if given."""
        rows = positions if self.rows is None else self.rows[positions.to(self.rows.device)]
        chosen = self.images.index_select(0, rows.to(self.images.device))
        if device is not None:
            chosen = chosen.to(device)
        return chosen.float().div_(255) if chosen.dtype == torch.uint8 else chosen

    def subset(self, positions: Tensor) -> "DataSet":
        """Return the samples at positions: (B,) int64, in that order; `index` still counts in the source part.

        The checksum is that of the chosen bytes; where images are shared, of the parent's checksum and positions.
        """
        positions = positions.to(self.labels.device)
        if positions.numel() and not 0 <= int(positions.min()) <= int(positions.max()) < len(self):
            raise ConfigError(
                f"subset of {self.name}",
                expected=f"positions in [0, {len(self)})",
                got=f"[{int(positions.min())}, {int(positions.max())}]",
                remedy="choose among the samples this set has",
            )
        labels, index = self.labels[positions], self.index[positions]
        if self.rows is not None or self.images.nbytes > RESIDENT_BYTES:
            rows = positions if self.rows is None else self.rows[positions]
            text = self.checksum.encode() + positions.cpu().numpy().tobytes()
            checksum = hashlib.sha256(text).hexdigest()[:16]
            return replace(self, labels=labels, index=index, rows=rows, checksum=checksum)
        images = self.images.index_select(0, positions.to(self.images.device))
        return replace(self, images=images, labels=labels, index=index, checksum=checksum_of(images, labels))

    def to(self, device: torch.device | str, *, limit: int = RESIDENT_BYTES) -> "DataSet":
        """Return the set on `device`; images of more than `limit` bytes stay where they are, with the labels."""
        if self.images.nbytes > limit:
            return self
        rows = None if self.rows is None else self.rows.to(device)
        return replace(
            self,
            images=self.images.to(device),
            labels=self.labels.to(device),
            index=self.index.to(device),
            rows=rows,
        )


def checksum_of(images: Tensor, labels: Tensor) -> str:
    """Return 16 hex digits of the SHA-256 over the shape, dtype and bytes of images and labels."""
    digest = hashlib.sha256(f"{tuple(images.shape)} {images.dtype} ".encode())
    for start in range(0, images.shape[0], _HASH_ROWS):
        digest.update(images[start : start + _HASH_ROWS].cpu().contiguous().numpy().data)
    digest.update(labels.to("cpu", torch.int64).contiguous().numpy().data)
    return digest.hexdigest()[:16]


def make_dataset(
    name: str,
    part: str,
    images: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    *,
    checksum: str | None = None,
) -> DataSet:
    """Return a whole part as a DataSet, after the checks that every source shares.

    images: (N, C, H, W) uint8 or float32; labels: (N,) int64. Raises DataError where they do not fit.
    """
    subject = f"{name} ({part})"
    if images.shape[0] != labels.shape[0]:
        raise DataError(
            subject,
            expected="as many labels as images",
            got=f"{images.shape[0]} images and {labels.shape[0]} labels",
            remedy="give each image one label",
        )
    if not labels.numel():
        raise DataError(subject, expected="at least one image", got="none", remedy="check the source")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(classes):
        raise DataError(
            subject,
            expected=f"labels in [0, {len(classes)})",
            got=f"[{low}, {high}]",
            remedy="number the classes from 0 and name every class",
        )
    return DataSet(
        name=name,
        part=part,
        images=images,
        labels=labels,
        classes=tuple(classes),
        checksum=checksum if checksum is not None else checksum_of(images, labels),
        index=torch.arange(labels.shape[0]),
    )


def from_tensors(
    x: Tensor,
    y: Tensor,
    name: str = "tensors",
    *,
    part: str = "train",
    classes: Sequence[str] | None = None,
) -> DataSet:
    """Return a DataSet of a user's tensors.

    x: (N, C, H, W) uint8, or floating in [0, 1] (kept as float32); y: (N,) of any integer type. Without `classes`
    they are named "0" to the highest label. Raises DataError on a wrong shape, type, range or length.
    """
    images, labels = _checked_images(x, name), _checked_labels(y, name)
    if classes is None:
        highest = int(labels.max()) if labels.numel() else 0
        classes = [str(label) for label in range(highest + 1)]
    return make_dataset(name, part, images, labels, classes)


def _checked_images(x: Tensor, name: str) -> Tensor:
    subject = f"images of {name}"
    if x.ndim != 4 or 0 in x.shape[1:]:
        raise DataError(
            subject,
            expected="shape (N, C, H, W)",
            got=tuple(x.shape),
            remedy="add a channel axis with x.unsqueeze(1), or bring channels forward with x.permute(0, 3, 1, 2)",
        )
    if x.dtype == torch.uint8:
        return x.detach()
    if not x.is_floating_point():
        raise DataError(subject, expected="uint8 or a floating type", got=x.dtype, remedy="write x.to(torch.uint8)")
    # A NaN fails both comparisons, so it is refused here too.
    if x.numel() and not (float(x.min()) >= 0 and float(x.max()) <= 1):
        raise DataError(
            subject,
            expected="finite values in [0, 1]",
            got=f"[{float(x.min()):g}, {float(x.max()):g}]",
            remedy="divide by 255 and leave out any normalisation: it belongs inside the model",
        )
    return x.detach().float()


def _checked_labels(y: Tensor, name: str) -> Tensor:
    subject = f"labels of {name}"
    if y.ndim != 1:
        raise DataError(
            subject, expected="shape (N,)", got=tuple(y.shape), remedy="use y.flatten(), or y.argmax(1) if one-hot"
        )
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise DataError(subject, expected="an integer type", got=y.dtype, remedy="write y.long()")
    return y.detach().long()
