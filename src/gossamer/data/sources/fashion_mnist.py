"""Fashion-MNIST: 70,000 grey pictures of clothing of 28x28 pixels (Xiao et al., 2017)."""

from pathlib import Path

from gossamer.data.dataset import DataSet
from gossamer.data.idx import IdxFormat, load_idx, mnist_files

FORMAT = IdxFormat(
    name="fashion-mnist",
    parts=mnist_files(
        bases=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",),
        checksums={
            "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
    folders=("FashionMNIST/raw", "fashion-mnist"),
    classes=(
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
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
