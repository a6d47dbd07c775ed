"""How a data set becomes batches: the order of an epoch, and one augmented batch on the device."""

import torch
from torch import Tensor

from gossamer.data.augment import Augmentation
from gossamer.data.dataset import DataSet
from gossamer.errors import ConfigError
from gossamer.seeding import Draws, Part
from gossamer.types import Batch


def epoch_order(n: int, *, draws: Draws) -> Tensor:
    """Return a random permutation (n,) int64 of the positions of a set, on the CPU."""
    return torch.randperm(n, generator=draws.at("order").generator())


def steps_per_epoch(n: int, batch_size: int, drop_last: bool) -> int:
    """Return the number of batches in an epoch over n samples; raises ConfigError where there would be none."""
    if batch_size < 1:
        raise ConfigError("batch_size", expected="at least 1", got=batch_size, remedy="write 128, say")
    steps = n // batch_size if drop_last else -(-n // batch_size)
    if steps < 1:
        raise ConfigError(
            "batch_size",
            expected=f"at most {n}, the size of the training set, where the last batch is dropped",
            got=batch_size,
            remedy="make batches smaller or keep the last one",
        )
    return steps


def make_batch(
    dataset: DataSet,
    positions: Tensor,
    augmentation: Augmentation,
    draws: Draws,
    device: torch.device | str,
    *,
    part: Part | None = None,
) -> Batch:
    """Return the batch of positions: (B,) int64, augmented on `device`; x is float32 in [0, 1].

    part: which of the positions this process takes; the augmentation is still drawn for all of them, so that
    processes together see what one would. The batch's index holds these positions, not those of the source part.
    """
    view = augmentation.draw(positions.shape[0], dataset.image_shape, draws.at("augmentation"), device)
    if part is not None:
        rows = torch.tensor(part.rows)
        view = view.select(rows.to(device))
        positions = positions[rows]
    chosen = positions.to(dataset.labels.device)
    labels = dataset.labels[chosen].to(device)
    return Batch(
        x=view.apply(dataset.float(chosen, device=device)),
        y=labels,
        index=positions.to(device),
        labelled=torch.ones_like(labels, dtype=torch.bool),
        view=view,
        part=part,
    )
