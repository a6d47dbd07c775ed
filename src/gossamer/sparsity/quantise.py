"""How is a tensor brought to a few values? By k-means on its nonzero entries, one dimension, one tensor at a time."""

import numpy as np
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
    nonzero = weight != 0
    entries = weight[nonzero]
    ordered = _sorted(entries)
    if 1 + int(torch.count_nonzero(ordered[1:] != ordered[:-1])) <= count:
        return weight.clone()
    values = ordered.double()
    # Every mean is a difference of two of these, however many values it is of.
    sums = torch.cat([values.new_zeros(1), values.cumsum(0)])
    places = ((torch.arange(count, device=values.device) * 2 + 1) * values.numel()) // (2 * count)
    centres = values[places]
    for _ in range(ROUNDS):
        moved = _means(values, sums, centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    nearest = torch.bucketize(entries.double(), _boundaries(centres))
    return torch.zeros_like(weight).masked_scatter_(nonzero, centres[nearest].to(weight.dtype))


def _sorted(values: Tensor) -> Tensor:
    # On processors NumPy's sort takes vector instructions, a twentieth of the time of torch's.
    if values.device.type != "cpu":
        return values.sort().values
    return torch.from_numpy(np.sort(values.detach().numpy()))


def _boundaries(centres: Tensor) -> Tensor:
    return (centres[1:] + centres[:-1]) / 2


def _means(values: Tensor, sums: Tensor, centres: Tensor) -> Tensor:
    """Return the mean of the sorted values next to each centre; a centre without values stays.

    sums: of the first 0, 1, ... values.
    """
    between = torch.searchsorted(values, _boundaries(centres), right=True)
    ends = torch.cat([between.new_zeros(1), between, between.new_full((1,), values.numel())])
    counts = ends.diff()
    return torch.where(counts > 0, sums[ends].diff() / counts.clamp(min=1), centres)
