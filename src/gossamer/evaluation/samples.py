"""Which samples are evaluated: a data set or a pair of tensors, and the rule that chooses n of them."""

from typing import TypeAlias, cast

import torch
from torch import Tensor

from gossamer.data import DATASETS, DataSet, balanced, first, from_tensors
from gossamer.errors import DataError

Data: TypeAlias = DataSet | tuple[Tensor, Tensor]


def as_dataset(data: Data) -> DataSet:
    """Return data as a DataSet: itself, or a pair of images (N, C, H, W), uint8 or in [0, 1], and labels (N,).

    Raises DataError where it is neither or its shapes, types or ranges do not fit.
    """
    # Callers without a type checker are who the last case is for.
    match cast("object", data):
        case DataSet() as dataset:
            return dataset
        case [Tensor() as x, Tensor() as y]:
            return from_tensors(x, y, part="test")
        case other:
            raise DataError(
                "data",
                expected="a DataSet or a pair (x, y) of tensors",
                got=type(other).__name__,
                remedy="pass (images, labels), or what gossamer.data.load returns",
            )


def select_samples(dataset: DataSet, n: int | None, *, seed: int = 0) -> tuple[DataSet, str]:
    """Return n samples and the name of the rule that chose them; all of them where n is None.

    The first n of a published test set, so that numbers compare with the literature; otherwise, and where the set
    lies sorted by class, the same share of every class, drawn by checksum and seed.

    Raises ConfigError where n is not in [1, N].
    """
    if n is None or n == len(dataset):
        return dataset, "all"
    if _is_published_test_set(dataset) and not _is_sorted(dataset.labels):
        return first(dataset, n), "first"
    return balanced(dataset, n, seed=seed), "balanced"


def check_labels(dataset: DataSet, classes: int) -> None:
    """Raise DataError where a label is not in [0, K) for the K = `classes` logits of the model."""
    low, high = int(dataset.labels.min()), int(dataset.labels.max())
    if low >= 0 and high < classes:
        return
    raise DataError(
        f"labels of {dataset.name} ({dataset.part})",
        expected=f"labels in [0, {classes}), as the model has {classes} logits",
        got=f"[{low}, {high}]",
        remedy="evaluate on the data the model was trained for, or number the classes from 0",
    )


def _is_published_test_set(dataset: DataSet) -> bool:
    source = DATASETS.get(dataset.name)
    return source is not None and source.classes is not None and dataset.part == "test"


def _is_sorted(labels: Tensor) -> bool:
    return bool(torch.all(labels[1:] >= labels[:-1]))
