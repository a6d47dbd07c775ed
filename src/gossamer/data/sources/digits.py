"""Digits: 1,797 scans of 8x8 pixels that scikit-learn carries; needs no download (UCI, Alpaydin & Kaynak, 1998)."""

from pathlib import Path

import torch

from gossamer.data.dataset import DataSet, make_dataset
from gossamer.data.splits import train_test

TEST_SIZE = 360


def load(part: str, data_dir: Path, *, download: bool = True) -> DataSet:
    """Return the 1,437 training or 360 test images: (1, 8, 8), the 17 grey levels v stored as round(255 v / 16).

    scikit-learn publishes no split: this one is class-balanced and keyed by the checksum alone, so it is fixed.
    """
    del data_dir, download
    # scikit-learn takes a second to import, and only this data set needs it.
    from sklearn.datasets import load_digits  # noqa: PLC0415

    levels, targets = load_digits(return_X_y=True)
    images = torch.from_numpy(levels).mul(255 / 16).round().to(torch.uint8).view(-1, 1, 8, 8)
    labels = torch.from_numpy(targets).long()
    whole = make_dataset("digits", part, images, labels, [str(digit) for digit in range(10)])
    return train_test(whole, part, TEST_SIZE)
