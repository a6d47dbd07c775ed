"""SVHN: house numbers cropped to single digits of 32x32 pixels, without the extra set (Netzer et al., 2011)."""

import io
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from gossamer.data.dataset import DataSet, make_dataset
from gossamer.data.files import RemoteFile, find_or_fetch, read_checked
from gossamer.errors import DataError

FILES = {
    "train": RemoteFile(
        name="train_32x32.mat",
        urls=("http://ufldl.stanford.edu/housenumbers/train_32x32.mat",),
        checksum="md5:e26dedcc434d2e4c54c9b2d4a06d8373",
    ),
    "test": RemoteFile(
        name="test_32x32.mat",
        urls=("http://ufldl.stanford.edu/housenumbers/test_32x32.mat",),
        checksum="md5:eb5a983be6a315427106f1b164d9cef3",
    ),
}


def load(
    part: str,
    data_dir: Path,
    *,
    download: bool = True,
    base_url: str | None = None,
    files: Mapping[str, RemoteFile] = FILES,
) -> DataSet:
    """Return the 73,257 training or 26,032 test images: (3, 32, 32), from DIR or DIR/SVHN.

    The files number the digit 0 as 10; here it is 0. Raises DataError.
    """
    # scipy.io takes a fifth of a second to import, and only this data set needs it.
    from scipy.io.matlab import MatReadError, loadmat  # noqa: PLC0415

    file = files[part]
    path = find_or_fetch(file, [data_dir, data_dir / "SVHN"], download=download, base_url=base_url)
    content = read_checked(path, file.checksum)
    try:
        matrices = loadmat(io.BytesIO(content), variable_names=["X", "y"])
        images = np.ascontiguousarray(matrices["X"].transpose(3, 2, 0, 1))
        labels = matrices["y"].reshape(-1).astype(np.int64) % 10
    except (MatReadError, ValueError, TypeError, KeyError, NotImplementedError, OSError, zlib.error) as error:
        raise DataError(
            str(path),
            expected="a MATLAB file with X: (32, 32, 3, N) and y: (N, 1)",
            got=error,
            remedy="use the official files",
        ) from error
    digits = [str(digit) for digit in range(10)]
    return make_dataset("svhn", part, torch.from_numpy(images), torch.from_numpy(labels), digits)
