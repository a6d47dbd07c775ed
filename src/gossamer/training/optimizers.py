"""How weights move: SGD with coupled decay (torch's own), and SGD that decays first, decoupled from the gradient."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from gossamer.errors import ConfigError

Kind = Literal["sgd", "sgdw", "decay-first-sgd", "adam", "adamw"]


class DecayFirstSGD(Optimizer):
    """SGD with momentum that shrinks every trainable before its gradient step.

    x <- x - d * x; v <- momentum * v - lr * g; x <- x + v, with d = weight_decay, or lr * weight_decay where
    `decay_times_lr`. As in Keras, the learning rate is inside the velocity: at a drop of the rate the old velocity
    keeps the old rate (torch's SGD differs). As in TensorFlow Addons' SGDW, the decay is not multiplied by the
    learning rate unless asked; schedules move both.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        decay_times_lr: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "decay_times_lr": decay_times_lr,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step with the gradients as they stand."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            decay = group["weight_decay"] * (group["lr"] if group["decay_times_lr"] else 1.0)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                velocity = self._velocity(parameter)
                parameter.mul_(1.0 - decay)
                velocity.mul_(group["momentum"]).sub_(parameter.grad, alpha=group["lr"])
                parameter.add_(velocity)
        return loss

    def _velocity(self, parameter: nn.Parameter) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]


@dataclass(frozen=True, kw_only=True)
class OptimizerSpec:
    """An optimiser to be made for a model.

    kind: `sgd` adds decay to the gradient (torch's SGD); `sgdw` shrinks weights by lr * weight_decay first;
    `decay-first-sgd` shrinks by weight_decay itself, as published for BCS, and its
    decay moves with the learning rate; `adam` and `adamw` are torch's, with betas 0.9 (`momentum`) and 0.999.
    nesterov: of `sgd` alone. Raises ConfigError.
    """

    kind: Kind = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = False

    def __post_init__(self) -> None:
        if self.nesterov and (self.kind != "sgd" or self.momentum == 0):
            raise ConfigError(
                "training.optimizer.nesterov",
                expected="kind sgd with momentum above 0",
                got=f"kind {self.kind} with momentum {self.momentum}",
                remedy="leave nesterov out, or choose kind: sgd",
            )

    def scaled(self, share: float) -> "OptimizerSpec":
        """Return the same optimiser at a share of the learning rate; a decay that moves with the rate moves too."""
        moving = share if self.kind == "decay-first-sgd" else 1.0
        return replace(self, lr=self.lr * share, weight_decay=self.weight_decay * moving)

    def build(self, model: nn.Module, undecayed: Collection[nn.Parameter] = ()) -> Optimizer:
        """Return the optimiser over every trainable parameter of the model; undecayed: those without decay."""
        parameters = self._groups([p for p in model.parameters() if p.requires_grad], undecayed)
        if self.kind in ("adam", "adamw"):
            make = Adam if self.kind == "adam" else AdamW
            return make(parameters, lr=self.lr, betas=(self.momentum, 0.999), weight_decay=self.weight_decay)
        if self.kind == "sgd":
            return SGD(
                parameters,
                lr=self.lr,
                momentum=self.momentum,
                weight_decay=self.weight_decay,
                nesterov=self.nesterov,
            )
        return DecayFirstSGD(
            parameters,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            decay_times_lr=self.kind == "sgdw",
        )

    @staticmethod
    def _groups(parameters: list[nn.Parameter], undecayed: Collection[nn.Parameter]) -> Any:
        if not undecayed:
            return parameters
        apart = {id(parameter) for parameter in undecayed}
        return [
            {"params": [p for p in parameters if id(p) not in apart]},
            {"params": [p for p in parameters if id(p) in apart], "weight_decay": 0.0},
        ]

    def set_rates(self, optimizer: Optimizer, factor: float) -> float:
        """Set the rates of a step to `factor` of their base, and return the learning rate."""
        for position, group in enumerate(optimizer.param_groups):
            group["lr"] = self.lr * factor
            if self.kind == "decay-first-sgd" and position == 0:
                group["weight_decay"] = self.weight_decay * factor
        return self.lr * factor
