"""CIFAR-10: 60,000 colour images of 32x32 pixels in ten classes (Krizhevsky, 2009)."""

from pathlib import Path

from gossamer.data.cifar import CifarFormat, load_cifar
from gossamer.data.dataset import DataSet
from gossamer.data.files import RemoteFile

FORMAT = CifarFormat(
    name="cifar10",
    archive=RemoteFile(
        name="cifar-10-python.tar.gz",
        urls=("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
        checksum="md5:c58f30108f718f92721af3b95e74349a",
    ),
    folder="cifar-10-batches-py",
    parts={
        "train": {
            "data_batch_1": "md5:c99cafc152244af753f735de768cd75f",
            "data_batch_2": "md5:d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "md5:54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "md5:634d18415352ddfa80567beed471001a",
            "data_batch_5": "md5:482c414d41f54cd18b22e5b47cb7c3cb",
        },
        "test": {"test_batch": "md5:40351d587109b95175f43aff81a1287e"},
    },
    meta=("batches.meta", "md5:5ff9c542aee3614f3951f8cda6e48888"),
    label_key="labels",
    class_key="label_names",
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
