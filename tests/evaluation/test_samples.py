import dataclasses

import pytest
import torch

from gossamer.data import DataSet
from gossamer.errors import ConfigError, DataError
from gossamer.evaluation.samples import as_dataset, check_labels, select_samples


def dataset(labels, **changes):
    x = torch.rand(len(labels), 1, 2, 2, generator=torch.Generator().manual_seed(0))
    return dataclasses.replace(as_dataset((x, torch.tensor(labels))), **changes)


def test_a_pair_of_tensors_becomes_a_data_set():
    made = as_dataset((torch.full((3, 1, 2, 2), 255, dtype=torch.uint8), torch.tensor([0, 1, 1])))
    assert isinstance(made, DataSet)
    assert made.float(torch.tensor([1])).tolist() == [[[[1.0, 1.0], [1.0, 1.0]]]]
    assert made.index.tolist() == [0, 1, 2]


@pytest.mark.parametrize("data", [torch.rand(2, 1, 2, 2), (torch.rand(2, 1, 2, 2),), "cifar10", None])
def test_anything_else_is_refused(data):
    with pytest.raises(DataError, match="pair"):
        as_dataset(data)


def test_images_beyond_the_unit_box_are_refused():
    with pytest.raises(DataError, match="divide by 255"):
        as_dataset((torch.rand(2, 1, 2, 2) * 255, torch.tensor([0, 1])))


def test_published_test_set_gives_its_first_n():
    published = dataset([1, 0, 1, 0, 0], name="cifar10", part="test")
    chosen, rule = select_samples(published, 3)
    assert rule == "first"
    assert chosen.index.tolist() == [0, 1, 2]


def test_a_set_sorted_by_class_is_never_cut_at_the_front():
    chosen, rule = select_samples(dataset([0] * 10 + [1] * 10, name="cifar10", part="test"), 4)
    assert rule == "balanced"
    assert sorted(chosen.labels.tolist()) == [0, 0, 1, 1]


def test_tensors_give_balanced_classes_that_follow_the_seed():
    data = dataset([0, 1, 2] * 20)
    chosen, rule = select_samples(data, 9, seed=1)
    assert rule == "balanced"
    assert sorted(chosen.labels.tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert select_samples(data, 9, seed=1)[0].index.tolist() == chosen.index.tolist()
    assert select_samples(data, 9, seed=2)[0].index.tolist() != chosen.index.tolist()


def test_all_of_them_without_n():
    data = dataset([0, 1])
    assert select_samples(data, None) == (data, "all")


def test_more_than_there_are_is_refused():
    with pytest.raises(ConfigError):
        select_samples(dataset([0, 1]), 3)


def test_labels_beyond_the_logits_are_refused():
    check_labels(dataset([0, 9]), 10)
    with pytest.raises(DataError, match="10 logits"):
        check_labels(dataset([0, 10]), 10)
