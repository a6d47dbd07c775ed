"""MNIST: 70,000 handwritten digits of 28x28 pixels (LeCun et al., 1998)."""

from pathlib import Path

from gossamer.data.dataset import DataSet
from gossamer.data.idx import IdxFormat, load_idx, mnist_files

FORMAT = IdxFormat(
    name="mnist",
    parts=mnist_files(
        bases=(
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "https://storage.googleapis.com/cvdf-datasets/mnist",
        ),
        checksums={
            "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
        },
    ),
    folders=("MNIST/raw", "mnist"),
    classes=tuple(str(digit) for digit in range(10)),
)


def load(
    part: str,
    data_dir: Path,
    *,
    download: bool = True,
    base_url: str | None = None,
    form: IdxFormat = FORMAT,
) -> DataSet:
    """Return the 60,000 training or 10,000 test images: (1, 28, 28). Raises DataError."""
    return load_idx(form, part, data_dir, download=download, base_url=base_url)
