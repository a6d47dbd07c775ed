"""What a checkpoint of training holds: everything that the next step depends on, as flat tensors and JSON."""

from collections.abc import Mapping, MutableMapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gossamer.sparsity import Sparsifier
from gossamer.training.averages import Average
from gossamer.training.monitors import GO, Highest, Monitor, Verdict
from gossamer.training.totals import Totals
from gossamer.types import Objective


@dataclass(kw_only=True)
class Training:
    """The moving parts of one phase; objective: as completed for this run.

    epoch: of the next step, 0-based; index: steps done in that epoch; step: steps done in the phase; state: the
    objective's own tensors; seconds: time trained, over all attempts; rate: the last step's learning rate;
    verdict: what the monitors decided at the last epoch's end.
    """

    model: nn.Module
    objective: Objective
    optimizer: Optimizer
    sparsifier: Sparsifier
    average: Average | None
    monitors: list[Monitor]
    best: Highest | None
    totals: Totals = field(default_factory=Totals)
    state: MutableMapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    epoch: int = 0
    index: int = 0
    step: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    rate: float = 0.0
    verdict: Verdict = GO

    def advance(self, seconds: float) -> None:
        """Count one step that took `seconds`."""
        self.index += 1
        self.step += 1
        self.seconds += seconds
        self.epoch_seconds += seconds

    def next_epoch(self) -> None:
        """Move to the first step of the next epoch."""
        self.epoch += 1
        self.index = 0
        self.epoch_seconds = 0.0
        self.totals = Totals()

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor under a name that says where it belongs."""
        parts: dict[str, Mapping[str, Tensor]] = {
            "model": self.model.state_dict(),
            "optimizer": _optimizer_tensors(self.optimizer),
            "sparsifier": self.sparsifier.state_dict(),
            "average": self.average.state_dict() if self.average else {},
            "totals": self.totals.state_dict(),
            "state": self.state,
        }
        return {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}

    def meta(self) -> dict[str, Any]:
        """Return the rest, as JSON."""
        return {
            "epoch": self.epoch,
            "index": self.index,
            "step": self.step,
            "seconds": self.seconds,
            "epoch_seconds": self.epoch_seconds,
            "monitors": [monitor.state_dict() for monitor in self.monitors],
            "best": self.best.state_dict() if self.best else None,
            "rate": self.rate,
            "verdict": asdict(self.verdict),
        }

    def restore(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Take back what `tensors` and `meta` gave, after the parts were made anew."""
        self.model.load_state_dict(_part(tensors, "model"))
        _load_optimizer(self.optimizer, _part(tensors, "optimizer"))
        self.sparsifier.load_state_dict(_part(tensors, "sparsifier"))
        if self.average:
            self.average.load_state_dict(_part(tensors, "average"))
        self.totals.load_state_dict(_part(tensors, "totals"))
        device = _parameters(self.optimizer)[0].device
        self.state.update({name: value.to(device) for name, value in _part(tensors, "state").items()})
        self.epoch, self.index, self.step = meta["epoch"], meta["index"], meta["step"]
        self.seconds, self.epoch_seconds = meta["seconds"], meta["epoch_seconds"]
        self.rate, self.verdict = meta["rate"], Verdict(**meta["verdict"])
        for monitor, state in zip(self.monitors, meta["monitors"], strict=True):
            monitor.load_state_dict(state)
        if self.best:
            self.best.load_state_dict(meta["best"])


def _part(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    prefix = f"{part}/"
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    return {
        f"{position}/{name}": value
        for position, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def _load_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = _parameters(optimizer)
    for key, value in tensors.items():
        position, name = key.split("/", 1)
        parameter = parameters[int(position)]
        # A buffer of the parameter's shape takes its memory format too: what is summed in which order is bits.
        own = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
        optimizer.state[parameter][name] = own.to(value.dtype)
