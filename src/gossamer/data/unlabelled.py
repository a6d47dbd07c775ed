"""Images without labels: read from a file or a folder, given pseudo-labels, and mixed into batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gossamer.data.augment import Augmentation
from gossamer.data.batches import make_batch
from gossamer.data.dataset import DataSet, from_tensors
from gossamer.data.images import SUFFIXES, Decoding, Listing, load_images
from gossamer.errors import DataError
from gossamer.seeding import Draws, Part
from gossamer.types import Batch

_IMAGE_KEYS, _LABEL_KEYS = ("x", "images"), ("y", "labels")
_NAMED = 10


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Images that fit a training set, and their pseudo-labels (N,) int64 where they came with any."""

    images: DataSet
    labels: Tensor | None

    def labelled(self, labels: Tensor, classes: Sequence[str]) -> DataSet:
        """Return the images with these pseudo-labels: (N,); raises DataError where they do not fit."""
        images = self.images
        values = images.images if images.rows is None else images.images[images.rows]
        return from_tensors(values, labels, name="pseudo-labelled images", part="train", classes=classes)


def read_pool(path: Path, labels: str | None, like: DataSet) -> Pool:
    """Return the images of a .safetensors file (key x or images) or of a folder, all of the shape of `like`.

    A folder's images are taken in the order of their paths, sub-folders included. labels: a key of the file, or a
    .safetensors file with one pseudo-label an image (key y or labels); None where a teacher gives them. Raises
    DataError on what cannot be read, another shape, and labels of other number or range.
    """
    tensors = {} if path.is_dir() else _read(path)
    images = _read_folder(path, like) if path.is_dir() else _from_file(tensors, path)
    if images.image_shape != like.image_shape:
        raise DataError(
            f"unlabelled images {path}",
            expected=f"the shape {like.image_shape} of {like.name}",
            got=images.image_shape,
            remedy="bring them to the shape of the labelled images",
        )
    return Pool(images=images, labels=None if labels is None else _labels(labels, tensors, path, len(images), like))


def mixed_batch(
    labelled: DataSet,
    positions: Tensor,
    pool: DataSet,
    count: int,
    augmentation: Augmentation,
    draws: Draws,
    device: torch.device | str,
    *,
    part: Part | None = None,
) -> Batch:
    """Return the batch of labelled positions: (B,) and `count` pseudo-labelled images, shuffled together.

    The latter are drawn with replacement (Carmon et al., NeurIPS 2019); their index counts on from the labelled set's.
    part: which of the batch is wanted; everything is still drawn for the whole.
    """
    generator = draws.at("unlabelled").generator()
    drawn = torch.randint(len(pool), (count,), generator=generator)
    parts = [(labelled, positions.cpu(), 0), (pool, drawn, len(labelled))]
    made = [make_batch(data, chosen, Augmentation(), draws, device) for data, chosen, _ in parts]
    view = augmentation.draw(len(positions) + count, labelled.image_shape, draws.at("augmentation"), device)
    order = torch.randperm(len(positions) + count, generator=draws.at("mixture").generator()).to(device)
    if part is not None:
        rows = torch.tensor(part.rows, device=device)
        order, view = order[rows], view.select(rows)
    index = torch.cat([batch.index + offset for batch, (_, _, offset) in zip(made, parts, strict=True)])
    return Batch(
        x=view.apply(torch.cat([batch.x for batch in made])[order]),
        y=torch.cat([batch.y for batch in made])[order],
        index=index[order],
        labelled=order < len(positions),
        view=view,
        part=part,
    )


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"unlabelled data {path}",
            expected="a .safetensors file, or a folder of images",
            got=error,
            remedy="write it with safetensors.torch.save_file, or by gossamer.data.convert_pseudo_labels",
        ) from error


def _from_file(tensors: dict[str, Tensor], path: Path) -> DataSet:
    images = _one(tensors, _IMAGE_KEYS, path)
    nothing = torch.zeros(len(images) if images.ndim else 0, dtype=torch.int64)
    return from_tensors(images, nothing, name=str(path), classes=("?",))


def _read_folder(path: Path, like: DataSet) -> DataSet:
    files = tuple(sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES))
    if not files:
        raise DataError(
            f"unlabelled images {path}", expected="a folder with images", got="none", remedy="check the path"
        )
    nothing = torch.zeros(len(files), dtype=torch.int64)
    mode = "gray" if like.image_shape[0] == 1 else "rgb"
    listing = Listing(files=files, labels=nothing, classes=("?",))
    return load_images(str(path), "train", listing, Decoding(mode=mode))


def _labels(said: str, tensors: dict[str, Tensor], path: Path, n: int, like: DataSet) -> Tensor:
    subject = f"data.unlabelled.labels, {said}"
    found = tensors[said] if said in tensors else _one(_labels_file(said, tensors, path), _LABEL_KEYS, Path(said))
    if found.shape != (n,) or found.is_floating_point() or found.dtype == torch.bool:
        raise DataError(
            subject,
            expected=f"{n} classes of an integer type, one an image",
            got=f"shape {tuple(found.shape)} of {found.dtype}",
            remedy="write y.argmax(1) for probabilities",
        )
    check_classes(subject, found, like)
    return found.long()


def _labels_file(said: str, tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    if Path(said).suffix == ".safetensors":
        return _read(Path(said))
    raise DataError(
        f"pseudo-labels {said}",
        expected="a key of the file, or a .safetensors file",
        got=f"the keys {sorted(tensors)} in {path}",
        remedy="name the tensor that holds them",
    )


def check_classes(subject: str, labels: Tensor, like: DataSet) -> None:
    """Raise DataError for pseudo-labels: (N,) outside of the classes of a labelled set."""
    low, high = (int(labels.min()), int(labels.max())) if labels.numel() else (0, 0)
    if low >= 0 and high < like.num_classes:
        return
    raise DataError(
        subject,
        expected=f"classes in [0, {like.num_classes}), those of {like.name}",
        got=f"[{low}, {high}]",
        remedy="give pseudo-labels of the same classes",
    )


def missing_classes(data: DataSet) -> str | None:
    """Return a sentence that names the classes which no image of `data` has, or None where each has one."""
    counts = torch.bincount(data.labels, minlength=data.num_classes)
    absent = [data.classes[each] for each in (counts == 0).nonzero().flatten().tolist()]
    if not absent:
        return None
    named = ", ".join(absent[:_NAMED]) + (f" and {len(absent) - _NAMED} more" if len(absent) > _NAMED else "")
    return f"pseudo-labels: {len(absent)} of {data.num_classes} classes have no image: {named}"


def _one(tensors: dict[str, Tensor], names: tuple[str, ...], path: Path) -> Tensor:
    given = [name for name in names if name in tensors]
    if len(given) == 1:
        return tensors[given[0]]
    raise DataError(
        str(path),
        expected=f"one tensor named {' or '.join(names)}",
        got=f"the keys {sorted(tensors)}",
        remedy="rename the tensors",
    )
