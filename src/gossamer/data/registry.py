"""Which data sets there are, by name."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gossamer.data.dataset import DataSet
from gossamer.data.files import default_data_dir
from gossamer.data.sources import (
    cifar10,
    cifar100,
    digits,
    fashion_mnist,
    folder,
    imagenet100,
    mnist,
    svhn,
    tensors,
    tiny_imagenet,
)
from gossamer.errors import ConfigError
from gossamer.options import typed

PARTS = ("train", "test")


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """A data set one can ask for.

    classes and image_shape (C, H, W) are None where the user's files decide; mean and std: per channel in [0, 1],
    as published for normalisation, None where there is no customary value; options: keywords of `load`.
    """

    name: str
    description: str
    load: Callable[..., DataSet]
    classes: int | None = None
    image_shape: tuple[int, int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    options: tuple[str, ...] = ()


_SOURCES = (
    DataSource(
        name="digits",
        description="1,797 handwritten digits of 8x8 pixels, carried by scikit-learn",
        load=digits.load,
        classes=10,
        image_shape=(1, 8, 8),
    ),
    DataSource(
        name="cifar10",
        description="60,000 colour images of 32x32 pixels in 10 classes",
        load=cifar10.load,
        classes=10,
        image_shape=(3, 32, 32),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
    ),
    DataSource(
        name="cifar100",
        description="60,000 colour images of 32x32 pixels in 100 classes",
        load=cifar100.load,
        classes=100,
        image_shape=(3, 32, 32),
        mean=(0.5071, 0.4867, 0.4408),
        std=(0.2675, 0.2565, 0.2761),
    ),
    DataSource(
        name="svhn",
        description="99,289 house-number digits of 32x32 pixels, in colour",
        load=svhn.load,
        classes=10,
        image_shape=(3, 32, 32),
        mean=(0.4377, 0.4438, 0.4728),
        std=(0.1980, 0.2010, 0.1970),
    ),
    DataSource(
        name="mnist",
        description="70,000 handwritten digits of 28x28 pixels",
        load=mnist.load,
        classes=10,
        image_shape=(1, 28, 28),
        mean=(0.1307,),
        std=(0.3081,),
    ),
    DataSource(
        name="fashion-mnist",
        description="70,000 grey pictures of clothing of 28x28 pixels in 10 classes",
        load=fashion_mnist.load,
        classes=10,
        image_shape=(1, 28, 28),
        mean=(0.2860,),
        std=(0.3530,),
    ),
    DataSource(
        name="tiny-imagenet",
        description="110,000 colour images of 64x64 pixels in 200 classes of ImageNet",
        load=tiny_imagenet.load,
        classes=200,
        image_shape=(3, 64, 64),
        mean=(0.4802, 0.4481, 0.3975),
        std=(0.2302, 0.2265, 0.2262),
        options=("cache_dir",),
    ),
    DataSource(
        name="imagenet100",
        description="100 classes of ImageNet; from your own copy of ILSVRC 2012",
        load=imagenet100.load,
        classes=100,
        image_shape=(3, 224, 224),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        options=("image_size", "cache_dir"),
    ),
    DataSource(
        name="folder",
        description="your own images: DIR/train/CLASS and DIR/test/CLASS, or DIR/CLASS",
        load=folder.load,
        options=("image_size", "mode", "cache_dir"),
    ),
    DataSource(
        name="tensors",
        description="your own tensors: a .safetensors file with x, y and perhaps x_test, y_test",
        load=tensors.load,
    ),
)

DATASETS: Mapping[str, DataSource] = MappingProxyType({source.name: source for source in _SOURCES})


def load(name: str, part: str, *, data_dir: Path | None = None, download: bool = True, **options: Any) -> DataSet:
    """Return one part, "train" or "test", of a data set.

    data_dir: where its files lie or go; by default $GOSSAMER_DATA, else the user's cache. options: those that
    `DATASETS[name].options` names. Raises ConfigError on an unknown name, part or option, DataError on bad files.
    """
    source = check_source(name, options)
    if part not in PARTS:
        raise _unknown("part", part, PARTS)
    where = default_data_dir() if data_dir is None else Path(data_dir).expanduser()
    return source.load(part, where, download=download, **typed(source.load, options, f"data set {name}"))


def check_source(name: str, options: Mapping[str, object]) -> DataSource:
    """Return the source of that name.

    Raises ConfigError for an unknown name or option, naming the nearest one, and for an option of another type.
    """
    source = DATASETS.get(name)
    if source is None:
        raise _unknown("data set", name, tuple(DATASETS))
    for option in options:
        if option not in source.options:
            raise _unknown(f"option of the data set {name}", option, source.options)
    typed(source.load, options, f"data set {name}")
    return source


def _unknown(subject: str, got: str, known: tuple[str, ...]) -> ConfigError:
    near = difflib.get_close_matches(got, known, n=1)
    return ConfigError(
        subject,
        expected=f"one of {', '.join(known)}" if known else "none",
        got=repr(got),
        remedy=f"did you mean {near[0]!r}?" if near else "see `gossamer list datasets`",
    )
