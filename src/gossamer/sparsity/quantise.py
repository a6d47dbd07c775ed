"""How is a tensor brought to a few values? By k-means on its nonzero entries, one dimension, one tensor at a time."""

import torch
from torch import Tensor

ROUNDS = 20


def levels(bits: int, *, zero_among: bool = False) -> int:
    """Return how many nonzero values `bits` bits admit: 2^bits beside zero, or one fewer where zero is among them."""
    return 2**bits - int(zero_among)


def quantise(weight: Tensor, count: int) -> Tensor:
    """Return the tensor with its nonzero entries moved to at most `count` values; zeros stay zero.

    Lloyd's algorithm from the quantiles of the entries, at most 20 rounds; a tensor of no more values comes back as it
    is, so that the projection is idempotent.
    """
    entries = weight[weight != 0]
    if entries.unique().numel() <= count:
        return weight.clone()
    values = entries.sort().values.double()
    places = ((torch.arange(count, device=values.device) * 2 + 1) * values.numel()) // (2 * count)
    centres = values[places]
    for _ in range(ROUNDS):
        moved = _means(values, centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    nearest = torch.bucketize(weight.double().contiguous(), _boundaries(centres))
    return torch.where(weight != 0, centres[nearest].to(weight.dtype), 0.0)


def _boundaries(centres: Tensor) -> Tensor:
    return (centres[1:] + centres[:-1]) / 2


def _means(values: Tensor, centres: Tensor) -> Tensor:
    """Return the mean of the sorted values next to each centre; a centre without values stays."""
    ends = torch.searchsorted(values, _boundaries(centres), right=True).tolist()
    parts = values.tensor_split(ends)
    return torch.stack([part.mean() if part.numel() else centre for part, centre in zip(parts, centres, strict=True)])
