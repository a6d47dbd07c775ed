"""What do the perturbed images look like? Pictures as tensors, what the model said of them as JSON."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from gossamer.errors import RunError
from gossamer.runs import atomic, records
from gossamer.runs.layout import RunFolder, checked_name


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """What the model said of one image over rising eps, in pixel units of [0, 1]; E entries in every list."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    eps: tuple[float, ...]
    label: int
    predictions: tuple[int, ...]
    confidences: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Captions:
    """What belongs to the pictures; classes: names by label; M entries in every other list."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/panel/1"
    attack: str
    threat: str
    classes: tuple[str, ...]
    labels: tuple[int, ...]
    clean_predictions: tuple[int, ...]
    clean_confidences: tuple[float, ...]
    adversarial_predictions: tuple[int, ...]
    adversarial_confidences: tuple[float, ...]
    ladder: Ladder | None = None


@dataclass(frozen=True, kw_only=True)
class Panel:
    """images: (M, C, H, W) uint8; adversarial: (M, C, H, W) float32 in [0, 1]; ladder: (E, C, H, W) float32 or None."""

    images: Tensor
    adversarial: Tensor
    ladder: Tensor | None
    captions: Captions

    def __post_init__(self) -> None:
        _check(self)


def write(run: RunFolder, name: str, panel: Panel) -> None:
    """Write `panel/NAME.safetensors` and `panel/NAME.json`; raises RunError where the file system refuses."""
    stem = run.panel / checked_name(name)
    tensors = {"images": panel.images, "adversarial": panel.adversarial}
    if panel.ladder is not None:
        tensors["ladder"] = panel.ladder
    atomic.write_safetensors(stem.with_name(f"{stem.name}.safetensors"), tensors)
    # The JSON names the panel, so it comes second.
    records.write(stem.with_name(f"{stem.name}.json"), panel.captions)


def read(run: RunFolder, name: str) -> Panel:
    """Return a panel; raises RunError if it is missing, damaged or of another schema."""
    captions = records.read(Captions, run.panel / f"{checked_name(name)}.json")
    path = run.panel / f"{name}.safetensors"
    tensors = atomic.read_safetensors(path)
    missing = {"images", "adversarial"} - tensors.keys()
    if missing:
        raise _mismatch(str(path), "images and adversarial", f"no {', '.join(sorted(missing))}")
    return Panel(
        images=tensors["images"],
        adversarial=tensors["adversarial"],
        ladder=tensors.get("ladder"),
        captions=captions,
    )


def names(run: RunFolder) -> list[str]:
    """Return the names of the run's panels, sorted."""
    return sorted(path.stem for path in records.files(run.panel))


def _check(panel: Panel) -> None:
    captions = panel.captions
    shape, count = tuple(panel.images.shape), len(captions.labels)
    if panel.images.dtype != torch.uint8 or len(shape) != 4 or shape[0] != count:
        raise _mismatch("panel images", f"{count} images of uint8", f"{shape} of {panel.images.dtype}")
    if tuple(panel.adversarial.shape) != shape or panel.adversarial.dtype != torch.float32:
        got = f"{tuple(panel.adversarial.shape)} of {panel.adversarial.dtype}"
        raise _mismatch("panel adversarial images", f"{shape} of float32", got)
    lists = (
        captions.clean_predictions,
        captions.clean_confidences,
        captions.adversarial_predictions,
        captions.adversarial_confidences,
    )
    if any(len(entries) != count for entries in lists):
        raise _mismatch("panel captions", f"{count} entries in every list", [len(entries) for entries in lists])
    _check_ladder(panel.ladder, captions.ladder)


def _check_ladder(images: Tensor | None, ladder: Ladder | None) -> None:
    if images is None and ladder is None:
        return
    if images is None or ladder is None:
        raise _mismatch("panel ladder", "pictures and captions", "one without the other")
    rungs = len(ladder.eps)
    got = (images.shape[0], len(ladder.predictions), len(ladder.confidences))
    if images.ndim != 4 or any(length != rungs for length in got):
        raise _mismatch("panel ladder", f"{rungs} pictures, predictions and confidences", got)


def _mismatch(subject: str, expected: str, got: object) -> RunError:
    return RunError(subject, expected=expected, got=got, remedy="draw the panel again")
