"""How well does a model see through fog and noise? Accuracy on a folder of corrupted images in CIFAR-10-C's layout.

The layout (Hendrycks & Dietterich, ICLR 2019): one file NAME.npy a corruption, uint8 of shape (5 M, H, W, C), the M
test images at severity 1, then at 2, and so on to 5; and labels.npy of shape (5 M,). M is 10,000 for CIFAR-10-C.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gossamer.errors import ConfigError, DataError
from gossamer.evaluation.batches import Batches, default_batch_size
from gossamer.evaluation.cells import cell_path, kept, mark_of
from gossamer.evaluation.judge import predict
from gossamer.evaluation.setting import check_models, share_of
from gossamer.evaluation.subject import at_rest, count_classes, place_of, seed_noise
from gossamer.runs import atomic
from gossamer.runs.environment import environment
from gossamer.runs.protocols import CorruptedModel, Corruption, CorruptionTable
from gossamer.seeding import derive

SEVERITIES = 5
COUNTED = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
"""The 15 corruptions that the published mean is taken over; others in the folder are extra."""


@dataclass(frozen=True, kw_only=True)
class CorruptedImages:
    """A checked folder; files: NAME.npy by corruption, the counted ones first; labels: (M,) of one severity."""

    folder: Path
    files: Mapping[str, Path]
    labels: Tensor

    @classmethod
    def open(cls, folder: Path | str) -> "CorruptedImages":
        """Return the folder's images; nothing is unpickled. Raises DataError where a file is not what it should be."""
        path = Path(folder)
        labels = _labels(path / "labels.npy")
        found = {each.stem: each for each in sorted(path.glob("*.npy")) if each.stem != "labels"}
        if not found:
            raise DataError(
                f"corruptions in {path}",
                expected="files such as fog.npy",
                got="none",
                remedy="give the folder of CIFAR-10-C as it was unpacked",
            )
        known = [name for name in COUNTED if name in found]
        ordered = {name: found[name] for name in [*known, *(name for name in found if name not in COUNTED)]}
        shapes = {name: _images(file).shape for name, file in ordered.items()}
        wrong = [name for name, shape in shapes.items() if shape[0] != SEVERITIES * len(labels)]
        if wrong:
            raise DataError(
                str(ordered[wrong[0]]),
                expected=f"{SEVERITIES * len(labels)} images, as labels.npy says",
                got=shapes[wrong[0]],
                remedy="unpack the archive again",
            )
        return cls(folder=path, files=ordered, labels=labels)

    def images(self, name: str, severity: int, positions: Tensor) -> Tensor:
        """Return images at positions: (B,) of one severity, 1 to 5, as float32 (B, C, H, W) in [0, 1]."""
        rows = positions.numpy() + (severity - 1) * len(self.labels)
        chosen = torch.from_numpy(np.ascontiguousarray(_images(self.files[name])[rows]))
        return chosen.permute(0, 3, 1, 2).float().div_(255)


def corruptions(
    models: Mapping[str, nn.Module],
    folder: Path | str,
    *,
    n: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    cells: Path | None = None,
) -> CorruptionTable:
    """Measure every model's accuracy under every corruption and severity of a folder.

    n: the first so many images of each severity, all by default. cells: a folder for finished corruptions, from
    which a killed protocol goes on. Raises ConfigError for impossible arguments, DataError for a damaged folder.
    """
    check_models(models)
    held = CorruptedImages.open(folder)
    if n is not None and not 1 <= n <= len(held.labels):
        raise ConfigError("n", expected=f"a number from 1 to {len(held.labels)}", got=n, remedy="leave it out for all")
    count = n or len(held.labels)
    rows = tuple(_row(name, model, held, count, seed, batch_size, device, cells) for name, model in models.items())
    return CorruptionTable(
        folder=str(folder),
        n=count,
        counted=sum(name in COUNTED for name in held.files) or len(held.files),
        rows=rows,
        environment=environment(place_of(next(iter(models.values())), device)),
    )


