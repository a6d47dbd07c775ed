import inspect

import pytest
import torch

from gossamer.data import DATASETS, load
from gossamer.errors import ConfigError, DataError


def test_names():
    assert list(DATASETS) == [
        "digits",
        "cifar10",
        "cifar100",
        "svhn",
        "mnist",
        "fashion-mnist",
        "tiny-imagenet",
        "imagenet100",
        "folder",
        "tensors",
    ]
    assert all(name == source.name for name, source in DATASETS.items())


def test_entries_agree_with_themselves():
    for source in DATASETS.values():
        parameters = inspect.signature(source.load).parameters
        assert set(source.options) <= set(parameters)
        assert {"part", "data_dir", "download"} <= set(parameters)
        if source.mean is not None:
            assert source.std is not None
            assert source.image_shape is not None
            assert len(source.mean) == len(source.std) == source.image_shape[0]


def test_digits_need_nothing(tmp_path):
    dataset = load("digits", "test", data_dir=tmp_path)
    assert dataset.num_classes == DATASETS["digits"].classes
    assert dataset.image_shape == DATASETS["digits"].image_shape
    assert torch.equal(dataset.images, load("digits", "test").images)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("cifar-10", "train"), {}, "did you mean 'cifar10'"),
        (("letters", "train"), {}, "gossamer list datasets"),
        (("digits", "tset"), {}, "did you mean 'test'"),
        (("folder", "train"), {"img_size": 3}, "did you mean 'image_size'"),
        (("digits", "train"), {"image_size": 3}, "expected none"),
    ],
)
def test_unknown_names(arguments, options, message):
    with pytest.raises(ConfigError, match=message):
        load(*arguments, **options)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn", "mnist", "fashion-mnist", "tiny-imagenet"])
def test_absent_files_are_named_with_the_remedy(tmp_path, name):
    with pytest.raises(DataError, match=r"--data-dir or GOSSAMER_DATA") as caught:
        load(name, "train", data_dir=tmp_path, download=False)
    assert str(tmp_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []
