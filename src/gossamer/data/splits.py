"""Which samples are held out or evaluated: choices keyed by checksum and seed, equal on every machine."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gossamer.data.dataset import DataSet
from gossamer.errors import ConfigError
from gossamer.seeding import derive


def hold_out(dataset: DataSet, share_or_count: float, *, seed: int = 0) -> tuple[DataSet, DataSet]:
    """Return (train, held_out): every class gives the same share, to within one sample.

    share_or_count: a float in (0, 1) is a share, rounded; an int is a number of samples. Both parts keep the
    order of the source. Raises ConfigError where either part would be empty.
    """
    count = _count(len(dataset), share_or_count)
    order = _stratified(dataset, seed, "hold-out")
    return dataset.subset(order[count:].sort().values), dataset.subset(order[:count].sort().values)


def train_test(whole: DataSet, part: str, test: float) -> DataSet:
    """Return the "train" or "test" part of a set that was published without parts; test: a share or a count.

    The split is keyed by the checksum alone, so it is fixed; `index` counts within the part.
    """
    train, held_out = hold_out(whole, test)
    chosen = train if part == "train" else held_out
    return replace(chosen, part=part, index=torch.arange(len(chosen)))


def first(dataset: DataSet, n: int) -> DataSet:
    """Return the first n samples, as robustness papers do with a published test set."""
    _check_size(dataset, n)
    return dataset.subset(torch.arange(n))


def balanced(dataset: DataSet, n: int, *, seed: int = 0) -> DataSet:
    """Return n samples to which every class gives the same share, to within one sample.

    Nested: the choice for a smaller n is a prefix of this one.
    """
    _check_size(dataset, n)
    return dataset.subset(_stratified(dataset, seed, "balanced")[:n])


def _stratified(dataset: DataSet, seed: int, purpose: str) -> Tensor:
    """Return an order (N,) int64 of which every prefix has the class shares of the whole, as nearly as can be.

    Within a class the order is that of a hash; the j-th of a class of n stands at quantile (j + 1/2) / n.
    """
    labels = dataset.labels.cpu().numpy()
    place = derive(seed, purpose, dataset.checksum)
    hashes = np.array([derive(place, i) for i in range(len(dataset))], dtype=np.int64)
    quantile = np.empty(len(dataset))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        members = members[np.argsort(hashes[members])]
        quantile[members] = (np.arange(len(members)) + 0.5) / len(members)
    return torch.from_numpy(np.lexsort((hashes, quantile)))


def _count(n: int, share_or_count: float) -> int:
    is_share = isinstance(share_or_count, float)
    count = round(n * share_or_count) if is_share else int(share_or_count)
    if 0 < count < n:
        return count
    raise ConfigError(
        "held-out split",
        expected=f"a share in (0, 1) or a count in [1, {n - 1}]",
        got=share_or_count,
        remedy="write 0.1 for a tenth, or the number of samples as an integer",
    )


def _check_size(dataset: DataSet, n: int) -> None:
    if not 1 <= n <= len(dataset):
        raise ConfigError(
            f"number of samples of {dataset.name} ({dataset.part})",
            expected=f"an integer in [1, {len(dataset)}]",
            got=n,
            remedy="ask for no more than there are",
        )