def _row(
    name: str,
    model: nn.Module,
    held: CorruptedImages,
    n: int,
    seed: int,
    batch_size: int | None,
    device: torch.device | str | None,
    cells: Path | None,
) -> CorruptedModel:
    place = place_of(model, device)
    mark = mark_of(model, held.images(next(iter(held.files)), 1, torch.arange(1)), device)
    done: list[Corruption] = []
    with at_rest(model, place) as resting:
        _check_classes(resting, held, place)
        for corruption, file in held.files.items():
            checksum = atomic.sha256(file)
            plan = [name, mark, corruption, checksum, n, seed]

            def measure(corruption: str = corruption, checksum: str = checksum) -> Corruption:
                seed_noise(derive(seed, "corruptions", corruption), place)
                size = batch_size or default_batch_size(held.images(corruption, 1, torch.arange(1)).numel(), place)
                shares = [
                    share_of(_right(resting, held, corruption, severity, n, Batches(size), place))
                    for severity in range(1, SEVERITIES + 1)
                ]
                extra = corruption not in COUNTED
                return Corruption(name=corruption, extra=extra, checksum=checksum, accuracy=tuple(shares))

            done.append(kept(cell_path(cells, f"{name}-{corruption}", plan), Corruption, measure))
    return _summed(name, done)


def _right(
    model: nn.Module,
    held: CorruptedImages,
    corruption: str,
    severity: int,
    n: int,
    batches: Batches,
    place: torch.device,
) -> Tensor:
    def look(positions: Tensor) -> Tensor:
        logits = predict(model, held.images(corruption, severity, positions).to(place), index=positions)
        return logits.argmax(dim=1).cpu() == held.labels[positions]

    return torch.cat(list(batches.run(look, torch.arange(n))))


def _summed(name: str, done: list[Corruption]) -> CorruptedModel:
    counted = [each for each in done if not each.extra] or done
    by_severity = tuple(
        sum(each.accuracy[severity].value for each in counted) / len(counted) for severity in range(SEVERITIES)
    )
    mean = sum(by_severity) / SEVERITIES
    return CorruptedModel(name=name, corruptions=tuple(done), by_severity=by_severity, mean=mean)


def _check_classes(model: nn.Module, held: CorruptedImages, place: torch.device) -> None:
    first = next(iter(held.files))
    classes = count_classes(model, held.images(first, 1, torch.arange(1)).to(place))
    highest = int(held.labels.max())
    if highest >= classes:
        raise DataError(
            str(held.folder / "labels.npy"),
            expected=f"labels in [0, {classes}), as the model has {classes} logits",
            got=f"up to {highest}",
            remedy="give the corruptions of the data set that the model was trained for",
        )


def _images(file: Path) -> NDArray[Any]:
    found = _mapped(file)
    if found.dtype == np.uint8 and found.ndim == 4 and found.shape[3] in (1, 3):
        return found
    raise DataError(
        str(file),
        expected="uint8 images of shape (5 M, H, W, C)",
        got=f"{found.dtype} of shape {found.shape}",
        remedy="unpack the archive again",
    )


def _labels(file: Path) -> Tensor:
    found = _mapped(file)
    whole = np.issubdtype(found.dtype, np.integer) and found.ndim == 1 and len(found) and len(found) % SEVERITIES == 0
    parts = np.asarray(found).reshape(SEVERITIES, -1) if whole else np.zeros((2, 1))
    if not whole or parts.min() < 0 or (parts != parts[0]).any():
        raise DataError(
            str(file),
            expected=f"the labels of M images, {SEVERITIES} times over",
            got=f"{found.dtype} of shape {found.shape}" + (", not repeated" if whole else ""),
            remedy="unpack the archive again",
        )
    return torch.from_numpy(parts[0].astype(np.int64))


def _mapped(file: Path) -> NDArray[Any]:
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(
            str(file),
            expected="an array in NumPy's format, without pickled objects",
            got="no file" if isinstance(error, FileNotFoundError) else str(error).splitlines()[0],
            remedy="give the folder of CIFAR-10-C as it was unpacked",
        ) from error
