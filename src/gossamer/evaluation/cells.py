"""How does a protocol survive a kill? What is finished lies as JSON under the hash of everything that decides it."""

import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from gossamer.evaluation.adapters import Foreign
from gossamer.evaluation.judge import predict
from gossamer.evaluation.plan import digest, fingerprint
from gossamer.evaluation.subject import at_rest, place_of, seed_noise
from gossamer.runs import records
from gossamer.seeding import derive

Record = TypeVar("Record")

_FREE = re.compile(r"[^A-Za-z0-9_.=-]+")


def cell_path(folder: Path | None, name: str, plan: object) -> Path | None:
    """Return the file of a cell in a folder, None without one; plan: plain JSON, everything that decides the cell."""
    if folder is None:
        return None
    mark = digest([version("gossamer"), plan])
    return folder / f"{_FREE.sub('-', name).strip('-.')[:60] or 'cell'}-{mark}.json"


def mark_of(model: nn.Module, example: Tensor, device: torch.device | str | None = None) -> str:
    """Return what tells a model from others: its fingerprint, with its logits where not all of it is seen in tensors.

    example: (B, C, H, W) in [0, 1], a few images, on which a model of another library or without tensors is called.
    """
    mark = fingerprint(model)
    if model.state_dict() and not any(isinstance(module, Foreign) for module in model.modules()):
        return mark
    place = place_of(model, device)
    with at_rest(model, place) as resting:
        seed_noise(derive(0, "mark"), place)
        logits = predict(resting, example.to(place))
    return digest([mark, [[f"{value:.3g}" for value in row] for row in logits.tolist()]])


def kept(path: Path | None, kind: type[Record], make: Callable[[], Record]) -> Record:
    """Return the record in a file, made and written first where there is none; without a path it is only made."""
    if path is None:
        return make()
    if not path.exists():
        records.write(path, make())
    return records.read(kind, path)
