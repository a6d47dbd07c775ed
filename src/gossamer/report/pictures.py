"""How are images shown? As PNGs inside the page: clean, perturbed, their difference amplified, and over rising eps."""

import base64
import io
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from gossamer.report.parts import FEW, Picture, Strip
from gossamer.report.words import percent, radius
from gossamer.runs.panel import Panel

# Noise hardly compresses: three 32x32 pictures of ten samples are 120 kB, and a page should stay below 4 MB.
_PIXELS = 240_000
_SAMPLES = 10
# Of many runs, a quarter of what a page of 15 MB may be.
_PIXELS_OF_MANY = 1_000_000
_SAMPLES_OF_MANY = 4
_SHOWN_WIDTH = 84


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image three times: as it is, perturbed, and the difference."""

    label: str
    clean: Picture
    adversarial: Picture
    difference: Picture


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A panel ready for the page; amplified: the factor on the differences; width: of a picture in CSS pixels.

    ladder: one image over rising eps, where the panel has it and there is room.
    """

    samples: list[Sample]
    total: int
    attack: str
    threat: str
    amplified: str
    width: int
    ladder: Strip | None


def show(panel: Panel, *, runs: int = 1) -> Shown:
    """Return the pictures of a panel, as many samples as the page has room for with `runs` runs on it.

    Of a few runs at least one; of many it may be none, and they have no ladder.
    """
    captions, many = panel.captions, runs > FEW
    height, width = panel.images.shape[-2:]
    room = (_PIXELS_OF_MANY if many else _PIXELS) // max(1, 3 * runs * height * width)
    room = room if many else max(1, room)
    count = min(len(captions.labels), _SAMPLES_OF_MANY if many else _SAMPLES, room)
    clean = panel.images[:count].float() / 255
    adversarial = panel.adversarial[:count]
    difference = adversarial - clean
    factor = _amplification(difference)
    names = [_class(captions.classes, label) for label in captions.labels]
    samples = [
        Sample(
            label=names[i],
            clean=_said(
                clean[i],
                captions.classes,
                captions.clean_predictions[i],
                captions.clean_confidences[i],
                captions.labels[i],
            ),
            adversarial=_said(
                adversarial[i],
                captions.classes,
                captions.adversarial_predictions[i],
                captions.adversarial_confidences[i],
                captions.labels[i],
            ),
            difference=Picture(source=data_uri(0.5 + factor * difference[i]), text=""),
        )
        for i in range(count)
    ]
    return Shown(
        samples=samples,
        total=len(captions.labels),
        attack=captions.attack,
        threat=captions.threat,
        amplified=f"{factor:.3g}",
        width=_shown(width),
        ladder=None if many else ladder(panel, most=room * 3),
    )


def ladder(panel: Panel, *, most: int | None = None) -> Strip | None:
    """Return a panel's image over rising eps, no more than `most` times; None where it has none."""
    rungs, climbed = panel.captions.ladder, panel.ladder
    if rungs is None or climbed is None:
        return None
    classes = panel.captions.classes
    return Strip(
        title=f"One image of {_class(classes, rungs.label)} as eps rises",
        pictures=[
            replace(picture, text=f"eps {radius(eps)}: {picture.text}")
            for i, eps in enumerate(rungs.eps[:most])
            for picture in [_said(climbed[i], classes, rungs.predictions[i], rungs.confidences[i], rungs.label)]
        ],
        width=_shown(climbed.shape[-1]),
    )


def data_uri(image: Tensor) -> str:
    """Return an image as a PNG data URI; image: (C, H, W) in [0, 1], clipped and rounded to 8 bits."""
    levels = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    if levels.shape[0] == 3:
        drawn = Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())
    else:
        drawn = Image.fromarray(levels.float().mean(dim=0).to(torch.uint8).numpy())
    file = io.BytesIO()
    drawn.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _amplification(difference: Tensor) -> float:
    largest = float(difference.abs().max()) if difference.numel() else 0.0
    return 0.5 / largest if largest > 0 else 1.0


def _shown(width: int) -> int:
    """Return how wide a picture of so many pixels is shown, in CSS pixels."""
    return max(_SHOWN_WIDTH, min(width, 224))


def _said(image: Tensor, classes: tuple[str, ...], prediction: int, confidence: float, label: int) -> Picture:
    text = f"{_class(classes, prediction)} {percent(confidence)}"
    return Picture(source=data_uri(image), text=text, right=prediction == label)


def _class(classes: tuple[str, ...], label: int) -> str:
    return classes[label] if 0 <= label < len(classes) else str(label)
