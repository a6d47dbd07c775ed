"""A user's own folders and tensors, and ImageNet-100 from a folder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import gossamer.data.images as module
from gossamer.data import load
from gossamer.data.dataset import checksum_of
from gossamer.data.images import Decoding, list_classes, load_images
from gossamer.data.sources.imagenet100 import CMC_CLASSES
from gossamer.errors import ConfigError, DataError


def write_image(path: Path, *, size: tuple[int, int] = (6, 6), seed: int = 0, mode: str = "RGB") -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size[::-1] if mode == "L" else (*size[::-1], 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def write_parts(root: Path, parts: tuple[str, ...] = ("train", "test"), per_class: int = 3) -> None:
    for p, part in enumerate(parts):
        for c, name in enumerate(("cat", "dog")):
            for i in range(per_class):
                write_image(root / part / name / f"{i}.png", seed=100 * p + 10 * c + i)


def test_folder_with_parts(tmp_path):
    write_parts(tmp_path)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "train" / ".hidden").mkdir()
    pixels = write_image(tmp_path / "test" / "dog" / "0.png", seed=7)
    train, test = (load("folder", part, data_dir=tmp_path) for part in ("train", "test"))
    assert train.classes == test.classes == ("cat", "dog")
    assert train.labels.tolist() == test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert train.image_shape == (3, 6, 6)
    assert np.array_equal(test.images[3].permute(1, 2, 0).numpy(), pixels)


def test_folder_takes_val_for_test(tmp_path):
    write_parts(tmp_path, ("train", "val"))
    assert len(load("folder", "test", data_dir=tmp_path)) == 6


def test_folder_without_parts_is_split_by_its_checksum(tmp_path):
    for name in ("cat", "dog"):
        for i in range(10):
            write_image(tmp_path / name / f"{i}.png", seed=i if name == "cat" else 50 + i)
    train, test = (load("folder", part, data_dir=tmp_path) for part in ("train", "test"))
    assert train.labels.bincount().tolist() == [8, 8]
    assert test.labels.bincount().tolist() == [2, 2]
    seen = {image.numpy().tobytes() for image in torch.cat([train.images, test.images])}
    assert len(seen) == 20
    assert load("folder", "test", data_dir=tmp_path).checksum == test.checksum


def test_folder_in_gray(tmp_path):
    write_parts(tmp_path)
    assert load("folder", "train", data_dir=tmp_path, mode="gray").image_shape == (1, 6, 6)


def test_folder_resizes_the_short_side_and_crops_the_centre(tmp_path):
    write_parts(tmp_path)
    wide = np.zeros((4, 12, 3), dtype=np.uint8)
    wide[:, 4:8] = 200
    Image.fromarray(wide).save(tmp_path / "train" / "cat" / "0.png")
    dataset = load("folder", "train", data_dir=tmp_path, image_size=4)
    assert dataset.image_shape == (3, 4, 4)
    assert dataset.images[0].unique().tolist() == [200]
    with pytest.raises(DataError, match="give image_size"):
        load("folder", "train", data_dir=tmp_path)


def test_margin_crops_the_border():
    image = Image.new("RGB", (64, 128), (9, 9, 9))
    fitted = module._fit(image, Decoding(image_size=28, margin=256 / 224))
    assert fitted.size == (28, 28)
    gradient = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8), (64, 1)))
    cropped = np.asarray(module._fit(gradient, Decoding(image_size=56, margin=64 / 56)))
    assert cropped[0].tolist() == list(range(4, 60))


def break_folder(root: Path, how: str) -> None:
    target = root / "train" / "dog"
    if how == "empty class":
        for path in target.iterdir():
            path.unlink()
    if how == "missing class":
        write_image(root / "train" / "emu" / "0.png")
    if how == "unknown class":
        write_image(root / "test" / "emu" / "0.png")
    if how == "torn image":
        (target / "1.png").write_bytes((target / "1.png").read_bytes()[:60])
    if how == "no image":
        (target / "1.png").write_bytes(b"text")
    if how == "deep image":
        Image.fromarray(np.full((6, 6), 40_000, dtype=np.uint16)).save(target / "1.png")


@pytest.mark.parametrize(
    ("how", "part", "message"),
    [
        ("empty class", "train", "an empty class"),
        ("missing class", "test", "emu: expected a folder of images"),
        ("unknown class", "test", "also emu"),
        ("torn image", "train", r"1\.png: expected a readable image"),
        ("no image", "train", r"1\.png: expected a readable image"),
        ("deep image", "train", "mode I;16"),
    ],
)
def test_folder_refuses(tmp_path, how, part, message):
    write_parts(tmp_path)
    break_folder(tmp_path, how)
    with pytest.raises(DataError, match=message):
        load("folder", part, data_dir=tmp_path)


def test_folder_refuses_what_has_no_classes(tmp_path):
    for data_dir in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError, match=r"DIR/train/CLASS"):
            load("folder", "train", data_dir=data_dir)


@pytest.mark.parametrize(("options", "message"), [({"mode": "cmyk"}, "rgb or gray"), ({"image_size": 0}, "1")])
def test_folder_refuses_options(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        load("folder", "train", data_dir=tmp_path, **options)


def test_large_sets_are_decoded_once_and_mapped(tmp_path, monkeypatch):
    write_parts(tmp_path / "set")
    listing = list_classes(tmp_path / "set" / "train", ("cat", "dog"))
    small = load_images("own", "train", listing, Decoding())
    cache = tmp_path / "cache"
    large = load_images("own", "train", listing, Decoding(), cache_dir=cache, in_memory_bytes=10)
    assert torch.equal(large.images, small.images)
    assert large.checksum == small.checksum == checksum_of(large.images, large.labels)
    (kept,) = (cache / "decoded").iterdir()
    assert sorted(path.name for path in kept.iterdir()) == ["images.npy", "meta.json"]

    def never(*arguments):
        raise AssertionError

    monkeypatch.setattr(module, "_fill", never)
    again = load_images("own", "train", listing, Decoding(), cache_dir=cache, in_memory_bytes=10)
    assert torch.equal(again.images, small.images)
    monkeypatch.undo()

    write_image(tmp_path / "set" / "train" / "cat" / "0.png", size=(6, 6), seed=99, mode="L")
    changed = load_images("own", "train", listing, Decoding(), cache_dir=cache, in_memory_bytes=10)
    assert changed.checksum != small.checksum


@pytest.mark.parametrize("error", [KeyboardInterrupt, DataError])
def test_a_cache_is_whole_or_absent(tmp_path, monkeypatch, error):
    write_parts(tmp_path / "set")
    listing = list_classes(tmp_path / "set" / "train", ("cat", "dog"))
    if error is DataError:
        listing.files[4].write_bytes(b"torn")
    else:

        def interrupted(*arguments):
            raise KeyboardInterrupt

        monkeypatch.setattr(module, "_fill", interrupted)
    with pytest.raises(error):
        load_images("own", "train", listing, Decoding(), cache_dir=tmp_path / "cache", in_memory_bytes=10)
    assert list((tmp_path / "cache" / "decoded").iterdir()) == []


def write_imagenet(root: Path, ids: tuple[str, ...]) -> None:
    pixel = Image.new("RGB", (9, 11), (1, 2, 3))
    for part in ("train", "val"):
        for name in ids:
            (root / part / name).mkdir(parents=True)
            pixel.save(root / part / name / "0.JPEG")


OTHERS = tuple(f"n9{i:07d}" for i in range(100))


def test_imagenet100_is_the_published_list(tmp_path):
    write_imagenet(tmp_path / "imagenet", (*CMC_CLASSES, *OTHERS[:3]))
    dataset = load("imagenet100", "test", data_dir=tmp_path, image_size=8)
    assert dataset.classes == CMC_CLASSES
    assert len(set(CMC_CLASSES)) == 100
    assert dataset.image_shape == (3, 8, 8)
    assert dataset.labels.tolist() == list(range(100))


def test_imagenet100_follows_a_list_or_takes_the_hundred_there_are(tmp_path):
    write_imagenet(tmp_path, (*OTHERS, CMC_CLASSES[0]))
    with pytest.raises(DataError, match=r"got 101 classes without .* and 96 more"):
        load("imagenet100", "train", data_dir=tmp_path, image_size=8)
    (tmp_path / "imagenet100.txt").write_text("\n".join((CMC_CLASSES[0], *OTHERS[1:])))
    assert load("imagenet100", "train", data_dir=tmp_path, image_size=8).classes[1:] == OTHERS[1:]
    (tmp_path / "imagenet100.txt").write_text("\n".join(OTHERS[:99]))
    with pytest.raises(DataError, match="a hundred distinct ids"):
        load("imagenet100", "train", data_dir=tmp_path, image_size=8)
    (tmp_path / "imagenet100.txt").unlink()
    (tmp_path / "train" / CMC_CLASSES[0] / "0.JPEG").unlink()
    (tmp_path / "train" / CMC_CLASSES[0]).rmdir()
    assert load("imagenet100", "train", data_dir=tmp_path, image_size=8).classes == OTHERS


def test_imagenet100_says_where_images_come_from(tmp_path):
    with pytest.raises(DataError, match=r"account at image-net\.org"):
        load("imagenet100", "train", data_dir=tmp_path)


IMAGES = torch.arange(20 * 3 * 2 * 2).remainder(256).to(torch.uint8).view(20, 3, 2, 2)
LABELS = torch.arange(20) % 2


@pytest.mark.parametrize(("x", "y"), [("x", "y"), ("images", "labels"), ("x", "labels")])
def test_tensors_with_a_test_part(tmp_path, x, y):
    save_file(
        {x: IMAGES, y: LABELS, f"{x}_test": IMAGES[:5] / 255, f"{y}_test": LABELS[:5].int()},
        tmp_path / "own.safetensors",
    )
    for data_dir in (tmp_path, tmp_path / "own.safetensors"):
        train, test = (load("tensors", part, data_dir=data_dir) for part in ("train", "test"))
        assert torch.equal(train.images, IMAGES)
        assert torch.equal(test.images, IMAGES[:5] / 255)
        assert torch.equal(test.labels, LABELS[:5])


def test_tensors_without_a_test_part_are_split(tmp_path):
    save_file({"x": IMAGES, "y": LABELS}, tmp_path / "own.safetensors")
    train, test = (load("tensors", part, data_dir=tmp_path) for part in ("train", "test"))
    assert train.labels.bincount().tolist() == [8, 8]
    assert test.labels.bincount().tolist() == [2, 2]


@pytest.mark.parametrize(
    ("tensors", "part", "message"),
    [
        ({"x": IMAGES}, "train", "one tensor named y or labels"),
        ({"x": IMAGES, "images": IMAGES.clone(), "y": LABELS}, "train", "one tensor named x or images"),
        ({"x": IMAGES, "y": LABELS, "x_test": IMAGES.clone()}, "test", "y_test or labels_test"),
        ({"x": IMAGES, "y": LABELS, "x_test": IMAGES.clone(), "y_test": LABELS + 1}, "test", r"\[0, 2\)"),
        ({"x": IMAGES.float(), "y": LABELS}, "train", "divide by 255"),
    ],
)
def test_tensors_refuses(tmp_path, tensors, part, message):
    save_file(tensors, tmp_path / "own.safetensors")
    with pytest.raises(DataError, match=message):
        load("tensors", part, data_dir=tmp_path)


def test_tensors_refuses_other_files(tmp_path):
    with pytest.raises(DataError, match=r"one \.safetensors file, got 0"):
        load("tensors", "train", data_dir=tmp_path)
    torch.save({"x": IMAGES}, tmp_path / "own.safetensors")
    with pytest.raises(DataError, match="a safetensors file"):
        load("tensors", "train", data_dir=tmp_path)
