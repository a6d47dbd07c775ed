"""Images without labels: where they come from, and how they mix into batches."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from gossamer.data import Augmentation, from_tensors
from gossamer.data.unlabelled import missing_classes, mixed_batch, read_pool
from gossamer.errors import DataError
from gossamer.seeding import Draws

# Labelled images are 0 to 9 everywhere, pseudo-labelled ones 100 to 102.
LABELLED = from_tensors(torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).repeat(1, 1, 2, 2), torch.arange(10) % 4)
POOL = torch.arange(100, 103, dtype=torch.uint8).view(3, 1, 1, 1).repeat(1, 1, 2, 2)


def pool_file(folder: Path, **tensors: Tensor) -> Path:
    path = folder / "pool.safetensors"
    save_file({"x": POOL, **tensors}, path)
    return path


def test_a_batch_holds_labelled_and_pseudo_labelled_images_shuffled_together(tmp_path: Path) -> None:
    pool = read_pool(pool_file(tmp_path, guess=torch.tensor([3, 1, 2])), "guess", LABELLED)
    assert pool.labels is not None
    labelled = pool.labelled(pool.labels, LABELLED.classes)
    positions = torch.tensor([7, 2, 5])
    batch = mixed_batch(LABELLED, positions, labelled, 5, Augmentation(flip=0.5), Draws(3), "cpu")
    values = (batch.x[:, 0, 0, 0] * 255).round().long()
    assert sorted(batch.index[batch.labelled].tolist()) == [2, 5, 7]
    assert torch.equal(values[batch.labelled], batch.index[batch.labelled])
    assert torch.equal(batch.y[batch.labelled], batch.index[batch.labelled] % 4)
    drawn = batch.index[~batch.labelled]
    # Five draws of three images: with replacement; their index counts on from the labelled set's ten.
    assert len(drawn) == 5
    assert torch.equal(values[~batch.labelled], drawn - 10 + 100)
    assert torch.equal(batch.y[~batch.labelled], torch.tensor([3, 1, 2])[drawn - 10])
    assert batch.labelled.tolist() != sorted(batch.labelled.tolist(), reverse=True)
    again = mixed_batch(LABELLED, positions, labelled, 5, Augmentation(flip=0.5), Draws(3), "cpu")
    assert torch.equal(again.index, batch.index)
    other = mixed_batch(LABELLED, positions, labelled, 5, Augmentation(flip=0.5), Draws(4), "cpu")
    assert not torch.equal(other.index, batch.index)


def test_labels_may_lie_in_a_file_of_their_own_and_images_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for name, value in (("b/2.png", 30), ("a.png", 10), ("b/1.png", 20)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((2, 2), value, dtype=np.uint8)).save(folder / name)
    save_file({"y": torch.tensor([0, 1, 3])}, tmp_path / "labels.safetensors")
    pool = read_pool(folder, str(tmp_path / "labels.safetensors"), LABELLED)
    assert pool.images.images[:, 0, 0, 0].tolist() == [10, 20, 30]
    assert pool.labels is not None
    assert pool.labels.tolist() == [0, 1, 3]
    assert read_pool(folder, None, LABELLED).labels is None


def test_the_checksum_tells_images_and_labels_apart(tmp_path: Path) -> None:
    pool = read_pool(pool_file(tmp_path), None, LABELLED)
    first = pool.labelled(torch.tensor([0, 1, 2]), LABELLED.classes).checksum
    assert first == pool.labelled(torch.tensor([0, 1, 2]), LABELLED.classes).checksum
    assert first != pool.labelled(torch.tensor([0, 1, 1]), LABELLED.classes).checksum


@pytest.mark.parametrize(
    ("tensors", "labels", "told"),
    [
        ({"x": torch.zeros(3, 3, 2, 2)}, None, r"the shape \(1, 2, 2\)"),
        ({"x": torch.full((3, 1, 2, 2), 2.0)}, None, r"finite values in \[0, 1\]"),
        ({"y": torch.tensor([0, 1, 4])}, "y", r"classes in \[0, 4\).* got \[0, 4\]"),
        ({"y": torch.tensor([0, 1])}, "y", "3 classes of an integer type"),
        ({"y": torch.rand(3, 4)}, "y", "3 classes of an integer type"),
        ({}, "z", "a key of the file"),
        ({}, "nowhere.safetensors", "a .safetensors file"),
    ],
)
def test_what_does_not_fit_is_refused(
    tensors: dict[str, Tensor], labels: str | None, told: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=told):
        read_pool(pool_file(tmp_path, **tensors), labels, LABELLED)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="a folder with images"):
        read_pool(tmp_path / "empty", None, LABELLED)
    with pytest.raises(DataError, match=r"a \.safetensors file, or a folder"):
        read_pool(tmp_path / "nothing", None, LABELLED)
    save_file({"z": POOL}, tmp_path / "z.safetensors")
    with pytest.raises(DataError, match="one tensor named x or images"):
        read_pool(tmp_path / "z.safetensors", None, LABELLED)


def test_classes_without_a_pseudo_label_are_named() -> None:
    labelled = from_tensors(POOL, torch.tensor([3, 1, 3]), classes=("ant", "bee", "cat", "dog"))
    assert missing_classes(labelled) == "pseudo-labels: 2 of 4 classes have no image: ant, cat"
    whole = from_tensors(POOL, torch.tensor([0, 1, 2]), classes=("ant", "bee", "cat"))
    assert missing_classes(whole) is None
    many = from_tensors(POOL, torch.tensor([0, 0, 0]), classes=tuple(f"c{each}" for each in range(30)))
    assert missing_classes(many) == (
        "pseudo-labels: 29 of 30 classes have no image: c1, c2, c3, c4, c5, c6, c7, c8, c9, c10 and 19 more"
    )
