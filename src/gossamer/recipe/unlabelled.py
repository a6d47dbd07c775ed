"""Where do pseudo-labels come from? A file, or a teacher run that is asked once, before training."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gossamer.data import DataSet
from gossamer.data.dataset import checksum_of
from gossamer.data.unlabelled import Pool, check_classes, missing_classes, read_pool
from gossamer.errors import ConfigError, RunError
from gossamer.recipe.open import OpenRun, open_run
from gossamer.recipe.schema import Recipe
from gossamer.runs import atomic
from gossamer.training.devices import Place
from gossamer.training.run import FINAL

PSEUDO_LABELS = "pseudo-labels.safetensors"
_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Source:
    """The unlabelled images of a recipe, and the teacher that labels them, or None where they came with labels."""

    pool: Pool
    teacher: OpenRun | None
    cache: Path

    @property
    def checksums(self) -> dict[str, str]:
        """What identifies the images and their pseudo-labels."""
        return {"unlabelled": self.pool.images.checksum, "pseudo_labels": self._label_source}

    def dataset(self, train: DataSet, place: Place) -> DataSet:
        """Return the images with their pseudo-labels, the teacher's predicted once and kept in the run folder."""
        labels = self.pool.labels
        if labels is None:
            labels = self._cached() if self.cache.exists() else self._predicted(place)
        check_classes("pseudo-labels of the teacher", labels, train)
        return self.pool.labelled(labels, train.classes)

    @property
    def _label_source(self) -> str:
        if self.pool.labels is not None:
            return checksum_of(torch.empty(0, 1, 1, 1), self.pool.labels)
        if self.cache.exists():
            return atomic.read_about(self.cache)["teacher"]
        return _digest(self._asked)

    @property
    def _asked(self) -> OpenRun:
        assert self.teacher is not None
        return self.teacher

    def _cached(self) -> Tensor:
        return atomic.read_safetensors(self.cache)["labels"]

    def _predicted(self, place: Place) -> Tensor:
        model, images = self._asked.model().to(place.device), self.pool.images
        with torch.no_grad():
            labels = torch.cat(
                [
                    model(images.float(positions, device=place.device)).argmax(dim=1).cpu()
                    for positions in torch.arange(len(images)).split(_BATCH)
                ]
            )
        atomic.write_safetensors(self.cache, {"labels": labels}, {"teacher": _digest(self._asked)})
        return labels


def open_source(recipe: Recipe, train: DataSet, folder: Path, data_dir: Path | None = None) -> Source | None:
    """Return the unlabelled images of a recipe, read and checked, or None where it names none.

    folder: the run's. Raises ConfigError and DataError before anything is trained.
    """
    said = recipe.data.unlabelled
    if said is None:
        return None
    pool = read_pool(Path(said.path).expanduser(), said.labels, train)
    if pool.labels is not None and not said.partial:
        _check_all(pool.labelled(pool.labels, train.classes))
    cache = folder / PSEUDO_LABELS
    asked = None if said.teacher is None or cache.exists() else _teacher(said.teacher, train, data_dir)
    return Source(pool=pool, teacher=asked, cache=cache)


def _check_all(labelled: DataSet) -> None:
    """Raise ConfigError for labels that speak of fewer classes than there are."""
    told = missing_classes(labelled)
    if told is not None:
        raise ConfigError(
            "data.unlabelled.labels",
            expected=f"labels of all {labelled.num_classes} classes",
            got=told,
            remedy="give pseudo-labels of the same classes, or write partial: true where they may leave some out",
        )


def _teacher(path: str, train: DataSet, data_dir: Path | None) -> OpenRun:
    teacher = open_run(Path(path).expanduser(), data_dir)
    own = teacher.parts.test
    if (own.num_classes, own.image_shape) != (train.num_classes, train.image_shape):
        raise ConfigError(
            "data.unlabelled.teacher",
            expected=f"a run on {train.num_classes} classes and images of {train.image_shape}",
            got=f"{own.num_classes} classes and images of {own.image_shape}",
            remedy="name a teacher that was trained on such data",
        )
    if not teacher.folder.state(FINAL).exists():
        raise RunError(
            f"teacher {path}", expected="a finished run", got="one that is not", remedy="train it to its end first"
        )
    return teacher


def _digest(teacher: OpenRun) -> str:
    return atomic.sha256(teacher.folder.state(FINAL))[:16]
