"""Images in, batches out: data sets with checksums, splits, and augmentation that can be replayed."""

from gossamer.data.augment import AUGMENTATIONS, CIFAR, KERAS, NONE, Augmentation, DrawnView
from gossamer.data.batches import epoch_order, make_batch, steps_per_epoch
from gossamer.data.dataset import DataSet, from_tensors
from gossamer.data.pseudo_labels import convert_pseudo_labels
from gossamer.data.registry import DATASETS, DataSource, load
from gossamer.data.splits import balanced, first, hold_out

__all__ = [
    "AUGMENTATIONS",
    "CIFAR",
    "DATASETS",
    "KERAS",
    "NONE",
    "Augmentation",
    "DataSet",
    "DataSource",
    "DrawnView",
    "balanced",
    "convert_pseudo_labels",
    "epoch_order",
    "first",
    "from_tensors",
    "hold_out",
    "load",
    "make_batch",
    "steps_per_epoch",
]
