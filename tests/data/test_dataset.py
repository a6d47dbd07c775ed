import pytest
import torch

import gossamer.data.dataset as module
from gossamer.data import DataSet, from_tensors
from gossamer.data.dataset import checksum_of
from gossamer.errors import ConfigError, DataError


def make(n: int = 12, classes: int = 3) -> DataSet:
    images = torch.arange(n * 2 * 3 * 4).remainder(256).to(torch.uint8).view(n, 2, 3, 4)
    return from_tensors(images, torch.arange(n) % classes)


def test_says_what_it_holds():
    dataset = make()
    assert len(dataset) == 12
    assert dataset.num_classes == 3
    assert dataset.classes == ("0", "1", "2")
    assert dataset.image_shape == (2, 3, 4)
    assert dataset.index.tolist() == list(range(12))


def test_float_divides_bytes_by_255():
    images = torch.tensor([[[[0, 51]]], [[[102, 255]]]], dtype=torch.uint8)
    dataset = from_tensors(images, torch.tensor([0, 1]))
    x = dataset.float(torch.tensor([1, 0]), device="cpu")
    assert x.dtype == torch.float32
    assert torch.equal(x, torch.tensor([[[[0.4, 1.0]]], [[[0.0, 0.2]]]]))


def test_float_leaves_float_images_as_they_are():
    images = torch.rand(4, 1, 2, 2, dtype=torch.float64)
    dataset = from_tensors(images, torch.zeros(4, dtype=torch.int32))
    assert dataset.labels.dtype == torch.int64
    assert torch.equal(dataset.float(torch.tensor([2])), images[2:3].float())


def test_checksum_is_of_the_bytes():
    dataset = make()
    assert dataset.checksum == checksum_of(dataset.images, dataset.labels) == make().checksum
    other = dataset.images.clone()
    other[-1, -1, -1, -1] += 1
    assert from_tensors(other, dataset.labels).checksum != dataset.checksum
    assert from_tensors(dataset.images, dataset.labels.flip(0)).checksum != dataset.checksum
    assert from_tensors(dataset.images.view(12, 2, 4, 3), dataset.labels).checksum != dataset.checksum
    assert len(dataset.checksum) == 16


def test_subset_keeps_the_positions_in_the_source():
    dataset = make()
    part = dataset.subset(torch.tensor([7, 2, 5])).subset(torch.tensor([2, 0]))
    assert part.index.tolist() == [5, 7]
    assert part.labels.tolist() == [2, 1]
    assert torch.equal(part.images, dataset.images[[5, 7]])
    assert part.checksum == checksum_of(part.images, part.labels)
    assert part.classes == dataset.classes


def test_subset_of_a_large_set_shares_its_images(monkeypatch):
    dataset = make()
    positions = torch.tensor([7, 2, 5])
    copied = dataset.subset(positions)
    monkeypatch.setattr(module, "RESIDENT_BYTES", 10)
    shared = dataset.subset(positions)
    assert shared.images is dataset.images
    assert len(shared) == 3
    everything = torch.arange(3)
    assert torch.equal(shared.float(everything), copied.float(everything))
    again = shared.subset(torch.tensor([2, 0]))
    assert again.images is dataset.images
    assert again.index.tolist() == [5, 7]
    assert torch.equal(again.float(torch.tensor([0])), dataset.float(torch.tensor([5])))
    assert len({dataset.checksum, shared.checksum, again.checksum}) == 3


def test_to_leaves_a_large_set_where_it_is():
    dataset = make()
    assert dataset.to("cpu", limit=10) is dataset
    assert dataset.to("meta").images.device.type == "meta"
    assert dataset.to("meta").index.device.type == "meta"


@pytest.mark.parametrize("positions", [[12], [-1], [0, 99]])
def test_subset_refuses_positions_outside(positions):
    with pytest.raises(ConfigError, match=r"positions in \[0, 12\)"):
        make().subset(torch.tensor(positions))


BYTES = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
LABELS = torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (BYTES[:, 0], LABELS, "unsqueeze"),
        (torch.zeros(4, 0, 2, 2), LABELS, r"\(N, C, H, W\)"),
        (BYTES.int(), LABELS, "uint8 or a floating type"),
        (torch.full((4, 1, 2, 2), 255.0), LABELS, "divide by 255"),
        (torch.full((4, 1, 2, 2), -0.1), LABELS, r"in \[0, 1\]"),
        (torch.full((4, 1, 2, 2), torch.nan), LABELS, "finite"),
        (torch.full((4, 1, 2, 2), torch.inf), LABELS, "finite"),
        (BYTES, LABELS[:3], "4 images and 3 labels"),
        (BYTES, LABELS.float(), "an integer type"),
        (BYTES, LABELS.bool(), "an integer type"),
        (BYTES, torch.zeros(4, 2, dtype=torch.int64), "argmax"),
        (BYTES, LABELS - 1, r"\[-1, 0\]"),
        (BYTES[:0], LABELS[:0], "at least one image"),
    ],
)
def test_from_tensors_refuses(x, y, message):
    with pytest.raises(DataError, match=message):
        from_tensors(x, y)


def test_from_tensors_refuses_a_label_without_a_class():
    with pytest.raises(DataError, match=r"labels in \[0, 1\)"):
        from_tensors(BYTES, LABELS, classes=("only",))
