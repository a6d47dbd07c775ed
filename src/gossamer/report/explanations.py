"""Where do networks look? Input gradients and Grad-CAM of the same images, a column a run, clean above attacked."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image
from torch import Tensor

from gossamer.report import palette
from gossamer.report.parts import FEW
from gossamer.report.pictures import data_uri
from gossamer.report.views import RunView
from gossamer.report.words import attack_name, percent, threat_of
from gossamer.runs.explanations import About, Explanations

SIDE_BY_SIDE = 6
"""Runs that are drawn at once; a reader chooses which."""

_QUANTILE = 0.99
# Few levels compress well: a map of 32x32 is 1 kB.
_LEVELS = 63
# Pictures are the larger part of a page: all of them together stay below 2 MB, of many runs below 4 MB.
_PIXELS = 600_000
_PIXELS_OF_MANY = 1_200_000
_IMAGES = 8
_IMAGES_OF_MANY = 4
_PICTURES = 5


@dataclass(frozen=True, kw_only=True)
class Map:
    """One map as a data URI; full: the value at full colour; says: what it shows, for who cannot see it."""

    source: str
    full: str
    says: str


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a run says of one image, clean or attacked; image: "" for the clean one, which stands at the row's head.

    text: the class that the network names; sure: how sure it is; right: whether that is the label.
    """

    text: str
    sure: str
    right: bool
    gradient: Map
    cam: Map | None
    image: str = ""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One run; row: of the comparison; shown: drawn at first; looks: (clean, attacked) an image, None for none."""

    name: str
    link: str
    row: int
    shown: bool
    facts: Sequence[str]
    looks: Sequence[tuple[Look, Look] | None]


@dataclass(frozen=True, kw_only=True)
class Explained:
    """Runs that were explained on the same data; images: (source, label, index in the part of the data)."""

    key: str
    title: str
    facts: Sequence[str]
    images: Sequence[tuple[str, str, int]]
    columns: Sequence[Column]
    gradient_scale: str
    cam_scale: str
    notes: Sequence[str]
    commands: Sequence[str]


def explained(views: Sequence[RunView], rows: dict[str, int], anchors: dict[str, str]) -> list[Explained]:
    """Return a section a data set; rows: of the comparison by a run's name, anchors: of the runs' own sections."""
    by_data: dict[tuple[str, str, str], list[tuple[RunView, Explanations]]] = {}
    for view in views:
        if (found := view.explanations) is not None:
            dataset = found.about.dataset
            by_data.setdefault((dataset.name, dataset.part, dataset.checksum), []).append((view, found))
    without = sum(view.explanations is None for view in views)
    return [
        _section(pairs, f"explained-{number}", rows, anchors, without, len(by_data) > 1)
        for number, pairs in enumerate(by_data.values(), start=1)
    ]


def _section(
    pairs: Sequence[tuple[RunView, Explanations]],
    key: str,
    rows: dict[str, int],
    anchors: dict[str, str],
    without: int,
    several: bool,
) -> Explained:
    fullest = max((found for _, found in pairs), key=lambda found: len(found.about.index))
    count, runs = _room(fullest, len(pairs))
    index, drawn = fullest.about.index[:count], pairs[:runs]
    first = _first(drawn)
    images = [
        (data_uri(fullest.images[i].float() / 255), _class(fullest.about, fullest.about.labels[i]), sample)
        for i, sample in enumerate(index)
    ]
    dataset, total = fullest.about.dataset, len(fullest.about.index)
    notes = [f"{count} of {total} images are shown: the page has no room for more."] if count < total else []
    if runs < len(pairs):
        notes.append(f"{runs} of {len(pairs)} runs are shown: the page has no room for more.")
    if without:
        notes.append(
            f"{without} run{'s' * (without != 1)} of this page without maps: `gossamer explain RUN` makes them."
        )
    return Explained(
        key=key,
        title="Input gradients and Grad-CAM" + (f", {dataset.name}" if several else ""),
        facts=[f"{dataset.name} {dataset.part}: {dataset.selection}", *_shared(drawn)],
        images=images,
        columns=[
            Column(
                name=view.name,
                link=anchors[view.name],
                row=rows[view.name],
                shown=view.name in first,
                facts=_own_facts(found.about, drawn),
                looks=[_looks(view.name, found, sample) for sample in index],
            )
            for view, found in drawn
        ],
        gradient_scale=_scale(palette.DIVERGING),
        cam_scale=_scale(palette.RISING),
        notes=notes,
        commands=list(dict.fromkeys(command for _, found in drawn if (command := _command(found.about)))),
    )


def _room(fullest: Explanations, runs: int) -> tuple[int, int]:
    """Return how many images, and of how many runs, the page has room for: at least one of each."""
    height, width = fullest.images.shape[-2:]
    many = runs > FEW
    room = max(1, (_PIXELS_OF_MANY if many else _PIXELS) // (_PICTURES * height * width))
    most = _IMAGES_OF_MANY if many else _IMAGES
    return max(1, min(len(fullest.about.index), most, room // runs)), min(runs, room) if many else runs


def _first(pairs: Sequence[tuple[RunView, Explanations]]) -> set[str]:
    """Return the runs to draw at first: the first ones, and a dense one among them where there is one."""
    names = [view.name for view, _ in pairs]
    dense = [view.name for view, _ in pairs if view.network is not None and view.network.totals.density == 1]
    chosen = names[:SIDE_BY_SIDE]
    if dense and not {*dense} & {*chosen}:
        chosen[-1] = dense[0]
    return {*chosen}


def _looks(run: str, found: Explanations, sample: int) -> tuple[Look, Look] | None:
    about = found.about
    if sample not in about.index:
        return None
    i = about.index.index(sample)
    clean = _look(
        f"{run}, image {sample}, clean",
        about,
        i,
        said=(about.clean_predictions[i], about.clean_confidences[i]),
        gradients=found.clean_gradients,
        cams=found.clean_cams,
    )
    attacked = _look(
        f"{run}, image {sample}, attacked",
        about,
        i,
        said=(about.adversarial_predictions[i], about.adversarial_confidences[i]),
        gradients=found.adversarial_gradients,
        cams=found.adversarial_cams,
    )
    return clean, replace(attacked, image=data_uri(found.adversarial[i]))


def _look(which: str, about: About, i: int, *, said: tuple[int, float], gradients: Tensor, cams: Tensor | None) -> Look:
    prediction, confidence = said
    return Look(
        text=_class(about, prediction),
        sure=percent(confidence),
        right=prediction == about.labels[i],
        gradient=_map(f"input gradient of {which}", gradients[i], palette.DIVERGING, signed=True),
        cam=None if cams is None else _map(f"Grad-CAM of {which}", cams[i], palette.RISING, signed=False),
    )


def _map(says: str, values: Tensor, stops: Sequence[palette.Colour], *, signed: bool) -> Map:
    """Return a map over its own 99th percentile of magnitudes, beyond which colours are full; values: (H, W)."""
    magnitudes = values.abs().flatten()
    full = float(np.quantile(magnitudes.numpy(), _QUANTILE)) or float(magnitudes.max())
    relative = (values / full).clamp(-1, 1) if full else values
    share = (relative + 1) / 2 if signed else relative
    levels = (share * (_LEVELS - 1)).round().byte().numpy()
    told = f"{'±' if signed else ''}{full:.2g}" if full else "0"
    return Map(source=_png(levels, stops), full=told, says=f"{says}, full colour at {told}")


def _png(levels: "np.typing.NDArray[np.uint8]", stops: Sequence[palette.Colour]) -> str:
    image = Image.fromarray(levels).convert("P")
    image.putpalette([part for colour in palette.steps(stops, _LEVELS) for part in colour])
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _scale(stops: Sequence[palette.Colour]) -> str:
    """Return a bar of the colours, from the least value to the greatest."""
    return _png(np.arange(_LEVELS, dtype=np.uint8)[None, :], stops)


def _shared(pairs: Sequence[tuple[RunView, Explanations]]) -> list[str]:
    """Return what holds for all runs of a section."""
    return [next(iter(told)) for told in _told(found.about for _, found in pairs) if len(told) == 1 and "" not in told]


def _own_facts(about: About, pairs: Sequence[tuple[RunView, Explanations]]) -> list[str]:
    """Return what holds for a run and not for all of its section."""
    own, of_all = _told([about]), _told(found.about for _, found in pairs)
    return [next(iter(mine)) for mine, told in zip(own, of_all, strict=True) if len(told) > 1 and "" not in mine]


def _told(abouts: Iterable[About]) -> list[set[str]]:
    found: tuple[set[str], ...] = (set(), set(), set())
    for about in abouts:
        name = attack_name(about.attack, about.attack_parameters)
        told = (
            f"white box: {name}, {threat_of(about.threat)}",
            f"Grad-CAM at {about.layer}" if about.layer else f"no Grad-CAM: {about.reason}",
            f"mean of {about.passes} draws of the network's noise" if about.passes > 1 else "",
        )
        for each, text in zip(found, told, strict=True):
            each.add(text)
    return list(found)


def _command(about: About) -> str:
    command = about.environment.get("command")
    return command if isinstance(command, str) else ""


def _class(about: About, label: int) -> str:
    return about.classes[label] if 0 <= label < len(about.classes) else str(label)
