"""CIFAR-100: 60,000 colour images of 32x32 pixels in a hundred classes, the fine labels (Krizhevsky, 2009)."""

from pathlib import Path

from gossamer.data.cifar import CifarFormat, load_cifar
from gossamer.data.dataset import DataSet
from gossamer.data.files import RemoteFile

FORMAT = CifarFormat(
    name="cifar100",
    archive=RemoteFile(
        name="cifar-100-python.tar.gz",
        urls=("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",),
        checksum="md5:eb9058c3a382ffc7106e4002c42a8d85",
    ),
    folder="cifar-100-python",
    parts={
        "train": {"train": "md5:16019d7e3df5f24257cddd939b257f8d"},
        "test": {"test": "md5:f0ef6b0ae62326f3e7ffdfab6717acfc"},
    },
    meta=("meta", "md5:7973b15100ade9c7d40fb424638fde48"),
    label_key="fine_labels",
    class_key="fine_label_names",
)


def load(
    part: str,
    data_dir: Path,
    *,
    download: bool = True,
    base_url: str | None = None,
    form: CifarFormat = FORMAT,
) -> DataSet:
    """Return the 50,000 training or 10,000 test images: (3, 32, 32). Raises DataError."""
    return load_cifar(form, part, data_dir, download=download, base_url=base_url)
