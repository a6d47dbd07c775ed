import pytest
import torch

from gossamer.data import (
    CIFAR,
    KERAS,
    NONE,
    Augmentation,
    epoch_order,
    from_tensors,
    make_batch,
    steps_per_epoch,
)
from gossamer.errors import ConfigError
from gossamer.seeding import Draws, Part

DATASET = from_tensors(
    torch.arange(10 * 3 * 8 * 8).remainder(251).to(torch.uint8).view(10, 3, 8, 8), torch.arange(10) % 2
)


def test_epoch_order_is_a_permutation_of_its_draws():
    order = epoch_order(100, draws=Draws(0).at(1))
    assert order.dtype == torch.int64
    assert torch.equal(order.sort().values, torch.arange(100))
    assert torch.equal(order, epoch_order(100, draws=Draws(0).at(1)))
    assert not torch.equal(order, epoch_order(100, draws=Draws(0).at(2)))
    assert not torch.equal(order, epoch_order(100, draws=Draws(1).at(1)))


@pytest.mark.parametrize(
    ("n", "batch_size", "drop_last", "steps"),
    [(50_000, 128, True, 390), (50_000, 128, False, 391), (256, 128, False, 2), (3, 4, False, 1)],
)
def test_steps_per_epoch(n, batch_size, drop_last, steps):
    assert steps_per_epoch(n, batch_size, drop_last) == steps


@pytest.mark.parametrize(("n", "batch_size"), [(3, 4), (10, 0), (10, -1)])
def test_steps_per_epoch_refuses_none(n, batch_size):
    with pytest.raises(ConfigError, match="batch_size"):
        steps_per_epoch(n, batch_size, True)


def test_batch_without_augmentation_is_the_data():
    part = DATASET.subset(torch.tensor([9, 3, 4, 8]))
    batch = make_batch(part, torch.tensor([2, 0]), NONE, Draws(), "cpu")
    assert torch.equal(batch.x, DATASET.images[[4, 9]].float() / 255)
    assert batch.y.tolist() == [0, 1]
    assert batch.index.tolist() == [2, 0]
    assert batch.labelled.tolist() == [True, True]


def test_batch_is_what_its_view_makes_of_the_data():
    positions = torch.tensor([5, 0, 7])
    batch = make_batch(DATASET, positions, KERAS, Draws(4), "cpu")
    assert torch.equal(batch.x, batch.view.apply(DATASET.float(positions)))
    assert 0 <= float(batch.x.min()) <= float(batch.x.max()) <= 1
    again = make_batch(DATASET, positions, KERAS, Draws(4), "cpu")
    assert torch.equal(batch.x, again.x)


@pytest.mark.parametrize("augmentation", [CIFAR, KERAS, Augmentation(rotation=20)])
def test_ranks_together_see_what_one_process_does(augmentation):
    positions = torch.tensor([5, 0, 7, 2, 9])
    whole = make_batch(DATASET, positions, augmentation, Draws(4), "cpu")
    shares = [
        make_batch(DATASET, positions, augmentation, Draws(4), "cpu", part=Part(tuple(range(rank, 5, 2)), 5))
        for rank in (0, 1)
    ]
    assert shares[1].index.tolist() == [0, 2]
    for rank, batch in enumerate(shares):
        assert torch.equal(batch.x, whole.x[rank::2])
        assert torch.equal(batch.y, whole.y[rank::2])


def test_everything_happens_on_the_device():
    # The meta device computes shapes alone, but refuses operands of another device as an accelerator does.
    everything = Augmentation(flip=0.5, crop=2, shift=0.1, rotation=10, rotation_fill="zero")
    for dataset in (DATASET, DATASET.to("meta")):
        batch = make_batch(dataset, torch.tensor([1, 2]), everything, Draws(), "meta", part=Part((1,), 2))
        assert batch.x.device.type == batch.y.device.type == batch.index.device.type == "meta"
        assert batch.x.shape == batch.view.inverse(batch.x).shape == (1, 3, 8, 8)
