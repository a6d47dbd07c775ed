"""Miniature files in the published formats, and the real ones where they lie."""

import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from gossamer.data import load
from gossamer.data.cifar import CifarFormat
from gossamer.data.files import RemoteFile
from gossamer.data.idx import IdxFormat
from gossamer.data.sources import (
    cifar10,
    cifar100,
    digits,
    fashion_mnist,
    mnist,
    svhn,
    tiny_imagenet,
)
from gossamer.errors import DataError

REAL = os.environ.get("GOSSAMER_DATA")
needs = {
    name: pytest.mark.skipif(REAL is None or not (Path(REAL) / path).is_dir(), reason=f"GOSSAMER_DATA holds no {path}")
    for name, path in {"cifar10": "cifar-10-batches-py", "mnist": "MNIST/raw"}.items()
}


def md5(content: bytes) -> str:
    return f"md5:{hashlib.md5(content).hexdigest()}"


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def tar_of(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def test_digits():
    train, test = digits.load("train", Path()), digits.load("test", Path())
    assert (len(train), len(test)) == (1437, 360)
    assert train.image_shape == (1, 8, 8)
    assert train.images.unique().tolist() == [round(255 * v / 16) for v in range(17)]
    assert set(test.labels.bincount().tolist()) == {35, 36, 37}
    assert test.index.tolist() == list(range(360))
    # The split and the bytes are fixed: a change here changes every published number on digits.
    assert (train.checksum, test.checksum) == ("7836710af0e8b3dd", "79554a503d4b24a5")


class MiniCifar:
    """The files of a CIFAR of five training and two test images, in the shape of the given format."""

    def __init__(self, form: CifarFormat):
        self.rows = pixels(7, 3072)
        self.labels = [3, 0, 1, 2, 2, 1, 0]
        names = {form.class_key: [f"class {label}" for label in range(4)]}
        self.files = {form.meta[0]: pickle.dumps(names, protocol=2)}
        trains = list(form.parts["train"])
        cuts = np.linspace(0, 5, len(trains) + 1).astype(int)
        spans = [*zip(trains, cuts, cuts[1:], strict=False), (next(iter(form.parts["test"])), 5, 7)]
        for name, start, stop in spans:
            batch = {"data": self.rows[start:stop], form.label_key: self.labels[start:stop]}
            self.files[name] = pickle.dumps(batch, protocol=2)
        self.archive = tar_of({f"{form.folder}/{name}": content for name, content in self.files.items()})
        self.form = replace(
            form,
            archive=replace(form.archive, checksum=md5(self.archive)),
            parts={part: {name: md5(self.files[name]) for name in names} for part, names in form.parts.items()},
            meta=(form.meta[0], md5(self.files[form.meta[0]])),
        )

    def write(self, data_dir: Path) -> Path:
        folder = data_dir / self.form.folder
        folder.mkdir()
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return folder


CIFARS = pytest.mark.parametrize("source", [cifar10, cifar100], ids=["cifar10", "cifar100"])


@CIFARS
def test_cifar_from_a_folder(tmp_path, source):
    mini = MiniCifar(source.FORMAT)
    mini.write(tmp_path)
    train = source.load("train", tmp_path, download=False, form=mini.form)
    test = source.load("test", tmp_path, download=False, form=mini.form)
    assert train.labels.tolist() == [3, 0, 1, 2, 2]
    assert test.labels.tolist() == [1, 0]
    assert train.classes == ("class 0", "class 1", "class 2", "class 3")
    assert np.array_equal(train.images.numpy(), mini.rows[:5].reshape(5, 3, 32, 32))
    assert np.array_equal(test.images.numpy(), mini.rows[5:].reshape(2, 3, 32, 32))


@CIFARS
def test_cifar_from_an_archive(tmp_path, source):
    mini = MiniCifar(source.FORMAT)
    (tmp_path / source.FORMAT.archive.name).write_bytes(mini.archive)
    assert len(source.load("train", tmp_path, download=False, form=mini.form)) == 5
    assert (tmp_path / source.FORMAT.folder).is_dir()


@CIFARS
def test_cifar_from_a_server(tmp_path, server, source):
    mini = MiniCifar(source.FORMAT)
    server.serve(source.FORMAT.archive.name, mini.archive)
    assert len(source.load("test", tmp_path / "new", base_url=server.url, form=mini.form)) == 2


def test_cifar_refuses_a_malicious_archive_before_and_after_its_checksum(tmp_path):
    mini = MiniCifar(cifar10.FORMAT)
    archive = tmp_path / cifar10.FORMAT.archive.name
    archive.write_bytes(tar_of({"../outside": b"x"}))
    with pytest.raises(DataError, match="published checksum"):
        cifar10.load("train", tmp_path, form=mini.form)
    believed = replace(mini.form, archive=replace(mini.form.archive, checksum=md5(archive.read_bytes())))
    with pytest.raises(DataError, match=r"\.\./outside"):
        cifar10.load("train", tmp_path, form=believed)
    assert list(tmp_path.iterdir()) == [archive]


def test_cifar_does_not_open_a_pickle_of_another_checksum(tmp_path, monkeypatch):
    mini = MiniCifar(cifar10.FORMAT)
    folder = mini.write(tmp_path)
    (folder / "data_batch_2").write_bytes(pickle.dumps({"data": 1}))
    with pytest.raises(DataError, match=r"data_batch_2: expected the published checksum"):
        cifar10.load("train", tmp_path, form=mini.form)
    (folder / "data_batch_2").unlink()
    with pytest.raises(DataError, match=r"data_batch_2 in .*GOSSAMER_DATA"):
        cifar10.load("train", tmp_path, form=mini.form)


def test_cifar_refuses_rows_of_another_length(tmp_path):
    mini = MiniCifar(cifar10.FORMAT)
    content = pickle.dumps({"data": pixels(2, 100), "labels": [0, 1]}, protocol=2)
    (mini.write(tmp_path) / "test_batch").write_bytes(content)
    form = replace(mini.form, parts={**mini.form.parts, "test": {"test_batch": md5(content)}})
    with pytest.raises(DataError, match="rows of 3072 bytes"):
        cifar10.load("test", tmp_path, form=form)


@needs["cifar10"]
def test_the_real_cifar10():
    train, test = load("cifar10", "train", download=False), load("cifar10", "test", download=False)
    assert train.labels[:4].tolist() == [6, 9, 9, 4]
    assert train.labels.bincount().tolist() == [5000] * 10
    assert test.labels.bincount().tolist() == [1000] * 10
    assert train.classes[6] == "frog"
    # The published channel means of the training set, to the digits they are quoted with.
    means = [train.images[:, channel].numpy().mean() / 255 for channel in range(3)]
    assert means == pytest.approx([0.4914, 0.4822, 0.4465], abs=6e-5)


def idx_of(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


def mini_idx(form: IdxFormat, folder: Path, seed: int = 0) -> tuple[IdxFormat, np.ndarray]:
    """Write five images of 4x6 pixels a part; return the format with their checksums."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = pixels(5, 4, 6, seed=seed), np.array([3, 1, 4, 1, 5], dtype=np.uint8)
    parts = {}
    for part, files in form.parts.items():
        contents = idx_of(images), idx_of(labels)
        for file, content in zip(files, contents, strict=True):
            (folder / file.name).write_bytes(content)
        parts[part] = tuple(replace(f, checksum=md5(c)) for f, c in zip(files, contents, strict=True))
    return replace(form, parts=parts), images


@pytest.mark.parametrize(
    ("source", "folder"),
    [(mnist, "MNIST/raw"), (mnist, "."), (fashion_mnist, "FashionMNIST/raw"), (fashion_mnist, ".")],
)
def test_idx_files_are_found_where_they_may_lie(tmp_path, source, folder):
    form, images = mini_idx(source.FORMAT, tmp_path / folder)
    dataset = source.load("test", tmp_path, download=False, form=form)
    assert dataset.image_shape == (1, 4, 6)
    assert np.array_equal(dataset.images[:, 0].numpy(), images)
    assert dataset.labels.tolist() == [3, 1, 4, 1, 5]
    assert dataset.num_classes == 10


def test_fashion_mnist_does_not_take_the_files_of_mnist(tmp_path):
    mini_idx(mnist.FORMAT, tmp_path, seed=1)
    form, images = mini_idx(fashion_mnist.FORMAT, tmp_path / "FashionMNIST" / "raw")
    dataset = fashion_mnist.load("train", tmp_path, download=False, form=form)
    assert np.array_equal(dataset.images[:, 0].numpy(), images)


def test_idx_from_a_server(tmp_path, server):
    form, images = mini_idx(mnist.FORMAT, tmp_path / "served")
    for path in (tmp_path / "served").iterdir():
        server.serve(path.name, path.read_bytes())
    dataset = mnist.load("train", tmp_path / "new", base_url=server.url, form=form)
    assert np.array_equal(dataset.images[:, 0].numpy(), images)
    assert (tmp_path / "new" / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").is_file()


def test_idx_refuses_a_file_of_another_checksum(tmp_path):
    form, _ = mini_idx(mnist.FORMAT, tmp_path / "MNIST" / "raw")
    path = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match="published checksum"):
        mnist.load("test", tmp_path, download=False, form=form)


@pytest.mark.parametrize(
    "content",
    [
        idx_of(pixels(5, 4, 6))[:-8],
        gzip.compress(gzip.decompress(idx_of(pixels(5, 4, 6)))[:-1]),
        idx_of(pixels(5, 4)),
        gzip.compress(struct.pack(">HBBI", 0, 9, 1, 0)),
        gzip.compress(b"\0"),
        b"not gzipped",
    ],
    ids=["cut short", "one byte less", "another rank", "counts missing", "one byte", "not gzipped"],
)
def test_idx_refuses_damaged_content_even_of_the_right_checksum(tmp_path, content):
    form, _ = mini_idx(mnist.FORMAT, tmp_path / "MNIST" / "raw")
    images, labels = form.parts["test"]
    (tmp_path / "MNIST" / "raw" / images.name).write_bytes(content)
    believed = replace(form, parts={"test": (replace(images, checksum=md5(content)), labels)})
    with pytest.raises(DataError, match="a whole gzipped idx file"):
        mnist.load("test", tmp_path, download=False, form=believed)


@needs["mnist"]
def test_the_real_mnist():
    train, test = load("mnist", "train", download=False), load("mnist", "test", download=False)
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.image_shape == (1, 28, 28)
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert float(train.images.float().mean() / 255) == pytest.approx(0.1307, abs=6e-5)


def mini_svhn(folder: Path, **matrices: np.ndarray) -> dict[str, RemoteFile]:
    stream = io.BytesIO()
    savemat(stream, matrices)
    (folder / "test_32x32.mat").write_bytes(stream.getvalue())
    return {"test": replace(svhn.FILES["test"], checksum=md5(stream.getvalue()))}


@pytest.mark.parametrize("folder", [".", "SVHN"])
def test_svhn_numbers_the_zero_as_zero(tmp_path, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    images = pixels(32, 32, 3, 4)
    files = mini_svhn(tmp_path / folder, X=images, y=np.array([[10], [1], [9], [10]], dtype=np.uint8))
    dataset = svhn.load("test", tmp_path, download=False, files=files)
    assert dataset.labels.tolist() == [0, 1, 9, 0]
    assert dataset.image_shape == (3, 32, 32)
    assert int(dataset.images[2, 1, 5, 7]) == int(images[5, 7, 1, 2])


def test_svhn_refuses_a_file_without_its_matrices(tmp_path):
    files = mini_svhn(tmp_path, Z=np.zeros(3))
    with pytest.raises(DataError, match="MATLAB file"):
        svhn.load("test", tmp_path, download=False, files=files)
    (tmp_path / "test_32x32.mat").write_bytes(b"not a matrix")
    with pytest.raises(DataError, match="published checksum"):
        svhn.load("test", tmp_path, download=False, files=files)
    believed = {"test": replace(files["test"], checksum=md5(b"not a matrix"))}
    with pytest.raises(DataError, match="MATLAB file"):
        svhn.load("test", tmp_path, download=False, files=believed)


IDS = ("n00000002", "n00000001")


def jpeg(seed: int, *, mode: str = "RGB", size: int = 64) -> bytes:
    shape = (size, size) if mode == "L" else (size, size, 3)
    stream = io.BytesIO()
    Image.fromarray(pixels(*shape, seed=seed)).save(stream, "JPEG")
    return stream.getvalue()


def mini_tiny(**changes: bytes) -> tuple[tiny_imagenet.TinyFormat, bytes]:
    """Return the format and archive of two classes, two training and one validation image each."""
    files = {
        "wnids.txt": "\n".join(IDS).encode(),
        "words.txt": b"n00000001\tgoldfish, Carassius auratus\nn00000002\tpug\nn00000003\tcart\n",
        "val/val_annotations.txt": b"val_0.JPEG\tn00000002\t0\t0\t9\t9\nval_1.JPEG\tn00000001\t0\t0\t9\t9\n",
        "val/images/val_0.JPEG": jpeg(10),
        "val/images/val_1.JPEG": jpeg(11),
    }
    for k, name in enumerate(IDS):
        files[f"train/{name}/{name}_boxes.txt"] = b"boxes"
        files[f"train/{name}/images/{name}_0.JPEG"] = jpeg(k)
        files[f"train/{name}/images/{name}_1.JPEG"] = jpeg(20 + k, mode="L")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in {**files, **changes}.items():
            archive.writestr(f"tiny-imagenet-200/{name}", content)
    archive = replace(tiny_imagenet.FORMAT.archive, checksum=md5(stream.getvalue()))
    form = tiny_imagenet.TinyFormat(archive=archive, counts={"train": 4, "test": 2})
    return form, stream.getvalue()


def test_tiny_imagenet(tmp_path, server):
    form, archive = mini_tiny()
    server.serve("tiny-imagenet-200.zip", archive)
    train = tiny_imagenet.load("train", tmp_path, base_url=server.url, form=form)
    assert train.classes == ("goldfish", "pug")
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert train.image_shape == (3, 64, 64)
    grey = train.images[1]
    assert torch.equal(grey[0], grey[1])
    assert not torch.equal(train.images[0, 0], train.images[0, 1])
    test = tiny_imagenet.load("test", tmp_path, download=False, form=form)
    assert test.labels.tolist() == [1, 0]
    with Image.open(io.BytesIO(jpeg(10))) as image:
        assert np.array_equal(test.images[0].permute(1, 2, 0).numpy(), np.asarray(image))


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("train", {"train/n00000001/images/extra.JPEG": jpeg(5)}, "4 images, got 5"),
        ("test", {"val/val_annotations.txt": b"val_0.JPEG\tn00000002\n"}, "2 images, got 1"),
        ("test", {"val/val_annotations.txt": b"val_0.JPEG\tn9\nval_1.JPEG\tn9\n"}, "a class of wnids.txt"),
        ("test", {"val/val_annotations.txt": b"a.JPEG\tn00000001\n"}, "a.JPEG: expected the file"),
        ("train", {"wnids.txt": b"n00000001\nn00000002\nn00000003\n"}, "n00000003.*no such folder"),
        ("train", {"train/n00000001/images/n00000001_1.JPEG": b"torn"}, "a readable image"),
        ("train", {"train/n00000001/images/n00000001_1.JPEG": jpeg(1, size=32)}, r"shape \(3, 64, 64\)"),
    ],
)
def test_tiny_imagenet_refuses_what_is_incomplete(tmp_path, part, changes, message):
    form, archive = mini_tiny(**changes)
    (tmp_path / "tiny-imagenet-200.zip").write_bytes(archive)
    with pytest.raises(DataError, match=message):
        tiny_imagenet.load(part, tmp_path, download=False, form=form)
