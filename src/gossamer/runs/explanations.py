"""Where does a run's network look? Input gradients and Grad-CAM of a few images, clean and attacked, in one file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from gossamer.errors import RunError
from gossamer.runs import atomic, records
from gossamer.runs.layout import RunFolder
from gossamer.runs.results import Dataset

_HEADER = "explanations"
_IMAGES, _ADVERSARIAL = "images", "adversarial"
_MAPS = ("clean_gradients", "adversarial_gradients", "clean_cams", "adversarial_cams")


@dataclass(frozen=True, kw_only=True)
class About:
    """What belongs to the maps; M entries in every list of images.

    index: positions in the part of the data set; attack: its name without the expectation of `passes` passes that a
    model which draws noise is attacked and explained under (1 where it draws none); layer: of Grad-CAM, None where
    there is none, and `reason` says why.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/explanations/1"
    dataset: Dataset
    classes: tuple[str, ...]
    index: tuple[int, ...]
    labels: tuple[int, ...]
    clean_predictions: tuple[int, ...]
    clean_confidences: tuple[float, ...]
    adversarial_predictions: tuple[int, ...]
    adversarial_confidences: tuple[float, ...]
    attack: str
    attack_parameters: dict[str, Any]
    threat: str
    seed: int
    passes: int = 1
    layer: str | None = None
    reason: str = ""
    environment: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def lists(self) -> tuple[Sequence[object], ...]:
        """The lists with an entry an image."""
        return (
            self.index,
            self.labels,
            self.clean_predictions,
            self.clean_confidences,
            self.adversarial_predictions,
            self.adversarial_confidences,
        )


@dataclass(frozen=True, kw_only=True)
class Explanations:
    """Maps of M images; all but `images` are float32.

    images: (M, C, H, W) uint8; adversarial: (M, C, H, W) in [0, 1]; gradients: (M, H, W), of the label's logit by the
    pixel, summed over its channels; cams: (M, H, W) >= 0, Grad-CAM of the same logit, None where no layer has one.
    """

    images: Tensor
    adversarial: Tensor
    clean_gradients: Tensor
    adversarial_gradients: Tensor
    clean_cams: Tensor | None
    adversarial_cams: Tensor | None
    about: About

    def __post_init__(self) -> None:
        _check(self)


def path_of(run: RunFolder) -> Path:
    """Return the file of a run's explanations, whether it is there or not."""
    return run.results / "explanations.safetensors"


def write(run: RunFolder, explanations: Explanations) -> Path:
    """Write a run's explanations in place of earlier ones and return the path; raises RunError."""
    path = path_of(run)
    named = {name: getattr(explanations, name) for name in (_IMAGES, _ADVERSARIAL, *_MAPS)}
    tensors = {name: tensor for name, tensor in named.items() if tensor is not None}
    about = json.dumps(records.to_json(explanations.about), allow_nan=False, ensure_ascii=False)
    atomic.write_safetensors(path, tensors, {_HEADER: about})
    return path


def read(run: RunFolder) -> Explanations:
    """Return a run's explanations; raises RunError if they are missing, damaged or of another schema."""
    path = path_of(run)
    tensors, header = atomic.read_safetensors(path), atomic.read_about(path)
    try:
        told: object = json.loads(header.get(_HEADER, ""))
    except ValueError:
        told = None
    about = records.from_json(About, told, subject=str(path))
    required = (_IMAGES, _ADVERSARIAL, *_MAPS[:2])
    missing = [name for name in required if name not in tensors]
    if missing:
        raise _mismatch(str(path), ", ".join(required), f"no {', '.join(missing)}")
    return Explanations(
        images=tensors[_IMAGES],
        adversarial=tensors[_ADVERSARIAL],
        clean_gradients=tensors["clean_gradients"],
        adversarial_gradients=tensors["adversarial_gradients"],
        clean_cams=tensors.get("clean_cams"),
        adversarial_cams=tensors.get("adversarial_cams"),
        about=about,
    )


def _check(found: Explanations) -> None:
    about, shape = found.about, tuple(found.images.shape)
    count = len(about.index)
    if found.images.dtype != torch.uint8 or len(shape) != 4 or shape[0] != count:
        raise _mismatch("explained images", f"{count} images of uint8", f"{shape} of {found.images.dtype}")
    wanted = {_ADVERSARIAL: shape} | dict.fromkeys(_MAPS, (count, *shape[2:]))
    for name, expected in wanted.items():
        _check_maps(name, getattr(found, name), expected)
    if any(len(entries) != count for entries in about.lists):
        raise _mismatch("explanations", f"{count} entries in every list", [len(each) for each in about.lists])
    layers = (about.layer is None, found.clean_cams is None, found.adversarial_cams is None)
    if len({*layers}) > 1:
        raise _mismatch("Grad-CAM", "a layer, and maps clean and attacked", "one without the other")


def _check_maps(name: str, maps: Tensor | None, shape: tuple[int, ...]) -> None:
    if maps is None:
        return
    if tuple(maps.shape) != shape or maps.dtype != torch.float32:
        raise _mismatch(name, f"{shape} of float32", f"{tuple(maps.shape)} of {maps.dtype}")
    if not bool(maps.isfinite().all()):
        raise _mismatch(name, "finite numbers", "NaN or infinity")


def _mismatch(subject: str, expected: str, got: object) -> RunError:
    return RunError(subject, expected=expected, got=got, remedy="run `gossamer explain` again")
