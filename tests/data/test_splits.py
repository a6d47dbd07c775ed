import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.data import DataSet, balanced, first, from_tensors, hold_out
from gossamer.data.splits import train_test
from gossamer.errors import ConfigError


def make(counts: list[int]) -> DataSet:
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    images = torch.arange(labels.numel(), dtype=torch.uint8).view(-1, 1, 1, 1)
    return from_tensors(images, labels, classes=[str(k) for k in range(len(counts))])


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(1, 20), min_size=2, max_size=5), seed=st.integers(0, 9), data=st.data())
def test_hold_out_is_a_partition_with_equal_shares(counts, seed, data):
    dataset = make(counts)
    n = data.draw(st.integers(1, len(dataset) - 1))
    train, held_out = hold_out(dataset, n, seed=seed)
    assert len(held_out) == n
    assert sorted(train.index.tolist() + held_out.index.tolist()) == list(range(len(dataset)))
    for label, count in enumerate(counts):
        assert abs(int((held_out.labels == label).sum()) - n * count / len(dataset)) <= 1


def test_hold_out_follows_seed_and_checksum():
    dataset = make([30, 30])
    chosen = hold_out(dataset, 0.1)[1].index.tolist()
    assert chosen == hold_out(dataset, 6)[1].index.tolist() == sorted(chosen)
    assert chosen != hold_out(dataset, 0.1, seed=1)[1].index.tolist()
    other = from_tensors(255 - dataset.images, dataset.labels)
    assert chosen != hold_out(other, 0.1)[1].index.tolist()


@pytest.mark.parametrize("share", [0.0, 1.0, 0, 60, -3, 1.5, 0.001])
def test_hold_out_refuses_an_empty_part(share):
    with pytest.raises(ConfigError, match="held-out split"):
        hold_out(make([30, 30]), share)


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(1, 15), min_size=2, max_size=4), seed=st.integers(0, 5))
def test_balanced_is_exact_and_nested(counts, seed):
    dataset = make(counts)
    whole = balanced(dataset, len(dataset), seed=seed).index
    for n in range(1, len(dataset) + 1):
        chosen = balanced(dataset, n, seed=seed)
        assert torch.equal(chosen.index, whole[:n])


def test_balanced_takes_equally_from_equal_classes():
    chosen = balanced(make([20, 20, 20]), 31)
    assert sorted(chosen.labels.bincount().tolist()) == [10, 10, 11]
    assert balanced(make([20, 20, 20]), 30).labels.bincount().tolist() == [10, 10, 10]


def test_first_takes_the_first():
    assert first(make([3, 3]), 4).index.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("choose", [first, balanced])
@pytest.mark.parametrize("n", [0, 7])
def test_choices_refuse_more_than_there_are(choose, n):
    with pytest.raises(ConfigError, match=r"integer in \[1, 6\]"):
        choose(make([3, 3]), n)


def test_train_test_counts_within_the_part():
    whole = make([10, 10])
    train, test = train_test(whole, "train", 0.2), train_test(whole, "test", 0.2)
    assert (train.part, test.part) == ("train", "test")
    assert (len(train), len(test)) == (16, 4)
    assert test.index.tolist() == [0, 1, 2, 3]
    pixels = torch.cat([train.images, test.images]).flatten()
    assert sorted(pixels.tolist()) == list(range(20))
