"""What exactly is evaluated? A description by which partial results are known to belong to an evaluation."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.data import DataSet
from gossamer.evaluation.parts import within
from gossamer.evaluation.trials import Trial, parameters
from gossamer.types import Attack


def plan_of(model: nn.Module, dataset: DataSet, trials: Sequence[Trial], **settings: Any) -> dict[str, Any]:
    """Return everything that decides an evaluation's outcome but the batch size; settings: plain values."""
    return {
        "model": fingerprint(model),
        "data": {"checksum": dataset.checksum, "samples": _digest_of(dataset.index)},
        "attacks": [
            [trial.name, str(trial.threat), parameters(trial.attack), _networks_of(trial.attack)] for trial in trials
        ],
        **settings,
    }


def digest(plan: object) -> str:
    """Return a short name of a plan: the beginning of the SHA-256 of its JSON."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:12]


def fingerprint(model: nn.Module) -> str:
    """Return a hash of a model's class, parameters and buffers: equal for equal networks."""
    found = hashlib.sha256(f"{type(model).__module__}.{type(model).__qualname__}".encode())
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance] - a module may keep extra state
            found.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
            found.update(_bytes(tensor))
    return found.hexdigest()


def _networks_of(attack: Attack) -> list[str]:
    """Return the fingerprints of the other networks that an attack holds, at any depth: sources, surrogates."""
    held = (
        getattr(each, field.name)
        for each in within(attack)
        if dataclasses.is_dataclass(each)
        for field in dataclasses.fields(each)
    )
    return [fingerprint(value) for value in held if isinstance(value, nn.Module)]


def _digest_of(tensor: Tensor) -> str:
    return hashlib.sha256(_bytes(tensor)).hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
